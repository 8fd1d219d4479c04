"""Portal: an event loop that other threads can call.

Invariant: what has been begun through a portal has ended when its block ends. An error reaches one party: the thread
that called, or whoever takes it from the handle; else it is raised at the end of the block.
"""

from __future__ import annotations

import asyncio
import inspect
from asyncio import CancelledError, _get_running_loop
from collections.abc import Awaitable, Callable
from contextvars import copy_context
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar, final, overload

from yamanote.runtime import JoinHandle, cancel_and_wait, require_function
from yamanote.threads._call import LoopCall
from yamanote.threads._loop_thread import call_target, discard
from yamanote.threads._thread_block import ThreadBlock, not_entered
from yamanote.threads._thread_group import PortalTaskGroup

__all__ = ["Portal"]

T = TypeVar("T")
P = ParamSpec("P")


@final
class Portal:
    """An event loop that other threads can call, for as long as a block lasts.

    ``async with Portal() as portal:`` opens the running loop. ``with Portal() as portal:``, in a plain thread, starts a
    loop in a thread of its own and opens that: so a program without a loop calls async functions.

    The block ends when what was begun through it has ended. An error of the body cancels that first, and is raised when
    it has ended. Errors of spawned tasks that nobody has taken from their handles are raised at the end in an
    ExceptionGroup, together with that of the body. What is no Exception ends the block, too, as in a `TaskGroup`.

    **Cancel safety:** when the task of an ``async with`` is cancelled, so is what was begun through it; the
    cancellation goes on when that has ended.

    **Threads:** `call` and `spawn` may be called from any thread that is not the portal's own; `spawn` from that, too.
    `with` raises RuntimeError in a thread that runs an event loop.

    >>> import asyncio
    >>> from yamanote.threads import Portal
    >>> with Portal() as portal:
    ...     portal.call(asyncio.sleep, 0, "slept on the loop")
    'slept on the loop'
    """

    __slots__ = ("_block", "_group", "_name")

    def __init__(self, *, name: str | None = None) -> None:
        self._name = name
        self._group = PortalTaskGroup(on_error="collect", name=name)
        self._block: ThreadBlock | None = None

    @overload
    def call(self, function: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T: ...
    @overload
    def call(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T: ...
    def call(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Call `function` on the loop of the portal, and block until it has ended; return what it returns.

        An async function runs in a task of its own; of any other the result is returned as it is, unless it can be
        awaited: then it is awaited, in a task of its own. It sees the context variables of the calling thread; what it
        sets stays there. A KeyboardInterrupt cancels it.

        Raises what the function raises; JoinError when the call has been cancelled, also by the end of the portal;
        RuntimeError when the portal is not open, and in a thread that runs an event loop; TypeError for what cannot be
        called.
        """
        require_function(function)
        loop = self._require_open()
        if _get_running_loop() is loop:
            raise RuntimeError(
                "call() would block the event loop of the portal, and wait for it for ever: "
                "here the function can be called, and awaited, directly"
            )
        if _get_running_loop() is not None:
            raise RuntimeError("call() would block the event loop of this thread: await what `spawn` returns")
        return LoopCall[Any](loop, self._begin, (function, args, kwargs), {}).wait()

    def spawn(self, target: Awaitable[T] | Callable[[], Awaitable[T]], /, *, name: str | None = None) -> JoinHandle[T]:
        """Start `target` in a task on the loop of the portal, and return its handle at once.

        It is an awaitable, or a function of no arguments which returns one: it is called in the task. It sees the
        context variables of the caller. Await the handle, on any loop, or block in `JoinHandle.result`.

        Raises TypeError for what is neither, RuntimeError when the portal is not open.
        """
        try:
            self._require_open()
        except RuntimeError:
            discard(target)
            raise
        awaitable = call_target(target) if callable(target) and not inspect.isawaitable(target) else target
        # With a context of its own it stays on this loop, also in a runtime with several workers.
        return self._group.spawn(awaitable, name=name, context=copy_context())

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        try:
            return await self._group.__aexit__(kind, error, traceback)
        except BaseExceptionGroup as errors:
            if errors.exceptions != (error,):
                raise
            return False
        finally:
            del error, traceback  # it refers to this frame

    def __enter__(self) -> Self:
        if self._block is not None:
            raise RuntimeError(f"{self!r} can be entered only once")
        self._block = ThreadBlock(self.__aenter__, self.__aexit__, self._name or "loop of a Portal")
        self._block.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        if self._block is None:
            raise not_entered(self)
        return self._block.__exit__(kind, error, traceback)

    def _require_open(self) -> asyncio.AbstractEventLoop:
        loop = self._group.open_on
        if loop is None:
            raise RuntimeError(
                f"{self!r} is not open: it can be called inside of its block only, and in no forked process"
            )
        return loop

    def _begin(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Make a call, on the loop."""
        self._require_open()
        result = function(*args, **kwargs)
        if not inspect.isawaitable(result):
            return result
        name = getattr(function, "__qualname__", None)
        return _follow(self._group.spawn(result, name=name, eager=True))

    def __repr__(self) -> str:
        label = "" if self._name is None else f" {self._name!r}"
        return f"<Portal{label} {'closed' if self._group.open_on is None else 'open'}>"


async def _follow(handle: JoinHandle[T]) -> T:
    """The child that makes a call, for the thread that waits for it, and may be interrupted."""
    try:
        return await handle
    except CancelledError:
        await cancel_and_wait(handle)
        raise
    finally:
        del handle  # an error refers to this frame
