"""The operators that look at the clock."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from yamanote.streams._arguments import require_count, require_seconds
from yamanote.streams._chunks_timeout import ChunksTimeout
from yamanote.streams._handle import Handle

if TYPE_CHECKING:
    from yamanote.streams._stream import Stream

__all__ = ["Timed"]

T_co = TypeVar("T_co", covariant=True)
U = TypeVar("U")


class Timed(Handle[T_co]):
    """By the clock."""

    __slots__ = ()

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
