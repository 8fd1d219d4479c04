"""Synchronise tasks and threads: locks, semaphores, events, and the engines that they are made of.

Each primitive serves tasks of any event loop (`async with`, `await`) and plain threads (`with`, `blocking_...`)
through one queue, first in, first out. None of them needs a running loop to be made.
"""

from yamanote.sync._acquirable import Acquiring as Acquiring
from yamanote.sync._acquirable import Held as Held
from yamanote.sync._acquirable import LockStatistics as LockStatistics
from yamanote.sync._barrier import Barrier as Barrier
from yamanote.sync._button import Button as Button
from yamanote.sync._button import Cargo as Cargo
from yamanote.sync._cell import VersionedCell as VersionedCell
from yamanote.sync._cell import WaitStatistics as WaitStatistics
from yamanote.sync._cell import When as When
from yamanote.sync._condition import Condition as Condition
from yamanote.sync._condition import ConditionStatistics as ConditionStatistics
from yamanote.sync._errors import BrokenBarrier as BrokenBarrier
from yamanote.sync._errors import MutexPoisoned as MutexPoisoned
from yamanote.sync._errors import SemaphoreClosed as SemaphoreClosed
from yamanote.sync._errors import WouldBlock as WouldBlock
from yamanote.sync._event import Event as Event
from yamanote.sync._future_state import FutureState as FutureState
from yamanote.sync._keyed import KeyedLock as KeyedLock
from yamanote.sync._keyed import KeyedLockStatistics as KeyedLockStatistics
from yamanote.sync._keyed import KeyLock as KeyLock
from yamanote.sync._latch import Latch as Latch
from yamanote.sync._lock import Lock as Lock
from yamanote.sync._mutex import Guard as Guard
from yamanote.sync._mutex import Locking as Locking
from yamanote.sync._mutex import Mutex as Mutex
from yamanote.sync._nestable import NestableLock as NestableLock
from yamanote.sync._notify import Notified as Notified
from yamanote.sync._notify import Notify as Notify
from yamanote.sync._once_cell import OnceCell as OnceCell
from yamanote.sync._pool import PermitPool as PermitPool
from yamanote.sync._pool import Want as Want
from yamanote.sync._rwlock import ReadLock as ReadLock
from yamanote.sync._rwlock import RwLock as RwLock
from yamanote.sync._rwlock import RwLockStatistics as RwLockStatistics
from yamanote.sync._rwlock import WriteLock as WriteLock
from yamanote.sync._semaphore import Acquire as Acquire
from yamanote.sync._semaphore import BoundedSemaphore as BoundedSemaphore
from yamanote.sync._semaphore import Semaphore as Semaphore
from yamanote.sync._set_once import AlreadySet as AlreadySet
from yamanote.sync._set_once import SetOnce as SetOnce

__all__ = [
    "Acquire",
    "Acquiring",
    "AlreadySet",
    "Barrier",
    "BoundedSemaphore",
    "BrokenBarrier",
    "Button",
    "Cargo",
    "Condition",
    "ConditionStatistics",
    "Event",
    "FutureState",
    "Guard",
    "Held",
    "KeyLock",
    "KeyedLock",
    "KeyedLockStatistics",
    "Latch",
    "Lock",
    "LockStatistics",
    "Locking",
    "Mutex",
    "MutexPoisoned",
    "NestableLock",
    "Notified",
    "Notify",
    "OnceCell",
    "PermitPool",
    "ReadLock",
    "RwLock",
    "RwLockStatistics",
    "Semaphore",
    "SemaphoreClosed",
    "SetOnce",
    "VersionedCell",
    "WaitStatistics",
    "Want",
    "When",
    "WouldBlock",
    "WriteLock",
]
