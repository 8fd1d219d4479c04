"""Thrown away: what GeneratorExit means to an `async with`.

Invariant: a coroutine that is closed or dropped cannot wait any more, and what it leaves behind is asked to stop. An
async generator that is closed can wait: what it leaves is closed, and waited for. If waiting is refused all the same,
what is left is asked to stop then.
"""

from __future__ import annotations

import inspect
from types import TracebackType
from typing import Any

from yamanote.streams._pipeline import Pipeline

__all__ = ["close_or_abandon", "is_thrown_away"]


def is_thrown_away(traceback: TracebackType | None) -> bool:
    """Whether who is left by the GeneratorExit of this `traceback` cannot wait.

    It tells where the exception began: an async generator that is closed gets it where it has yielded, and a coroutine
    where it waits. It stays the same one on its way through context managers that are async generators themselves.
    """
    if traceback is None:
        return True
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
    return not traceback.tb_frame.f_code.co_flags & inspect.CO_ASYNC_GENERATOR


async def close_or_abandon(pipeline: Pipeline[Any], traceback: TracebackType | None) -> None:
    """End `pipeline`, for an `async with` that GeneratorExit leaves."""
    if is_thrown_away(traceback):
        pipeline.abandon()
        return
    try:
        await pipeline.close()
    except GeneratorExit:  # waiting was refused
        pipeline.abandon()
        raise
