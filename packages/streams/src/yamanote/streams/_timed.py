"""The operators that look at the clock: that of the running loop.

Each has its source pulled by a task of its own, which the clock never cancels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from yamanote.streams._arguments import require_count, require_seconds
from yamanote.streams._chunks_timeout import ChunksTimeout
from yamanote.streams._handle import Handle
from yamanote.streams._newest import Debounce, Sample
from yamanote.streams._spaced import Delay, Throttle
from yamanote.streams._timeout import Timeout

if TYPE_CHECKING:
    from yamanote.streams._stream import Stream

__all__ = ["Timed"]

T_co = TypeVar("T_co", covariant=True)
U = TypeVar("U")


class Timed(Handle[T_co]):
    """By the clock."""

    __slots__ = ()

    def timeout(self, seconds: float) -> Stream[T_co]:
        """The same items; one that has to be waited for longer than `seconds` is a TimeoutError, and the end.

        The time of an item runs while somebody waits for it, not while the consumer is at work; when a pull is
        cancelled it goes on. An item that has come is given, however late that is noticed. When the TimeoutError is
        raised, the source is closed.

        Raises TypeError or ValueError unless `seconds` is a number above 0. **Cancel safety**: nothing is lost.

        >>> from yamanote import streams
        >>> from yamanote.runtime import run
        >>> from yamanote.time import VirtualClock, sleep
        >>> async def main():
        ...     try:
        ...         await streams.iter([1, 9]).map(sleep).timeout(5).collect()
        ...     except TimeoutError as error:
        ...         return str(error)
        >>> run(main(), clock=VirtualClock())
        'no item came within 5 seconds'
        """
        require_seconds("seconds", seconds)
        return self._moved_into(Timeout(self._owned, seconds))

    def throttle(self, seconds: float) -> Stream[T_co]:
        """The same items, each given at least `seconds` after the one before it; the first one at once.

        None is lost: the source is pulled for one item at a time, when it is asked for. That item waits for its moment
        here; the end, or an error of the source, does not. Who takes longer than `seconds` for an item waits no more.

        Raises TypeError or ValueError unless `seconds` is a number above 0. **Cancel safety**: nothing is lost.

        >>> from yamanote import streams
        >>> from yamanote.runtime import run
        >>> from yamanote.time import VirtualClock, time
        >>> async def main():
        ...     return await streams.iter("abc").throttle(10).map(lambda letter: (letter, time())).collect()
        >>> run(main(), clock=VirtualClock())
        [('a', 0.0), ('b', 10.0), ('c', 20.0)]
        """
        require_seconds("seconds", seconds)
        return self._moved_into(Throttle(self._owned, seconds))

    def debounce(self, seconds: float) -> Stream[T_co]:
        """Each item behind which there was none for `seconds`: the last of every burst.

        When the source ends or fails, what is pending is given at once, before the error. An item that comes exactly
        `seconds` after another is too late to take its place: both are given.

        From the first pull on, the source is pulled all the time, also while the consumer is at work, who gets the
        newest item that is due when he comes back. At most two items are held.

        Raises TypeError or ValueError unless `seconds` is a number above 0. **Cancel safety**: nothing is lost but
        what is superseded.

        >>> from yamanote import streams
        >>> from yamanote.runtime import run
        >>> run(streams.iter("typing").debounce(0.3).collect())
        ['g']
        """
        require_seconds("seconds", seconds)
        return self._moved_into(Debounce(self._owned, seconds))

    def sample(self, seconds: float) -> Stream[T_co]:
        """Every `seconds`, counted from the first pull, the newest item that came since, if there is one.

        When the source ends or fails, what is pending is given at once, before the error. An item that comes exactly
        at a tick belongs to the next one. The ticks do not drift.

        From the first pull on, the source is pulled all the time, also while the consumer is at work, who gets the
        newest item that is due when he comes back. At most two items are held.

        Raises TypeError or ValueError unless `seconds` is a number above 0. **Cancel safety**: nothing is lost but
        what is superseded.

        >>> from yamanote import streams
        >>> from yamanote.runtime import run
        >>> from yamanote.time import VirtualClock, sleep
        >>> @streams.async_stream
        ... async def seconds():
        ...     for number in range(8):
        ...         yield number
        ...         await sleep(1)
        >>> run(seconds().sample(2.5).collect(), clock=VirtualClock())
        [2, 4, 7]
        """
        require_seconds("seconds", seconds)
        return self._moved_into(Sample(self._owned, seconds))

    def delay(self, seconds: float, *, limit: int = 1024) -> Stream[T_co]:
        """The same items, each given `seconds` after it came; the end, or an error of the source, comes as late.

        Up to `limit` items wait here. With so many the source rests: one that gives more than `limit` items in
        `seconds` is slowed down, as a slow consumer slows it down.

        Raises TypeError or ValueError unless `seconds` is a number above 0 and `limit` a whole number, at least 1.
        **Cancel safety**: nothing is lost.

        >>> from yamanote import streams
        >>> from yamanote.runtime import run
        >>> from yamanote.time import VirtualClock, time
        >>> async def main():
        ...     return await streams.iter("abc").delay(10).map(lambda letter: (letter, time())).collect()
        >>> run(main(), clock=VirtualClock())
        [('a', 10.0), ('b', 10.0), ('c', 10.0)]
        """
        require_seconds("seconds", seconds)
        require_count("limit", limit)
        return self._moved_into(Delay(self._owned, seconds, limit))

    def chunks_timeout(self, count: int, seconds: float) -> Stream[list[T_co]]:
        """Lists of up to `count` items; one that is not full is given `seconds` after its first item came.

        Never an empty list. What is left comes when the source ends or fails, before the error. Time is the running
        loop's. The source is pulled by a task of the stream's own, while somebody waits for a chunk, and never
        cancelled by the clock.

        Raises TypeError or ValueError unless `count` is a whole number, at least 1, and `seconds` a number above 0.
        **Cancel safety**: what has been gathered is kept.
        """
        require_count("count", count)
        require_seconds("seconds", seconds)
        return self._moved_into(ChunksTimeout(self._owned, count, seconds))
