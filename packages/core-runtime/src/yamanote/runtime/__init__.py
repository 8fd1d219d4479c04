"""Run, spawn and cancel: what every other area stands on."""

from yamanote.runtime._blocking import busy_calls as busy_calls
from yamanote.runtime._blocking import map_blocking as map_blocking
from yamanote.runtime._blocking import spawn_blocking as spawn_blocking
from yamanote.runtime._budget import BUDGET as BUDGET
from yamanote.runtime._budget import checkpoint as checkpoint
from yamanote.runtime._budget import cooperative as cooperative
from yamanote.runtime._budget import yield_now as yield_now
from yamanote.runtime._cache import lru_cache as lru_cache
from yamanote.runtime._call import current_token as current_token
from yamanote.runtime._call import require_function as require_function
from yamanote.runtime._cancel import cancel_and_wait as cancel_and_wait
from yamanote.runtime._cancel import cancel_task as cancel_task
from yamanote.runtime._clock import Clock as Clock
from yamanote.runtime._concurrent_contexts import concurrent_contexts as concurrent_contexts
from yamanote.runtime._context_group import AsyncContextGroup as AsyncContextGroup
from yamanote.runtime._context_group import actxgroup as actxgroup
from yamanote.runtime._contexts import aclosing as aclosing
from yamanote.runtime._contexts import actxmgr as actxmgr
from yamanote.runtime._contexts import contextualize as contextualize
from yamanote.runtime._contexts import suppress as suppress
from yamanote.runtime._critical import CriticalSection as CriticalSection
from yamanote.runtime._deadline import current_deadline as current_deadline
from yamanote.runtime._deadline import remaining as remaining
from yamanote.runtime._defer import AsyncDefer as AsyncDefer
from yamanote.runtime._defer import Defer as Defer
from yamanote.runtime._defer import adefer as adefer
from yamanote.runtime._defer import defer as defer
from yamanote.runtime._dump import describe as describe
from yamanote.runtime._dump import dump as dump
from yamanote.runtime._dump_signal import dump_all as dump_all
from yamanote.runtime._dump_signal import dump_on_signal as dump_on_signal
from yamanote.runtime._eager import async_eager as async_eager
from yamanote.runtime._eager import coro_eager as coro_eager
from yamanote.runtime._eager import eager as eager
from yamanote.runtime._eager import prime as prime
from yamanote.runtime._eager import primed as primed
from yamanote.runtime._errand import Errand as Errand
from yamanote.runtime._errand import run_errand as run_errand
from yamanote.runtime._finish_within import finish_within as finish_within
from yamanote.runtime._functools import aiter as aiter
from yamanote.runtime._functools import apartial as apartial
from yamanote.runtime._group import TaskGroup as TaskGroup
from yamanote.runtime._group import scope as scope
from yamanote.runtime._guaranteed import GuaranteedTask as GuaranteedTask
from yamanote.runtime._handle import Handle as Handle
from yamanote.runtime._join import JoinError as JoinError
from yamanote.runtime._join import JoinHandle as JoinHandle
from yamanote.runtime._join_map import JoinMap as JoinMap
from yamanote.runtime._join_set import JoinSet as JoinSet
from yamanote.runtime._loop import EventLoop as EventLoop
from yamanote.runtime._loop import LoopStatistics as LoopStatistics
from yamanote.runtime._map import map as map
from yamanote.runtime._metrics import RuntimeMetrics as RuntimeMetrics
from yamanote.runtime._metrics import metrics as metrics
from yamanote.runtime._outcome import Outcome as Outcome
from yamanote.runtime._persistent import PersistentTaskGroup as PersistentTaskGroup
from yamanote.runtime._pool import BlockingPool as BlockingPool
from yamanote.runtime._pool import BlockingPoolStatistics as BlockingPoolStatistics
from yamanote.runtime._random import random_source as random_source
from yamanote.runtime._random import set_random_source as set_random_source
from yamanote.runtime._run import main as main
from yamanote.runtime._run import run as run
from yamanote.runtime._runnable import blocked_tasks as blocked_tasks
from yamanote.runtime._runnable import runnable_tasks as runnable_tasks
from yamanote.runtime._runtime import Runtime as Runtime
from yamanote.runtime._scheduling import create_task_descend as create_task_descend
from yamanote.runtime._scheduling import sleep_insert as sleep_insert
from yamanote.runtime._scheduling import task_reinsert as task_reinsert
from yamanote.runtime._scheduling_loop import SchedulingEventLoopPolicy as SchedulingEventLoopPolicy
from yamanote.runtime._scheduling_loop import SchedulingMixin as SchedulingMixin
from yamanote.runtime._scheduling_loop import SchedulingProactorEventLoop as SchedulingProactorEventLoop
from yamanote.runtime._scheduling_loop import SchedulingSelectorEventLoop as SchedulingSelectorEventLoop
from yamanote.runtime._scheduling_loop import event_loop_policy as event_loop_policy
from yamanote.runtime._scope import CancelScope as CancelScope
from yamanote.runtime._scope import move_on_after as move_on_after
from yamanote.runtime._scope import use_scope as use_scope
from yamanote.runtime._shared import Shared as Shared
from yamanote.runtime._shield import shield as shield
from yamanote.runtime._shield import shield_wait as shield_wait
from yamanote.runtime._signals import SignalListener as SignalListener
from yamanote.runtime._signals import SignalScope as SignalScope
from yamanote.runtime._signals import handle_signal as handle_signal
from yamanote.runtime._signals import signals as signals
from yamanote.runtime._signals import wait_for_signal as wait_for_signal
from yamanote.runtime._site import CallSite as CallSite
from yamanote.runtime._site import call_site as call_site
from yamanote.runtime._site import record_spawn_sites as record_spawn_sites
from yamanote.runtime._spawn import spawn as spawn
from yamanote.runtime._started import Started as Started
from yamanote.runtime._stepping import CoroState as CoroState
from yamanote.runtime._stepping import coro_as_future as coro_as_future
from yamanote.runtime._stepping import coro_continue as coro_continue
from yamanote.runtime._stepping import coro_is_blocked as coro_is_blocked
from yamanote.runtime._stepping import coro_start as coro_start
from yamanote.runtime._task import make_task as make_task
from yamanote.runtime._task import request_again as request_again
from yamanote.runtime._task import start_task as start_task
from yamanote.runtime._task_scope import Supervisor as Supervisor
from yamanote.runtime._task_scope import TaskScope as TaskScope
from yamanote.runtime._task_scope import volatile_task_group as volatile_task_group
from yamanote.runtime._token import CancellationToken as CancellationToken
from yamanote.runtime._token import CancellationTokenGuard as CancellationTokenGuard
from yamanote.runtime._tracker import TaskTracker as TaskTracker
from yamanote.runtime._tracker import TaskTrackerToken as TaskTrackerToken
from yamanote.runtime._waiter import Selectable as Selectable
from yamanote.runtime._waiter import TaskWaiter as TaskWaiter
from yamanote.runtime._waiter import ThreadWaiter as ThreadWaiter
from yamanote.runtime._waiter import Waiter as Waiter
from yamanote.runtime._waiter import is_thread_parked as is_thread_parked
from yamanote.runtime._waiter import park as park
from yamanote.runtime._waiter import park_thread as park_thread
from yamanote.runtime._waiter import refuse_loop_thread as refuse_loop_thread

__all__ = [
    "AsyncContextGroup",
    "AsyncDefer",
    "BUDGET",
    "BlockingPool",
    "BlockingPoolStatistics",
    "CallSite",
    "CancelScope",
    "CancellationToken",
    "CancellationTokenGuard",
    "Clock",
    "CoroState",
    "CriticalSection",
    "Defer",
    "Errand",
    "EventLoop",
    "GuaranteedTask",
    "Handle",
    "JoinError",
    "JoinHandle",
    "JoinMap",
    "JoinSet",
    "LoopStatistics",
    "Outcome",
    "PersistentTaskGroup",
    "Runtime",
    "RuntimeMetrics",
    "SchedulingEventLoopPolicy",
    "SchedulingMixin",
    "SchedulingProactorEventLoop",
    "SchedulingSelectorEventLoop",
    "Selectable",
    "Shared",
    "SignalListener",
    "SignalScope",
    "Started",
    "Supervisor",
    "TaskGroup",
    "TaskScope",
    "TaskTracker",
    "TaskTrackerToken",
    "TaskWaiter",
    "ThreadWaiter",
    "Waiter",
    "aclosing",
    "actxgroup",
    "actxmgr",
    "adefer",
    "aiter",
    "apartial",
    "async_eager",
    "blocked_tasks",
    "busy_calls",
    "call_site",
    "cancel_and_wait",
    "cancel_task",
    "checkpoint",
    "concurrent_contexts",
    "contextualize",
    "cooperative",
    "coro_as_future",
    "coro_continue",
    "coro_eager",
    "coro_is_blocked",
    "coro_start",
    "create_task_descend",
    "current_deadline",
    "current_token",
    "defer",
    "describe",
    "dump",
    "dump_all",
    "dump_on_signal",
    "eager",
    "event_loop_policy",
    "finish_within",
    "handle_signal",
    "is_thread_parked",
    "lru_cache",
    "main",
    "make_task",
    "map",
    "map_blocking",
    "metrics",
    "move_on_after",
    "park",
    "park_thread",
    "prime",
    "primed",
    "random_source",
    "record_spawn_sites",
    "refuse_loop_thread",
    "remaining",
    "request_again",
    "require_function",
    "run",
    "run_errand",
    "runnable_tasks",
    "scope",
    "set_random_source",
    "shield",
    "shield_wait",
    "signals",
    "sleep_insert",
    "spawn",
    "spawn_blocking",
    "start_task",
    "suppress",
    "task_reinsert",
    "use_scope",
    "volatile_task_group",
    "wait_for_signal",
    "yield_now",
]
