from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from yamanote.net import socket
from yamanote.runtime import EventLoop, TaskGroup, run, spawn, yield_now
from yamanote.runtime import _placing as placing
from yamanote.runtime._batch import Batch, Part
from yamanote.runtime._workers import Worker, Workers

PATIENCE = 20.0
"""Seconds after which a test gives up."""


async def stay() -> None:
    await asyncio.get_running_loop().create_future()


async def end() -> None: ...


def standing(count: int) -> Iterator[list[Worker]]:
    """Workers whose loops run only when the test lets them."""
    workers = Workers([EventLoop() for _ in range(count)])
    yield workers.all
    for worker in workers.all:
        worker.give_up_backlog()
    for worker in workers.all:
        for task in asyncio.all_tasks(worker.loop):
            task.cancel()
        worker.loop.run_until_complete(asyncio.sleep(0))
        worker.loop.run_until_complete(asyncio.sleep(0))
        worker.loop.close()


@pytest.fixture
def nobody_is_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow the machine is."""
    monkeypatch.setattr(placing, "_WHILE", PATIENCE)


@pytest.fixture
def two(nobody_is_late: None) -> Iterator[list[Worker]]:
    yield from standing(2)


@pytest.fixture
def four(nobody_is_late: None) -> Iterator[list[Worker]]:
    yield from standing(4)


def begin(worker: Worker) -> None:
    """All that it has, in its loop."""

    async def main() -> None:
        while worker.backlog or worker.given or worker.pinned:
            worker._begin_some()

    worker.loop.run_until_complete(main())


def alive(worker: Worker) -> int:
    return len(asyncio.all_tasks(worker.loop))


def place(worker: Worker, *coroutines: Any) -> list[Any]:
    return [worker.place(coroutine, None, None) for coroutine in coroutines]


def given(worker: Worker) -> int:
    return sum(startable.count for startable in worker.given)


# ---------------------------------------------------------------- what stays is spread


def test_a_worker_on_which_tasks_stay_gives_of_its_backlog_to_one_that_has_fewer(two: list[Worker]) -> None:
    owner, other = two
    place(owner, *[stay() for _ in range(64)])
    begin(owner)
    assert alive(owner) + given(other) == 64
    assert 24 <= given(other) <= 40
    begin(other)
    assert alive(owner) + alive(other) + given(owner) == 64
    assert given(owner) == 0  # which would be too much


def test_those_that_come_one_by_one_are_spread_too(four: list[Worker]) -> None:
    owner, *others = four
    for _ in range(64):
        place(owner, stay())
        begin(owner)
    assert alive(owner) <= 24
    assert all(12 <= given(other) <= 20 for other in others)


def test_a_batch_is_spread(four: list[Worker]) -> None:
    owner, *others = four
    batch = Batch([stay() for _ in range(64)], owner.loop, None)
    owner.place_all(batch.all())
    begin(owner)
    assert alive(owner) <= 32
    assert all(given(other) >= 6 for other in others)
    assert all(isinstance(part, Part) for other in others for part in other.given)


def test_a_few_stay_together(two: list[Worker]) -> None:
    owner, other = two
    place(owner, *[stay() for _ in range(4)])
    begin(owner)
    assert alive(owner) == 4
    assert not other.given


def test_those_that_end_at_once_stay_here_however_many_others_live_here(two: list[Worker]) -> None:
    owner, other = two
    place(owner, *[end() for _ in range(200)])
    begin(owner)
    assert not other.given
    owner._tasks.update(range(100))
    place(owner, *[end() for _ in range(200)])
    begin(owner)
    assert not other.given


def test_each_that_stays_pays_for_a_few_journeys_only(two: list[Worker]) -> None:
    owner, other = two
    owner._tasks.update(range(40))
    place(owner, stay(), *[end() for _ in range(200)])
    begin(owner)
    assert 1 <= given(other) <= 20


def test_those_that_have_ended_make_room(two: list[Worker]) -> None:
    owner, other = two
    tasks: list[asyncio.Task[Any] | None] = []

    async def stay_and_tell() -> None:
        tasks.append(asyncio.current_task())
        await stay()

    async def cancel() -> None:
        for task in tasks:
            assert task is not None
            task.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    batch = Batch([stay_and_tell() for _ in range(10)], owner.loop, None)
    owner.place_all(batch.all())
    placed = place(owner, *[stay_and_tell() for _ in range(10)])
    begin(owner)
    begin(other)
    assert len(owner._tasks) > 5
    assert len(other._tasks) > 5
    for worker in two:
        worker.loop.run_until_complete(cancel())
    assert not other._tasks
    assert not {task for task in owner._tasks if isinstance(task, asyncio.Task)}
    assert len(placed) == 10


def test_one_that_has_as_many_is_given_nothing(two: list[Worker]) -> None:
    owner, other = two
    other._tasks.update(range(64))
    place(owner, *[stay() for _ in range(64)])
    begin(owner)
    assert alive(owner) == 64


def test_what_is_given_is_counted_and_given_up_as_what_is_spawned_there(two: list[Worker]) -> None:
    owner, other = two
    coroutine = stay()
    _, kept = place(owner, coroutine, stay())
    other.given.append(owner.backlog.popleft())
    assert other.waiting() == 1
    other.give_up_backlog()
    assert coroutine.cr_frame is None
    assert list(owner.backlog) == [kept]


# ---------------------------------------------------------------- what is given, and its owner does not come


def test_what_is_given_is_not_taken_back_before_its_worker_has_woken_up(two: list[Worker]) -> None:
    owner, _ = two
    place(owner, *[stay() for _ in range(64)])
    begin(owner)
    assert not owner._take_from_others()
    assert owner._go_idle()


def test_what_is_left_of_what_was_given_is_not_in_a_backlog(two: list[Worker]) -> None:
    owner, other = two
    left: list[tuple[int, int]] = []

    async def look() -> None:
        left.append((given(other), len(other.backlog)))

    other.given.append(Batch([look() for _ in range(4)], owner.loop, None).all())
    begin(other)
    assert left == [(3, 0), (2, 0), (1, 0), (0, 0)]


def test_what_is_given_is_watched_by_one_that_is_neither_the_giver_nor_the_receiver(
    four: list[Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    owner, receiver, busy, asleep = four
    busy.loop._is_awake = True  # type: ignore[attr-defined]
    watching: list[Worker] = []
    monkeypatch.setattr(Worker, "_watch", lambda self: watching.append(self))
    for worker in (owner, receiver, busy, asleep):
        assert worker._go_idle()
    owner._tasks.update(range(40))
    place(owner, end())
    owner._watched, owner._gifts = False, 1
    owner._give()
    assert receiver.given
    for worker in (receiver, busy, asleep):
        worker.loop.run_until_complete(asyncio.sleep(0))
    assert watching == [receiver, asleep]  # the first one looks after what was placed


def test_what_is_given_to_a_worker_that_does_not_come_is_started_elsewhere_and_it_is_given_no_more(
    two: list[Worker],
) -> None:
    owner, stuck = two
    place(owner, *[stay() for _ in range(30)])
    begin(owner)
    assert stuck.given
    owner.loop.run_until_complete(at_once(owner._look, owner._waited_for()))
    assert alive(owner) == 30
    place(owner, *[stay() for _ in range(30)])
    begin(owner)
    assert alive(owner) == 60
    begin(stuck)
    stuck.loop.run_until_complete(at_once(stuck._begin_some))
    place(owner, *[stay() for _ in range(30)])
    begin(owner)
    assert stuck.given


@pytest.mark.parametrize("line", ["given", "backlog"])
def test_what_a_worker_comes_to_by_and_by_is_left_to_it(two: list[Worker], line: str) -> None:
    watcher, busy = two
    nothing = watcher._waited_for()
    place(busy, end())
    if line == "given":
        busy.given.append(busy.backlog.popleft())
    before = watcher._waited_for()
    watcher.loop.run_until_complete(at_once(watcher._look, nothing))
    assert busy.waiting() == 1
    begin(busy)
    place(busy, stay())
    watcher.loop.run_until_complete(at_once(watcher._look, before))
    assert busy.waiting() == 1
    watcher.loop.run_until_complete(at_once(watcher._look, watcher._waited_for()))
    assert busy.waiting() == 0


def test_a_watch_keeps_nothing_alive_that_has_ended(two: list[Worker]) -> None:
    """Else the error of a task would be reported late."""
    watcher, other = two
    (placed,) = place(other, end())
    watcher.loop.run_until_complete(at_once(watcher._watch))
    begin(other)
    ended = weakref.ref(placed)
    del placed
    gc.collect()
    assert ended() is None


async def at_once(call: Callable[..., object], *arguments: object) -> None:
    call(*arguments)


def test_one_alone_is_watched_by_an_idle_worker_once(two: list[Worker], monkeypatch: pytest.MonkeyPatch) -> None:
    owner, other = two
    watching: list[Worker] = []
    monkeypatch.setattr(Worker, "_watch", lambda self: watching.append(self))
    assert other._go_idle()
    for _ in range(5):
        place(owner, end())
        begin(owner)
        owner._beginning = False
    other.loop.run_until_complete(asyncio.sleep(0))
    assert watching == [other]


def test_who_is_the_only_idle_one_is_not_watched_by_itself_for_long(two: list[Worker]) -> None:
    """It may compute from now on; and who goes idle before it is watched by another sees what it has."""
    owner, _ = two
    assert owner._go_idle()
    owner.loop.run_until_complete(at_once(place, owner, end()))
    assert not owner._watched


def test_one_that_is_placed_in_the_moment_in_which_a_watch_ends_is_seen(
    two: list[Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who has read that it is watched has placed it before; so what there is, is looked at after that is taken back."""
    owner, watcher = two
    owner._watched = True
    was_watched: list[bool] = []

    def look(_: Worker) -> dict[Worker, int]:
        was_watched.append(owner._watched)
        return {}

    monkeypatch.setattr(Worker, "_waited_for", look)
    watcher.loop.run_until_complete(at_once(watcher._look, {}))
    assert was_watched == [False]


def test_a_watch_goes_on_as_long_as_something_waits_and_then_ends(two: list[Worker]) -> None:
    watcher, other = two
    place(other, end())
    watcher.loop.run_until_complete(at_once(watcher._look, {}))
    assert watcher._watching
    other.give_up_backlog()
    watcher.loop.run_until_complete(at_once(watcher._watch))
    assert watcher._watching
    watcher.loop.run_until_complete(at_once(watcher._look, {}))
    assert not watcher._watching


def test_who_sees_what_was_given_to_another_as_it_goes_idle_watches_that(two: list[Worker]) -> None:
    watcher, other = two
    assert watcher._go_idle()
    assert not watcher._watching
    place(watcher, end())
    other.given.append(watcher.backlog.popleft())
    watcher.loop.run_until_complete(at_once(watcher._go_idle))
    assert watcher._watching


def test_who_has_something_of_its_own_does_not_go_idle(two: list[Worker]) -> None:
    owner, _ = two
    for line in (owner.pinned, owner.given, owner.backlog):
        place(owner, end())
        line.append(owner.backlog.popleft())
        assert not owner._go_idle()
        owner.give_up_backlog()
    assert owner._go_idle()


def test_what_a_thief_puts_back_is_begun_though_its_owner_has_gone_idle_meanwhile(
    two: list[Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    owner, thief = two
    woken: list[Worker] = []
    monkeypatch.setattr(Worker, "wake", lambda self: woken.append(self))
    owner.place_all(Batch([end() for _ in range(10)], owner.loop, None).all())
    split = Part.split

    def go_idle_and_split(part: Part, count: int) -> Part | None:
        assert owner._go_idle()
        return split(part, count)

    monkeypatch.setattr(Part, "split", go_idle_and_split)
    assert thief._take_from_others()
    assert woken == [owner]


def test_what_is_left_of_a_batch_keeps_its_place(two: list[Worker]) -> None:
    owner, other = two
    owner.place_all(Batch([end() for _ in range(10)], owner.loop, None).all())
    (last,) = place(owner, end())
    assert placing._move(owner.backlog, other.given, 3) == 3
    assert [startable.count for startable in owner.backlog] == [7, 1]
    assert owner.backlog[-1] is last
    assert placing._move(owner.backlog, other.given, 100) == 8


# ---------------------------------------------------------------- programs


class Hall:
    """Where tasks are that stay until it is over."""

    def __init__(self) -> None:
        self.threads: list[int] = []
        self.leave: list[Callable[[], object]] = []

    async def visit(self) -> None:
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        self.leave.append(lambda: loop.call_soon_threadsafe(future.set_result, None))
        self.threads.append(threading.get_ident())
        await future

    async def fill(self, count: int) -> float:
        """Wait until so many are there, and tell the share of the fullest worker."""
        async with asyncio.timeout(PATIENCE):
            while len(self.threads) < count:
                await asyncio.sleep(0)
        return max(Counter(self.threads).values()) / count

    def empty(self) -> None:
        while self.leave:
            self.leave.pop()()
        self.threads.clear()


@pytest.mark.usefixtures("nobody_is_late")
@pytest.mark.parametrize(("workers", "share"), [(2, 0.60), (4, 0.40)])
def test_the_connections_of_one_accept_loop_are_served_by_all_workers(workers: int, share: float) -> None:
    served: list[int] = []

    async def echo(connection: socket.socket) -> None:
        served.append(threading.get_ident())
        with connection:
            while data := await connection.recv(100):
                await connection.sendall(data)

    async def serve(server: socket.socket) -> None:
        while True:
            connection, _ = await server.accept()
            spawn(echo(connection))

    async def program() -> None:
        with await socket.create_server(("127.0.0.1", 0)) as server:
            serving = spawn(serve(server), on=0)
            clients = []
            for _ in range(64):
                client = await socket.create_connection(server.getsockname())
                clients.append(client)
                await client.sendall(b"hello")
                assert await client.recv(100) == b"hello"
            for client in clients:
                client.close()
            serving.abort()
        assert len(served) == 64
        assert max(Counter(served).values()) <= 64 * share

    run(program(), workers=workers)


def by_one(hall: Hall) -> Awaitable[Any]:
    return asyncio.gather(*[spawn(hall.visit()) for _ in range(48)])


def together(hall: Hall) -> Awaitable[Any]:
    return spawn(*[hall.visit() for _ in range(48)])


async def as_children(hall: Hall) -> None:
    async with TaskGroup() as group:
        for _ in range(48):
            group.spawn(hall.visit())


@pytest.mark.usefixtures("nobody_is_late")
@pytest.mark.parametrize("visit", [by_one, together, as_children])
def test_what_waits_is_spread_however_it_was_spawned_and_again_when_it_has_ended(
    visit: Callable[[Hall], Awaitable[Any]],
) -> None:
    async def program() -> None:
        hall = Hall()
        for _ in range(3):
            visits = asyncio.ensure_future(visit(hall))
            assert await hall.fill(48) <= 0.75
            hall.empty()
            await visits

    run(program(), workers=2)


def test_what_is_pinned_does_not_move() -> None:
    async def program() -> None:
        hall = Hall()
        for number in range(2):
            visits = [spawn(hall.visit(), on=number) for _ in range(48)]
            assert await hall.fill(48) == 1.0
            hall.empty()
            for visit in visits:
                await visit

    run(program(), workers=2)


def asleep(worker: Any) -> bool:
    return placing._is_asleep(worker) and not worker.loop.statistics().ready


@pytest.mark.usefixtures("nobody_is_late")
def test_who_awaits_what_ends_at_once_never_leaves_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    # At the end of a slice, which a busy machine reaches at any time, it is not known what is still to come.
    monkeypatch.setattr("yamanote.runtime._placing._SLICE", PATIENCE)

    async def thread() -> int:
        return threading.get_ident()

    async def program() -> None:
        own: Worker = asyncio.get_running_loop()._yamanote_worker  # type: ignore[attr-defined]
        for number in range(3):
            await spawn(yield_now(), on=number)
        while not all(map(asleep, own.others)):
            await asyncio.sleep(0)
        assert {await spawn(thread()) for _ in range(500)} == {threading.get_ident()}

    run(program(), workers=3)


@pytest.mark.parametrize("workers", [2, 3])
def test_what_a_stuck_worker_was_given_starts_elsewhere(workers: int) -> None:
    async def program() -> None:
        stuck, release = threading.Event(), threading.Event()

        async def block() -> None:
            stuck.set()
            assert release.wait(PATIENCE)

        hall = Hall()
        blocked = spawn(block(), on=1)
        assert stuck.wait(PATIENCE)
        visits = []
        for _ in range(48):
            visits.append(spawn(hall.visit()))
            await asyncio.sleep(0)
        try:
            await hall.fill(48)
        finally:
            release.set()
        hall.empty()
        for each in [*visits, blocked]:
            await each

    run(program(), workers=workers)


def test_one_alone_is_started_by_another_worker_while_who_spawned_it_computes() -> None:
    async def program() -> None:
        for _ in range(3):
            begun = threading.Event()
            handle = spawn(at_once(begun.set))
            assert begun.wait(PATIENCE)
            await handle

    run(program(), workers=3)
