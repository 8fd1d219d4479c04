"""Channels against `asyncio.Queue`, and against everybody else's queues and channels.

The workloads of crossbeam's and Tokio's suites: one or ten senders, one or ten receivers, capacities of 1, 100 and
without end; then one value, the newest value, and items for everybody. Every library runs the same code on bound
methods of its own; that every item arrived, once and in order, is checked when the clock has stopped.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from functools import partial
from typing import Any, NamedTuple

from harness import Version, Workload, check, main
from peers import installed, load

from yamanote.channels import broadcast, channel, channel_unbounded, oneshot_channel, watch
from yamanote.futures import select

aiochan = load("aiochan")
aiochannel = load("aiochannel")
aiologic = load("aiologic")
anyio = load("anyio")
culsans = load("culsans")
janus = load("janus")
kioto = load("kioto.channels")

# ------------------------------------------------------------------------------------------------------ the libraries


class Queue(NamedTuple):
    """What all of them have. `send` and `recv` are awaited, unless the queue was made for calls that never wait."""

    send: Callable[[int], Any]
    recv: Callable[[], Any]
    close: Callable[[], Awaitable[object] | None]

    async def aclose(self) -> None:
        closing = self.close()
        if closing is not None:
            await closing


def leave_open() -> None:
    """For a queue that cannot be closed, or need not be."""


def asyncio_queue(capacity: int | None) -> Queue:
    queue: asyncio.Queue[int] = asyncio.Queue(capacity or 0)
    return Queue(queue.put, queue.get, leave_open)


def asyncio_now(capacity: int) -> Queue:
    queue: asyncio.Queue[int] = asyncio.Queue(capacity)
    return Queue(queue.put_nowait, queue.get_nowait, leave_open)


def yamanote_queue(capacity: int | None) -> Queue:
    tx, rx = channel_unbounded[int]() if capacity is None else channel[int](capacity)

    def close() -> None:
        tx.close()
        rx.close()

    return Queue(tx.send, rx.recv, close)


def yamanote_now(capacity: int) -> Queue:
    tx, rx = channel[int](capacity)

    def close() -> None:
        tx.close()
        rx.close()

    return Queue(tx.send_nowait, rx.recv_nowait, close)


def aiochan_queue(capacity: int | None) -> Queue:
    chan = aiochan.Chan(capacity)
    return Queue(chan.put, chan.get, leave_open)


def aiochannel_queue(capacity: int | None) -> Queue:
    queue = aiochannel.Channel(capacity or 0)
    return Queue(queue.put, queue.get, leave_open)


def aiochannel_now(capacity: int) -> Queue:
    queue = aiochannel.Channel(capacity)
    return Queue(queue.put_nowait, queue.get_nowait, leave_open)


def aiologic_queue(capacity: int | None) -> Queue:
    queue = aiologic.SimpleQueue() if capacity is None else aiologic.Queue(capacity)
    return Queue(queue.async_put, queue.async_get, leave_open)


def anyio_queue(capacity: int | None) -> Queue:
    tx, rx = anyio.create_memory_object_stream(math.inf if capacity is None else capacity)

    def close() -> None:
        tx.close()
        rx.close()

    return Queue(tx.send, rx.receive, close)


def anyio_now(capacity: int) -> Queue:
    tx, rx = anyio.create_memory_object_stream(capacity)

    def close() -> None:
        tx.close()
        rx.close()

    return Queue(tx.send_nowait, rx.receive_nowait, close)


def culsans_queue(capacity: int | None) -> Queue:
    queue = culsans.Queue(capacity or 0)
    return Queue(queue.async_q.put, queue.async_q.get, leave_open)


def culsans_now(capacity: int) -> Queue:
    queue = culsans.Queue(capacity)
    return Queue(queue.async_q.put_nowait, queue.async_q.get_nowait, leave_open)


def janus_queue(capacity: int | None) -> Queue:
    queue = janus.Queue(capacity or 0)
    return Queue(queue.async_q.put, queue.async_q.get, queue.aclose)


def janus_now(capacity: int) -> Queue:
    queue = janus.Queue(capacity)
    return Queue(queue.async_q.put_nowait, queue.async_q.get_nowait, queue.aclose)


def kioto_queue(capacity: int | None) -> Queue:
    tx, rx = kioto.channel_unbounded() if capacity is None else kioto.channel(capacity)
    return Queue(tx.send_async, rx.recv, leave_open)


Make = Callable[[int | None], Queue]

QUEUES: dict[str, Make] = {
    "asyncio": asyncio_queue,
    "yamanote": yamanote_queue,
    "aiochan": aiochan_queue,
    "aiochannel": aiochannel_queue,
    "aiologic": aiologic_queue,
    "anyio": anyio_queue,
    "culsans": culsans_queue,
    "janus": janus_queue,
    "kioto": kioto_queue,
}
UNBOUNDED = {name: make for name, make in QUEUES.items() if name != "aiochan"}  # it has no buffer without a bound
QUEUES_NOW: dict[str, Callable[[int], Queue]] = {
    "asyncio": asyncio_now,
    "yamanote": yamanote_now,
    "aiochannel": aiochannel_now,
    "anyio": anyio_now,
    "culsans": culsans_now,
    "janus": janus_now,
}


def check_order(received: list[int], count: int) -> None:
    check(len(received) == count, f"{count} items were sent, and {len(received)} were received")
    check(received == list(range(count)), "items were received in another order than they were sent in")


def check_shares(received: list[list[int]], senders: int, share: int) -> None:
    """Each receiver got what each sender sent in the order in which it was sent, and together they got everything."""
    everything = sorted(item for items in received for item in items)
    check(everything == list(range(senders * share)), "items were lost, or came twice")
    for items in received:
        for sender in range(senders):
            own = [item for item in items if item // share == sender]
            check(own == sorted(own), "items of one sender were received in another order than they were sent in")


# ------------------------------------------------------------------------------------------------------ the workloads


async def never_waits(make: Make, count: int) -> None:
    queue = make(100)
    send, recv = queue.send, queue.recv
    for number in range(count):
        await send(number)
        if await recv() != number:
            check(False, f"{number} was sent, and something else received")
    await queue.aclose()


async def now(make: Callable[[int], Queue], count: int) -> None:
    queue = make(100)
    send, recv = queue.send, queue.recv
    for number in range(count):
        send(number)
        if recv() != number:
            check(False, f"{number} was sent, and something else received")
    await queue.aclose()


async def through(
    make: Make, count: int, capacity: int | None, senders: int = 1, receivers: int = 1
) -> Callable[[], None]:
    """`count` items from some senders to some receivers, each of which is a task."""
    queue = make(capacity)
    send, recv = queue.send, queue.recv

    async def produce(first: int, end: int) -> None:
        for number in range(first, end):
            await send(number)

    async def consume(share: int) -> list[int]:
        return [await recv() for _ in range(share)]

    share = count // senders
    async with asyncio.TaskGroup() as group:
        for first in range(0, count, share):
            group.create_task(produce(first, first + share))
        consumers = [group.create_task(consume(count // receivers)) for _ in range(receivers)]
    await queue.aclose()
    return lambda: check_shares([consumer.result() for consumer in consumers], senders, share)


async def ping_pong(make: Make, count: int) -> None:
    there, back = make(1), make(1)

    async def echo() -> None:
        recv, send = there.recv, back.send
        for _ in range(count):
            await send(await recv())

    echoing = asyncio.create_task(echo())
    send, recv = there.send, back.recv
    for number in range(count):
        await send(number)
        if await recv() != number:
            check(False, f"{number} was sent, and something else came back")
    await echoing
    await there.aclose()
    await back.aclose()


async def waiting_receivers(make: Make, count: int) -> Callable[[], None]:
    queue = make(None)
    send, recv = queue.send, queue.recv

    async def receive() -> Any:
        return await recv()

    receiving = [asyncio.create_task(receive()) for _ in range(count)]
    await asyncio.sleep(0)
    for number in range(count):
        await send(number)
    received = await asyncio.gather(*receiving)
    await queue.aclose()
    return lambda: check_order(sorted(received), count)


def until_closed(count: int) -> dict[str, Version]:
    """Every library in the way that its users do it."""

    async def with_asyncio() -> Callable[[], None]:
        queue: asyncio.Queue[int | None] = asyncio.Queue(100)

        async def produce() -> None:
            for number in range(count):
                await queue.put(number)
            await queue.put(None)

        producing = asyncio.create_task(produce())
        received = []
        while (item := await queue.get()) is not None:
            received.append(item)
        await producing
        return lambda: check_order(received, count)

    async def with_yamanote() -> Callable[[], None]:
        tx, rx = channel[int](100)

        async def produce() -> None:
            async with tx:
                for number in range(count):
                    await tx.send(number)

        async with rx:
            producing = asyncio.create_task(produce())
            received = [item async for item in rx]
            await producing
        return lambda: check_order(received, count)

    async def with_aiochan() -> Callable[[], None]:
        chan = aiochan.Chan(100)

        async def produce() -> None:
            for number in range(count):
                await chan.put(number)
            chan.close()

        producing = asyncio.create_task(produce())
        received = [item async for item in chan]
        await producing
        return lambda: check_order(received, count)

    async def with_aiochannel() -> Callable[[], None]:
        queue = aiochannel.Channel(100)

        async def produce() -> None:
            for number in range(count):
                await queue.put(number)
            queue.close()

        producing = asyncio.create_task(produce())
        received = [item async for item in queue]
        await producing
        return lambda: check_order(received, count)

    async def with_anyio() -> Callable[[], None]:
        tx, rx = anyio.create_memory_object_stream(100)

        async def produce() -> None:
            async with tx:
                for number in range(count):
                    await tx.send(number)

        async with rx:
            producing = asyncio.create_task(produce())
            received = [item async for item in rx]
            await producing
        return lambda: check_order(received, count)

    async def with_culsans() -> Callable[[], None]:
        queue = culsans.Queue(100)
        received = await until_shut_down(queue.async_q, culsans.AsyncQueueShutDown)
        return lambda: check_order(received, count)

    async def with_janus() -> Callable[[], None]:
        queue = janus.Queue(100)
        received = await until_shut_down(queue.async_q, janus.AsyncQueueShutDown)
        await queue.aclose()
        return lambda: check_order(received, count)

    async def until_shut_down(queue: Any, shut_down: type[Exception]) -> list[int]:
        async def produce() -> None:
            for number in range(count):
                await queue.put(number)
            queue.shutdown()

        producing = asyncio.create_task(produce())
        received = []
        try:
            while True:
                received.append(await queue.get())
        except shut_down:
            pass
        await producing
        return received

    versions: dict[str, Version] = {
        "asyncio": with_asyncio,
        "yamanote": with_yamanote,
        "aiochan": with_aiochan,
        "aiochannel": with_aiochannel,
        "anyio": with_anyio,
        "culsans": with_culsans,
        "janus": with_janus,
    }
    return installed(versions)


def receive_many(count: int) -> dict[str, Version]:
    """Only the receiving: what was sent is there before the clock starts."""

    def with_asyncio() -> Awaitable[Callable[[], None]]:
        queue: asyncio.Queue[int] = asyncio.Queue()
        for number in range(count):
            queue.put_nowait(number)

        async def run() -> Callable[[], None]:
            received = [await queue.get() for _ in range(count)]
            return lambda: check_order(received, count)

        return run()

    def with_yamanote() -> Awaitable[Callable[[], None]]:
        tx, rx = channel_unbounded[int]()
        for number in range(count):
            tx.send_nowait(number)

        async def run() -> Callable[[], None]:
            received: list[int] = []
            while len(received) < count:
                received += await rx.recv_many(100)
            tx.close()
            rx.close()
            return lambda: check_order(received, count)

        return run()

    return {"asyncio": with_asyncio, "yamanote": with_yamanote}


def reserve_and_send(count: int) -> dict[str, Version]:
    """Only the sending: the room was there before, and what was sent is looked at afterwards."""

    def with_asyncio() -> Awaitable[Callable[[], None]]:
        queue: asyncio.Queue[int] = asyncio.Queue(count)

        async def run() -> Callable[[], None]:
            for number in range(count):
                await queue.put(number)
            return lambda: check_order([queue.get_nowait() for _ in range(queue.qsize())], count)

        return run()

    def with_yamanote() -> Awaitable[Callable[[], None]]:
        tx, rx = channel[int](count)

        async def run() -> Callable[[], None]:
            for number in range(count):
                permit = await tx.reserve()
                permit.send(number)
            return look

        def look() -> None:
            with tx, rx:
                check_order([rx.recv_nowait() for _ in range(len(rx))], count)

        return run()

    return {"asyncio": with_asyncio, "yamanote": with_yamanote}


def select_of_two(count: int) -> dict[str, Version]:
    """Two senders, a queue of one place each, and one who takes from whichever has something."""

    async def produce(send: Callable[[int], Awaitable[object]]) -> None:
        for number in range(count // 2):
            await send(number)

    async def with_asyncio() -> Callable[[], None]:
        queues: list[asyncio.Queue[int]] = [asyncio.Queue(1), asyncio.Queue(1)]
        producing = [asyncio.create_task(produce(queue.put)) for queue in queues]
        received: list[list[int]] = [[], []]
        getting = {asyncio.create_task(queue.get()): number for number, queue in enumerate(queues)}
        turns = 0
        while turns < count:
            done, _ = await asyncio.wait(getting, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                number = getting.pop(task)
                received[number].append(task.result())
                getting[asyncio.create_task(queues[number].get())] = number
                turns += 1
        for task in getting:
            task.cancel()
        await asyncio.wait(getting)
        await asyncio.gather(*producing)
        return lambda: check_both(received)

    async def with_yamanote() -> Callable[[], None]:
        (left_tx, left), (right_tx, right) = channel[int](1), channel[int](1)
        producing = [asyncio.create_task(produce(tx.send)) for tx in (left_tx, right_tx)]
        received: dict[str, list[int]] = {"left": [], "right": []}
        for _ in range(count):
            name, item = await select(left=left, right=right)
            received[name].append(item)
        await asyncio.gather(*producing)
        for end in (left_tx, left, right_tx, right):
            end.close()
        return lambda: check_both(received.values())

    def check_both(received: Iterable[list[int]]) -> None:
        for items in received:
            check_order(items, count // 2)

    return {"asyncio": with_asyncio, "yamanote": with_yamanote}


# ---------------------------------------------------------------------------------------------- of one value, or to all


def oneshot(count: int) -> dict[str, Version]:
    """A channel for each value."""

    async def with_asyncio() -> Callable[[], None]:
        loop = asyncio.get_running_loop()
        received = []
        for number in range(count):
            future: asyncio.Future[int] = loop.create_future()
            future.set_result(number)
            received.append(await future)
        return lambda: check_order(received, count)

    async def with_yamanote() -> Callable[[], None]:
        received = []
        for number in range(count):
            tx, rx = oneshot_channel[int]()
            tx.send(number)
            received.append(await rx)
        return lambda: check_order(received, count)

    async def with_anyio() -> Callable[[], None]:
        received = []
        for number in range(count):
            tx, rx = anyio.create_memory_object_stream(1)
            with tx, rx:
                tx.send_nowait(number)
                received.append(await rx.receive())
        return lambda: check_order(received, count)

    async def with_kioto() -> Callable[[], None]:
        received = []
        for number in range(count):
            tx, rx = kioto.oneshot_channel()
            tx.send(number)
            received.append(await rx)
        return lambda: check_order(received, count)

    return installed({"asyncio": with_asyncio, "yamanote": with_yamanote, "anyio": with_anyio, "kioto": with_kioto})


def newest_value(count: int, receivers: int) -> dict[str, Version]:
    """A value is sent when everybody has seen the one before, and waits."""

    async def all_see(
        send: Callable[[int], Awaitable[object]], receive: Callable[[list[int]], Coroutine[Any, Any, None]]
    ) -> Callable[[], None]:
        seen: list[int] = []
        async with asyncio.TaskGroup() as group:
            for _ in range(receivers):
                group.create_task(receive(seen))
            await asyncio.sleep(0)
            for number in range(count):
                await send(number)
                while len(seen) < (number + 1) * receivers:
                    await asyncio.sleep(0)
        return lambda: check(
            seen == [number for number in range(count) for _ in range(receivers)], "somebody missed a value"
        )

    async def with_asyncio() -> Callable[[], None]:
        """The value and its version, and a condition to wait for another one."""
        changed = asyncio.Condition()
        newest = version = 0

        async def send(number: int) -> None:
            nonlocal newest, version
            async with changed:
                newest = number
                version += 1
                changed.notify_all()

        async def receive(seen: list[int]) -> None:
            known = 0
            for _ in range(count):
                async with changed:
                    while version == known:
                        await changed.wait()
                    known = version
                    seen.append(newest)

        return await all_see(send, receive)

    async def with_events() -> Callable[[], None]:
        """The value, and an event for the next one, which a sender replaces."""
        changed = asyncio.Event()
        newest = 0

        async def send(number: int) -> None:
            nonlocal newest, changed
            newest, before, changed = number, changed, asyncio.Event()
            before.set()

        async def receive(seen: list[int]) -> None:
            following = changed
            for _ in range(count):
                await following.wait()
                following = changed
                seen.append(newest)

        return await all_see(send, receive)

    async def with_yamanote() -> Callable[[], None]:
        tx, rx = watch(0)

        async def send(number: int) -> None:
            tx.send(number)

        async def receive(seen: list[int]) -> None:
            with rx.clone() as own:
                for _ in range(count):
                    await own.changed()
                    seen.append(own.borrow())

        with tx, rx:
            return await all_see(send, receive)

    async def with_kioto() -> Callable[[], None]:
        tx, _rx = kioto.watch(0)

        async def send(number: int) -> None:
            tx.send(number)

        async def receive(seen: list[int]) -> None:
            own = tx.subscribe()
            for _ in range(count):
                await own.changed()
                seen.append(own.borrow_and_update())

        return await all_see(send, receive)

    versions = {
        "asyncio": with_asyncio,
        "asyncio.Event": with_events,
        "yamanote": with_yamanote,
        "kioto": with_kioto,
    }
    return installed(versions)


def to_all(count: int, receivers: int) -> dict[str, Version]:
    """A slow receiver holds the sender up, and nobody misses anything."""

    async def all_hear(
        send: Callable[[int], Awaitable[object]], recvs: Iterable[Callable[[], Awaitable[int]]]
    ) -> Callable[[], None]:
        async def consume(recv: Callable[[], Awaitable[int]]) -> list[int]:
            return [await recv() for _ in range(count)]

        async with asyncio.TaskGroup() as group:
            consumers = [group.create_task(consume(recv)) for recv in recvs]
            for number in range(count):
                await send(number)

        def look() -> None:
            for consumer in consumers:
                check_order(consumer.result(), count)

        return look

    async def with_asyncio() -> Callable[[], None]:
        queues: list[asyncio.Queue[int]] = [asyncio.Queue(100) for _ in range(receivers)]

        async def send(number: int) -> None:
            for queue in queues:
                await queue.put(number)

        return await all_hear(send, [queue.get for queue in queues])

    async def with_yamanote() -> Callable[[], None]:
        tx, rx = broadcast[int](100, overflow="suspend")
        ends = [rx, *(tx.subscribe() for _ in range(receivers - 1))]
        look = await all_hear(tx.send, [end.recv for end in ends])
        for end in (tx, *ends):
            end.close()
        return look

    return {"asyncio": with_asyncio, "yamanote": with_yamanote}


# ---------------------------------------------------------------------------------------------------------- the rows


def workloads(scale: float = 1.0) -> list[Workload]:
    def scaled(count: int) -> int:
        return max(20, int(count * scale) // 20 * 20)

    def versions(
        workload: Callable[..., Awaitable[object]], queues: dict[str, Any], **shape: Any
    ) -> dict[str, Version]:
        return {name: partial(workload, make, **shape) for name, make in installed(queues).items()}

    def passing(name: str, bar: float, also: str, **shape: int | None) -> Workload:
        queues = UNBOUNDED if shape["capacity"] is None else QUEUES
        return Workload(name, many, versions(through, queues, count=many, **shape), bar, also)

    many, some, waiting, few = scaled(10_000), scaled(2_000), scaled(1_000), scaled(100)
    seq = "crossbeam, kanal: seq"
    return [
        Workload("send+recv, never waits", many, versions(never_waits, QUEUES, count=many), 0.45, seq),
        Workload("send_nowait+recv_nowait", many, versions(now, QUEUES_NOW, count=many), 0.40, seq),
        passing("spsc cap=1", 0.40, "crossbeam: spsc, bounded_1", capacity=1),
        passing("spsc cap=100", 0.55, "crossbeam: spsc, bounded_n", capacity=100),
        passing("spsc unbounded", 0.70, "crossbeam: spsc, unbounded", capacity=None),
        passing("mpsc 10:1 cap=1", 0.40, "crossbeam: mpsc, bounded_1", capacity=1, senders=10),
        passing("mpsc 10:1 cap=100", 0.60, "Tokio: contention/bounded_full", capacity=100, senders=10),
        passing("mpmc 10:10 cap=1", 0.40, "crossbeam: mpmc, bounded_1", capacity=1, senders=10, receivers=10),
        passing("mpmc 10:10 cap=100", 0.60, "crossbeam: mpmc, bounded_n", capacity=100, senders=10, receivers=10),
        passing("mpmc 10:10 unbounded", 0.65, "crossbeam: mpmc, unbounded", capacity=None, senders=10, receivers=10),
        Workload("ping-pong round trip", some, versions(ping_pong, QUEUES, count=some), 0.95, "Tokio: ping_pong"),
        Workload("async for until closed, cap=100", many, until_closed(many), 0.70, "Go: range over a channel"),
        # One operation is one run.
        Workload("1000 waiting receivers served", 1, versions(waiting_receivers, UNBOUNDED, count=waiting), 1.10),
        Workload("recv_many(100), per item", many, receive_many(many), 0.10, "Tokio: contention/bounded_recv_many"),
        Workload(
            "select over 2 channels, task-free, per turn", some, select_of_two(some), 0.40, "crossbeam: select_rx"
        ),
        Workload("reserve + send", many, reserve_and_send(many), 0.90, "Tokio: reserve"),
        Workload("oneshot: make, send, await", many, oneshot(many), 1.30),
        Workload("watch: 1 send wakes 100 receivers", few, newest_value(few, 100), 0.60, "Tokio: sync_watch"),
        Workload("broadcast 1:10 cap=100, per item", some, to_all(some, 10), 0.45, "Tokio: sync_broadcast"),
    ]


if __name__ == "__main__":
    main("channels", workloads())
