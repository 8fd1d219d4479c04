"""Outcome: how something ended.

Invariant: an outcome holds a value or an error and says which; nothing is inferred from the value, so ``None``, ``0``,
``""`` and exception *instances* that somebody returned are values like any other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from typing import Generic, Protocol, TypeVar, final

__all__ = ["Outcome"]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class _Finished(Protocol[T_co]):
    """What `asyncio.Future` and `concurrent.futures.Future` have in common once they are done."""

    def result(self) -> T_co: ...


@final
class Outcome(Generic[T_co]):
    """How a task, a future or a call ended: with a value, with an error, or cancelled.

    Build one with `Outcome.ok`, `Outcome.failed` or `Outcome.of`; take it apart with `unwrap`, or look first
    at `error` and `cancelled`.

    >>> Outcome.ok(None).unwrap() is None
    True
    >>> Outcome.failed(ValueError("no")).error
    ValueError('no')
    """

    __slots__ = ("_value", "error")

    error: BaseException | None
    """The error it ended with, a cancellation included; None when it ended with a value."""

    def __init__(self, value: T_co, error: BaseException | None) -> None:
        self._value = value
        self.error = error

    @staticmethod
    def ok(value: T) -> Outcome[T]:
        """An outcome with a value."""
        return Outcome(value, None)

    @classmethod
    def failed(cls, error: BaseException) -> Outcome[T_co]:
        """An outcome with an error."""
        return cls(None, error)  # type: ignore[arg-type]  # never read: `unwrap` looks at the error first

    @classmethod
    def of(cls, finished: _Finished[T_co]) -> Outcome[T_co]:
        """The outcome of a finished task or future, which counts as retrieved from now on."""
        try:
            return cls(finished.result(), None)
        except BaseException as error:
            return cls.failed(error)

    @property
    def cancelled(self) -> bool:
        """Whether it ended in a cancellation."""
        return isinstance(self.error, asyncio.CancelledError)

    def unwrap(self) -> T_co:
        """Return the value or raise the error."""
        if self.error is None:
            return self._value
        try:
            raise self.error
        finally:
            del self  # the error refers to this frame, and the outcome to the error

    def __await__(self) -> Generator[None, None, T_co]:
        """`unwrap`, for callers that take any awaitable; never suspends."""
        return self.unwrap()
        yield  # makes this a generator function

    def __repr__(self) -> str:
        if self.error is not None:
            return f"Outcome.failed({self.error!r})"
        return f"Outcome.ok({self._value!r})"
