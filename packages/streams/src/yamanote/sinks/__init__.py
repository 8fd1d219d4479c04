"""Where streams end: sinks accept items with back-pressure, and lose none of what they accepted.

>>> from yamanote import sinks, streams
>>> from yamanote.runtime import run
>>> run(streams.iter(range(5)).forward(sinks.drain()))
"""

from yamanote.sinks._file import FileSink as FileSink
from yamanote.sinks._from_function import from_function as from_function
from yamanote.sinks._sender import SenderSink as SenderSink
from yamanote.sinks._sender import drain as drain
from yamanote.sinks._sink import Sink as Sink
from yamanote.sinks._sink import SinkClosed as SinkClosed
from yamanote.sinks._writer import WriterSink as WriterSink

__all__ = [
    "FileSink",
    "SenderSink",
    "Sink",
    "SinkClosed",
    "WriterSink",
    "drain",
    "from_function",
]
