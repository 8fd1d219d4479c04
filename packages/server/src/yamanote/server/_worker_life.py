"""The life of a worker, in its own loop: set up, say ready, wait until told, tear down.

Invariant: the first order to stop counts. It cancels a set-up that is under way, and from then on it is what the
`yield` returns; only `cancel` cuts the tear-down short. Orders come from other threads, and may come before there is a
loop: who gives one appends it and then looks for the loop, the worker makes its loop known and then looks for orders.
"""

from __future__ import annotations

import asyncio
from asyncio import AbstractEventLoop, CancelledError
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from signal import Signals
from typing import Any, TypeAlias, final

from yamanote.server._worker_context import WorkerContext

__all__ = ["WorkerFunction", "WorkerLife"]

WorkerFunction: TypeAlias = Callable[[AbstractEventLoop, int, Any], WorkerContext[Any]]


@final
class WorkerLife:
    """What the worker runs, and the orders that it gets."""

    loop: AbstractEventLoop | None
    """None before there is one."""
    cancelled: bool
    """Whether it was told to stop now."""

    def __init__(self, function: WorkerFunction, index: int, args: Sequence[object]) -> None:
        self._function = function
        self._index = index
        self._args = args
        self._orders: deque[Signals | None] = deque()
        self._setting_up = True
        self._interrupted = False
        self._task: asyncio.Task[Any]
        self._told: asyncio.Future[Signals]
        self.loop = None
        self.cancelled = False

    def tell(self, signum: Signals) -> None:
        """Stop, as by this signal. **Threads:** from any."""
        self._order(signum)

    def cancel(self) -> None:
        """Stop now: whatever it does is cancelled. **Threads:** from any."""
        self._order(None)

    async def run(self, ready: Callable[[], object]) -> None:
        """The whole life, in the task that this is called in. Raises what the worker raises."""
        loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        assert task is not None  # there is one wherever there is something to await
        self._task = task
        self._told = loop.create_future()
        self.loop = loop
        loop.call_soon(self._obey)
        try:
            await asyncio.sleep(0)  # for the orders that came before there was a loop
            context = self._function(loop, self._index, list(self._args))
            async with context:
                self._setting_up = False
                if not self._withdraw_interruption():
                    ready()
                context.signal = await self._told
        except CancelledError:
            if not self._setting_up or not self._withdraw_interruption() or self.cancelled:
                raise

    def _order(self, order: Signals | None) -> None:
        self._orders.append(order)
        loop = self.loop
        if loop is not None:
            with suppress(RuntimeError):  # closed: it has ended
                loop.call_soon_threadsafe(self._obey)

    def _obey(self) -> None:
        # A callback of the loop, so that the task is suspended: what is thrown into it is thrown where it waits.
        while self._orders:
            order = self._orders.popleft()
            if order is None:
                self.cancelled = True
                self._task.cancel()
            elif not self._told.done():
                self._told.set_result(order)
                if self._setting_up:
                    self._interrupted = True
                    self._task.cancel()

    def _withdraw_interruption(self) -> bool:
        """Whether the set-up was interrupted. The request is taken back, as its block has ended."""
        if self._interrupted:
            self._interrupted = False
            self._task.uncancel()
            return True
        return False
