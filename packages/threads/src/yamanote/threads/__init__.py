"""Cross between threads and event loops, in either direction.

`to_thread` runs a blocking function beside the loop, and `from_thread` calls back from there; `run_in_thread_loop`
gives an awaitable an event loop of its own in a thread of its own. Cancellation and context variables travel along.
"""

from yamanote.threads._loop_thread import run_in_thread_loop as run_in_thread_loop
from yamanote.threads._worker import from_thread as from_thread
from yamanote.threads._worker import to_thread as to_thread

__all__ = ["from_thread", "run_in_thread_loop", "to_thread"]
