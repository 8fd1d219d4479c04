"""Time on the running loop's clock: sleeping, deadlines, ticks; and a clock for tests that need not wait."""

from yamanote.time._clock import Instant as Instant
from yamanote.time._clock import instant as instant
from yamanote.time._clock import time as time
from yamanote.time._interval import Interval as Interval
from yamanote.time._interval import interval as interval
from yamanote.time._interval import interval_at as interval_at
from yamanote.time._sleep import sleep as sleep
from yamanote.time._sleep import sleep_until as sleep_until
from yamanote.time._ticker import MissedTickBehavior as MissedTickBehavior
from yamanote.time._timeout import timeout as timeout
from yamanote.time._timeout import timeout_at as timeout_at
from yamanote.time._virtual_clock import DeadlockError as DeadlockError
from yamanote.time._virtual_clock import VirtualClock as VirtualClock

__all__ = [
    "DeadlockError",
    "Instant",
    "Interval",
    "MissedTickBehavior",
    "VirtualClock",
    "instant",
    "interval",
    "interval_at",
    "sleep",
    "sleep_until",
    "time",
    "timeout",
    "timeout_at",
]
