"""Sequencer: blocks of several tasks that run in the order of their numbers.

Invariant: block n is entered when the blocks 0 to n - 1 have been left, and no number is used twice. A sequence in
which a number can never be used any more is broken: whoever waits, and whoever comes later, is told so.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import final

__all__ = ["BrokenSequencer", "Sequencer"]


class BrokenSequencer(RuntimeError):
    """A block was cancelled while it waited for its turn, so those after it would wait for ever."""


@final
class Sequencer:
    """Runs blocks of different tasks in the order of their numbers: ``async with sequence(2): ...``.

    Entering block n waits until all blocks before it have been left, in whichever way. Numbers begin at 0, each is used
    once. A sequencer can be made anywhere, and belongs to the loop of the tasks that wait for it.

    Entering raises ValueError when the number was used before. **Cancel safety**: a block that is cancelled while it
    waits for its turn breaks the sequence; all others then get BrokenSequencer, at once.

    >>> async def main():
    ...     order = Sequencer()
    ...     async def second():
    ...         async with order(1):
    ...             print("second")
    ...     async with asyncio.TaskGroup() as group:
    ...         group.create_task(second())
    ...         async with order(0):
    ...             await asyncio.sleep(0)
    ...             print("first")
    >>> run(main())
    first
    second
    """

    __slots__ = ("_broken_by", "_next", "_turns", "_used")

    def __init__(self) -> None:
        self._next = 0
        self._used: set[int] = set()
        self._turns: dict[int, asyncio.Future[None]] = {}
        self._broken_by: int | None = None

    def __call__(self, number: int) -> _Block:
        """What to enter. Raises TypeError or ValueError unless `number` is a whole number, at least 0."""
        if isinstance(number, bool) or not isinstance(number, int):
            raise TypeError(f"number must be a whole number, not {number!r}")
        if number < 0:
            raise ValueError(f"number must be at least 0, not {number}")
        return _Block(self, number)

    async def _enter(self, number: int) -> None:
        if number in self._used:
            raise ValueError(f"number {number} has been used before")
        self._used.add(number)
        if self._broken_by is None and number != self._next:
            self._turns[number] = turn = asyncio.get_running_loop().create_future()
            try:
                await turn
            except BaseException:
                self._break(number)
                raise
            finally:
                del self._turns[number]
        if self._broken_by is not None:
            raise BrokenSequencer(f"block {number} has no turn: block {self._broken_by} was cancelled before its own")

    def _leave(self) -> None:
        self._next += 1
        if (turn := self._turns.get(self._next)) is not None and not turn.done():
            turn.set_result(None)

    def _break(self, number: int) -> None:
        if self._broken_by is None:
            self._broken_by = number
            for turn in self._turns.values():
                if not turn.done():
                    turn.set_result(None)

    def __repr__(self) -> str:
        state = f"at {self._next}" if self._broken_by is None else f"broken by {self._broken_by}"
        return f"<Sequencer {state}, waiting: {sorted(self._turns)}>"


@final
class _Block:
    """One number of a sequence."""

    __slots__ = ("_number", "_sequencer")

    def __init__(self, sequencer: Sequencer, number: int) -> None:
        self._sequencer = sequencer
        self._number = number

    async def __aenter__(self) -> None:
        await self._sequencer._enter(self._number)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._sequencer._leave()
