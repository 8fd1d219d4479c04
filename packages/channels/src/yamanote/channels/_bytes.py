"""The two ends of a bounded buffer of bytes.

Invariant: who has the turn of an end does what can be done at once by itself, and parks otherwise. What both ends do
meanwhile is the business of `BytesHandover`.
"""

from __future__ import annotations

from abc import abstractmethod
from sys import maxsize
from typing import TYPE_CHECKING, Self, final

from yamanote.channels._arguments import require_count, require_error
from yamanote.channels._bytes_handover import BytesHandover, Closing, Reading, Sending
from yamanote.channels._door import sink_of, stream_of
from yamanote.channels._end import End
from yamanote.channels._errors import ChannelEmpty, ChannelFull
from yamanote.channels._receiving import Receiving
from yamanote.runtime import BUDGET, Waiter, park, park_thread, refuse_loop_thread, yield_now

if TYPE_CHECKING:
    from typing_extensions import Buffer  # checkers know it without an installation

    from yamanote.sinks import Sink
    from yamanote.streams import Stream

__all__ = ["BytesReceiver", "BytesSender", "spsc_buffer"]


def spsc_buffer(capacity: int) -> tuple[BytesSender, BytesReceiver]:
    """A buffer of at most `capacity` bytes, from a single producer to a single consumer.

    Raises ValueError when `capacity` is less than 1, TypeError when it is no whole number.

    >>> async def main():
    ...     tx, rx = spsc_buffer(1024)
    ...     with tx, rx:
    ...         await tx.send(b"hello world")
    ...         return await rx.recv(5), await rx.recv_exactly(6)
    >>> run(main())
    (b'hello', b' world')
    """
    require_count("capacity", capacity)
    core = BytesHandover(capacity)
    return BytesSender(core), BytesReceiver(core)


class _BytesEnd(End):
    """What both ends have in common."""

    __slots__ = ("_core", "_left")

    def __init__(self, core: BytesHandover) -> None:
        super().__init__()
        self._left = BUDGET  # how many ready operations in a row until the next yield
        self._attach(core)

    def _attach(self, core: BytesHandover) -> None:
        self._core = core

    @property
    def capacity(self) -> int:
        """How many bytes the buffer may hold."""
        return self._core.capacity

    def __len__(self) -> int:
        """How many bytes were accepted and not received yet."""
        return sum(map(len, self._core.chunks.copy()))

    def __bool__(self) -> bool:
        return True  # an empty buffer is still a buffer

    @abstractmethod
    def _leave(self) -> None:
        """Note in the core that this end is closed."""

    def _close(self) -> None:
        if not self._closed:
            self._closed = True
            self._leave()
            self._core.section.do(self._core.serve)

    def _drop(self) -> None:
        self._leave()
        self._core.settle()

    def _moved(self) -> Self:
        """This end as another object; this one is closed, and has nothing to do with the buffer any more."""
        moved = type(self)(self._core)
        moved._closed = self._closed
        moved._site = self._site
        self._closed = False
        self._attach(BytesHandover(self.capacity))
        self._close()
        return moved

    def __repr__(self) -> str:
        state = "closed" if self._closed else "of a closed buffer" if self.is_closed else "open"
        return f"<{type(self).__name__} {state}, {len(self)} of {self.capacity} bytes at {id(self._core):#x}>"


@final
class BytesSender(_BytesEnd):
    """The sending end of a buffer of bytes. Made by `spsc_buffer`; usable by tasks of any loop and by threads.

    One call at a time: one that comes while another sends gets RuntimeError. Close it (`close`, `with`, `async with`)
    when there is nothing more to send. A sender that is merely dropped is closed with a ResourceWarning.

    Data is `bytes`, or what has bytes in it, such as a bytearray or a memoryview; of that, a copy is sent.
    """

    __slots__ = ("_append", "_begin", "_end")

    def _attach(self, core: BytesHandover) -> None:
        self._core = core
        # Bound once: looking these up is a good part of what a send costs.
        self._begin = core.sending.pop
        self._end = core.sending.append
        self._append = core.chunks.append

    @property
    def sent(self) -> int:
        """How many bytes were accepted so far, in all."""
        return max(self._core.sent, *self._core.sending.copy(), 0)

    async def send(self, data: Buffer) -> None:
        """Send all of `data`, waiting for room.

        Raises ChannelClosed when the receiver was closed, with what was not accepted in `refused`. **Cancel safe** up
        to the capacity: so many bytes are accepted as a whole or not at all, and as a whole also when the cancellation
        comes in the very turn in which room was made. More than that goes in pieces. In any case `sent` tells.
        """
        if type(data) is not bytes:
            data = _owned(data)
        if left := self._left:
            self._left = left - 1
        else:
            self._left = BUDGET
            await yield_now()
        core = self._core
        try:  # `_put` once more, without the call
            total = self._begin()
        except IndexError:
            raise core.refusal_to_send(data) from None
        after = total + len(data)
        if after > core.window:
            core.collect()
        room = not data or after <= core.window
        if room and data:
            self._append(data)
        self._end(after if room else total)
        if core.receiver is not None or core.shut:
            core.settle()
        if not room:
            self._left = BUDGET
            await park(Sending(core, data))

    def send_nowait(self, data: Buffer) -> int:
        """Send as much of `data` as there is room for, and return how many bytes that is.

        Raises ChannelFull when there is no room at all, and ChannelClosed as `send` does. Any thread may call it.
        """
        data = _owned(data)
        refused = self._put(data, split=True)
        if refused and refused == len(data):
            raise ChannelFull(f"all {self.capacity} bytes are taken", data)
        return len(data) - refused

    def blocking_send(self, data: Buffer, timeout: float | None = None) -> None:
        """`send`, for plain threads: blocks for at most `timeout` seconds, then raises TimeoutError.

        What a cancelled `send` leaves behind, a timeout does, too. Raises RuntimeError in a thread that runs an event
        loop.
        """
        refuse_loop_thread(timeout)
        data = _owned(data)
        if self._put(data):
            park_thread(Sending(self._core, data), timeout)

    def _put(self, data: bytes, split: bool = False) -> int:
        """Have `data` accepted if there is room for all, or for a part, with `split`; return how much was not."""
        core = self._core
        try:
            total = self._begin()
        except IndexError:
            raise core.refusal_to_send(data) from None
        core.collect()
        refused = max(total + len(data) - core.window, 0)
        if refused and not split:
            refused = len(data)
        refused = min(refused, len(data))
        if accepted := data[: len(data) - refused]:
            self._append(accepted)
        self._end(total + len(accepted))
        if core.receiver is not None or core.shut:
            core.settle()
        return refused

    @property
    def is_closed(self) -> bool:
        """Whether nothing is accepted any more: this sender was closed, or the receiver."""
        return self._core.shut

    async def closed(self) -> None:
        """Wait until `is_closed`: then a producer may stop early. Cancel safe. Tasks of any loop may wait."""
        if not self._core.shut:
            await park(Closing(self._core))

    def close(self, cause: BaseException | None = None) -> None:
        """Close it: what was accepted is still received, then the receiver gets ChannelClosed, raised from `cause`.

        A call that waits for room gets HandleClosed, with what was not accepted. Never waits; any thread may call it,
        again and again; the first cause counts. Raises TypeError for a cause that is no exception.
        """
        require_error(cause)
        if not self._closed:
            self._core.cause = cause
        self._close()

    def _leave(self) -> None:
        self._core.shut = self._core.closed = True

    def into_sink(self) -> Sink[Buffer]:
        """This sender as a sink of chunks, which owns it from now on. Needs the distribution `yamanote-streams`."""
        return sink_of(self._moved)


@final
class BytesReceiver(_BytesEnd, Receiving[bytes]):
    """The receiving end of a buffer of bytes. Made by `spsc_buffer`; usable by tasks of any loop and by threads.

    One call at a time: one that comes while another receives gets RuntimeError. ``async for``, and ``for`` in a
    thread, give chunks as they come, until the end. Close it (`close`, `with`, `async with`) when nothing more is
    wanted. A receiver that is merely dropped is closed with a ResourceWarning.
    """

    __slots__ = ("_begin", "_chunks", "_credit", "_end", "_next")

    def _attach(self, core: BytesHandover) -> None:
        self._core = core
        # Bound once: looking these up is a good part of what a receive costs.
        self._begin = core.receiving.pop
        self._end = core.receiving.append
        self._chunks = core.chunks
        self._next = core.chunks.popleft
        self._credit = core.credits.append

    async def recv(self, limit: int | None = None) -> bytes:
        """Receive what is there, at most `limit` bytes; wait for at least one.

        Raises ChannelClosed when the sender was closed and everything was received, from the cause if there is one;
        ValueError when `limit` is less than 1. Cancel safe: bytes that had been handed to a cancelled call are the
        next ones again.
        """
        if limit is None:
            limit = maxsize
        elif type(limit) is not int or limit < 1:
            require_count("limit", limit)
        if left := self._left:
            self._left = left - 1
        else:
            self._left = BUDGET
            await yield_now()
        core = self._core
        try:  # `_get` once more, without the calls
            self._begin()
        except IndexError:
            raise core.refusal_to_receive() from None
        if chunks := self._chunks:
            chunk = self._next()
            if (size := len(chunk)) != limit and (chunks or size > limit):
                chunk, size = core.fit(chunk, limit)
            self._credit(size)
            self._end(None)
            if core.sender is not None or core.gone:
                core.settle()
            return chunk if type(chunk) is bytes else bytes(chunk)
        self._end(None)
        self._left = BUDGET
        return await park(Reading(core, 1, limit))

    async def recv_exactly(self, count: int) -> bytes:
        """Receive `count` bytes, waiting for all of them; they may be more than the capacity.

        Raises IncompleteRead, with what was left in `partial`, when the sender was closed with some of them missing,
        and ChannelClosed when all were. Cancel safe, as `recv`. Raises ValueError when `count` is negative.
        """
        _require_size(count)
        if left := self._left:
            self._left = left - 1
        else:
            self._left = BUDGET
            await yield_now()
        if not count:
            return b""
        if data := self._get(count, count):
            return data
        self._left = BUDGET
        return await park(Reading(self._core, count, count))

    async def recv_into(self, buffer: Buffer) -> int:
        """Receive what is there into `buffer`, as far as it goes; wait for at least one byte. Return how many.

        As `recv` otherwise. Raises TypeError when nothing can be written to `buffer`, ValueError when it is empty.
        """
        view = memoryview(buffer)
        if view.readonly:
            raise TypeError(f"buffer must be writable, not {type(buffer).__name__}")
        if not view.nbytes:
            raise ValueError("buffer must not be empty")
        view = view.cast("B")
        data = await self.recv(len(view))
        view[: len(data)] = data
        return len(data)

    def recv_nowait(self, limit: int | None = None) -> bytes:
        """Receive what is there, at most `limit` bytes. Raises ChannelEmpty when there is nothing, else as `recv`.

        Any thread may call it.
        """
        if data := self._get(1, _limit(limit)):
            return data
        raise ChannelEmpty("nothing to receive now")

    def blocking_recv(self, limit: int | None = None, timeout: float | None = None) -> bytes:
        """`recv`, for plain threads: blocks for at most `timeout` seconds, then raises TimeoutError.

        Raises RuntimeError in a thread that runs an event loop.
        """
        refuse_loop_thread(timeout)
        limit = _limit(limit)
        return self._get(1, limit) or park_thread(Reading(self._core, 1, limit), timeout)

    def blocking_recv_exactly(self, count: int, timeout: float | None = None) -> bytes:
        """`recv_exactly`, for plain threads: blocks for at most `timeout` seconds, then raises TimeoutError.

        Nothing is taken then. Raises RuntimeError in a thread that runs an event loop.
        """
        refuse_loop_thread(timeout)
        _require_size(count)
        if not count:
            return b""
        return self._get(count, count) or park_thread(Reading(self._core, count, count), timeout)

    def _get(self, least: int, most: int) -> bytes:
        """What is there, up to `most` bytes, if that is at least `least`; otherwise nothing."""
        core = self._core
        try:
            self._begin()
        except IndexError:
            raise core.refusal_to_receive() from None
        ended = core.ended  # asked first: what is not there afterwards will never be
        available = sum(map(len, self._chunks.copy()))
        data = core.take(most) if available >= least else b""
        self._end(None)
        if core.sender is not None or core.gone:
            core.settle()
        if ended and not available:
            raise core.end()
        return data

    @property
    def is_closed(self) -> bool:
        """Whether nothing can be received any more: this receiver was closed, or the sender, and nothing is left."""
        return self._closed or (self._core.ended and not self._core.chunks)

    def register(self, waiter: Waiter[bytes]) -> None:
        """Park `waiter` until there are bytes; it gets what is there. See `yamanote.runtime.Selectable`."""
        Reading(self._core, 1, maxsize).register(waiter)

    def withdraw(self, waiter: Waiter[bytes]) -> None:
        """Forget `waiter`; bytes that it was handed are the next ones again."""
        waiter.operation.withdraw(waiter)

    def close(self) -> None:
        """Close it: what is there is thrown away, and nothing is accepted any more.

        A call that waits gets HandleClosed. Never waits; any thread may call it, again and again.
        """
        self._close()

    def _leave(self) -> None:
        self._core.shut = self._core.gone = True

    def into_stream(self) -> Stream[bytes]:
        """This receiver as a stream of chunks, which owns it from now on. Needs the distribution `yamanote-streams`."""
        return stream_of(self._moved)


def _owned(data: Buffer) -> bytes:
    """What is in `data` now, so that nobody can change it."""
    return data if type(data) is bytes else memoryview(data).tobytes()


def _limit(limit: int | None) -> int:
    if limit is None:
        return maxsize
    require_count("limit", limit)
    return limit


def _require_size(count: int) -> None:
    if isinstance(count, bool) or count != 0:  # nothing is a size as well: of the body of an empty message
        require_count("count", count)
