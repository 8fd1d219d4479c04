"""Context groups: many context managers as one, one after the other, in the task of the caller.

Invariant: when a manager cannot be entered, or the caller is cancelled meanwhile, those that have been entered are
exited before that is raised, the last one first. Every exit sees what the block inside of it raised, may suppress it,
and runs whatever the others raised.

Why one after the other: many managers belong to the task that enters them, and surround what is entered after them
(timeouts, cancel scopes, task groups, context variables, locks that know their owner). They work only where nested
blocks would put them. For managers that may wait at the same time there is `concurrent_contexts`.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from types import TracebackType
from typing import Any, Generic, TypeVar, final

from yamanote.runtime._errors import Errors

__all__ = ["AsyncContextGroup", "actxgroup"]

T = TypeVar("T")
AnyManager = AbstractAsyncContextManager[T] | AbstractContextManager[T]


@final
class AsyncContextGroup(Generic[T]):
    """Many context managers as one: ``async with AsyncContextGroup([open_a(), open_b()]) as [a, b]: ...``.

    They are entered in order, in the calling task, and exited in reverse: as nested `with` and `async with` statements
    would do it. Timeouts, cancel scopes, task groups and context variables among them work as usual, and surround the
    managers behind them. The value of the block is the list of their values. Managers may be sync ones too.

    When one cannot be entered, or the caller is cancelled, those that were entered are exited, and then that is raised.
    Exits see the error of the block, and may suppress it. All of them run, whatever the others raise. A single error is
    raised as it is, several in an ExceptionGroup.

    **Cancel safety:** what was entered is exited. An error of an exit takes the place of a cancellation, which is then
    raised again at the next await.

    Raises TypeError for what is no context manager; RuntimeError when the group is entered a second time, and when a
    manager suppresses the error of another that could not be entered: the block cannot be skipped.

    >>> from contextlib import asynccontextmanager
    >>> @asynccontextmanager
    ... async def opened(name):
    ...     print("open", name)
    ...     yield name.upper()
    ...     print("close", name)
    >>> async def main():
    ...     async with AsyncContextGroup(opened(name) for name in "ab") as values:
    ...         print(values)
    >>> run(main())
    open a
    open b
    ['A', 'B']
    close b
    close a
    """

    __slots__ = ("_errors", "_inside", "_managers")

    def __init__(self, managers: Iterable[AnyManager[T]] = ()) -> None:
        self._managers = [as_async(manager, "AsyncContextGroup") for manager in managers]
        self._inside: list[AbstractAsyncContextManager[T]] = []
        self._errors: Errors | None = None

    def add(self, manager: AnyManager[T], /) -> None:
        """One more, to be entered last.

        Raises TypeError for what is no context manager, RuntimeError when the group has been entered.
        """
        if self._errors is not None:
            raise RuntimeError("managers can be added only before the group is entered")
        self._managers.append(as_async(manager, "add"))

    async def __aenter__(self) -> list[T]:
        if self._errors is not None:
            raise RuntimeError("an AsyncContextGroup can be entered only once")
        self._errors = Errors("errors in an AsyncContextGroup")
        values = []
        try:
            for manager in self._managers:
                values.append(await manager.__aenter__())
                self._inside.append(manager)
        except BaseException as error:
            if not await self._exit(error):
                raise
            raise RuntimeError("a manager suppressed the error of another one that could not be entered") from error
        return values

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        return await self._exit(error)

    async def _exit(self, error: BaseException | None) -> bool:
        """Exit what was entered; return whether `error` was suppressed, and raise what takes its place."""
        errors = self._errors
        if errors is None:
            raise RuntimeError("this AsyncContextGroup has not been entered")
        errors.start_with(error)
        while self._inside:
            manager = self._inside.pop()
            try:
                if await manager.__aexit__(*details(errors.pending)):
                    errors.suppress()
            except BaseException as raised:
                errors.add(raised)
        return errors.settle(error)


actxgroup = AsyncContextGroup
"""`AsyncContextGroup`, under the name that users of aiotools look for."""


def as_async(manager: AnyManager[T], caller: str) -> AbstractAsyncContextManager[T]:
    """An async face for `manager`, for `caller`, who gets a TypeError for what is no context manager."""
    kind = type(manager)
    if hasattr(kind, "__aenter__") and hasattr(kind, "__aexit__"):
        return manager  # type: ignore[return-value]
    if hasattr(kind, "__enter__") and hasattr(kind, "__exit__"):
        return _Sync(manager)  # type: ignore[arg-type]
    raise TypeError(f"{caller}() needs context managers, not {manager!r}")


def details(
    error: BaseException | None,
) -> tuple[type[BaseException] | None, BaseException | None, TracebackType | None]:
    """The arguments of an `__aexit__` that sees `error`."""
    return (None, None, None) if error is None else (type(error), error, error.__traceback__)


class _Sync(AbstractAsyncContextManager[T]):
    """A sync context manager in an async group."""

    __slots__ = ("_manager",)

    def __init__(self, manager: AbstractContextManager[T]) -> None:
        self._manager = manager

    async def __aenter__(self) -> T:
        return self._manager.__enter__()

    async def __aexit__(self, *error: Any) -> bool | None:
        return self._manager.__exit__(*error)
