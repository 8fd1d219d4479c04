"""What turns frames into bytes and back: the protocols, and what can be wrong with a frame."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol, TypeAlias, TypeVar

from yamanote.streams._arguments import is_async, require_count, require_function

__all__ = [
    "DEFAULT_LIMIT",
    "Codec",
    "Decoder",
    "Encoder",
    "FrameTooLong",
    "IncompleteFrame",
    "TooLong",
    "fitting",
    "require_limit",
]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
T_contra = TypeVar("T_contra", contravariant=True)

DEFAULT_LIMIT = 1 << 23
"""8 MiB: far above what people send, and far below what fills a memory."""


class Decoder(Protocol[T_co]):
    """Finds the frames in bytes that come cut anywhere. It has a state, so there is one for each stream."""

    def feed(self, data: bytes, /) -> Iterable[T_co]:
        """The frames that are complete with `data`. They are all taken before the next call.

        An error is best raised in its place: behind the frames before it, as a generator does.
        """
        ...

    def finish(self) -> Iterable[T_co]:
        """What is left when no more bytes come."""
        ...


class Encoder(Protocol[T_contra]):
    """Turns frames into bytes."""

    def encode(self, frame: T_contra, /) -> bytes:
        """The bytes of one frame, with what divides it from the next one."""
        ...


class Codec(Encoder[T], Protocol[T]):
    """Both directions of one format. It has no state, so one does for all streams and sinks."""

    def decoder(self) -> Decoder[T]:
        """A new decoder."""
        ...


class FrameTooLong(ValueError):
    """A frame is longer than the codec permits.

    `size` is its length in bytes, or what of it has come so far; `limit` is what was permitted.
    """

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(size, limit)
        self.size = size
        self.limit = limit

    def __str__(self) -> str:
        return f"a frame of {self.size} bytes or more, where at most {self.limit} are permitted"


class IncompleteFrame(EOFError):
    """The bytes have ended within a frame. What has come of it is in `partial`."""

    def __init__(self, partial: bytes) -> None:
        super().__init__(partial)
        self.partial = partial

    def __str__(self) -> str:
        return f"the bytes have ended within a frame, of which {len(self.partial)} bytes have come"


TooLong: TypeAlias = Callable[[FrameTooLong], object]


def require_limit(max_length: int | None, on_too_long: TooLong | None) -> None:
    """Raise TypeError or ValueError that names the argument unless this can be the limit of a codec."""
    if max_length is not None:
        require_count("max_length", max_length)
    if on_too_long is not None:
        require_function("on_too_long", on_too_long)
        if is_async(on_too_long):
            raise TypeError("on_too_long must be a plain function: a decoder cannot wait for it")


def fitting(frame: bytes, limit: int | None) -> bytes:
    """`frame`, or FrameTooLong."""
    if limit is not None and len(frame) > limit:
        raise FrameTooLong(len(frame), limit)
    return frame
