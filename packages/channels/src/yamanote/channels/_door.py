"""The door upstairs: the ends of channels as streams and as sinks.

Streams stand on channels, so the distribution that has them is asked for when somebody wants to go up, and only then.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from yamanote.sinks import Sink
    from yamanote.streams import Stream

__all__ = ["sink_of", "stream_of"]

T = TypeVar("T")


def stream_of(move: Callable[[], AsyncIterable[T]]) -> Stream[T]:
    """A stream of what `move` gives: the receiver that takes the place of another. Called when all is there."""
    try:
        from yamanote import streams
    except ImportError as error:
        raise ImportError("into_stream() needs the distribution yamanote-streams") from error
    return streams.iter(move())


def sink_of(move: Callable[[], Any]) -> Sink[Any]:
    """`stream_of`, for senders."""
    try:
        from yamanote.sinks import SenderSink
    except ImportError as error:
        raise ImportError("into_sink() needs the distribution yamanote-streams") from error
    return SenderSink(move())
