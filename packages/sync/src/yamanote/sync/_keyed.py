"""Keyed lock: a lock for each key, as long as somebody wants it.

Invariant: a key is in the table exactly while somebody has its lock; beside it stand those who wait, oldest first.
The lock goes from hand to hand, and whoever finds nobody to give it to takes the key out of the table.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, Literal, TypeVar, final

from yamanote.runtime import CriticalSection, Waiter, cooperative, park
from yamanote.sync._acquirable import Acquirable
from yamanote.sync._pool import discard

__all__ = ["KeyLock", "KeyedLock", "KeyedLockStatistics"]

K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True, slots=True)
class KeyedLockStatistics:
    """A look at a keyed lock; exact only while no other thread uses it."""

    keys: int
    """Keys whose lock somebody has."""
    waiting: int
    """Parties that wait, for any of them."""


@final
class KeyedLock(Generic[K]):
    """A lock per key: `async with locks(key):` in tasks, `with locks(key):` in plain threads, in one queue per key.

    Keys are hashable values of any number: one that is not in use takes no room. They should compare quickly, as
    strings, numbers and tuples of them do.

    >>> async def main():
    ...     locks = KeyedLock()
    ...     async with locks("a"), locks("b"):
    ...         return len(locks), locks.locked("a"), locks.locked("c")
    >>> run(main())
    (2, True, False)
    """

    __slots__ = ("__weakref__", "_section", "_table")

    def __init__(self) -> None:
        # Each entry has the key as well, so that it can be let go of outside of the section: see `KeyLock.release`.
        self._table: dict[K, tuple[K, deque[Waiter[Any]]]] = {}
        self._section = CriticalSection()

    def __call__(self, key: K) -> KeyLock[K]:
        """The lock of `key`. Raises TypeError when it is not hashable."""
        hash(key)
        return KeyLock(self, key)

    def __len__(self) -> int:
        """How many keys are in use."""
        return len(self._table)

    def __bool__(self) -> bool:
        """True: it is no container, though it tells its length."""
        return True

    def locked(self, key: K) -> bool:
        """Whether somebody has the lock of `key`."""
        return key in self._table

    def statistics(self) -> KeyedLockStatistics:
        """Look at it, for logs and debuggers."""
        queues = self._table.copy().values()
        return KeyedLockStatistics(keys=len(queues), waiting=sum(len(waiters) for _, waiters in queues))

    def __leak__(self) -> str | None:
        """What was not given back, for `yamanote.testing.no_leaks`."""
        return f"{self!r}: not given back, {list(self._table)}" if self._table else None

    def __repr__(self) -> str:
        now = self.statistics()
        return f"<KeyedLock {now.keys} in use, {now.waiting} waiting at {id(self):#x}>"


@final
class KeyLock(Acquirable, Generic[K]):
    """The lock of one key. Made by calling a `KeyedLock`; all that are made for equal keys are the same lock."""

    __slots__ = ("_key", "_locks")

    def __init__(self, locks: KeyedLock[K], key: K) -> None:
        self._locks = locks
        self._key = key

    async def acquire(self) -> Literal[True]:
        """Take it, waiting for it if need be. Always True. First in, first out; tasks of any loop may call it.

        **Cancel safety:** a lock that had been handed to a cancelled call goes to the next in the queue of its key.
        """
        await cooperative()  # one count for all keys: this object lives no longer than one use
        if not self.try_acquire():
            await park(self)
        return True

    def try_acquire(self) -> bool:
        """Take it if nobody has it; tell whether it worked. Any thread may call it."""
        entry = (self._key, deque[Waiter[Any]]())
        return self._locks._table.setdefault(self._key, entry) is entry

    def release(self) -> None:
        """Give it up; the party that has waited longest gets it. Never waits; any thread may call it.

        Raises RuntimeError when nobody has it.
        """
        if not self.locked():
            raise RuntimeError(f"release() of the lock of {self._key!r}, which nobody has")
        spent: list[object] = []  # the destructor of a key is foreign code: not inside
        self._locks._section.do(partial(self._pass_on, spent))

    def locked(self) -> bool:
        """Whether somebody has it."""
        return self._key in self._locks._table

    def register(self, waiter: Waiter[Any]) -> None:
        """Park `waiter` until the lock is its. See `yamanote.runtime.Selectable`."""
        self._locks._section.do(partial(self._park, waiter))

    def withdraw(self, waiter: Waiter[Any]) -> None:
        """Forget `waiter`; the lock that it was handed goes to the next."""
        spent: list[object] = []
        self._locks._section.do(partial(self._forget, waiter, spent))

    def _park(self, waiter: Waiter[Any]) -> None:
        if self.try_acquire():
            if not waiter.hand(None):
                del self._locks._table[self._key]
        else:
            self._locks._table[self._key][1].append(waiter)

    def _forget(self, waiter: Waiter[Any], spent: list[object]) -> None:
        if waiter.settled:
            self._pass_on(spent)
        elif entry := self._locks._table.get(self._key):
            discard(entry[1], waiter)

    def _pass_on(self, spent: list[object]) -> None:
        entry = self._locks._table.get(self._key)
        if entry is None:
            return  # another thread released it as well, at the same moment
        waiters = entry[1]
        while waiters:
            if waiters.popleft().hand(None):
                return
        spent.append(entry)
        del self._locks._table[self._key]

    def __repr__(self) -> str:
        return f"<KeyLock of {self._key!r}, {'locked' if self.locked() else 'unlocked'}>"
