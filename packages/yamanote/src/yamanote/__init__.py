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
    from . import net as net
    from . import runtime as runtime
    from . import server as server
    from . import sinks as sinks
    from . import streams as streams
    from . import sync as sync
    from . import threads as threads
    from . import time as time
    from .channels import BroadcastReceiver as BroadcastReceiver
    from .channels import BroadcastSender as BroadcastSender
    from .channels import BroadcastStatistics as BroadcastStatistics
    from .channels import BytesReceiver as BytesReceiver
    from .channels import BytesSender as BytesSender
    from .channels import ChannelClosed as ChannelClosed
    from .channels import ChannelEmpty as ChannelEmpty
    from .channels import ChannelError as ChannelError
    from .channels import ChannelFull as ChannelFull
    from .channels import ChannelStatistics as ChannelStatistics
    from .channels import HandleClosed as HandleClosed
    from .channels import IncompleteRead as IncompleteRead
    from .channels import Lagged as Lagged
    from .channels import OneshotReceiver as OneshotReceiver
    from .channels import OneshotSender as OneshotSender
    from .channels import Permit as Permit
    from .channels import Receiver as Receiver
    from .channels import Sender as Sender
    from .channels import UnboundedSender as UnboundedSender
    from .channels import WatchReceiver as WatchReceiver
    from .channels import WatchSender as WatchSender
    from .channels import WeakSender as WeakSender
    from .channels import broadcast as broadcast
    from .channels import channel as channel
    from .channels import channel_unbounded as channel_unbounded
    from .channels import oneshot_channel as oneshot_channel
    from .channels import spsc_buffer as spsc_buffer
    from .channels import unbounded as unbounded
    from .channels import watch as watch
    from .futures import CompletionQueue as CompletionQueue
    from .futures import Completions as Completions
    from .futures import SingleFlight as SingleFlight
    from .futures import TaskSet as TaskSet
    from .futures import amass as amass
    from .futures import as_completed_safe as as_completed_safe
    from .futures import blocking_select as blocking_select
    from .futures import failed_branch as failed_branch
    from .futures import gather as gather
    from .futures import gather_safe as gather_safe
    from .futures import join as join
    from .futures import lazy as lazy
    from .futures import race as race
    from .futures import race_ok as race_ok
    from .futures import ready as ready
    from .futures import select as select
    from .futures import shared as shared
    from .futures import single_flight as single_flight
    from .futures import task_set as task_set
    from .futures import try_join as try_join
    from .runtime import AsyncContextGroup as AsyncContextGroup
    from .runtime import AsyncDefer as AsyncDefer
    from .runtime import BUDGET as BUDGET
    from .runtime import BlockingPool as BlockingPool
    from .runtime import BlockingPoolStatistics as BlockingPoolStatistics
    from .runtime import CallSite as CallSite
    from .runtime import CancelScope as CancelScope
    from .runtime import CancellationToken as CancellationToken
    from .runtime import CancellationTokenGuard as CancellationTokenGuard
    from .runtime import Clock as Clock
    from .runtime import CoroState as CoroState
    from .runtime import CriticalSection as CriticalSection
    from .runtime import Defer as Defer
    from .runtime import Errand as Errand
    from .runtime import EventLoop as EventLoop
    from .runtime import GuaranteedTask as GuaranteedTask
    from .runtime import Handle as Handle
    from .runtime import JoinError as JoinError
    from .runtime import JoinHandle as JoinHandle
    from .runtime import JoinMap as JoinMap
    from .runtime import JoinSet as JoinSet
    from .runtime import LoopStatistics as LoopStatistics
    from .runtime import Outcome as Outcome
    from .runtime import PersistentTaskGroup as PersistentTaskGroup
    from .runtime import Runtime as Runtime
    from .runtime import RuntimeMetrics as RuntimeMetrics
    from .runtime import SchedulingEventLoopPolicy as SchedulingEventLoopPolicy
    from .runtime import SchedulingMixin as SchedulingMixin
    from .runtime import SchedulingProactorEventLoop as SchedulingProactorEventLoop
    from .runtime import SchedulingSelectorEventLoop as SchedulingSelectorEventLoop
    from .runtime import Selectable as Selectable
    from .runtime import Shared as Shared
    from .runtime import SignalListener as SignalListener
    from .runtime import SignalScope as SignalScope
    from .runtime import Started as Started
    from .runtime import Supervisor as Supervisor
    from .runtime import TaskGroup as TaskGroup
    from .runtime import TaskScope as TaskScope
    from .runtime import TaskTracker as TaskTracker
    from .runtime import TaskTrackerToken as TaskTrackerToken
    from .runtime import TaskWaiter as TaskWaiter
    from .runtime import ThreadWaiter as ThreadWaiter
    from .runtime import Waiter as Waiter
    from .runtime import aclosing as aclosing
    from .runtime import actxgroup as actxgroup
    from .runtime import actxmgr as actxmgr
    from .runtime import adefer as adefer
    from .runtime import aiter as aiter
    from .runtime import apartial as apartial
    from .runtime import async_eager as async_eager
    from .runtime import blocked_tasks as blocked_tasks
    from .runtime import busy_calls as busy_calls
    from .runtime import call_site as call_site
    from .runtime import cancel_and_wait as cancel_and_wait
    from .runtime import cancel_task as cancel_task
    from .runtime import checkpoint as checkpoint
    from .runtime import concurrent_contexts as concurrent_contexts
    from .runtime import contextualize as contextualize
    from .runtime import cooperative as cooperative
    from .runtime import coro_as_future as coro_as_future
    from .runtime import coro_continue as coro_continue
    from .runtime import coro_eager as coro_eager
    from .runtime import coro_is_blocked as coro_is_blocked
    from .runtime import coro_start as coro_start
    from .runtime import create_task_descend as create_task_descend
    from .runtime import current_deadline as current_deadline
    from .runtime import current_token as current_token
    from .runtime import defer as defer
    from .runtime import describe as describe
    from .runtime import dump as dump
    from .runtime import dump_all as dump_all
    from .runtime import dump_on_signal as dump_on_signal
    from .runtime import eager as eager
    from .runtime import event_loop_policy as event_loop_policy
    from .runtime import finish_within as finish_within
    from .runtime import handle_signal as handle_signal
    from .runtime import is_thread_parked as is_thread_parked
    from .runtime import lru_cache as lru_cache
    from .runtime import main as main
    from .runtime import make_task as make_task
    from .runtime import map as map
    from .runtime import map_blocking as map_blocking
    from .runtime import metrics as metrics
    from .runtime import move_on_after as move_on_after
    from .runtime import park as park
    from .runtime import park_thread as park_thread
    from .runtime import prime as prime
    from .runtime import primed as primed
    from .runtime import random_source as random_source
    from .runtime import record_spawn_sites as record_spawn_sites
    from .runtime import refuse_loop_thread as refuse_loop_thread
    from .runtime import remaining as remaining
    from .runtime import request_again as request_again
    from .runtime import require_function as require_function
    from .runtime import run as run
    from .runtime import run_errand as run_errand
    from .runtime import runnable_tasks as runnable_tasks
    from .runtime import scope as scope
    from .runtime import set_random_source as set_random_source
    from .runtime import shield as shield
    from .runtime import shield_wait as shield_wait
    from .runtime import signals as signals
    from .runtime import sleep_insert as sleep_insert
    from .runtime import spawn as spawn
    from .runtime import spawn_blocking as spawn_blocking
    from .runtime import start_task as start_task
    from .runtime import suppress as suppress
    from .runtime import task_reinsert as task_reinsert
    from .runtime import use_scope as use_scope
    from .runtime import volatile_task_group as volatile_task_group
    from .runtime import wait_for_signal as wait_for_signal
    from .runtime import yield_now as yield_now
    from .server import Child as Child
    from .server import ChildStartError as ChildStartError
    from .server import Connection as Connection
    from .server import Health as Health
    from .server import HealthPart as HealthPart
    from .server import HealthState as HealthState
    from .server import Listener as Listener
    from .server import MainContext as MainContext
    from .server import PartState as PartState
    from .server import RuntimeCollector as RuntimeCollector
    from .server import Server as Server
    from .server import Shutdown as Shutdown
    from .server import Subsystem as Subsystem
    from .server import SupervisedTask as SupervisedTask
    from .server import SupervisorError as SupervisorError
    from .server import WorkerContext as WorkerContext
    from .server import WorkerError as WorkerError
    from .server import afork as afork
    from .server import listen as listen
    from .server import probes as probes
    from .server import serve as serve
    from .server import start_server as start_server
    from .sinks import FileSink as FileSink
    from .sinks import SenderSink as SenderSink
    from .sinks import Sink as Sink
    from .sinks import SinkClosed as SinkClosed
    from .sinks import WriterSink as WriterSink
    from .sinks import drain as drain
    from .sinks import from_function as from_function
    from .streams import Codec as Codec
    from .streams import Decoder as Decoder
    from .streams import DelimiterCodec as DelimiterCodec
    from .streams import Encoder as Encoder
    from .streams import FrameTooLong as FrameTooLong
    from .streams import IncompleteFrame as IncompleteFrame
    from .streams import LengthCodec as LengthCodec
    from .streams import LinesCodec as LinesCodec
    from .streams import PeekableStream as PeekableStream
    from .streams import SharedStream as SharedStream
    from .streams import Stream as Stream
    from .streams import StreamMap as StreamMap
    from .streams import async_stream as async_stream
    from .streams import buffer_aiter as buffer_aiter
    from .streams import collect as collect
    from .streams import empty as empty
    from .streams import ensure_aiter as ensure_aiter
    from .streams import iter as iter
    from .streams import map_concurrently as map_concurrently
    from .streams import merge as merge
    from .streams import once as once
    from .streams import read_chunks as read_chunks
    from .streams import read_file as read_file
    from .streams import reduce as reduce
    from .streams import repeat as repeat
    from .streams import repeat_with as repeat_with
    from .streams import unfold as unfold
    from .streams import zip_concurrently as zip_concurrently
    from .sync import Acquire as Acquire
    from .sync import Acquiring as Acquiring
    from .sync import AlreadySet as AlreadySet
    from .sync import Barrier as Barrier
    from .sync import BoundedSemaphore as BoundedSemaphore
    from .sync import BrokenBarrier as BrokenBarrier
    from .sync import Button as Button
    from .sync import Cargo as Cargo
    from .sync import Condition as Condition
    from .sync import ConditionStatistics as ConditionStatistics
    from .sync import Event as Event
    from .sync import FutureState as FutureState
    from .sync import Guard as Guard
    from .sync import Held as Held
    from .sync import KeyLock as KeyLock
    from .sync import KeyedLock as KeyedLock
    from .sync import KeyedLockStatistics as KeyedLockStatistics
    from .sync import Latch as Latch
    from .sync import Lock as Lock
    from .sync import LockStatistics as LockStatistics
    from .sync import Locking as Locking
    from .sync import Mutex as Mutex
    from .sync import MutexPoisoned as MutexPoisoned
    from .sync import NestableLock as NestableLock
    from .sync import Notified as Notified
    from .sync import Notify as Notify
    from .sync import OnceCell as OnceCell
    from .sync import PermitPool as PermitPool
    from .sync import ReadLock as ReadLock
    from .sync import RwLock as RwLock
    from .sync import RwLockStatistics as RwLockStatistics
    from .sync import Semaphore as Semaphore
    from .sync import SemaphoreClosed as SemaphoreClosed
    from .sync import SetOnce as SetOnce
    from .sync import VersionedCell as VersionedCell
    from .sync import WaitStatistics as WaitStatistics
    from .sync import Want as Want
    from .sync import When as When
    from .sync import WouldBlock as WouldBlock
    from .sync import WriteLock as WriteLock
    from .threads import Portal as Portal
    from .threads import ThreadTaskGroup as ThreadTaskGroup
    from .threads import ThreadsafeCondition as ThreadsafeCondition
    from .threads import ThreadsafeGenerator as ThreadsafeGenerator
    from .threads import ThreadsafeIterator as ThreadsafeIterator
    from .threads import ThreadsafeLock as ThreadsafeLock
    from .threads import ThreadsafeState as ThreadsafeState
    from .threads import Until as Until
    from .threads import from_thread as from_thread
    from .threads import launch_in_thread_loop as launch_in_thread_loop
    from .threads import run_in_thread_loop as run_in_thread_loop
    from .threads import run_in_thread_loop_contextualized as run_in_thread_loop_contextualized
    from .threads import threadsafe_agen as threadsafe_agen
    from .threads import threadsafe_aiter as threadsafe_aiter
    from .threads import to_thread as to_thread
    from .time import DeadlockError as DeadlockError
    from .time import DelayQueue as DelayQueue
    from .time import DelayQueueClosed as DelayQueueClosed
    from .time import Delayed as Delayed
    from .time import Instant as Instant
    from .time import Interval as Interval
    from .time import MissedTickBehavior as MissedTickBehavior
    from .time import RateLimiter as RateLimiter
    from .time import Schedule as Schedule
    from .time import Sleep as Sleep
    from .time import Timer as Timer
    from .time import TimerDelayPolicy as TimerDelayPolicy
    from .time import VirtualClock as VirtualClock
    from .time import create_timer as create_timer
    from .time import instant as instant
    from .time import interval as interval
    from .time import interval_at as interval_at
    from .time import repeat_periodically as repeat_periodically
    from .time import retry as retry
    from .time import sleep as sleep
    from .time import sleep_until as sleep_until
    from .time import timeout as timeout
    from .time import timeout_at as timeout_at

_AREAS = {
    "channels",
    "futures",
    "net",
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
    "Acquiring": "sync",
    "AlreadySet": "sync",
    "AsyncContextGroup": "runtime",
    "AsyncDefer": "runtime",
    "BUDGET": "runtime",
    "Barrier": "sync",
    "BlockingPool": "runtime",
    "BlockingPoolStatistics": "runtime",
    "BoundedSemaphore": "sync",
    "BroadcastReceiver": "channels",
    "BroadcastSender": "channels",
    "BroadcastStatistics": "channels",
    "BrokenBarrier": "sync",
    "Button": "sync",
    "BytesReceiver": "channels",
    "BytesSender": "channels",
    "CallSite": "runtime",
    "CancelScope": "runtime",
    "CancellationToken": "runtime",
    "CancellationTokenGuard": "runtime",
    "Cargo": "sync",
    "ChannelClosed": "channels",
    "ChannelEmpty": "channels",
    "ChannelError": "channels",
    "ChannelFull": "channels",
    "ChannelStatistics": "channels",
    "Child": "server",
    "ChildStartError": "server",
    "Clock": "runtime",
    "Codec": "streams",
    "CompletionQueue": "futures",
    "Completions": "futures",
    "Condition": "sync",
    "ConditionStatistics": "sync",
    "Connection": "server",
    "CoroState": "runtime",
    "CriticalSection": "runtime",
    "DeadlockError": "time",
    "Decoder": "streams",
    "Defer": "runtime",
    "DelayQueue": "time",
    "DelayQueueClosed": "time",
    "Delayed": "time",
    "DelimiterCodec": "streams",
    "Encoder": "streams",
    "Errand": "runtime",
    "Event": "sync",
    "EventLoop": "runtime",
    "FileSink": "sinks",
    "FrameTooLong": "streams",
    "FutureState": "sync",
    "GuaranteedTask": "runtime",
    "Guard": "sync",
    "Handle": "runtime",
    "HandleClosed": "channels",
    "Health": "server",
    "HealthPart": "server",
    "HealthState": "server",
    "Held": "sync",
    "IncompleteFrame": "streams",
    "IncompleteRead": "channels",
    "Instant": "time",
    "Interval": "time",
    "JoinError": "runtime",
    "JoinHandle": "runtime",
    "JoinMap": "runtime",
    "JoinSet": "runtime",
    "KeyLock": "sync",
    "KeyedLock": "sync",
    "KeyedLockStatistics": "sync",
    "Lagged": "channels",
    "Latch": "sync",
    "LengthCodec": "streams",
    "LinesCodec": "streams",
    "Listener": "server",
    "Lock": "sync",
    "LockStatistics": "sync",
    "Locking": "sync",
    "LoopStatistics": "runtime",
    "MainContext": "server",
    "MissedTickBehavior": "time",
    "Mutex": "sync",
    "MutexPoisoned": "sync",
    "NestableLock": "sync",
    "Notified": "sync",
    "Notify": "sync",
    "OnceCell": "sync",
    "OneshotReceiver": "channels",
    "OneshotSender": "channels",
    "Outcome": "runtime",
    "PartState": "server",
    "PeekableStream": "streams",
    "Permit": "channels",
    "PermitPool": "sync",
    "PersistentTaskGroup": "runtime",
    "Portal": "threads",
    "RateLimiter": "time",
    "ReadLock": "sync",
    "Receiver": "channels",
    "Runtime": "runtime",
    "RuntimeCollector": "server",
    "RuntimeMetrics": "runtime",
    "RwLock": "sync",
    "RwLockStatistics": "sync",
    "Schedule": "time",
    "SchedulingEventLoopPolicy": "runtime",
    "SchedulingMixin": "runtime",
    "SchedulingProactorEventLoop": "runtime",
    "SchedulingSelectorEventLoop": "runtime",
    "Selectable": "runtime",
    "Semaphore": "sync",
    "SemaphoreClosed": "sync",
    "Sender": "channels",
    "SenderSink": "sinks",
    "Server": "server",
    "SetOnce": "sync",
    "Shared": "runtime",
    "SharedStream": "streams",
    "Shutdown": "server",
    "SignalListener": "runtime",
    "SignalScope": "runtime",
    "SingleFlight": "futures",
    "Sink": "sinks",
    "SinkClosed": "sinks",
    "Sleep": "time",
    "Started": "runtime",
    "Stream": "streams",
    "StreamMap": "streams",
    "Subsystem": "server",
    "SupervisedTask": "server",
    "Supervisor": "runtime",
    "SupervisorError": "server",
    "TaskGroup": "runtime",
    "TaskScope": "runtime",
    "TaskSet": "futures",
    "TaskTracker": "runtime",
    "TaskTrackerToken": "runtime",
    "TaskWaiter": "runtime",
    "ThreadTaskGroup": "threads",
    "ThreadWaiter": "runtime",
    "ThreadsafeCondition": "threads",
    "ThreadsafeGenerator": "threads",
    "ThreadsafeIterator": "threads",
    "ThreadsafeLock": "threads",
    "ThreadsafeState": "threads",
    "Timer": "time",
    "TimerDelayPolicy": "time",
    "UnboundedSender": "channels",
    "Until": "threads",
    "VersionedCell": "sync",
    "VirtualClock": "time",
    "WaitStatistics": "sync",
    "Waiter": "runtime",
    "Want": "sync",
    "WatchReceiver": "channels",
    "WatchSender": "channels",
    "WeakSender": "channels",
    "When": "sync",
    "WorkerContext": "server",
    "WorkerError": "server",
    "WouldBlock": "sync",
    "WriteLock": "sync",
    "WriterSink": "sinks",
    "aclosing": "runtime",
    "actxgroup": "runtime",
    "actxmgr": "runtime",
    "adefer": "runtime",
    "afork": "server",
    "aiter": "runtime",
    "amass": "futures",
    "apartial": "runtime",
    "as_completed_safe": "futures",
    "async_eager": "runtime",
    "async_stream": "streams",
    "blocked_tasks": "runtime",
    "blocking_select": "futures",
    "broadcast": "channels",
    "buffer_aiter": "streams",
    "busy_calls": "runtime",
    "call_site": "runtime",
    "cancel_and_wait": "runtime",
    "cancel_task": "runtime",
    "channel": "channels",
    "channel_unbounded": "channels",
    "checkpoint": "runtime",
    "collect": "streams",
    "concurrent_contexts": "runtime",
    "contextualize": "runtime",
    "cooperative": "runtime",
    "coro_as_future": "runtime",
    "coro_continue": "runtime",
    "coro_eager": "runtime",
    "coro_is_blocked": "runtime",
    "coro_start": "runtime",
    "create_task_descend": "runtime",
    "create_timer": "time",
    "current_deadline": "runtime",
    "current_token": "runtime",
    "defer": "runtime",
    "describe": "runtime",
    "drain": "sinks",
    "dump": "runtime",
    "dump_all": "runtime",
    "dump_on_signal": "runtime",
    "eager": "runtime",
    "empty": "streams",
    "ensure_aiter": "streams",
    "event_loop_policy": "runtime",
    "failed_branch": "futures",
    "finish_within": "runtime",
    "from_function": "sinks",
    "from_thread": "threads",
    "gather": "futures",
    "gather_safe": "futures",
    "handle_signal": "runtime",
    "instant": "time",
    "interval": "time",
    "interval_at": "time",
    "is_thread_parked": "runtime",
    "iter": "streams",
    "join": "futures",
    "launch_in_thread_loop": "threads",
    "lazy": "futures",
    "listen": "server",
    "lru_cache": "runtime",
    "main": "runtime",
    "make_task": "runtime",
    "map": "runtime",
    "map_blocking": "runtime",
    "map_concurrently": "streams",
    "merge": "streams",
    "metrics": "runtime",
    "move_on_after": "runtime",
    "once": "streams",
    "oneshot_channel": "channels",
    "park": "runtime",
    "park_thread": "runtime",
    "prime": "runtime",
    "primed": "runtime",
    "probes": "server",
    "race": "futures",
    "race_ok": "futures",
    "random_source": "runtime",
    "read_chunks": "streams",
    "read_file": "streams",
    "ready": "futures",
    "record_spawn_sites": "runtime",
    "reduce": "streams",
    "refuse_loop_thread": "runtime",
    "remaining": "runtime",
    "repeat": "streams",
    "repeat_periodically": "time",
    "repeat_with": "streams",
    "request_again": "runtime",
    "require_function": "runtime",
    "retry": "time",
    "run": "runtime",
    "run_errand": "runtime",
    "run_in_thread_loop": "threads",
    "run_in_thread_loop_contextualized": "threads",
    "runnable_tasks": "runtime",
    "scope": "runtime",
    "select": "futures",
    "serve": "server",
    "set_random_source": "runtime",
    "shared": "futures",
    "shield": "runtime",
    "shield_wait": "runtime",
    "signals": "runtime",
    "single_flight": "futures",
    "sleep": "time",
    "sleep_insert": "runtime",
    "sleep_until": "time",
    "spawn": "runtime",
    "spawn_blocking": "runtime",
    "spsc_buffer": "channels",
    "start_server": "server",
    "start_task": "runtime",
    "suppress": "runtime",
    "task_reinsert": "runtime",
    "task_set": "futures",
    "threadsafe_agen": "threads",
    "threadsafe_aiter": "threads",
    "timeout": "time",
    "timeout_at": "time",
    "to_thread": "threads",
    "try_join": "futures",
    "unbounded": "channels",
    "unfold": "streams",
    "use_scope": "runtime",
    "volatile_task_group": "runtime",
    "wait_for_signal": "runtime",
    "watch": "channels",
    "yield_now": "runtime",
    "zip_concurrently": "streams",
}

# Without the areas and without the names of builtins: `import *` takes neither `time` nor `map` from anybody.
__all__ = [
    "Acquire",
    "Acquiring",
    "AlreadySet",
    "AsyncContextGroup",
    "AsyncDefer",
    "BUDGET",
    "Barrier",
    "BlockingPool",
    "BlockingPoolStatistics",
    "BoundedSemaphore",
    "BroadcastReceiver",
    "BroadcastSender",
    "BroadcastStatistics",
    "BrokenBarrier",
    "Button",
    "BytesReceiver",
    "BytesSender",
    "CallSite",
    "CancelScope",
    "CancellationToken",
    "CancellationTokenGuard",
    "Cargo",
    "ChannelClosed",
    "ChannelEmpty",
    "ChannelError",
    "ChannelFull",
    "ChannelStatistics",
    "Child",
    "ChildStartError",
    "Clock",
    "Codec",
    "CompletionQueue",
    "Completions",
    "Condition",
    "ConditionStatistics",
    "Connection",
    "CoroState",
    "CriticalSection",
    "DeadlockError",
    "Decoder",
    "Defer",
    "DelayQueue",
    "DelayQueueClosed",
    "Delayed",
    "DelimiterCodec",
    "Encoder",
    "Errand",
    "Event",
    "EventLoop",
    "FileSink",
    "FrameTooLong",
    "FutureState",
    "GuaranteedTask",
    "Guard",
    "Handle",
    "HandleClosed",
    "Health",
    "HealthPart",
    "HealthState",
    "Held",
    "IncompleteFrame",
    "IncompleteRead",
    "Instant",
    "Interval",
    "JoinError",
    "JoinHandle",
    "JoinMap",
    "JoinSet",
    "KeyLock",
    "KeyedLock",
    "KeyedLockStatistics",
    "Lagged",
    "Latch",
    "LengthCodec",
    "LinesCodec",
    "Listener",
    "Lock",
    "LockStatistics",
    "Locking",
    "LoopStatistics",
    "MainContext",
    "MissedTickBehavior",
    "Mutex",
    "MutexPoisoned",
    "NestableLock",
    "Notified",
    "Notify",
    "OnceCell",
    "OneshotReceiver",
    "OneshotSender",
    "Outcome",
    "PartState",
    "PeekableStream",
    "Permit",
    "PermitPool",
    "PersistentTaskGroup",
    "Portal",
    "RateLimiter",
    "ReadLock",
    "Receiver",
    "Runtime",
    "RuntimeCollector",
    "RuntimeMetrics",
    "RwLock",
    "RwLockStatistics",
    "Schedule",
    "SchedulingEventLoopPolicy",
    "SchedulingMixin",
    "SchedulingProactorEventLoop",
    "SchedulingSelectorEventLoop",
    "Selectable",
    "Semaphore",
    "SemaphoreClosed",
    "Sender",
    "SenderSink",
    "Server",
    "SetOnce",
    "Shared",
    "SharedStream",
    "Shutdown",
    "SignalListener",
    "SignalScope",
    "SingleFlight",
    "Sink",
    "SinkClosed",
    "Sleep",
    "Started",
    "Stream",
    "StreamMap",
    "Subsystem",
    "SupervisedTask",
    "Supervisor",
    "SupervisorError",
    "TaskGroup",
    "TaskScope",
    "TaskSet",
    "TaskTracker",
    "TaskTrackerToken",
    "TaskWaiter",
    "ThreadTaskGroup",
    "ThreadWaiter",
    "ThreadsafeCondition",
    "ThreadsafeGenerator",
    "ThreadsafeIterator",
    "ThreadsafeLock",
    "ThreadsafeState",
    "Timer",
    "TimerDelayPolicy",
    "UnboundedSender",
    "Until",
    "VersionedCell",
    "VirtualClock",
    "WaitStatistics",
    "Waiter",
    "Want",
    "WatchReceiver",
    "WatchSender",
    "WeakSender",
    "When",
    "WorkerContext",
    "WorkerError",
    "WouldBlock",
    "WriteLock",
    "WriterSink",
    "aclosing",
    "actxgroup",
    "actxmgr",
    "adefer",
    "afork",
    "amass",
    "apartial",
    "as_completed_safe",
    "async_eager",
    "async_stream",
    "blocked_tasks",
    "blocking_select",
    "broadcast",
    "buffer_aiter",
    "busy_calls",
    "call_site",
    "cancel_and_wait",
    "cancel_task",
    "channel",
    "channel_unbounded",
    "checkpoint",
    "collect",
    "concurrent_contexts",
    "contextualize",
    "cooperative",
    "coro_as_future",
    "coro_continue",
    "coro_eager",
    "coro_is_blocked",
    "coro_start",
    "create_task_descend",
    "create_timer",
    "current_deadline",
    "current_token",
    "defer",
    "describe",
    "drain",
    "dump",
    "dump_all",
    "dump_on_signal",
    "eager",
    "empty",
    "ensure_aiter",
    "event_loop_policy",
    "failed_branch",
    "finish_within",
    "from_function",
    "from_thread",
    "gather",
    "gather_safe",
    "handle_signal",
    "instant",
    "interval",
    "interval_at",
    "is_thread_parked",
    "join",
    "launch_in_thread_loop",
    "lazy",
    "listen",
    "lru_cache",
    "main",
    "make_task",
    "map_blocking",
    "map_concurrently",
    "merge",
    "metrics",
    "move_on_after",
    "once",
    "oneshot_channel",
    "park",
    "park_thread",
    "prime",
    "primed",
    "probes",
    "race",
    "race_ok",
    "random_source",
    "read_chunks",
    "read_file",
    "ready",
    "record_spawn_sites",
    "reduce",
    "refuse_loop_thread",
    "remaining",
    "repeat",
    "repeat_periodically",
    "repeat_with",
    "request_again",
    "require_function",
    "retry",
    "run",
    "run_errand",
    "run_in_thread_loop",
    "run_in_thread_loop_contextualized",
    "runnable_tasks",
    "scope",
    "select",
    "serve",
    "set_random_source",
    "shared",
    "shield",
    "shield_wait",
    "signals",
    "single_flight",
    "sleep",
    "sleep_insert",
    "sleep_until",
    "spawn",
    "spawn_blocking",
    "spsc_buffer",
    "start_server",
    "start_task",
    "suppress",
    "task_reinsert",
    "task_set",
    "threadsafe_agen",
    "threadsafe_aiter",
    "timeout",
    "timeout_at",
    "to_thread",
    "try_join",
    "unbounded",
    "unfold",
    "use_scope",
    "volatile_task_group",
    "wait_for_signal",
    "watch",
    "yield_now",
    "zip_concurrently",
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
