"""Asynchronous streams with back-pressure: make one with `iter` or `async_stream`, chain operators, consume it.

>>> from yamanote import streams
>>> from yamanote.runtime import run
>>> run(streams.iter(range(5)).map(str).collect())
['0', '1', '2', '3', '4']
"""

from yamanote.streams._codec import Codec as Codec
from yamanote.streams._codec import Decoder as Decoder
from yamanote.streams._codec import Encoder as Encoder
from yamanote.streams._codec import FrameTooLong as FrameTooLong
from yamanote.streams._codec import IncompleteFrame as IncompleteFrame
from yamanote.streams._concurrently import buffer_aiter as buffer_aiter
from yamanote.streams._concurrently import map_concurrently as map_concurrently
from yamanote.streams._concurrently import zip_concurrently as zip_concurrently
from yamanote.streams._consuming import collect as collect
from yamanote.streams._consuming import reduce as reduce
from yamanote.streams._delimited import DelimiterCodec as DelimiterCodec
from yamanote.streams._delimited import LinesCodec as LinesCodec
from yamanote.streams._length_prefixed import LengthCodec as LengthCodec
from yamanote.streams._merge import merge as merge
from yamanote.streams._merge import select as select
from yamanote.streams._reading import read_chunks as read_chunks
from yamanote.streams._reading import read_file as read_file
from yamanote.streams._shared_stream import SharedStream as SharedStream
from yamanote.streams._sources import async_stream as async_stream
from yamanote.streams._sources import empty as empty
from yamanote.streams._sources import ensure_aiter as ensure_aiter
from yamanote.streams._sources import iter as iter
from yamanote.streams._sources import once as once
from yamanote.streams._sources import pending as pending
from yamanote.streams._sources import repeat as repeat
from yamanote.streams._sources import repeat_with as repeat_with
from yamanote.streams._sources import unfold as unfold
from yamanote.streams._stream import PeekableStream as PeekableStream
from yamanote.streams._stream import Stream as Stream
from yamanote.streams._stream_map import StreamMap as StreamMap

__all__ = [
    "Codec",
    "Decoder",
    "DelimiterCodec",
    "Encoder",
    "FrameTooLong",
    "IncompleteFrame",
    "LengthCodec",
    "LinesCodec",
    "PeekableStream",
    "SharedStream",
    "Stream",
    "StreamMap",
    "async_stream",
    "buffer_aiter",
    "collect",
    "empty",
    "ensure_aiter",
    "iter",
    "map_concurrently",
    "merge",
    "once",
    "pending",
    "read_chunks",
    "read_file",
    "reduce",
    "repeat",
    "repeat_with",
    "select",
    "unfold",
    "zip_concurrently",
]
