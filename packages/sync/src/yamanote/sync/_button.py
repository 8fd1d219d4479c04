"""Button and cargo: wake everybody who waits now.

Invariant: a press wakes those, and only those, who began to wait before it; nothing is kept for who comes later.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Generic, TypeVar, final

from yamanote.runtime import Waiter, park, park_thread
from yamanote.sync._cell import VersionedCell, WaitStatistics

__all__ = ["Button", "Cargo"]

T = TypeVar("T")


class _Presses(Generic[T]):
    """What button and cargo have in common: to wait for the next press."""

    __slots__ = ("__weakref__", "_cell")

    _cell: VersionedCell[T]

    def __await__(self) -> Generator[Any, None, T]:
        return park(self).__await__()

    async def wait(self) -> T:
        """Wait for the next press: the same as to await it. Cancelling it loses nothing."""
        return await self

    def statistics(self) -> WaitStatistics:
        """Look at it, for logs and debuggers."""
        return self._cell.statistics()

    def register(self, waiter: Waiter[Any]) -> None:
        """Park `waiter` until the next press. See `yamanote.runtime.Selectable`."""
        self._cell.when_changed(self._cell.version).register(waiter)

    def withdraw(self, waiter: Waiter[Any]) -> None:
        """Forget `waiter`."""
        self._cell._withdraw(waiter)

    def __repr__(self) -> str:
        return (
            f"<{type(self).__name__} pressed {self._cell.version} times, {self._cell.parked} waiting at {id(self):#x}>"
        )


@final
class Button(_Presses[None]):
    """Wakes all who wait, first in, first out, each time when it is pressed: an `Event` that clears itself.

    A press is for who waits at that moment; who comes later waits for the next one. Await the button, call `wait`, or
    give it to `select`. All calls may come from any task of any loop and from any thread.

    >>> async def main():
    ...     refresh = Button()
    ...     task = asyncio.create_task(refresh.wait())
    ...     await asyncio.sleep(0)
    ...     refresh.press()
    ...     return await task
    >>> run(main())
    """

    __slots__ = ()

    def __init__(self) -> None:
        self._cell = VersionedCell(None)

    def press(self) -> None:
        """Wake everybody who waits. Never waits itself."""
        self._cell.set(None)

    def blocking_wait(self, timeout: float | None = None) -> bool:
        """`wait`, for plain threads: blocks for at most `timeout` seconds, and tells whether there was a press.

        Raises RuntimeError in a thread that runs an event loop.
        """
        return self._cell.when_changed(self._cell.version).blocking_wait(timeout)


@final
class Cargo(_Presses[T]):
    """A `Button` whose presses carry a value to all who wait.

    `cargo(value)` and `cargo.press(value)` are the same. It holds on to the last value, until the next one comes.

    >>> async def main():
    ...     news = Cargo()
    ...     tasks = [asyncio.create_task(news.wait()) for _ in range(2)]
    ...     await asyncio.sleep(0)
    ...     news.press("rain")
    ...     return await asyncio.gather(*tasks)
    >>> run(main())
    ['rain', 'rain']
    """

    __slots__ = ()

    def __init__(self) -> None:
        self._cell = VersionedCell[Any](None)

    def press(self, value: T) -> None:
        """Hand `value` to everybody who waits. Never waits itself."""
        self._cell.set(value)

    def __call__(self, value: T) -> None:
        """`press`."""
        self._cell.set(value)

    def blocking_wait(self, timeout: float | None = None) -> T:
        """`wait`, for plain threads: blocks for at most `timeout` seconds, then raises TimeoutError.

        Raises RuntimeError in a thread that runs an event loop.
        """
        return park_thread(self, timeout)
