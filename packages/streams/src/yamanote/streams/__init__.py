"""Asynchronous streams with back-pressure: make one with `iter` or `async_stream`, chain operators, consume it.

>>> from yamanote import streams
>>> from yamanote.runtime import run
>>> run(streams.iter(range(5)).map(str).collect())
['0', '1', '2', '3', '4']
"""

from yamanote.streams._sources import async_stream as async_stream
from yamanote.streams._sources import iter as iter
from yamanote.streams._stream import Stream as Stream

__all__ = ["Stream", "async_stream", "iter"]
