"""Shared: one coroutine for many who await it."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TypeVar

from yamanote.futures._ownership import require_awaitables
from yamanote.runtime import Shared

__all__ = ["Shared", "shared"]

T = TypeVar("T")


def shared(awaitable: Awaitable[T], *, keep: bool = False) -> Shared[T]:
    """Let any number of tasks await `awaitable`, which runs once.

    It begins when somebody awaits it, in a task of its own, with a copy of that one's context. With `keep` it goes on
    to its end even if nobody waits for it any more. A future, task or join handle that is passed in is only observed:
    it goes on in any case.

    Raises TypeError for what cannot be awaited.

    >>> async def fetch():
    ...     print("fetch")
    ...     return "page"
    >>> async def main():
    ...     page = shared(fetch())
    ...     return await asyncio.gather(page, page), await page
    >>> run(main())
    fetch
    (['page', 'page'], 'page')
    """
    require_awaitables([awaitable])
    return Shared(lambda: awaitable, keep=keep, name=getattr(awaitable, "__name__", None))
