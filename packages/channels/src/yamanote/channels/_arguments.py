"""What is no argument for a channel, said in words that name it."""

from __future__ import annotations

from collections.abc import Callable
from inspect import iscoroutinefunction

__all__ = ["require_count", "require_error", "require_plain"]


def require_error(cause: BaseException | None) -> None:
    """Refuse a cause that could not be raised later."""
    if cause is not None and not isinstance(cause, BaseException):
        raise TypeError(f"cause must be an exception or None, not {cause!r}")


def require_count(name: str, count: int, least: int = 1) -> None:
    """Refuse what is no number of items."""
    if isinstance(count, bool) or not isinstance(count, int):
        raise TypeError(f"{name} must be a whole number, not {count!r}")
    if count < least:
        raise ValueError(f"{name} must be at least {least}, not {count}")


def require_plain(name: str, function: Callable[..., object]) -> None:
    """Refuse a function of the user that could not be called, or would have to be awaited."""
    if not callable(function):
        raise TypeError(f"{name} must be a function, not {function!r}")
    if iscoroutinefunction(function):
        raise TypeError(f"{name} must be a plain function, not the async {function!r}: nothing here can wait for it")
