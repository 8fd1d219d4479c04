"""Decode: from bytes, cut anywhere, to the frames in them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from yamanote.streams._arguments import name_of
from yamanote.streams._codec import Codec, Decoder
from yamanote.streams._stages import Finish, Put, Stage

__all__ = ["Decode"]


class Decode(Stage):
    """The frames that a decoder finds. What is left over waits in the decoder."""

    __slots__ = ("_decoder", "_label")

    def __init__(self, codec: Codec[Any] | Decoder[Any], label: str | None = None) -> None:
        self._label = f"decode({name_of(codec)})" if label is None else label
        make = None if isinstance(codec, type) else getattr(codec, "decoder", None)
        decoder: Any = codec if make is None else make()
        if isinstance(decoder, type) or not (hasattr(decoder, "feed") and hasattr(decoder, "finish")):
            raise TypeError(f"codec must be a codec or a decoder, with feed() and finish(), not {codec!r}")
        self._decoder: Decoder[Any] = decoder

    def attach(self, items: Iterator[Any]) -> Iterator[Any]:
        feed = self._decoder.feed
        for item in items:
            yield from feed(_as_bytes(item))

    def attach_last(self, items: Iterator[Any]) -> Iterator[Any]:
        yield from self.attach(items)
        yield from self._decoder.finish()

    def link(self, put: Put, finish: Finish) -> tuple[Put, Finish]:
        feed = self._decoder.feed

        def put_frames(item: Any) -> None:
            for frame in feed(_as_bytes(item)):
                put(frame)

        def put_rest() -> None:
            for frame in self._decoder.finish():
                put(frame)
            finish()

        return put_frames, put_rest

    def __str__(self) -> str:
        return self._label


def _as_bytes(item: Any) -> bytes:
    """What is in `item` now: who gave a buffer may change it afterwards."""
    if type(item) is bytes:
        return item
    if isinstance(item, bytes | bytearray | memoryview):
        return bytes(item)
    raise TypeError(f"decode() needs items of bytes, not {item!r}")
