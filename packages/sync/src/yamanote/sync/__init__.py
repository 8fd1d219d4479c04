"""Synchronise tasks and threads: locks, semaphores, events, and the engines that they are made of.

Each primitive serves tasks of any event loop (`async with`, `await`) and plain threads (`with`, `blocking_...`)
through one queue, first in, first out. None of them needs a running loop to be made.
"""

from yamanote.sync._cell import VersionedCell as VersionedCell
from yamanote.sync._cell import When as When
from yamanote.sync._errors import SemaphoreClosed as SemaphoreClosed
from yamanote.sync._event import Event as Event
from yamanote.sync._mutex import Guard as Guard
from yamanote.sync._mutex import Mutex as Mutex
from yamanote.sync._pool import PermitPool as PermitPool
from yamanote.sync._pool import Want as Want
from yamanote.sync._semaphore import Acquire as Acquire
from yamanote.sync._semaphore import Lock as Lock
from yamanote.sync._semaphore import LockStatistics as LockStatistics
from yamanote.sync._semaphore import Semaphore as Semaphore

__all__ = [
    "Acquire",
    "Event",
    "Guard",
    "Lock",
    "LockStatistics",
    "Mutex",
    "PermitPool",
    "Semaphore",
    "SemaphoreClosed",
    "VersionedCell",
    "Want",
    "When",
]
