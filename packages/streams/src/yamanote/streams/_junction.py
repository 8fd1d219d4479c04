"""Junction: several sources that are pulled side by side, and come and go.

Invariant: each source is pulled in its turn, and its next turn comes behind that of all others, so one that is always
ready starves nobody. A source is at most one item ahead of who pulls here. What had to be waited for is given in the
order in which it came; the end or the error of a source comes behind all of its items. A pull only looks, waits and
then takes, so one that is cancelled loses nothing.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from typing import Any, TypeVar

from yamanote.runtime import BUDGET, yield_now
from yamanote.streams._branch import Branch
from yamanote.streams._operator import close_all
from yamanote.streams._pipeline import Pipeline

__all__ = ["Junction"]

T_co = TypeVar("T_co", covariant=True)


class Junction(Pipeline[T_co]):
    """Gives what its branches give, until none is left."""

    __slots__ = ("_branches", "_landed", "_left", "_over", "_turns", "_waiting")

    def __init__(self, branches: Iterable[Branch] = ()) -> None:
        self._branches: dict[Branch, None] = {}
        """Those that are not over, in their order: they are closed in it."""
        self._turns: deque[Branch] = deque()
        """Those that are not being pulled, in the order of their turns."""
        self._landed: deque[tuple[Branch, Any]] = deque()
        """Those that have something, in the order in which it came."""
        self._left = BUDGET
        self._waiting: asyncio.Future[None] | None = None
        self._over = False
        self._error = None
        for branch in branches:
            self._add(branch)

    async def pull(self) -> T_co:
        while not self._over:
            branch = self._next()
            if branch is None:
                await self._pause()
            elif branch.over:
                await self._leave(branch)
            elif self._is_given(branch):
                item, branch.item = branch.item, None
                return item  # type: ignore[no-any-return]
        await self._end(self._error)  # a pull that was cancelled had not got so far, or somebody closes it just now
        self.raise_end()

    def _is_given(self, branch: Branch) -> bool:
        """Whether the item of `branch` is for who pulls here. Also says when its next turn is, if it rests."""
        if branch.rests and not branch.ahead:
            self._turns.append(branch)
        return True

    async def _leave(self, branch: Branch) -> None:
        """`branch` is over."""
        failure, branch.failure = branch.failure, None
        if failure is not None:
            await self._end(failure)

    async def _pause(self) -> None:
        """Nobody has anything."""
        if self._branches:
            await self._wait()
        else:
            await self._end()

    def _next(self) -> Branch | None:
        """The next branch that has something: an item, or its end."""
        if not self._left:
            return None
        self._left -= 1
        ready: Branch | None = None
        turns = self._turns
        while turns:
            branch = turns.popleft()
            try:
                has_something = branch.step()
            except BaseException:  # KeyboardInterrupt: what comes behind it is to be asked for again
                turns.append(branch)
                raise
            if has_something:
                mine = branch in self._branches  # it may have removed itself
                if mine and not self._landed:
                    ready = branch
                    break
                branch.ahead += not branch.over
                branch.over = False  # for who pulls it
                if mine:
                    self._landed.append((branch, branch.item))
                else:
                    branch.land(branch, branch.item)
            elif not branch.waits:
                turns.appendleft(branch)
                self._left = 0
                break
        if ready is None and self._landed:
            ready, item = self._landed.popleft()
            if ready.ahead:
                ready.ahead -= 1
                ready.item = item
            else:
                ready.over = True
        if ready is not None and ready.over and ready.failure is None:
            self._branches.pop(ready, None)  # it has closed its source
        return ready

    async def _wait(self) -> None:
        """Wait until `_next` may have something."""
        if not self._left:
            self._left = BUDGET
            await yield_now()
            return
        if self._over:  # a source has closed us, while it was pulled in place
            return
        if self._waiting is not None:
            raise RuntimeError(f"{self} is being pulled by another task already")
        self._waiting = asyncio.get_running_loop().create_future()
        try:
            await self._waiting
        finally:
            self._waiting = None

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    def _add(self, branch: Branch) -> None:
        branch.land = self._land
        self._branches[branch] = None
        self._turns.append(branch)
        self._wake()

    def _take_over(self, branch: Branch, former: Junction[Any]) -> None:
        """Go on with a branch of `former`, and with what has landed of it."""
        self._branches[branch] = None
        branch.land = self._land
        if branch in former._turns:
            self._turns.append(branch)
        self._landed.extend(entry for entry in former._landed if entry[0] is branch)
        former._forget(branch)
        del former._branches[branch]

    def _silence(self, branch: Branch) -> None:
        """Ask `branch` to stop, and let nothing more of it be given."""
        branch.stop()
        branch.report()  # it may have failed already
        self._forget(branch)

    def _forget(self, branch: Branch) -> None:
        """Take `branch` out of its turn, and what has landed of it."""
        if branch in self._turns:
            self._turns.remove(branch)
        self._landed = deque(entry for entry in self._landed if entry[0] is not branch)
        self._wake()  # who waits may have nothing to wait for any more

    def _land(self, branch: Branch, item: Any) -> bool:
        self._landed.append((branch, item))
        waiting = self._waiting
        if waiting is None:
            return False
        if not waiting.done():
            waiting.set_result(None)
        return branch.ahead < 2

    async def _close(self) -> None:
        self._over = True
        self._turns.clear()
        self._landed.clear()
        self._wake()
        branches = [*self._branches]
        for branch in branches:
            branch.stop()
            if not branch.over:  # else its error is raised
                branch.report()
        await close_all(*branches)
        self._branches.clear()

    @property
    def leftover(self) -> str | None:
        tasks = sum(branch.is_running for branch in self._branches)
        if tasks:
            return f"{tasks} task{'s' * (tasks > 1)}"
        return next(filter(None, (branch.leftover for branch in self._branches)), None)

    def abandon(self) -> None:
        for branch in self._branches:
            branch.abandon()
