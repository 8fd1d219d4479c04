"""How many bytes each thing takes that a program may have many of, and each party that waits for one.

Run it: `python benchmarks/memory.py`. The ratio is to what asyncio takes for the same; less is better. A figure is the
mean over a thousand, as tracemalloc counts them, and the same in every run of one Python. What all of a kind share,
such as its class, is not counted; what one of them holds is. A party that waits counts with its coroutine and without
its task, which is the same for all.
"""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

from report import Report

from yamanote.channels import broadcast, channel, channel_unbounded, oneshot_channel, watch
from yamanote.sync import Barrier, Condition, Event, Lock, Mutex, Notify, OnceCell, RwLock, Semaphore

__all__ = ["Row", "rows", "size"]

Make = Callable[[], Any]
"""Makes one, or begins to wait for one."""


@dataclass(frozen=True)
class Row:
    """The same thing, of asyncio and of ours."""

    name: str
    asyncio: Make
    yamanote: Make


def rows(end: ExitStack) -> list[Row]:
    """Everything that is measured. Needs a running loop; `end` lets those go on that stand in the way of a waiter."""
    loop = asyncio.get_running_loop()
    tx, rx = channel_unbounded[int]()
    end.callback(rx.close)
    end.callback(tx.close)
    return [
        Row("channel, cap=100", partial(asyncio.Queue, 100), partial(channel, 100)),
        Row("channel, unbounded", asyncio.Queue, channel_unbounded),
        Row("oneshot", loop.create_future, oneshot_channel),
        Row("watch (asyncio: condition)", asyncio.Condition, partial(watch, None)),
        Row("broadcast, cap=100, one receiver", partial(asyncio.Queue, 100), partial(broadcast, 100)),
        Row("lock", asyncio.Lock, Lock),
        Row("mutex (asyncio: lock)", asyncio.Lock, partial(Mutex, None)),
        Row("rwlock (asyncio: lock)", asyncio.Lock, RwLock),
        Row("semaphore", partial(asyncio.Semaphore, 10), partial(Semaphore, 10)),
        Row("event", asyncio.Event, Event),
        Row("notify (asyncio: event)", asyncio.Event, Notify),
        Row("condition", asyncio.Condition, Condition),
        Row("barrier", partial(asyncio.Barrier, 10), partial(Barrier, 10)),
        Row("once cell (asyncio: lock)", asyncio.Lock, OnceCell),
        Row("a party that waits for an item", waiting(asyncio.Queue[int]().get), waiting(rx.recv)),
        Row(
            "a party that waits for a lock",
            waiting(held(asyncio.Lock(), end).acquire),
            waiting(held(Lock(), end).acquire),
        ),
        Row("a party that waits for an event", waiting(asyncio.Event().wait), waiting(Event().wait)),
    ]


def held(lock: Any, end: ExitStack) -> Any:
    """The lock, which somebody has."""
    started(lock.acquire())
    end.callback(lock.release)
    return lock


def waiting(wait: Callable[[], Awaitable[Any]]) -> Make:
    """Begins to wait, and stays there."""
    return lambda: started(wait())


def started(awaitable: Awaitable[Any]) -> Any:
    """Run it as far as it goes without a loop."""
    steps: Any = awaitable if asyncio.iscoroutine(awaitable) else awaitable.__await__()
    try:
        steps.send(None)
    except StopIteration:
        pass
    return steps


def size(make: Make, count: int = 1000) -> float:
    """The bytes that one takes: the mean over so many."""
    things: list[Any] = [make()]  # what is made only once is made here
    close(things)
    things = [None] * count
    gc.collect()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for number in range(count):
            things[number] = make()
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    close(things)
    return (after - before) / count


def close(things: list[Any]) -> None:
    """Close the ends of channels, and who waits; the last one first, as they stand in a queue."""
    while things:
        thing = things.pop()
        for end in thing if isinstance(thing, tuple) else (thing,):
            if hasattr(end, "close"):
                end.close()


async def main() -> None:
    print(f"{'bytes each':36}{'asyncio':>9}{'yamanote':>9}{'ratio':>7}")
    with ExitStack() as end:
        for row in rows(end):
            theirs, ours = size(row.asyncio), size(row.yamanote)
            print(f"{row.name:36}{theirs:9.0f}{ours:9.0f}{ours / theirs:7.2f}")
    print(Report.of("memory", []).interpreter)


if __name__ == "__main__":
    asyncio.run(main())
