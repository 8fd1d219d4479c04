"""Visit: the one task that is in a source, to pull it or to close it.

Invariant: who wants to close a source while another task pulls it asks that one to leave, once, and waits until it has
left. The request is a cancellation, which is taken back when the task leaves: its `cancelling()` is what it was before,
and a request of somebody else goes on. A task that closes is waited for, and not asked.
"""

from __future__ import annotations

import asyncio
from typing import Any, NoReturn

__all__ = ["Visit"]


class Visit:
    """Who is there, if anybody."""

    __slots__ = ("_asked", "cancelling", "closes", "left", "task")

    def __init__(self) -> None:
        self.task: asyncio.Task[Any] | None = None
        self.closes = False
        """Whether the task is closing, and better left alone."""
        self.cancelling = 0
        """How many requests to cancel the task there were when it came."""
        self._asked = False
        self.left: asyncio.Future[None] | None = None
        """If somebody waits for it: set when the task has left."""

    def begin(self, source: object) -> None:
        """The current task comes."""
        if self.task is not None:
            self.refuse(source)
        self.task = task = asyncio.current_task()
        if task is not None:
            self.cancelling = task.cancelling()

    def refuse(self, source: object) -> NoReturn:
        """Somebody is there, and another task has come."""
        raise RuntimeError(f"{source} is being pulled by another task already")

    def end(self) -> None:
        """The task leaves."""
        if self.left is not None:
            self.take_back()
            self.left.set_result(None)
            self.left = None
        self.task = None

    def take_back(self) -> bool:
        """For a task with a CancelledError: whether it was asked to leave, and nobody else wants to cancel it."""
        task = self.task
        if not self._asked or task is None:
            return False
        self._asked = False
        others = task.uncancel() - self.cancelling
        # One that was made in this very step is still to be raised, at the next await.
        return others <= 0 or (others == 1 and getattr(task, "_must_cancel", False))

    async def wait_for_others(self) -> None:
        """Wait until nobody is there, or only the current task.

        **Cancel safety**: at once. Who has been asked leaves all the same.
        """
        while self.task is not None and self.task is not asyncio.current_task():
            if not self.closes and not self._asked:
                self.task.cancel()
                self._asked = True
            if self.left is None:
                self.left = asyncio.get_running_loop().create_future()
            await asyncio.wait([self.left])
