"""The clock: seconds of the running loop, and moments on it.

Everything in this area asks the running loop for the time, so a loop with a clock of its own (a virtual one, in tests)
moves all of it. A moment is a plain float; an `Instant` is such a float that knows what it is.
"""

from __future__ import annotations

import math
from asyncio import get_running_loop
from typing import final, overload

__all__ = ["Instant", "instant", "require_finite", "require_seconds", "time"]


def time() -> float:
    """The time on the running loop's clock, in seconds from an arbitrary start. It never goes back.

    Raises RuntimeError where no event loop runs.

    >>> from yamanote.runtime import run
    >>> async def main():
    ...     before = time()
    ...     return time() >= before
    >>> run(main())
    True
    """
    return get_running_loop().time()


def instant() -> Instant:
    """The present moment on the running loop's clock. Raises RuntimeError where no event loop runs."""
    return Instant(get_running_loop().time())


@final
class Instant(float):
    """A moment on the running loop's clock, accepted wherever this area takes one (`sleep_until`, `timeout_at`, ...).

    Adding seconds gives a later instant; the difference of two is a number of seconds. Only instants of one loop, or
    of loops with one clock, can be compared.

    >>> start = Instant(10.0)
    >>> start + 2.5
    Instant(12.5)
    >>> (start + 2.5) - start
    2.5
    """

    __slots__ = ()

    @classmethod
    def now(cls) -> Instant:
        """The present moment: what `instant` returns, by the name that it has in Rust."""
        return cls(get_running_loop().time())

    def elapsed(self) -> float:
        """Seconds since this moment; negative when it is still to come."""
        return get_running_loop().time() - self

    def __add__(self, seconds: float) -> Instant:
        return Instant(float(self) + seconds)

    def __radd__(self, seconds: float) -> Instant:
        return self + seconds

    @overload
    def __sub__(self, other: Instant) -> float: ...  # type: ignore[overload-overlap]  # no Instant, though a float
    @overload
    def __sub__(self, other: float) -> Instant: ...
    def __sub__(self, other: float) -> float:
        difference = float(self) - other
        return difference if isinstance(other, Instant) else Instant(difference)

    def __repr__(self) -> str:
        return f"Instant({float(self)!r})"


def require_seconds(name: str, seconds: float) -> None:
    """Refuse what is no number of seconds: raises TypeError or ValueError, with the argument's name.

    An int or a float, that is. Others can be added to the time as well, but some of them take it with them: the sum of
    a clock and a NumPy `float32` is no more exact than to some milliseconds.
    """
    if not isinstance(seconds, (int, float)):
        advice = ": call its total_seconds()" if hasattr(seconds, "total_seconds") else ""
        raise TypeError(f"{name} must be a number of seconds, not {type(seconds).__name__}{advice}")
    try:
        if not math.isnan(seconds):
            return
    except OverflowError:
        raise ValueError(f"{name} must be a number of seconds that a float can hold") from None
    raise ValueError(f"{name} must be a number of seconds, not nan")


def require_finite(name: str, seconds: float) -> None:
    """Like `require_seconds`; also refuses the infinities."""
    require_seconds(name, seconds)
    if math.isinf(seconds):
        raise ValueError(f"{name} must be a finite number of seconds, not {seconds!r}")
