"""Where random choices come from: one source for the whole library, which a test can replace or seed."""

from __future__ import annotations

import random

__all__ = ["random_source", "set_random_source"]

_source = random.Random()


def set_random_source(source: random.Random) -> random.Random:
    """Draw every random choice of this library from `source` from now on; return the source until now.

    ``set_random_source(random.Random(seed))`` makes every `select` that is not biased repeat its choices. It applies to
    all threads.
    """
    global _source
    previous, _source = _source, source
    return previous


def random_source() -> random.Random:
    """The source of random choices: what is random in a primitive of yours, too, should come from here."""
    return _source
