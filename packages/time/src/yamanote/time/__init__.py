"""Time on the running loop's clock: sleeping, deadlines, ticks; and a clock for tests that need not wait."""

from yamanote.time._clock import Instant as Instant
from yamanote.time._clock import instant as instant
from yamanote.time._clock import time as time
from yamanote.time._delay_queue import Delayed as Delayed
from yamanote.time._delay_queue import DelayQueue as DelayQueue
from yamanote.time._delay_queue import DelayQueueClosed as DelayQueueClosed
from yamanote.time._interval import Interval as Interval
from yamanote.time._interval import interval as interval
from yamanote.time._interval import interval_at as interval_at
from yamanote.time._interval import repeat_periodically as repeat_periodically
from yamanote.time._rate_limiter import RateLimiter as RateLimiter
from yamanote.time._retry import retry as retry
from yamanote.time._schedule import Schedule as Schedule
from yamanote.time._sleep import Sleep as Sleep
from yamanote.time._sleep import sleep as sleep
from yamanote.time._sleep import sleep_until as sleep_until
from yamanote.time._ticker import MissedTickBehavior as MissedTickBehavior
from yamanote.time._timeout import timeout as timeout
from yamanote.time._timeout import timeout_at as timeout_at
from yamanote.time._timer import Timer as Timer
from yamanote.time._timer import TimerDelayPolicy as TimerDelayPolicy
from yamanote.time._timer import create_timer as create_timer
from yamanote.time._virtual_clock import DeadlockError as DeadlockError
from yamanote.time._virtual_clock import VirtualClock as VirtualClock

__all__ = [
    "DeadlockError",
    "DelayQueue",
    "DelayQueueClosed",
    "Delayed",
    "Instant",
    "Interval",
    "MissedTickBehavior",
    "RateLimiter",
    "Schedule",
    "Sleep",
    "Timer",
    "TimerDelayPolicy",
    "VirtualClock",
    "create_timer",
    "instant",
    "interval",
    "interval_at",
    "repeat_periodically",
    "retry",
    "sleep",
    "sleep_until",
    "time",
    "timeout",
    "timeout_at",
]
