"""The two simplest awaitables: the value that is there, and the one that never comes."""

from __future__ import annotations

import asyncio
from typing import NoReturn, TypeVar

from yamanote.runtime import cooperative

__all__ = ["pending", "ready"]

T = TypeVar("T")


async def ready(value: T) -> T:
    """Return `value`: for who needs an awaitable and has a value.

    Takes no loop turn, up to the cooperative budget.

    >>> run(ready(1))
    1
    """
    await cooperative()
    return value


async def pending() -> NoReturn:
    """Wait for ever: for who needs an awaitable, and nothing is to come of it.

    **Cancel safety**: ends when it is cancelled, and in no other way.

    >>> run(race(pending(), ready(1)))
    1
    """
    while True:
        await asyncio.get_running_loop().create_future()
