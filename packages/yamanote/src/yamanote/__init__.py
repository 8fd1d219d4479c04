"""Tokio for Python, on asyncio: every area of Yamanote under one name.

    from yamanote import channel, run, select, spawn

A name is loaded from its area when it is first used; the areas themselves are here too (`yamanote.streams`).
Written by packages/yamanote/namespace.py: change that one, or the `__all__` of an area, and run `nox -s namespace`.
"""

from importlib import import_module as _import_module
from pkgutil import extend_path as _extend_path

# The areas are distributions of their own and may be installed in another place than this file.
__path__ = _extend_path(__path__, __name__)

TYPE_CHECKING = False  # what checkers take for true; typing itself would be the largest thing that this file loads
if TYPE_CHECKING:
    from . import channels as channels
    from . import futures as futures
    from . import runtime as runtime
    from . import server as server
    from . import sinks as sinks
    from . import streams as streams
    from . import sync as sync
    from . import threads as threads
    from . import time as time
    from .channels import ChannelClosed as ChannelClosed
    from .channels import ChannelEmpty as ChannelEmpty
    from .channels import ChannelError as ChannelError
    from .channels import ChannelFull as ChannelFull
    from .channels import ChannelStatistics as ChannelStatistics
    from .channels import HandleClosed as HandleClosed
    from .channels import Permit as Permit
    from .channels import Receiver as Receiver
    from .channels import Sender as Sender
    from .channels import UnboundedSender as UnboundedSender
    from .channels import WeakSender as WeakSender
    from .channels import channel as channel
    from .channels import channel_unbounded as channel_unbounded
    from .futures import CompletionQueue as CompletionQueue
    from .futures import TaskSet as TaskSet
    from .futures import failed_branch as failed_branch
    from .futures import gather as gather
    from .futures import join as join
    from .futures import race as race
    from .futures import select as select
    from .futures import task_set as task_set
    from .futures import try_join as try_join
    from .runtime import BUDGET as BUDGET
    from .runtime import CancelScope as CancelScope
    from .runtime import CancellationToken as CancellationToken
    from .runtime import CancellationTokenGuard as CancellationTokenGuard
    from .runtime import CriticalSection as CriticalSection
    from .runtime import JoinError as JoinError
    from .runtime import JoinHandle as JoinHandle
    from .runtime import Outcome as Outcome
    from .runtime import Selectable as Selectable
    from .runtime import TaskGroup as TaskGroup
    from .runtime import TaskWaiter as TaskWaiter
    from .runtime import ThreadWaiter as ThreadWaiter
    from .runtime import Waiter as Waiter
    from .runtime import busy_calls as busy_calls
    from .runtime import cancel_and_wait as cancel_and_wait
    from .runtime import current_token as current_token
    from .runtime import describe as describe
    from .runtime import dump as dump
    from .runtime import is_thread_parked as is_thread_parked
    from .runtime import main as main
    from .runtime import make_task as make_task
    from .runtime import map_blocking as map_blocking
    from .runtime import park as park
    from .runtime import park_thread as park_thread
    from .runtime import random_source as random_source
    from .runtime import refuse_loop_thread as refuse_loop_thread
    from .runtime import run as run
    from .runtime import scope as scope
    from .runtime import set_random_source as set_random_source
    from .runtime import spawn as spawn
    from .runtime import spawn_blocking as spawn_blocking
    from .runtime import start_task as start_task
    from .runtime import yield_now as yield_now
    from .server import Server as Server
    from .server import serve as serve
    from .sinks import FileSink as FileSink
    from .sinks import SenderSink as SenderSink
    from .sinks import Sink as Sink
    from .sinks import SinkClosed as SinkClosed
    from .sinks import drain as drain
    from .streams import Stream as Stream
    from .streams import async_stream as async_stream
    from .streams import iter as iter
    from .sync import Acquire as Acquire
    from .sync import Event as Event
    from .sync import Guard as Guard
    from .sync import Lock as Lock
    from .sync import LockStatistics as LockStatistics
    from .sync import Mutex as Mutex
    from .sync import PermitPool as PermitPool
    from .sync import Semaphore as Semaphore
    from .sync import SemaphoreClosed as SemaphoreClosed
    from .sync import VersionedCell as VersionedCell
    from .sync import Want as Want
    from .sync import When as When
    from .threads import from_thread as from_thread
    from .threads import run_in_thread_loop as run_in_thread_loop
    from .threads import to_thread as to_thread
    from .time import DeadlockError as DeadlockError
    from .time import Instant as Instant
    from .time import Interval as Interval
    from .time import MissedTickBehavior as MissedTickBehavior
    from .time import VirtualClock as VirtualClock
    from .time import instant as instant
    from .time import interval as interval
    from .time import interval_at as interval_at
    from .time import sleep as sleep
    from .time import sleep_until as sleep_until
    from .time import timeout as timeout
    from .time import timeout_at as timeout_at

_AREAS = {
    "channels",
    "futures",
    "runtime",
    "server",
    "sinks",
    "streams",
    "sync",
    "threads",
    "time",
}

# Where each name lives.
_AREA_OF = {
    "Acquire": "sync",
    "BUDGET": "runtime",
    "CancelScope": "runtime",
    "CancellationToken": "runtime",
    "CancellationTokenGuard": "runtime",
    "ChannelClosed": "channels",
    "ChannelEmpty": "channels",
    "ChannelError": "channels",
    "ChannelFull": "channels",
    "ChannelStatistics": "channels",
    "CompletionQueue": "futures",
    "CriticalSection": "runtime",
    "DeadlockError": "time",
    "Event": "sync",
    "FileSink": "sinks",
    "Guard": "sync",
    "HandleClosed": "channels",
    "Instant": "time",
    "Interval": "time",
    "JoinError": "runtime",
    "JoinHandle": "runtime",
    "Lock": "sync",
    "LockStatistics": "sync",
    "MissedTickBehavior": "time",
    "Mutex": "sync",
    "Outcome": "runtime",
    "Permit": "channels",
    "PermitPool": "sync",
    "Receiver": "channels",
    "Selectable": "runtime",
    "Semaphore": "sync",
    "SemaphoreClosed": "sync",
    "Sender": "channels",
    "SenderSink": "sinks",
    "Server": "server",
    "Sink": "sinks",
    "SinkClosed": "sinks",
    "Stream": "streams",
    "TaskGroup": "runtime",
    "TaskSet": "futures",
    "TaskWaiter": "runtime",
    "ThreadWaiter": "runtime",
    "UnboundedSender": "channels",
    "VersionedCell": "sync",
    "VirtualClock": "time",
    "Waiter": "runtime",
    "Want": "sync",
    "WeakSender": "channels",
    "When": "sync",
    "async_stream": "streams",
    "busy_calls": "runtime",
    "cancel_and_wait": "runtime",
    "channel": "channels",
    "channel_unbounded": "channels",
    "current_token": "runtime",
    "describe": "runtime",
    "drain": "sinks",
    "dump": "runtime",
    "failed_branch": "futures",
    "from_thread": "threads",
    "gather": "futures",
    "instant": "time",
    "interval": "time",
    "interval_at": "time",
    "is_thread_parked": "runtime",
    "iter": "streams",
    "join": "futures",
    "main": "runtime",
    "make_task": "runtime",
    "map_blocking": "runtime",
    "park": "runtime",
    "park_thread": "runtime",
    "race": "futures",
    "random_source": "runtime",
    "refuse_loop_thread": "runtime",
    "run": "runtime",
    "run_in_thread_loop": "threads",
    "scope": "runtime",
    "select": "futures",
    "serve": "server",
    "set_random_source": "runtime",
    "sleep": "time",
    "sleep_until": "time",
    "spawn": "runtime",
    "spawn_blocking": "runtime",
    "start_task": "runtime",
    "task_set": "futures",
    "timeout": "time",
    "timeout_at": "time",
    "to_thread": "threads",
    "try_join": "futures",
    "yield_now": "runtime",
}

# Without the areas and without the names of builtins: `import *` takes neither `time` nor `map` from anybody.
__all__ = [
    "Acquire",
    "BUDGET",
    "CancelScope",
    "CancellationToken",
    "CancellationTokenGuard",
    "ChannelClosed",
    "ChannelEmpty",
    "ChannelError",
    "ChannelFull",
    "ChannelStatistics",
    "CompletionQueue",
    "CriticalSection",
    "DeadlockError",
    "Event",
    "FileSink",
    "Guard",
    "HandleClosed",
    "Instant",
    "Interval",
    "JoinError",
    "JoinHandle",
    "Lock",
    "LockStatistics",
    "MissedTickBehavior",
    "Mutex",
    "Outcome",
    "Permit",
    "PermitPool",
    "Receiver",
    "Selectable",
    "Semaphore",
    "SemaphoreClosed",
    "Sender",
    "SenderSink",
    "Server",
    "Sink",
    "SinkClosed",
    "Stream",
    "TaskGroup",
    "TaskSet",
    "TaskWaiter",
    "ThreadWaiter",
    "UnboundedSender",
    "VersionedCell",
    "VirtualClock",
    "Waiter",
    "Want",
    "WeakSender",
    "When",
    "async_stream",
    "busy_calls",
    "cancel_and_wait",
    "channel",
    "channel_unbounded",
    "current_token",
    "describe",
    "drain",
    "dump",
    "failed_branch",
    "from_thread",
    "gather",
    "instant",
    "interval",
    "interval_at",
    "is_thread_parked",
    "join",
    "main",
    "make_task",
    "map_blocking",
    "park",
    "park_thread",
    "race",
    "random_source",
    "refuse_loop_thread",
    "run",
    "run_in_thread_loop",
    "scope",
    "select",
    "serve",
    "set_random_source",
    "sleep",
    "sleep_until",
    "spawn",
    "spawn_blocking",
    "start_task",
    "task_set",
    "timeout",
    "timeout_at",
    "to_thread",
    "try_join",
    "yield_now",
]

if not TYPE_CHECKING:  # a checker that saw this would let every misspelt name pass

    def __getattr__(name: str) -> object:
        if name in _AREAS:
            return _import_module(f"yamanote.{name}")
        if name not in _AREA_OF:
            raise AttributeError(f"module 'yamanote' has no attribute {name!r}")
        value = getattr(_import_module(f"yamanote.{_AREA_OF[name]}"), name)
        globals()[name] = value  # from now on an ordinary attribute
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_AREA_OF, *_AREAS})
