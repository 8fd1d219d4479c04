"""Frames with their length in front.

Invariant: what comes out does not depend on how the bytes were cut. Bytes wait only until the head, and then the frame,
for which they wait is complete, so each is moved a bounded number of times; those of a frame that is to be passed over
are only counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal, final, get_args

from yamanote.streams._arguments import require_count
from yamanote.streams._codec import (
    DEFAULT_LIMIT,
    Decoder,
    FrameTooLong,
    IncompleteFrame,
    TooLong,
    fitting,
    require_limit,
)

__all__ = ["LengthCodec"]

_Width = Literal[1, 2, 4, 8]
_Order = Literal["big", "little"]


@final
class LengthCodec:
    """Frames of bytes, each behind its length: a whole number of `width` bytes (1, 2, 4 or 8), without a sign.

    `byteorder` is "big" or "little". A frame may have up to `max_length` bytes; None means as many as the number can
    tell. A longer one raises FrameTooLong as soon as its length has come, which ends the stream. With `on_too_long`, a
    plain function, that is called with the FrameTooLong instead, and the frame passed over, in constant memory; the
    frames behind it are given as ever.

    Bytes that end within a frame raise IncompleteFrame. Raises TypeError or ValueError for wrong arguments.

    >>> from yamanote.streams import LengthCodec
    >>> codec = LengthCodec(2)
    >>> codec.encode(b"hello")
    b'\\x00\\x05hello'
    >>> list(codec.decoder().feed(b"\\x00\\x02hi\\x00\\x00\\x00\\x05he"))
    [b'hi', b'']
    """

    __slots__ = ("_byteorder", "_limit", "_on_too_long", "_width")

    def __init__(
        self,
        width: _Width = 4,
        byteorder: _Order = "big",
        *,
        max_length: int | None = DEFAULT_LIMIT,
        on_too_long: TooLong | None = None,
    ) -> None:
        require_count("width", width)
        if width not in get_args(_Width):
            raise ValueError(f"width must be 1, 2, 4 or 8 bytes, not {width!r}")
        if byteorder not in get_args(_Order):
            raise ValueError(f"byteorder must be 'big' or 'little', not {byteorder!r}")
        require_limit(max_length, on_too_long)
        self._width = width
        self._byteorder: _Order = byteorder
        most = 256**width - 1
        self._limit = most if max_length is None else min(max_length, most)
        self._on_too_long = on_too_long

    def decoder(self) -> Decoder[bytes]:
        """A new decoder."""
        return _Reader(self._width, self._byteorder, self._limit, self._on_too_long)

    def encode(self, frame: bytes, /) -> bytes:
        """`frame` behind its length. Raises FrameTooLong."""
        return len(fitting(frame, self._limit)).to_bytes(self._width, self._byteorder) + frame


class _Reader:
    __slots__ = ("_byteorder", "_left", "_limit", "_needed", "_on_too_long", "_waiting", "_width")

    def __init__(self, width: int, byteorder: _Order, limit: int, on_too_long: TooLong | None) -> None:
        self._width = width
        self._byteorder: _Order = byteorder
        self._limit = limit
        self._on_too_long = on_too_long
        self._waiting = bytearray()
        """A frame that is not complete, from its head on."""
        self._needed = 0
        """How many bytes must wait before it is worth while to look at them again."""
        self._left = 0
        """How many bytes are still to be passed over."""

    def feed(self, data: bytes) -> Iterator[bytes]:
        waiting = self._waiting
        if waiting:
            waiting += data
            if len(waiting) < self._needed:
                return
            data = bytes(waiting)
            waiting.clear()
        width = self._width
        position = self._left
        while True:
            begin = position + width
            if begin > len(data):
                needed = width
                break
            size = int.from_bytes(data[position:begin], self._byteorder)
            end = begin + size
            if size > self._limit:
                error = FrameTooLong(size, self._limit)
                if self._on_too_long is None:
                    raise error
                self._on_too_long(error)
            elif end > len(data):
                needed = width + size
                break
            else:
                yield data[begin:end]
            position = end
        self._left = max(0, position - len(data))
        self._needed = needed
        waiting += data[position:]

    def finish(self) -> Iterable[bytes]:
        if self._waiting or self._left:
            raise IncompleteFrame(bytes(self._waiting[self._width :]))
        return ()
