"""Decode: from bytes, cut anywhere, to the frames in them, and on through stages.

Invariant: the stages are attached to a part of the frames at a time, so no function is called with a frame before
somebody asks for a result; the next piece is pulled when the frames of the last one have been taken. The loop gets its
turn once per `BUDGET` frames, or per batch of a terminal, however many of them are in a piece. A pull that is cancelled
has changed nothing.
"""

from __future__ import annotations

import asyncio
import builtins
from collections.abc import Callable, Iterable, Iterator
from itertools import compress, islice, repeat
from operator import length_hint
from typing import Any, TypeVar

from yamanote.runtime import BUDGET, yield_now
from yamanote.streams._codec import Codec, Decoder
from yamanote.streams._operator import Operator
from yamanote.streams._pipeline import Pace, Pipeline, explained
from yamanote.streams._stages import Stage, add_stage, as_written, attach_all, attach_all_last

__all__ = ["Decoded", "decoder_of"]

T_co = TypeVar("T_co", covariant=True)


def decoder_of(codec: Codec[Any] | Decoder[Any]) -> Decoder[Any]:
    """What decodes one stream. Raises TypeError for what cannot."""
    make = None if isinstance(codec, type) else getattr(codec, "decoder", None)
    decoder: Any = codec if make is None else make()
    if isinstance(decoder, type) or not (hasattr(decoder, "feed") and hasattr(decoder, "finish")):
        raise TypeError(f"codec must be a codec or a decoder, with feed() and finish(), not {codec!r}")
    return decoder  # type: ignore[no-any-return]


class Decoded(Operator[T_co]):
    """The frames that a decoder finds, and stages. What is left over of a piece waits in the decoder."""

    __slots__ = (
        "_budget",
        "_decoder",
        "_ended",
        "_frames",
        "_label",
        "_last",
        "_part",
        "_pulled",
        "_source",
        "_stages",
        "_started",
        "waits",
    )

    def __init__(self, source: Pipeline[Any], decoder: Decoder[Any], label: str) -> None:
        super().__init__(source)
        self.waits = source.waits
        self._source = source
        self._decoder = decoder
        self._label = label
        self._stages: list[Stage] = []
        self._frames: Iterator[Any] = builtins.iter(())
        """What has not been taken yet of the frames in a piece."""
        self._part: Iterator[Any] = builtins.iter(())
        """The results for some of them."""
        self._budget = repeat(True, BUDGET)
        """One for each frame that may be taken before the loop gets its turn: the interpreter counts them."""
        self._started = False
        self._pulled = False
        self._ended = False
        """Whether there are no more pieces."""
        self._last = False
        """Whether there are no more parts."""

    async def pull(self) -> T_co:
        while True:
            try:
                for item in self._part:
                    return item  # type: ignore[no-any-return]
            except (Exception, asyncio.CancelledError) as error:  # nobody has cancelled us: nothing was awaited
                await self._end(error)
                self.raise_end()
            if self._over or self._last:
                await self._finish()
            self._refuse_another()
            try:
                await self._next_part(None)
            except Exception as error:
                await self._end(error)
                self.raise_end()

    async def drain(self, put: Callable[[T_co], object]) -> None:
        def put_all(items: Iterable[T_co]) -> None:
            for item in items:
                put(item)

        await self._drain(put_all)

    async def collect(self) -> list[T_co]:
        items: list[T_co] = []
        await self._drain(items.extend, gather=True)
        return items

    async def _drain(self, put_all: Callable[[Iterable[T_co]], object], *, gather: bool = False) -> None:
        self._refuse_another()
        pace = Pace()
        try:
            while True:
                put_all(self._part)
                if self._error is not None:
                    self.raise_end()
                if self._over or self._last:
                    return
                await self._next_part(pace, gather=gather)
        except StopAsyncIteration as end:
            raise explained(end) from end
        finally:
            self._over = True
            self._part = builtins.iter(())

    def _refuse_another(self) -> None:
        if self._pulled:
            raise RuntimeError(f"{self} is being pulled by another task already")

    async def _next_part(self, pace: Pace | None, *, gather: bool = False) -> None:
        """Attach the stages to the next frames; once, at the end, to nothing."""
        self._pulled = self._started = True
        try:
            left = length_hint(self._budget)
            if any(stage.full for stage in self._stages) or (left and self._ended):
                self._last = True
                self._part = attach_all_last(self._stages)
                return
            if left:  # the frames were fewer
                await self._next_piece()
            else:
                await (yield_now() if pace is None else pace.rest())
                left = BUDGET if pace is None else pace.size
                self._budget = repeat(True, left)
        finally:
            self._pulled = False
        if self._over:  # it has been closed meanwhile
            return
        self._part = attach_all(self._stages, compress(islice(self._frames, left), self._budget), gather=gather)

    async def _next_piece(self) -> None:
        try:
            piece = await self._source.pull()
        except StopAsyncIteration:
            self._ended = True
            self._frames = _rest(self._decoder)
        else:
            self._frames = _found(self._decoder, piece)

    async def _close(self) -> None:
        self._part = self._frames = builtins.iter(())
        await super()._close()

    def then(self, stage: Stage) -> Pipeline[Any]:
        if self._started:
            self._stages.append(stage)
            self._part = stage.attach_last(self._part) if self._last else stage.attach(self._part)
        else:
            add_stage(self._stages, stage)
        return self

    def __str__(self) -> str:
        return as_written(self._source, self._label, *self._stages)


def _found(decoder: Decoder[Any], piece: Any) -> Iterator[Any]:
    if type(piece) is not bytes:
        if not isinstance(piece, bytes | bytearray | memoryview):
            raise TypeError(f"decode() needs items of bytes, not {piece!r}")
        piece = bytes(piece)  # who gave a buffer may change it afterwards
    yield from decoder.feed(piece)


def _rest(decoder: Decoder[Any]) -> Iterator[Any]:
    yield from decoder.finish()
