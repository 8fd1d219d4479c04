"""Where random choices come from: one source, which a test can replace or seed."""

from __future__ import annotations

import random

__all__ = ["choose", "set_random_source"]

_source = random.Random()


def set_random_source(source: random.Random) -> random.Random:
    """Draw the random choices of this area from `source` from now on; return the source until now.

    ``set_random_source(random.Random(seed))`` makes every `select` that is not biased repeat its choices. It applies to
    all threads.
    """
    global _source
    previous, _source = _source, source
    return previous


def choose(count: int) -> int:
    """A number below `count`."""
    return int(_source.random() * count)
