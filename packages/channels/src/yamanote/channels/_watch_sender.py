"""The sending end of a watch channel.

Invariant: each value is stored in one step, in one order for all senders, and with it the next version. What depends on
the value before it is computed without a lock, and stored only if that still is the newest one.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, TypeVar, final

from yamanote.channels._arguments import require_error, require_plain
from yamanote.channels._door import sink_of
from yamanote.channels._errors import ChannelClosed
from yamanote.channels._watch_receiver import WatchReceiver
from yamanote.channels._watched import State, WatchEnd

if TYPE_CHECKING:
    from yamanote.sinks import Sink

__all__ = ["WatchSender"]

T = TypeVar("T")


@final
class WatchSender(WatchEnd[T]):
    """The sending end of a watch channel. Made by `watch`; clonable; usable by tasks of any loop and by threads.

    Close it (`close`, `with`, `async with`) when you have nothing more to send: receivers see the end once every sender
    is closed and they have seen the last value. A sender that is merely dropped is closed with a ResourceWarning.
    """

    __slots__ = ()

    def send(self, value: T) -> None:
        """Make `value` the newest one, and wake every receiver that waits. Also a value that equals the last one.

        Never waits; any thread may call it. Raises ChannelClosed, with the value in `refused`, when no receiver is
        left; then it is not stored: see `send_replace`.
        """
        if self._store(value, heard=True) == [None]:
            self._require_open(value)
            raise ChannelClosed("no receiver is left", value)

    def send_replace(self, value: T) -> T:
        """`send`, also without receivers: the value is there for who subscribes. Returns the one that it replaced.

        Raises HandleClosed, with the value in `refused`, when this sender is closed.
        """
        for replaced in self._store(value):
            if replaced is None:
                raise self._refusal(value)
            return replaced.value
        return value  # a finalizer that began inside of another call on this channel: its value comes after that one

    def send_modify(self, function: Callable[[T], T]) -> None:
        """Send what `function` makes of the newest value, as `send_replace` does: no change of others is lost.

        The function is called without any lock, and once more for each time that somebody else was faster: it should do
        nothing but compute. When it raises, nothing has changed, and nobody is woken. Never waits; any thread may call
        it. Raises TypeError for an async function, which would have to wait.

        >>> tx, rx = watch(1)
        >>> with tx, rx:
        ...     tx.send_modify(lambda count: count + 1)
        ...     rx.borrow()
        2
        """
        self._modify(function, even_if_equal=True)

    def send_if_modified(self, function: Callable[[T], T]) -> bool:
        """`send_modify`, unless the new value is the old one, or equals it; tell whether it was sent.

        Raises what the comparison raises.
        """
        return self._modify(function, even_if_equal=False)

    def _modify(self, function: Callable[[T], T], *, even_if_equal: bool) -> bool:
        require_plain("function", function)
        while True:
            self._require_open()
            value, version = self._core.state
            changed = function(value)
            if not even_if_equal and (changed is value or changed == value):
                return False
            outcome = self._store(changed, version=version)
            if not outcome:  # a finalizer that began inside of another call on this channel: once more, after that one
                outcome.append(None)
                self._core.section.afterwards.append(partial(self._modify, function, even_if_equal=even_if_equal))
                return True
            if outcome != [None]:
                return True

    def _store(self, value: T, *, heard: bool = False, version: int | None = None) -> list[State[T] | None]:
        """Store `value`, if the newest one still has this `version`, and anybody hears of it.

        Returns what it replaced, so that this is let go of outside of the lock, or None if it was refused. In a
        finalizer that began inside, nothing yet: whoever gets the list may take the call back with an entry of its own.
        """
        core = self._core
        outcome: list[State[T] | None] = []

        def store() -> None:
            if outcome:
                return
            state = core.state
            if self._closed or (heard and not core.receivers) or (version is not None and version != state.version):
                outcome.append(None)
            else:
                outcome.append(state)
                core.store(value)

        core.section.do(store)
        return outcome

    def subscribe(self) -> WatchReceiver[T]:
        """A new receiver, which has seen the newest value. Raises HandleClosed when this sender is closed."""
        self._require_open()
        self._core.section.do(self._core.add_receiver)
        return WatchReceiver(self._core, self._core.state.version)

    def clone(self) -> WatchSender[T]:
        """Another sender of the same channel, to be closed on its own. Raises HandleClosed when this one is closed."""
        self._require_open()
        self._core.section.do(self._core.add_sender)
        if not self._core.senders:  # another thread has closed this one meanwhile, and it was the last
            raise self._refusal()
        return WatchSender(self._core)

    def close(self, cause: BaseException | None = None) -> None:
        """Close this handle; with the last one, the channel.

        `cause` is what receivers will be told at the end; the first cause of a channel counts. Never waits; any thread
        may call it, again and again. Raises TypeError for a cause that is no exception.
        """
        require_error(cause)
        self._core.section.do(partial(self._close, cause))

    def _close(self, cause: BaseException | None) -> None:
        if not self._closed:
            self._closed = True
            self._core.drop_sender(cause)

    def _drop(self) -> None:
        self._core.section.run(self._core.drop_sender)

    def into_sink(self) -> Sink[T]:
        """This sender as a sink, which owns it from now on: this handle is closed by that.

        Raises HandleClosed, and ImportError without the distribution `yamanote-streams`.
        """
        return sink_of(self._moved)

    def _moved(self) -> WatchSender[T]:
        owned = self.clone()
        self.close()
        return owned

    def __repr__(self) -> str:
        core = self._core
        state = f"{self._condition()}, version {core.state.version}, {core.receivers} receiving"
        return f"<WatchSender {state} at {id(core):#x}>"
