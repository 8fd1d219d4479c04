"""Channels: hand items from task to task, from thread to thread, and close when there is nothing more to hand over.

`channel` and `channel_unbounded` make the two ends of a queue with many senders and many receivers. Every end is closed
explicitly (`close`, `with`, `async with`), can be cloned, and works for tasks of any event loop and for plain threads.
"""

from yamanote.channels._channel import channel as channel
from yamanote.channels._channel import channel_unbounded as channel_unbounded
from yamanote.channels._errors import ChannelClosed as ChannelClosed
from yamanote.channels._errors import ChannelEmpty as ChannelEmpty
from yamanote.channels._errors import ChannelError as ChannelError
from yamanote.channels._errors import ChannelFull as ChannelFull
from yamanote.channels._errors import HandleClosed as HandleClosed
from yamanote.channels._handle import ChannelStatistics as ChannelStatistics
from yamanote.channels._receiver import Receiver as Receiver
from yamanote.channels._sender import Permit as Permit
from yamanote.channels._sender import Sender as Sender
from yamanote.channels._sender import UnboundedSender as UnboundedSender
from yamanote.channels._sender import WeakSender as WeakSender

__all__ = [
    "ChannelClosed",
    "ChannelEmpty",
    "ChannelError",
    "ChannelFull",
    "ChannelStatistics",
    "HandleClosed",
    "Permit",
    "Receiver",
    "Sender",
    "UnboundedSender",
    "WeakSender",
    "channel",
    "channel_unbounded",
]
