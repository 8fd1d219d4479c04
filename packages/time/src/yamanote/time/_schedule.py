"""Schedule: how long to wait before each further attempt, as a value.

Invariant: a schedule never changes; whoever goes by it begins a run of its own, and tells that run how much time has
passed since. A run is a function from elapsed seconds to the next delay, and None is its last answer: it is not asked
again. So schedules need no clock, and can be tried out without one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import inf
from typing import TypeAlias, final

from yamanote.runtime import random_source
from yamanote.time._clock import require_finite

__all__ = ["Schedule"]

Run: TypeAlias = Callable[[float], float | None]


@final
class Schedule:
    """A series of delays, in seconds: those given, one after the other.

    For `retry`, and for loops of your own: iterating gives the delays, from the first one each time, as they come when
    nothing but the delays takes time.

    ``a + b`` goes on with `b` when `a` has ended; ``a & b`` goes on while both do, after the longer delay; ``a | b``
    while one of them does, after the shorter one.

    **Threads:** a schedule can be used by any number of tasks and threads at once.

    Raises TypeError for what is no number of seconds; ValueError for what is negative or not finite.

    >>> backoff = Schedule.exponential(0.1).capped(1).retries(6)
    >>> list(backoff)
    [0.1, 0.2, 0.4, 0.8, 1, 1]
    >>> list(Schedule(0, 0) + backoff.total(1))
    [0, 0, 0.1, 0.2, 0.4]
    """

    __slots__ = ("_begin", "_text")

    def __init__(self, *delays: float) -> None:
        for delay in delays:
            _require_delay("delays", delay)

        def begin() -> Run:
            rest = iter(delays)
            return lambda elapsed: next(rest, None)

        self._begin: Callable[[], Run] = begin
        self._text = f"Schedule({', '.join(map(repr, delays))})"

    @staticmethod
    def fixed(seconds: float) -> Schedule:
        """The same delay, without end."""
        _require_delay("seconds", seconds)
        return _schedule(lambda: lambda elapsed: seconds, f"Schedule.fixed({seconds!r})")

    @staticmethod
    def exponential(first: float, factor: float = 2.0) -> Schedule:
        """Delays that grow by `factor` each time, without end. Raises ValueError for a factor below 1.

        >>> list(Schedule.exponential(1, factor=3).retries(4))
        [1.0, 3.0, 9.0, 27.0]
        """
        _require_delay("first", first)
        _require_number("factor", factor, 1.0)

        def begin() -> Run:
            following = float(first)  # grows to infinity in the end, where a whole number would grow without end

            def run(elapsed: float) -> float:
                nonlocal following
                delay, following = following, following * factor
                return delay

            return run

        return _schedule(begin, f"Schedule.exponential({first!r}, factor={factor!r})")

    def retries(self, count: int) -> Schedule:
        """At most `count` delays: that many attempts after the first one. Raises ValueError for less than 0."""
        if isinstance(count, bool) or not isinstance(count, int):
            raise TypeError(f"count must be a whole number, not {count!r}")
        if count < 0:
            raise ValueError(f"count must not be negative, but is {count}")

        def begin() -> Run:
            run, left = self._begin(), count

            def limited(elapsed: float) -> float | None:
                nonlocal left
                left -= 1
                return run(elapsed) if left >= 0 else None

            return limited

        return _schedule(begin, f"{self!r}.retries({count!r})")

    def total(self, seconds: float) -> Schedule:
        """Ends before a delay that would not be over `seconds` after the beginning, the time for attempts included.

        It interrupts no attempt: for that there is `timeout`. In ``a + b.total(10)`` the beginning is that of `b`.
        """
        _require_delay("seconds", seconds)

        def begin() -> Run:
            run = self._begin()

            def limited(elapsed: float) -> float | None:
                delay = run(elapsed)
                return delay if delay is not None and elapsed + delay <= seconds else None

            return limited

        return _schedule(begin, f"{self!r}.total({seconds!r})")

    def capped(self, seconds: float) -> Schedule:
        """No delay longer than `seconds`."""
        _require_delay("seconds", seconds)
        return self._map(lambda delay: min(delay, seconds), f"capped({seconds!r})")

    def jittered(self, low: float = 0.0, high: float = 1.0) -> Schedule:
        """Each delay times a random factor between `low` and `high`: those who failed together do not come together.

        The factors come from `yamanote.runtime.random_source`. Raises ValueError unless 0 <= low <= high.

        >>> delays = list(Schedule(10, 10).jittered(0.5, 1.5))
        >>> all(5 <= delay <= 15 for delay in delays)
        True
        """
        _require_number("low", low, 0.0)
        _require_number("high", high, low)
        return self._map(lambda delay: delay * random_source().uniform(low, high), f"jittered({low!r}, {high!r})")

    def begin(self) -> Callable[[float], float | None]:
        """Begin a run: a function that is told the seconds since then, and returns the next delay, or None at the end.

        After None it is not to be called again. For who builds something like `retry`.

        >>> run_of_delays = Schedule.fixed(1).total(3).begin()
        >>> run_of_delays(0.5), run_of_delays(1.9), run_of_delays(3.1)
        (1, 1, None)
        """
        return self._begin()

    def __iter__(self) -> Iterator[float]:
        run = self._begin()
        elapsed = 0.0
        while (delay := run(elapsed)) is not None:
            yield delay
            elapsed += delay

    def __add__(self, other: Schedule) -> Schedule:
        if not isinstance(other, Schedule):
            return NotImplemented

        def begin() -> Run:
            run, start, second = self._begin(), 0.0, False

            def chained(elapsed: float) -> float | None:
                nonlocal run, start, second
                delay = run(elapsed - start)
                if delay is None and not second:
                    run, start, second = other._begin(), elapsed, True
                    delay = run(0.0)
                return delay

            return chained

        return _schedule(begin, f"({self!r} + {other!r})")

    def __and__(self, other: Schedule) -> Schedule:
        if not isinstance(other, Schedule):
            return NotImplemented

        def begin() -> Run:
            one, another = self._begin(), other._begin()

            def both(elapsed: float) -> float | None:
                delays = one(elapsed), another(elapsed)
                return None if delays[0] is None or delays[1] is None else max(delays[0], delays[1])

            return both

        return _schedule(begin, f"({self!r} & {other!r})")

    def __or__(self, other: Schedule) -> Schedule:
        if not isinstance(other, Schedule):
            return NotImplemented

        def begin() -> Run:
            runs = [self._begin(), other._begin()]

            def either(elapsed: float) -> float | None:
                delays = []
                for run in runs.copy():
                    delay = run(elapsed)
                    if delay is None:
                        runs.remove(run)
                    else:
                        delays.append(delay)
                return min(delays, default=None)

            return either

        return _schedule(begin, f"({self!r} | {other!r})")

    def _map(self, change: Callable[[float], float], text: str) -> Schedule:
        def begin() -> Run:
            run = self._begin()

            def changed(elapsed: float) -> float | None:
                delay = run(elapsed)
                return None if delay is None else change(delay)

            return changed

        return _schedule(begin, f"{self!r}.{text}")

    def __repr__(self) -> str:
        return self._text


def _schedule(begin: Callable[[], Run], text: str) -> Schedule:
    schedule = Schedule()
    schedule._begin = begin
    schedule._text = text
    return schedule


def _require_delay(name: str, seconds: float) -> None:
    require_finite(name, seconds)
    if seconds < 0:
        raise ValueError(f"{name} must not be negative, but is {seconds!r}")


def _require_number(name: str, number: float, least: float) -> None:
    if not isinstance(number, (int, float)):
        raise TypeError(f"{name} must be a number, not {type(number).__name__}")
    if not least <= number < inf:  # nan neither
        raise ValueError(f"{name} must be a finite number of at least {least!r}, not {number!r}")
