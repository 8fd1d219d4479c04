"""Permit pool: a number of permits, taken and given back, first in, first out.

Invariant: once a call has returned, there is no live parked party at the front whose want the free permits could
meet. The party at the front is served first, even when those behind it want less; a newcomer takes nothing while
anybody is parked.

The ordinary path takes no lock: a free permit is a token in a deque, and `deque.pop` is atomic on every build of
CPython. Who gives a permit back appends it, *then* looks for parked parties; who parks appends itself, *then* looks
again for permits. So of two that race at least one sees both sides, and that one calls `serve`, which takes the lock
and matches them. (On a free-threaded build a plain look may come before the append in front of it: of the two, the one
who parks, which is the rare one, looks under the lock that every deque has.)

Locks, semaphores, and the room of bounded channels are this pool.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice, repeat
from operator import length_hint
from typing import Any, Protocol

from yamanote.runtime import CriticalSection, Waiter

__all__ = ["PermitPool", "Want"]

_BATCH = 1024
"""How many tokens are made at a time: a pool of a billion permits costs nothing until they are used."""


class Want(Protocol):
    """What a parked party wants; its waiter carries it as `operation`."""

    @property
    def need(self) -> int:
        """How many permits, all at once."""
        ...

    @property
    def grant(self) -> Callable[[], Any] | None:
        """It has them now: returns what the waiter is settled with. None when nothing comes with the permits.

        Called under the lock.
        """
        ...

    def revoke(self, granted: Any) -> int:
        """It was cancelled after all: return how many permits come back with `granted`. Called under the lock."""
        ...

    def refuse(self) -> BaseException:
        """The pool was closed: return what the waiter is to fail with. Called under the lock."""
        ...


class _Mark(Waiter[Any]):
    """Stands in a queue of waiters without waiting: nobody can claim it."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__([])


class _Debt(Waiter[Any]):
    """Stands first in the queue and swallows one permit that is to be forgotten as soon as it comes back."""

    __slots__ = ()

    need = 1

    def __init__(self) -> None:
        super().__init__([None])
        self.operation = self

    grant = None

    def revoke(self, granted: None) -> int:
        return 0

    def settle(self, value: Any) -> None: ...


_CLOSED = _Mark()


class PermitPool:
    """Permits, and who waits for them. An engine: build primitives on it, and put their own promises around it.

    The ordinary path is the caller's, because a call would cost as much as the rest of it:

        if pool.tokens and not pool.waiters:    # nobody waits: what is free is yours
            pool.tokens.pop()                   # IndexError when another thread was faster

    and otherwise `enlist` a waiter. To give one permit back: `pool.tokens.append(None)`, then `serve` if
    `pool.waiters`. Once the pool is closed, `waiters` is never empty again, so that every caller of the ordinary path
    comes to see it.
    """

    __slots__ = ("_unmade", "closed", "section", "tokens", "total", "waiters")

    closed: bool
    section: CriticalSection
    """For all that is called "under the lock"."""
    tokens: deque[object]
    """Free permits: `most` of them at most, what is given back beyond that falls away."""
    total: int
    """How many permits it began with."""
    waiters: deque[Waiter[Any]]
    """Parked parties, oldest first."""

    def __init__(self, permits: int, most: int | None = None) -> None:
        self.total = permits
        self._unmade: Iterator[None] | None = repeat(None, permits)
        self.tokens = deque(maxlen=most)
        self.waiters = deque()
        self.section = CriticalSection()
        self.closed = False
        self._make()

    def _make(self) -> None:
        """Make some more tokens. In one operation: a finalizer that comes between would make them again."""
        if self._unmade is not None:
            self.tokens.extend(islice(self._unmade, _BATCH))
            if not length_hint(self._unmade):
                self._unmade = None

    @property
    def free(self) -> int:
        """How many permits are free."""
        return len(self.tokens) + (0 if self._unmade is None else length_hint(self._unmade))

    @property
    def parked(self) -> int:
        """How many parties wait."""
        return sum(not isinstance(waiter, _Mark | _Debt) for waiter in self.waiters.copy())

    def take(self, count: int) -> bool:
        """Take `count` permits, or none at all. Under the lock."""
        tokens = self.tokens
        while len(tokens) < count and self._unmade is not None:
            self._make()
        if len(tokens) < count:
            return False
        for taken in range(count):
            try:
                tokens.pop()
            except IndexError:  # somebody on the ordinary path, in another thread, was faster
                tokens.extend(repeat(None, taken))
                return False
        return True

    def try_take(self, count: int) -> bool:
        """Take `count` permits, or none: none, too, when somebody waits for permits."""
        with self.section:
            if not self.waiters and self.take(count):
                return True
            if self.waiters:  # somebody may have parked while this had taken some, and have found none
                self.section.run(self.serve_locked)
            return False

    def give_back(self, count: int) -> None:
        """Give back `count` permits, and serve who waits for them."""
        self.tokens.extend(repeat(None, count))
        if self.waiters:
            self.serve()

    def give_back_locked(self, count: int) -> None:
        """`give_back`, for who is in the section already, such as a finalizer."""
        self.tokens.extend(repeat(None, count))
        self.serve_locked()

    def enlist(self, waiter: Waiter[Any], want: Want) -> None:
        """Park `waiter` behind all others until `want` can be met; at once, perhaps."""
        waiter.operation = want
        self.waiters.append(waiter)
        self.tokens.rotate(0)  # its lock, and nothing else: see the top of this file
        if self.tokens or self._unmade is not None or self.closed:
            self.serve()

    def delist(self, waiter: Waiter[Any]) -> None:
        """Forget `waiter`, take back what it was granted, and serve who comes next."""
        self.section.do(partial(self._delist, waiter))

    def _delist(self, waiter: Waiter[Any]) -> None:
        if not waiter.settled:
            discard(self.waiters, waiter)
            self.serve_locked()
        elif waiter.error is None:
            count = waiter.operation.revoke(waiter.value)
            if count:
                self.give_back_locked(count)

    def serve(self) -> None:
        """Match parked parties with free permits."""
        self.section.run(self.serve_locked)

    def serve_locked(self) -> bool:
        """`serve`, for who is in the section already. True when anybody was served."""
        waiters, tokens = self.waiters, self.tokens
        served = False
        while waiters and (tokens or self._unmade is not None) and (waiter := waiters[0]) is not _CLOSED:
            want = waiter.operation
            need = want.need
            if need == 1 and tokens:
                try:
                    tokens.pop()
                except IndexError:  # somebody on the ordinary path, in another thread, was faster
                    continue
            elif not self.take(need):
                if waiter.is_waiting():
                    break
                waiters.popleft()  # nobody is there any more, and nobody else may wait for that
                continue
            waiters.popleft()
            grant = want.grant
            if grant is None:
                handed = waiter.hand(None)
            elif handed := waiter.claim():
                waiter.settle(grant())
            if handed:
                served = True
            else:
                tokens.extend(repeat(None, need))
        if self.closed:
            while waiters[-1] is not _CLOSED:
                waiter = waiters.pop()
                if waiter.claim():
                    waiter.fail(waiter.operation.refuse())
        return served

    def forget(self, count: int) -> None:
        """Take `count` permits out of circulation: free ones now, others as they come back. Under the lock."""
        for _ in range(count):
            if not self.take(1):
                self.waiters.appendleft(_Debt())

    def close(self) -> None:
        """Refuse everybody, from now on. Permits may still be given back. Under the lock; once is enough."""
        if self.closed:
            return
        self.closed = True
        waiters = self.waiters
        # Who parks from now on finds the mark before itself; who is parked already is refused here.
        waiters.append(_CLOSED)
        debts = []
        while (waiter := waiters.popleft()) is not _CLOSED:
            if isinstance(waiter, _Debt):
                debts.append(waiter)
            elif waiter.claim():
                waiter.fail(waiter.operation.refuse())
        waiters.appendleft(_CLOSED)
        waiters.extendleft(debts)


def discard(queue: deque[Any], entry: object) -> None:
    """Take `entry` out of `queue`, if it is still there."""
    try:
        queue.remove(entry)
    except ValueError:
        pass
