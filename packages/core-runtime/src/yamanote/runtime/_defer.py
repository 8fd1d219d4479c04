"""Deferred calls: what a function has to do when it ends, noted where the need for it arises, as in Go.

Invariant: whatever was deferred runs when the function has ended, however it did, the last one first, and also when
others of them fail or the task is cancelled meanwhile. No error is lost.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial, wraps
from inspect import Parameter
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, TypeVar, final, overload

from yamanote.runtime._errors import Errors

__all__ = ["AsyncDefer", "Defer", "adefer", "defer"]

P = ParamSpec("P")
Q = ParamSpec("Q")
T = TypeVar("T")


def defer(function: Callable[Concatenate[Defer, P], T], /) -> Callable[P, T]:
    """Give a function a way to defer calls to its end; decorator. It gets a `Defer` as its first argument.

    ``defer(call, *args, **kwargs)`` notes a call. When the function has returned or raised, the calls are made, the
    last one first. All of them are made, whatever the others raise. A single error, of the function or of a call, is
    raised as it is, several in an ExceptionGroup, that of the function first.

    A method, whose first argument is `self`, has ``with Defer() as defer:`` instead.

    Raises TypeError for an async or a generator function, and for one that takes no argument.

    >>> @defer
    ... def copy(defer, source):
    ...     print("open", source)
    ...     defer(print, "close", source)
    ...     print("copy")
    >>> copy("a.txt")
    open a.txt
    copy
    close a.txt
    """
    if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
        raise TypeError(f"defer() needs a plain function, not {function!r}; for an async one there is adefer()")
    signature = _without_first_parameter(function, "defer")

    @wraps(function)
    def deferring(*args: P.args, **kwargs: P.kwargs) -> T:
        with Defer() as later:
            return function(later, *args, **kwargs)

    deferring.__signature__ = signature  # type: ignore[attr-defined]
    return deferring


def adefer(
    function: Callable[Concatenate[AsyncDefer, P], Coroutine[Any, Any, T]], /
) -> Callable[P, Coroutine[Any, Any, T]]:
    """Give an async function a way to defer calls to its end; decorator. It gets an `AsyncDefer` as its first argument.

    ``defer(call, *args, **kwargs)`` notes a call of a function, async or not; what it returns is awaited if it can be.
    ``defer(awaitable)`` notes a coroutine, a task or a future to be awaited. When the function has returned or raised,
    all that is done, the last one first, whatever the others raise. A single error, of the function or of a call, is
    raised as it is, several in an ExceptionGroup, that of the function first.

    A method, whose first argument is `self`, has ``async with AsyncDefer() as defer:`` instead.

    **Cancel safety:** a cancellation ends the deferred call that it meets; the others still run, and then it goes on.
    An error takes its place; then it is raised again at the next await.

    Raises TypeError for what is no async function, and for one that takes no argument.

    >>> @adefer
    ... async def work(defer, name):
    ...     print("begin", name)
    ...     defer(asyncio.sleep, 0)
    ...     defer(print, "end", name)
    >>> run(work("one"))
    begin one
    end one
    """
    if not inspect.iscoroutinefunction(function):
        raise TypeError(f"adefer() needs an async function, not {function!r}; for a plain one there is defer()")
    signature = _without_first_parameter(function, "adefer")

    @wraps(function)
    async def deferring(*args: P.args, **kwargs: P.kwargs) -> T:
        async with AsyncDefer() as later:
            return await function(later, *args, **kwargs)

    deferring.__signature__ = signature  # type: ignore[attr-defined]
    return deferring


@final
class Defer:
    """Notes calls to be made at the end of a function: the first argument of a function decorated with `defer`.

    Calling it raises TypeError for what cannot be called, or would have to be awaited; RuntimeError when the function
    has ended.
    """

    __slots__ = ("_calls", "_open")

    def __init__(self) -> None:
        self._calls: list[Callable[[], object]] = []
        self._open = True

    def __call__(self, function: Callable[Q, object], /, *args: Q.args, **kwargs: Q.kwargs) -> None:
        _require_open(self._open, function)
        if inspect.isawaitable(function) or inspect.iscoroutinefunction(function):
            _dispose(function)
            raise TypeError(f"a plain function cannot await {function!r}: make it async, and decorate it with adefer")
        _require_callable(function)
        self._calls.append(partial(function, *args, **kwargs))

    def __enter__(self) -> Defer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        errors = Errors("errors in a function and its deferred calls")
        errors.start_with(error)
        while self._calls:  # a call may defer another one
            call = self._calls.pop()
            try:
                result = call()
                if inspect.isawaitable(result):
                    _dispose(result)
                    raise TypeError(f"a deferred call returned {result!r}, which nobody would await: use adefer")
            except BaseException as raised:
                errors.add(raised)
        self._open = False
        errors.settle(error)


@final
class AsyncDefer:
    """Notes what is to be done at the end of an async function: the first argument of one decorated with `adefer`.

    Calling it raises TypeError for what can be neither called nor awaited, and for arguments to something that is
    awaited; RuntimeError when the function has ended.
    """

    __slots__ = ("_calls", "_errors", "_open")

    def __init__(self) -> None:
        self._calls: list[Callable[[], object]] = []
        self._errors = Errors("errors in a function and its deferred calls")
        self._open = True

    @overload
    def __call__(self, awaitable: Awaitable[object], /) -> None: ...
    @overload
    def __call__(self, function: Callable[Q, object], /, *args: Q.args, **kwargs: Q.kwargs) -> None: ...
    def __call__(self, target: Any, /, *args: Any, **kwargs: Any) -> None:
        _require_open(self._open, target)
        if inspect.isawaitable(target):
            if args or kwargs:
                _dispose(target)
                raise TypeError(f"{target!r} is awaited, not called: it takes no arguments")
            self._calls.append(lambda: target)
        else:
            _require_callable(target)
            self._calls.append(partial(target, *args, **kwargs))

    async def __aenter__(self) -> AsyncDefer:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        errors = self._errors
        errors.start_with(error)
        while self._calls:  # a call may defer another one
            call = self._calls.pop()
            try:
                result = call()
                if inspect.isawaitable(result):
                    await result
            except BaseException as raised:
                errors.add(raised)
        self._open = False
        errors.settle(error)


def _require_open(is_open: bool, target: object) -> None:
    if not is_open:
        _dispose(target)
        raise RuntimeError("the function has ended: nothing can be deferred to its end any more")


def _require_callable(target: object) -> None:
    if not callable(target):
        raise TypeError(f"only a call can be deferred, not {target!r}: defer(function, *args)")


def _dispose(target: object) -> None:
    """Close a coroutine that nobody will await."""
    if inspect.iscoroutine(target):
        target.close()


def _without_first_parameter(function: Callable[..., object], decorator: str) -> inspect.Signature:
    """The signature that callers of the decorated function see."""
    signature = inspect.signature(function)
    parameters = list(signature.parameters.values())
    if not parameters or parameters[0].kind not in (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD):
        raise TypeError(f"{decorator}() needs a function whose first argument is `defer`, not {function!r}")
    return signature.replace(parameters=parameters[1:])
