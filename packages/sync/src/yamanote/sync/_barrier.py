"""Barrier: a number of parties wait for each other, then all go on; again and again.

Invariant: a round is complete at the moment when as many parties wait as the barrier has, and ends in that moment: the
first of them, in the order in which they came, get their positions, and whoever comes later belongs to the next round.
A party that gives up before that moment has not been there.

Nobody takes a lock to arrive: a party joins the queue, *then* counts. So of those who arrive at once at least one
counts all, and opens.
"""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import Any, final

from yamanote.runtime import BUDGET, CriticalSection, Waiter, park, park_thread, yield_now
from yamanote.sync._errors import BrokenBarrier

__all__ = ["Barrier"]


@final
class Barrier:
    """A meeting point for `parties` tasks and threads: who comes waits until all are there. Used round after round.

    `wait` returns the position in which the party came, from 0 on. Exactly one party of each round gets 0: the leader,
    if there is something that one of them is to do for all. `async with barrier` and, in plain threads, `with barrier`
    wait in front of the block.

    Raises ValueError when `parties` is less than 1.

    >>> async def main():
    ...     barrier, log = Barrier(3), []
    ...     async def work():
    ...         if await barrier.wait() == 0:
    ...             log.append("all are here")
    ...     await asyncio.gather(work(), work(), work())
    ...     return log
    >>> run(main())
    ['all are here']
    """

    __slots__ = ("__weakref__", "_broken", "_left", "_parties", "_section", "_waiters")

    def __init__(self, parties: int) -> None:
        if isinstance(parties, bool) or not isinstance(parties, int):
            raise TypeError(f"parties must be a whole number, not {parties!r}")
        if parties < 1:
            raise ValueError(f"parties must be at least 1, not {parties}")
        self._parties = parties
        self._waiters: deque[Waiter[int]] = deque()
        self._broken = False
        self._section = CriticalSection()
        self._left = BUDGET  # how many arrivals that complete a round until the next yield

    @property
    def parties(self) -> int:
        """How many parties make a round."""
        return self._parties

    @property
    def is_broken(self) -> bool:
        """Whether `abort` was called, and `reset` was not called since."""
        return self._broken

    def value(self) -> int:
        """How many parties of this round have come, and wait."""
        return len(self._waiters)

    async def wait(self) -> int:
        """Wait until all parties of the round are there; return the position in which this one came, from 0 on.

        The last one does not wait. All others go on within one loop turn.

        **Cancel safety:** a party that is cancelled leaves, and the barrier waits for another one. When all were
        there already, the round is complete all the same.

        Raises BrokenBarrier when the barrier is broken, or is aborted or reset meanwhile.
        """
        if len(self._waiters) + 1 < self._parties:
            self._left = BUDGET
        elif left := self._left:
            self._left = left - 1
        else:
            self._left = BUDGET
            await yield_now()
        return await park(self)

    def blocking_wait(self, timeout: float | None = None) -> int:
        """`wait`, for plain threads: blocks for at most `timeout` seconds, then leaves, and raises TimeoutError.

        Raises RuntimeError in a thread that runs an event loop.
        """
        return park_thread(self, timeout)

    def abort(self) -> None:
        """Break the barrier: who waits and who comes gets BrokenBarrier, until `reset`. Any thread may call it."""
        self._section.do(partial(self._break, True))

    def reset(self) -> None:
        """Begin anew: who waits gets BrokenBarrier, who comes waits for a full round. Any thread may call it."""
        self._section.do(partial(self._break, False))

    def _break(self, broken: bool) -> None:
        self._broken = broken
        waiters = self._waiters
        # Those who are there now: who comes while this goes on sees the new state.
        for _ in range(len(waiters)):
            self._refuse(waiters.popleft())

    def _refuse(self, waiter: Waiter[int]) -> None:
        if waiter.claim():
            waiter.fail(BrokenBarrier(f"{self!r} was {'aborted' if self._broken else 'reset'}"))

    async def __aenter__(self) -> int:
        return await self.wait()

    async def __aexit__(self, *exc_info: object) -> None:
        """Nothing: the block is what comes after the barrier."""

    def __enter__(self) -> int:
        """For plain threads; in a task, write `async with`."""
        return self.blocking_wait()

    def __exit__(self, *exc_info: object) -> None:
        """Nothing: the block is what comes after the barrier."""

    def register(self, waiter: Waiter[Any]) -> None:
        """Park `waiter` until the round is complete. See `yamanote.runtime.Selectable`."""
        self._waiters.append(waiter)
        if len(self._waiters) >= self._parties or self._broken:
            self._section.run(self._look)

    def withdraw(self, waiter: Waiter[Any]) -> None:
        """Forget `waiter`: it has not been there, unless its round was complete already."""
        self._section.do(partial(self._forget, waiter))

    def _forget(self, waiter: Waiter[int]) -> None:
        try:
            self._waiters.remove(waiter)
        except ValueError:
            pass  # its round is over

    def _look(self) -> None:
        """Refuse everybody if it is broken, and complete as many rounds as there are parties for."""
        waiters = self._waiters
        while self._broken and waiters:
            self._refuse(waiters.popleft())
        while len(waiters) >= self._parties:
            # Who was cancelled, but has not run since, is not there. Looked at first and handed their positions then:
            # who gives up in between, in another thread, was there when the round became complete. It leaves no gap:
            # somebody is to be the leader.
            here = [waiter for waiter in waiters.copy() if waiter.is_waiting()][: self._parties]
            if len(here) < self._parties:
                return
            position = 0
            for waiter in here:
                waiters.remove(waiter)
                position += waiter.hand(position)

    def __repr__(self) -> str:
        state = "broken" if self._broken else f"{self.value()} of {self._parties} waiting"
        return f"<Barrier {state} at {id(self):#x}>"
