"""Frames in bytes that come cut anywhere."""

from __future__ import annotations

import asyncio
import pickle
import random
import sys
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from yamanote import streams
from yamanote.channels import channel, spsc_buffer
from yamanote.runtime import BUDGET, run
from yamanote.sinks import drain
from yamanote.streams import (
    Codec,
    Decoder,
    DelimiterCodec,
    FrameTooLong,
    IncompleteFrame,
    LengthCodec,
    LinesCodec,
    Stream,
)


def cut(data: bytes, places: Iterable[int]) -> list[bytes]:
    """`data` in pieces, some of which may be empty."""
    borders = sorted(place % (len(data) + 1) for place in places)
    return [data[begin:end] for begin, end in zip([0, *borders], [*borders, len(data)], strict=True)]


def decoded(codec: Codec[Any], pieces: Iterable[bytes]) -> tuple[list[Any], Exception | None]:
    """The frames in `pieces`, and the error behind them."""
    decoder = codec.decoder()
    frames: list[Any] = []
    try:
        for piece in pieces:
            for frame in decoder.feed(piece):
                frames.append(frame)  # what came before an error counts
        frames.extend(decoder.finish())
    except Exception as error:
        return frames, error
    return frames, None


places = st.lists(st.integers(0, 10_000), max_size=8)


class TestAnyCut:
    @given(st.lists(st.binary(max_size=20)), places, st.sampled_from([1, 2, 4, 8]), st.sampled_from(["big", "little"]))
    def test_frames_with_their_length_come_out_as_they_went_in(
        self, frames: list[bytes], places: list[int], width: Any, order: Any
    ) -> None:
        codec = LengthCodec(width, order)
        assert decoded(codec, cut(b"".join(map(codec.encode, frames)), places)) == (frames, None)

    @given(st.lists(st.text(alphabet="ab\r ü🚃\0\x85\u2028")), places)
    def test_lines_come_out_as_they_went_in(self, lines: list[str], places: list[int]) -> None:
        lines = [line.rstrip("\r") for line in lines]
        codec = LinesCodec()
        assert decoded(codec, cut(b"".join(map(codec.encode, lines)), places)) == (lines, None)

    @given(st.text(alphabet="ab", min_size=1, max_size=4), st.text(alphabet="ab", max_size=40), places)
    @example("aab", "aaab" * 3, [1, 2, 3])
    @example("aa", "aaaaa", [1, 2, 3, 4])
    @example("abab", "aababab", [3, 4, 5])
    def test_a_delimiter_that_overlaps_itself_is_found_where_it_ends_first(
        self, delimiter: str, text: str, places: list[int]
    ) -> None:
        *frames, rest = text.encode().split(delimiter.encode())
        found, error = decoded(DelimiterCodec(delimiter.encode()), cut(text.encode(), places))
        assert found == frames
        assert (error.partial if isinstance(error, IncompleteFrame) else b"") == rest

    @given(st.lists(st.text(alphabet="ab", max_size=6)), st.text(alphabet="ab", min_size=1, max_size=3), places)
    def test_what_the_encoder_accepts_comes_out_as_it_went_in(
        self, texts: list[str], delimiter: str, places: list[int]
    ) -> None:
        codec = DelimiterCodec(delimiter.encode())
        frames, data = [], b""
        for text in texts:
            try:
                data += codec.encode(text.encode())
            except ValueError:
                assert (text + delimiter).find(delimiter) < len(text)
            else:
                frames.append(text.encode())
        assert decoded(codec, cut(data, places)) == (frames, None)


class TestLimit:
    """Of five bytes."""

    @given(st.lists(st.integers(0, 12)), places, st.sampled_from([b"\n", b"ab", b"aab", b"bbbbbbb"]))
    def test_the_frames_behind_one_that_is_too_long_are_given(
        self, sizes: list[int], places: list[int], delimiter: bytes
    ) -> None:
        frames = [b"x" * size for size in sizes]
        for plain, make in [
            (LengthCodec(1), lambda tell: LengthCodec(1, max_length=5, on_too_long=tell)),
            (DelimiterCodec(delimiter), lambda tell: DelimiterCodec(delimiter, max_length=5, on_too_long=tell)),
        ]:
            told: list[FrameTooLong] = []
            data = b"".join(map(plain.encode, frames))
            assert decoded(make(told.append), cut(data, places)) == (
                [frame for frame in frames if len(frame) <= 5],
                None,
            )
            assert [error.size for error in told] == [size for size in sizes if size > 5]
            assert {error.limit for error in told} <= {5}

    @given(st.lists(st.integers(0, 12)), places)
    def test_one_that_is_too_long_is_an_error_in_its_place(self, sizes: list[int], places: list[int]) -> None:
        frames = [b"x" * size for size in sizes]
        first = next((place for place, size in enumerate(sizes) if size > 5), None)
        for plain, limited in [
            (LengthCodec(1), LengthCodec(1, max_length=5)),
            (DelimiterCodec(b"ab"), DelimiterCodec(b"ab", max_length=5)),
        ]:
            found, error = decoded(limited, cut(b"".join(map(plain.encode, frames)), places))
            assert found == frames[:first]
            assert isinstance(error, FrameTooLong) is (first is not None)

    @given(st.lists(st.text(alphabet="aü\r", max_size=6)), places)
    def test_lines_are_measured_in_bytes_and_the_last_one_too(self, lines: list[str], places: list[int]) -> None:
        told: list[FrameTooLong] = []
        codec = LinesCodec(max_length=5, on_too_long=told.append)
        data = "\n".join(lines).encode()
        *ended, last = data.split(b"\n")
        expected = [line.removesuffix(b"\r").decode() for line in ended if len(line) <= 5]
        if 0 < len(last) <= 5:
            expected.append(last.decode())
        assert decoded(codec, cut(data, places)) == (expected, None)
        assert [one.size for one in told] == [len(line) for line in [*ended, last] if len(line) > 5]

    def test_it_is_raised_before_the_frame_has_come(self) -> None:
        for codec, data in [
            (LinesCodec(max_length=5), b"123456"),
            (DelimiterCodec(b"ab", max_length=5), b"123456a"),
            (LengthCodec(max_length=5), b"\0\0\0\6"),
        ]:
            decoder: Decoder[Any] = codec.decoder()  # type: ignore[attr-defined]
            with pytest.raises(FrameTooLong, match="at most 5"):
                list(decoder.feed(data))

    def test_what_ends_within_one_that_is_passed_over(self) -> None:
        told: list[FrameTooLong] = []
        for codec, data in [
            (LinesCodec(max_length=5, on_too_long=told.append), b"123456"),
            (DelimiterCodec(b"ab", max_length=5, on_too_long=told.append), b"12345a"),
        ]:
            assert decoded(codec, [data]) == ([], None)
        assert [error.size for error in told] == [6, 6]
        _, error = decoded(LengthCodec(max_length=5, on_too_long=told.append), [b"\0\0\0\6", b"12345"])
        assert isinstance(error, IncompleteFrame)

    @pytest.mark.parametrize("passes_over", [False, True], ids=["gathers", "passes_over"])
    @pytest.mark.parametrize("kind", ["lines", "delimiter", "length"])
    def test_what_waits_in_memory_is_bounded(self, kind: str, passes_over: bool) -> None:
        limit = 1_000 if passes_over else 1 << 30
        codec: Codec[Any] = {
            "lines": lambda: LinesCodec(max_length=limit, on_too_long=lambda error: None),
            "delimiter": lambda: DelimiterCodec(b"ab", max_length=limit, on_too_long=lambda error: None),
            "length": lambda: LengthCodec(max_length=limit, on_too_long=lambda error: None),
        }[kind]()
        decoder = codec.decoder()
        if kind == "length":
            list(decoder.feed((1 << 29).to_bytes(4, "big")))
        for _ in range(1_000):
            assert list(decoder.feed(b"a" * 1_000)) == []
        held = _size_of(decoder)
        assert held < 3_000 if passes_over else held < 1_300_000

    def test_an_encoder_keeps_it_too(self) -> None:
        for codec in (LengthCodec(max_length=3), DelimiterCodec(b";", max_length=3), LengthCodec(1)):
            with pytest.raises(FrameTooLong) as caught:
                codec.encode(b"x" * 256)
            assert caught.value.size == 256
        with pytest.raises(FrameTooLong):
            LinesCodec(max_length=3).encode("üü")
        assert LinesCodec(max_length=4).encode("üü") == "üü\n".encode()


def _size_of(thing: object) -> int:
    """How much memory `thing` and what it refers to takes."""
    size = sys.getsizeof(thing)
    for name in getattr(type(thing), "__slots__", ()):
        size += _size_of(getattr(thing, name)) if name != "_on_too_long" else 0
    return size


@pytest.mark.parametrize("kind", ["lines", "delimiter", "length"])
def test_what_waits_is_not_copied_with_each_piece(kind: str) -> None:
    codec: Codec[Any] = {
        "lines": lambda: LinesCodec(max_length=None),
        "delimiter": lambda: DelimiterCodec(b"\r\n", max_length=None),
        "length": lambda: LengthCodec(8, max_length=None),
    }[kind]()
    decoder = codec.decoder()
    if kind == "length":
        list(decoder.feed((1 << 40).to_bytes(8, "big")))
    piece = b"x" * 1_000
    copied = 0
    tracemalloc.start()
    try:
        for _ in range(1_000):
            before, _ = tracemalloc.get_traced_memory()
            tracemalloc.reset_peak()
            list(decoder.feed(piece))
            _, peak = tracemalloc.get_traced_memory()
            copied += peak - before > 10_000
    finally:
        tracemalloc.stop()
    assert copied < 100  # when its place grows, by a part of its size each time


def test_lines_end_with_a_line_feed_or_with_both() -> None:
    assert decoded(LinesCodec(), [b"a\r", b"\nb\n\r\n\n", b"c\rd\r\r\ne"])[0] == ["a", "b", "", "", "c\rd\r", "e"]
    assert decoded(LinesCodec(), []) == ([], None)
    assert decoded(LinesCodec(), [b"\n"]) == ([""], None)


def test_an_encoding_is_used_and_its_errors_are_in_their_place() -> None:
    assert decoded(LinesCodec(encoding="latin-1"), [b"\xfc\n"])[0] == ["ü"]
    assert decoded(LinesCodec(errors="replace"), [b"a\xff", b"b\nc"])[0] == ["a\ufffdb", "c"]
    frames, error = decoded(LinesCodec(), [b"a\nb\n\xff\nc\n"])
    assert frames == ["a", "b"]
    assert isinstance(error, UnicodeDecodeError)


@pytest.mark.parametrize(
    ("codec", "data", "partial"),
    [
        (LengthCodec(2), b"\0", b""),
        (LengthCodec(2), b"\0\5he", b"he"),
        (DelimiterCodec(b"ab"), b"xab12a", b"12a"),
    ],
    ids=["head", "body", "delimiter"],
)
def test_bytes_that_end_within_a_frame_are_an_error(codec: Codec[bytes], data: bytes, partial: bytes) -> None:
    _, error = decoded(codec, [data])
    assert isinstance(error, IncompleteFrame)
    assert error.partial == partial


def test_the_errors_survive_being_copied() -> None:
    for error in (FrameTooLong(7, 5), IncompleteFrame(b"abc")):
        copy = pickle.loads(pickle.dumps(error))
        assert (type(copy), str(copy), vars(copy)) == (type(error), str(error), vars(error))


def test_text_that_would_not_be_read_as_it_was_written_is_refused() -> None:
    for line in ("a\nb", "\n", "a\r"):
        with pytest.raises(ValueError, match="line feed"):
            LinesCodec().encode(line)
    assert LinesCodec().encode("a\rb") == b"a\rb\n"


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: LengthCodec(3), "width"),  # type: ignore[arg-type]
        (lambda: LengthCodec(True), "width"),
        (lambda: LengthCodec(4, "middle"), "byteorder"),  # type: ignore[arg-type]
        (lambda: LengthCodec(max_length=0), "max_length"),
        (lambda: LengthCodec(max_length=1.5), "max_length"),  # type: ignore[arg-type]
        (lambda: LengthCodec(on_too_long=3), "on_too_long"),  # type: ignore[arg-type]
        (lambda: LengthCodec(on_too_long=asyncio.sleep), "on_too_long"),  # type: ignore[arg-type]
        (lambda: DelimiterCodec(b""), "delimiter"),
        (lambda: DelimiterCodec("x"), "delimiter"),  # type: ignore[arg-type]
        (lambda: LinesCodec(encoding="klingon"), "encoding"),
        (lambda: LinesCodec(encoding="utf-16"), "encoding"),
        (lambda: LinesCodec(encoding="hex"), "encoding"),
        (lambda: LinesCodec(errors="klingon"), "errors"),
        (lambda: streams.iter([b""]).lines(max_length=-1), "max_length"),
        (lambda: LinesCodec(encoding=3), "encoding must be a string"),  # type: ignore[arg-type]
        (lambda: LinesCodec(errors=None), "errors must be a string"),  # type: ignore[arg-type]
        (lambda: streams.iter([b""]).decode(3), "codec"),  # type: ignore[arg-type]
        (lambda: streams.iter([b""]).decode(LinesCodec), "codec"),  # type: ignore[arg-type]
    ],
    ids=range(18),
)
def test_wrong_arguments_are_refused(make: Callable[[], object], name: str) -> None:
    with pytest.raises((TypeError, ValueError), match=name):
        make()


async def later(pieces: Iterable[Any]) -> AsyncIterator[Any]:
    for piece in pieces:
        await asyncio.sleep(0)
        yield piece


async def double(line: str) -> str:
    return line + line


@pytest.fixture(params=["immediate", "awaited"])
def source(request: pytest.FixtureRequest) -> Callable[[Iterable[Any]], Any]:
    return iter if request.param == "immediate" else later


class TestStream:
    async def test_all_kinds_of_bytes_are_decoded(self, source: Any) -> None:
        pieces = [b"a\nb", bytearray(b"c\n"), memoryview(b"d\ne")]
        assert await streams.iter(source(pieces)).lines().collect() == ["a", "bc", "d", "e"]
        assert [line async for line in streams.iter(source(pieces)).lines()] == ["a", "bc", "d", "e"]

    async def test_a_buffer_may_be_used_again(self, source: Any) -> None:
        def fill() -> Iterator[bytearray]:
            buffer = bytearray(2)
            for piece in (b"ab", b"cd", b"e\n"):
                buffer[:] = piece
                yield buffer

        assert await streams.iter(source(fill())).lines().collect() == ["abcde"]

    async def test_decoders_get_bytes_and_give_bytes(self, source: Any) -> None:
        for piece in (bytearray(b"\1a"), memoryview(b"\1a")):
            (frame,) = await streams.iter(source([piece])).decode(LengthCodec(1)).collect()
            assert type(frame) is bytes

    async def test_what_came_before_an_error_is_given_before_it(self, source: Any) -> None:
        for codec, bad in [
            (LinesCodec(max_length=2), b"a\nb\nlong\nc\n"),
            (LinesCodec(), b"a\nb\n\xff\nc\n"),
        ]:
            lines = streams.iter(source([bad, b"never"])).decode(codec)
            assert [await anext(lines), await anext(lines)] == ["a", "b"]
            with pytest.raises(ValueError):
                await anext(lines)
            assert [line async for line in lines] == []

    async def test_an_end_within_a_frame_is_raised_once_behind_the_frames(self, source: Any) -> None:
        frames = streams.iter(source([b"\1a\2", b"b"])).decode(LengthCodec(1))
        assert await anext(frames) == b"a"
        with pytest.raises(IncompleteFrame):
            await anext(frames)
        assert await frames.collect() == []

    async def test_what_is_not_bytes_is_an_error_that_names_it(self, source: Any) -> None:
        for item in ("text", 3, None):
            with pytest.raises(TypeError, match="decode"):
                await streams.iter(source([item])).lines().collect()

    async def test_enough_frames_are_enough(self, source: Any) -> None:
        assert await streams.iter(source([b"a\nb\nc\n", b"\xff\n"])).lines().take(2).collect() == ["a", "b"]

    async def test_it_composes(self, source: Any) -> None:
        lines = streams.iter(source([b"1\n2\n", b"3\n4"])).lines().map(int).filter(lambda n: n % 2).enumerate()
        assert await lines.collect() == [(0, 1), (1, 3)]

    async def test_nothing_behind_it_runs_for_a_line_that_nobody_has_asked_for(self, source: Any) -> None:
        piece = b"".join(b"%d\n" % number for number in range(500))
        seen: list[str] = []
        assert await streams.iter(source([piece])).lines().inspect(seen.append).first() == "0"
        assert seen == ["0"]
        stream = streams.iter(source([piece])).lines().inspect(seen.append)
        async with stream.map(double, concurrency=4) as doubled:
            assert await anext(doubled) == "00"
        assert len(seen) <= 1 + 5

    @pytest.mark.parametrize("consume", ["pulled", "filtered", "counted", "collected"])
    async def test_the_loop_gets_its_turns_within_one_piece(self, source: Any, consume: str) -> None:
        turns = 0

        async def turn() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        turning = asyncio.create_task(turn())
        lines = streams.iter(source([b"1\n" * 1_300])).lines()
        if consume == "pulled":
            assert len([line async for line in lines]) == 1_300
        elif consume == "filtered":
            assert await lines.filter(lambda line: False).first(None) is None
        elif consume == "counted":
            assert await lines.count() == 1_300
        else:
            assert len(await lines.collect()) == 1_300
        turning.cancel()
        assert turns >= (10 if consume in ("pulled", "filtered") else 3)

    async def test_a_ready_source_of_small_pieces_is_not_interrupted_for_each(self) -> None:
        async def ready() -> AsyncIterator[bytes]:
            for _ in range(100):
                yield b"a\n"

        begun = 0

        async def other() -> None:
            nonlocal begun
            begun += 1

        task = asyncio.create_task(other())
        async with streams.iter(ready()).lines() as lines:
            for _ in range(100):
                await anext(lines)
            assert begun == 0
        await task

    async def test_an_operator_that_is_added_on_the_way_gets_what_has_not_been_given(self, source: Any) -> None:
        lines = streams.iter(source([b"1\n2\n3", b"4\n5"])).lines().map(int)
        assert await anext(lines) == 1
        assert await lines.chunks(2).collect() == [[2, 34], [5]]

    async def test_a_pull_that_is_cancelled_loses_nothing(self) -> None:
        receiver: asyncio.Queue[bytes] = asyncio.Queue()

        lines = streams.repeat_with(receiver.get).lines().map(str.upper)
        got = []
        for piece in (b"a\nb", b"c\n", b"d\n"):
            pull = asyncio.create_task(anext(lines))
            await asyncio.sleep(0)
            pull.cancel()
            await asyncio.wait([pull])
            assert pull.cancelled()
            receiver.put_nowait(piece)
            got.append(await anext(lines))
        assert got == ["A", "BC", "D"]
        await lines.aclose()

    async def test_a_second_task_is_refused_and_one_that_closes_ends_the_first(self) -> None:
        lines = streams.repeat_with(asyncio.Queue[bytes]().get).lines()
        first = asyncio.create_task(anext(lines, "the end"))
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="another task"):
            await anext(lines)
        assert not first.done()
        await lines.aclose()
        assert await first == "the end"

    @pytest.mark.parametrize("error", [StopIteration, StopAsyncIteration])
    async def test_a_decoder_cannot_end_the_stream_silently(self, source: Any, error: type[Exception]) -> None:
        class Broken:
            def feed(self, data: bytes) -> list[bytes]:
                raise error

            def finish(self) -> list[bytes]:
                return []

        for consume in (Stream.collect, Stream.count, Stream.first):
            with pytest.raises(RuntimeError):
                await consume(streams.iter(source([b"a"])).decode(Broken()))

    async def test_a_stream_that_is_refused_stays_usable(self) -> None:
        pieces = streams.iter([b"a"])
        with pytest.raises(TypeError):
            pieces.decode(None)  # type: ignore[arg-type]
        with pytest.raises(ValueError):
            pieces.lines(encoding="klingon")
        assert await pieces.lines().collect() == ["a"]

    async def test_a_cancelled_pull_loses_nothing_of_a_frame(self) -> None:
        sender, receiver = channel(10)
        lines = receiver.into_stream().lines()
        await sender.send(b"on")
        pull = asyncio.ensure_future(anext(lines))
        for _ in range(5):
            await asyncio.sleep(0)
        pull.cancel()
        await asyncio.wait([pull])
        assert pull.cancelled()
        await sender.send(b"e\ntwo")
        sender.close()
        assert await lines.collect() == ["one", "two"]

    async def test_a_source_without_frames_lets_the_loop_turn(self) -> None:
        turns = 0

        def turn() -> None:
            nonlocal turns
            turns += 1
            asyncio.get_running_loop().call_soon(turn)

        turn()
        assert await streams.iter([b"x"] * (BUDGET * 4)).lines().collect() == ["x" * BUDGET * 4]
        assert turns > 2

    async def test_bytes_from_a_buffer_are_a_source(self) -> None:
        sender, receiver = spsc_buffer(7)
        codec = LengthCodec(1)
        frames = [bytes(range(size)) for size in range(20)]

        async def send() -> None:
            for frame in frames:
                await sender.send(codec.encode(frame))
            sender.close()

        sending = asyncio.create_task(send())
        assert await receiver.into_stream().decode(codec).collect() == frames
        await sending

    def test_it_shows_what_was_written(self) -> None:
        assert str(streams.iter([b""]).decode(LengthCodec()).map(len)) == "<Stream list.decode(LengthCodec).map(len)>"
        assert str(streams.iter([b""]).lines()) == "<Stream list.lines()>"


class TestSink:
    async def test_frames_that_are_fed_arrive_as_bytes(self) -> None:
        written: list[bytes] = []
        async with drain().with_map(written.append).encode(LinesCodec()) as sink:
            await sink.send_all(["one", "two"])
            with pytest.raises(ValueError, match="line feed"):
                await sink.feed("a\nb")
            await sink.send("three")
        assert written == [b"one\n", b"two\n", b"three\n"]

    async def test_what_is_no_encoder_is_refused(self) -> None:
        for encoder in (3, "text", LinesCodec):
            with pytest.raises(TypeError, match="encoder"):
                drain().encode(encoder)  # type: ignore[arg-type]


class Pairs:
    """A decoder of one's own: pairs of bytes."""

    def __init__(self) -> None:
        self.rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        data = self.rest + data
        even = len(data) & ~1
        self.rest = data[even:]
        return [data[place : place + 2] for place in range(0, even, 2)]

    def finish(self) -> list[bytes]:
        return [self.rest] if self.rest else []


async def test_a_decoder_of_ones_own_is_enough(source: Any) -> None:
    assert await streams.iter(source([b"abc", b"de"])).decode(Pairs()).collect() == [b"ab", b"cd", b"e"]


@pytest.mark.parametrize("kind", [StopIteration, StopAsyncIteration])
async def test_an_end_that_a_decoder_raises_never_ends_the_stream_silently(source: Any, kind: type[Exception]) -> None:
    class Wrong(Pairs):
        def feed(self, data: bytes) -> list[bytes]:
            raise kind

    for consume in (lambda frames: frames.collect(), anext):
        with pytest.raises(RuntimeError):
            await consume(streams.iter(source([b"a"])).decode(Wrong()))


@pytest.mark.parametrize("peer", ["well_behaved", "gone_within_a_frame"])
async def test_frames_go_over_a_real_connection_and_back(peer: str) -> None:
    chance = random.Random(7)
    frames = [chance.randbytes(int(chance.expovariate(1 / 200))) for _ in range(10_000)]
    codec = LengthCodec(2)

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async for frame in streams.read_chunks(reader, 1_000).decode(codec):
            writer.write(codec.encode(frame))
            await writer.drain()
        if peer == "gone_within_a_frame":
            writer.write(b"\0\5he")
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    async with server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())

        async def send() -> None:
            data = b"".join(map(codec.encode, frames))
            while data:
                size = chance.randrange(1, 20_000)
                writer.write(data[:size])
                data = data[size:]
                await writer.drain()
            writer.write_eof()

        sending = asyncio.create_task(send())
        back: list[bytes] = []
        answers = streams.read_chunks(reader, 777).decode(codec)
        if peer == "well_behaved":
            await answers.for_each(back.append)
        else:
            with pytest.raises(IncompleteFrame):
                await answers.for_each(back.append)
        assert back == frames
        await sending
        writer.close()


def test_no_loop_is_needed_to_make_one() -> None:
    lines = streams.iter([b"a\nb"]).lines()
    assert run(lines.collect()) == ["a", "b"]
