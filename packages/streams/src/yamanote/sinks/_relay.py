"""Relay: a sink that accepts first, and delivers then, in a task of its own.

Invariant: a delivery is begun in the very turn in which its item is accepted, at most one at a time, and nobody's
cancellation reaches it. So an item is never half accepted: what a `feed` that was cancelled was given has not been,
and what has been is delivered once. The sinks below get one call at a time each.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar, TypeVarTuple

from yamanote.futures import CompletionQueue
from yamanote.runtime import cancel_and_wait, start_task
from yamanote.sinks._serial import Serial
from yamanote.sinks._sink import Sink

__all__ = ["Relay"]

T_contra = TypeVar("T_contra", contravariant=True)
Ts = TypeVarTuple("Ts")


class Relay(Serial[T_contra]):
    """Delivers what it accepts to `sinks`, which it owns."""

    __slots__ = ("_delivery", "_sinks")

    def __init__(self, *sinks: Sink[Any]) -> None:
        super().__init__()
        self._sinks = sinks
        self._delivery: asyncio.Task[None] | None = None

    @property
    def _is_delivering(self) -> bool:
        return self._delivery is not None and not self._delivery.done()

    async def _arrived(self) -> None:
        """Wait for what is under way. Raises what `_check` does, before and after."""
        self._check()
        if self._delivery is not None and not self._delivery.done():
            await asyncio.wait([self._delivery])
            self._check()

    async def _rest(self) -> None:
        """Wait until nothing is under way any more."""
        while self._delivery is not None and not self._delivery.done():
            await asyncio.wait([self._delivery])

    def _deliver(self, work: Callable[[*Ts], Awaitable[None]], *arguments: *Ts) -> None:
        """Begin a delivery, which has ended already when nothing in it has to wait."""
        self._delivery = start_task(self._guard(work, *arguments), eager=True)

    def _push(self) -> None:
        """Begin to deliver what was accepted, if it waits for anything but its turn."""

    async def _flush(self) -> None:
        self._push()
        await self._rest()
        self._raise_error()
        await self._on_all(lambda sink: sink.flush())

    async def _finish(self) -> None:
        try:
            async with self._turn:
                self._push()
                await self._rest()
        except asyncio.CancelledError:  # somebody has cancelled the closing
            self._given_up = True
            raise
        finally:
            if self._delivery is not None and not self._delivery.done():
                await cancel_and_wait(self._delivery)
            await self._on_all(self._end)

    async def _on_all(self, call: Callable[[Sink[Any]], Coroutine[Any, Any, None]]) -> None:
        async with CompletionQueue[None, None]() as queue:
            for sink in self._sinks:
                queue.add(call(sink), key=None, eager=True)
            async for _, task in queue:
                try:
                    task.result()
                except (Exception, asyncio.CancelledError) as error:
                    self._fail(error)
