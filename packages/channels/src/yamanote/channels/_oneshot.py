"""Oneshot: one value, from one sender to one receiver.

Invariant: a channel is decided once: by the value, by the sender that leaves without one, or by the receiver that
leaves before. A value that was sent is in the channel, or with the one call that received it, or with the hook.

All that the two ends share is one list, the line. It begins with `OPEN`, and whoever takes that out decides:
`list.remove` is one atomic operation. What is put in instead tells the rest: the value (in a tuple), `TAKEN` when that
was received, `_Ended` by the sender, `GONE` by the receiver. The first party that parks puts a `_Crowd` in, too (with a
hook there is one from the beginning), and from then on values are handed over in its section. Who changes the line
looks *afterwards* whether there is a crowd; who parks copies the line *afterwards*. All of that locks the same list, so
of two at least one sees the other.
"""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Generator
from functools import partial
from sys import _getframe
from types import CodeType
from typing import TYPE_CHECKING, Any, Final, Generic, Self, final

from yamanote.channels._arguments import require_error, require_plain
from yamanote.channels._door import sink_of, stream_of
from yamanote.channels._end import End
from yamanote.channels._errors import ChannelClosed, ChannelEmpty, HandleClosed
from yamanote.runtime import CallSite, CriticalSection, Waiter, park, park_thread, refuse_loop_thread

if TYPE_CHECKING:
    from typing_extensions import TypeVar  # checkers know it without an installation

    from yamanote.sinks import Sink
    from yamanote.streams import Stream

    T = TypeVar("T", default=Any)
else:
    from typing import TypeVar

    T = TypeVar("T")

__all__ = ["OneshotReceiver", "OneshotSender", "oneshot_channel"]

_new: Any = object.__new__


class oneshot_channel(tuple["OneshotSender[T]", "OneshotReceiver[T]"]):  # a class, as `channel`: oneshot_channel[int]()
    """A channel for one value: the answer to a question, the result of a job.

    `undelivered` is called with a value that was sent and not received before the receiver was closed: outside of any
    lock, in the thread that closed it.

    For checkers, `oneshot_channel[int]()` gives the type of the value.

    >>> async def main():
    ...     tx, rx = oneshot_channel()
    ...     tx.send("hello")
    ...     return await rx
    >>> run(main())
    'hello'
    """

    def __new__(  # type: ignore[misc]  # it makes a pair of ends, not an instance
        cls, *, undelivered: Callable[[T], object] | None = None
    ) -> tuple[OneshotSender[T], OneshotReceiver[T]]:
        """Make the two ends."""
        line: list[Any] = [OPEN]
        if undelivered is not None:
            require_plain("undelivered", undelivered)
            line.append(_Crowd(undelivered))
        # One is made for each question. `__init__`, and a walk up the stack, would make that twice as expensive.
        tx: OneshotSender[T] = _new(OneshotSender)
        rx: OneshotReceiver[T] = _new(OneshotReceiver)
        tx._line = rx._line = line
        caller = _getframe(1)
        tx._caller = rx._caller = caller.f_code, caller.f_lasti
        return tx, rx

    def __class_getitem__(cls, item: object) -> type[Self]:  # type: ignore[override]
        return cls  # checkers know better, and an alias in between would make it half as expensive again


class _OneshotEnd(End, Generic[T]):
    """What both ends have in common. They are closed by use: so not a flag, but the line tells what was left undone."""

    __slots__ = ("_caller", "_line")

    _caller: tuple[CodeType, int]
    _line: list[Any]

    @abstractmethod
    def _is_needed(self) -> bool:
        """Whether the other end, or a value, depends on this one."""

    def _decide(self, fate: _Mark) -> None:
        """Put `fate` in the place of `OPEN`, unless something else was decided before."""
        if _removed(self._line, OPEN):
            self._line.append(fate)
            self._settle()

    def _settle(self) -> None:
        """Have those served who wait, if there is anybody. Never blocks: a finalizer may be here."""
        if (crowd := _crowd_in(self._line.copy())) is not None:
            crowd.section.run(partial(crowd.serve, self._line))

    def _moved_from(self, line: list[Any]) -> Self:
        """This end as a new object; this one has `line` instead from now on."""
        moved: Self = _new(type(self))
        moved._caller = self._caller
        moved._line, self._line = self._line, line
        return moved

    def __leak__(self) -> str | None:
        return f"{self!r} was not closed" if self._is_needed() else None

    def __repr__(self) -> str:
        entries = self._line.copy()
        state = "open" if OPEN in entries else "closed" if _value_in(entries) is None else "with a value"
        return f"<{type(self).__name__} {state} at {id(self._line):#x}>"

    def _leaked(self) -> None:
        message = f"{self!r}, made at {CallSite(*self._caller)}, was dropped and never closed"
        self._drop()
        warnings.warn(message, ResourceWarning, stacklevel=3, source=self)


@final
class OneshotSender(_OneshotEnd[T]):
    """The sending end of a oneshot channel. Made by `oneshot_channel`; usable by tasks of any loop and by threads.

    Sending closes it. When there is nothing to send, close it (`close`, `with`, `async with`): the receiver is told.
    A sender that is merely dropped, while there is somebody to receive, is closed with a ResourceWarning.
    """

    __slots__ = ()

    def send(self, value: T) -> None:
        """Send `value`: to who waits for it, or for later. Never waits; any thread may call it.

        Raises ChannelClosed when the receiver was closed, and HandleClosed when this sender was, or has sent before;
        both with the value in `refused`. Of two calls at once one succeeds.
        """
        line = self._line
        try:
            line.remove(OPEN)
        except ValueError:
            raise self._refusal(value) from None
        line.append((value,))
        if len(line) > 1:
            self._settle()

    def _refusal(self, value: T) -> ChannelClosed:
        entries = self._line.copy()
        if GONE in entries and TAKEN not in entries and _value_in(entries) is None:
            return ChannelClosed("the receiver was closed", value)
        return HandleClosed("this OneshotSender was closed, or has sent before", value)

    @property
    def is_closed(self) -> bool:
        """Whether nothing can be sent any more: something was, or the receiver was closed, or this sender."""
        return OPEN not in self._line

    async def closed(self) -> None:
        """Wait until `is_closed`: the receiver went away, so the value need not be worked out any more.

        Cancel safe. Tasks of any loop may wait.
        """
        if OPEN in self._line:
            await park(_Decision(self._line))

    def close(self, cause: BaseException | None = None) -> None:
        """Close it: a receiver without a value will get none, but ChannelClosed, raised from `cause` if there is one.

        After a value was sent this does nothing. Never waits; any thread may call it, again and again. Raises
        TypeError for a cause that is no exception.
        """
        require_error(cause)
        self._decide(_Ended(cause))

    def _drop(self) -> None:
        self._decide(_Ended(None))

    def _is_needed(self) -> bool:
        return OPEN in self._line

    def __del__(self) -> None:
        if OPEN in self._line:
            self._leaked()

    def into_sink(self) -> Sink[T]:
        """This sender as a sink for one item, which owns it from now on. Needs the distribution `yamanote-streams`."""
        return sink_of(lambda: self._moved_from([_Ended(None)]))


@final
class OneshotReceiver(_OneshotEnd[T]):
    """The receiving end of a oneshot channel: await it. Usable by tasks of any loop and by threads.

    Receiving closes it. When nobody wants the value any more, close it (`close`, `with`, `async with`): the sender is
    told. A receiver that is merely dropped, while there is a value or may come one, is closed with a ResourceWarning.

    After a timeout or a cancellation it can be awaited again.
    """

    __slots__ = ()

    def __await__(self) -> Generator[Any, None, T]:
        """The same as `recv`."""
        line = self._line
        try:  # `_take` once more: a call would be a good part of what a value that is there costs
            if len(line) == 1 and type(value := line[0]) is tuple:
                line.remove(value)
                line.append(TAKEN)
                if len(line) > 1:
                    self._settle()
                return value[0]  # type: ignore[no-any-return]
        except (IndexError, ValueError):
            pass  # another thread has changed it
        value = self._take()
        return value[0] if value is not None else (yield from park(self).__await__())

    async def recv(self) -> T:
        """Receive the value, waiting for it if it was not sent yet.

        Raises ChannelClosed, from the cause if there is one, when the sender was closed without a value, and
        HandleClosed when this receiver was closed, or has received before. Calls that wait are served first in, first
        out: one gets the value, the others HandleClosed. Cancel safe: a value that had been handed to a cancelled call
        is there for the next.
        """
        return await self

    def recv_nowait(self) -> T:
        """Receive the value now. Raises ChannelEmpty when it is not there, or others wait for it; else as `recv`.

        Any thread may call it.
        """
        value = self._take()
        if value is not None:
            return value[0]
        entries = self._line.copy()
        if _value_in(entries) is None and (refusal := _refusal(entries)) is not None:
            raise refusal
        raise ChannelEmpty("nothing to receive now")

    def blocking_recv(self, timeout: float | None = None) -> T:
        """`recv`, for plain threads: blocks for at most `timeout` seconds, then raises TimeoutError.

        After that it can be called again. Raises RuntimeError in a thread that runs an event loop.
        """
        refuse_loop_thread(timeout)
        value = self._take()
        return park_thread(self, timeout) if value is None else value[0]

    def _take(self) -> tuple[T] | None:
        """Take the value out of the line, if it is there and nobody waits for it."""
        line = self._line
        entries = line.copy()
        value = _value_in(entries)
        crowd = _crowd_in(entries)
        if value is None or (crowd is not None and crowd.receivers) or not _removed(line, value):
            return None
        line.append(TAKEN)
        self._settle()
        return value

    def __aiter__(self) -> Self:
        """The value, then the end. Raises ChannelClosed instead when the sender was closed with a cause."""
        return self

    async def __anext__(self) -> T:
        try:
            return await self
        except ChannelClosed as closed:
            if closed.__cause__ is not None or GONE in self._line:
                raise
            raise StopAsyncIteration from None

    def register(self, waiter: Waiter[T]) -> None:
        """Park `waiter` until there is a value for it. See `yamanote.runtime.Selectable`."""
        waiter.operation = line = self._line
        crowd = _crowd_of(line)
        crowd.receivers.append(waiter)
        crowd.look(line)

    def withdraw(self, waiter: Waiter[T]) -> None:
        """Forget `waiter`; a value that it was handed is there for the next."""
        line = waiter.operation  # not `self._line`: it may have moved into a stream since
        crowd = _crowd_of(line)
        crowd.section.do(partial(crowd.give_up, waiter, line))

    @property
    def is_closed(self) -> bool:
        """Whether there is nothing to receive and never will be, or this receiver was closed."""
        entries = self._line.copy()
        return GONE in entries or (_value_in(entries) is None and _refusal(entries) is not None)

    def close(self) -> None:
        """Close it: nothing is accepted any more, and calls that wait get HandleClosed.

        A value that was sent before goes to the hook `undelivered`. Without a hook it stays: `recv_nowait` still gets
        it. Never waits; any thread may call it, again and again.
        """
        if GONE not in self._line:
            self._drop()

    def _drop(self) -> None:
        self._line.append(GONE)
        _removed(self._line, OPEN)
        self._settle()

    def _is_needed(self) -> bool:
        entries = self._line.copy()
        return GONE not in entries and (_value_in(entries) is not None or _refusal(entries) is None)

    def __del__(self) -> None:
        if TAKEN not in self._line and self._is_needed():
            self._leaked()

    def into_stream(self) -> Stream[T]:
        """This receiver as a stream of at most one item, which owns it from now on.

        It raises ChannelClosed when the sender was closed with a cause. Needs the distribution `yamanote-streams`.
        """
        return stream_of(lambda: self._moved_from([GONE]))


# ---------------------------------------------------------------- what stands in a line


class _Mark:
    """Anything but the value."""

    __slots__ = ()


OPEN: Final = _Mark()
"""Nothing was decided."""
TAKEN: Final = _Mark()
"""The value was received."""
GONE: Final = _Mark()
"""The receiver was closed."""


@final
class _Ended(_Mark):
    """The sender was closed and has sent nothing."""

    __slots__ = ("cause",)

    def __init__(self, cause: BaseException | None) -> None:
        self.cause = cause


@final
class _Crowd(_Mark):
    """Everybody who waits at one line. It is not told which: they would keep each other alive."""

    __slots__ = ("hook", "receivers", "section", "watchers")

    def __init__(self, hook: Callable[[Any], object] | None = None) -> None:
        self.hook = hook
        """Where a value goes when the receiver was closed."""
        self.section = CriticalSection()
        self.receivers: deque[Waiter[Any]] = deque()
        self.watchers: deque[Waiter[None]] = deque()
        """Who waits for the decision."""

    def look(self, line: list[Any]) -> None:
        """Serve who has parked just now, if something was decided."""
        if OPEN not in line.copy():
            self.section.run(partial(self.serve, line))

    def serve(self, line: list[Any]) -> None:
        """Hand over what there is, and tell when nothing will come. In the section."""
        entries = line.copy()
        value = _value_in(entries)
        hook = self.hook if GONE in entries else None
        if value is not None and (self.receivers or hook is not None) and _removed(line, value):
            if not self._hand_over(value[0], line):
                line.append(value if hook is None else TAKEN)
                if hook is not None:
                    self.section.afterwards.append(partial(hook, value[0]))
            entries = line.copy()
        if OPEN in entries:
            return
        while self.watchers:
            self.watchers.popleft().hand(None)
        if _value_in(entries) is None:
            while self.receivers and (refusal := _refusal(entries)) is not None:
                if (waiter := self.receivers.popleft()).claim():
                    waiter.fail(refusal)

    def _hand_over(self, value: Any, line: list[Any]) -> bool:
        while self.receivers:
            if (waiter := self.receivers.popleft()).claim():
                line.append(TAKEN)  # first: who is woken may look at once, in another thread
                waiter.settle(value)
                return True
        return False

    def give_up(self, waiter: Waiter[Any], line: list[Any]) -> None:
        """Forget a receiver; a value that it was handed is in the line again, for the next. In the section."""
        if not waiter.settled:
            _removed(self.receivers, waiter)
        elif waiter.error is None:
            line.remove(TAKEN)
            line.append((waiter.value,))
            self.serve(line)


@final
class _Decision:
    """Waits until something was decided."""

    __slots__ = ("_line",)

    def __init__(self, line: list[Any]) -> None:
        self._line = line

    def register(self, waiter: Waiter[None]) -> None:
        crowd = _crowd_of(self._line)
        crowd.watchers.append(waiter)
        crowd.look(self._line)

    def withdraw(self, waiter: Waiter[None]) -> None:
        _removed(_crowd_of(self._line).watchers, waiter)


def _value_in(entries: list[Any]) -> tuple[Any] | None:
    for entry in entries:
        if type(entry) is tuple:
            return entry
    return None


def _crowd_in(entries: list[Any]) -> _Crowd | None:
    for entry in entries:
        if type(entry) is _Crowd:
            return entry
    return None


def _crowd_of(line: list[Any]) -> _Crowd:
    """The crowd of this line: the first of two, when two threads have put one in at once."""
    while (crowd := _crowd_in(line.copy())) is None:
        line.append(_Crowd())
    return crowd


def _refusal(entries: list[Any]) -> ChannelClosed | None:
    """What to tell who wants to receive and finds no value; None when there may come one."""
    if GONE in entries:
        return HandleClosed("this OneshotReceiver was closed")
    if TAKEN in entries:
        return HandleClosed("the value was received before")
    for entry in entries:
        if type(entry) is _Ended:
            refusal = ChannelClosed("the sender was closed and has sent nothing")
            refusal.__cause__ = entry.cause
            return refusal
    return None


def _removed(queue: list[Any] | deque[Any], entry: object) -> bool:
    """Take `entry` out, and tell whether it was there: for one of several threads, it was."""
    try:
        queue.remove(entry)
    except ValueError:
        return False
    return True
