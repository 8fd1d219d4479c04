"""Strategies: whom the death of a child concerns, and how many deaths are too many.

Invariant: a restart is allowed if and only if fewer than the maximum were allowed in the period that ends now. Nothing
in here waits or knows a clock: who asks says what time it is.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from itertools import dropwhile
from math import inf
from typing import Literal, TypeAlias, TypeVar, get_args

__all__ = ["Intensity", "Restart", "Strategy", "concerned", "require_restart", "require_strategy"]

T = TypeVar("T")

Strategy: TypeAlias = Literal["one_for_one", "one_for_all", "rest_for_one"]
"""Who is started again when a child has died: it alone, all, or it and those that were started after it."""

Restart: TypeAlias = Literal["permanent", "transient", "temporary"]
"""When a child is started again: however it ended, unless it returned, or never."""


def concerned(strategy: Strategy, children: Iterable[T], dead: T) -> list[T]:
    """Which of the `children`, which are in the order of their start, are started again because `dead` has died."""
    if strategy == "one_for_one":
        return [dead]
    if strategy == "one_for_all":
        return list(children)
    return list(dropwhile(lambda child: child is not dead, children))


class Intensity:
    """Allows so many restarts within any `period` seconds."""

    __slots__ = ("_max_restarts", "_moments", "_period")

    def __init__(self, max_restarts: int, period: float) -> None:
        if isinstance(max_restarts, bool) or not isinstance(max_restarts, int):
            raise TypeError(f"max_restarts must be a whole number, not {max_restarts!r}")
        if max_restarts < 0:
            raise ValueError(f"max_restarts must not be negative, but is {max_restarts}")
        if isinstance(period, bool) or not isinstance(period, (int, float)):
            raise TypeError(f"period must be a number of seconds, not {period!r}")
        if not 0 < period <= inf:  # nan neither
            raise ValueError(f"period must be more than 0 seconds, not {period!r}")
        self._max_restarts = max_restarts
        self._period = period
        self._moments: deque[float] = deque()  # of the restarts within the period, never more than the maximum

    def allows(self, now: float) -> bool:
        """Whether there may be a restart `now`; if so, it counts."""
        while self._moments and self._moments[0] < now - self._period:
            self._moments.popleft()
        if len(self._moments) >= self._max_restarts:
            return False
        self._moments.append(now)
        return True


def require_strategy(strategy: str) -> None:
    """Raise ValueError for what is no strategy."""
    if strategy not in get_args(Strategy):
        raise ValueError(f"strategy must be one of {', '.join(map(repr, get_args(Strategy)))}, not {strategy!r}")


def require_restart(restart: str) -> None:
    """Raise ValueError for what does not say when to restart."""
    if restart not in get_args(Restart):
        raise ValueError(f"restart must be one of {', '.join(map(repr, get_args(Restart)))}, not {restart!r}")
