"""Calls in threads: each on its way from who asks for it, through a thread, and back.

Invariant: a call is taken once, by a thread or by its cancellation. What a thread has taken is made to its end, and its
outcome arrives on the loop that asked for it; for a plain thread that asked, in the thread that made it. Until it is
aborted, a call can have its loop do errands: then the one in progress is cancelled, and each later one refused.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import threading
from asyncio import CancelledError
from collections import deque
from collections.abc import Callable, Generator
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast, final

from yamanote.runtime import _site
from yamanote.runtime._cancel import wait_for_end
from yamanote.runtime._join import JoinHandle
from yamanote.runtime._task import on_loop
from yamanote.runtime._token import CancellationToken
from yamanote.runtime._waiter import Waiter

if TYPE_CHECKING:
    from yamanote.runtime._errand import Errand
    from yamanote.runtime._pool import PoolThread

__all__ = [
    "Call",
    "CallHandle",
    "Inbox",
    "calls_of",
    "current",
    "current_token",
    "inbox_of",
    "name_of",
    "require_function",
]

T = TypeVar("T")
U = TypeVar("U")

_logger = logging.getLogger("yamanote")


class _Current(threading.local):
    thread: PoolThread | None = None


current = _Current()
"""The thread itself, in a thread of a pool."""


def current_token() -> CancellationToken:
    """In a call made by `spawn_blocking`, or by a `BlockingPool`: its token, cancelled when nobody wants its result.

    Raises RuntimeError anywhere else.
    """
    call = None if current.thread is None else current.thread.call
    if call is None:
        raise RuntimeError("current_token() is for functions that spawn_blocking() or map_blocking() calls")
    return call.get_token()


@final
class Call(Generic[T]):
    """One call, on its way through a thread."""

    __slots__ = (
        "_claim",
        "aborted",
        "args",
        "context",
        "errand",
        "error",
        "function",
        "future",
        "inbox",
        "kwargs",
        "label",
        "reason",
        "thread",
        "token",
        "value",
    )

    def __init__(self, function: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any], inbox: Inbox) -> None:
        self.function: Callable[..., T] | None = function
        self.label = ""
        self.args = args
        self.kwargs = kwargs
        self.context: Context = copy_context()
        self.inbox = inbox
        self.future: asyncio.Future[T] = inbox.loop.create_future()
        if _site.recording:
            _site.remember_site(self.future)
        self.value: T | None = None
        self.error: BaseException | None = None
        self.thread: PoolThread | None = None
        self.token: CancellationToken | None = None
        self.aborted = False
        self.reason: str | None = None  # that it was aborted for
        self.errand: Errand[Any] | None = None
        self._claim: list[None] = [None]

    def claim(self) -> bool:
        try:
            self._claim.pop()
        except IndexError:
            return False
        return True

    def make(self, thread: PoolThread) -> bool:
        """Make the call, in `thread`, unless it has been cancelled; tell whether it was made."""
        if not self.claim():
            return False
        thread.call = self
        self.thread = thread
        try:
            self.value = self.context.run(cast(Callable[..., T], self.function), *self.args, **self.kwargs)
        except BaseException as error:
            self.error = error
        thread.call = None
        self.thread = None  # before it takes the next call, and parks there
        self._forget()
        del self  # an error refers to this frame, and the call to its error
        return True

    def _forget(self) -> None:
        """Let go at once of what it was called with: a handle may be kept for long, and a thread be slow to rest."""
        self.label = self.name
        self.function = None
        del self.args, self.kwargs, self.context

    @property
    def name(self) -> str:
        function = self.function
        if function is None:
            return self.label
        return name_of(function)

    @property
    def where(self) -> str:
        """Which call this is, and in which thread: for whoever has to tell of one that does not end."""
        thread = self.thread
        return f"{self.name}() in {thread.name}" if thread is not None else f"{self.name}(), which no thread has begun"

    def get_token(self) -> CancellationToken:
        """Its token, which is made when somebody asks. In its own thread."""
        token = self.token
        if token is None:
            self.token = token = CancellationToken()
            if self.aborted:  # see `_abort`: one of the two sees what the other has set
                token.cancel(self.reason)
        return token

    def run(self, errand: Errand[U]) -> U:
        """Have its loop do `errand`. In its own thread."""
        # Published, then looked: `_abort` says so, then looks for an errand. One of the two sees the other.
        self.errand = errand
        try:
            if self.aborted:
                raise CancelledError("nobody awaits this call any more")
            return errand.wait()
        finally:
            self.errand = None
            del self, errand  # an error refers to this frame

    def abort(self, reason: str | None) -> None:
        """Drop it, or tell it. From any thread."""
        on_loop(self.inbox.loop, self._abort, reason)

    def _abort(self, reason: str | None) -> None:
        if self.claim():
            self._forget()
            self.inbox.unfinished.discard(self)
            self.future.cancel(reason)
            self.inbox.look()
            return
        if not self.aborted:
            self.reason = reason
        self.aborted = True
        if self.token is not None:
            self.token.cancel(reason)
        errand = self.errand
        if errand is not None:
            errand.cancel()


def require_function(function: object) -> None:
    """Refuse what cannot be called: TypeError. A coroutine, of a function called here instead of there, is closed.

    For whoever takes a function in order to call it in another thread, or later.

    >>> from yamanote.runtime import require_function
    >>> async def work(): ...
    >>> require_function(work)
    >>> require_function(work())
    Traceback (most recent call last):
    TypeError: function must be callable, not <coroutine ...>: give the function and its arguments, and do not call it
    """
    if not callable(function):
        advice = ""
        if inspect.iscoroutine(function):
            function.close()
            advice = ": give the function and its arguments, and do not call it"
        raise TypeError(f"function must be callable, not {function!r}{advice}")


def name_of(function: Callable[..., Any]) -> str:
    """What to call `function` in front of people. Not its `repr`, which is foreign code, and may be long."""
    return getattr(function, "__qualname__", None) or type(function).__qualname__


class CallHandle(JoinHandle[T]):
    """The handle of a call in a thread."""

    __slots__ = ("_awaiting", "_call")

    def __init__(self, call: Call[T]) -> None:
        super().__init__(call.future)
        self._call = call
        self._awaiting: list[None] = []  # one for each; a list, because they come from any thread

    def __await__(self) -> Generator[Any, None, T]:
        if self._future.done():
            return self._take()
        self._awaiting.append(None)
        try:
            try:
                return (yield from super().__await__())
            finally:
                self._awaiting.pop()
        except (CancelledError, GeneratorExit) as stopped:
            # Gone, and then looked: of two that go at once, on two loops, one sees that nobody is left.
            if not self._awaiting:
                self.abort("nobody awaits it any more")
                errand = self._call.errand
                task = None if errand is None else errand.task
                if task is not None and task is not asyncio.current_task() and isinstance(stopped, CancelledError):
                    yield from wait_for_end([task]).__await__()
            raise
        finally:
            del self

    def register(self, waiter: Waiter[Any], /) -> None:
        self._awaiting.append(None)
        super().register(waiter)

    def withdraw(self, waiter: Waiter[Any], /) -> None:
        self._awaiting.pop()
        super().withdraw(waiter)

    def abort(self, reason: str | None = None) -> None:
        self._call.abort(reason)

    @property
    def name(self) -> str:
        return self._call.name


@final
class Inbox:
    """The results for one loop. However many arrive in a burst, the loop is woken once."""

    __slots__ = ("_arrived", "_woken", "idle", "left_behind", "loop", "unfinished")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.unfinished: set[Call[Any]] = set()
        self.idle: asyncio.Future[None] | None = None
        self.left_behind = False
        """Whether the runtime of the loop has ended, which has given its calls their time."""
        self._arrived: deque[Call[Any]] = deque()
        self._woken = False

    def put(self, call: Call[Any]) -> None:
        """Bring a call that has been made, from any thread."""
        # Not wrapped into anything: without the GIL, what this thread makes it must also free, which takes until it is
        # woken the next time.
        self._arrived.append(call)
        if not self._woken:
            self._woken = True
            try:
                self.loop.call_soon_threadsafe(self._deliver)
            except RuntimeError:  # the loop is closed: nobody waits any more
                pass

    def look(self) -> None:
        """Tell who waits for the end of all calls, if it has come."""
        if not self.unfinished and self.idle is not None and not self.idle.done():
            self.idle.set_result(None)

    def _deliver(self) -> None:
        self._woken = False  # before looking: what arrives from now on wakes the loop again
        while self._arrived:
            call = self._arrived.popleft()
            future, value, error = call.future, call.value, call.error
            call.value = call.error = None
            self.unfinished.discard(call)
            if future.done():
                continue
            if error is None:
                future.set_result(value)
            elif isinstance(error, CancelledError):
                future.cancel(*([call.reason] if call.aborted else error.args[:1]))
            elif isinstance(error, StopIteration):  # a future cannot raise that
                wrapped = RuntimeError("the call raised StopIteration")
                wrapped.__cause__ = error
                future.set_exception(wrapped)
            else:
                future.set_exception(error)
        self.look()


class _NoLoop:
    """Stands in for the loop of a call for which a plain thread has asked: what is due is done at once.

    It has what a future and an inbox ask of a loop. Whoever comes from outside enters through `call_soon_threadsafe`,
    one at a time.
    """

    def __init__(self) -> None:
        self._one_at_a_time = threading.RLock()

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=cast(asyncio.AbstractEventLoop, self))

    def call_soon(self, callback: Callable[..., object], *args: Any, context: Context) -> None:
        callback(*args)

    def call_soon_threadsafe(self, callback: Callable[..., object], *args: Any) -> None:
        with self._one_at_a_time:
            callback(*args)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        _logger.error(context["message"], exc_info=context.get("exception"))

    def get_debug(self) -> bool:
        return False

    def is_closed(self) -> bool:
        return False


def _new_inbox_without_loop() -> Inbox:
    return Inbox(cast(asyncio.AbstractEventLoop, _NoLoop()))


_without_loop = _new_inbox_without_loop()


def inbox_of(loop: asyncio.AbstractEventLoop | None) -> Inbox:
    """Where the results for `loop` arrive, or those for plain threads. From any thread."""
    if loop is None:
        return _without_loop
    try:
        return loop._yamanote_inbox  # type: ignore[attr-defined,no-any-return]
    except AttributeError:
        with _making:
            inbox: Inbox | None = getattr(loop, "_yamanote_inbox", None)
            if inbox is None:
                inbox = loop._yamanote_inbox = Inbox(loop)  # type: ignore[attr-defined]
            return inbox


_making = threading.Lock()


def calls_of(loop: asyncio.AbstractEventLoop) -> list[Call[Any]]:
    """The calls that `loop` waits for, whether or not a thread has begun. From any thread."""
    inbox: Inbox | None = getattr(loop, "_yamanote_inbox", None)
    return [] if inbox is None else list(inbox.unfinished.copy())


def forget_calls() -> None:
    """In a forked child, where none of the threads lives that may have held one of these."""
    global _without_loop, _making
    _without_loop = _new_inbox_without_loop()
    _making = threading.Lock()
