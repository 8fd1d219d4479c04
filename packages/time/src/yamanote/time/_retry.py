"""Retry: call a function again while it fails, by a `Schedule`."""

from __future__ import annotations

import inspect
from asyncio import get_running_loop
from collections.abc import Callable
from functools import wraps
from time import monotonic
from time import sleep as sleep_in_thread
from typing import Any, ParamSpec, TypeAlias, TypeVar

from yamanote.runtime import refuse_loop_thread
from yamanote.time._schedule import Schedule
from yamanote.time._sleep import sleep

__all__ = ["retry"]

T = TypeVar("T")
P = ParamSpec("P")

Condition: TypeAlias = type[Exception] | tuple[type[Exception], ...] | Callable[[Exception], bool]


def retry(schedule: Schedule, *, on: Condition = Exception) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """A decorator: call the function again when it fails, after the delays of `schedule`.

    `on` says which errors are worth it: an exception class, a tuple of them, or a function that is given the error.
    Other errors are raised at once. When the schedule has ended the error of the last attempt is raised, as it is.

    Each call begins the schedule anew. An async function waits on the clock of its loop. A plain function blocks its
    thread, and raises RuntimeError in a thread that runs an event loop.

    **Cancel safety**: that of the function; a call that is cancelled between two attempts makes no other.

    Raises TypeError for what is no schedule, no condition, no function, or a generator function, whose errors do not
    come from the call.

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
        raise TypeError(f"schedule must be a Schedule, not {schedule!r}")
    is_worth_it = _condition(on)

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        if not callable(function):
            raise TypeError(f"retry() needs a function, not {function!r}")
        if _is_any(function, inspect.isgeneratorfunction, inspect.isasyncgenfunction):
            raise TypeError(f"retry() needs a function whose call can fail, not {function!r}, a generator function")
        if _is_any(function, inspect.iscoroutinefunction):
            return _retried(schedule, is_worth_it, function)
        return _retried_in_thread(schedule, is_worth_it, function)

    return decorate


def _retried(
    schedule: Schedule, is_worth_it: Callable[[Exception], bool], function: Callable[P, Any]
) -> Callable[P, Any]:
    @wraps(function)
    async def retried(*args: P.args, **kwargs: P.kwargs) -> Any:
        time = get_running_loop().time
        run, start = schedule.begin(), time()
        while True:
            try:
                return await function(*args, **kwargs)
            except Exception as error:
                if not is_worth_it(error) or (delay := run(time() - start)) is None:
                    raise
            await sleep(delay)  # out here: what is raised meanwhile has nothing to do with the error

    return retried


def _retried_in_thread(
    schedule: Schedule, is_worth_it: Callable[[Exception], bool], function: Callable[P, T]
) -> Callable[P, T]:
    @wraps(function)
    def retried(*args: P.args, **kwargs: P.kwargs) -> T:
        refuse_loop_thread()
        run, start = schedule.begin(), monotonic()  # a thread that may block has no loop to ask
        while True:
            try:
                return function(*args, **kwargs)
            except Exception as error:
                if not is_worth_it(error) or (delay := run(monotonic() - start)) is None:
                    raise
            sleep_in_thread(delay)

    return retried


def _condition(on: Condition) -> Callable[[Exception], bool]:
    kinds = on if isinstance(on, tuple) else (on,)
    if all(isinstance(kind, type) and issubclass(kind, Exception) for kind in kinds):
        return lambda error: isinstance(error, kinds)  # type: ignore[arg-type]
    if isinstance(on, (type, tuple)) or not callable(on):  # such as CancelledError, which is nobody's failure
        raise TypeError(f"on must be a subclass of Exception, a tuple of them, or a function, not {on!r}")
    return on


def _is_any(function: Callable[..., Any], *kinds: Callable[[Any], bool]) -> bool:
    """Whether it, or what calling it as an object calls, is of one of the kinds."""
    call = getattr(function, "__call__", None)  # noqa: B004  # not whether, but what
    return any(kind(function) or kind(call) for kind in kinds)
