"""Mutex: a lock that owns what it protects.

Invariant: the contents can be reached only through a guard, only one guard is alive at a time, and a guard is dead
from the end of its block on, whoever still has a reference.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from types import TracebackType
from typing import Any, Generic, NoReturn, TypeVar, final, overload

from yamanote.runtime import Waiter
from yamanote.sync._acquirable import LockStatistics
from yamanote.sync._errors import MutexPoisoned, WouldBlock
from yamanote.sync._lock import Lock

__all__ = ["Guard", "Locking", "Mutex"]

T = TypeVar("T")


@final
class Mutex(Generic[T]):
    """A value that one party at a time can use: `async with mutex.lock() as guard` in tasks, `with` in plain threads.

    `contents` is the value, or, when it can be called, what makes it: `Mutex(dict)` protects a new dict. So a value
    that can be called must come out of a call: `Mutex(lambda: function)`.

    An exception in the block passes through, and leaves the contents as they are. With ``poison=True`` an `Exception`
    in a block also says that the contents may be half-changed: from then on whoever waits and whoever comes gets
    `MutexPoisoned`, until `clear_poison`. A cancellation does not poison.

    >>> async def main():
    ...     counter = Mutex(0)
    ...     async with counter.lock() as guard:
    ...         guard.value += 1
    ...     async with counter.lock() as guard:
    ...         return guard.value
    >>> run(main())
    1
    """

    __slots__ = ("__weakref__", "_contents", "_lock", "_poison", "_poisoned")

    @overload
    def __init__(self, contents: Callable[[], T], *, poison: bool = False) -> None: ...
    @overload
    def __init__(self, contents: T, *, poison: bool = False) -> None: ...
    def __init__(self, contents: Callable[[], T] | T, *, poison: bool = False) -> None:
        made: Any = contents() if callable(contents) else contents
        self._contents: T = made
        self._lock = Lock()
        self._poison = poison
        self._poisoned = False

    def lock(self) -> Locking[T]:
        """What to enter: it waits for its turn, first in, first out, and gives the guard.

        **Cancel safety:** a turn that a cancelled call had been given goes to the next. Tasks of any loop and plain
        threads may enter it. A `select` over it gives something to enter, too: it has its turn already.

        Entering raises MutexPoisoned when a block that came before has poisoned the contents.
        """
        return Locking(self)

    def blocking_lock(self, timeout: float | None = None) -> Locking[T]:
        """Wait for the turn in a plain thread, for at most `timeout` seconds; return what to enter then.

        Raises TimeoutError when the time is over, and RuntimeError in a thread that runs an event loop.
        """
        self._lock.blocking_acquire(timeout)
        return Locking(self, granted=True)

    def or_raise(self) -> Locking[T]:
        """Lock it now and return what to enter (`with mutex.or_raise() as guard:`); raise WouldBlock if it is locked.

        Never waits, so it may be entered with a plain `with` in tasks, too.
        """
        if not self._lock.try_acquire():
            raise WouldBlock(f"{self!r} is not to be had now")
        return Locking(self, granted=True)

    def locked(self) -> bool:
        """Whether somebody has it."""
        return self._lock.locked()

    @property
    def is_poisoned(self) -> bool:
        """Whether a block has poisoned the contents."""
        return self._poisoned

    def clear_poison(self) -> None:
        """Let parties in again: the contents are sound, or the next one mends them. Any thread may call it."""
        self._poisoned = False

    def statistics(self) -> LockStatistics:
        """Look at its lock, for logs and debuggers."""
        return self._lock.statistics()

    def __repr__(self) -> str:
        state = "locked" if self.locked() else "unlocked"
        poisoned = ", poisoned" if self._poisoned else ""
        return f"<Mutex {state}{poisoned}, {self._lock.statistics().waiting} waiting at {id(self):#x}>"


@final
class Locking(Generic[T]):
    """One use of a mutex: enter it, or select over it. Made by the methods of `Mutex`.

    Awaited, it waits for its turn, and gives what to enter: ``with (yield mutex.lock()) as guard:`` in a generator.
    """

    __slots__ = ("_granted", "_guard", "_mutex")

    need = 1  # as a `Want` it asks for one permit

    def __init__(self, mutex: Mutex[T], *, granted: bool = False) -> None:
        self._mutex = mutex
        self._granted = granted  # whether it is its turn already

    def __await__(self) -> Generator[Any, None, Locking[T]]:
        if not self._granted:
            yield from self._mutex._lock.acquire().__await__()
        self._granted = False
        return self.grant()

    async def __aenter__(self) -> Guard[T]:
        if self._granted:
            self._granted = False
        else:
            await self._mutex._lock.acquire()
        return self._enter()

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._leave(exc)

    def __enter__(self) -> Guard[T]:
        """For plain threads; in a task, write `async with`, unless it is its turn already."""
        if self._granted:
            self._granted = False
        else:
            self._mutex._lock.blocking_acquire()
        return self._enter()

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._leave(exc)

    def _enter(self) -> Guard[T]:
        mutex = self._mutex
        if mutex._poisoned:
            mutex._lock.release()
            raise MutexPoisoned(f"an exception in a block has left the contents of {mutex!r} in doubt")
        self._guard = guard = Guard(mutex)
        return guard

    def _leave(self, error: BaseException | None) -> None:
        mutex = self._mutex
        _end(self._guard)
        if mutex._poison and isinstance(error, Exception):
            mutex._poisoned = True  # before the lock goes on: those who wait already learn of it
        mutex._lock.release()

    def register(self, waiter: Waiter[Any]) -> None:
        """Park `waiter` until it is its turn; it is handed what to enter. See `yamanote.runtime.Selectable`."""
        self._mutex._lock._pool.enlist(waiter, self)

    def withdraw(self, waiter: Waiter[Any]) -> None:
        """Forget `waiter`; a turn that it was given goes to the next."""
        self._mutex._lock._pool.delist(waiter)

    def grant(self) -> Locking[T]:
        """What to enter: it does not wait."""
        return Locking(self._mutex, granted=True)

    def revoke(self, granted: Locking[T]) -> int:
        return 1

    def refuse(self) -> BaseException:
        return self._mutex._lock.refuse()

    def __repr__(self) -> str:
        return f"<Locking {self._mutex!r}>"


@final
class Guard(Generic[T]):
    """The way to the contents of a mutex, until the end of the block that it was made for.

    `guard.value` is the contents, to be read and to be replaced. The contents can also be used through the guard
    itself: attributes and items (`guard.count += 1`, `guard["key"]`), calls, comparisons, `len`, `in`, iteration.
    After the block, all of it raises RuntimeError. What was taken out of the contents is not guarded: a method, an
    iterator, an item.
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
        return _contents(self)[key]

    def __setitem__(self, key: Any, value: Any) -> None:
        _contents(self)[key] = value

    def __delitem__(self, key: Any) -> None:
        del _contents(self)[key]

    def __iter__(self) -> Iterator[Any]:
        return iter(_contents(self))

    def __len__(self) -> int:
        return len(_contents(self))

    def __bool__(self) -> bool:
        return bool(_contents(self))

    def __contains__(self, item: object) -> bool:
        return item in _contents(self)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return _contents(self)(*args, **kwargs)

    # Compared by identity, `guard == 5` would be false in silence. So it has no hash either.

    def __eq__(self, other: object) -> Any:
        return _contents(self) == other

    def __ne__(self, other: object) -> Any:
        return _contents(self) != other

    def __lt__(self, other: Any) -> Any:
        return _contents(self) < other

    def __le__(self, other: Any) -> Any:
        return _contents(self) <= other

    def __gt__(self, other: Any) -> Any:
        return _contents(self) > other

    def __ge__(self, other: Any) -> Any:
        return _contents(self) >= other

    def __reduce__(self) -> NoReturn:
        raise TypeError("a guard can neither be copied nor pickled")

    def __repr__(self) -> str:
        return "<Guard, its block has ended>" if self._mutex is None else f"<Guard of {self._mutex._contents!r}>"


def _owner(guard: Guard[T]) -> Mutex[T]:
    mutex = guard._mutex
    if mutex is None:
        raise RuntimeError("this guard was used after the end of its block")
    return mutex


def _contents(guard: Guard[Any]) -> Any:
    return _owner(guard)._contents


def _end(guard: Guard[Any]) -> None:
    object.__setattr__(guard, "_mutex", None)
