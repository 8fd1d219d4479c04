"""Buffer: room between who feeds and a sink that is busy.

Invariant: what was accepted is in the channel or in the hands of the one task, in order; a flush is a mark among the
items. The task ends when the channel is closed and empty, or with an error of the sink, which closes the channel.
"""

from __future__ import annotations

import asyncio
import warnings
from typing import Any, TypeVar

from yamanote.channels import ChannelClosed, Receiver, Sender, channel
from yamanote.runtime import GuaranteedTask
from yamanote.sinks._sink import Sink, SinkClosed
from yamanote.streams._arguments import require_count

__all__ = ["Buffer"]

T_contra = TypeVar("T_contra", contravariant=True)


class _Mark:
    """Flush here."""

    __slots__ = ("reached",)

    def __init__(self) -> None:
        self.reached: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def reach(self) -> None:
        if not self.reached.done():
            self.reached.set_result(None)


class _Work:
    """What the task does. It knows nothing of the sink that users hold, so that one can be dropped."""

    __slots__ = ("error", "sink")

    def __init__(self, sink: Sink[Any]) -> None:
        self.sink = sink
        self.error: BaseException | None = None

    async def run(self, items: Receiver[Any]) -> None:
        mark: _Mark | None = None
        with items:
            try:
                async for item in items:
                    if isinstance(item, _Mark):
                        mark = item
                        await self.sink.flush()
                        mark.reach()
                    else:
                        await self.sink.feed(item)
                await self.sink.close()
            except (Exception, asyncio.CancelledError) as error:
                self.error = error
                if isinstance(error, asyncio.CancelledError):  # somebody cancelled the task, and not who calls the sink
                    self.error = RuntimeError("the task of the buffer was cancelled")
                await self._let_go()
            finally:
                if mark is not None:
                    mark.reach()

    async def _let_go(self) -> None:
        try:
            await self.sink.close()
        except Exception as further:
            if further is not self.error:
                asyncio.get_running_loop().call_exception_handler(
                    {"message": f"a further error in {self.sink!r}", "exception": further}
                )


def _undelivered(item: object) -> None:
    if isinstance(item, _Mark):
        item.reach()


class Buffer(Sink[T_contra]):
    """Accepts up to `capacity` items while `sink` is busy."""

    __slots__ = ("_capacity", "_closed", "_items", "_task", "_work")

    _items: Sender[Any]

    def __init__(self, sink: Sink[T_contra], capacity: int) -> None:
        require_count("capacity", capacity)
        self._capacity = capacity
        self._work = _Work(sink)
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    def _check(self) -> None:
        self._raise_failure()
        if self._closed:
            raise SinkClosed(f"{self!r} has been closed")

    async def feed(self, item: T_contra) -> None:
        self._check()
        if self._task is None:
            self._items, receiver = channel(self._capacity, undelivered=_undelivered)
            self._task = GuaranteedTask(self._work.run(receiver))
        await self._put(item)

    async def _put(self, item: object) -> None:
        try:
            (await self._items.reserve()).send(item)
        except ChannelClosed:
            self._check()
            raise

    async def flush(self) -> None:
        self._check()
        if self._task is None:
            return  # nothing has been accepted
        mark = _Mark()
        await self._put(mark)
        await mark.reached
        self._raise_failure()

    async def close(self) -> None:
        self._closed = True
        if self._task is None:
            await self._work.sink.close()
            return
        self._items.close()
        if not self._task.done():
            await asyncio.wait([self._task])
        self._raise_failure()

    def _raise_failure(self) -> None:
        if self._work.error is not None:
            raise self._work.error

    def __del__(self) -> None:
        if getattr(self, "_task", None) is not None and not self._closed:
            warnings.warn(f"{self!r} was dropped and never closed", ResourceWarning, stacklevel=2, source=self)
            self._items.close()  # what was accepted is still fed, then the sink is closed

    def __repr__(self) -> str:
        state = "dead" if self._work.error is not None else "closed" if self._closed else "open"
        return f"<buffer({self._capacity}) of {self._work.sink!r}, {state}>"
