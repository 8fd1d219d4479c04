"""Bytes handover: the engine of the bounded buffer between one sender and one receiver.

Invariant: the bytes that were accepted are received once, in order, and nobody can change them on the way or later.
Once a call has returned, no parked receiver could have got what it needs, and no parked sender could have had room.

Each end serves one call at a time: the one that has its turn, the only entry of a list, which is atomic to take and to
give back. An end that is closed has no turn any more. So the ordinary path takes no lock and has no check for the end.
A sender appends a chunk, *then* looks for a parked receiver; who parks looks for chunks *afterwards*, with an operation
that locks the same deque, so one of them sees the other. It is the same with a receiver and the credits that it gives
for what it took. A parked call keeps its turn, and the other end serves it, in the section of the buffer.

Chunks are not copied unless they must be split or joined.
"""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import final

from yamanote.channels._errors import ChannelClosed, HandleClosed, IncompleteRead
from yamanote.runtime import CriticalSection, Waiter

__all__ = ["BytesHandover", "Closing", "Reading", "Sending"]


@final
class BytesHandover:
    """The state that both ends share."""

    __slots__ = (
        "capacity",
        "cause",
        "chunks",
        "closed",
        "credits",
        "ended",
        "gone",
        "receiver",
        "receiving",
        "section",
        "sender",
        "sending",
        "sent",
        "shut",
        "watchers",
        "window",
    )

    def __init__(self, capacity: int) -> None:
        self.capacity: int = capacity
        self.chunks: deque[bytes | memoryview] = deque()
        self.sending: list[int] = [0]
        """The turn to send: how many bytes were sent so far, in all. Gone for good when nothing more is accepted."""
        self.receiving: list[None] = [None]
        """The turn to receive. Gone for good when the receiver is."""
        self.sent: int = 0
        """The same as the turn to send, as long as a parked call has that, or nobody any more."""
        self.window: int = capacity
        """How many bytes may have been sent, in all; apart from `credits`. For who has the turn to send."""
        self.credits: deque[int] = deque()
        """What was received, call by call, until the sender adds it to the window."""
        self.sender: Waiter[None] | None = None
        """Who is parked to send. It has the turn."""
        self.receiver: Waiter[bytes] | None = None
        """Who is parked to receive. It has the turn."""
        self.watchers: deque[Waiter[None]] = deque()
        """Who waits until it is shut."""
        self.closed: bool = False
        """The sender was closed."""
        self.cause: BaseException | None = None
        self.gone: bool = False
        """The receiver was closed."""
        self.shut: bool = False
        """One of them was."""
        self.ended: bool = False
        """Nobody has the turn to send, or ever will: what is there is all that there will be."""
        self.section: CriticalSection = CriticalSection()

    # ---------------------------------------------------------------- with the turn to send

    def collect(self) -> None:
        """Let as much be sent as was received."""
        try:
            while True:
                self.window += self.credits.popleft()
        except IndexError:
            pass

    def put(self, chunk: memoryview) -> None:
        """Accept `chunk` of a parked call."""
        self.chunks.append(chunk)
        self.sent += len(chunk)

    # ---------------------------------------------------------------- with the turn to receive

    def take(self, most: int) -> bytes:
        """The next bytes, at most so many, against credit; none when there are none."""
        if not self.chunks:
            return b""
        chunk, size = self.fit(self.chunks.popleft(), most)
        self.credits.append(size)
        return bytes(chunk)

    def fit(self, chunk: bytes | memoryview, most: int) -> tuple[bytes | memoryview, int]:
        """`chunk`, which is out already, with what comes behind it, or without what is too much; and its size."""
        chunks = self.chunks
        size = len(chunk)
        if size < most and chunks:
            parts = [chunk]
            while size < most and chunks:
                parts.append(chunk := chunks.popleft())
                size += len(chunk)
            chunk = b"".join(parts)
        if size > most:
            view = memoryview(chunk)
            chunks.appendleft(view[most:])
            return view[:most], most
        return chunk, size

    def put_back(self, parts: list[bytes]) -> None:
        """`parts` are next again. The buffer may hold more than its capacity for a while."""
        if data := b"".join(parts):
            self.chunks.appendleft(data)
            self.credits.append(-len(data))

    # ---------------------------------------------------------------- who is parked

    def settle(self) -> None:
        """Serve who is parked, now or when whoever does so is done. Never blocks."""
        section = self.section
        if not section.try_enter():
            section.run(self.serve)
            return
        try:
            self.serve()
        finally:
            section.leave()

    def serve(self) -> None:
        """Move what can be moved, and tell of the end. In the section, as all that follows."""
        if self.shut:
            self._shut()
        while (self.receiver is not None and self._serve_receiver()) or (
            self.sender is not None and self._serve_sender()
        ):
            pass

    def _shut(self) -> None:
        while self.watchers:
            self.watchers.popleft().hand(None)
        if (sender := self.sender) is not None:
            self.sender = None
            self.ended = True
            if sender.claim():
                sender.fail(self.refusal_to_send(sender.operation.rest))
        elif not self.ended:
            try:
                self.sent = self.sending.pop()
            except IndexError:
                pass  # a call in another thread has it, and comes here next
            else:
                self.ended = True
        if self.gone:
            self.receiving.clear()
            self.chunks.clear()

    def _serve_sender(self) -> bool:
        """Have what a parked call sends accepted, as far as there is room; tell whether that was anything."""
        waiter = self.sender
        if waiter is None or not waiter.is_waiting():
            return False
        self.collect()
        operation: Sending = waiter.operation
        rest = operation.rest
        if (room := self.window - self.sent) < len(rest):
            if operation.whole or room <= 0:
                return False
            operation.rest = rest[room:]
            self.put(rest[:room])
            return True
        if not waiter.claim():
            return False
        self.put(rest)
        self.sender = None
        self.sending.append(self.sent)
        waiter.settle(None)
        return True

    def _serve_receiver(self) -> bool:
        """Give a parked call what there is, as far as it needs it; tell whether that was anything."""
        waiter = self.receiver
        if waiter is None or not waiter.is_waiting():
            return False
        operation: Reading = waiter.operation
        operation.parts.append(part := self.take(operation.most - operation.size))
        operation.size += len(part)
        enough = operation.size >= operation.least
        if not enough and not self.ended:
            return bool(part)
        if not waiter.claim():
            return False  # it gives back what it has
        self.receiver = None
        if self.gone:
            waiter.fail(self.refusal_to_receive())
            return False
        self.receiving.append(None)
        data = b"".join(operation.parts)
        if enough:
            waiter.settle(data)
        else:
            waiter.fail(self.end(data, operation.least))
        return True

    # ---------------------------------------------------------------- errors

    def refusal_to_send(self, rest: bytes | memoryview) -> Exception:
        """Why there is no turn to send."""
        if self.closed:
            return HandleClosed("this BytesSender was closed", bytes(rest))
        if self.gone:
            return ChannelClosed("the receiver was closed", bytes(rest))
        return RuntimeError("a BytesSender sends for one call at a time, and there is one under way")

    def refusal_to_receive(self) -> Exception:
        """Why there is no turn to receive."""
        if self.gone:
            return HandleClosed("this BytesReceiver was closed")
        return RuntimeError("a BytesReceiver receives for one call at a time, and there is one under way")

    def end(self, partial: bytes = b"", expected: int = 0) -> ChannelClosed:
        """What to tell a receiver when nothing more will come."""
        error = ChannelClosed("the sender was closed, and nothing is left")
        if partial:
            error = IncompleteRead(partial, expected)
        error.__cause__ = self.cause
        return error


@final
class Sending:
    """A call that waits for room."""

    __slots__ = ("_core", "rest", "whole")

    def __init__(self, core: BytesHandover, data: bytes) -> None:
        self._core = core
        self.rest = memoryview(data)
        """What was not accepted yet."""
        self.whole = len(data) <= core.capacity

    def register(self, waiter: Waiter[None]) -> None:
        core = self._core
        waiter.operation = self
        try:
            core.sent = core.sending.pop()
        except IndexError:
            if waiter.claim():
                waiter.fail(core.refusal_to_send(self.rest))
        else:
            core.sender = waiter
            # Parked, *then* looked, whether there are credits or not: another call may have collected them meanwhile.
            core.settle()

    def withdraw(self, waiter: Waiter[None]) -> None:
        self._core.section.do(partial(self._give_up, waiter))

    def _give_up(self, waiter: Waiter[None]) -> None:
        core = self._core
        if core.sender is waiter:
            core.sender = None
            core.sending.append(core.sent)
            core.serve()  # the end may be due


@final
class Reading:
    """A call that waits for bytes."""

    __slots__ = ("_core", "least", "most", "parts", "size")

    def __init__(self, core: BytesHandover, least: int, most: int) -> None:
        self._core = core
        self.least = least
        self.most = most
        self.parts: list[bytes] = []
        """What it has got so far."""
        self.size = 0

    def register(self, waiter: Waiter[bytes]) -> None:
        core = self._core
        waiter.operation = self
        try:
            core.receiving.pop()
        except IndexError:
            if waiter.claim():
                waiter.fail(core.refusal_to_receive())
        else:
            core.receiver = waiter
            if core.chunks.copy() or core.shut:
                core.settle()

    def withdraw(self, waiter: Waiter[bytes]) -> None:
        self._core.section.do(partial(self._give_up, waiter))

    def _give_up(self, waiter: Waiter[bytes]) -> None:
        core = self._core
        if core.receiver is waiter:
            core.receiver = None
            core.receiving.append(None)
        elif isinstance(waiter.error, HandleClosed | RuntimeError):
            return  # it got nothing
        core.put_back(self.parts)
        core.serve()


@final
class Closing:
    """Waits until nothing is accepted any more."""

    __slots__ = ("_core",)

    def __init__(self, core: BytesHandover) -> None:
        self._core = core

    def register(self, waiter: Waiter[None]) -> None:
        self._core.watchers.append(waiter)
        if self._core.shut:
            self._core.settle()

    def withdraw(self, waiter: Waiter[None]) -> None:
        try:
            self._core.watchers.remove(waiter)
        except ValueError:
            pass  # it was woken, and there is nothing to give back
