"""Waiter: one parked party, a task on its loop or a plain thread.

Invariant: a waiter is claimed at most once, and whoever claimed it settles it, once, with a value or an error. Whoever
waits claims it too, when it gives up; the loser of that race finds it settled and gives back what it was handed.

Everything that can be waited for is a `Selectable`: it knows how to register a waiter and how to withdraw one. That
is enough for `park` (wait in a task), for `park_thread` (wait in a thread), and for a select over many of them, which
registers one party everywhere through `branch`.

A party has no future until it goes to sleep. It makes one *and then* looks whether it has been settled; whoever settles
it, in its own thread, says so *and then* looks for the future. Another thread may see these two in another order: it
leaves its look to the loop, where it comes after the party's. One sees the other, whatever comes in between.

Cost: parking allocates the waiter, its claim and, if it has to wait, a future, and makes one loop turn; nothing here
takes a lock.
"""

from __future__ import annotations

import asyncio
from _thread import TIMEOUT_MAX, get_ident
from asyncio import Future, _get_running_loop, get_running_loop
from queue import Empty, SimpleQueue
from typing import Any, Generic, Protocol, TypeVar

__all__ = [
    "Selectable",
    "TaskWaiter",
    "ThreadWaiter",
    "Waiter",
    "is_thread_parked",
    "park",
    "park_thread",
    "refuse_loop_thread",
]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Waiter(Generic[T]):
    """One parked party, seen from one thing that it waits for.

    The primitive that has something for it calls `claim`, and only if that returns true `settle` or `fail`, all under
    the primitive's own mutex. `settled` may be read under that mutex.
    """

    __slots__ = ("_claim", "error", "operation", "settled", "value")

    value: T
    """What it was handed. Unset before it is settled."""
    error: BaseException | None
    settled: bool
    """Whether it was given a value or an error, through *this* branch."""
    operation: Any
    """What it waits for, for primitives whose waiters ask for different things; theirs to set."""

    def __init__(self, claim: list[None]) -> None:
        # One element for the one who claims: `list.pop` is atomic on every build of CPython, with the GIL and without.
        self._claim = claim
        self.error = None
        self.settled = False

    def claim(self) -> bool:
        """Take the right to settle this party: true for one caller only, and false when nobody waits any more."""
        try:
            self._claim.pop()
        except IndexError:
            return False
        return True

    def is_waiting(self) -> bool:
        """Whether this party can still be served, as far as one can tell without claiming it."""
        return bool(self._claim)

    def settle(self, value: T) -> None:
        """Hand `value` over and wake the party. Only for who claimed it. Never raises."""
        self.value = value
        self.settled = True
        self._wake()

    def fail(self, error: BaseException) -> None:
        """Like `settle`, with an error that the waiting call will raise. Give each waiter an instance of its own."""
        self.error = error
        self.settled = True
        self._wake()

    def hand(self, value: T) -> bool:
        """`claim`, and if that returns true `settle`, in one call."""
        if not self.claim():
            return False
        self.settle(value)
        return True

    def result(self) -> T:
        """Return what it was handed, or raise the error that it was handed."""
        if self.error is None:
            return self.value
        try:
            raise self.error
        finally:
            del self  # the error refers to this frame, and the waiter to the error

    def _wake(self) -> None:
        """Let the party know; nothing to do for one that does not sleep."""


class TaskWaiter(Waiter[T]):
    """A waiter for the running task (more exactly: for whoever awaits `future`, on the running loop)."""

    __slots__ = ("_future", "_loop", "_twin")

    value: T
    error: BaseException | None
    settled: bool
    _future: asyncio.Future[None] | None
    """None as long as the party does not sleep."""
    _twin: TaskWaiter[Any] | None
    """The branch that was made last; of a branch, the one before it."""

    def __init__(self) -> None:
        self._claim = [None]
        self._loop = get_running_loop()
        self._future = None
        self._twin = None
        self.error = None
        self.settled = False

    @property
    def future(self) -> asyncio.Future[None]:
        """Done as soon as the waiter, or a branch of it, is settled: what the party awaits. Made when asked for."""
        future = self._future
        if future is None:
            self._future = future = Future(loop=self._loop)  # what `create_future` of every loop does, without its call
            settled = self.settled
            twin = self._twin
            while twin is not None:
                twin._future = future
                settled = settled or twin.settled
                twin = twin._twin
            if settled:
                self._rouse()
        return future

    def branch(self) -> TaskWaiter[Any]:
        """The same party once more, to be registered elsewhere: whichever is claimed first, the others are dead."""
        twin: TaskWaiter[Any] = TaskWaiter.__new__(TaskWaiter)
        twin._claim = self._claim
        twin._loop = self._loop
        twin._future = self._future
        twin._twin = self._twin
        twin.error = None
        twin.settled = False
        self._twin = twin
        return twin

    def claim(self) -> bool:
        # A task that was cancelled, but has not run since, waits no longer; on a closed loop nobody ever runs again.
        future = self._future
        if (future is not None and future.done()) or (_get_running_loop() is not self._loop and self._loop.is_closed()):
            return False
        try:
            self._claim.pop()
        except IndexError:
            return False
        return True

    def is_waiting(self) -> bool:
        future = self._future
        return bool(self._claim) and not (future is not None and future.done()) and not self._loop.is_closed()

    def settle(self, value: T) -> None:
        self.value = value
        self.settled = True
        if _get_running_loop() is self._loop:
            self._rouse()
        else:
            self._wake()

    def hand(self, value: T) -> bool:
        # `claim` and `settle` once more, without the calls: this is how nearly everything is handed over.
        if _get_running_loop() is not self._loop:
            return super().hand(value)
        try:
            self._claim.pop()
        except IndexError:
            return False
        self.value = value
        self.settled = True
        future = self._future
        if future is not None:
            try:
                future.set_result(None)
            except asyncio.InvalidStateError:  # cancelled, though it has not run since: nobody has claimed it
                self.settled = False
                self._claim.append(None)
                return False
        return True

    def _wake(self) -> None:
        if _get_running_loop() is self._loop:
            self._rouse()
            return
        try:
            self._loop.call_soon_threadsafe(self._rouse)
        except RuntimeError:
            # Closed since the claim. What was handed over comes back when the coroutine is thrown away.
            pass

    def _rouse(self) -> None:
        future = self._future
        if future is None:
            return
        try:
            future.set_result(None)
        except asyncio.InvalidStateError:
            pass  # cancelled since: a signal handler or a finalizer may do that between any two bytecodes


class ThreadWaiter(Waiter[T]):
    """A waiter for the calling thread."""

    __slots__ = ("_sleep",)

    def __init__(self) -> None:
        super().__init__([None])
        # Not a lock: without the GIL, whoever waits for one spins before it sleeps, and takes a processor from who
        # brings what it waits for. A round trip between a thread and a loop takes a third less time this way.
        self._sleep: SimpleQueue[None] = SimpleQueue()

    def branch(self) -> ThreadWaiter[Any]:
        """The same party once more, to be registered elsewhere: whichever is claimed first, the others are dead."""
        twin: ThreadWaiter[Any] = ThreadWaiter.__new__(ThreadWaiter)
        Waiter.__init__(twin, self._claim)
        twin._sleep = self._sleep
        return twin

    def sleep(self, timeout: float | None = None) -> bool:
        """Block until the waiter is settled, for at most `timeout` seconds; tell whether it was."""
        thread = get_ident()
        _parked[thread] = self
        try:
            self._sleep.get(timeout=None if timeout is None else min(max(timeout, 0), TIMEOUT_MAX))
        except Empty:
            return False
        finally:
            _parked.pop(thread, None)  # a signal handler may have parked in between
        return True

    def _wake(self) -> None:
        self._sleep.put(None)


_parked: dict[int, ThreadWaiter[Any]] = {}
"""What each thread that sleeps is waiting for."""


def is_thread_parked(thread: int) -> bool:
    """Whether the thread with this identifier (`threading.get_ident`) waits in one of our blocking calls.

    False from the moment when it is handed something, although it may take a while until it runs again. For clocks and
    watchdogs, which must tell a thread that works from one that waits for the loop. May be called from any thread.
    """
    waiter = _parked.get(thread)
    return waiter is not None and waiter.is_waiting()


class Selectable(Protocol[T_co]):
    """Something that can be waited for: a receiver, a lock, an event, a timer, a task.

    Both methods may be called from any thread. They never block and never suspend.
    """

    def register(self, waiter: Waiter[Any], /) -> None:
        """Queue `waiter`, last; then look again whether it can be served, and settle it at once if so."""

    def withdraw(self, waiter: Waiter[Any], /) -> None:
        """Forget `waiter`, which somebody else has claimed by now.

        When it was settled through this very registration, take back what it was handed, put it to the front, and
        serve the next waiter with it.
        """


async def park(operation: Selectable[T]) -> T:
    """Wait for `operation` in the running task.

    Returns what it hands over and raises the error that it fails with. Cancel safe: what had been handed over when the
    cancellation came goes back through `Selectable.withdraw`.
    """
    waiter: TaskWaiter[T] = TaskWaiter()
    try:
        operation.register(waiter)
        if not waiter.settled:
            # As `future` does it, without the call.
            future: Future[None] = Future(loop=waiter._loop)
            waiter._future = future
            if not waiter.settled:
                await future
    except BaseException:  # GeneratorExit too: a coroutine that is thrown away must not keep what it was handed
        waiter.claim()
        operation.withdraw(waiter)
        raise
    if waiter.error is None:
        return waiter.value
    try:
        raise waiter.error
    finally:
        del waiter, operation  # the error refers to this frame, and they to the error


def park_thread(operation: Selectable[T], timeout: float | None = None) -> T:
    """Wait for `operation` in the calling thread, for at most `timeout` seconds.

    Raises TimeoutError when the time is over, and RuntimeError in a thread that runs an event loop, which would stop.
    """
    refuse_loop_thread(timeout)
    waiter: ThreadWaiter[T] = ThreadWaiter()
    try:
        operation.register(waiter)
        if not waiter.sleep(timeout):
            if waiter.claim():
                raise TimeoutError(f"not done within {timeout} seconds")
            waiter.sleep()  # it was claimed at the last moment: the value is on its way
    except BaseException:  # KeyboardInterrupt, too
        waiter.claim()
        operation.withdraw(waiter)
        raise
    try:
        return waiter.result()
    finally:
        del waiter, operation  # the error refers to this frame, and they to the error


def refuse_loop_thread(timeout: float | None = None) -> None:
    """Refuse to block: RuntimeError, with advice, in a thread that runs an event loop; also a `timeout` that is none.

    Call it first in whatever blocks, so that nonsense is noticed when nothing has to be waited for, too. Raises
    TypeError and ValueError for a `timeout` that is no number of seconds.
    """
    if _get_running_loop() is not None:
        raise RuntimeError(
            "this call would block the event loop of its own thread: use the form for tasks (`await`, `async with`, "
            "`async for`), or make the call in another thread (`spawn_blocking`)"
        )
    if timeout is not None:
        if not isinstance(timeout, (int, float)):
            raise TypeError(f"timeout must be a number of seconds or None, not {timeout!r}")
        if timeout != timeout:
            raise ValueError("timeout must be a number of seconds or None, not nan")
