"""Cancellation token: a switch that is turned once, and that tasks and threads can watch.

Invariant: a token that is cancelled stays so, with the reason that came first; when `cancel` returns, every token below
is cancelled too and every waiter of all of them has been woken. A token knows those below it only weakly, they know it
strongly: what nobody can watch any more is forgotten, and no chain between two tokens that are in use breaks.

No locks: whoever waits, or is born, enters itself *and then* looks whether the token has been cancelled; whoever
cancels turns the switch *and then* looks who has entered. One of the two sees the other. Settling twice is impossible,
and cancelling a child twice means nothing.
"""

from __future__ import annotations

import asyncio
import weakref
from asyncio import _get_running_loop
from collections.abc import Awaitable
from contextlib import AbstractContextManager
from math import inf
from types import TracebackType
from typing import Any, TypeVar, final

from yamanote.runtime._budget import BUDGET, yield_now
from yamanote.runtime._scope import DEADLINE_PASSED, CancelScope, call_soon, require_number
from yamanote.runtime._task import as_coroutine, no_loop
from yamanote.runtime._waiter import Waiter, park, park_thread

__all__ = ["CancellationToken", "CancellationTokenGuard"]

T = TypeVar("T")


@final
class CancellationToken:
    """Tells tasks and threads that it is time to stop. It asks; nobody is interrupted, unless it chooses to be.

    Tokens form a tree: cancelling one cancels all those below it, and none above.

    **Threads:** every method may be called from any thread, and `cancel` from a signal handler too.

    >>> from yamanote.runtime import CancellationToken, run
    >>> async def example():
    ...     token = CancellationToken()
    ...     asyncio.get_running_loop().call_soon(token.cancel, "enough")
    ...     await token.child_token().cancelled()
    ...     return token.reason
    >>> run(example())
    'enough'
    """

    __slots__ = ("__weakref__", "_children", "_left", "_parent", "_reasons", "_waiters")

    def __init__(self) -> None:
        self._parent: CancellationToken | None = None
        # The first is the reason; any makes it cancelled. Appending is atomic, so the two cannot be seen apart.
        self._reasons: list[str | None] = []
        self._left = BUDGET
        # In order, like lists; but any of them can leave at once. Each operation on them is atomic.
        self._waiters: dict[Waiter[Any], None] = {}
        self._children: dict[weakref.ref[CancellationToken], None] = {}

    def child_token(self) -> CancellationToken:
        """A token that is cancelled when this one is, or alone. Below a cancelled token it is born cancelled."""
        child = CancellationToken()
        child._parent = self
        if not self._reasons:
            self._children[weakref.ref(child, self._children.pop)] = None
        if self._reasons:
            child._reasons.append(self._reasons[0])
        return child

    def cancel(self, reason: str | None = None) -> None:
        """Cancel this token and all below it. When it was cancelled before, nothing changes, the reason neither."""
        tokens = [(self, reason)]
        while tokens:
            token, reason = tokens.pop()
            if not token._reasons:
                token._reasons.append(reason)
            token._wake_waiters()
            if token._children:
                # Of two who cancel at once, one comes first here; the tokens below get its reason from both.
                first = token._reasons[0]
                tokens += [(child, first) for ref in list(token._children) if (child := ref()) is not None]
        loop = _get_running_loop()
        if loop is not None and asyncio.current_task() is None:
            loop.call_soon_threadsafe(_nothing)  # in a signal handler, that has found the loop asleep, it must wake up

    def cancel_after(self, seconds: float) -> None:
        """Cancel this token in so many seconds on the clock of the running loop: its reason is "deadline passed" then.

        Of several deadlines the earliest counts, those of the tokens above included, as they cancel this one too. The
        timer belongs to the running loop, and ends with it; it does not keep the token alive, and goes when the token
        is cancelled, so a `guard` around the work clears it away. `math.inf` means never.

        Raises ValueError for nan, RuntimeError where no loop runs.
        """
        require_number("seconds", seconds, "a number of seconds")
        self._arm(seconds, False, "cancel_after")

    def cancel_at(self, when: float) -> None:
        """`cancel_after`, with the moment on the clock of the running loop; at once, when it has passed.

        >>> async def example():
        ...     token = CancellationToken()
        ...     token.cancel_at(asyncio.get_running_loop().time() + 0.001)
        ...     await token.child_token().cancelled()
        ...     return token.reason
        >>> run(example())
        'deadline passed'
        """
        require_number("when", when, "a moment on the loop's clock")
        self._arm(when, True, "cancel_at")

    def is_cancelled(self) -> bool:
        """Whether this token has been cancelled."""
        return bool(self._reasons)

    @property
    def reason(self) -> str | None:
        """What the first `cancel` was given; None as long as there was none."""
        return self._reasons[0] if self._reasons else None

    async def cancelled(self) -> None:
        """Wait until the token is cancelled; at once, if it is. It never raises on its own account.

        **Cancel safety:** nothing is lost. The token itself can take part in a `select`.
        """
        if not self._reasons:
            await park(self)
            return
        self._left -= 1
        if self._left <= 0:  # less, when two threads came here at once
            self._left = BUDGET
            await yield_now()

    def blocking_wait(self, timeout: float | None = None) -> bool:
        """Block the calling thread until the token is cancelled, for at most `timeout` seconds; tell whether it is.

        Raises RuntimeError in a thread that runs an event loop, unless it need not wait.
        """
        if not self._reasons:
            try:
                park_thread(self, timeout)
            except TimeoutError:
                return self.is_cancelled()
        return True

    async def run_until_cancelled(self, aw: Awaitable[T], /) -> T | None:
        """Await `aw`, but cancel it, and return None, when the token is cancelled first.

        It is awaited in the calling task. When the token is cancelled already, it does not even start. What it returns
        or raises in spite of the cancellation goes through.
        """
        coroutine = as_coroutine(aw, "run_until_cancelled")
        if self._reasons:
            coroutine.close()
            return None
        with self.scope():
            return await coroutine
        return None

    def scope(self) -> AbstractContextManager[CancelScope]:
        """A block that is cancelled when the token is: ``with token.scope() as scope: ...``.

        The block is a `CancelScope`, which swallows its cancellation; `scope.cancelled_caught` tells. When the token is
        cancelled already, so is the first await of the block. Cancelling the scope leaves the token alone.

        >>> async def example():
        ...     token = CancellationToken()
        ...     with token.scope() as scope:
        ...         token.cancel("enough")
        ...         await asyncio.sleep(3600)
        ...     return scope.reason
        >>> run(example())
        'enough'
        """
        return _TokenScope(self)

    def guard(self) -> CancellationTokenGuard:
        """A context manager that cancels the token at the end of its block, unless it is disarmed."""
        return CancellationTokenGuard(self)

    def _arm(self, limit: float, absolute: bool, caller: str) -> None:
        loop = _get_running_loop()
        if loop is None:
            raise no_loop(caller)
        when = limit if absolute else loop.time() + limit
        if when <= loop.time():
            self.cancel(DEADLINE_PASSED)
        elif when != inf and not self._reasons:
            self.register(_Alarm(self, loop, when))

    def register(self, waiter: Waiter[Any], /) -> None:
        self._waiters[waiter] = None
        if self._reasons:
            self._wake_waiters()

    def withdraw(self, waiter: Waiter[Any], /) -> None:
        self._waiters.pop(waiter, None)  # if it has been woken, it took nothing that others want

    def _wake_waiters(self) -> None:
        while self._waiters:
            for waiter in list(self._waiters):
                self._waiters.pop(waiter, None)
                waiter.hand(None)

    def __repr__(self) -> str:
        if not self._reasons:
            return "<CancellationToken>"
        reason = "" if self._reasons[0] is None else f": {self._reasons[0]}"
        return f"<CancellationToken cancelled{reason}>"


@final
class CancellationTokenGuard:
    """Cancels a token when its block ends, however it ends."""

    __slots__ = ("_token",)

    def __init__(self, token: CancellationToken) -> None:
        self._token: CancellationToken | None = token

    def disarm(self) -> None:
        """Leave the token alone from now on."""
        self._token = None

    def __enter__(self) -> CancellationTokenGuard:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._token is not None:
            self._token.cancel()


@final
class _TokenScope(Waiter[None]):
    """A block that waits for a token by being cancelled."""

    __slots__ = ("_scope", "_token")

    def __init__(self, token: CancellationToken) -> None:
        super().__init__([None])
        self._scope = CancelScope()
        self._token = token

    def settle(self, value: None) -> None:
        self.settled = True
        self._scope.cancel(self._token.reason)

    def __enter__(self) -> CancelScope:
        self._scope.__enter__()
        self._token.register(self)
        return self._scope

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        self.claim()
        self._token.withdraw(self)
        return self._scope.__exit__(kind, error, traceback)


@final
class _Alarm(Waiter[None]):
    """A timer that cancels a token. It waits for the token, too, to be put off when that is cancelled before."""

    __slots__ = ("_loop", "_timer")

    def __init__(self, token: CancellationToken, loop: asyncio.AbstractEventLoop, when: float) -> None:
        super().__init__([None])
        self._loop = loop
        # Only the token refers to the alarm, and the timer to the token only weakly.
        self._timer = loop.call_at(when, _ring, weakref.ref(token))

    def settle(self, value: None) -> None:
        self.settled = True
        call_soon(self._loop, self._timer.cancel)


def _ring(token: weakref.ref[CancellationToken]) -> None:
    alive = token()
    if alive is not None:
        alive.cancel(DEADLINE_PASSED)


def _nothing() -> None:
    pass
