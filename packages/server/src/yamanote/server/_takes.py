"""What a function can be called with, as far as it says so.

Invariant: nothing is called, and who does not say it is not accused: some functions written in C have no signature.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from functools import partial

__all__ = ["require_takes"]

if sys.version_info >= (3, 14):
    from annotationlib import Format

    # Annotations may speak of names that only a type checker has.
    _signature = partial(inspect.signature, annotation_format=Format.FORWARDREF)
else:
    _signature = inspect.signature


def require_takes(function: Callable[..., object], args: tuple[object, ...], problem: str) -> None:
    """Raise TypeError with this `problem`, and what is wrong, if the function cannot be called with these arguments."""
    try:
        signature = _signature(function)
    except (TypeError, ValueError):
        return
    try:
        signature.bind(*args)
    except TypeError as error:
        raise TypeError(f"{problem}, not {function!r}: {error}") from None
