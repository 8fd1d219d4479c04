"""Channels: hand items from task to task, from thread to thread, and close when there is nothing more to hand over.

`channel` and `channel_unbounded` make the two ends of a queue with many senders and many receivers. Every end is closed
explicitly (`close`, `with`, `async with`), can be cloned, and works for tasks of any event loop and for plain threads.
"""

from yamanote.channels._broadcast import broadcast as broadcast
from yamanote.channels._broadcast_handle import BroadcastStatistics as BroadcastStatistics
from yamanote.channels._broadcast_receiver import BroadcastReceiver as BroadcastReceiver
from yamanote.channels._broadcast_sender import BroadcastSender as BroadcastSender
from yamanote.channels._bytes import BytesReceiver as BytesReceiver
from yamanote.channels._bytes import BytesSender as BytesSender
from yamanote.channels._bytes import spsc_buffer as spsc_buffer
from yamanote.channels._channel import channel as channel
from yamanote.channels._channel import channel_unbounded as channel_unbounded
from yamanote.channels._channel import channel_unbounded as unbounded
from yamanote.channels._errors import ChannelClosed as ChannelClosed
from yamanote.channels._errors import ChannelEmpty as ChannelEmpty
from yamanote.channels._errors import ChannelError as ChannelError
from yamanote.channels._errors import ChannelFull as ChannelFull
from yamanote.channels._errors import HandleClosed as HandleClosed
from yamanote.channels._errors import IncompleteRead as IncompleteRead
from yamanote.channels._errors import Lagged as Lagged
from yamanote.channels._handle import ChannelStatistics as ChannelStatistics
from yamanote.channels._oneshot import OneshotReceiver as OneshotReceiver
from yamanote.channels._oneshot import OneshotSender as OneshotSender
from yamanote.channels._oneshot import oneshot_channel as oneshot_channel
from yamanote.channels._permit import Permit as Permit
from yamanote.channels._receiver import Receiver as Receiver
from yamanote.channels._sender import Sender as Sender
from yamanote.channels._sender import WeakSender as WeakSender
from yamanote.channels._unbounded import UnboundedSender as UnboundedSender
from yamanote.channels._watch import watch as watch
from yamanote.channels._watch_receiver import WatchReceiver as WatchReceiver
from yamanote.channels._watch_sender import WatchSender as WatchSender

__all__ = [
    "BroadcastReceiver",
    "BroadcastSender",
    "BroadcastStatistics",
    "BytesReceiver",
    "BytesSender",
    "ChannelClosed",
    "ChannelEmpty",
    "ChannelError",
    "ChannelFull",
    "ChannelStatistics",
    "HandleClosed",
    "IncompleteRead",
    "Lagged",
    "OneshotReceiver",
    "OneshotSender",
    "Permit",
    "Receiver",
    "Sender",
    "UnboundedSender",
    "WatchReceiver",
    "WatchSender",
    "WeakSender",
    "broadcast",
    "channel",
    "channel_unbounded",
    "oneshot_channel",
    "spsc_buffer",
    "unbounded",
    "watch",
]
