"""A cancellation whose place an error has taken, and which must not be lost for that."""

from __future__ import annotations

import asyncio
from typing import Any

__all__ = ["request_again"]


def request_again(task: asyncio.Task[Any], requests: int) -> None:
    """Cancel the running `task` once more, at its next await: a block in it raises an error instead of CancelledError.

    Not if whoever asked has taken that back by then, as a timeout around the block does: there have to be more than
    these `requests`, which there were before the block. They stay as many.
    """
    # In a callback, as on 3.11 and 3.12 nothing takes back what has been asked of a running task.
    task.get_loop().call_soon(_request_again_now, task, requests)


def _request_again_now(task: asyncio.Task[Any], requests: int) -> None:
    if task.cancelling() > requests and not task.done():
        task.uncancel()
        task.cancel()
