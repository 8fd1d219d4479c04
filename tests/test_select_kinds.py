"""The table of all that can be a branch of a select: for each kind a case, and what is promised of it.

The promises themselves are kept, or broken, in `test_select_everything`.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from importlib import import_module
from signal import SIGKILL
from socket import create_connection, socket
from time import sleep
from typing import Any

from yamanote.channels import (
    ChannelClosed,
    HandleClosed,
    Lagged,
    broadcast,
    channel,
    channel_unbounded,
    oneshot_channel,
    spsc_buffer,
    watch,
)
from yamanote.futures import CompletionQueue, lazy, pending, select, shared, task_set
from yamanote.runtime import (
    CancellationToken,
    JoinError,
    JoinMap,
    JoinSet,
    TaskTracker,
    Waiter,
    park,
    spawn,
    spawn_blocking,
    yield_now,
)
from yamanote.server import Connection, afork, listen
from yamanote.sync import (
    Barrier,
    BoundedSemaphore,
    BrokenBarrier,
    Button,
    Cargo,
    Event,
    KeyedLock,
    Latch,
    Lock,
    Mutex,
    NestableLock,
    Notify,
    RwLock,
    Semaphore,
    SemaphoreClosed,
    SetOnce,
    VersionedCell,
)
from yamanote.threads import ThreadsafeState
from yamanote.time import (
    DelayQueue,
    DelayQueueClosed,
    RateLimiter,
    Sleep,
    create_timer,
    interval_at,
)


def nothing(*_: object) -> None:
    pass


async def turns(count: int = 6) -> None:
    for _ in range(count):
        await yield_now()


@dataclass
class Case:
    """One thing to select over, and how to tell what became of it."""

    branch: Callable[[], Any]
    """What one round of a select is given."""
    provide: Callable[[], object]
    """Makes it ready: there is an item, a permit, an end."""
    value: Any = None
    """What the branch gives; or a function that knows it."""
    take: Callable[[], Awaitable[Any]] | None = None
    """Takes the same without a select; parks on the branch if this is not given."""
    release: Callable[[Any], object] = nothing
    """Gives back what the branch has given: a lock."""
    settled: Callable[[], Awaitable[Any]] = turns
    """Waits until what was provided has arrived."""
    fail: Callable[[], object] = nothing
    error: type[BaseException] = Exception
    """What it raises after `fail`."""
    path: tuple[str, ...] = ("branch",)
    """What `failed_branch` says then."""

    def gives(self, value: Any) -> bool:
        return bool(self.value(value) if callable(self.value) else value == self.value)

    async def wait(self) -> Any:
        """Wait for it outside of a select."""
        return await (park(self.branch()) if self.take is None else self.take())

    async def select(self, /, **others: Any) -> str:
        """One round of a select in which this is the first branch; gives back what it has taken."""
        name, value = await select({"branch": self.branch(), **others}, biased=True)
        self.has_taken(name, value)
        return str(name)

    def has_taken(self, name: str, value: Any) -> bool:
        """Whether it is this branch that a select has taken; gives back what it was given."""
        if name == "branch":
            assert self.gives(value)
            self.release(value)
        return name == "branch"


@dataclass(frozen=True)
class Kind:
    """What holds for all cases of a kind."""

    case: Callable[[], AbstractAsyncContextManager[Case]]
    stays: bool = False
    """What was provided is there for everybody, for ever."""
    fades: bool = False
    """What is provided is for those who wait at that moment."""
    final: bool = False
    """What was committed cannot be taken back, and holds although the select is cancelled in the same turn."""
    queues: bool = False
    """Parties stand in a queue. The place in it is for one round."""
    anywhere: bool = False
    """It can be provided from any thread, and waited for on any loop."""
    elsewhere: bool = False
    """It can be waited for on any loop, and is provided on its own."""
    later: bool = False
    """It becomes ready some turns after it was provided."""
    alone: bool = False
    """One party at a time may wait for it."""
    ends: bool = False
    """It is over with the round that it loses: a coroutine."""


KINDS: dict[str, Kind] = {}


def kind(**properties: bool) -> Callable[[Callable[[], AsyncIterator[Case]]], None]:
    def enter(case: Callable[[], AsyncIterator[Case]]) -> None:
        KINDS[case.__name__] = Kind(asynccontextmanager(case), **properties)

    return enter


# ---------------------------------------------------------------------------------------------- channels


@kind(queues=True, anywhere=True)
async def receiver() -> AsyncIterator[Case]:
    tx, rx = channel[str](2)
    with tx, rx:
        yield Case(lambda: rx, lambda: tx.send_nowait("item"), "item", take=rx.recv, fail=tx.close, error=ChannelClosed)


@kind(queues=True, anywhere=True)
async def receiver_without_a_limit() -> AsyncIterator[Case]:
    tx, rx = channel_unbounded()
    with tx, rx:
        yield Case(lambda: rx, lambda: tx.send_nowait(None), None, take=rx.recv, fail=rx.close, error=HandleClosed)


@kind(queues=True, anywhere=True)
async def receiver_of_a_rendezvous() -> AsyncIterator[Case]:
    tx, rx = channel[str](0)

    def provide() -> None:
        tx.sending("item").register(Waiter([None]))  # somebody who waits to be met

    with tx, rx:
        yield Case(lambda: rx, provide, "item", take=rx.recv, fail=tx.close, error=ChannelClosed)


@kind(queues=True, anywhere=True, final=True)
async def sending() -> AsyncIterator[Case]:
    tx, rx = channel[str](1)

    def release(_: object) -> None:
        assert rx.recv_nowait() == "item"
        if not rx.statistics().waiting_senders and not len(rx):
            tx.send_nowait("in the way")

    with tx, rx:
        tx.send_nowait("in the way")
        yield Case(
            lambda: tx.sending("item"),
            rx.recv_nowait,
            take=lambda: tx.send("item"),
            release=release,
            fail=rx.close,
            error=ChannelClosed,
        )


@kind(queues=True, anywhere=True, final=True)
async def sending_to_a_rendezvous() -> AsyncIterator[Case]:
    tx, rx = channel[str](0)
    met: list[Waiter[str]] = []

    def provide() -> None:
        met.append(Waiter([None]))
        rx.register(met[-1])

    def release(_: object) -> None:
        while not met[0].settled:  # the other thread may still be at it
            sleep(0)
        assert met.pop(0).value == "item"

    with tx, rx:
        yield Case(
            lambda: tx.sending("item"),
            provide,
            take=lambda: tx.send("item"),
            release=release,
            fail=rx.close,
            error=ChannelClosed,
        )


@kind(queues=True, anywhere=True)
async def reserving() -> AsyncIterator[Case]:
    tx, rx = channel[str](1)

    def is_room(permits: Any) -> bool:
        return len(permits) == 1

    def release(permits: Any) -> None:
        permits[0].send("in the way")

    with tx, rx:
        tx.send_nowait("in the way")
        yield Case(tx.reserving, rx.recv_nowait, is_room, release=release, fail=rx.close, error=ChannelClosed)


@kind(queues=True, anywhere=True)
async def broadcast_receiver() -> AsyncIterator[Case]:
    tx, rx = broadcast[str](2)
    with tx, rx:
        yield Case(lambda: rx, lambda: tx.send_nowait("item"), "item", take=rx.recv, fail=tx.close, error=ChannelClosed)


@kind(queues=True, anywhere=True)
async def broadcast_receiver_that_lags() -> AsyncIterator[Case]:
    tx, rx = broadcast[str](1)

    def overflow() -> None:
        tx.send_nowait("missed")
        tx.send_nowait("item")

    with tx, rx:
        yield Case(lambda: rx, lambda: tx.send_nowait("item"), "item", take=rx.recv, fail=overflow, error=Lagged)


@kind(queues=True, anywhere=True, final=True)
async def sending_to_a_broadcast() -> AsyncIterator[Case]:
    tx, rx = broadcast[str](1, overflow="suspend")

    def release(_: object) -> None:
        assert rx.recv_nowait() == "item"
        if not rx.statistics().waiting_senders and not len(rx):
            tx.send_nowait("in the way")

    with tx, rx:
        tx.send_nowait("in the way")
        yield Case(
            lambda: tx.sending("item"),
            rx.recv_nowait,
            1,
            take=lambda: tx.send("item"),
            release=release,
            fail=rx.close,
            error=ChannelClosed,
        )


@kind(queues=True, anywhere=True)
async def watch_receiver() -> AsyncIterator[Case]:
    tx, rx = watch("old")

    async def newest() -> str:
        await rx.changed()
        return rx.borrow()

    with tx, rx:
        yield Case(lambda: rx, lambda: tx.send("new"), "new", take=newest, fail=tx.close, error=ChannelClosed)


@kind(anywhere=True)
async def oneshot_receiver() -> AsyncIterator[Case]:
    tx, rx = oneshot_channel[str]()
    with tx, rx:
        yield Case(lambda: rx, lambda: tx.send("item"), "item", take=rx.recv, fail=tx.close, error=ChannelClosed)


@kind(anywhere=True, alone=True)
async def bytes_receiver() -> AsyncIterator[Case]:
    tx, rx = spsc_buffer(8)
    with tx, rx:
        yield Case(
            lambda: rx, lambda: tx.send_nowait(b"item"), b"item", take=rx.recv, fail=tx.close, error=ChannelClosed
        )


# ---------------------------------------------------------------------------------------------- sync


@kind(queues=True, anywhere=True)
async def lock() -> AsyncIterator[Case]:
    lock = Lock()
    with lock.or_raise():
        yield Case(lambda: lock, lock.release, take=lambda: none(lock.acquire()), release=lambda _: lock.release())
        lock.try_acquire()


@kind(queues=True, anywhere=True)
async def lock_that_is_called() -> AsyncIterator[Case]:
    lock = Lock()
    with lock.or_raise():
        yield Case(lambda: lock(), lock.release, take=lambda: none(lock()), release=lambda _: lock.release())
        lock.try_acquire()


async def none(awaitable: Awaitable[object]) -> None:
    await awaitable


@kind(queues=True, anywhere=True)
async def semaphore() -> AsyncIterator[Case]:
    semaphore = Semaphore(0)
    yield Case(
        lambda: semaphore,
        semaphore.release,
        take=lambda: none(semaphore.acquire()),
        fail=semaphore.close,
        error=SemaphoreClosed,
    )


@kind(queues=True, anywhere=True)
async def bounded_semaphore() -> AsyncIterator[Case]:
    semaphore = BoundedSemaphore(2)
    semaphore.try_acquire(2)
    yield Case(
        lambda: semaphore,
        semaphore.release,
        take=lambda: none(semaphore.acquire()),
        fail=semaphore.close,
        error=SemaphoreClosed,
    )


@kind(queues=True, anywhere=True)
async def several_permits() -> AsyncIterator[Case]:
    semaphore = Semaphore(1)
    yield Case(
        lambda: semaphore.acquire_many(2),
        semaphore.release,
        take=lambda: none(semaphore.acquire_many(2)),
        release=lambda _: semaphore.release(),
        fail=semaphore.close,
        error=SemaphoreClosed,
    )


@kind(queues=True, anywhere=True)
async def nestable_lock() -> AsyncIterator[Case]:
    lock = NestableLock()
    owner: Waiter[Any] = Waiter([None])
    await asyncio.to_thread(lock.register, owner)
    yield Case(
        lambda: lock, lambda: lock.withdraw(owner), take=lambda: none(lock.acquire()), release=lambda _: lock.release()
    )


@kind(queues=True, anywhere=True)
async def key_lock() -> AsyncIterator[Case]:
    locks = KeyedLock[str]()
    locks("key").try_acquire()
    yield Case(
        lambda: locks("key"),
        lambda: locks("key").release(),
        take=lambda: none(locks("key").acquire()),
        release=lambda _: locks("key").release(),
    )


def leave(held: Any) -> None:
    with held:
        pass


@kind(queues=True, anywhere=True)
async def mutex() -> AsyncIterator[Case]:
    mutex = Mutex("contents")
    held = mutex.or_raise()
    held.__enter__()

    def is_ours(turn: Any) -> bool:
        return mutex.locked()

    def release(turn: Any) -> None:
        with turn as contents:
            assert contents == "contents"

    yield Case(mutex.lock, lambda: held.__exit__(None, None, None), is_ours, release=release)


@kind(anywhere=True, stays=True)
async def read_lock() -> AsyncIterator[Case]:
    guarded = RwLock()
    guarded.write().try_acquire()
    yield Case(
        guarded.read, lambda: guarded.write().release(), lambda _: guarded.statistics().reading >= 1, release=leave
    )


@kind(queues=True, anywhere=True)
async def write_lock() -> AsyncIterator[Case]:
    guarded = RwLock()
    guarded.read().try_acquire()
    yield Case(guarded.write, lambda: guarded.read().release(), lambda _: guarded.statistics().writing, release=leave)


@kind(anywhere=True, final=True)
async def barrier() -> AsyncIterator[Case]:
    barrier = Barrier(2)
    yield Case(
        lambda: barrier,
        lambda: barrier.register(Waiter([None])),
        lambda position: position in (0, 1),
        take=barrier.wait,
        fail=barrier.abort,
        error=BrokenBarrier,
    )


@kind(anywhere=True, stays=True)
async def event() -> AsyncIterator[Case]:
    event = Event()
    yield Case(lambda: event, event.set, True, take=event.wait)


@kind(queues=True, anywhere=True)
async def notified() -> AsyncIterator[Case]:
    notify = Notify()
    yield Case(notify.notified, notify.notify_one, take=notify.notified)


@kind(queues=True, anywhere=True)
async def notified_that_is_kept() -> AsyncIterator[Case]:
    notify = Notify()
    notified = notify.notified()
    yield Case(lambda: notified, notify.notify_one, take=notify.notified)


@kind(anywhere=True)
async def notified_of_all_that_is_kept() -> AsyncIterator[Case]:
    notify = Notify()
    notified = notify.notified()
    yield Case(lambda: notified, notify.notify_waiters)


@kind(anywhere=True, fades=True)
async def notified_of_all() -> AsyncIterator[Case]:
    notify = Notify()
    yield Case(notify.notified, notify.notify_waiters, take=notify.notified)


@kind(anywhere=True, stays=True)
async def latch_that_is_set() -> AsyncIterator[Case]:
    latch = Latch()
    yield Case(latch.wait_set, latch.set, True)


@kind(anywhere=True, stays=True)
async def latch_that_changes_while_its_wait_is_kept() -> AsyncIterator[Case]:
    latch = Latch()
    changed = latch.wait()
    yield Case(lambda: changed, latch.set, True)


@kind(anywhere=True, fades=True)
async def latch_that_changes() -> AsyncIterator[Case]:
    latch = Latch()
    yield Case(latch.wait, lambda: latch.toggle(not latch.is_set()), lambda state: isinstance(state, bool))


@kind(anywhere=True, fades=True)
async def button() -> AsyncIterator[Case]:
    button = Button()
    yield Case(lambda: button, button.press, take=button.wait)


@kind(anywhere=True, fades=True)
async def cargo() -> AsyncIterator[Case]:
    cargo = Cargo[str]()
    yield Case(lambda: cargo, lambda: cargo.press("item"), "item", take=cargo.wait)


@kind(anywhere=True, stays=True)
async def set_once() -> AsyncIterator[Case]:
    once = SetOnce[str]()
    yield Case(lambda: once, lambda: once.set("item"), "item", take=once.wait)


@kind(anywhere=True, stays=True)
async def cell() -> AsyncIterator[Case]:
    cell = VersionedCell(0)
    yield Case(lambda: cell.when(lambda now: now.value > 0), lambda: cell.set(1), 1)


@kind(anywhere=True, stays=True)
async def state_until() -> AsyncIterator[Case]:
    state = ThreadsafeState(0)

    def fail() -> None:
        state.set_value(-1)

    def is_one(value: int) -> bool:
        if value < 0:
            raise LookupError("negative")
        return value == 1

    yield Case(lambda: state.wait_until(is_one), lambda: state.set_value(1), 1, fail=fail, error=LookupError)


@kind(anywhere=True, fades=True)
async def state_that_changes() -> AsyncIterator[Case]:
    state = ThreadsafeState(0)
    yield Case(state.wait, lambda: state.set_value(1), 1)


# ---------------------------------------------------------------------------------------------- runtime


@kind(anywhere=True, stays=True)
async def token() -> AsyncIterator[Case]:
    token = CancellationToken()
    yield Case(lambda: token, token.cancel, take=token.cancelled)


class Gate:
    """Something that runs until it is let go on, or made to fail; at the end of the block it has ended."""

    def __init__(self) -> None:
        self.future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    async def passed(self) -> Any:
        return await asyncio.shield(self.future)

    def provide(self) -> None:
        self.future.set_result("item")

    def fail(self) -> None:
        self.future.set_exception(OSError("no answer"))

    async def __aenter__(self) -> Gate:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.future.cancel()
        await turns()


@kind(stays=True, later=True, elsewhere=True)
async def join_handle() -> AsyncIterator[Case]:
    async with Gate() as gate:
        handle = spawn(gate.passed())
        yield Case(lambda: handle, gate.provide, "item", take=lambda: handle, fail=gate.fail, error=OSError)


@kind(stays=True, later=True, elsewhere=True)
async def join_handle_of_a_task_that_is_aborted() -> AsyncIterator[Case]:
    async with Gate() as gate:
        handle = spawn(gate.passed())
        yield Case(lambda: handle, gate.provide, "item", take=lambda: handle, fail=handle.abort, error=JoinError)


@kind(stays=True, later=True, elsewhere=True)
async def call_in_a_thread() -> AsyncIterator[Case]:
    gate = threading.Event()

    def work() -> str:
        gate.wait()
        return "item"

    handle = spawn_blocking(work)
    yield Case(lambda: handle, gate.set, "item", take=lambda: handle, settled=lambda: handle)
    gate.set()
    await handle


@kind(stays=True, later=True, elsewhere=True)
async def task() -> AsyncIterator[Case]:
    async with Gate() as gate:
        task = asyncio.create_task(gate.passed())
        yield Case(lambda: task, gate.provide, "item", take=lambda: task, fail=gate.fail, error=OSError)


@kind(stays=True, later=True, elsewhere=True)
async def future() -> AsyncIterator[Case]:
    async with Gate() as gate:
        future = gate.future
        yield Case(lambda: future, gate.provide, "item", take=lambda: future, fail=gate.fail, error=OSError)


@kind(later=True, queues=True, elsewhere=True)
async def join_set() -> AsyncIterator[Case]:
    async with Gate() as gate, JoinSet[str]() as jobs:
        handle = jobs.spawn(gate.passed())
        jobs.spawn(pending())
        yield Case(lambda: jobs, gate.provide, lambda value: value is handle, take=jobs.join_next)


@kind(later=True, queues=True, elsewhere=True)
async def join_map() -> AsyncIterator[Case]:
    async with Gate() as gate, JoinMap[str, str]() as jobs:
        handle = jobs.spawn("key", gate.passed())
        jobs.spawn("other", pending())
        yield Case(lambda: jobs, gate.provide, lambda value: value == ("key", handle), take=jobs.join_next)


@kind(anywhere=True, stays=True)
async def task_tracker() -> AsyncIterator[Case]:
    tracker = TaskTracker()
    yield Case(lambda: tracker, tracker.close, take=tracker.wait)


# ---------------------------------------------------------------------------------------------- time

FAR = 3600.0  # seconds: nothing here waits until time passes


@kind(queues=True)
async def ticks() -> AsyncIterator[Case]:
    ticks = interval_at(asyncio.get_running_loop().time() + FAR, FAR)
    yield Case(lambda: ticks, ticks.reset_immediately, lambda due: isinstance(due, float), take=ticks.tick)


@kind(stays=True)
async def sleep_that_is_moved() -> AsyncIterator[Case]:
    idle = Sleep(FAR)
    yield Case(lambda: idle, lambda: idle.reset_after(0), take=lambda: idle)


@kind(queues=True)
async def delay_queue() -> AsyncIterator[Case]:
    queue = DelayQueue[str]()
    yield Case(
        lambda: queue,
        lambda: queue.insert("item", 0),
        "item",
        take=queue.recv,
        fail=queue.close,
        error=DelayQueueClosed,
    )


@kind(queues=True, elsewhere=True)
async def rate_limiter() -> AsyncIterator[Case]:
    limiter = RateLimiter(1, FAR)
    owner: Waiter[Any] = Waiter([None])
    limiter.register(owner)  # who gives up, and hands back its permit
    yield Case(lambda: limiter, lambda: limiter.withdraw(owner), take=limiter.acquire)


@kind(queues=True, elsewhere=True)
async def several_permits_of_a_rate_limiter() -> AsyncIterator[Case]:
    limiter = RateLimiter(1, FAR, burst=3)
    owner: Waiter[Any] = Waiter([None])
    limiter.acquire_many(2).register(owner)
    yield Case(lambda: limiter.acquire_many(2), lambda: limiter.withdraw(owner), take=lambda: limiter.acquire_many(2))


@kind(stays=True, later=True, elsewhere=True)
async def timer() -> AsyncIterator[Case]:
    async def call(seconds: float) -> None:
        pass

    timer = create_timer(call, FAR)
    await turns()  # the first call is made at once
    yield Case(lambda: timer, timer.cancel, take=lambda: timer)
    timer.cancel()
    await timer


# ---------------------------------------------------------------------------------------------- futures


@kind(later=True, queues=True, elsewhere=True)
async def completion_queue() -> AsyncIterator[Case]:
    async with Gate() as gate, CompletionQueue[str, str]() as queue:
        entry = ("key", queue.add(gate.passed(), "key"))
        queue.add(pending(), "other")
        yield Case(lambda: queue, gate.provide, lambda value: value == entry, take=queue.pop)


@kind(later=True, queues=True, elsewhere=True)
async def tasks_of_a_set() -> AsyncIterator[Case]:
    async with Gate() as gate, task_set(name=gate.passed(), other=pending()) as tasks:
        yield Case(
            lambda: tasks,
            gate.provide,
            ("name", "item"),
            take=lambda: anext(tasks),
            fail=gate.fail,
            error=OSError,
            path=("branch", "name"),
        )


async def once(run: Awaitable[Any]) -> None:
    try:
        await run
    except OSError:
        pass


@kind(stays=True, later=True, elsewhere=True)
async def shared_run() -> AsyncIterator[Case]:
    async with Gate() as gate, shared(gate.passed()) as run:
        spawn(once(run))  # and not the select begins it
        await turns()
        yield Case(lambda: run, gate.provide, "item", take=lambda: run, fail=gate.fail, error=OSError)


@kind(stays=True, later=True, elsewhere=True)
async def lazy_value() -> AsyncIterator[Case]:
    async with Gate() as gate, lazy(gate.passed) as value:
        spawn(once(value))
        await turns()
        yield Case(lambda: value, gate.provide, "item", take=lambda: value, fail=gate.fail, error=OSError)


@kind(later=True, ends=True)
async def coroutine() -> AsyncIterator[Case]:
    running = 0

    async def work() -> Any:
        nonlocal running
        running += 1
        try:
            return await gate.passed()
        finally:
            running -= 1

    async def ended() -> None:
        assert not running, "a coroutine that lost runs on"

    async with Gate() as gate:
        yield Case(work, gate.provide, "item", take=ended, fail=gate.fail, error=OSError)


async def ended() -> None:
    """Nothing is left of a coroutine that has ended; the tests look for tasks that were not awaited."""


class Answer:
    """Something to await that is neither a coroutine nor a future."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    def __await__(self) -> Any:
        return (yield from self._gate.passed().__await__())


@kind(later=True, ends=True)
async def awaitable() -> AsyncIterator[Case]:
    async with Gate() as gate:
        yield Case(lambda: Answer(gate), gate.provide, "item", take=ended, fail=gate.fail, error=OSError)


# ---------------------------------------------------------------------------------------------- server


@kind(stays=True, later=True, elsewhere=True)
async def child_process() -> AsyncIterator[Case]:
    async with await afork(sleep, FAR, method="forkserver") as child:
        yield Case(lambda: child, child.kill, -SIGKILL, take=child.wait, settled=child.wait)


@kind(queues=True, later=True)
async def listener() -> AsyncIterator[Case]:
    async with listen("127.0.0.1", 0) as listening:
        address = ("127.0.0.1", listening.port)
        clients: list[socket] = []
        given: list[Connection] = []

        def is_connection(value: Connection) -> bool:
            given.append(value)
            return isinstance(value, Connection)

        async def take() -> Connection:
            given.append(await anext(listening))
            return given[-1]

        yield Case(
            lambda: listening,
            lambda: clients.append(create_connection(address)),
            is_connection,
            take=take,
            release=Connection.abort,
            fail=listening.close,
            error=StopAsyncIteration,
        )
        for connection in given:
            connection.abort()
        for client in clients:
            client.close()


# ---------------------------------------------------------------------------------------------- one's own


class Tray:
    """Items and parked parties, on one thread."""

    def __init__(self) -> None:
        self._items: list[Any] = []
        self._waiters: list[Waiter[Any]] = []

    def put(self, item: Any) -> None:
        self._items.append(item)
        self._serve()

    def register(self, waiter: Waiter[Any], /) -> None:
        self._waiters.append(waiter)
        self._serve()

    def withdraw(self, waiter: Waiter[Any], /) -> None:
        if waiter.settled:
            self._items.insert(0, waiter.value)
            self._serve()
        elif waiter in self._waiters:
            self._waiters.remove(waiter)

    def _serve(self) -> None:
        while self._items and self._waiters:
            if self._waiters.pop(0).hand(self._items[0]):
                del self._items[0]


@kind(queues=True)
async def ones_own() -> AsyncIterator[Case]:
    tray = Tray()
    yield Case(lambda: tray, lambda: tray.put("item"), "item")


# ---------------------------------------------------------------------------------------------- the table itself


async def test_there_is_a_case_for_each_class_that_can_be_a_branch() -> None:
    classes = set()
    for kind in KINDS.values():
        async with kind.case() as case:
            branch = case.branch()
            classes.update(type(branch).__mro__)
            if inspect.iscoroutine(branch):
                branch.close()
    missing = {
        name
        for area in ("runtime", "sync", "time", "channels", "futures", "streams", "threads", "server")
        for name, value in vars(import_module(f"yamanote.{area}")).items()
        if inspect.isclass(value) and hasattr(value, "withdraw") and value not in classes
    }
    assert missing == {"Selectable", "SignalListener"}  # see test_signals_can_be_selected
