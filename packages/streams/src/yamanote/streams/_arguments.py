"""What operators accept: functions, plain or async, and counts."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable

__all__ = ["is_async", "name_of", "refuse_coroutine", "require_count", "require_function", "require_seconds"]


def is_async(function: Callable[..., object]) -> bool:
    """Whether calling `function` gives a coroutine: decided once, when an operator is applied, by how it was defined.

    Sees through `functools.partial`, bound methods and objects with an ``async def __call__``. A plain function that
    happens to return an awaitable counts as plain.
    """
    if inspect.iscoroutinefunction(function):
        return True
    while isinstance(function, functools.partial):
        function = function.func
    return inspect.iscoroutinefunction(getattr(type(function), "__call__", None))  # noqa: B004  # not whether, but which


def require_function(name: str, function: object) -> None:
    """Raise TypeError that names the argument unless `function` can be called."""
    if not callable(function):
        raise TypeError(f"{name} must be a function, not {function!r}")


def refuse_coroutine(function: Callable[..., object], result: object) -> None:
    """Raise TypeError, and close it, if what a plain `function` returned is a coroutine, which nobody would await."""
    if inspect.iscoroutine(result):
        result.close()
        raise TypeError(
            f"{name_of(function)} is no async function, but returned a coroutine, which nobody would await: "
            "pass the async function itself"
        )


def require_count(name: str, count: int, least: int = 1) -> None:
    """Raise TypeError or ValueError that names the argument unless `count` is a whole number, at least `least`."""
    if isinstance(count, bool) or not isinstance(count, int):
        raise TypeError(f"{name} must be a whole number, not {count!r}")
    if count < least:
        raise ValueError(f"{name} must be at least {least}, not {count}")


def require_seconds(name: str, seconds: float) -> None:
    """Raise TypeError or ValueError that names the argument unless `seconds` is a number greater than zero."""
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        advice = ": call its total_seconds()" if hasattr(seconds, "total_seconds") else ""
        raise TypeError(f"{name} must be a number of seconds, not {seconds!r}{advice}")
    try:
        seconds = float(seconds)
    except OverflowError:
        raise ValueError(f"{name} must be a number of seconds that a float can hold") from None
    if math.isnan(seconds) or seconds <= 0:
        raise ValueError(f"{name} must be more than 0 seconds, not {seconds}")


def name_of(thing: object) -> str:
    """How `thing` is called in the `repr` of a stream."""
    name = getattr(thing, "__name__", None)
    return name if isinstance(name, str) else type(thing).__name__
