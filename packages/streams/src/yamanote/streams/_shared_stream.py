"""SharedStream: where streams of the same items are taken from."""

from __future__ import annotations

import warnings
from types import TracebackType
from typing import TYPE_CHECKING, Generic, Self, TypeVar, final

from yamanote.streams._shared import Hub
from yamanote.streams._thrown_away import close_or_abandon

if TYPE_CHECKING:
    from yamanote.streams._stream import Stream

__all__ = ["SharedStream"]

T_co = TypeVar("T_co", covariant=True)


@final
class SharedStream(Generic[T_co]):
    """One source for any number of subscribers. Made by `Stream.share`, which tells what they get.

    Each ``async for`` over it, and each `subscribe`, is a stream of its own, which is closed like any other: use
    ``async with`` where you may leave it early. When the last one has left, the source is closed.
    """

    __slots__ = ("__weakref__", "_hub")

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    def subscribe(self) -> Stream[T_co]:
        """One more stream, of what comes from now on; first of the replay.

        After the end of the source it is a stream of the replay, and ends, or fails, as all others did. Raises
        RuntimeError once this is closed, by itself or because the last subscriber has left before the end.
        """
        from yamanote.streams._stream import stream_of  # which has this among its operators

        return stream_of(self._hub.subscribe())

    def __aiter__(self) -> Stream[T_co]:
        return self.subscribe()

    async def aclose(self) -> None:
        """Close the source, and wait until that is done. The subscribers get what has come already, and the end.

        **Cancel safety**: is waited for all the same.
        """
        await self._hub.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is GeneratorExit:
            await close_or_abandon(self._hub, traceback)
        else:
            await self._hub.close()

    def __del__(self) -> None:
        hub = self._hub
        if hub.is_deserted and (leftover := hub.leftover) is not None:
            hub.abandon()
            warnings.warn(
                f"{self!r} was dropped with {leftover}: use `async with`, or aclose()",
                ResourceWarning,
                stacklevel=2,
                source=self,
            )

    def __repr__(self) -> str:
        return f"<SharedStream {self._hub}>"
