"""Ask: what a function returns in the thread of a loop.

Invariant: the function is called once, there; or never, when whoever asks has been told that it was not.
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

    Raises TimeoutError if that has not come to it after `patience` seconds, and RuntimeError if it is closed.
    """
    claim: list[None] = [None]  # whoever takes it out calls the function, or gives up
    answers: list[T] = []
    errors: list[BaseException] = []
    answered = allocate_lock()
    answered.acquire()

    def answer() -> None:
        try:
            claim.pop()
        except IndexError:
            return
        try:
            answers.append(question())
        except BaseException as error:
            errors.append(error)
        finally:
            answered.release()

    loop.call_soon_threadsafe(answer)
    if not answered.acquire(timeout=patience):
        try:
            claim.pop()
        except IndexError:
            answered.acquire()
        else:
            raise TimeoutError(f"{loop!r} has not come to it in {patience} seconds")
    if errors:
        raise errors.pop()  # this frame must not keep it, because it will refer to this frame
    return answers.pop()
