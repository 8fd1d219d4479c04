"""Bytes from connections and files."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
from io import FileIO
from pathlib import Path
from typing import Any

import pytest

from yamanote import streams
from yamanote.runtime import run
from yamanote.streams import _reading


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "bytes"
    path.write_bytes(bytes(range(256)) * 10)
    return path


class Slow(FileIO):
    """A file on a disk that stands still until it is told to go on."""

    go_on = threading.Event()
    stands = threading.Event()
    closed_early = False
    last: Slow

    def read(self, size: int | None = -1) -> bytes:  # type: ignore[override]
        type(self).last = self
        type(self).stands.set()
        type(self).go_on.wait()
        type(self).closed_early = self.closed
        return super().read(size)


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> type[Slow]:
    Slow.go_on.clear()
    Slow.stands.clear()
    monkeypatch.setattr(_reading, "FileIO", Slow)
    return Slow


async def stand() -> None:
    while not Slow.stands.is_set():
        await asyncio.sleep(0)


def others() -> set[asyncio.Task[Any]]:
    return asyncio.all_tasks() - {asyncio.current_task()}  # type: ignore[arg-type]


class TestFile:
    async def test_it_comes_in_pieces_of_the_size(self, path: Path) -> None:
        pieces = await streams.read_file(path, 1_000).collect()
        assert list(map(len, pieces)) == [1_000, 1_000, 560]
        assert b"".join(pieces) == path.read_bytes()
        assert not others()

    async def test_an_empty_one_gives_nothing(self, path: Path) -> None:
        path.write_bytes(b"")
        assert await streams.read_file(str(path)).collect() == []

    async def test_nothing_is_opened_before_it_is_asked_for(self, path: Path) -> None:
        stream = streams.read_file(path.with_name("missing"))
        with pytest.raises(FileNotFoundError):
            await anext(stream)
        assert await stream.collect() == []

    async def test_a_cancelled_pull_loses_nothing(self, path: Path, slow: type[Slow]) -> None:
        async with streams.read_file(path, 256) as pieces:
            pull = asyncio.ensure_future(anext(pieces))
            await stand()
            pull.cancel()
            with pytest.raises(asyncio.CancelledError):
                await pull
            slow.go_on.set()
            assert len(await pieces.collect()) == 10

    async def test_an_error_that_a_cancelled_pull_was_not_told_is_raised_by_the_next_and_by_nobody_else(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        errors: list[OSError] = []

        def failing(path: str) -> Any:
            errors.append(OSError(path))
            raise errors[-1]

        monkeypatch.setattr(_reading, "FileIO", failing)
        told: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: told.append(context))
        pieces: Any = streams.read_file(path)
        pull = asyncio.ensure_future(anext(pieces))
        while not errors:
            await asyncio.sleep(0)
            pull.cancel()
        await asyncio.wait([pull, *others()])
        with pytest.raises(OSError) as caught:
            await anext(pieces)
        assert errors == [caught.value]
        del pieces, pull
        gc.collect()
        assert not told

    async def test_a_close_that_is_cancelled_closes_the_file_all_the_same(self, path: Path, slow: type[Slow]) -> None:
        pieces = streams.read_file(path)
        pull = asyncio.ensure_future(anext(pieces))
        await stand()
        pull.cancel()
        await asyncio.wait([pull])
        closing = asyncio.create_task(pieces.aclose())
        await asyncio.sleep(0)
        closing.cancel()
        await asyncio.sleep(0)
        slow.go_on.set()
        await asyncio.wait([closing])
        assert closing.cancelled()
        assert slow.last.closed and not slow.closed_early
        await pieces.aclose()

    async def test_closing_waits_until_the_thread_is_done_with_the_file(self, path: Path, slow: type[Slow]) -> None:
        pieces = streams.read_file(path)
        pull = asyncio.ensure_future(anext(pieces))
        await stand()
        pull.cancel()
        await asyncio.wait([pull])
        closing = asyncio.create_task(pieces.aclose())
        for _ in range(10):
            await asyncio.sleep(0)
        assert not closing.done()
        slow.go_on.set()
        await closing
        assert not slow.closed_early
        assert not others()

    async def test_two_tasks_that_pull_at_once_are_told(self, path: Path, slow: type[Slow]) -> None:
        pieces = streams.read_file(path)
        pull = asyncio.ensure_future(anext(pieces))
        await stand()
        slow.go_on.set()
        with pytest.raises(RuntimeError, match="another task"):
            await anext(pieces)
        await asyncio.wait([pull])
        await pieces.aclose()

    async def test_the_file_is_closed_at_the_end_and_when_it_is_left_early(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        opened: list[FileIO] = []

        def opening(path: str) -> Any:
            opened.append(FileIO(path))
            return opened[-1]

        monkeypatch.setattr(_reading, "FileIO", opening)
        await streams.read_file(path).collect()
        async with streams.read_file(path, 10) as pieces:
            await anext(pieces)
        assert [file.closed for file in opened] == [True, True]

    async def test_a_dropped_one_warns_and_is_closed(self, path: Path) -> None:
        pieces: Any = streams.read_file(path, 10)
        await anext(pieces)
        with pytest.warns(ResourceWarning, match="bytes"):
            del pieces
            gc.collect()

    def test_the_loop_may_end_while_it_is_read(self, path: Path, slow: type[Slow]) -> None:
        async def main() -> Any:
            pieces = streams.read_file(path)
            pull = asyncio.ensure_future(anext(pieces))
            await stand()
            slow.go_on.set()
            return pieces, pull

        pieces, pull = run(main())
        assert pull.done()
        run(pieces.aclose())
        assert not slow.closed_early


class TestReader:
    async def test_it_gives_what_there_is(self) -> None:
        reader = asyncio.StreamReader()
        pieces = streams.read_chunks(reader, 3)
        reader.feed_data(b"abcd")
        assert [await anext(pieces), await anext(pieces)] == [b"abc", b"d"]
        pull = asyncio.ensure_future(anext(pieces))
        await asyncio.sleep(0)
        pull.cancel()
        await asyncio.wait([pull])
        reader.feed_data(b"e")
        reader.feed_eof()
        assert await pieces.collect() == [b"e"]

    async def test_a_line_may_be_longer_than_the_reader_allows(self) -> None:
        reader = asyncio.StreamReader(limit=10)
        reader.feed_data(b"x" * 100 + b"\n")
        reader.feed_eof()
        assert await streams.read_chunks(reader).lines().collect() == ["x" * 100]

    async def test_an_error_is_raised_in_its_place(self) -> None:
        reader = asyncio.StreamReader()
        pieces = streams.read_chunks(reader).lines()
        reader.feed_data(b"a\n")
        assert await anext(pieces) == "a"
        reader.set_exception(ConnectionResetError())
        with pytest.raises(ConnectionResetError):
            await anext(pieces)
        assert await pieces.collect() == []


async def test_they_show_what_was_written(path: Path) -> None:
    assert str(streams.read_file(path).lines()) == f"<Stream read_file({os.fspath(path)!r}).lines()>"
    assert str(streams.read_chunks(asyncio.StreamReader())) == "<Stream read_chunks(StreamReader)>"


async def test_wrong_arguments_are_refused(path: Path) -> None:
    for size in (0, -1, True, 1.5):
        with pytest.raises((TypeError, ValueError), match="size"):
            streams.read_file(path, size)  # type: ignore[arg-type]
        with pytest.raises((TypeError, ValueError), match="size"):
            streams.read_chunks(asyncio.StreamReader(), size)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="reader"):
        streams.read_chunks(b"abc")  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        streams.read_file(3)  # type: ignore[arg-type]
