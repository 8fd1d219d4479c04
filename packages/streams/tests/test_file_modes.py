"""Files that are replaced, created, made of bytes, and brought to the disk."""

from __future__ import annotations

import asyncio
import gc
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from yamanote import streams
from yamanote.sinks import FileSink, SinkClosed
from yamanote.streams import LengthCodec

posix = pytest.mark.skipif(os.name != "posix", reason="permissions, links and pipes as POSIX has them")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "lines"
    path.write_text("old\n")
    return path


def names(path: Path) -> list[str]:
    return sorted(os.listdir(path.parent))


class TestWrite:
    async def test_the_old_file_is_there_until_the_new_one_is_complete(self, path: Path) -> None:
        async with FileSink(path, mode="replace") as sink:
            await sink.send("a")
            await sink.send("b")
            assert path.read_text() == "old\n"
        assert path.read_text() == "a\nb\n"
        assert names(path) == ["lines"]

    async def test_who_reads_the_old_file_goes_on_reading_it(self, path: Path) -> None:
        with path.open() as old:
            async with FileSink(path, mode="replace") as sink:
                await sink.send("new")
            assert old.read() == "old\n"

    @pytest.mark.parametrize("flushed", [False, True])
    async def test_it_stays_when_the_block_is_left_by_an_exception(self, path: Path, flushed: bool) -> None:
        with pytest.raises(ZeroDivisionError):
            async with FileSink(path, mode="replace") as sink:
                await sink.feed("half")
                if flushed:
                    await sink.flush()
                raise ZeroDivisionError
        assert path.read_text() == "old\n"
        assert names(path) == ["lines"]
        with pytest.raises(SinkClosed):
            await sink.feed("a")

    async def test_it_stays_when_the_stream_fails(self, path: Path) -> None:
        with pytest.raises(ZeroDivisionError):
            await streams.iter([2, 1, 0]).map(lambda number: 1 / number).forward(FileSink(path, mode="replace"))
        assert path.read_text() == "old\n"
        assert names(path) == ["lines"]

    async def test_it_stays_when_who_writes_is_cancelled(self, path: Path) -> None:
        async def write() -> None:
            async with FileSink(path, mode="replace") as sink:
                await sink.send("half")
                await asyncio.sleep(3600)

        writing = asyncio.create_task(write())
        while len(names(path)) == 1:
            await asyncio.sleep(0)
        writing.cancel()
        await asyncio.wait([writing])
        assert path.read_text() == "old\n"
        assert names(path) == ["lines"]

    async def test_an_exception_after_the_close_changes_nothing(self, path: Path) -> None:
        with pytest.raises(ZeroDivisionError):
            async with FileSink(path, mode="replace") as sink:
                await sink.feed("new")
                await sink.close()
                raise ZeroDivisionError
        assert path.read_text() == "new\n"

    @pytest.mark.parametrize("flushed", [False, True])
    async def test_it_stays_when_the_sink_is_dropped(self, path: Path, flushed: bool) -> None:
        sink: FileSink[object] | None = FileSink(path, mode="replace")
        assert sink is not None
        await sink.feed("half")
        if flushed:
            await sink.flush()
        with pytest.warns(ResourceWarning, match="stays"):
            sink = None
            gc.collect()
        assert path.read_text() == "old\n"
        assert names(path) == ["lines"]

    @posix
    async def test_permissions_are_kept(self, path: Path) -> None:
        path.chmod(0o640)
        if os.geteuid() == 0:
            os.chown(path, 12345, 54321)
        before = path.stat()
        async with FileSink(path, mode="replace") as sink:
            await sink.feed("new")
        after = path.stat()
        assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
        assert path.read_text() == "new\n"

    @posix
    async def test_a_new_file_has_the_permissions_of_any_new_file(self, path: Path) -> None:
        other = path.with_name("other")
        other.touch()
        new = path.with_name("new")
        await FileSink(new, mode="replace").close()
        assert stat.S_IMODE(new.stat().st_mode) == stat.S_IMODE(other.stat().st_mode)

    @posix
    async def test_a_link_stays_a_link(self, path: Path, tmp_path: Path) -> None:
        (tmp_path / "elsewhere").mkdir()
        link = tmp_path / "elsewhere" / "link"
        link.symlink_to(path)
        async with FileSink(link, mode="replace") as sink:
            await sink.send("new")
            assert len(os.listdir(link.parent)) == 1  # the new file is where the old one is
        assert link.is_symlink()
        assert path.read_text() == "new\n"

    @posix
    async def test_a_pipe_is_written_and_stays_a_pipe(self, tmp_path: Path) -> None:
        pipe = tmp_path / "pipe"
        os.mkfifo(pipe)
        sink = FileSink(pipe, mode="replace")
        await sink.feed("a")
        close = asyncio.create_task(sink.close())
        for _ in range(100):
            await asyncio.sleep(0)  # nobody reads, and the loop turns nevertheless
        assert not close.done()
        read: list[bytes] = []
        reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
        reader.start()
        await close
        reader.join()
        assert read == [b"a\n"]
        assert stat.S_ISFIFO(pipe.stat().st_mode)

    async def test_a_folder_is_an_error(self, tmp_path: Path) -> None:
        sink = FileSink(tmp_path, mode="replace")
        with pytest.raises(OSError):
            await sink.send("a")
        with pytest.raises(OSError):
            await sink.close()


class TestCreate:
    async def test_a_new_file_is_made(self, path: Path) -> None:
        new = path.with_name("new")
        async with FileSink(new, mode="create") as sink:
            await sink.feed("a")
        assert new.read_text() == "a\n"

    async def test_one_that_is_there_stays_and_is_an_error(self, path: Path) -> None:
        sink = FileSink(path, mode="create")
        await sink.feed("new")
        for call in (sink.flush, sink.close):
            with pytest.raises(FileExistsError):
                await call()
        assert path.read_text() == "old\n"


class TestBytes:
    async def test_they_are_written_as_they_are(self, path: Path) -> None:
        async with FileSink(path, mode="replace", encoding=None) as sink:
            buffer = bytearray(b"b\0")
            for item in (b"a\n", buffer, memoryview(b"c"), b""):
                await sink.feed(item)
            buffer[:] = b"xx"
        assert path.read_bytes() == b"a\nb\0c"

    async def test_anything_else_is_refused_and_nothing_happens(self, path: Path) -> None:
        async with FileSink(path, encoding=None) as sink:
            for item in ("text", 3, None, [b"a"]):
                with pytest.raises(TypeError, match="bytes"):
                    await sink.feed(item)  # type: ignore[arg-type]
            await sink.send(b"new")
        assert path.read_bytes() == b"old\nnew"

    async def test_frames_go_in_and_come_out(self, path: Path) -> None:
        codec = LengthCodec(2)
        frames = [bytes(size) for size in range(1_000)]
        await streams.iter(frames).map(codec.encode).forward(FileSink(path, mode="replace", encoding=None))
        assert await streams.read_file(path, 777).decode(codec).collect() == frames


class TestEncoding:
    async def test_text_that_cannot_be_encoded_is_refused_and_nothing_happens(self, path: Path) -> None:
        async with FileSink(path, encoding="ascii") as sink:
            await sink.feed("a")
            with pytest.raises(UnicodeEncodeError):
                await sink.feed("ü")
            await sink.send("b")
        assert path.read_text() == "old\na\nb\n"

    @pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig"])
    async def test_a_file_has_one_byte_order_mark(self, tmp_path: Path, encoding: str) -> None:
        path = tmp_path / "new"
        for text in "ab":
            async with FileSink(path, encoding=encoding) as sink:
                await sink.send(text)
                await sink.send(text)
        assert path.read_bytes() == "a\na\nb\nb\n".encode(encoding)


class TestDisk:
    """What the system is asked to bring to the disk."""

    @pytest.fixture
    def synced(self, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
        synced: list[tuple[str, int]] = []
        real = os.fsync

        def fsync(descriptor: int) -> None:
            real(descriptor)
            status = os.fstat(descriptor)
            synced.append(("folder", 0) if stat.S_ISDIR(status.st_mode) else ("file", status.st_size))

        monkeypatch.setattr(os, "fsync", fsync)
        return synced

    @posix
    async def test_append_syncs_with_each_flush_and_with_the_close(self, path: Path, synced: Any) -> None:
        async with FileSink(path, fsync=True) as sink:
            await sink.send("a")
            assert synced == [("folder", 0), ("file", 6)]
            await sink.flush()
            assert len(synced) == 2
            await sink.feed("b")
        assert synced[2:] == [("file", 8)]

    @posix
    async def test_write_syncs_the_file_before_it_takes_its_place_and_the_folder_after(
        self, path: Path, synced: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real = os.replace

        def replace(source: str, target: str) -> None:
            synced.append(("replace", 0))
            real(source, target)

        monkeypatch.setattr(os, "replace", replace)
        async with FileSink(path, mode="replace", fsync=True) as sink:
            await sink.feed("a")
        assert synced == [("file", 2), ("replace", 0), ("folder", 0)]

    @posix
    async def test_a_flush_syncs_what_was_only_written_before(self, path: Path, synced: Any) -> None:
        async with FileSink(path, mode="replace", fsync=True) as sink:
            await sink.feed("x" * (1 << 18))
            feed = asyncio.create_task(sink.feed("y"))  # writes what was before it
            await asyncio.sleep(0)
            feed.cancel()
            while sink._target.written == 0:
                await asyncio.sleep(0)
            assert not synced
            await sink.flush()
            assert len(synced) == 1

    async def test_nothing_is_synced_unless_asked_for(self, path: Path, synced: Any) -> None:
        for mode in ("append", "replace"):
            async with FileSink(path, mode=mode) as sink:  # type: ignore[arg-type]
                await sink.send("a")
        assert not synced


EXIT = """
import asyncio
from yamanote.sinks import FileSink

async def main():
    global sink
    sink = FileSink({path!r}, mode={mode!r})
    await sink.send("a")
    await sink.feed("b")
    {last}

asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("mode", "last", "expected"),
    [
        ("append", "pass", "old\na\nb\n"),
        ("replace", "pass", "old\n"),
        ("append", "asyncio.create_task(sink.close()); await asyncio.sleep(0)", "old\na\nb\n"),
        ("replace", "asyncio.create_task(sink.close()); await asyncio.sleep(0)", "a\nb\n"),
        (
            "replace",
            "for call in (sink.flush, sink.close): asyncio.create_task(call()); await asyncio.sleep(0)",
            "a\nb\n",
        ),
    ],
    ids=["append_dropped", "replace_dropped", "append_closing", "replace_closing", "replace_flushing_and_closing"],
)
def test_a_program_that_ends_loses_nothing(path: Path, mode: str, last: str, expected: str) -> None:
    program = EXIT.format(path=str(path), mode=mode, last=last)
    done = subprocess.run(
        [sys.executable, "-W", "always::ResourceWarning", "-c", program], capture_output=True, text=True, check=True
    )
    assert path.read_text() == expected
    assert names(path) == ["lines"]
    assert ("never closed" in done.stderr) is (last == "pass")


async def test_one_that_the_collector_finds_is_complete(path: Path) -> None:
    sink: Any = FileSink(path)
    await sink.send("a")
    await sink.feed("b")
    circle = [sink]
    circle.append(circle)
    del sink
    with pytest.warns(ResourceWarning, match="never closed"):
        del circle
        gc.collect()
    assert path.read_text() == "old\na\nb\n"


FULL = "/dev/full"


class TestFaults:
    @pytest.mark.skipif(not os.path.exists(FULL), reason="only Linux has a device that is always full")
    async def test_a_full_device_is_told_with_how_much_was_lost(self) -> None:
        sink = FileSink(FULL)
        await sink.feed("four")
        with pytest.raises(OSError, match="space") as caught:
            await sink.flush()
        assert caught.value.__notes__ == [
            f"5 of the 5 bytes that <FileSink {FULL!r}, open> has accepted are not in the file"
        ]
        with pytest.raises(OSError) as again:
            await sink.close()
        assert again.value is caught.value
        assert len(again.value.__notes__) == 1

    async def test_a_folder_that_vanishes_is_told_and_nothing_is_left(self, tmp_path: Path) -> None:
        folder = tmp_path / "folder"
        folder.mkdir()
        sink = FileSink(folder / "lines", mode="replace")
        await sink.send("a")
        for name in os.listdir(folder):
            (folder / name).unlink()
        folder.rmdir()
        with pytest.raises(FileNotFoundError) as caught:
            await sink.close()
        assert "2 of the 2 bytes" in caught.value.__notes__[0]
        assert os.listdir(tmp_path) == []

    @posix
    async def test_nothing_is_called_missing_when_only_the_name_may_not_survive(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real = os.fsync

        def fsync(descriptor: int) -> None:
            if stat.S_ISDIR(os.fstat(descriptor).st_mode):
                raise OSError(5, "Input/output error")
            real(descriptor)

        monkeypatch.setattr(os, "fsync", fsync)
        sink = FileSink(path, mode="replace", fsync=True)
        await sink.feed("new")
        with pytest.raises(OSError, match="Input/output") as caught:
            await sink.close()
        assert not hasattr(caught.value, "__notes__")
        assert path.read_text() == "new\n"

    @posix
    async def test_a_pipe_that_is_to_be_replaced_has_what_was_written(self, tmp_path: Path) -> None:
        pipe = tmp_path / "pipe"
        os.mkfifo(pipe)
        reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
        sink = FileSink(pipe, mode="replace")
        await sink.send("a")
        os.close(reader)
        await sink.feed("b")
        with pytest.raises(BrokenPipeError) as caught:
            await sink.close()
        assert caught.value.__notes__[0].startswith("2 of the 4 bytes")

    @posix
    async def test_a_file_that_may_not_be_written_is_not_replaced(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path.chmod(0o400)
        if os.geteuid() == 0:  # who may write everything
            monkeypatch.setattr(os, "access", lambda path, mode: False)
        sink = FileSink(path, mode="replace")
        await sink.feed("new")
        with pytest.raises(PermissionError):
            await sink.close()
        assert path.read_text() == "old\n"
        assert names(path) == ["lines"]

    @pytest.mark.parametrize("flushes", [0, 2])
    @pytest.mark.parametrize("mode", ["append", "replace"])
    async def test_a_write_that_fails_half_way_says_what_is_missing(
        self, path: Path, mode: Any, flushes: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        full = 8 if mode == "append" else 4
        real = os.write

        def write(descriptor: int, data: memoryview) -> int:
            """To a disk with room for one more byte at a time, and for four."""
            if os.fstat(descriptor).st_size >= full:
                raise OSError(28, "No space left on device")
            return real(descriptor, data[:1])

        monkeypatch.setattr(os, "write", write)
        sink = FileSink(path, mode=mode)
        await sink.feed("12345678")
        await sink.feed("9")
        for _ in range(flushes):
            with pytest.raises(OSError):
                await sink.flush()
        with pytest.raises(OSError) as caught:
            await sink.close()
        assert not sink._target.is_open
        lost = 7 if mode == "append" else 11
        assert caught.value.__notes__[0].startswith(f"{lost} of the 11 bytes")
        assert path.read_text() == ("old\n1234" if mode == "append" else "old\n")
        assert names(path) == ["lines"]

    @posix
    def test_a_quota_is_told_like_any_error(self, path: Path) -> None:
        program = """
import asyncio, resource, sys
from yamanote.sinks import FileSink
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))

async def main():
    sink = FileSink(sys.argv[1])
    await sink.feed("x" * 2000)
    for call in (sink.flush, sink.close):
        try:
            await call()
        except OSError as error:
            print(error.__notes__[0][:24])

asyncio.run(main())
"""
        done = subprocess.run([sys.executable, "-c", program, path], capture_output=True, text=True, check=True)
        assert done.stdout == "1005 of the 2001 bytes t\n" * 2
        assert path.stat().st_size == 1000

    @posix
    async def test_a_pipe_whose_reader_goes_is_told(self, tmp_path: Path) -> None:
        pipe = tmp_path / "pipe"
        os.mkfifo(pipe)
        reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
        sink = FileSink(pipe)
        await sink.send("a")
        os.close(reader)
        for call in (lambda: sink.send("b"), sink.close):
            with pytest.raises(BrokenPipeError):
                await call()


class Slow(FileSink[object]):
    """A file on a disk that stands still until it is told to go on."""

    __slots__ = ("go_on", "stands")

    def __init__(self, path: Path) -> None:
        super().__init__(path, mode="replace")
        self.go_on = threading.Event()
        self.stands = threading.Event()

    def _append(self, pieces: list[bytes], sync: bool) -> None:
        self.stands.set()
        self.go_on.wait()
        super()._append(pieces, sync)


async def test_who_is_cancelled_while_he_closes_has_closed(path: Path) -> None:
    sink = Slow(path)

    async def write() -> None:
        async with sink:
            flush = asyncio.create_task(sink.send("a"))
            while not sink.stands.is_set():
                await asyncio.sleep(0)
            try:
                await sink.close()
            finally:
                flush.cancel()

    writing = asyncio.create_task(write())
    while sink._closing is None:
        await asyncio.sleep(0)
    writing.cancel()
    for _ in range(10):
        await asyncio.sleep(0)
    sink.go_on.set()
    await asyncio.wait([writing])
    assert writing.cancelled()
    assert path.read_text() == "a\n"


async def test_a_task_that_somebody_cancels_costs_no_piece_and_no_replacement(path: Path) -> None:
    sink = Slow(path)
    await sink.feed("a")
    flush = asyncio.create_task(sink.flush())
    before = asyncio.all_tasks()
    while not sink.stands.is_set():
        await asyncio.sleep(0)
    await sink.feed("b")
    for task in asyncio.all_tasks() - before:
        task.cancel()
    sink.go_on.set()
    for call in (lambda: flush, sink.close):
        with pytest.raises(RuntimeError, match="cancelled"):
            await call()
    assert path.read_text() == "a\nb\n"  # close has nothing to hide: all of it was written


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda path: FileSink(path, mode="write"), "mode"),  # type: ignore[arg-type]
        (lambda path: FileSink(path, encoding="hex"), "encoding"),
    ],
    ids=["mode", "encoding"],
)
def test_wrong_arguments_are_refused(path: Path, make: Callable[[Path], object], name: str) -> None:
    with pytest.raises(ValueError, match=name):
        make(path)
