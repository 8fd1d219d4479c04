"""The spellings that users have, as type checkers see them. Checked by `nox -s types`, never run."""

import asyncio
from asyncio import StreamReader, StreamWriter
from typing import Any, assert_type

import yamanote
from yamanote import channels, futures, runtime, server, sinks, streams, sync, threads, time
from yamanote.channels import Receiver, Sender, channel, channel_unbounded
from yamanote.futures import gather, join, race, select, task_set
from yamanote.runtime import (
    BlockingPool,
    Handle,
    JoinHandle,
    JoinMap,
    JoinSet,
    Runtime,
    Started,
    TaskGroup,
    concurrent_contexts,
    eager,
    lru_cache,
    map_blocking,
    prime,
    run,
    shield,
    shield_wait,
    spawn,
    spawn_blocking,
)
from yamanote.sinks import FileSink
from yamanote.streams import Stream
from yamanote.sync import Mutex
from yamanote.testing import ScriptedSink, ScriptedSource, duplex, step
from yamanote.threads import to_thread
from yamanote.time import timeout

assert_type(yamanote.channels.__name__, str)
assert_type([area.__name__ for area in (channels, futures, runtime, server, sinks)], list[str])
assert_type([area.__name__ for area in (streams, sync, threads, time)], list[str])

_ = yamanote.chanel  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]


async def length(word: str) -> int:
    return len(word)


async def ends_of_channels() -> None:
    tx, rx = channel[int](10)
    assert_type(tx, Sender[int])
    assert_type(await rx.recv(), int)
    assert_type(await rx.recv_many(3), list[int])
    assert_type([item async for item in rx], list[int])
    await tx.send("text")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    any_tx, any_rx = channel(10)  # no annotation needed
    assert_type(any_tx, Sender[Any])
    assert_type(any_rx, Receiver[Any])
    _, words = channel_unbounded[str]()
    assert_type(words, Receiver[str])
    assert_type(words.into_stream(), Stream[str])
    typed_tx: Sender[bytes]
    typed_rx: Receiver[bytes]
    typed_tx, typed_rx = channel(1)
    (await typed_tx.reserve()).send(b"")
    assert_type(typed_rx.blocking_recv(timeout=1.0), bytes)


async def ready(started: Started[int], word: str) -> None:
    started(len(word))


def runtimes(handle: Handle) -> None:
    with Runtime() as runtime:
        assert_type(runtime.run_until_complete(length("a")), int)
        assert_type(runtime.spawn(length("a")), JoinHandle[int])
    assert_type(handle.block_on(length("a")), int)


async def tasks() -> None:
    handle = spawn(length("a"))
    assert_type(handle, JoinHandle[int])
    assert_type(await handle, int)
    assert_type(await spawn(length("a"), length("b")), list[int])
    assert_type(await spawn_blocking(len, "a"), int)
    assert_type(await map_blocking(len, ["a", "b"]), list[int])
    assert_type(await to_thread(len, "a"), int)
    async with TaskGroup(limit=3) as group:
        assert_type(group.spawn(length("a")), JoinHandle[int])
        assert_type(await group.start(ready, "a"), int)
    async with JoinSet[int]() as set_of_tasks, JoinMap[str, int]() as by_name:
        set_of_tasks.spawn(length("a"))
        assert_type(await set_of_tasks.join_next(), JoinHandle[int] | None)
        by_name.spawn("a", length("a"))
        assert_type(await by_name.join_next(), tuple[str, JoinHandle[int]] | None)
    assert_type(eager(length("a")), asyncio.Task[int])
    assert_type(eager(length)("a"), asyncio.Task[int])
    assert_type(await prime(length("a")), int)
    assert_type(shield(length("a")), JoinHandle[int])
    assert_type(await shield_wait(length("a")), int)
    assert_type(await lru_cache(length)("a"), int)
    assert_type(await lru_cache(maxsize=2)(length)("a"), int)
    assert_type(BlockingPool(2).spawn(len, "a"), JoinHandle[int])
    async with concurrent_contexts(asyncio.timeout(1), asyncio.Lock()) as (limit, _):
        assert_type(limit, asyncio.Timeout)
    assert_type(await gather(length("a"), length("b")), list[int])
    assert_type(await join(length("a")), list[int])
    assert_type(await race(length("a"), length("b")), int)
    assert_type(await timeout(1, length("a")), int)
    async with timeout(1) as scope:
        assert_type(scope.cancelled_caught, bool)


async def selecting() -> None:
    _, rx = channel[int](1)
    match await select(job=rx, page=length("a")):
        case "job", job:
            assert_type(job, Any)
        case name, _:
            assert_type(name, str)
    assert_type(await select(task_set(a=length("a"))), tuple[str, int])


async def pipelines() -> None:
    numbers = streams.iter(["a", "b"]).map(length)
    assert_type(await numbers.buffered(2).collect(), list[int])
    assert_type(await streams.iter([1, 2]).map(str).filter(bool).enumerate().collect(), list[tuple[int, str]])
    assert_type(await streams.iter([1]).chunks(2).collect(), list[list[int]])
    await streams.iter(["line"]).forward(FileSink("lines.txt"))


async def contents() -> None:
    async with Mutex(0).lock() as guard:
        assert_type(guard.value, int)
    async with Mutex(dict[str, int]).lock() as guard_of_made:
        assert_type(guard_of_made.value, dict[str, int])


async def doubles() -> None:
    assert_type(step(length("a")).assert_ready(), int)
    assert_type([item async for item in ScriptedSource(1).wait(0.5).items(2)], list[int])
    assert_type(ScriptedSink[str]().accept(2).into_sink(), sinks.Sink[str])
    assert_type(duplex()[0], tuple[StreamReader, StreamWriter])


assert_type(run(length("a")), int)
