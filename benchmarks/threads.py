"""Crossing between threads and loops, against what asyncio and the standard library offer for it.

Run it: `python benchmarks/threads.py --help`. Figures are time on the wall, because threads wait for each other; read
them to a factor of 1.5. One wake-up per burst of items, instead of one per item, is what the large factors are about.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from asyncio import Future, run_coroutine_threadsafe
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any, NamedTuple, TypeVar

from harness import Version, Workload, check, main
from peers import installed, load

from yamanote.channels import channel, channel_unbounded
from yamanote.futures import gather
from yamanote.runtime import map_blocking, spawn_blocking
from yamanote.sync import Lock
from yamanote.threads import from_thread, to_thread

aiodrive = load("aiodrive")
aiologic = load("aiologic")
anyio = load("anyio")
asyncer = load("asyncer")
culsans = load("culsans")
janus = load("janus")
kioto = load("kioto")

T = TypeVar("T")
Call = Callable[..., Coroutine[Any, Any, Any]]


def workloads(scale: float = 1.0) -> list[Workload]:
    """All of them, with about `scale` times the ordinary number of operations."""
    items = max(40, int(10_000 * scale)) // 4 * 4
    calls = max(10, int(1000 * scale))
    bursts = max(1, int(10 * scale))
    rows: list[tuple[str, int, dict[str, Version], float, str]] = [
        ("thread -> loop, unbounded", items, each(TO_LOOP, inwards, items), 0.13, "thread_spsc"),
        ("thread -> loop, cap=100", items, each(TO_LOOP_100, inwards, items), 0.06, ""),
        ("4 threads -> loop, unbounded", items, each(TO_LOOP, inwards, items, 4), 0.15, ""),
        ("loop -> thread, unbounded", items, each(TO_THREAD, outwards, items), 0.15, ""),
        ("loop -> thread, cap=100", items, each(TO_THREAD_100, outwards_with_patience, items), 0.90, ""),
        ("thread <-> loop round trip", calls, each(BOTH_WAYS, there_and_back, calls), 1.05, "ping_pong"),
        ("run a no-op in a worker thread", calls, each(ONE, repeatedly, calls), 0.90, "Tokio: spawn_blocking"),
        ("100 no-ops in worker threads at once", bursts * 100, each(HUNDRED, repeatedly, bursts), 1.05, ""),
        ("call a coroutine on the loop from a thread", calls, each(CALL_BACK, repeatedly, 1, calls), 1.05, ""),
        ("lock shared with threads, uncontended `async with`", items, each(LOCKS, locked, items), 1.10, ""),
        ("thread -> thread, cap=100", items, each(BETWEEN_100, across, items), 1.00, "crossbeam: spsc, bounded_n"),
        ("2 threads, send+recv on one channel", items, each(BETWEEN_100, both_at_once, items), 1.00, ""),
    ]
    return [Workload(name, operations, versions, bar, also, "wall") for name, operations, versions, bar, also in rows]


def each(calls: dict[str, Any], body: Call, *arguments: int) -> dict[str, Version]:
    """`body`, with what each library makes or calls."""
    return {library: partial(body, call, *arguments) for library, call in installed(calls).items()}


def in_thread(function: Callable[..., T], *arguments: Any) -> Future[T]:
    """Call `function` in a thread of its own. A daemon: one that hangs must not hang the benchmark."""
    loop = asyncio.get_running_loop()
    ended: Future[T] = loop.create_future()

    def run() -> None:
        try:
            settle: Callable[[], None] = partial(ended.set_result, function(*arguments))
        except BaseException as error:
            settle = partial(ended.set_exception, error)
        try:
            loop.call_soon_threadsafe(lambda: ended.cancelled() or settle())
        except RuntimeError:  # the loop is closed: nobody waited for so long
            pass

    threading.Thread(target=run, daemon=True).start()
    return ended


# ------------------------------------------------------------------------------------------- queues


class Pipe(NamedTuple):
    """One way across. An end on the loop is awaited where it may have to wait; one in a thread blocks."""

    send: Callable[[int], Any]
    recv: Callable[[], Any]
    close: Callable[[], Awaitable[None] | None] = lambda: None

    async def aclose(self) -> None:
        closing = self.close()
        if closing is not None:
            await closing


def yamanote_close(*ends: Any) -> Callable[[], None]:
    def close() -> None:
        for end in ends:
            end.close()

    return close


async def inwards(make: Callable[[], Pipe], items: int, threads: int = 1) -> Callable[[], None]:
    pipe = make()
    share = items // threads
    try:
        senders = [in_thread(send_all, pipe.send, first, first + share) for first in range(0, items, share)]
        received = [await pipe.recv() for _ in range(items)]
        for sender in senders:
            await sender
    finally:
        await pipe.aclose()
    return lambda: check_shares(received, items, share)


def send_all(send: Callable[[int], object], first: int, end: int) -> None:
    for item in range(first, end):
        send(item)


async def outwards(make: Callable[[], Pipe], items: int) -> Callable[[], None]:
    pipe = make()
    try:
        receiver = in_thread(recv_all, pipe.recv, items)
        for item in range(items):
            pipe.send(item)
        received = await receiver
    finally:
        await pipe.aclose()
    return lambda: check_shares(received, items, items)


async def outwards_with_patience(make: Callable[[], Pipe], items: int) -> Callable[[], None]:
    pipe = make()
    try:
        receiver = in_thread(recv_all, pipe.recv, items)
        for item in range(items):
            await pipe.send(item)
        received = await receiver
    finally:
        await pipe.aclose()
    return lambda: check_shares(received, items, items)


async def across(make: Callable[[], Pipe], items: int) -> Callable[[], None]:
    pipe = make()
    try:
        receiver = in_thread(recv_all, pipe.recv, items)
        await in_thread(send_all, pipe.send, 0, items)
        received = await receiver
    finally:
        await pipe.aclose()
    return lambda: check_shares(received, items, items)


async def both_at_once(make: Callable[[], Pipe], items: int) -> Callable[[], None]:
    """Nobody ever has to wait: what there is of a time is paid for standing in each other's way."""
    pipe = make()
    share = items // 2
    try:
        threads = [in_thread(send_and_recv, pipe, first, first + share) for first in (0, share)]
        received = [item for thread in threads for item in await thread]
    finally:
        await pipe.aclose()
    return lambda: check(sorted(received) == list(range(items)), "items were lost, or came twice")


def send_and_recv(pipe: Pipe, first: int, end: int) -> list[int]:
    send, recv = pipe.send, pipe.recv
    received = []
    for item in range(first, end):
        send(item)
        received.append(recv())
    return received


def recv_all(recv: Callable[[], int], items: int) -> list[int]:
    return [recv() for _ in range(items)]


def check_shares(received: list[int], items: int, share: int) -> None:
    """All items have arrived, and those of each thread in the order in which it sent them."""
    check(sorted(received, key=lambda item: item // share) == list(range(items)), "items were lost, or out of order")


async def there_and_back(make: Callable[[], tuple[Pipe, Pipe]], times: int) -> None:
    there, back = make()
    try:
        echoing = in_thread(echo, there.recv, back.send, times)
        for number in range(times):
            there.send(number)
            check(await back.recv() == number, "another item came back")
        await echoing
    finally:
        await there.aclose()
        await back.aclose()


def echo(recv: Callable[[], int], send: Callable[[int], object], times: int) -> None:
    for _ in range(times):
        send(recv())


# ---- from a thread to the loop


def asyncio_to_loop() -> Pipe:
    loop = asyncio.get_running_loop()
    items: asyncio.Queue[int] = asyncio.Queue()
    return Pipe(lambda item: loop.call_soon_threadsafe(items.put_nowait, item), items.get)


def asyncio_to_loop_100() -> Pipe:
    loop = asyncio.get_running_loop()
    items: asyncio.Queue[int] = asyncio.Queue(100)
    return Pipe(lambda item: run_coroutine_threadsafe(items.put(item), loop).result(), items.get)


def yamanote_to_loop() -> Pipe:
    tx, rx = channel_unbounded[int]()
    return Pipe(tx.send_nowait, rx.recv, yamanote_close(tx, rx))


def yamanote_to_loop_100() -> Pipe:
    tx, rx = channel[int](100)
    return Pipe(tx.blocking_send, rx.recv, yamanote_close(tx, rx))


def aiologic_to_loop() -> Pipe:
    items = aiologic.SimpleQueue()
    return Pipe(items.green_put, items.async_get)


def aiologic_to_loop_100() -> Pipe:
    items = aiologic.Queue(100)
    return Pipe(items.green_put, items.async_get)


def culsans_to_loop(capacity: int = 0) -> Pipe:
    items = culsans.Queue(capacity)
    return Pipe(items.sync_q.put, items.async_q.get, items.shutdown)


def janus_to_loop(capacity: int = 0) -> Pipe:
    items = janus.Queue(capacity)
    return Pipe(items.sync_q.put, items.async_q.get, items.aclose)


def kioto_to_loop() -> Pipe:
    tx, rx = kioto.channels.channel_unbounded()
    return Pipe(tx.send, rx.recv)


TO_LOOP: dict[str, Callable[[], Pipe]] = {
    "asyncio": asyncio_to_loop,
    "yamanote": yamanote_to_loop,
    "aiologic": aiologic_to_loop,
    "culsans": culsans_to_loop,
    "janus": janus_to_loop,
    "kioto": kioto_to_loop,
}
TO_LOOP_100: dict[str, Callable[[], Pipe]] = {
    "asyncio": asyncio_to_loop_100,
    "yamanote": yamanote_to_loop_100,
    "aiologic": aiologic_to_loop_100,
    "culsans": partial(culsans_to_loop, 100),
    "janus": partial(janus_to_loop, 100),
}


# ---- from the loop to a thread


def asyncio_to_thread() -> Pipe:
    items: queue.Queue[int] = queue.Queue()
    return Pipe(items.put_nowait, items.get)


def asyncio_to_thread_100() -> Pipe:
    loop = asyncio.get_running_loop()
    items: queue.Queue[int] = queue.Queue(100)

    async def send(item: int) -> None:
        try:
            items.put_nowait(item)
        except queue.Full:
            await loop.run_in_executor(None, items.put, item)

    return Pipe(send, items.get)


def yamanote_to_thread() -> Pipe:
    tx, rx = channel_unbounded[int]()
    return Pipe(tx.send_nowait, rx.blocking_recv, yamanote_close(tx, rx))


def yamanote_to_thread_100() -> Pipe:
    tx, rx = channel[int](100)
    return Pipe(tx.send, rx.blocking_recv, yamanote_close(tx, rx))


def aiologic_to_thread() -> Pipe:
    items = aiologic.SimpleQueue()
    return Pipe(items.put, items.green_get)


def aiologic_to_thread_100() -> Pipe:
    items = aiologic.Queue(100)
    return Pipe(items.async_put, items.green_get)


def culsans_to_thread() -> Pipe:
    items = culsans.Queue()
    return Pipe(items.async_q.put_nowait, items.sync_q.get, items.shutdown)


def culsans_to_thread_100() -> Pipe:
    items = culsans.Queue(100)
    return Pipe(items.async_q.put, items.sync_q.get, items.shutdown)


def janus_to_thread() -> Pipe:
    items = janus.Queue()
    return Pipe(items.async_q.put_nowait, items.sync_q.get, items.aclose)


def janus_to_thread_100() -> Pipe:
    items = janus.Queue(100)
    return Pipe(items.async_q.put, items.sync_q.get, items.aclose)


TO_THREAD: dict[str, Callable[[], Pipe]] = {
    "asyncio": asyncio_to_thread,
    "yamanote": yamanote_to_thread,
    "aiologic": aiologic_to_thread,
    "culsans": culsans_to_thread,
    "janus": janus_to_thread,
}
TO_THREAD_100: dict[str, Callable[[], Pipe]] = {
    "asyncio": asyncio_to_thread_100,
    "yamanote": yamanote_to_thread_100,
    "aiologic": aiologic_to_thread_100,
    "culsans": culsans_to_thread_100,
    "janus": janus_to_thread_100,
}
BOTH_WAYS: dict[str, Callable[[], tuple[Pipe, Pipe]]] = {
    "asyncio": lambda: (asyncio_to_thread(), asyncio_to_loop()),
    "yamanote": lambda: (yamanote_to_thread(), yamanote_to_loop()),
    "aiologic": lambda: (aiologic_to_thread(), aiologic_to_loop()),
    "culsans": lambda: (culsans_to_thread(), culsans_to_loop()),
    "janus": lambda: (janus_to_thread(), janus_to_loop()),
}


# ---- from a thread to a thread


def asyncio_between() -> Pipe:
    items: queue.Queue[int] = queue.Queue(100)
    return Pipe(items.put, items.get)


def yamanote_between() -> Pipe:
    tx, rx = channel[int](100)
    return Pipe(tx.blocking_send, rx.blocking_recv, yamanote_close(tx, rx))


def aiologic_between() -> Pipe:
    items = aiologic.Queue(100)
    return Pipe(items.green_put, items.green_get)


def culsans_between() -> Pipe:
    items = culsans.Queue(100)
    return Pipe(items.sync_q.put, items.sync_q.get, items.shutdown)


def janus_between() -> Pipe:
    items = janus.Queue(100)
    return Pipe(items.sync_q.put, items.sync_q.get, items.aclose)


BETWEEN_100: dict[str, Callable[[], Pipe]] = {
    "asyncio": asyncio_between,
    "yamanote": yamanote_between,
    "aiologic": aiologic_between,
    "culsans": culsans_between,
    "janus": janus_between,
}
"""asyncio has nothing of its own between threads: the measure is `queue.Queue`."""


# ------------------------------------------------------------------------------------------- calls


async def repeatedly(call: Call, times: int, *arguments: int) -> None:
    for _ in range(times):
        await call(*arguments)


def answer() -> int:
    return 42


def answer_to(_: object) -> int:
    return 42


async def asyncio_one() -> None:
    check(await asyncio.to_thread(answer) == 42, "another value")


async def yamanote_one() -> None:
    check(await to_thread(answer) == 42, "another value")


async def yamanote_spawn_blocking() -> None:
    check(await spawn_blocking(answer) == 42, "another value")


async def anyio_one() -> None:
    check(await anyio.to_thread.run_sync(answer) == 42, "another value")


async def asyncer_one() -> None:
    check(await asyncer.asyncify(answer)() == 42, "another value")


ONE: dict[str, Call] = {
    "asyncio": asyncio_one,
    "yamanote": yamanote_one,
    "yamanote.spawn_blocking": yamanote_spawn_blocking,
    "anyio": anyio_one,
    "asyncer": asyncer_one,
}


async def asyncio_hundred() -> None:
    values = await asyncio.gather(*(asyncio.to_thread(answer) for _ in range(100)))
    check(values == [42] * 100, "another value")


async def yamanote_hundred() -> None:
    values = await gather(to_thread(answer) for _ in range(100))
    check(values == [42] * 100, "another value")


async def yamanote_map_blocking() -> None:
    values = await map_blocking(answer_to, range(100))
    check(values == [42] * 100, "another value")


async def anyio_hundred() -> None:
    values = []

    async def one() -> None:
        values.append(await anyio.to_thread.run_sync(answer))

    async with anyio.create_task_group() as group:
        for _ in range(100):
            group.start_soon(one)
    check(values == [42] * 100, "another value")


async def asyncer_hundred() -> None:
    async with asyncer.create_task_group() as group:
        values = [group.soonify(asyncer.asyncify(answer))() for _ in range(100)]
    check([soon.value for soon in values] == [42] * 100, "another value")


HUNDRED: dict[str, Call] = {
    "asyncio": asyncio_hundred,
    "yamanote": yamanote_hundred,
    "yamanote.map_blocking": yamanote_map_blocking,
    "anyio": anyio_hundred,
    "asyncer": asyncer_hundred,
}


async def successor(number: int) -> int:
    return number + 1


def count_up(call: Callable[[int], int], times: int) -> int:
    """Each call is made with what the one before returned."""
    number = 0
    for _ in range(times):
        number = call(number)
    return number


async def asyncio_call_back(times: int) -> None:
    loop = asyncio.get_running_loop()

    def call(number: int) -> int:
        return run_coroutine_threadsafe(successor(number), loop).result()

    check(await asyncio.to_thread(count_up, call, times) == times, "another value")


async def yamanote_call_back(times: int) -> None:
    check(await to_thread(count_up, partial(from_thread, successor), times) == times, "another value")


async def anyio_call_back(times: int) -> None:
    call = partial(anyio.from_thread.run, successor)
    check(await anyio.to_thread.run_sync(count_up, call, times) == times, "another value")


async def asyncer_call_back(times: int) -> None:
    check(await asyncer.asyncify(count_up)(asyncer.syncify(successor), times) == times, "another value")


CALL_BACK: dict[str, Call] = {
    "asyncio": asyncio_call_back,
    "yamanote": yamanote_call_back,
    "anyio": anyio_call_back,
    "asyncer": asyncer_call_back,
}


# ------------------------------------------------------------------------------------------- locks


async def locked(make: Callable[[], Any], times: int) -> None:
    lock = make()
    entered = 0
    for _ in range(times):
        async with lock:
            entered += 1
    check(entered == times, f"entered {entered} times, not {times}")


LOCKS: dict[str, Callable[[], Any]] = {
    "asyncio": asyncio.Lock,
    "yamanote": Lock,
    "aiodrive": lambda: aiodrive.ThreadsafeLock(),
    "aiologic": lambda: aiologic.Lock(),
}
"""asyncio's own cannot be shared with threads: it is here as the measure."""


if __name__ == "__main__":
    main("threads", workloads())
