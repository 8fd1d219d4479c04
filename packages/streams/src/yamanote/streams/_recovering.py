"""The operators for streams that fail."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar, overload

from yamanote.streams._arguments import require_function
from yamanote.streams._handle import Handle
from yamanote.streams._recovery import Answer, Catch, Condition, Retry
from yamanote.time import Schedule

if TYPE_CHECKING:
    from yamanote.streams._stream import Stream

__all__ = ["Recovering"]

T_co = TypeVar("T_co", covariant=True)
U = TypeVar("U")
E = TypeVar("E", bound=Exception)


class Recovering(Handle[T_co]):
    """After an error."""

    __slots__ = ()

    @overload
    def catch(
        self,
        handler: Callable[[E], Answer[U] | Coroutine[Any, Any, Answer[U]]],
        *,
        on: type[E],
    ) -> Stream[T_co | U]: ...
    @overload
    def catch(
        self,
        handler: Callable[[Any], Answer[U] | Coroutine[Any, Any, Answer[U]]],  # any of those in the tuple
        *,
        on: tuple[type[Exception], ...],
    ) -> Stream[T_co | U]: ...
    @overload
    def catch(
        self,
        handler: Callable[[Exception], Answer[U] | Coroutine[Any, Any, Answer[U]]],
        *,
        on: Callable[[Exception], bool] = ...,
    ) -> Stream[T_co | U]: ...
    def catch(self, handler: Callable[[Any], Any], *, on: Any = Exception) -> Stream[Any]:
        """In place of an error, what `handler` gives for it: anything to iterate over, plain or async; None is nothing.

        What came before the error has been given by then, and the source is closed. What comes instead is the rest of
        the stream; its own errors are raised as they are. So is what the handler raises, and an error that is not meant
        by `on`: an exception class, a tuple of them, or a function that is given the error. A cancellation never is.

        Raises TypeError for what is no function, and what is no such condition. **Cancel safety**: a handler that was
        cancelled is called again with the same error.

        >>> from yamanote import streams
        >>> from yamanote.runtime import run
        >>> numbers = streams.iter("12x4").map(int).catch(lambda error: [-1], on=ValueError)
        >>> run(numbers.collect())
        [1, 2, -1]
        """
        require_function("handler", handler)
        return self._moved_into(Catch(self._owned, handler, on))

    def retry(self, schedule: Schedule, *, on: Condition = Exception) -> Stream[T_co]:
        """Begin the source anew when it fails, after the delays of `schedule`.

        To be begun anew, a stream must come right from a function with `async_stream`, which is called again with the
        same arguments, or from `iter` of something that can be iterated over more than once. With operators in between,
        put them into such a function: it may return a stream.

        An item may come twice: after an error everything comes that the source gives from its beginning. Each item
        begins the schedule anew. When that has ended, or the time of the caller is over (`remaining` is 0), or the
        error is not meant by `on`, it is raised, as it is. `on` is an exception class, a tuple of them, or a function
        that is given the error. All this as with `yamanote.time.retry`.

        Raises TypeError for what is no schedule or no condition, and for a stream that cannot be begun anew.
        **Cancel safety**: the delay goes on, and no attempt is counted twice.

        >>> from yamanote import streams
        >>> from yamanote.runtime import run
        >>> from yamanote.time import Schedule
        >>> answers = [OSError("busy"), [1, 2]]
        >>> @streams.async_stream
        ... async def ask():
        ...     answer = answers.pop(0)
        ...     if isinstance(answer, OSError):
        ...         raise answer
        ...     for number in answer:
        ...         yield number
        >>> run(ask().retry(Schedule.fixed(0.001).retries(5), on=OSError).collect())
        [1, 2]
        """
        if not isinstance(schedule, Schedule):
            raise TypeError(f"schedule must be a Schedule, not {schedule!r}")
        pipeline = self._owned
        if self._again is None:
            raise TypeError(
                f"{self!r} cannot be begun anew: retry what a function with `@async_stream` gives, with no operator in "
                "between; such a function may return a stream with all its operators"
            )
        return self._moved_into(Retry(pipeline, self._again, schedule, on))
