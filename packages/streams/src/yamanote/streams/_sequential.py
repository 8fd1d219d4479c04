"""Sequential: an operator that makes its items one after another, in the task that pulls.

Invariant: one task at a time makes an item; another one that pulls meanwhile is refused, and changes nothing. The first
error and the end close everything, and what comes after them is the end.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, TypeVar

from yamanote.streams._operator import Operator
from yamanote.streams._pipeline import Pipeline

__all__ = ["Sequential"]

T_co = TypeVar("T_co", covariant=True)


class Sequential(Operator[T_co]):
    """Waits for its sources only."""

    __slots__ = ("_pulled", "waits")

    def __init__(self, *sources: Pipeline[Any]) -> None:
        super().__init__(*sources)
        self.waits = any(source.waits for source in sources)
        self._pulled = False

    @abstractmethod
    async def _next(self) -> T_co:
        """Make an item, or raise the end or an error. If it is cancelled, it is called again."""

    async def pull(self) -> T_co:
        if self._over:
            await self._finish()
        if self._pulled:
            raise RuntimeError(f"{self} is being pulled by another task already")
        self._pulled = True
        try:
            item = await self._next()
            if not self._over:
                return item
        except StopAsyncIteration:
            await self._end()
        except Exception as error:
            await self._end(error)
        finally:
            self._pulled = False
        self.raise_end()
