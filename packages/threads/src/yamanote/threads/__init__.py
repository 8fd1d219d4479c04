"""Cross between threads and event loops, in either direction.

`to_thread` runs a blocking function beside the loop, and `from_thread` calls back from there; a `Portal` opens a loop
to any thread. `run_in_thread_loop` gives an awaitable an event loop of its own in a thread of its own, and
`ThreadTaskGroup` a whole group. `ThreadsafeState` and `threadsafe_aiter` are for what both sides look at. Cancellation
and context variables travel along.
"""

from yamanote.threads._across import ThreadsafeIterator as ThreadsafeIterator
from yamanote.threads._across import threadsafe_aiter as threadsafe_aiter
from yamanote.threads._generator import ThreadsafeGenerator as ThreadsafeGenerator
from yamanote.threads._generator import threadsafe_agen as threadsafe_agen
from yamanote.threads._locks import ThreadsafeCondition as ThreadsafeCondition
from yamanote.threads._locks import ThreadsafeLock as ThreadsafeLock
from yamanote.threads._loop_thread import launch_in_thread_loop as launch_in_thread_loop
from yamanote.threads._loop_thread import run_in_thread_loop as run_in_thread_loop
from yamanote.threads._portal import Portal as Portal
from yamanote.threads._state import ThreadsafeState as ThreadsafeState
from yamanote.threads._state import Until as Until
from yamanote.threads._thread_block import run_in_thread_loop_contextualized as run_in_thread_loop_contextualized
from yamanote.threads._thread_group import ThreadTaskGroup as ThreadTaskGroup
from yamanote.threads._worker import from_thread as from_thread
from yamanote.threads._worker import to_thread as to_thread

__all__ = [
    "Portal",
    "ThreadTaskGroup",
    "ThreadsafeCondition",
    "ThreadsafeGenerator",
    "ThreadsafeIterator",
    "ThreadsafeLock",
    "ThreadsafeState",
    "Until",
    "from_thread",
    "launch_in_thread_loop",
    "run_in_thread_loop",
    "run_in_thread_loop_contextualized",
    "threadsafe_agen",
    "threadsafe_aiter",
    "to_thread",
]
