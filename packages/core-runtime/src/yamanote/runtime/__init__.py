"""Run, spawn and cancel: what every other area stands on."""

from yamanote.runtime._blocking import busy_calls as busy_calls
from yamanote.runtime._blocking import current_token as current_token
from yamanote.runtime._blocking import map_blocking as map_blocking
from yamanote.runtime._blocking import spawn_blocking as spawn_blocking
from yamanote.runtime._budget import BUDGET as BUDGET
from yamanote.runtime._budget import yield_now as yield_now
from yamanote.runtime._cancel import cancel_and_wait as cancel_and_wait
from yamanote.runtime._critical import CriticalSection as CriticalSection
from yamanote.runtime._dump import describe as describe
from yamanote.runtime._dump import dump as dump
from yamanote.runtime._group import TaskGroup as TaskGroup
from yamanote.runtime._group import scope as scope
from yamanote.runtime._join import JoinError as JoinError
from yamanote.runtime._join import JoinHandle as JoinHandle
from yamanote.runtime._outcome import Outcome as Outcome
from yamanote.runtime._random import random_source as random_source
from yamanote.runtime._random import set_random_source as set_random_source
from yamanote.runtime._run import main as main
from yamanote.runtime._run import run as run
from yamanote.runtime._scope import CancelScope as CancelScope
from yamanote.runtime._spawn import spawn as spawn
from yamanote.runtime._task import make_task as make_task
from yamanote.runtime._task import start_task as start_task
from yamanote.runtime._token import CancellationToken as CancellationToken
from yamanote.runtime._token import CancellationTokenGuard as CancellationTokenGuard
from yamanote.runtime._waiter import Selectable as Selectable
from yamanote.runtime._waiter import TaskWaiter as TaskWaiter
from yamanote.runtime._waiter import ThreadWaiter as ThreadWaiter
from yamanote.runtime._waiter import Waiter as Waiter
from yamanote.runtime._waiter import is_thread_parked as is_thread_parked
from yamanote.runtime._waiter import park as park
from yamanote.runtime._waiter import park_thread as park_thread
from yamanote.runtime._waiter import refuse_loop_thread as refuse_loop_thread

__all__ = [
    "BUDGET",
    "CancelScope",
    "CancellationToken",
    "CancellationTokenGuard",
    "CriticalSection",
    "JoinError",
    "JoinHandle",
    "Outcome",
    "Selectable",
    "TaskGroup",
    "TaskWaiter",
    "ThreadWaiter",
    "Waiter",
    "busy_calls",
    "cancel_and_wait",
    "current_token",
    "describe",
    "dump",
    "is_thread_parked",
    "main",
    "make_task",
    "map_blocking",
    "park",
    "park_thread",
    "random_source",
    "refuse_loop_thread",
    "run",
    "scope",
    "set_random_source",
    "spawn",
    "spawn_blocking",
    "start_task",
    "yield_now",
]
