"""What can go wrong with a channel: one tree, and every refused item comes back inside its error."""

from __future__ import annotations

from typing import Any

__all__ = ["ChannelClosed", "ChannelEmpty", "ChannelError", "ChannelFull", "HandleClosed", "IncompleteRead", "Lagged"]


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


class IncompleteRead(ChannelClosed):
    """The channel ended in the middle of what was to be read."""

    partial: bytes
    """What was left."""
    expected: int
    """How many bytes were to be read."""

    def __init__(self, partial: bytes, expected: int) -> None:
        super().__init__(f"the channel ended after {len(partial)} of {expected} bytes")
        self.partial = partial
        self.expected = expected

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.partial, self.expected), self.__dict__


class ChannelFull(ChannelError):
    """There is no room now, or others wait for it already."""


class ChannelEmpty(ChannelError):
    """There is nothing to receive now, or others wait for it already."""


class Lagged(ChannelError):
    """This receiver of a broadcast channel was too slow: items were dropped for it. Those behind them still come."""

    missed: int
    """How many items it will never get; what it was told before is not counted again."""

    def __init__(self, missed: int) -> None:
        super().__init__(f"{missed} items were missed")
        self.missed = missed

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.missed,), self.__dict__
