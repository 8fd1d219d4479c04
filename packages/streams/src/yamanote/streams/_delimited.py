"""Frames that end with a delimiter, and lines of text.

Invariant: what comes out does not depend on how the bytes were cut. A byte is looked at once, apart from those, fewer
than the delimiter has, that may be the beginning of one and wait for the next piece; the rest of a frame is gathered,
or, when the frame is too long and to be passed over, only counted.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Iterator
from typing import final

from yamanote.streams._codec import (
    DEFAULT_LIMIT,
    Decoder,
    FrameTooLong,
    IncompleteFrame,
    TooLong,
    fitting,
    require_limit,
)

__all__ = ["DelimiterCodec", "LinesCodec"]


@final
class DelimiterCodec:
    """Frames of bytes, each of which ends with `delimiter`: ``decode`` takes it away, ``encode`` adds it.

    A frame may have up to `max_length` bytes without the delimiter; None means any number. A longer one raises
    FrameTooLong as soon as that is known, which ends the stream. With `on_too_long`, a plain function, it is passed
    over instead, in constant memory, and the function called with the FrameTooLong when its delimiter comes; the
    frames behind it are given as ever.

    Bytes that end without a delimiter raise IncompleteFrame. `encode` raises ValueError for a frame in which the
    delimiter would be found too early. Raises TypeError or ValueError for wrong arguments.

    >>> from yamanote import streams
    >>> from yamanote.runtime import run
    >>> from yamanote.streams import DelimiterCodec
    >>> run(streams.iter([b"one;t", b"wo;"]).decode(DelimiterCodec(b";")).collect())
    [b'one', b'two']
    """

    __slots__ = ("_delimiter", "_max_length", "_on_too_long")

    def __init__(
        self,
        delimiter: bytes,
        *,
        max_length: int | None = DEFAULT_LIMIT,
        on_too_long: TooLong | None = None,
    ) -> None:
        if not isinstance(delimiter, bytes):
            raise TypeError(f"delimiter must be bytes, not {delimiter!r}")
        if not delimiter:
            raise ValueError("delimiter must have at least one byte")
        require_limit(max_length, on_too_long)
        self._delimiter = delimiter
        self._max_length = max_length
        self._on_too_long = on_too_long

    def decoder(self) -> Decoder[bytes]:
        """A new decoder."""
        return _Splitter(self._delimiter, self._max_length, self._on_too_long)

    def encode(self, frame: bytes, /) -> bytes:
        """`frame` with the delimiter. Raises ValueError if that would not be read as one frame, and FrameTooLong."""
        encoded = fitting(frame, self._max_length) + self._delimiter
        if encoded.find(self._delimiter) != len(frame):
            raise ValueError(f"the delimiter {self._delimiter!r} would be found within the frame")
        return encoded


@final
class LinesCodec:
    """Lines of text, without their ends: ``decode`` accepts a line feed, also behind a carriage return.

    ``encode`` adds a line feed. The last line need not have one. `encoding` and `errors` are as for `open`; each line
    is decoded by itself, so an error is raised in its place, and with ``errors="replace"`` stays within its line.

    `max_length`, in bytes without the line feed, and `on_too_long` are as for `DelimiterCodec`. `encode` raises
    ValueError for text that would not be read as the same line. Raises ValueError for an `encoding` that is not known,
    or in which a line feed is not the one byte that it is in ASCII: UTF-16 and UTF-32. Raises TypeError for what is no
    string.

    >>> from yamanote.streams import LinesCodec
    >>> decoder = LinesCodec().decoder()
    >>> print(*decoder.feed(b"one\\r\\ntwo\\nthr"), *decoder.feed(b"ee"), *decoder.finish())
    one two three
    """

    __slots__ = ("_encoding", "_errors", "_max_length", "_on_too_long")

    def __init__(
        self,
        *,
        max_length: int | None = DEFAULT_LIMIT,
        encoding: str = "utf-8",
        errors: str = "strict",
        on_too_long: TooLong | None = None,
    ) -> None:
        for name, value in (("encoding", encoding), ("errors", errors)):
            if not isinstance(value, str):
                raise TypeError(f"{name} must be a string, not {value!r}")
        try:
            fits = "\n".encode(encoding) == b"\n"
        except LookupError:
            raise ValueError(f"encoding must be known to Python, not {encoding!r}") from None
        if not fits:
            raise ValueError(f"encoding must be one with a line feed as in ASCII, not {encoding!r}")
        try:
            codecs.lookup_error(errors)
        except LookupError:
            raise ValueError(f"errors must be known to Python, not {errors!r}") from None
        require_limit(max_length, on_too_long)
        self._max_length = max_length
        self._encoding = encoding
        self._errors = errors
        self._on_too_long = on_too_long

    def decoder(self) -> Decoder[str]:
        """A new decoder."""
        return _Lines(_Splitter(b"\n", self._max_length, self._on_too_long), self._encoding, self._errors)

    def encode(self, line: str, /) -> bytes:
        """`line` with a line feed. Raises ValueError if that would not be read as this line, and FrameTooLong."""
        if "\n" in line or line.endswith("\r"):
            raise ValueError(f"a line has no line feed, and no carriage return at its end: {line!r}")
        return fitting(line.encode(self._encoding, self._errors), self._max_length) + b"\n"


class _Splitter:
    """The frames between the delimiters."""

    __slots__ = ("_beginning", "_border", "_delimiter", "_limit", "_on_too_long", "_size")

    def __init__(self, delimiter: bytes, limit: int | None, on_too_long: TooLong | None) -> None:
        self._delimiter = delimiter
        self._limit = limit
        self._on_too_long = on_too_long
        self._beginning = bytearray()
        """Of the frame that has not ended; nothing if it is being passed over."""
        self._size = 0
        """How many bytes of that frame have come, apart from the border."""
        self._border = b""
        """Behind that, what the delimiter may have begun with."""

    def feed(self, data: bytes) -> Iterable[bytes]:
        data = self._border + data
        *frames, rest = data.split(self._delimiter)
        if self._limit is not None and self._size + len(data) > self._limit:
            return self._feed_measured(frames, rest)
        # Nothing here can be too long.
        if frames:
            frames[0] = self._end(frames[0])
        self._keep(rest)
        return frames

    def _feed_measured(self, frames: list[bytes], rest: bytes) -> Iterator[bytes]:
        limit = self._limit or 0
        for frame in frames:
            size = self._size + len(frame)
            whole = self._end(frame)
            if size <= limit:
                yield whole
            else:
                self._pass_over(size)
        self._keep(rest)
        if self._size > limit:
            if self._on_too_long is None:
                self._pass_over(self._size)
            self._beginning.clear()

    def _end(self, frame: bytes) -> bytes:
        """The frame that ends with `frame`."""
        if self._size:
            frame = bytes(self._beginning) + frame
            self._beginning.clear()
            self._size = 0
        return frame

    def _keep(self, rest: bytes) -> None:
        """Take `rest` for the frame that has not ended."""
        sure = max(0, len(rest) - len(self._delimiter) + 1)
        self._border = rest[sure:]
        self._beginning += rest[:sure]
        self._size += sure

    def _pass_over(self, size: int) -> None:
        error = FrameTooLong(size, self._limit or 0)
        if self._on_too_long is None:
            raise error
        self._on_too_long(error)

    def take_rest(self) -> bytes | None:
        """What has come of a frame that has not ended, if any; None if it was to be passed over."""
        size = self._size + len(self._border)
        if self._limit is not None and size > self._limit:
            self._pass_over(size)
            return None
        return bytes(self._beginning + self._border)

    def finish(self) -> Iterable[bytes]:
        rest = self.take_rest()
        if rest:
            raise IncompleteFrame(rest)
        return ()


class _Lines:
    """The frames of a splitter, as text."""

    __slots__ = ("_encoding", "_errors", "_frames")

    def __init__(self, frames: _Splitter, encoding: str, errors: str) -> None:
        self._frames = frames
        self._encoding = encoding
        self._errors = errors

    def feed(self, data: bytes) -> Iterator[str]:
        encoding = self._encoding
        errors = self._errors
        for line in self._frames.feed(data):
            yield line.removesuffix(b"\r").decode(encoding, errors)

    def finish(self) -> Iterable[str]:
        rest = self._frames.take_rest()
        return [rest.decode(self._encoding, self._errors)] if rest else ()
