"""Retry: a sink whose calls are repeated when they fail.

Invariant: who has the turn keeps it while the call is repeated, so nothing overtakes an item that is tried again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from yamanote.sinks._serial import Serial
from yamanote.sinks._sink import Sink
from yamanote.time import Schedule, retry

__all__ = ["Retry"]

T_contra = TypeVar("T_contra", contravariant=True)


class Retry(Serial[T_contra]):
    """Repeats the calls of `sink` by `schedule`."""

    __slots__ = ("_again", "_schedule", "_sink")

    def __init__(
        self,
        sink: Sink[T_contra],
        schedule: Schedule,
        on: type[Exception] | tuple[type[Exception], ...] | Callable[[Exception], bool],
    ) -> None:
        super().__init__()
        self._again = retry(schedule, on=on)(_call)
        self._schedule = schedule
        self._sink = sink

    async def feed(self, item: T_contra) -> None:
        async with self._turn:
            self._check()
            await self._again(self._sink.feed, item)

    async def _flush(self) -> None:
        await self._again(self._sink.flush)

    async def _finish(self) -> None:
        async with self._turn:
            await self._again(self._end, self._sink)

    def __repr__(self) -> str:
        return f"<retry({self._schedule!r}) of {self._sink!r}, {self._state()}>"


async def _call(method: Callable[..., Awaitable[None]], *arguments: Any) -> None:
    await method(*arguments)
