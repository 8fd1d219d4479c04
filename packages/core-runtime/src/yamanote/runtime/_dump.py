"""Dump: what every task of a loop is doing, in words and with its whole await chain.

Invariant: each unfinished task is there, with the lines where it is suspended or running, from its outermost call to
its innermost, through coroutines, generators and asynchronous generators; and so is each call that a thread makes for
the loop. Looking changes nothing, and runs no code of the program but `__repr__`.
"""

from __future__ import annotations

import asyncio
import gc
import inspect
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from types import AsyncGeneratorType, CoroutineType, FrameType, GeneratorType
from typing import Any

from yamanote.runtime._ask import ask
from yamanote.runtime._call import Call, calls_of
from yamanote.runtime._generators import driven_in
from yamanote.runtime._join import _Join
from yamanote.runtime._loop import has_gil
from yamanote.runtime._scope import CancelScope
from yamanote.runtime._site import site_of
from yamanote.runtime._task import worker_of
from yamanote.runtime._waiter import park

__all__ = ["describe", "dump"]

_DEEPEST = 200
"""How many calls of one task are shown."""
_LONGEST = 120
"""How many characters of a `repr` are shown."""


def dump(loop: asyncio.AbstractEventLoop | None = None) -> str:
    """What each unfinished task of `loop` is doing, in the words of `describe`.

    By default the running one, and in a runtime with several workers all of theirs.

    Oldest first: they come in the order of their names, and asyncio numbers its tasks ("Task-2" before "Task-10").
    Before them stand those that wait for each other in a ring, and after them the calls in threads of `spawn_blocking`
    and of every `BlockingPool` that the loop waits for.

    Raises RuntimeError without a `loop` where none runs. **Threads**: it may be called from another thread than that of
    the loop, and shows then what it can get hold of while the loop goes on. Without the interpreter lock (3.14t) the
    loop is asked to do it; when it does not within a second, only the calls that keep it are shown.

    >>> async def main():
    ...     spawn(asyncio.sleep(60), name="snail")
    ...     await yield_now()
    ...     return dump()
    >>> print(run(main()))
    2 tasks have not ended, at ... on the clock of their loop
    'Task-...' is running
        ...
    'snail' sleeps until ...
        ...
    """
    if loop is None:
        loop = asyncio.get_running_loop()
        worker = worker_of(loop)
        if worker is not None:
            return "\n".join(f"worker {each.number}: {dump(each.loop)}" for each in worker.workers.all)
    return _look(loop, partial(_dump, loop))


def describe(task: asyncio.Task[Any]) -> str:
    """What `task` is doing: in the first line its name and what it waits for, then where, from the outside in.

    It is running, or ready to run, or has not started, or waits: for a moment, another task, one of our primitives, or
    something of asyncio's; and whether it has been cancelled, with the reason if that can be found. Every other line is
    a call: file, line and function. Before them stands the line that spawned the task, if `record_spawn_sites` is on.
    """
    return _look(task.get_loop(), partial(_describe, task))


def _look(loop: asyncio.AbstractEventLoop, look: Callable[[], str]) -> str:
    """What `look` returns. Without the interpreter lock, a loop that runs in another thread has to look for itself.

    To look into a coroutine that goes on meanwhile crashes the interpreter, and to ask a task while it takes a step
    waits for the end of that.
    """
    if has_gil() or not loop.is_running() or asyncio._get_running_loop() is loop:
        return look()
    try:
        return ask(loop, look)
    except (TimeoutError, RuntimeError):  # or closed meanwhile
        return _stuck(loop) if loop.is_running() else look()


def _stuck(loop: asyncio.AbstractEventLoop) -> str:
    """What can be told of a loop that does not answer: the calls that its thread is in."""
    lines = calls_of_thread(getattr(loop, "_thread_id", 0))
    return "\n".join(["one callback of the loop is running, and keeps its tasks from being asked", *lines])


def calls_of_thread(thread: int) -> list[str]:
    """The calls that a thread is in, a line for each, from the outside in."""
    frame = sys._current_frames().get(thread)
    lines: list[str] = []
    while frame is not None:
        code = frame.f_code
        lines.insert(0, f"    {code.co_filename}:{frame.f_lineno} in {code.co_qualname}")
        frame = frame.f_back
    return lines[-_DEEPEST:]


def _dump(loop: asyncio.AbstractEventLoop) -> str:
    tasks = sorted(asyncio.all_tasks(loop), key=_age)
    count = "1 task has" if len(tasks) == 1 else f"{len(tasks)} tasks have"
    lines = [f"{count} not ended, at {loop.time():.3f} on the clock of their loop"]
    worker = worker_of(loop)
    if worker is not None and (backlog := worker.waiting()):
        lines.append(f"{backlog} spawned here or for here, and not started yet")
    for ring in _rings(tasks):
        names = [repr(task.get_name()) for task in ring]
        lines.append("a dead-lock, unless one of them is cancelled: " + " waits for ".join([*names, names[0]]))
    lines += map(_describe, tasks)
    lines += sorted(map(_call, calls_of(loop)))
    return "\n".join(lines)


def _describe(task: asyncio.Task[Any]) -> str:
    frames = list(_calls(task.get_coro()))
    state = _state(task, frames[-1] if frames else None) + _cancellation(task, frames)
    return _paragraph(f"{task.get_name()!r} {state}", task, frames)


def _call(call: Call[Any]) -> str:
    """What a call in a thread is doing."""
    frames: list[FrameType] = []
    thread = call.thread
    if thread is None:
        return _paragraph(f"{call.name!r} waits for a thread", call.future, frames)
    frame = sys._current_frames().get(thread.ident or 0)
    while frame is not None and frame.f_code is not Call.make.__code__:
        frames.insert(0, frame)
        frame = frame.f_back
    told = "; it has been cancelled" if call.aborted else ""
    return _paragraph(f"{call.name!r} runs in the thread {thread.name!r}{told}", call.future, frames[:_DEEPEST])


def _paragraph(headline: str, future: asyncio.Future[Any], frames: Iterable[FrameType]) -> str:
    lines = [headline]
    if not future.done() and (site := site_of(future)) is not None:
        lines.append(f"    spawned at {site}")
    for frame in frames:
        code = frame.f_code
        lines.append(f"    {code.co_filename}:{frame.f_lineno} in {code.co_qualname}")
    return "\n".join(lines)


def _rings(tasks: Iterable[asyncio.Task[Any]]) -> Iterator[list[asyncio.Task[Any]]]:
    """Those that wait for each other: each for the next one, and the last one for the first."""
    seen: set[asyncio.Task[Any]] = set()
    for task in tasks:
        path: list[asyncio.Task[Any]] = []
        current: Any = task
        while isinstance(current, asyncio.Task) and current not in seen:
            seen.add(current)
            path.append(current)
            current = _waiter(current)
        if current in path:
            yield path[path.index(current) :]


def _waiter(task: asyncio.Task[Any]) -> Any:
    """What `task` has yielded, and is woken by. There is no public way to ask for it."""
    awaited = getattr(task, "_fut_waiter", None)
    return awaited._future if isinstance(awaited, _Join) else awaited


def _cancellation(task: asyncio.Task[Any], frames: Iterable[FrameType]) -> str:
    """Whether `task` has been asked to end, and why: by a scope in one of its variables, or as asyncio remembers."""
    if task.done() or not task.cancelling():
        return ""
    reason = getattr(task, "_cancel_message", None)
    for frame in frames:
        for value in list(frame.f_locals.values()):
            if isinstance(value, CancelScope) and value._task is task and value.reason is not None:
                reason = value.reason
    return "; it has been cancelled" + (f": {reason}" if reason is not None else "")


def _age(task: asyncio.Task[Any]) -> list[tuple[int, str]]:
    """Sorts names as people do: by their words, and by the value of the numbers in them."""
    return [(int(part), "") if part.isdecimal() else (0, part) for part in re.split(r"(\d+)", task.get_name())]


def _state(task: asyncio.Task[Any], innermost: FrameType | None) -> str:
    if task.done():
        return "has ended"
    coroutine = task.get_coro()
    if isinstance(coroutine, CoroutineType):
        state = inspect.getcoroutinestate(coroutine)
        if state == inspect.CORO_CREATED:
            return "has not started"
        if state == inspect.CORO_RUNNING:
            return "is running"
    awaited = _waiter(task)  # the await chain ends before it
    if awaited is None or awaited.done():
        return "is ready to run"
    if innermost is not None and (moment := _alarm(innermost)) is not None:
        return f"sleeps until {moment:.3f}"
    return f"waits for {_awaited(awaited, innermost)}"


def _awaited(future: asyncio.Future[Any], innermost: FrameType | None) -> str:
    """What somebody waits for who waits for `future` in the call `innermost`, in words."""
    if isinstance(future, asyncio.Task):
        return f"the task {future.get_name()!r}"
    children = [child for child in getattr(future, "_children", ()) if not child.done()]  # of asyncio.gather()
    if children:
        return ", ".join(_awaited(child, None) for child in children)
    names = {} if innermost is None else innermost.f_locals
    if innermost is not None and innermost.f_code is park.__code__:
        return _represented(names["operation"])
    if innermost is not None and "self" in names:
        return f"{_represented(names['self'])}, in {innermost.f_code.co_qualname}()"
    return "a future"


def _alarm(frame: FrameType) -> float | None:
    """When a call that sleeps wakes up; None for any other. `asyncio.sleep` and ours have a timer in a variable."""
    if frame.f_code.co_name.startswith("sleep"):
        for value in list(frame.f_locals.values()):
            if type(value).__name__ == "TimerHandle":  # of asyncio or of uvloop
                return value.when()  # type: ignore[no-any-return]
    return None


def _represented(thing: object) -> str:
    try:
        text = repr(thing)
    except Exception:  # it is foreign code, and this is no time to fail
        text = object.__repr__(thing)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def _calls(awaitable: Any) -> Iterator[FrameType]:
    """The frames of `awaitable` and of all that it awaits, from the outside in."""
    if isinstance(awaitable, CoroutineType) and inspect.getcoroutinestate(awaitable) == inspect.CORO_RUNNING:
        yield from _stack(awaitable.cr_frame)
        return
    for _ in range(_DEEPEST):
        if isinstance(awaitable, CoroutineType):
            frame, inner = awaitable.cr_frame, awaitable.cr_await
        elif isinstance(awaitable, GeneratorType):
            frame, inner = awaitable.gi_frame, awaitable.gi_yieldfrom
        elif isinstance(awaitable, AsyncGeneratorType):
            frame, inner = awaitable.ag_frame, awaitable.ag_await
        else:
            # `__anext__()` of an asynchronous generator, and `__await__()` of a coroutine: objects of the interpreter
            # that stand for the next link, and keep it to themselves.
            frame, inner = None, _held_by(awaitable)
        if frame is not None:
            yield from driven_in(frame) or [frame]
            if inner is None and isinstance(awaitable, GeneratorType):
                inner = _driven_by(frame)
        if inner is None:
            return
        awaitable = inner


def _stack(outermost: FrameType | None) -> list[FrameType]:
    """The frames of a coroutine that is running, in whichever thread: it awaits nothing, but it calls."""
    for frame in sys._current_frames().values():
        stack: list[FrameType] = []
        called: FrameType | None = frame
        while called is not None:
            if not called.f_globals.get("__name__", "").startswith(__name__):  # not the dump itself, nor its signal
                stack.append(called)
            if called is outermost:
                return stack[: -_DEEPEST - 1 : -1]
            called = called.f_back
    return []  # it has gone on meanwhile


def _held_by(wrapper: object) -> object | None:
    """The link of the chain that an object of the interpreter refers to."""
    if type(wrapper).__module__ != "builtins":
        return None
    for held in gc.get_referents(wrapper):
        if isinstance(held, (CoroutineType, GeneratorType, AsyncGeneratorType)) or _is_wrapper(held):
            return held  # type: ignore[no-any-return]
    return None


def _is_wrapper(thing: object) -> bool:
    """Whether this is, for instance, an `async_generator_asend` inside of an `anext_awaitable`."""
    return type(thing).__module__ == "builtins" and hasattr(thing, "__await__") and hasattr(thing, "throw")


def _driven_by(frame: FrameType) -> object | None:
    """The coroutine that a generator steps by hand, as `timeout` does: suspended, and in one of its variables."""
    for value in list(frame.f_locals.values()):
        if isinstance(value, CoroutineType) and inspect.getcoroutinestate(value) == inspect.CORO_SUSPENDED:
            return value
    return None
