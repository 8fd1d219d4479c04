"""What can go wrong with a lock, a semaphore or a barrier."""

from __future__ import annotations

__all__ = ["BrokenBarrier", "MutexPoisoned", "SemaphoreClosed", "WouldBlock"]


class SemaphoreClosed(Exception):
    """The semaphore was closed: it gives out no more permits."""


class WouldBlock(Exception):
    """It is not to be had now, and the caller did not want to wait. Raised by `or_raise()`."""


class MutexPoisoned(Exception):
    """A block ended with an exception, and may have left the contents of the mutex half-changed."""


class BrokenBarrier(Exception):
    """The barrier was aborted, or reset while this party waited: the round will not be complete."""
