"""Generators as coroutines: who writes `yield` where others write `await`.

Invariant: a generator goes on with the value of what it yielded, or has the error of that thrown in, at its `yield`.
One generator of a stack runs, each of the others waits for the one above it: a call costs no task, no turn of the loop,
and no recursion. When a generator ends, whatever it owes has ended before its caller goes on.

Tracebacks read as if the generators had called each other: when an error passes, the driver takes its own line out.
"""

from __future__ import annotations

import inspect
import sys
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Generator, Sequence
from contextlib import ExitStack
from inspect import CO_ASYNC_GENERATOR, CO_COROUTINE, CO_ITERABLE_COROUTINE
from types import FrameType, GeneratorType
from typing import Any, TypeAlias, TypeVar

from yamanote.runtime._budget import yield_now

__all__ = ["Callers", "Owed", "callers_here", "drive", "driven", "driven_in"]

T = TypeVar("T")


class Owed(ABC):
    """What the generator that has begun it has to wait for, before it may end."""

    __slots__ = ()

    @abstractmethod
    async def settle(self, error: BaseException | None) -> None:
        """Wait until it has ended. The generator has ended with `error`, which goes on if nothing is raised here."""

    @abstractmethod
    def close(self) -> None:
        """The generator is being thrown away, and cannot wait."""


Callers: TypeAlias = "list[GeneratorType[Any, Any, Any] | Owed]"
"""Who waits for the running generator, the next one last. What a generator owes stands above its caller."""


async def drive(generator: GeneratorType[Any, Any, T]) -> T:
    """Run a generator that yields what it waits for: None for one turn, an awaitable, or another such generator."""
    if generator.gi_suspended or generator.gi_frame is None:
        raise _refusal(generator)
    callers: Callers = []
    running: GeneratorType[Any, Any, Any] = generator
    value: Any = None
    error: BaseException | None = None
    while True:
        try:
            # Outside of any `except`: what a generator raises is to have no context that it does not know of.
            target = running.send(value) if error is None else running.throw(error)
        except StopIteration as end:
            value = end.value
            error = None
        except BaseException as failure:
            error = _without_driver(failure)
        else:
            value = error = None
            try:
                if target is None:
                    await yield_now()
                elif type(target) is not GeneratorType or target.gi_code.co_flags & CO_ITERABLE_COROUTINE:
                    value = await target  # pyright: ignore[reportGeneralTypeIssues]
                elif target.gi_suspended or target.gi_frame is None:
                    error = _refusal(target)
                else:
                    callers.append(running)
                    running = target
            except GeneratorExit:
                _close([*callers, running])
                raise
            except BaseException as failure:
                error = _without_driver(failure)
                if type(failure) is TypeError and not inspect.isawaitable(target):
                    error = _unsupported(target)
            continue
        # It has ended: back to its caller, when nothing is owed any more.
        while callers:
            caller = callers.pop()
            if type(caller) is GeneratorType:
                running = caller
                break
            try:
                await caller.settle(error)
            except GeneratorExit:
                _close(callers)
                raise
            except BaseException as failure:
                error = _without_driver(failure)
        else:
            if error is None:
                return value  # type: ignore[no-any-return]
            try:
                raise error
            finally:
                del error  # it refers to this frame


def driven(thing: Awaitable[T] | Generator[Any, Any, T]) -> Awaitable[T]:
    """The coroutine that runs a generator, under its name; anything else as it is, for others to judge."""
    if type(thing) is not GeneratorType or thing.gi_code.co_flags & CO_ITERABLE_COROUTINE:
        return thing  # type: ignore[return-value]  # what `types.coroutine` makes is awaited
    coroutine: Any = drive(thing)
    coroutine.__name__ = thing.__name__
    coroutine.__qualname__ = thing.__qualname__
    return coroutine  # type: ignore[no-any-return]


def callers_here() -> Callers | None:
    """Who waits for the generator that calls who calls this; None where no generator is driven."""
    # The generator was called by its driver, directly or through plain functions. To look for that costs only who asks;
    # to keep it at hand, per task or per thread, would cost each step of each generator.
    frame: FrameType | None = sys._getframe(2)
    while frame is not None and frame.f_code is not drive.__code__:
        if frame.f_code.co_flags & (CO_COROUTINE | CO_ASYNC_GENERATOR):
            return None
        frame = frame.f_back
    if frame is None:
        return None
    variables = frame.f_locals
    callers: Callers = variables["callers"]
    if type(variables) is dict:  # up to 3.12 the frame keeps this copy, and with it whatever was sent last
        variables.clear()
    return callers


def driven_in(frame: FrameType) -> list[FrameType]:
    """The frames of the generators that `drive` runs, if `frame` is of such a call: from the outside in."""
    if frame.f_code is not drive.__code__ or "callers" not in (variables := frame.f_locals):
        return []
    frames = []
    for each in [*variables["callers"], variables["running"]]:
        while isinstance(each, GeneratorType) and each.gi_frame is not None:
            frames.append(each.gi_frame)
            each = each.gi_yieldfrom
    return frames


def _refusal(generator: GeneratorType[Any, Any, Any]) -> RuntimeError:
    """The error for a generator that somebody else runs, or has run."""
    name = generator.__qualname__
    return RuntimeError(f"{name}() runs already, or has ended: call the function again, for another generator")


def _without_driver(error: BaseException) -> BaseException:
    """`error`, which has just been caught in `drive`, as if that had not been there."""
    traceback = error.__traceback__
    return error.with_traceback(traceback and traceback.tb_next)


def _close(stack: Sequence[GeneratorType[Any, Any, Any] | Owed]) -> None:
    """Close each of them, the last one first, also after one that fails."""
    with ExitStack() as closing:
        for each in stack:
            closing.callback(each.close)


def _unsupported(target: object) -> TypeError:
    """The error for what nobody can wait for."""
    try:
        text = repr(target)
    except Exception:  # it is the generator that is to have an error, not its driver
        text = object.__repr__(target)
    text = f"a generator that is run as a coroutine cannot yield {text}"
    if inspect.isasyncgen(target):
        return TypeError(f"{text}: to take the next item, yield anext(...) of it")
    if isinstance(target, (list, tuple, set)):
        return TypeError(f"{text}: to run several things at once, yield spawn(*things)")
    if callable(target):
        return TypeError(f"{text}: call it")
    return TypeError(f"{text}: only None, awaitables, and generators of the same kind")
