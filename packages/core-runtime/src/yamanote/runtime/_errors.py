"""The errors of a clean-up that goes on whatever fails.

Invariant: every error that is added is raised at the end, once, unless somebody suppressed it: a single one as it is,
several in one ExceptionGroup, in the order in which they came. A cancellation is raised when there is no error. When an
error takes its place, it is raised again at the next await, unless whoever asked for it has taken it back by then.
"""

from __future__ import annotations

import asyncio
from asyncio import CancelledError, _get_running_loop
from typing import Any

from yamanote.runtime._task import request_again

__all__ = ["Errors"]


class Errors:
    """What has gone wrong so far.

    `label` is the message of the group; with `always_group` even one error is raised in it, except that of the block.
    """

    __slots__ = ("_always_group", "_cancelled", "_dealt_with", "_errors", "_label", "_requests", "_task", "pending")

    pending: BaseException | None
    """What would be raised now."""

    def __init__(self, label: str, *, always_group: bool = False) -> None:
        self._label = label
        self._always_group = always_group
        self._errors: list[BaseException] = []
        self._cancelled: BaseException | None = None
        self.pending = None
        self._task: asyncio.Task[Any] | None = None if _get_running_loop() is None else asyncio.current_task()
        self._requests = 0 if self._task is None else self._task.cancelling()
        # How many there were when the block ended in another way: what it made of them is its own business.
        self._dealt_with = self._requests

    def start_with(self, error: BaseException | None) -> None:
        """Note how the block itself ended, which is cleaned up after."""
        if isinstance(error, CancelledError):
            self._cancelled = error
        else:
            if error is not None:
                self._errors.append(error)
            if self._task is not None:
                self._dealt_with = self._task.cancelling()
        self.pending = error

    def add(self, error: BaseException) -> None:
        """Note what a part of the clean-up raised. That it let go on what is pending changes nothing."""
        if error is self.pending or any(error is known for known in self._errors):
            return
        if isinstance(error, CancelledError):
            self._cancelled = error
            if not self._errors:
                self.pending = error
            return
        if self.pending is not None and _stands_for(error, self.pending):
            self._errors.clear()
        self._errors.append(error)
        self.pending = self._choose()

    def suppress(self) -> None:
        """Forget what is pending: somebody has dealt with it."""
        self._errors.clear()
        self._cancelled = self.pending = None

    def settle(self, error: BaseException | None) -> bool:
        """End an `__exit__` that saw `error`: raise what takes its place, or return whether it was suppressed."""
        if self.pending is not error:
            self.raise_pending()
            return True
        self._cancel_again()
        self.suppress()
        return False

    def raise_pending(self) -> None:
        """Raise what is pending, if anything is."""
        error = self.pending
        if error is None:
            return
        self._cancel_again()
        ours = not any(error is known for known in (*self._errors, self._cancelled))
        self.suppress()
        try:
            if ours:
                raise error from None
            raise error
        finally:
            del error  # it refers to this frame

    def is_cancelled(self) -> bool:
        """Whether the task has been cancelled meanwhile, and nobody has taken that back."""
        return self._task is not None and self._task.cancelling() > self._known()

    def _known(self) -> int:
        return self._dealt_with if self._cancelled is None else self._requests

    def _cancel_again(self) -> None:
        """A cancellation whose place an error takes is not lost."""
        if self._errors and self._task is not None and self.is_cancelled():
            request_again(self._task, self._known())

    def _choose(self) -> BaseException:
        for error in self._errors:
            if isinstance(error, (KeyboardInterrupt, SystemExit, GeneratorExit)):
                return error  # whoever catches these looks for them, not for groups
        if len(self._errors) == 1 and not self._always_group:
            return self._errors[0]
        return BaseExceptionGroup(self._label, self._errors)


def _stands_for(error: BaseException, earlier: BaseException) -> bool:
    """Whether `error` tells of `earlier` itself: it was raised from it, or is a group with it."""
    if error.__cause__ is earlier:
        return True
    return isinstance(error, BaseExceptionGroup) and error.subgroup(lambda each: each is earlier) is not None
