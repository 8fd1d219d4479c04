"""Retry: call a function again while it fails, by a `Schedule`."""

from __future__ import annotations

import inspect
from asyncio import _get_running_loop, get_running_loop
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing
from functools import wraps
from time import monotonic
from time import sleep as sleep_in_thread
from typing import Any, ParamSpec, TypeAlias, TypeVar

from yamanote.runtime import remaining
from yamanote.time._schedule import Schedule
from yamanote.time._sleep import sleep

__all__ = ["retry"]

T = TypeVar("T")
P = ParamSpec("P")

Condition: TypeAlias = type[Exception] | tuple[type[Exception], ...] | Callable[[Exception], bool]


def retry(schedule: Schedule, *, on: Condition = Exception) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """A decorator: call the function again when it fails, after the delays of `schedule`.

    `on` says which errors are worth it: an exception class, a tuple of them, or a function that is given the error.
    Other errors are raised at once. When the schedule has ended, or the time of the caller is over (`remaining` is 0),
    the error of the last attempt is raised, as it is.

    Each call begins the schedule anew. An async function waits on the clock of its loop. A plain function blocks its
    thread, and raises RuntimeError in a thread that runs an event loop; one that only returns an awaitable needs an
    async function around it.

    Of an async generator function the iteration is retried: when it fails the function is called once more, and what
    that yields comes next, so begin where the last one ended, or items come twice. Each item that comes begins the
    schedule anew. The result is to be iterated: errors that are thrown into it are not retried, and values that are
    sent do not reach the function.

    **Cancel safety**: that of the function; a call that is cancelled between two attempts makes no other.

    Raises TypeError for what is no schedule, no condition, no function, or a plain generator function, whose errors do
    not come from the call.

    >>> answers = iter([OSError("busy"), OSError("busy"), 42])
    >>> @retry(Schedule.fixed(0.001).retries(5), on=OSError)
    ... async def ask():
    ...     answer = next(answers)
    ...     if isinstance(answer, OSError):
    ...         raise answer
    ...     return answer
    >>> run(ask())
    42
    """
    if not isinstance(schedule, Schedule):
        _close(schedule)
        raise TypeError(f"schedule must be a Schedule, not {schedule!r}")
    is_worth_it = _condition(on)

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        if not callable(function):
            _close(function)
            raise TypeError(f"retry() needs a function, not {function!r}")
        if _is_a(inspect.isgeneratorfunction, function):
            raise TypeError(f"retry() needs a function whose call can fail, not {function!r}, a generator function")
        if _is_a(inspect.isasyncgenfunction, function):
            return _retried_stream(schedule, is_worth_it, function)
        if _is_a(inspect.iscoroutinefunction, function):
            return _retried(schedule, is_worth_it, function)
        return _retried_in_thread(schedule, is_worth_it, function)

    return decorate


def _retried(
    schedule: Schedule, is_worth_it: Callable[[Exception], bool], function: Callable[P, Any]
) -> Callable[P, Any]:
    @wraps(function)
    async def retried(*args: P.args, **kwargs: P.kwargs) -> Any:
        delay_after = _begin(schedule, is_worth_it, get_running_loop().time)
        while True:
            try:
                return await function(*args, **kwargs)
            except Exception as error:
                if (delay := delay_after(error)) is None:
                    raise
            await sleep(delay)  # out here: what is raised meanwhile has nothing to do with the error

    return retried


def _retried_stream(
    schedule: Schedule, is_worth_it: Callable[[Exception], bool], function: Callable[P, Any]
) -> Callable[P, Any]:
    @wraps(function)
    async def retried(*args: P.args, **kwargs: P.kwargs) -> AsyncGenerator[Any, None]:
        time = get_running_loop().time
        delay_after = _begin(schedule, is_worth_it, time)
        while True:
            async with aclosing(function(*args, **kwargs)) as items:
                while True:
                    try:
                        item = await anext(items)
                    except StopAsyncIteration:
                        return
                    except Exception as error:
                        if (delay := delay_after(error)) is None:
                            raise
                        break
                    yield item  # out here: what is thrown in is no failure of the function
                    delay_after = _begin(schedule, is_worth_it, time)
            await sleep(delay)

    return retried


def _retried_in_thread(
    schedule: Schedule, is_worth_it: Callable[[Exception], bool], function: Callable[P, T]
) -> Callable[P, T]:
    @wraps(function)
    def retried(*args: P.args, **kwargs: P.kwargs) -> T:
        if _get_running_loop() is not None:
            raise RuntimeError(
                f"to retry {function!r}, no async function, would block the event loop of its own thread: if it "
                "returns an awaitable, write an async function around it; if not, call it in another thread "
                "(`spawn_blocking`)"
            )
        delay_after = _begin(schedule, is_worth_it, monotonic)  # a thread that may block has no loop to ask
        while True:
            try:
                return function(*args, **kwargs)
            except Exception as error:
                if (delay := delay_after(error)) is None:
                    raise
            sleep_in_thread(delay)

    return retried


def _begin(
    schedule: Schedule, is_worth_it: Callable[[Exception], bool], time: Callable[[], float]
) -> Callable[[Exception], float | None]:
    """Begin a run of the schedule: a function from an error to the delay after it, or None when it is to be raised."""
    run, start = schedule.begin(), time()
    # Who still fails when the time is over may have swallowed the cancellation: nothing would stop another attempt.
    return lambda error: run(time() - start) if remaining() != 0 and is_worth_it(error) else None


def _condition(on: Condition) -> Callable[[Exception], bool]:
    kinds = on if isinstance(on, tuple) else (on,)
    if all(isinstance(kind, type) and issubclass(kind, Exception) for kind in kinds):
        return lambda error: isinstance(error, kinds)  # type: ignore[arg-type]
    # CancelledError is nobody's failure, and the coroutine of an async function is always true.
    if isinstance(on, (type, tuple)) or not callable(on) or _is_a(inspect.iscoroutinefunction, on):
        raise TypeError(f"on must be a subclass of Exception, a tuple of them, or a plain function, not {on!r}")
    return on


def _close(refused: object) -> None:
    if isinstance(refused, Coroutine):
        refused.close()  # it will never run: no warning that it was never awaited


def _is_a(kind: Callable[[Any], bool], function: Callable[..., Any]) -> bool:
    """Whether it is of this kind, or an object that is called by a method of this kind."""
    return kind(function) or kind(type(function).__call__)
