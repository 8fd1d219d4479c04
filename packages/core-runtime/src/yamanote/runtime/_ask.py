"""Ask: what a function returns in the thread of a loop.

Invariant: the function is called once, there, unless the loop is closed first; whoever asks waits for a bounded time.
"""

from __future__ import annotations

from _thread import allocate_lock
from asyncio import AbstractEventLoop
from collections.abc import Callable
from typing import TypeVar

__all__ = ["ask"]

T = TypeVar("T")

_PATIENCE = 1.0
"""Seconds in which a loop that is not blocked comes to it by far."""


def ask(loop: AbstractEventLoop, question: Callable[[], T], patience: float = _PATIENCE) -> T:
    """What `question` returns, or raises, in the thread of `loop`, which must be another one.

    Raises TimeoutError if it has not been called after `patience` seconds, and RuntimeError if the loop is closed.
    """
    answers: list[T] = []
    errors: list[Exception] = []
    answered = allocate_lock()
    answered.acquire()

    def answer() -> None:
        try:
            answers.append(question())
        except Exception as error:
            errors.append(error)
        finally:
            answered.release()

    loop.call_soon_threadsafe(answer)
    answered.acquire(timeout=patience)
    if errors:
        raise errors.pop()  # this frame must not keep it, because it will refer to this frame
    if not answers:
        raise TimeoutError(f"{loop!r} has not come to it in {patience} seconds")
    return answers.pop()
