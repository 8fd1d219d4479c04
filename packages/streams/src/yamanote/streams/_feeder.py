"""Feeder: one task that pulls a source on behalf of an operator which waits for other things as well.

Invariant: the task pulls while its operator wants more, and at most finishes the pull that it is in; what that gives
goes to the operator, whoever has been cancelled in the meantime. Once it has been asked to stop it pulls no more, even
if the source took no notice. All pulls of a source, and its closing, are made by
the same task, so time limits and scopes inside an async generator stay within one task.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from yamanote.streams._pipeline import Pipeline

__all__ = ["Feeder"]


class Feeder:
    """Pulls `source`, gives each item to `accept`, which says whether it wants another, and at last calls `ended`."""

    __slots__ = ("_accept", "_ended", "_source", "_wanted")

    def __init__(
        self,
        source: Pipeline[Any],
        accept: Callable[[Any], bool],
        ended: Callable[[BaseException | None], object],
    ) -> None:
        self._source = source
        self._accept = accept
        self._ended = ended
        self._wanted: asyncio.Future[None] | None = None

    def want(self) -> None:
        """Go on, if the last item was enough."""
        if self._wanted is not None and not self._wanted.done():
            self._wanted.set_result(None)

    async def run(self) -> None:
        """For one task, which its owner starts, and cancels to close."""
        failure: BaseException | None = None
        task: Any = asyncio.current_task()
        try:
            while True:
                try:
                    item = await self._source.pull()
                except StopAsyncIteration:
                    break
                wants_more = self._accept(item)
                if task.cancelling():
                    raise asyncio.CancelledError
                if not wants_more:
                    self._wanted = asyncio.get_running_loop().create_future()
                    await self._wanted
        except Exception as error:
            failure = error
        except asyncio.CancelledError as error:
            failure = error  # if it was not our owner who cancelled: a stream that was cut short has not ended
        try:
            await self._source.close()
        except Exception as error:
            if failure is None:
                failure = error
            elif failure is not error:
                asyncio.get_running_loop().call_exception_handler(
                    {"message": f"closing {self._source} failed", "exception": error}
                )
        finally:
            self._ended(failure)
        if isinstance(failure, asyncio.CancelledError):
            try:
                raise failure
            finally:
                del failure
