"""Mutex: a lock that owns what it protects.

Invariant: the contents can be reached only through a guard, only one guard is alive at a time, and a guard is dead
from the end of its block on, whoever still has a reference.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Generic, TypeVar, cast, final, overload

from yamanote.sync._semaphore import Lock

__all__ = ["Guard", "Mutex"]

T = TypeVar("T")


@final
class Mutex(Generic[T]):
    """A value that one party at a time can use: `async with mutex.lock() as guard` in tasks, `with` in plain threads.

    `contents` is the value, or, when it can be called, what makes it. An exception in the block passes through, and
    leaves the contents as they are.

    >>> async def main():
    ...     counter = Mutex(0)
    ...     async with counter.lock() as guard:
    ...         guard.value += 1
    ...     async with counter.lock() as guard:
    ...         return guard.value
    >>> run(main())
    1
    """

    __slots__ = ("__weakref__", "_contents", "_lock")

    @overload
    def __init__(self, contents: Callable[[], T]) -> None: ...
    @overload
    def __init__(self, contents: T) -> None: ...
    def __init__(self, contents: Callable[[], T] | T) -> None:
        made: Any = contents() if callable(contents) else contents
        self._contents: T = made
        self._lock = Lock()

    def lock(self) -> _Locking[T]:
        """What to enter: it waits for its turn, first in, first out, and gives the guard. Cancel safe."""
        return _Locking(self)

    def locked(self) -> bool:
        """Whether a guard is alive."""
        return self._lock.locked()

    def __repr__(self) -> str:
        return f"<Mutex {'locked' if self.locked() else 'unlocked'}, {self._lock.statistics().waiting} waiting>"


@final
class _Locking(Generic[T]):
    """One use of a mutex."""

    __slots__ = ("_guard", "_mutex")

    def __init__(self, mutex: Mutex[T]) -> None:
        self._mutex = mutex

    async def __aenter__(self) -> Guard[T]:
        await self._mutex._lock.acquire()
        self._guard = Guard(self._mutex)
        return self._guard

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        _end(self._guard)
        self._mutex._lock.release()

    def __enter__(self) -> Guard[T]:
        """For plain threads; in a task, write `async with`."""
        self._mutex._lock.blocking_acquire()
        self._guard = Guard(self._mutex)
        return self._guard

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        _end(self._guard)
        self._mutex._lock.release()


@final
class Guard(Generic[T]):
    """The way to the contents of a mutex, until the end of the block that it was made for.

    `guard.value` is the contents, to be read and to be replaced. Attributes and items of the contents can be used as
    the guard's own: `guard.count += 1`, `guard["key"]`, `len(guard)`. After the block, all of it raises RuntimeError.
    """

    __slots__ = ("_mutex",)

    _mutex: Mutex[T] | None

    def __init__(self, mutex: Mutex[T]) -> None:
        object.__setattr__(self, "_mutex", mutex)

    @property
    def value(self) -> T:
        """The contents."""
        return _owner(self)._contents

    @value.setter
    def value(self, contents: T) -> None:
        _owner(self)._contents = contents

    def __getattr__(self, name: str) -> Any:
        return getattr(_owner(self)._contents, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "value":
            _owner(self)._contents = value
        else:
            setattr(_owner(self)._contents, name, value)

    def __delattr__(self, name: str) -> None:
        delattr(_owner(self)._contents, name)

    def __getitem__(self, key: Any) -> Any:
        return cast("Any", _owner(self)._contents)[key]

    def __setitem__(self, key: Any, value: Any) -> None:
        cast("Any", _owner(self)._contents)[key] = value

    def __delitem__(self, key: Any) -> None:
        del cast("Any", _owner(self)._contents)[key]

    def __iter__(self) -> Iterator[Any]:
        return iter(cast("Any", _owner(self)._contents))

    def __len__(self) -> int:
        return len(cast("Any", _owner(self)._contents))

    def __bool__(self) -> bool:
        return bool(_owner(self)._contents)

    def __contains__(self, item: object) -> bool:
        return item in cast("Any", _owner(self)._contents)

    def __repr__(self) -> str:
        return "<Guard, its block has ended>" if self._mutex is None else f"<Guard of {self._mutex._contents!r}>"


def _owner(guard: Guard[T]) -> Mutex[T]:
    mutex = guard._mutex
    if mutex is None:
        raise RuntimeError("this guard was used after the end of its block")
    return mutex


def _end(guard: Guard[Any]) -> None:
    object.__setattr__(guard, "_mutex", None)
