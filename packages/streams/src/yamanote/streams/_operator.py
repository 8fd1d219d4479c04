"""Operator: a pipeline over other pipelines, which it owns."""

from __future__ import annotations

import asyncio
from typing import Any, NoReturn, TypeVar

from yamanote.streams._pipeline import Pipeline

__all__ = ["Operator", "begun_elsewhere", "close_all"]

T_co = TypeVar("T_co", covariant=True)


class Operator(Pipeline[T_co]):
    """Closes its sources when it is over, and asks them to stop when it is dropped."""

    __slots__ = ("_closed", "_over", "_sources")

    def __init__(self, *sources: Pipeline[Any]) -> None:
        self._sources = sources
        self._closed: tuple[Pipeline[Any], ...] | None = None
        """The sources that need not be closed again: among nested operators each would ask all those below."""
        self._over = False
        self._error = None

    async def _finish(self) -> NoReturn:
        """Raise what ended this, and then the end, when all is closed: a pull that was cancelled had not got so far."""
        await self._end(self._error)
        self.raise_end()

    async def _close(self) -> None:
        self._over = True
        sources = self._sources
        if self._closed is not sources:
            await close_all(*sources)
            self._closed = sources

    @property
    def leftover(self) -> str | None:
        for source in self._sources:
            if source.leftover is not None:
                return source.leftover
        return None

    def abandon(self) -> None:
        for source in self._sources:
            source.abandon()


async def close_all(*pipelines: Pipeline[Any]) -> None:
    """Close each, also when closing another one fails, and also when this is cancelled meanwhile.

    Raises the first error, a cancellation before any other; the further ones go to the handler of the loop.
    """
    failure: BaseException | None = None
    try:
        for pipeline in pipelines:
            try:
                await pipeline.close()
            except (Exception, asyncio.CancelledError) as error:
                further: BaseException | None = error
                if failure is None or (
                    isinstance(error, asyncio.CancelledError) and not isinstance(failure, asyncio.CancelledError)
                ):
                    failure, further = error, failure
                if isinstance(further, Exception):
                    asyncio.get_running_loop().call_exception_handler(
                        {"message": f"closing {pipeline} failed as well", "exception": further}
                    )
        if failure is not None:
            raise failure
    finally:
        failure = None


def begun_elsewhere(pipeline: Pipeline[Any]) -> RuntimeError:
    """The error for who pulls `pipeline` on another loop than the one that has its tasks."""
    return RuntimeError(f"{pipeline} has begun on another event loop, and belongs to it")
