"""Generators across threads: `threadsafe_aiter` for those with which one talks.

Invariant: what is sent or thrown reaches the generator, or the caller is told the end or an error instead; it is never
swapped for an item of before.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from functools import partial
from types import TracebackType
from typing import Any, TypeVar, final

from yamanote.runtime import Outcome
from yamanote.threads._across import ThreadsafeIterator, anything, not_a

__all__ = ["ThreadsafeGenerator", "threadsafe_agen"]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
S_contra = TypeVar("S_contra", contravariant=True)


def threadsafe_agen(generator: AsyncGenerator[T, S_contra], /) -> ThreadsafeGenerator[T, S_contra]:
    """`threadsafe_aiter` for an async generator: `asend` and `athrow` cross as well.

    Raises TypeError for what is no async generator, RuntimeError where no loop runs.

    >>> async def running_total():
    ...     total = 0
    ...     while True:
    ...         total += (yield total) or 0
    >>> async def add(totals):
    ...     async with totals:
    ...         await anext(totals)
    ...         return [await totals.asend(number) for number in (1, 2, 3)]
    >>> async def main():
    ...     totals = threadsafe_agen(running_total())
    ...     return await run_in_thread_loop(add(totals))
    >>> run(main())
    [1, 3, 6]
    """
    if not isinstance(generator, AsyncGenerator):
        raise not_a(generator, "an async generator", name="generator")
    return ThreadsafeGenerator(generator)


@final
class ThreadsafeGenerator(ThreadsafeIterator[T_co], AsyncGenerator[T_co, S_contra]):
    """An async generator that lives on one loop, for all threads: `threadsafe_agen` makes it.

    All that holds for `ThreadsafeIterator` holds here. An item that came although the request for it was cancelled goes
    to who asks for the next one: `asend` and `athrow` answer it, unseen.
    """

    __slots__ = ()

    _source: AsyncGenerator[T_co, S_contra]

    async def asend(self, value: S_contra, /) -> T_co:
        """Go on with `value` for the `yield` at which the generator stands; return what it yields next."""
        return await self._ask(
            partial(self._pull, partial(self._source.asend, value)), anything if value is None else ends_only
        )

    async def athrow(
        self, kind: type[BaseException] | BaseException, value: object = None, traceback: TracebackType | None = None, /
    ) -> T_co:
        """Raise an exception at the `yield` at which the generator stands; return what it yields next."""
        throw: Callable[..., Awaitable[T_co]] = self._source.athrow
        error = (kind,) if value is None and traceback is None else (kind, value, traceback)
        return await self._ask(partial(self._pull, partial(throw, *error)), ends_only)


def ends_only(outcome: Outcome[Any]) -> bool:
    return outcome.error is not None
