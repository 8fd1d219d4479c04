"""Cancel scope: a block of code that can be cancelled, by a deadline or by hand, without cancelling its task.

Invariant: `task.cancelling()` is the same after the block as before it; a request is delivered at most once; the scope
swallows the CancelledError of its own request and no other, and when a request from outside arrives as well, that one
goes on.

A running task is never cancelled directly: on 3.11 and 3.12 nothing takes back a cancellation that has not been thrown
yet, so a block that ends without another await would leak it into the code behind. Every delivery is a callback of the
loop. It finds the task suspended inside the block, or the block closed, and then it does nothing.
"""

from __future__ import annotations

import asyncio
from asyncio import CancelledError, current_task
from collections.abc import Callable
from math import inf, isnan
from types import TracebackType
from typing import Any, final

from yamanote.runtime._deadline import Block, living
from yamanote.runtime._shared_timer import SharedTimer, shared_timer_of
from yamanote.runtime._task import request_again

__all__ = ["CancelScope", "move_on_after", "use_scope"]

DEADLINE_PASSED = "deadline passed"
"""The reason when nobody has given one."""

FAR = 1e9
"""So many seconds and more are rare, and looked at twice: no float can hold every int."""

shields: dict[asyncio.Task[Any], CancelScope] = {}
"""The innermost open scope with `shield=True` of each task that has one. Almost always empty."""


@final
class CancelScope(Block):
    """A block that can be cancelled: ``with CancelScope(deadline=loop.time() + 5) as scope: ...``.

    When it is cancelled, the running await inside raises CancelledError, once; the `with` statement swallows it, and
    `cancelled_caught` says so. A block that handles the CancelledError and goes on is not cancelled a second time.

    With `shield=True` the block is protected from the scopes around it in the same task: their cancellation is
    delivered when the block has ended. It is not protected from `task.cancel()`.

    Raises ValueError for a `deadline` that is nan. `math.inf` and None mean never; one that has passed cancels the
    first await that waits. To give way (`yield_now`, `sleep(0)`) is not to wait: a deadline that finds the block doing
    so leaves it that one turn, so that an operation which is ready, but has to be fair, comes to its end.

    **Threads:** `cancel` may be called from any thread, and from a signal handler; everything else belongs to the task.

    >>> import asyncio
    >>> from yamanote.runtime import CancelScope, run
    >>> async def example():
    ...     with CancelScope() as scope:
    ...         scope.cancel()
    ...         await asyncio.sleep(3600)
    ...     return scope.cancelled_caught
    >>> run(example())
    True
    """

    __slots__ = (
        "_armed_for",
        "_around",
        "_called",
        "_cancelling",
        "_caught",
        "_delivered",
        "_expired",
        "_held",
        "_reason",
        "_seconds",
        "_shared",
        "_timer",
    )

    def __init__(self, deadline: float | None = None, *, shield: bool = False) -> None:
        if deadline is not None and (type(deadline) is not float or deadline != deadline):
            require_number("deadline", deadline, "a moment on the loop's clock, or None for never")
        self._deadline = deadline
        # How long after entering the deadline is; until then.
        self._seconds: float | None = None
        self._shield = shield
        self._called = False
        self._caught = False
        self._delivered = False
        self._expired = False
        self._cancelling = -1
        self._travels = False
        self._reason: str | None = None
        self._task = None
        # One of them, when the block is open and its deadline is to come; and for what moment its own timer is.
        self._timer: asyncio.TimerHandle | None = None
        self._shared: SharedTimer | None = None
        # The innermost shield that is no business of this scope: the one around it, or itself.
        self._around: CancelScope | None = None
        self._held: list[CancelScope] | None = None

    def __enter__(self) -> CancelScope:
        task = current_task()
        if task is None:
            raise RuntimeError("a CancelScope can be entered only in a task")
        if self._cancelling >= 0:
            raise RuntimeError("a CancelScope can be entered only once")
        self._task = task
        self._cancelling = task.cancelling()
        if self._shield:
            self._held = []
            self._around = shields.get(task)
            shields[task] = self
            self._surround()
        elif shields:
            self._around = shields.get(task)
        if self._deadline is not None or self._seconds is not None:
            now = task.get_loop().time()
            if self._seconds is not None:
                self._deadline = now + self._seconds
            self._surround()
            if not self._called:
                self._arm(task, now)
        if self._called:
            task.get_loop().call_soon(self._deliver)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        task = self._task
        if task is None:
            raise RuntimeError("this CancelScope is not open")
        self._task = None  # from here on a delivery that is still on its way does nothing
        if self._travels and self._outer is not None:
            self._outer = living(self._outer)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        elif self._shared is not None:
            # `SharedTimer.remove`, without the call.
            shared = self._shared
            self._shared = None
            del shared[self]
            if not shared and not shared.is_ending:
                shared.end_soon()
        if self._held is not None:
            self._unshield(task, self._held)
        if not self._delivered:
            return False
        others = task.cancelling() - self._cancelling
        # Less than one: somebody inside has taken our request back already.
        if others > 0:
            others -= 1
            task.uncancel()
        if not isinstance(error, CancelledError):
            return False
        if others > 0 and not (others == 1 and getattr(task, "_must_cancel", False)):
            # Somebody outside wants to cancel the task too, and this is all that he gets.
            return False
        # In the case of `_must_cancel` the request from outside has been made in this very step: the task itself will
        # raise it at the next await, so the error at hand is ours alone.
        self._caught = True
        return True

    def cancel(self, reason: str | None = None) -> None:
        """Cancel the block: at its next await, or the one that it waits in. Later calls do nothing.

        Before the block is entered this cancels its first await; after it has ended nothing happens.

        **Threads:** may be called from any thread, and from a signal handler.
        """
        if self._called:
            return
        self._reason = reason
        self._called = True
        task = self._task
        if task is not None:
            call_soon(task.get_loop(), self._deliver)

    @property
    def deadline(self) -> float | None:
        """When the block is cancelled, on the loop's clock (`loop.time()`), in seconds; None for never.

        It can be moved while the block is open; once the block is cancelled that has no effect.
        """
        return self._deadline

    @deadline.setter
    def deadline(self, deadline: float | None) -> None:
        if deadline is not None:
            require_number("deadline", deadline, "a moment on the loop's clock, or None for never")
        self._deadline = deadline
        self._seconds = None
        task = self._task
        if task is None or self._called:
            return
        if self._shared is not None:
            if deadline is None or deadline >= self._shared.when:
                return  # whoever shares the timer is asked for the deadline when it is due
        elif self._timer is not None:
            if deadline is not None and deadline >= self._armed_for:
                return  # the timer will look again: to move a deadline back and back costs no timer each time
            self._timer.cancel()
            self._timer = None
        if deadline is None:
            return
        self._arm(task, task.get_loop().time())
        if not self._travels and current_task() is task and shields.get(task) is self._around:
            self._surround()  # else it would count inside of a shield that was entered since

    @property
    def shield(self) -> bool:
        """Whether the block is protected from the scopes around it."""
        return self._shield

    @property
    def cancel_called(self) -> bool:
        """Whether the block has been cancelled, by `cancel` or by its deadline, even if it ended first."""
        return self._called

    @property
    def cancelled_caught(self) -> bool:
        """Whether the block was ended by its cancellation: its CancelledError arrived here and was swallowed."""
        return self._caught

    @property
    def expired(self) -> bool:
        """Whether it was the deadline that has cancelled the block, even if that ended first."""
        return self._expired

    @property
    def reason(self) -> str | None:
        """What `cancel` was given; ``"deadline passed"`` when it was the deadline."""
        return self._reason

    def _arm(self, task: asyncio.Task[Any], now: float) -> None:
        deadline = self._deadline
        assert deadline is not None
        loop = task.get_loop()
        if now < deadline < inf:
            shared = self._shared
            if shared is None:
                self._shared = shared = shared_timer_of(loop)
                shared[self] = None
            if deadline < shared.when:
                shared.move(deadline)
        elif deadline <= now:  # else no timer: a loop that has nothing else to do must not seem to wait for it
            if self._shared is not None:
                self._shared.remove(self)
                self._shared = None
            # Before any step of the task that its next await may schedule.
            self._armed_for = deadline
            self._timer = loop.call_soon(self._expire)  # type: ignore[assignment]

    def _part(self, loop: asyncio.AbstractEventLoop, when: float) -> bool:
        """The shared timer is due. Tell whether the deadline has come; if not, go on with a timer of one's own."""
        if self._task is None or self._deadline is None or self._called:
            return False
        self._armed_for = max(self._deadline, when)
        if when < self._deadline < inf:
            self._timer = loop.call_at(self._deadline, self._expire)
        return self._deadline <= when

    def _expire(self, at_last: bool = False) -> None:
        self._timer = None
        task = self._task
        if task is None or self._called or self._deadline is None:
            return
        if self._deadline > self._armed_for:  # it was moved
            self._arm(task, task.get_loop().time())
            return
        if not at_last and getattr(task, "_fut_waiter", self) is None:
            # It waits for nothing, it has given way to others, and may be about to finish: it has this turn.
            self._timer = task.get_loop().call_soon(self._expire, True)  # type: ignore[assignment]
            return
        self._reason = DEADLINE_PASSED
        self._called = self._expired = True
        self._deliver()

    def _deliver(self) -> None:
        """Cancel the task, which is suspended in the block: callbacks of a loop never run inside a step."""
        task = self._task
        if task is None or self._delivered:
            return
        if shields:
            shield = shields.get(task)
            if shield is not None and shield is not self._around and shield is not self:
                assert shield._held is not None
                shield._held.append(self)
                return
        self._delivered = task.cancel(self._reason)

    def _unshield(self, task: asyncio.Task[Any], held: list[CancelScope]) -> None:
        if self._around is None:
            shields.pop(task, None)
        else:
            shields[task] = self._around
        for scope in held:
            task.get_loop().call_soon(scope._deliver)

    def _raise_again(self, task: asyncio.Task[Any]) -> None:
        """For a task group, which had to raise errors in place of a cancellation from outside the scope.

        That is raised once more at the next await, unless all who made a request since the scope was entered have
        taken it back by then.
        """
        request_again(task, self._cancelling)

    def __repr__(self) -> str:
        if self._cancelling < 0:
            state = "new"
        elif self._task is not None:
            state = "open"
        else:
            state = "closed"
        if self._called:
            state += ", cancelled"
        if self._shield:
            state += ", shield"
        return f"<CancelScope {state} deadline={self._deadline}>"


def move_on_after(seconds: float | None, *, shield: bool = False) -> CancelScope:
    """A `CancelScope` that is cancelled so many seconds after its block is entered; None means never.

    It raises nothing: `cancelled_caught` tells whether the block was cut short. A TimeoutError that the block itself
    raises passes through, like any other. With 0 seconds or less the first await that waits is cancelled.

    Raises ValueError for nan.

    >>> from yamanote.runtime import move_on_after, run
    >>> async def example():
    ...     with move_on_after(0.001) as scope:
    ...         await asyncio.sleep(3600)
    ...     return scope.cancelled_caught
    >>> run(example())
    True
    """
    if seconds is not None and not (isinstance(seconds, (int, float)) and -FAR < seconds < FAR):
        require_number("seconds", seconds, "a number of seconds, or None for ever")
    scope = CancelScope(shield=shield)
    scope._seconds = seconds
    return scope


def use_scope() -> CancelScope:
    """A `CancelScope` without a deadline, to be cancelled by hand.

    >>> from yamanote.runtime import run, use_scope
    >>> async def example():
    ...     with use_scope() as scope:
    ...         scope.cancel("enough")
    ...         await asyncio.sleep(3600)
    ...     return scope.reason
    >>> run(example())
    'enough'
    """
    return CancelScope()


def require_number(name: str, value: float, meaning: str) -> None:
    """Refuse what is no point or length of time: TypeError, and ValueError for nan, that name the argument."""
    if not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be {meaning}, not {value!r}")
    try:
        if isnan(value):
            raise ValueError(f"{name} must be {meaning}, not nan")
    except OverflowError:
        raise ValueError(f"{name} must be {meaning}, not an int that no float can hold") from None


def call_soon(loop: asyncio.AbstractEventLoop, callback: Callable[[], object]) -> None:
    """`loop.call_soon`, from any thread, and from a signal handler.

    A signal handler runs on the thread of the loop, but it may have interrupted the loop in its sleep, and that would
    go on. It can be known by there being no task that runs. A plain callback of the loop looks the same, and pays for
    it with a wake-up that is not needed.
    """
    if asyncio._get_running_loop() is loop and asyncio.current_task() is not None:
        loop.call_soon(callback)
        return
    try:
        loop.call_soon_threadsafe(callback)
    except RuntimeError:  # the loop is closed: nothing will ever run there again
        pass
