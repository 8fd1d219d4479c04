"""What can go wrong with a channel: one tree, and every refused item comes back inside its error."""

from __future__ import annotations

from typing import Any

__all__ = ["ChannelClosed", "ChannelEmpty", "ChannelError", "ChannelFull", "HandleClosed"]


class ChannelError(Exception):
    """The root of all errors of channels."""

    refused: tuple[Any, ...]
    """The items that the failing call did not get accepted, in order. Empty for calls that receive."""

    def __init__(self, message: str, *refused: Any) -> None:
        super().__init__(message)
        self.refused = refused


class ChannelClosed(ChannelError):
    """The channel is closed: nothing more is accepted, or nothing more will come.

    `__cause__` is the error that the channel was closed with, if it was.
    """


class HandleClosed(ChannelClosed):
    """This very handle was closed before; the channel itself may live on."""


class ChannelFull(ChannelError):
    """There is no room now, or others wait for it already."""


class ChannelEmpty(ChannelError):
    """There is nothing to receive now, or others wait for it already."""
