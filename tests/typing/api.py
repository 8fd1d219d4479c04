"""The spellings that users have, as type checkers see them. Checked by `nox -s types`, never run."""

import asyncio
import socket as standard
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Generator, Hashable
from pathlib import Path
from signal import Signals
from typing import Any, Literal, Never, assert_type

from prometheus_client import CollectorRegistry

import yamanote
from yamanote import channels, futures, net, runtime, server, sinks, streams, sync, threads, time
from yamanote.channels import (
    BroadcastReceiver,
    BroadcastSender,
    OneshotSender,
    Receiver,
    Sender,
    broadcast,
    channel,
    channel_unbounded,
    oneshot_channel,
    spsc_buffer,
)
from yamanote.futures import amass, as_completed_safe, gather, gather_safe, join, race, race_ok, select, task_set
from yamanote.net import socket
from yamanote.runtime import (
    BlockingPool,
    Clock,
    Handle,
    JoinHandle,
    JoinMap,
    JoinSet,
    Runtime,
    Selectable,
    Started,
    TaskGroup,
    concurrent_contexts,
    eager,
    generators,
    lru_cache,
    map_blocking,
    prime,
    run,
    shield,
    shield_wait,
    spawn,
    spawn_blocking,
)
from yamanote.server import (
    Connection,
    MainContext,
    Server,
    Shutdown,
    Subsystem,
    SupervisedTask,
    Supervisor,
    SupervisorError,
    WorkerContext,
    listen,
    serve,
    start_server,
)
from yamanote.sinks import FileSink
from yamanote.streams import Stream
from yamanote.sync import (
    Barrier,
    Cargo,
    Condition,
    FutureState,
    Guard,
    KeyedLock,
    Latch,
    Lock,
    Mutex,
    NestableLock,
    Notify,
    OnceCell,
    RwLock,
    Semaphore,
    SetOnce,
)
from yamanote.testing import ScriptedSink, ScriptedSource, duplex, step
from yamanote.threads import (
    Portal,
    ThreadsafeIterator,
    ThreadsafeLock,
    ThreadsafeState,
    ThreadTaskGroup,
    from_thread,
    launch_in_thread_loop,
    run_in_thread_loop_contextualized,
    threadsafe_agen,
    threadsafe_aiter,
    to_thread,
)
from yamanote.time import Schedule, timeout

assert_type(yamanote.channels.__name__, str)
assert_type([area.__name__ for area in (channels, futures, runtime, server, sinks)], list[str])
assert_type([area.__name__ for area in (net, streams, sync, threads, time)], list[str])

_ = yamanote.chanel  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]


async def length(word: str) -> int:
    return len(word)


async def shout(word: str) -> str:
    return word.upper()


async def ends_of_channels() -> None:
    tx, rx = channel[int](10)
    assert_type(tx, Sender[int])
    assert_type(await rx.recv(), int)
    assert_type(await rx.recv_many(3), list[int])
    assert_type([item async for item in rx], list[int])
    await tx.send("text")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert_type(await tx.reserve(), channels.Permit[int])
    assert_type(await select(sent=tx.sending(1), room=tx.reserving(2)), tuple[str, Any])
    assert_type(tx.reserving(2), Selectable[list[channels.Permit[int]]])
    assert_type(tx.blocking_reserve(timeout=1), channels.Permit[int])
    assert_type(rx.blocking_recv_many(3, timeout=1), list[int])
    assert_type(rx.clone(), Receiver[int])
    assert_type(channel[int](1, overflow="drop_oldest")[0], Sender[int])
    assert_type(channels.unbounded[int]()[0], channels.UnboundedSender[int])
    channel(1, overflow="drop")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
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


async def ends_of_watch_channels() -> None:
    tx, rx = channels.watch(0)
    assert_type(tx, channels.WatchSender[int])
    assert_type(rx, channels.WatchReceiver[int])
    assert_type(await rx.wait_for(lambda value: value > 2), int)
    assert_type([value async for value in rx], list[int])
    assert_type(tx.send_replace(1), int)
    assert_type(tx.subscribe().into_stream(), Stream[int])
    assert_type(tx.clone().into_sink(), sinks.Sink[int])
    assert_type(sinks.SenderSink(tx), sinks.SenderSink[int])
    tx.send_modify(lambda value: value + 1)
    tx.send("text")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    nothing_yet, _ = channels.watch[int | None](None)
    assert_type(nothing_yet, channels.WatchSender[int | None])


async def ends_of_broadcasts() -> None:
    tx, rx = broadcast[int](10, replay=1, overflow="suspend")
    assert_type(tx, BroadcastSender[int])
    assert_type(await tx.send(1), int)
    assert_type(tx.subscribe(), BroadcastReceiver[int])
    assert_type(rx.into_stream(), Stream[int])
    assert_type([item async for item in rx.clone()], list[int])
    await tx.send("text")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    broadcast(10, overflow="explode")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    any_tx, _ = broadcast(10)
    assert_type(any_tx, BroadcastSender[Any])


async def one_value_and_bytes() -> None:
    tx, rx = oneshot_channel[int]()
    assert_type(tx, OneshotSender[int])
    assert_type(await rx, int)
    assert_type(await rx.recv(), int)
    assert_type(rx.blocking_recv(timeout=1.0), int)
    assert_type(rx.into_stream(), Stream[int])
    tx.send("text")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    bytes_tx, bytes_rx = spsc_buffer(16)
    await bytes_tx.send(bytearray(b"a"))
    assert_type(bytes_tx.send_nowait(memoryview(b"a")), int)
    assert_type([chunk async for chunk in bytes_rx], list[bytes])
    await bytes_tx.send("text")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def ready(started: Started[int], word: str) -> None:
    started(len(word))


def runtimes(handle: Handle) -> None:
    with Runtime() as runtime:
        assert_type(runtime.run_until_complete(length("a")), int)
        assert_type(runtime.spawn(length("a")), JoinHandle[int])
    assert_type(handle.block_on(length("a")), int)


class StandsStill(Clock):
    def start(self, moment: float) -> None:
        self.moment = moment

    def time(self) -> float:
        return self.moment


def clocks(clock: time.VirtualClock) -> None:
    assert_type(run(length("a"), clock=clock), int)
    Runtime(clock=StandsStill())
    Runtime(clock=time)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Clock()  # type: ignore[abstract]  # pyright: ignore[reportAbstractUsage]
    with clock.patch_loop() as patched, StandsStill().patch_loop() as still:
        assert_type(patched, time.VirtualClock)
        assert_type(still, StandsStill)


def from_plain_threads(portal: Portal) -> None:
    assert_type(portal.call(length, "a"), int)
    assert_type(portal.call(len, "a"), int)
    portal.call(len, 1)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]


async def tasks() -> None:
    handle = spawn(length("a"))
    assert_type(handle, JoinHandle[int])
    assert_type(await handle, int)
    assert_type(await spawn(length("a"), length("b")), list[int])
    assert_type(await spawn(length("a"), on=0), int)
    assert_type(await spawn(length("a"), shout("b"), on=1), list[int | str])
    assert_type(await spawn_blocking(len, "a"), int)
    assert_type(await map_blocking(len, ["a", "b"]), list[int])
    assert_type(await to_thread(len, "a"), int)
    assert_type(await to_thread(from_thread, len, "a"), int)
    assert_type(await launch_in_thread_loop(length("a"), name="aside"), JoinHandle[int])
    async with run_in_thread_loop_contextualized(lambda: length("a")), ThreadTaskGroup(limit=2) as group:
        assert_type(group, ThreadTaskGroup)
        assert_type(group.spawn(length("a")), JoinHandle[int])
    async with Portal() as portal:
        assert_type(portal.spawn(length("a")), JoinHandle[int])
        assert_type(portal.spawn(lambda: length("a")), JoinHandle[int])
    assert_type(from_thread(length, "a"), int)
    assert_type(from_thread(len, "a"), int)
    async with TaskGroup(limit=3) as group:
        assert_type(group.spawn(length("a")), JoinHandle[int])
        assert_type(group.spawn(length("a"), on=1), JoinHandle[int])
        assert_type(await group.start(ready, "a"), int)
        assert_type(await group.start(ready, "a", on=1), int)
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
    assert_type(await gather(length("a"), length("b")), tuple[int, int])
    assert_type(await gather(length("a"), shout("b"), length("b"), limit=2), tuple[int, str, int])
    assert_type(await join(length("a"), shout("b")), tuple[int, str])
    assert_type(await join(length("a")), list[int])
    assert_type(await join(*[length("a"), length("b")]), list[int])
    assert_type(await race(length("a"), length("b")), int)
    assert_type(await race(length("a"), shout("b")), int | str)
    assert_type(await race(*[length("a"), length("b")]), int)
    assert_type(await race_ok(length("a"), shout("b")), int | str)
    assert_type(await race([length("a")]), int)
    assert_type(await race_ok(length("a"), length("b")), int)
    assert_type(await join(map(length, "ab")), list[int])
    assert_type(await gather(map(length, "ab"), limit=2, sensitive=False), list[int])
    assert_type(await gather(asyncio.Future[int]()), list[int])
    assert_type(await gather_safe(length("a"), shout("b")), tuple[int | BaseException, str | BaseException])
    assert_type(await gather_safe(map(length, "ab")), list[int | BaseException])
    assert_type(await futures.try_join(length("a"), shout("b")), tuple[int, str])
    assert_type(amass([length("a")]), futures.Completions[int])
    assert_type(task_set(a=length("a")), futures.TaskSet[int])
    assert_type(futures.failed_branch(LookupError()), tuple[str, ...])
    queue = futures.CompletionQueue[str, int]()
    assert_type(queue.add(length("a"), "key"), asyncio.Task[int])
    assert_type([end async for end in queue] + [await queue.pop()], list[tuple[str, asyncio.Task[int]]])
    assert_type(await select(end=queue, value=queue.until_empty()), tuple[str, Any])
    async with amass(map(length, "ab"), limit=2) as lengths:
        assert_type([value async for value in lengths], list[int])
    async with as_completed_safe([length("a")]) as ends:
        assert_type([end async for end in ends], list[JoinHandle[int]])
    async with task_set(a=length("a")) as lengths_by_name:
        assert_type([pair async for pair in lengths_by_name], list[tuple[str, int]])
    assert_type(await timeout(1, length("a")), int)
    value, in_time = await timeout(length("a"), 1)
    assert_type(value, int | None)
    assert_type(in_time, bool)
    assert_type(runtime.remaining(), float | None)
    assert_type(runtime.current_deadline(), float | None)
    async with timeout(1) as scope:
        assert_type(scope.cancelled_caught, bool)


def selecting_in_threads(stop: runtime.CancellationToken) -> None:
    assert_type(futures.blocking_select(stop=stop, timeout=1, biased=True), tuple[str, Any])
    assert_type(futures.blocking_select({"stop": stop}, off=None, else_=0), tuple[str, Any])
    assert_type(futures.blocking_select(task_set(a=length("a"))), tuple[str, int])
    assert_type(futures.blocking_select(task_set(a=length("a")), else_=None), tuple[str, int | None])
    futures.blocking_select(page=length("a"))  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]


async def selecting() -> None:
    _, rx = channel[int](1)
    match await select(job=rx, page=length("a")):
        case "job", job:
            assert_type(job, Any)
        case name, _:
            assert_type(name, str)
    assert_type(await select(task_set(a=length("a"))), tuple[str, int])
    assert_type(await select(task_set(a=length("a")), else_=None), tuple[str, int | None])
    assert_type(await select(job=None, else_="nothing"), tuple[str, Any])
    assert_type(await asyncio.create_task(select({"job": rx}, timeout=1, else_=None)), tuple[str, Any])


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
    with Mutex(0, poison=True).or_raise() as guard_at_once:
        assert_type(guard_at_once, Guard[int])


async def meetings() -> None:
    lock = RwLock()
    async with lock.write() as held, lock.read():
        assert_type(held.downgrade(), None)
    with lock.write().or_raise() as held_at_once:
        held_at_once.downgrade()
    async with Condition() as nothing, Barrier(1) as position:
        assert_type(nothing, None)
        assert_type(position, int)
    assert_type(await Condition().wait_for(lambda: 1), int)


async def signals() -> None:
    cell = OnceCell[int]()
    assert_type(await cell.get_or_init(lambda: 1), int)
    assert_type(await cell.get_or_init(lambda: length("a")), int)
    await cell.get_or_init(lambda: "a")  # type: ignore[arg-type,return-value]  # pyright: ignore[reportArgumentType]
    assert_type(cell.blocking_get_or_init(lambda: 1), int)
    once, cargo, latch = SetOnce[str](), Cargo[str](), Latch()
    once.set(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert_type([await once.wait(), once.get(), once.blocking_wait(1)], list[str])
    assert_type([await cargo, await cargo.wait(), cargo.blocking_wait()], list[str])
    assert_type([await latch.wait(), await latch.wait_set()], list[bool])
    assert_type(await Notify().notified(), None)
    assert_type(FutureState.absorb_lambda(lambda: 1), FutureState[int])
    assert_type(await FutureState.absorb_awaitable(length("a")), FutureState[int])
    with FutureState.absorb_context("done") as state:
        assert_type(state.result, str | None)
    with FutureState.absorb_context() as empty:
        assert_type(empty, FutureState[None])


async def doubles() -> None:
    assert_type(step(length("a")).assert_ready(), int)
    assert_type([item async for item in ScriptedSource(1).wait(0.5).items(2)], list[int])
    assert_type(ScriptedSink[str]().accept(2).into_sink(), sinks.Sink[str])
    assert_type(duplex()[0], tuple[StreamReader, StreamWriter])


assert_type(run(length("a")), int)
assert_type(run(length("a"), workers=2), int)


def yielding_length(word: str) -> Generator[Any, Any, int]:
    yield asyncio.sleep(1)
    with (yield Lock()()):
        with generators.scope() as s:
            assert_type(s.spawn(yielding_length(word), name="again"), JoinHandle[int])
            assert_type(s.spawn(length(word)), JoinHandle[int])
        yield s()
    assert_type(generators.spawn(yielding_length(word)), JoinHandle[int])
    assert_type(generators.spawn(yielding_length(word), length(word), eager=True), JoinHandle[list[int]])
    assert_type(generators.spawn(length(word), shout(word)), JoinHandle[list[int | str]])
    assert_type(generators.spawn(*[yielding_length(word)]), JoinHandle[list[int]])
    return len(word)


async def lengths_of_generators() -> None:
    assert_type(await generators.coroutine(yielding_length("a")), int)
    assert_type(await generators.coroutine(yielding_length)("a"), int)
    assert_type(asyncio.create_task(generators.coroutine(yielding_length("a"))), asyncio.Task[int])
    assert_type(await generators.map(yielding_length, ["a"]), list[int])
    assert_type(await generators.map(length, ["a"], limit=2), list[int])
    with await Lock()() as lock:
        assert_type(lock, Lock)
    with await Mutex([1]).lock() as numbers:
        assert_type(numbers, Guard[list[int]])


assert_type(generators.run(yielding_length("a"), debug=True), int)
assert_type(generators.run(length("a")), int)
assert_type(generators.main(yielding_length)("a"), int)
assert_type(generators.main(debug=True)(yielding_length)("a"), int)
assert_type(generators.main(length)("a"), int)
with generators.Runtime() as generators_runtime:
    assert_type(generators_runtime.run_until_complete(yielding_length("a")), int)
    assert_type(generators_runtime.spawn(yielding_length("a")), JoinHandle[int])
generators.run(5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def locks() -> None:
    keyed: KeyedLock[tuple[str, int]] = KeyedLock()
    keyed("user")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    async with keyed(("user", 1)), NestableLock() as nothing:
        assert_type(nothing, None)
    with Lock().or_raise() as taken:
        assert_type(taken, Lock)
    semaphore = Semaphore(3)
    assert_type(await semaphore.acquire_many(2), Literal[True])
    assert_type(semaphore.tokens(), int)
    with semaphore.acquire_many(1).or_raise() as some:
        assert_type(some.need, int)


@time.retry(time.Schedule.exponential(0.1).jittered().capped(5).retries(3), on=(OSError, EOFError))
async def fetch(url: str, *, limit: int = 1) -> bytes:
    return url.encode()[:limit]


@time.retry(time.Schedule.fixed(1))
async def lines(url: str) -> AsyncIterator[bytes]:
    yield url.encode()


async def retrying() -> None:
    assert_type(await fetch("a", limit=2), bytes)
    await fetch(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    schedule = time.Schedule(0, 1) + time.Schedule.fixed(1) & time.Schedule.fixed(2).total(10) | time.Schedule()
    assert_type([delay for delay in schedule], list[float])
    assert_type(time.retry(schedule, on=lambda error: "busy" in str(error))(len)("a"), int)
    limiter = time.RateLimiter(10, 60, burst=3)
    assert_type(await limiter.acquire(), None)
    assert_type(await limiter.acquire_many(2), None)
    assert_type(limiter.try_acquire(2), bool)
    limiter.blocking_acquire(timeout=1)
    limiter.acquire_many(2).blocking_acquire(1)
    assert_type([line async for line in lines("a")], list[bytes])


async def sleeping() -> None:
    nap = time.Sleep(1)
    assert_type(await nap, None)
    assert_type(await select(nap=nap), tuple[str, Any])
    assert_type(await time.timeout(1, nap), None)
    assert_type(time.Sleep.until(time.Instant.now() + 1), time.Sleep)
    assert_type(time.Instant.now() - time.instant(), float)
    time.Sleep("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def repeating() -> None:
    assert_type([tick async for tick in time.interval(1)], list[float])
    assert_type([tick async for tick in time.repeat_periodically(1)], list[float])
    assert_type(time.interval_at(time.time(), 1, time.MissedTickBehavior.SKIP), time.Interval)
    await time.sleep_until(time.instant() + 1)

    async def beat(interval: float) -> str:
        return "beat"

    async with time.create_timer(beat, 1, time.TimerDelayPolicy.CANCEL) as timer:
        assert_type(timer, time.Timer)
    assert_type(await timer, None)
    time.create_timer(len, 1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    queue = time.DelayQueue[bytes]()
    assert_type(queue.insert(b"item", 1), Hashable)
    assert_type(queue.insert_at(b"item", 1, key="key"), str)
    queue.insert("item", 1)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    assert_type([item async for item in queue] + [await queue.recv(), queue.remove("key")], list[bytes])
    if (first := queue.peek()) is not None:
        assert_type([first.item], list[bytes])


async def sharing() -> None:
    assert_type(await runtime.Shared(lambda: length("a"), again=True), int)
    page = futures.shared(length("a"))
    assert_type(page, futures.Shared[int])
    assert_type(await page, int)
    assert_type(await select(page=page), tuple[str, Any])
    assert_type([await futures.lazy(lambda: length("a")), await futures.lazy(lambda: 1, keep=True)], list[int])
    assert_type(await futures.ready("value"), str)
    flying = futures.single_flight(length)
    assert_type(await flying("a"), int)
    assert_type(flying.forget("a"), bool)
    await flying(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    flights = futures.SingleFlight[str, int]()
    assert_type([await flights.run("a", lambda: length("a")), await flights.run("b", lambda: 1)], list[int])
    await flights.run(1, lambda: 1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    futures.shared(length)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

    class Client:
        @futures.single_flight
        async def fetch(self, page: int) -> str:
            return str(page)

    assert_type(await Client().fetch(1), str)
    assert_type(Client().fetch.forget(1), bool)
    assert_type(await futures.pending(), Never)


async def bytes_and_frames(reader: StreamReader) -> None:
    assert_type(streams.read_chunks(reader), Stream[bytes])
    assert_type(streams.read_file("lines.txt", 1_000).lines(max_length=None), Stream[str])
    assert_type(streams.iter([bytearray(1)]).decode(streams.LengthCodec(2, "little")), Stream[bytes])
    codec: streams.Codec[str] = streams.LinesCodec(on_too_long=lambda error: print(error.size, error.limit))
    assert_type(await streams.read_chunks(reader).decode(codec).collect(), list[str])
    assert_type(streams.iter([b""]).decode(codec.decoder()), Stream[str])
    streams.iter(["text"]).lines()  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    assert_type(FileSink("bytes", encoding=None, mode="create").encode(codec), sinks.Sink[str])
    assert_type(FileSink("lines", mode="replace", fsync=True), FileSink[object])
    await FileSink("bytes", encoding=None).feed("text")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await streams.iter([b"bytes"]).forward(FileSink("bytes", encoding=None))


async def several_streams(letters: Stream[str], numbers: list[int]) -> None:
    assert_type(streams.merge(letters, ["more"]), Stream[str])
    assert_type(streams.iter(numbers).merge(letters), Stream[int | str])
    assert_type(streams.select(a=letters, b=streams.iter("b")), Stream[tuple[str, str]])
    assert_type(streams.iter([numbers]).flatten(), Stream[int])
    assert_type(streams.iter([letters]).flatten(2), Stream[str])
    assert_type(letters.flat_map(str.split), Stream[str])

    async def later(letter: str) -> list[int]:
        return [len(letter)]

    async def parts(letter: str) -> AsyncIterator[int]:
        yield len(letter)

    assert_type(streams.iter("ab").flat_map(later, concurrency=2), Stream[int])
    assert_type(streams.iter("ab").flat_map(parts), Stream[int])
    assert_type(streams.iter("ab").switch(length), Stream[int])
    assert_type(streams.iter("ab").switch(parts), Stream[int])
    streams.iter([1]).flatten()  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    async with streams.StreamMap[str, int]() as rooms:
        rooms.insert("a", numbers)
        rooms.insert("b", letters)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        assert_type([pair async for pair in rooms], list[tuple[str, int]])
        assert_type(rooms.remove("a"), Stream[int] | None)
        assert_type(rooms.failed_key, str | None)


async def sharing_streams() -> None:
    numbers = streams.iter([1, 2, 3])
    assert_type(await numbers.catch(lambda error: None).collect(), list[int])
    assert_type(await numbers.catch(lambda error: ["text"], on=ValueError).collect(), list[int | str])

    async def one(error: KeyError | OSError) -> AsyncIterator[str]:
        yield str(error)

    async def other(error: Exception) -> list[bytes] | None:
        return None

    assert_type(numbers.catch(one, on=(KeyError, OSError)), streams.Stream[int | str])
    assert_type(numbers.catch(other), streams.Stream[int | bytes])
    assert_type(numbers.catch(other, on=lambda error: bool(error.args)), streams.Stream[int | bytes])
    numbers.catch(one)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert_type(numbers.retry(time.Schedule(1), on=(KeyError, OSError)), streams.Stream[int])
    shared = numbers.share(1, replay=1, overflow="lag")
    assert_type(shared, streams.SharedStream[int])
    assert_type(shared.subscribe(), streams.Stream[int])
    assert_type([number async for number in shared], list[int])
    assert_type(numbers.broadcast(2, 10), tuple[streams.Stream[int], ...])
    numbers.share(1, overflow="error")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def timed(numbers: streams.Stream[int]) -> None:
    assert_type(numbers.timeout(1).throttle(0.5).debounce(1).sample(1), streams.Stream[int])
    assert_type(numbers.delay(1, limit=10).chunks_timeout(2, 1.5), streams.Stream[list[int]])


async def joined_streams() -> None:
    async def later(state: int) -> tuple[str, int] | None:
        return (str(state), state + 1) if state else None

    async def add(total: int, number: int) -> int:
        return total + number

    numbers = streams.iter([1, 2])
    assert_type(streams.once("a"), streams.Stream[str])
    assert_type(streams.repeat_with(int), streams.Stream[int])
    assert_type(streams.unfold(1, later), streams.Stream[str])
    assert_type(streams.empty(), streams.Stream[Never])
    assert_type(await numbers.chain(["a"]).collect(), list[int | str])
    assert_type(await numbers.zip("ab").collect(), list[tuple[int, str]])
    assert_type(await numbers.zip("ab", [b""], strict=True).first(), tuple[int, str, bytes])
    assert_type(await numbers.zip("ab").unzip(), tuple[list[int], list[str]])
    assert_type(await numbers.cycle().take_until(runtime.CancellationToken()).last(None), int | None)
    assert_type(await numbers.take_until(asyncio.sleep(1)).ready_chunks(3).collect(), list[list[int]])
    assert_type(await numbers.peekable().peek(None), int | None)
    assert_type(await numbers.fold("", lambda text, number: text + str(number)), str)
    assert_type(await numbers.fold(0, add), int)
    assert_type(await numbers.reduce(max), int)
    assert_type(await numbers.reduce(add), int)
    assert_type([await numbers.any(), await numbers.all(lambda number: number > 1)], list[bool])
    assert_type(await streams.collect("ab"), list[str])
    assert_type(await streams.reduce(add, [1, 2], initial=0), int)
    assert_type(streams.ensure_aiter([1]), AsyncIterator[int])
    streams.iter([1]).take_until(5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def concurrent_streams() -> None:
    names = streams.iter(["a", "b"])
    assert_type(streams.map_concurrently(length, ["a"], concurrency=2), Stream[int])
    assert_type(await names.map(length, concurrency=2, ordered=False).collect(), list[int])
    assert_type(streams.iter(["a"]).map(length).buffered(2), Stream[int])
    assert_type(streams.iter([length("a")]).buffered_unordered(2), Stream[int])
    assert_type(streams.iter("ab").prefetch(2).prefetch(None), Stream[str])
    assert_type(streams.buffer_aiter([1], size=None), Stream[int])
    assert_type(await streams.iter("ab").for_each(length, concurrency=2), None)
    assert_type(await streams.iter("ab").for_each(print), None)
    assert_type(streams.zip_concurrently([1]), Stream[tuple[int]])
    assert_type(streams.zip_concurrently([1], "a", streams.iter([b""])), Stream[tuple[int, str, bytes]])
    assert_type(streams.zip_concurrently(*[[1], [2]]), Stream[tuple[int, ...]])
    streams.iter([1]).map(length, concurrency=2)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await streams.iter("a").for_each(len, concurrency=2)  # type: ignore[arg-type]  # pyright: ignore
    streams.zip_concurrently(1)  # type: ignore[call-overload]  # pyright: ignore


async def every_sink(writer: StreamWriter) -> None:
    async def later(word: str) -> list[int]:
        return [len(word)]

    numbers = sinks.from_function(float.hex, close=print)
    assert_type(numbers, sinks.Sink[float])
    assert_type(numbers.with_flat_map(later), sinks.Sink[str])
    letters: sinks.Sink[str] = sinks.drain()
    assert_type(letters.with_flat_map(str.split), sinks.Sink[str])
    lists: sinks.Sink[list[int]] = sinks.from_function(print)
    assert_type(lists.retry(time.Schedule(1), on=(OSError, ValueError)), sinks.Sink[list[int]])
    assert_type(lists.batch(10, seconds=1).buffer(5), sinks.Sink[int])
    numbers.batch(3)  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    async with sinks.WriterSink(writer, half_close=True) as connection:
        await connection.send_all([b"bytes", bytearray(1)])
        await connection.feed("text")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def one_item_after_another() -> None:
    async def add_later(total: float, number: int) -> float:
        return total + number

    async def first_letter(word: str) -> str | None:
        return word[:1] or None

    words = streams.iter(["a", "b"])
    assert_type(await words.then(length).collect(), list[int])
    assert_type(await streams.iter([1]).then(lambda number: asyncio.sleep(number, "done")).collect(), list[str])
    assert_type(await streams.iter(["a"]).filter_map(first_letter).collect(), list[str])
    assert_type(await streams.iter(["a"]).filter_map({"a": 1}.get).collect(), list[int])
    assert_type(await streams.iter([1]).scan(0.5, add_later).collect(), list[float])
    assert_type(await streams.iter([1]).scan("", lambda text, number: text + str(number)).collect(), list[str])
    assert_type(await streams.iter(["a"]).inspect(print).inspect(length).collect(), list[str])
    assert_type(await streams.iter([1]).take_while(bool).skip_while(bool).skip(1).collect(), list[int])
    assert_type(await streams.iter(["a"]).dedup().dedup(key=str.lower).dedup(key=length).collect(), list[str])


async def every_socket() -> None:
    async with await socket.create_server(("127.0.0.1", socket.INADDR_ANY), family=socket.AF_INET) as server:
        connection, _ = await server.accept()
        assert_type(connection, socket.socket)
        assert_type(await connection.recv(10, socket.MSG_PEEK), bytes)
        assert_type(await connection.recv_into(bytearray(10)), int)
        assert_type(await connection.sendto(b"", 0, ("127.0.0.1", 9)), int)
        assert_type(connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR), int)
        assert_type(connection.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8), bytes)
        await connection.sendall("text")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert_type(socket.socketpair(), tuple[socket.socket, socket.socket])
    assert_type(await socket.gethostbyname("localhost"), str)
    assert_type(socket.inet_aton("127.0.0.1"), bytes)
    family, _, _, _, address = (await socket.getaddrinfo("localhost", 80))[0]
    with socket.socket(family) as client:
        await client.connect(address)


async def every_place_to_listen_on(handler: Callable[[StreamReader, StreamWriter], Coroutine[Any, Any, None]]) -> None:
    assert_type(serve(handler, None, 80, reuse_port=True), Server)
    assert_type(serve(handler, path=Path("socket"), mode=0o600, at_limit="refuse"), Server)
    serve(handler, "localhost", 80, path="socket")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    serve(handler, "localhost")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    serve(handler, path="socket", reuse_port=True)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    with standard.create_server(("localhost", 0)) as listening:
        assert_type(serve(handler, sock=[listening]), Server)
        async with listen(sock=listening) as listener:
            assert_type(await anext(listener), Connection)
            async for connection in listener:
                async with connection as same:
                    assert_type(same, Connection)
                    assert_type(same.reader, StreamReader)
            assert_type(listener.into_stream(), Stream[Connection])


async def sharing_across_threads(pages: AsyncGenerator[str, int]) -> None:
    state = ThreadsafeState[int | None](None)
    assert_type(state.value, int | None)
    assert_type(await state.wait(), int | None)
    assert_type(await state.wait_until(lambda value: value == 1), int | None)
    assert_type(state.blocking_wait_until(bool, timeout=1), int | None)
    assert_type(state.update_value(lambda value: value), int | None)
    state.set_value("")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    async with threadsafe_aiter(pages) as items, ThreadsafeLock():
        assert_type(items, ThreadsafeIterator[str])
        assert_type([page async for page in items], list[str])
        assert_type(list(items), list[str])
    async with threadsafe_agen(pages) as dialogue:
        assert_type(await dialogue.asend(1), str)
        assert_type(await dialogue.athrow(LookupError), str)


def work(number: int, name: str) -> int | None:
    return number if name else None


async def child_processes() -> None:
    async with await server.afork(work, 1, "one", name="first", method="forkserver") as child:
        assert_type(child, server.Child)
        assert_type(child.exitcode, int | None)
        assert_type(await child.wait(), int)
        assert_type(await child.stop(grace=None), int)
        assert_type(await select(ended=child), tuple[str, Any])
    await server.afork(work, 1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await server.afork(len, "")
    await server.afork(str)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def supervising() -> None:
    async def child(number: int, text: str) -> str:
        return text * number

    async def announced(started: Started[None], number: int) -> None:
        started()

    async with Supervisor("rest_for_one", backoff=Schedule.fixed(1)) as supervisor:
        assert_type(supervisor.spawn(child, 1, "a", restart="transient"), SupervisedTask)
        assert_type(await supervisor.start(announced, 1), SupervisedTask)
        supervisor.spawn(child, 1, 2)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        supervisor.spawn(child, 1, "a", restart="never")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Supervisor("all")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    error = SupervisorError("", [LookupError()])
    assert_type(error.exceptions, tuple[Exception | ExceptionGroup[Exception], ...])


@server.server
async def serving(loop: asyncio.AbstractEventLoop, index: int, args: list[int]) -> AsyncGenerator[str, Signals]:
    signum = yield "ready"
    assert_type(signum, Signals)


@server.main
def around() -> Generator[int, Signals]:
    yield 1


async def working() -> None:
    context = serving(asyncio.get_running_loop(), 0, [1])
    assert_type(context, WorkerContext[str])
    async with context as value:
        assert_type(value, str)
    assert_type(around(), MainContext[int])
    with around() as number:
        assert_type(number, int)
    start_server(serving, around, args=(1,), backoff=Schedule.fixed(1))
    start_server(working)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    start_server(serving, workers="fibres")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def parts_of_a_program(subsystem: Subsystem, port: int) -> None:
    async with Shutdown(timeout=None, signals=()) as shutdown:
        assert_type(shutdown, Shutdown)
        assert_type(shutdown.spawn(parts_of_a_program, 80, timeout=5), Subsystem)
        assert_type(await shutdown.start(parts_of_a_program, 80, on_error="report"), Subsystem)
        assert_type(await subsystem.start(parts_of_a_program, port, name="part"), Subsystem)
        assert_type(shutdown.signal, Signals | None)
        shutdown.spawn(parts_of_a_program, "80")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        shutdown.spawn(parts_of_a_program, 80, on_error="")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def health_of_a_program(loop: asyncio.AbstractEventLoop) -> None:
    registry = CollectorRegistry()
    registry.register(server.RuntimeCollector())
    registry.register(server.RuntimeCollector({"0": loop}))
    with server.Health() as health, health.part("database") as database:
        database.ready()
        assert_type(health.state.parts["database"], server.PartState)
        with health.subscribe() as receiver:
            assert_type(receiver.borrow_and_update(), server.HealthState)
        async with server.probes(health, None, 9000, reuse_port=True, registry=registry) as probing:
            assert_type(probing, server.Server)
    server.probes(health, None, 9000, registry=server.RuntimeCollector())  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
