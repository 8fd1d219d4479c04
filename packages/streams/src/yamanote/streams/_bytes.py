"""The operators for streams of bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from yamanote.streams._arguments import name_of
from yamanote.streams._codec import DEFAULT_LIMIT, Codec, Decoder, TooLong
from yamanote.streams._decode import Decoded, decoder_of
from yamanote.streams._delimited import LinesCodec
from yamanote.streams._handle import Handle

if TYPE_CHECKING:
    from yamanote.streams._stream import Stream

__all__ = ["Bytes"]

T_co = TypeVar("T_co", covariant=True)
U = TypeVar("U")


class Bytes(Handle[T_co]):
    """Bytes, cut anywhere."""

    __slots__ = ()

    def decode(self: Handle[bytes | bytearray | memoryview], codec: Codec[U] | Decoder[U]) -> Stream[U]:
        """The frames that `codec` finds in the bytes, whatever the pieces in which they come.

        A `LinesCodec`, `DelimiterCodec` or `LengthCodec`, or one of your own; also a `Decoder`, which serves this one
        stream. Raises TypeError for anything else.

        An item that is not bytes, and a frame that is too long, broken or not complete at the end, is an error, raised
        behind the frames before it. **Cancel safety**: what has come of a frame is kept.

        >>> from yamanote import streams
        >>> from yamanote.runtime import run
        >>> from yamanote.streams import LengthCodec
        >>> run(streams.iter([b"\\x02hi\\x05he", b"llo"]).decode(LengthCodec(1)).collect())
        [b'hi', b'hello']
        """
        decoder = decoder_of(codec)
        return self._moved_into(Decoded[U](self._owned, decoder, f"decode({name_of(codec)})"))

    def lines(
        self: Handle[bytes | bytearray | memoryview],
        *,
        max_length: int | None = DEFAULT_LIMIT,
        encoding: str = "utf-8",
        errors: str = "strict",
        on_too_long: TooLong | None = None,
    ) -> Stream[str]:
        """The lines of text in the bytes, without their ends: `decode` with a `LinesCodec` of these arguments.

        >>> from yamanote import streams
        >>> from yamanote.runtime import run
        >>> run(streams.iter([b"one\\ntw", b"o\\r\\nthree"]).lines().collect())
        ['one', 'two', 'three']
        """
        codec = LinesCodec(max_length=max_length, encoding=encoding, errors=errors, on_too_long=on_too_long)
        return self._moved_into(Decoded[str](self._owned, codec.decoder(), "lines()"))
