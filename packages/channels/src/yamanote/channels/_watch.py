"""The maker of watch channels."""

from __future__ import annotations

from typing import TypeVar

from yamanote.channels._watch_receiver import WatchReceiver
from yamanote.channels._watch_sender import WatchSender
from yamanote.channels._watched import Watched

__all__ = ["watch"]

T = TypeVar("T")


class watch(tuple[WatchSender[T], WatchReceiver[T]]):  # a class, so that the type of the values can be given
    """A channel for the newest value: each send replaces it, and every receiver learns that it has changed.

    For what has a state rather than a history: a configuration, the health of a service, progress. Begins with
    `initial`, which counts as seen. Both ends can be cloned, and used by any task of any loop and by any thread.

    For checkers, `watch[int | None](None)` gives the type of the values.

    >>> async def main():
    ...     tx, rx = watch("starting")
    ...     with tx, rx:
    ...         tx.send("ready")
    ...         await rx.changed()
    ...         return rx.borrow_and_update()
    >>> run(main())
    'ready'
    """

    def __new__(cls, initial: T) -> tuple[WatchSender[T], WatchReceiver[T]]:  # type: ignore[misc]  # a pair of ends
        """Make the two ends."""
        core = Watched(initial)
        return WatchSender(core), WatchReceiver(core, 0)
