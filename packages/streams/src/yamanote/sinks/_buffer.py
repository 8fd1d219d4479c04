"""Buffer: room between who feeds and a sink that is busy.

Invariant: what was accepted is in the channel or in the hands of the one task, in order; a flush is a mark among the
items. The task ends when the channel is closed and empty, or with an error of the sink, which closes the channel.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable
from typing import Any, TypeVar

from yamanote.channels import ChannelClosed, Receiver, Sender, channel
from yamanote.runtime import GuaranteedTask
from yamanote.sinks._sink import Guarded, Sink, SinkClosed, report
from yamanote.streams._arguments import require_count

__all__ = ["Buffer"]

T_contra = TypeVar("T_contra", contravariant=True)


class Buffer(Guarded[T_contra]):
    """Accepts up to `capacity` items while `sink` is busy."""

    __slots__ = ("_capacity", "_items", "_sink", "_task", "_work")

    _items: Sender[Any]
    _work: _Work

    def __init__(self, sink: Sink[T_contra], capacity: int) -> None:
        require_count("capacity", capacity)
        super().__init__()
        self._capacity = capacity
        self._sink = sink
        self._task: asyncio.Task[None] | None = None

    async def feed(self, item: T_contra) -> None:
        self._check()
        if self._task is None:
            self._items, receiver = channel(self._capacity, undelivered=_undelivered)
            self._work = _Work(self._sink, weakref.WeakMethod(self._fail))
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
        try:
            await self._put(mark)
        except SinkClosed:
            await self.close()  # which began while this waited for room, and flushes as well
            return
        await mark.reached
        self._raise_error()

    def _begin_closing(self) -> asyncio.Task[None]:
        task = self._task
        if task is None or (task.done() and task.exception()):  # KeyboardInterrupt: the sink is still open
            return super()._begin_closing()
        if not self._given_up:
            self._work.end = self._sink.close
        self._items.close()
        return task

    async def _finish(self) -> None:
        await self._end(self._sink)

    def __del__(self) -> None:
        if getattr(self, "_task", None) is not None:
            self._items.close()  # whether there is still a loop or not
        super().__del__()

    def __repr__(self) -> str:
        return f"<buffer({self._capacity}) of {self._sink!r}, {self._state()}>"


class _Mark:
    """Flush here."""

    __slots__ = ("reached",)

    def __init__(self) -> None:
        self.reached: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def reach(self) -> None:
        if not self.reached.done():
            self.reached.set_result(None)


def _undelivered(item: object) -> None:
    if isinstance(item, _Mark):
        item.reach()


class _Work:
    """What the task does. It does not keep the sink that users hold, so that one can be dropped."""

    __slots__ = ("end", "fail", "sink")

    def __init__(self, sink: Sink[Any], fail: Callable[[], Callable[[BaseException], None] | None]) -> None:
        self.sink = sink
        self.fail = fail
        self.end = sink._give_up
        """What is done at the end, unless somebody closes."""

    async def run(self, items: Receiver[Any]) -> None:
        """Never ends as cancelled: whoever waits for the task waits for all of this."""
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
                    del item  # not to be kept until the next one comes
                await self.end()
            except (Exception, asyncio.CancelledError) as error:
                self._tell(error)
                await self._let_go(error)
            except (KeyboardInterrupt, SystemExit) as error:  # it ends the loop
                self._tell(error)
                raise
            finally:
                if mark is not None:
                    mark.reach()

    def _tell(self, error: BaseException) -> None:
        fail = self.fail()
        if fail is not None:
            fail(error)
        else:
            report(f"the buffer of {self.sink!r} was dropped", error)

    async def _let_go(self, failure: BaseException) -> None:
        try:
            await self.sink._give_up()
        except (Exception, asyncio.CancelledError) as further:
            if further is not failure and isinstance(further, Exception):
                report(f"a further error in {self.sink!r}", further)
