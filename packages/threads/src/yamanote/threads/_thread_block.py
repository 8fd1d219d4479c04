"""Thread block: a block of code here, inside of a context manager that is entered on a loop in another thread.

Invariant: the manager over there is exited when the body here has ended, and sees what that raised, as if the body
stood inside of it: so whatever it says of errors and cancellations holds here. When it cancels its body, the body here
is cancelled. The block ends when the manager, its loop and its thread have ended.

A task of the other loop takes the place of the body inside of the manager, and does nothing but wait for it.
"""

from __future__ import annotations

import asyncio
import inspect
from asyncio import CancelledError
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from types import TracebackType
from typing import final

from yamanote.runtime import CancelScope, JoinError, contextualize, refuse_loop_thread, request_again
from yamanote.sync import Event
from yamanote.threads._loop_thread import LoopThread, call_target, discard, label_of, require_target

__all__ = ["ThreadBlock", "not_entered", "run_in_thread_loop_contextualized"]

Enter = Callable[[], Awaitable[object]]
Exit = Callable[[type[BaseException] | None, BaseException | None, TracebackType | None], Awaitable[bool | None]]


class ThreadBlock:
    """``async with``, or ``with`` in a plain thread. `enter` and `leave` are the manager's, awaited over there."""

    __slots__ = ("_enter", "_error", "_inside", "_leave", "_left", "_new", "_requests", "_scope", "_thread")

    def __init__(self, enter: Enter, leave: Exit, name: str) -> None:
        self._enter = enter
        self._leave = leave
        self._thread = LoopThread(self._take_the_place, name, announces=True)
        self._new = True
        self._inside = False  # whether the manager could be entered
        self._left = Event()
        self._error: BaseException | None = None  # what the body here has raised
        self._scope: CancelScope | None = None
        self._requests = 0

    # ---------------------------------------------------------------- here

    async def __aenter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._require_new()
        self._requests = task.cancelling()
        self._scope = CancelScope()  # before the thread, which may cancel it at once
        self._thread.start()
        try:
            await self._thread.begun.wait()
        except CancelledError as cancelled:
            self._body_ended(cancelled)
            self._conclude(None, await self._thread.end() or cancelled)
            raise
        except GeneratorExit as thrown_away:
            self._body_ended(thrown_away)
            raise
        if not self._inside:
            self._conclude(None, await self._thread.end())
        self._scope.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        if self._scope is None:
            raise not_entered(self)
        try:
            cut_short = self._scope.__exit__(kind, error, traceback)
            if cut_short:
                error = None
            self._body_ended(error)
            if isinstance(error, GeneratorExit):  # thrown away, and cannot wait any more
                return False
            return self._conclude(error, await self._thread.end()) or cut_short
        finally:
            del error, traceback  # it refers to this frame

    def __enter__(self) -> None:
        refuse_loop_thread()
        self._require_new()
        self._thread.start()
        try:
            self._thread.begun.blocking_wait()
        except BaseException as interruption:
            error = interruption  # that name is gone at the end of this block
            self._conclude(error, self._thread.blocking_end(lambda: self._body_ended(error)))
            raise
        if not self._inside:
            self._conclude(None, self._thread.blocking_end(lambda: None))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        if self._new:
            raise not_entered(self)
        try:
            # A generator that is thrown away can wait here.
            raised = CancelledError() if isinstance(error, GeneratorExit) else error
            return self._conclude(error, self._thread.blocking_end(lambda: self._body_ended(raised)))
        finally:
            error = raised = None  # it refers to this frame
            del traceback

    def _require_new(self) -> None:
        if not self._new:
            raise RuntimeError("a block in a thread loop can be entered only once")
        self._new = False

    def _body_ended(self, error: BaseException | None) -> None:
        if isinstance(error, CancelledError):
            self._thread.cancel(*error.args[:1])
        else:
            self._error = error
        self._left.set()

    def _conclude(self, error: BaseException | None, interruption: BaseException | None) -> bool:
        """Raise what the block has to; else tell whether the `error` of the body is dealt with.

        `interruption` is what has come from outside while the block waited for the thread.
        """
        outcome = self._thread.take_outcome()
        try:
            if outcome.error is not None and not outcome.cancelled:
                if self._scope is not None and isinstance(interruption or error, CancelledError):
                    task = asyncio.current_task()
                    assert task is not None  # whose cancellation this is
                    request_again(task, self._requests)
                context = outcome.error.__context__
                try:
                    raise outcome.error
                finally:
                    outcome.error.__context__ = context  # not `error`: it is dealt with
            if interruption is not None:
                raise interruption
            if not outcome.cancelled:
                return outcome.unwrap()
            if not isinstance(error, (CancelledError, GeneratorExit)):
                raise JoinError(self._thread.name)
            return False
        finally:
            self._error = None
            del error, interruption, outcome  # they refer to this frame

    # ---------------------------------------------------------------- in the thread

    async def _take_the_place(self) -> bool:
        """Tell whether the manager has dealt with the error of the body."""
        await self._enter()
        self._inside = True
        # What the manager has started makes its first step before the body here does.
        asyncio.get_running_loop().call_soon(self._thread.begun.set)
        error = await self._body()
        try:
            if error is None:
                return bool(await self._leave(None, None, None))
            swallowed = await self._leave(type(error), error, error.__traceback__)
            if swallowed or not isinstance(error, CancelledError):
                return bool(swallowed)
            raise error
        finally:
            del error  # it refers to this frame

    async def _body(self) -> BaseException | None:
        """Wait until the body here has ended, whoever asks for something else; return what it ended with."""
        cancelled: CancelledError | None = None
        while not self._left.is_set():
            try:
                await self._left.wait()
            except CancelledError as error:
                if self._thread.cancel_requested:  # by whoever has the block, or by the end of the program
                    return error
                cancelled = cancelled or error
                if self._scope is not None:
                    self._scope.cancel(*error.args[:1])
        return cancelled if self._error is None else self._error


def not_entered(block: object) -> RuntimeError:
    """The error for who leaves `block` without having entered it."""
    return RuntimeError(f"{block!r} has not been entered")


@final
class run_in_thread_loop_contextualized:
    """Run `target` on a loop of its own beside a block: ``async with``, or ``with`` in a thread that runs no loop.

    It takes what `run_in_thread_loop` takes. When the block ends, the target is cancelled, and has ended with its
    thread when the program goes on; when the target ends earlier, nothing happens. When it fails, its error is raised
    at the end of the block; ``async with`` cancels the block, ``with`` cannot. When both fail, both errors are raised
    in an ExceptionGroup. These are the rules of `yamanote.runtime.contextualize`.

    **Cancel safety:** when the caller is cancelled, so is the target; the cancellation goes on when it has ended.

    Raises what `run_in_thread_loop` raises at the call. It can be entered only once; `with` raises RuntimeError in a
    thread that runs an event loop.

    >>> from yamanote.threads import run_in_thread_loop_contextualized
    >>> async def watch() -> None:
    ...     print("watching")
    ...     await asyncio.sleep(3600)
    >>> with run_in_thread_loop_contextualized(watch()):
    ...     print("working")
    watching
    working
    """

    __slots__ = ("_block", "_target")

    def __init__(
        self, target: Awaitable[object] | Callable[[], Awaitable[object]], /, *, name: str | None = None
    ) -> None:
        require_target(target)
        self._target = target
        manager = _beside(target)
        self._block = ThreadBlock(manager.__aenter__, manager.__aexit__, name or f"loop of {label_of(target)}")

    async def __aenter__(self) -> None:
        try:
            await self._block.__aenter__()
        except BaseException:
            discard(self._target)
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        return await self._block.__aexit__(kind, error, traceback)

    def __enter__(self) -> None:
        try:
            self._block.__enter__()
        except BaseException:
            discard(self._target)
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        return self._block.__exit__(kind, error, traceback)


@asynccontextmanager
async def _beside(target: Awaitable[object] | Callable[[], Awaitable[object]]) -> AsyncIterator[None]:
    async with contextualize(target if inspect.isawaitable(target) else call_target(target)):
        yield
