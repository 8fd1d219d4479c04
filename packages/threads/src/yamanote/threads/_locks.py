"""The lock and the condition of `yamanote.sync`, under the names that people look for.

Invariant: they are the same classes. A lock for tasks that is no lock for threads does not exist here.
"""

from yamanote.sync import Condition as ThreadsafeCondition
from yamanote.sync import Lock as ThreadsafeLock

__all__ = ["ThreadsafeCondition", "ThreadsafeLock"]
