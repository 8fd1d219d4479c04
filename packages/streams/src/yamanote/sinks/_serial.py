"""Serial: a sink whose calls are made one at a time, first in, first out.

Invariant: who has the turn is the only one who calls the sinks below, or writes. Closing waits for its turn as well, so
a call that was begun before is finished before; one that gets its turn behind it accepts nothing.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from typing import TypeVar

from yamanote.sinks._sink import Guarded

__all__ = ["Serial"]

T_contra = TypeVar("T_contra", contravariant=True)


class Serial(Guarded[T_contra]):
    """Has a turn, for `feed` and for `_finish`, and flushes when it has it."""

    __slots__ = ("_turn",)

    def __init__(self) -> None:
        super().__init__()
        self._turn = asyncio.Lock()

    async def flush(self) -> None:
        self._check()
        async with self._turn:
            if self._closing is None:
                await self._flush()
                self._raise_error()
                return
        await self.close()  # which began while this waited for its turn, and flushes as well

    @abstractmethod
    async def _flush(self) -> None:
        """Bring what was accepted to its destination."""
