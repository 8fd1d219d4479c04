"""Lines in files."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from yamanote import streams
from yamanote.runtime import spawn_blocking
from yamanote.sinks import FileSink, SinkClosed


def others() -> set[asyncio.Task[Any]]:
    return asyncio.all_tasks() - {asyncio.current_task()}  # type: ignore[arg-type]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lines"


async def test_each_item_is_a_line(path: Path) -> None:
    await streams.iter(["a", 1, None, "ü"]).forward(FileSink(path))
    assert path.read_bytes() == "a\n1\nNone\nü\n".encode()
    assert not others()


async def test_append_goes_on_and_replace_begins_anew(path: Path) -> None:
    for text in "ab":
        async with FileSink(str(path)) as sink:
            await sink.feed(text)
    assert path.read_text() == "a\nb\n"
    async with FileSink(path, mode="replace") as sink:
        await sink.feed("c")
    assert path.read_text() == "c\n"


async def test_a_path_may_be_of_bytes_as_for_open(path: Path) -> None:
    for mode in ("replace", "append"):
        async with FileSink(os.fsencode(path), mode=mode) as sink:  # type: ignore[arg-type]
            await sink.feed("a")
    assert path.read_text() == "a\na\n"


async def test_the_loop_turns_although_no_item_waits_for_room(path: Path) -> None:
    async def feed_all() -> None:
        for _ in range(10_000):
            await sink.feed("")

    async with FileSink(path) as sink:
        feeding = asyncio.create_task(feed_all())
        for _ in range(3):
            await asyncio.sleep(0)
        assert not feeding.done()
        await feeding


async def test_a_file_without_items_is_made_when_it_is_closed(path: Path) -> None:
    sink = FileSink(path, mode="replace")
    assert not path.exists()
    await sink.close()
    assert path.read_text() == ""


async def test_the_encoding_is_used(path: Path) -> None:
    async with FileSink(path, encoding="utf-16-le") as sink:
        await sink.feed("ü")
    assert path.read_bytes() == "ü\n".encode("utf-16-le")


async def test_flush_brings_everything_into_the_file(path: Path) -> None:
    async with FileSink(path) as sink:
        await sink.feed("a")
        assert not path.exists()
        await sink.flush()
        assert path.read_text() == "a\n"
        await sink.send("b")
        assert path.read_text() == "a\nb\n"


async def test_flushes_at_once_are_complete_each(path: Path) -> None:
    async with FileSink(path) as sink:

        async def send(number: int) -> None:
            for _ in range(number % 5):
                await asyncio.sleep(0)
            await sink.send(number)
            assert str(number) in path.read_text().splitlines()

        await asyncio.gather(*(send(number) for number in range(50)))
    assert sorted(map(int, path.read_text().splitlines())) == list(range(50))


async def test_a_closed_file_accepts_nothing(path: Path) -> None:
    sink = FileSink(path)
    await sink.close()
    await sink.close()
    with pytest.raises(SinkClosed, match="lines"):
        await sink.feed("a")
    with pytest.raises(SinkClosed):
        await sink.flush()


async def test_an_error_is_raised_by_each_later_call(tmp_path: Path) -> None:
    sink = FileSink(tmp_path / "missing" / "lines")
    await sink.feed("a")
    for _ in range(2):
        with pytest.raises(FileNotFoundError):
            await sink.flush()
        with pytest.raises(FileNotFoundError):
            await sink.feed("b")
    for _ in range(2):
        with pytest.raises(FileNotFoundError):
            await sink.close()


async def test_an_error_at_the_very_end_is_raised_by_close(tmp_path: Path) -> None:
    sink = FileSink(tmp_path / "missing" / "lines")
    for _ in range(2):
        with pytest.raises(FileNotFoundError):
            await sink.close()


async def test_what_waits_in_memory_is_bounded(path: Path) -> None:
    async with FileSink(path) as sink:
        for _ in range(100):
            await sink.feed("x" * 9_999)
        assert path.stat().st_size >= 1_000_000 - (1 << 18) - 10_000
    assert path.stat().st_size == 1_000_000


class Slow(FileSink[object]):
    """A file on a disk that stands still until it is told to go on."""

    __slots__ = ("go_on", "stands")

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.go_on = threading.Event()
        self.stands = threading.Event()

    def _append(self, pieces: list[bytes], sync: bool) -> None:
        self.stands.set()
        self.go_on.wait()
        super()._append(pieces, sync)


async def stand(sink: Slow) -> None:
    while not sink.stands.is_set():
        await asyncio.sleep(0)


@pytest.mark.parametrize("turns", range(5))
async def test_a_cancelled_flush_loses_nothing(path: Path, turns: int) -> None:
    sink = Slow(path)
    await sink.feed("a")
    flush = asyncio.create_task(sink.flush())
    for _ in range(turns):
        await asyncio.sleep(0)
    flush.cancel()
    await asyncio.wait([flush])
    await sink.feed("b")
    sink.go_on.set()
    await sink.close()
    assert path.read_text() == "a\nb\n"
    assert not others()


@pytest.mark.parametrize("turns", range(5))
@pytest.mark.parametrize("writing", [False, True])
async def test_the_file_is_complete_when_close_is_cancelled(path: Path, turns: int, writing: bool) -> None:
    sink = Slow(path)
    await sink.feed("a")
    if writing:
        flush = asyncio.create_task(sink.flush())
        await stand(sink)
        await sink.feed("b")
    close = asyncio.create_task(sink.close())
    for _ in range(turns):
        await asyncio.sleep(0)
    close.cancel()
    await asyncio.wait([close])
    sink.go_on.set()
    while others() - ({flush} if writing else set()):
        await asyncio.sleep(0)
    if turns:
        assert path.read_text() == ("a\nb\n" if writing else "a\n")
    await sink.close()
    if writing:
        await asyncio.wait([flush])
    assert path.read_text() == ("a\nb\n" if writing else "a\n")


async def test_a_task_that_somebody_cancels_before_it_begins_loses_nothing(path: Path) -> None:
    sink = FileSink(path)
    for line, call in [("a", sink.flush), ("b", sink.close)]:
        await sink.feed(line)
        calling = asyncio.create_task(call())
        before = asyncio.all_tasks()
        await asyncio.sleep(0)
        (begun,) = asyncio.all_tasks() - before
        begun.cancel()
        await calling
        assert path.read_text().splitlines()[-1] == line
    assert path.read_text() == "a\nb\n"


async def test_a_task_that_somebody_cancels_later_is_told_as_an_error(path: Path) -> None:
    sink = Slow(path)
    await sink.feed("a")
    flush = asyncio.create_task(sink.flush())
    before = asyncio.all_tasks()
    await stand(sink)
    for task in asyncio.all_tasks() - before:
        task.cancel()
    close = asyncio.create_task(sink.close())
    for _ in range(10):
        await asyncio.sleep(0)
    assert not close.done()  # the file is the thread's until it has written
    sink.go_on.set()
    with pytest.raises(RuntimeError, match="cancelled"):
        await flush
    with pytest.raises(RuntimeError, match="cancelled"):
        await close
    assert path.read_text() == "a\n"
    assert not sink._target.is_open


async def test_a_close_that_is_cancelled_before_a_thread_has_taken_it_is_done_all_the_same(path: Path) -> None:
    sink = FileSink(path)
    await sink.send("a")
    await sink.feed("b")
    go_on = threading.Event()
    crowd = [spawn_blocking(go_on.wait) for _ in range(64)]
    before = asyncio.all_tasks()
    close = asyncio.create_task(sink.close())
    for _ in range(10):
        await asyncio.sleep(0)
    for task in asyncio.all_tasks() - before - {close}:
        task.cancel()
    with pytest.raises(RuntimeError, match="cancelled"):
        await close
    go_on.set()
    for call in crowd:
        await call
    assert path.read_text() == "a\nb\n"
    assert not sink._target.is_open


async def test_a_cancelled_feed_has_not_accepted_the_item(path: Path) -> None:
    sink = Slow(path)
    await sink.feed("x" * (1 << 18))
    feed = asyncio.create_task(sink.feed("y"))
    await stand(sink)
    feed.cancel()
    with pytest.raises(asyncio.CancelledError):
        await feed
    sink.go_on.set()
    await sink.close()
    assert path.read_text() == "x" * (1 << 18) + "\n"


async def test_the_loop_runs_on_while_the_disk_stands_still(path: Path) -> None:
    sink = Slow(path)
    send = asyncio.create_task(sink.send("a"))
    await stand(sink)
    for _ in range(10):
        await asyncio.sleep(0)
    assert not send.done()
    sink.go_on.set()
    await send
    await sink.close()


async def test_a_dropped_file_warns_and_is_complete(path: Path) -> None:
    sink: FileSink[object] | None = FileSink(path)
    assert sink is not None
    await sink.send("a")
    await sink.feed("b")
    with pytest.warns(ResourceWarning, match="lines"):
        sink = None
        gc.collect()
    assert path.read_text() == "a\nb\n"
    FileSink(path)  # nothing was accepted: nothing to say
    gc.collect()


def test_wrong_arguments_are_refused(path: Path) -> None:
    with pytest.raises(ValueError, match="mode"):
        FileSink(path, mode="w")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="encoding"):
        FileSink(path, encoding="klingon")
    with pytest.raises(TypeError):
        FileSink(3)  # type: ignore[arg-type]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="only Linux has a device that is always full")
async def test_a_full_disk_is_reported_once():
    reports = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: reports.append(context))
    with pytest.raises(OSError):
        async with FileSink("/dev/full") as sink:
            await sink.send("x")
    assert reports == []


async def test_a_flush_beside_a_close_loses_nothing(path: Path) -> None:
    for _ in range(20):
        sink = FileSink(path, mode="replace")
        await sink.feed("first")
        first = asyncio.create_task(sink.flush())
        await asyncio.sleep(0)
        await sink.feed("second")
        rest = [asyncio.create_task(sink.flush()), asyncio.create_task(sink.close())]
        await asyncio.gather(first, *rest)
        assert path.read_text() == "first\nsecond\n"
