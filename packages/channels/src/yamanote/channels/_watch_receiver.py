"""The receiving end of a watch channel.

Invariant: a receiver knows the version that it has seen last; it has something to receive exactly while
that is not the newest one. A value that came and went in between is skipped, the last one never.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any, Self, TypeVar, final

from yamanote.channels._arguments import require_plain
from yamanote.channels._door import stream_of
from yamanote.channels._errors import ChannelClosed
from yamanote.channels._receiving import is_plain_end
from yamanote.channels._watched import Watched, WatchEnd
from yamanote.runtime import BUDGET, Waiter, park, park_thread, refuse_loop_thread, yield_now

if TYPE_CHECKING:
    from yamanote.streams import Stream

__all__ = ["WatchReceiver"]

T = TypeVar("T")


@final
class WatchReceiver(WatchEnd[T]):
    """The receiving end of a watch channel, with a mark of its own: which value it has seen last.

    `changed` and `borrow_and_update`, `wait_for`, `async for`, `for` in a thread, or a branch of `select`, which gives
    the newest value once that has not been seen. Give each party a receiver of its own (`clone`, `subscribe`): among
    those who share one, and its mark, each value goes to who has waited longest.

    Close it (`close`, `with`, `async with`) when you want nothing more. A receiver that is merely dropped is closed
    with a ResourceWarning.

    >>> async def main():
    ...     tx, rx = watch(0)
    ...     with rx:
    ...         with tx:
    ...             tx.send(1)
    ...         return [value async for value in rx]
    >>> run(main())
    [1]
    """

    __slots__ = ("_left", "_seen")

    def __init__(self, core: Watched[T], seen: int) -> None:
        super().__init__(core)
        self._left = BUDGET  # how many ready calls in a row until the next yield
        self._seen = seen

    async def changed(self) -> None:
        """Wait until the newest value is one that has not been seen, and mark it as seen.

        Returns at once when there is one. Raises ChannelClosed when every sender is closed and the last value was seen.
        Receivers that wait are woken first in, first out. Cancel safe: a cancelled call has marked nothing. Tasks of
        any loop may call it.
        """
        if (left := self._left) and not self._closed and (version := self._core.state.version) != self._seen:
            self._left = left - 1
            self._seen = version
            return
        self._left = BUDGET
        if not left and self.has_changed():
            await yield_now()
            return await self.changed()
        await park(self)
        self._seen = self._core.state.version  # there may be a newer one than that which woke it

    def blocking_changed(self, timeout: float | None = None) -> None:
        """`changed`, for plain threads: blocks for at most `timeout` seconds, then raises TimeoutError.

        Raises RuntimeError in a thread that runs an event loop.
        """
        refuse_loop_thread(timeout)
        if not self.has_changed():
            park_thread(self, timeout)
        self._seen = self._core.state.version

    def has_changed(self) -> bool:
        """Whether the newest value has not been seen. Raises HandleClosed when this receiver was closed.

        On a channel without senders too: False means then that there will never be another one.
        """
        self._require_open()
        return self._core.state.version != self._seen

    def borrow_and_update(self) -> T:
        """The newest value, which counts as seen from now on. Otherwise as `borrow`."""
        self._require_open()
        value, self._seen = self._core.state
        return value

    def mark_changed(self) -> None:
        """Let the newest value count as not seen."""
        self._seen = -1
        self._core.section.do(partial(self._core.serve, self))  # somebody may wait on this very receiver

    def mark_unchanged(self) -> None:
        """Let the newest value count as seen."""
        self._seen = self._core.state.version

    async def wait_for(self, predicate: Callable[[T], object]) -> T:
        """Wait until the newest value is one for which `predicate` gives something true; return it.

        Looks at the newest value first, seen or not. All that it looks at counts as seen. Raises what the predicate
        raises, and ChannelClosed when every sender is closed and the last value does not suit. Cancel safe.

        The predicate is called in the calling task, without any lock. Raises TypeError for an async one.

        >>> async def main():
        ...     tx, rx = watch(3)
        ...     with tx, rx:
        ...         return await rx.wait_for(lambda value: value > 2)
        >>> run(main())
        3
        """
        require_plain("predicate", predicate)
        while True:
            value = self.borrow_and_update()
            if predicate(value):
                return value
            await self.changed()

    def blocking_wait_for(self, predicate: Callable[[T], object], timeout: float | None = None) -> T:
        """`wait_for`, for plain threads: blocks for at most `timeout` seconds, then raises TimeoutError.

        Raises RuntimeError in a thread that runs an event loop.
        """
        require_plain("predicate", predicate)
        refuse_loop_thread(timeout)
        deadline = None if timeout is None else monotonic() + timeout  # a thread has no loop to ask for the time
        while not predicate(value := self.borrow_and_update()):
            left = None if deadline is None else deadline - monotonic()
            try:
                if left is not None and left <= 0:  # also while there is always another value
                    raise TimeoutError
                park_thread(self, left)
            except TimeoutError:
                raise TimeoutError(f"no such value within {timeout} seconds") from None
        return value

    def __aiter__(self) -> Self:
        """Receive the newest value, seen or not, then each change, until every sender is closed.

        Whoever is slow skips values, but never the last one, and gets none twice. At the end of a channel that was
        closed with a cause, raises ChannelClosed.
        """
        self.mark_changed()
        return self

    async def __anext__(self) -> T:
        try:
            await self.changed()
        except ChannelClosed as closed:
            if not is_plain_end(closed):
                raise
            raise StopAsyncIteration from None
        return self.borrow_and_update()

    def __iter__(self) -> Iterator[T]:
        """`async for`, for plain threads: blocks for each value."""
        self.mark_changed()
        while True:
            try:
                self.blocking_changed()
            except ChannelClosed as closed:
                if not is_plain_end(closed):
                    raise
                return
            yield self.borrow_and_update()

    def clone(self) -> WatchReceiver[T]:
        """Another receiver, which has seen what this one has. Raises HandleClosed when this one is closed."""
        self._require_open()
        self._core.section.do(self._core.add_receiver)
        return WatchReceiver(self._core, self._seen)

    def close(self) -> None:
        """Close this handle. Calls that are parked on it get HandleClosed.

        Without receivers `send` is refused, until somebody subscribes. Never waits; any thread may call it, again and
        again.
        """
        self._core.section.do(self._close)

    def _close(self) -> None:
        if not self._closed:
            self._closed = True
            self._core.serve(self)
            self._core.drop_receiver()

    def _drop(self) -> None:
        self._core.section.run(self._core.drop_receiver)

    def into_stream(self) -> Stream[T]:
        """This receiver as a stream, which owns it from now on: this handle is closed by that.

        The stream gives what `async for` gives. Raises HandleClosed, and ImportError without the distribution
        `yamanote-streams`.
        """
        return stream_of(self._moved)

    def _moved(self) -> WatchReceiver[T]:
        owned = self.clone()
        self.close()
        return owned

    # ---------------------------------------------------------------- as something to wait for (Selectable, Watching)

    def register(self, waiter: Waiter[Any]) -> None:
        """Park `waiter` until there is a value that has not been seen. See `yamanote.runtime.Selectable`."""
        self._core.park(waiter, self)

    def withdraw(self, waiter: Waiter[Any]) -> None:
        """Forget `waiter`; a value that it was handed has not been seen."""
        self._core.section.do(partial(self._take_back, waiter))

    def _take_back(self, waiter: Waiter[Any]) -> None:
        if not waiter.settled:
            self._core.forget(waiter)
        elif waiter.error is None:
            before, handed = waiter.operation
            if self._seen == handed:  # and not a newer one meanwhile
                self._seen = before
                self._core.serve(self)

    def _is_due(self) -> bool:
        core = self._core
        return core.state.version != self._seen or self._closed or not core.senders

    def _tell(self, waiter: Waiter[Any]) -> None:
        value, version = self._core.state
        if self._closed or version == self._seen:
            if waiter.claim():
                waiter.fail(self._refusal())
        elif waiter.claim():
            waiter.operation = self._seen, version
            self._seen = version  # *then* it may run: in another thread at once, and look further
            waiter.settle(value)

    def __repr__(self) -> str:
        core = self._core
        seen = "seen" if core.state.version == self._seen else "not seen"
        return f"<WatchReceiver {self._condition()}, version {core.state.version} {seen} at {id(core):#x}>"
