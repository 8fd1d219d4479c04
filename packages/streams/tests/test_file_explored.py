"""Files that are written and read, in any order of the steps, and cancelled at each await.

A stand-in for the blocking pool: a call waits for a thread, and is dropped if it is aborted meanwhile; then it takes
its time, whoever aborts it.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Coroutine, Iterator
from functools import partial
from typing import Any

import pytest

from yamanote import streams
from yamanote.runtime import JoinHandle, cancel_and_wait, yield_now
from yamanote.sinks import FileSink, SinkClosed, _file
from yamanote.streams import _reading
from yamanote.testing import Counterexample, explore, explore_cancellations, replay

from .test_streams_explored import Pull, ended


class Pool:
    """What threads do with one file."""

    def __init__(self) -> None:
        self.busy = False

    def spawn_blocking(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> JoinHandle[Any]:
        return JoinHandle(_Call(self, partial(function, *args, **kwargs)))


class _Call(asyncio.Future[Any]):
    def __init__(self, pool: Pool, function: Callable[[], Any]) -> None:
        super().__init__()
        self.pool = pool
        self.function = function
        self.begun = False
        self.get_loop().call_later(1, self.begin)  # until a thread has time

    def begin(self) -> None:
        if self.done():
            return
        if self.pool.busy:
            self.set_exception(AssertionError("two threads at once"))
        else:
            self.pool.busy = self.begun = True
            self.get_loop().call_later(1, self.end)

    def end(self) -> None:
        self.pool.busy = False
        try:
            self.set_result(self.function())
        except Exception as error:
            self.set_exception(error)

    def cancel(self, msg: Any = None) -> bool:
        return not self.begun and super().cancel(msg)


class Memory:
    """A target that is written by one call at a time."""

    replaces = False

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.data = b""
        self.written = self.synced = 0
        self.failed = self.is_open = self.committed = False

    def write(self, data: bytes, *, sync: bool = False) -> None:
        assert not self.pool.busy and not self.committed
        self.is_open = True
        self.data += data
        self.written += len(data)
        if sync:
            self.synced = self.written

    def commit(self) -> None:
        assert not self.pool.busy
        self.is_open = False
        self.committed = True
        self.synced = self.written

    def leave(self) -> None:
        raise AssertionError("nothing has failed")


async def writes(fsync: bool, late: bool) -> None:
    """What was accepted is in the file, in order, after a flush, and after closing, whoever is cancelled."""
    _file.spawn_blocking = (pool := Pool()).spawn_blocking  # type: ignore[assignment]
    sink = FileSink("file", fsync=fsync)
    sink._target = memory = Memory(pool)  # type: ignore[assignment]
    accepted: list[str] = []
    told: list[BaseException] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context["exception"]))

    async def feed(start: int) -> None:
        try:
            for number in range(start, start + 2):
                await yield_now()
                item = f"{number}" + "x" * (200_000 * (number % 2))
                await sink.feed(item)
                accepted.append(item)
        except SinkClosed:
            pass
        except RuntimeError as error:
            told.append(error)

    async def flush() -> None:
        await yield_now()
        before = accepted.copy()
        try:
            await sink.flush()
        except SinkClosed:
            pass
        except RuntimeError as error:
            told.append(error)
        else:
            arrived = memory.synced if fsync else memory.written
            assert {*before} <= {*memory.data[:arrived].decode().split("\n")}

    async def close() -> None:
        if late:
            await ended(feeding)
        await close_here()

    async def close_here() -> None:
        try:
            await sink.close()
        except RuntimeError as error:
            told.append(error)

    feeding = [asyncio.create_task(feed(start)) for start in (0, 10)]
    await ended([*feeding, asyncio.create_task(flush()), asyncio.create_task(close())])
    await close_here()
    assert memory.committed
    assert memory.data.decode() == "".join(f"{item}\n" for item in accepted)


class Pieces:
    """A file that is read by one call at a time."""

    pool: Pool

    def __init__(self, path: str) -> None:
        self.left = [b"a", b"b", b"c"]
        self.closed = False

    def read(self, size: int) -> bytes:
        assert not self.pool.busy and not self.closed
        return self.left.pop(0) if self.left else b""

    def close(self) -> None:
        assert not self.pool.busy
        self.closed = True


async def reads(early: bool) -> None:
    """Each piece comes once, in order, and the file is closed when no thread is at it."""
    opened: list[Pieces] = []
    pool = Pool()

    def opening(path: str) -> Pieces:
        opened.append(Pieces(path))
        opened[0].pool = pool
        return opened[-1]

    _reading.spawn_blocking = pool.spawn_blocking  # type: ignore[assignment]
    _reading.FileIO = opening  # type: ignore[assignment, misc]
    pull = Pull(streams.read_file("file"))
    if early:
        async with pull.stream:
            await ended([asyncio.create_task(pull())])
    else:
        await pull.in_a_task_and_then_here()
    assert [file.closed for file in opened] == [True] * len(opened)
    assert pull.seen == [b"a", b"b", b"c"][: len(pull.seen)]
    assert early or len(pull.seen) == 3


Scenario = Callable[[], Coroutine[Any, Any, None]]
scenarios: dict[str, Scenario] = {
    "writes": partial(writes, False, True),
    "writes, closed early": partial(writes, False, False),
    "syncs": partial(writes, True, True),
    "reads": partial(reads, False),
    "reads, left early": partial(reads, True),
}


@pytest.fixture(autouse=True)
def restored(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a scenario puts in the place of threads and files."""
    monkeypatch.setattr(_file, "spawn_blocking", None)
    monkeypatch.setattr(_reading, "spawn_blocking", None)
    monkeypatch.setattr(_reading, "FileIO", None)
    yield
    gc.collect()


@pytest.mark.parametrize("name", scenarios)
def test_in_any_order(name: str) -> None:
    explore(scenarios[name], runs=30)


@pytest.mark.parametrize("name", scenarios)
def test_cancelled_anywhere(name: str) -> None:
    explore_cancellations(scenarios[name], runs=60)


async def wait_for_the_write_that_is_in_progress(sink: FileSink[Any]) -> None:
    sink._check()
    if sink._writing is not None or sink._pieces:
        await sink._write(sync=sink._fsync)


async def leave_the_call(sink: FileSink[Any], function: Callable[..., None], *args: Any) -> None:
    await _file.spawn_blocking(function, *args)


async def forget_the_call(sink: FileSink[Any], function: Callable[..., None], *args: Any) -> None:
    call = _file.spawn_blocking(function, *args)
    try:
        await call
    except asyncio.CancelledError:
        await cancel_and_wait(call)
        raise


async def accept_first(sink: FileSink[Any], item: Any) -> None:
    sink._check()
    piece = sink._encoded(item)
    sink._pieces.append(piece)
    sink._accepted += len(piece)
    while sink._accepted - sink._target.written >= 1 << 18:
        await sink._write()
        sink._check()


async def finish_beside_the_write(sink: FileSink[Any]) -> None:
    await sink._in_thread(sink._append_and_close)


async def finish_unless_cancelled(sink: FileSink[Any]) -> None:
    if sink._writing is not None:
        await asyncio.wait([sink._writing])
    await sink._in_thread(sink._append_and_close)


async def pull_in_a_call_of_its_own(file: Any) -> bytes:
    await _reading.spawn_blocking(file._read)
    data: bytes = file._read_ahead.pop()
    if not data:
        raise StopAsyncIteration
    return data


async def close_at_once(file: Any) -> None:
    file._closed = True
    if file._file is not None:
        file._file.close()


teeth: dict[str, tuple[type, str, Callable[..., Any], str]] = {
    "a flush that waits for another one's write": (FileSink, "flush", wait_for_the_write_that_is_in_progress, "writes"),
    "a call that nobody waits for": (FileSink, "_in_thread", leave_the_call, "writes, closed early"),
    "a call that no thread has taken": (FileSink, "_in_thread", forget_the_call, "writes"),
    "an item is taken though it was cancelled": (FileSink, "feed", accept_first, "writes"),
    "two threads at one file": (FileSink, "_finish", finish_beside_the_write, "writes, closed early"),
    "a closing that is cancelled": (FileSink, "_finish", finish_unless_cancelled, "writes, closed early"),
    "a piece is lost with its pull": (_reading._File, "__anext__", pull_in_a_call_of_its_own, "reads"),
    "closed while a thread reads": (_reading._File, "aclose", close_at_once, "reads, left early"),
}


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # what a broken scenario leaves behind
@pytest.mark.parametrize("tooth", teeth)
def test_some_cancellation_shows_it(tooth: str, monkeypatch: pytest.MonkeyPatch) -> None:
    owner, method, wrong, name = teeth[tooth]
    monkeypatch.setattr(owner, method, wrong)
    with pytest.raises(Counterexample) as found:
        explore_cancellations(scenarios[name])
    with pytest.raises(Counterexample):
        replay(scenarios[name], found.value.token)
