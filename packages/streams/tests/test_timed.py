"""The operators of time: what comes when, drawn as marbles; and what becomes of timers."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest

from yamanote import streams
from yamanote.runtime import run, yield_now
from yamanote.streams import Stream
from yamanote.time import VirtualClock, sleep, sleep_until, time

Event = tuple[float, Any]
"""When something comes, and what: an item, an error, or `END`."""
Operator = Callable[[Stream[Any]], Stream[Any]]

END = "|"


class Timeline:
    """A source in which things come at their moment, also if nobody pulls; who pulls later gets them at once."""

    def __init__(self, events: list[Event]) -> None:
        self.events = list(events)
        self.closed = 0
        self.interrupted = 0

    def __aiter__(self) -> Timeline:
        return self

    async def __anext__(self) -> Any:
        if not self.events:
            await asyncio.Event().wait()
        moment, thing = self.events[0]
        if moment > time():
            try:
                await sleep_until(moment)
            except asyncio.CancelledError:
                self.interrupted += 1
                raise
        del self.events[0]
        if isinstance(thing, OSError):
            raise thing
        if thing == END:
            raise StopAsyncIteration
        return thing

    async def aclose(self) -> None:
        await yield_now()
        self.closed += 1


def parsed(marbles: str) -> list[Event]:
    """One second for each: an item, the end ``|``, an error ``#``, nothing ``-``, or several things in parentheses."""
    events: list[Event] = []
    moment, together = 0, False
    for marble in marbles:
        if marble in "()":
            together = marble == "("
        elif marble != "-":
            events.append((moment, OSError("of the source") if marble == "#" else marble))
        moment += not together
    return events


def drawn(events: list[Event]) -> str:
    """The other way round; a list in brackets, a TimeoutError as ``!``."""
    moments: dict[float, list[str]] = {}
    for moment, thing in events:
        marble = {OSError: "#", TimeoutError: "!"}.get(type(thing), str(thing))
        moments.setdefault(moment, []).append(f"[{''.join(thing)}]" if isinstance(thing, list) else marble)
    assert all(moment == int(moment) for moment in moments)
    marbles = [moments.get(moment, ["-"]) for moment in range(int(max(moments)) + 1)]
    return "".join(together[0] if len(together) == 1 else f"({''.join(together)})" for together in marbles)


async def observed(stream: Stream[Any], work: float = 0) -> list[Event]:
    """What a consumer sees that is busy for `work` seconds after each item."""
    events: list[Event] = []
    while True:
        try:
            item = await anext(stream)
            events.append((time(), item))
        except StopAsyncIteration:
            return [*events, (time(), END)]
        except (OSError, TimeoutError) as error:
            with pytest.raises(StopAsyncIteration):
                await anext(stream)
            return [*events, (time(), error)]
        if work:
            await sleep(work)


def virtually(main: Coroutine[Any, Any, Any]) -> Any:
    """Run `main` in virtual time. No task and no timer may be left."""

    async def checked() -> Any:
        with Timers() as made:
            result = await main
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert not made.live()
        return result

    return run(checked(), clock=VirtualClock())


class Timers:
    """The timers that are made on the running loop in a block."""

    def __init__(self, early: float = 0) -> None:
        self.made: list[asyncio.TimerHandle] = []
        self.moments: list[float] = []
        self.fired = 0
        self._early = early

    def __enter__(self) -> Timers:
        self._loop: Any = asyncio.get_running_loop()
        self._call_at = self._loop.call_at

        def call_at(when: float, callback: Callable[..., object], *args: Any, **options: Any) -> asyncio.TimerHandle:
            def fire() -> None:
                self.made.remove(handle)
                self.fired += 1
                callback(*args)

            self.moments.append(when)
            handle: asyncio.TimerHandle = self._call_at(when - self._early, fire, **options)
            self.made.append(handle)
            return handle

        self._loop.call_at = call_at
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_at = self._call_at

    def live(self) -> list[asyncio.TimerHandle]:
        return [timer for timer in self.made if not timer.cancelled()]


@dataclass(frozen=True)
class Picture:
    apply: Operator
    source: str
    result: str
    work: float = 0


pictures = {
    "timeout: in time": Picture(lambda s: s.timeout(2), "abc|", "abc|"),
    "timeout: the first": Picture(lambda s: s.timeout(2), "---a|", "--!"),
    "timeout: one later": Picture(lambda s: s.timeout(2), "ab---c|", "ab-!"),
    "timeout: the end": Picture(lambda s: s.timeout(2), "a-----|", "a-!"),
    "timeout: an error in time": Picture(lambda s: s.timeout(2), "a#", "a#"),
    "timeout: the consumer's time does not count": Picture(lambda s: s.timeout(2), "ab---c-|", "a----b----c----|", 5),
    "timeout: the time begins with the wait": Picture(lambda s: s.timeout(3), "a------b|", "a------b----|", 5),
    "throttle: faster": Picture(lambda s: s.throttle(2), "(abc)|", "a-b-(c|)"),
    "throttle: slower": Picture(lambda s: s.throttle(2), "--a--b---c|", "--a--b---c|"),
    "throttle: now so, now so": Picture(lambda s: s.throttle(2), "abc----de|", "a-b-c--d-(e|)"),
    "throttle: an error": Picture(lambda s: s.throttle(2), "ab#", "a-(b#)"),
    "throttle: a slow consumer": Picture(lambda s: s.throttle(2), "(abc)|", "a--b--c--|", 3),
    "debounce: a burst": Picture(lambda s: s.debounce(2), "abc---d----|", "----c---d--|"),
    "debounce: at the end": Picture(lambda s: s.debounce(2), "abc|", "---(c|)"),
    "debounce: at an error": Picture(lambda s: s.debounce(2), "abc#", "---(c#)"),
    "debounce: nothing": Picture(lambda s: s.debounce(2), "--|", "--|"),
    "debounce: exactly then is too late": Picture(lambda s: s.debounce(2), "a-b---|", "--a-b-|"),
    "debounce: together": Picture(lambda s: s.debounce(2), "(abc)--(de)|", "--c-(e|)"),
    "debounce: a slow consumer gets the newest": Picture(
        lambda s: s.debounce(2), "a--b--c--d|", "--a----b----d----|", 5
    ),
    "sample: the newest at each tick": Picture(lambda s: s.sample(3), "ab-cd----|", "---b--d--|"),
    "sample: exactly then is the next": Picture(lambda s: s.sample(3), "---a---|", "------a|"),
    "sample: none, no tick": Picture(lambda s: s.sample(2), "a-----b--|", "--a-----b|"),
    "sample: at the end": Picture(lambda s: s.sample(3), "abcd|", "---c(d|)"),
    "sample: at an error": Picture(lambda s: s.sample(3), "ab#", "--(b#)"),
    "sample: a slow consumer gets the newest": Picture(lambda s: s.sample(1), "abcdefgh|", "-a--d--g--h--|", 3),
    "delay": Picture(lambda s: s.delay(2), "a(bc)-d|", "--a(bc)-d|"),
    "delay: an error as well": Picture(lambda s: s.delay(2), "a-#", "--a-#"),
    "delay: a slow consumer": Picture(lambda s: s.delay(4), "abc|", "----a--b--c--|", 3),
    "delay: who takes an item makes room": Picture(lambda s: s.delay(2, limit=1), "(abc)|", "--a----b----c----|", 5),
    "delay: the source rests when too many wait": Picture(lambda s: s.delay(2, limit=1), "(abc)|", "--a-b-c-|"),
    "delay: as many as there may be": Picture(lambda s: s.delay(2, limit=2), "(abcde)|", "--(ab)-(cd)-(e|)"),
    "chunks_timeout: full, or old": Picture(lambda s: s.chunks_timeout(2, 3), "abc------d|", "-[ab]---[c]----([d]|)"),
    "chunks_timeout: at an error": Picture(lambda s: s.chunks_timeout(2, 3), "a#", "-([a]#)"),
}


@pytest.mark.parametrize("name", pictures)
def test_what_comes_comes_at_its_time(name: str) -> None:
    picture = pictures[name]

    async def main() -> None:
        source = Timeline(parsed(picture.source))
        events = await observed(picture.apply(streams.iter(source)), picture.work)
        assert drawn(events) == picture.result
        assert source.closed == 1

    virtually(main())


applied: dict[str, Operator] = {
    "timeout": lambda s: s.timeout(3),
    "throttle": lambda s: s.throttle(3),
    "debounce": lambda s: s.debounce(3),
    "sample": lambda s: s.sample(3),
    "delay": lambda s: s.delay(3),
    "chunks_timeout": lambda s: s.chunks_timeout(2, 3),
}


def operators(*names: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("name", names or applied)


@pytest.mark.parametrize("item", [0, None, "", [], ValueError("an item")], ids=["0", "None", "''", "[]", "an error"])
@operators("debounce", "sample")
def test_what_is_false_is_an_item_like_any_other(name: str, item: Any) -> None:
    async def main() -> None:
        assert await applied[name](streams.iter([1, item])).collect() == [item]
        assert await applied[name](streams.iter(Timeline([(0, item), (5, 1), (9, item), (9, END)]))).collect() == [
            item,
            1,
            item,
        ]

    virtually(main())


@operators()
def test_a_source_that_never_waits_ends_at_once_or_as_late_as_it_must(name: str) -> None:
    expected = {
        "timeout": "(abc|)",
        "throttle": "a--b--(c|)",
        "debounce": "(c|)",
        "sample": "(c|)",
        "delay": "---(abc|)",
        "chunks_timeout": "([ab][c]|)",
    }
    nothing = "---|" if name == "delay" else "|"

    async def main(items: str, drawing: str) -> None:
        assert drawn(await observed(applied[name](streams.iter(items)))) == drawing

    virtually(main("abc", expected[name]))
    virtually(main("", nothing))


@operators()
def test_the_clock_never_interrupts_a_pull_of_the_source(name: str) -> None:
    async def main() -> None:
        source = Timeline(parsed("ab------c------d|"))
        await observed(applied[name](streams.iter(source)))
        assert source.interrupted == (name == "timeout")  # when it is closed

    virtually(main())


@operators()
def test_no_timer_outlives_a_pull_and_no_task_the_stream(name: str) -> None:
    async def main() -> None:
        source = Timeline(parsed("a------b"))
        stream = applied[name](streams.iter(source))
        pull = asyncio.create_task(anext(stream))
        await sleep(1)
        with Timers() as made:
            assert pull.cancel() or pull.done()
            await asyncio.wait([pull])
            again = asyncio.create_task(anext(stream))
            await yield_now()
            await yield_now()
            await stream.aclose()
            assert not made.live()
            with pytest.raises(StopAsyncIteration):
                await again
            assert time() == 1
        assert source.closed == 1

    virtually(main())


@operators("throttle", "delay")
def test_who_waits_for_the_clock_alone_sees_the_end_when_the_stream_is_closed(name: str) -> None:
    async def main() -> None:
        stream = applied[name](streams.iter("ab"))
        if name == "throttle":
            assert await anext(stream) == "a"
        with Timers() as made:
            pull = asyncio.create_task(anext(stream))
            await sleep(1)
            await stream.aclose()
            assert not made.live()
        with pytest.raises(StopAsyncIteration):
            await pull
        assert time() == 1

    virtually(main())


@operators()
def test_what_a_source_gives_while_it_is_closed_comes_no_more(name: str) -> None:
    async def stubborn() -> AsyncIterator[int]:
        yield 0
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            yield 1

    async def main() -> None:
        stream = applied[name](streams.iter(stubborn()))
        await asyncio.wait_for(anext(stream), 10)
        pull = asyncio.create_task(anext(stream))
        await yield_now()
        await stream.aclose()
        for ended in (pull, anext(stream)):
            with pytest.raises(StopAsyncIteration):
                await ended

    virtually(main())


@operators()
def test_a_second_task_is_refused_and_the_first_one_keeps_its_timer(name: str) -> None:
    async def main() -> None:
        stream = applied[name](streams.iter(Timeline(parsed("-a---------b|"))))
        if name == "throttle":
            await anext(stream)
        pull = asyncio.create_task(anext(stream))
        await sleep(1.5)
        if name not in ("timeout", "throttle"):
            with pytest.raises(RuntimeError, match="another task"):
                await anext(stream)
            assert await pull in ("a", ["a"])
            assert time() <= 4.5
        elif name == "timeout":
            assert await pull == "a"
            pull = asyncio.create_task(anext(stream))
            await sleep(1)
            with pytest.raises(RuntimeError, match="another task"):
                await anext(stream)
            with pytest.raises(TimeoutError):
                await pull
            assert time() == 4.5
        else:
            with pytest.raises(RuntimeError, match="another task"):
                await anext(stream)
            assert await pull == "b"
        await stream.aclose()

    virtually(main())


def test_the_time_of_an_item_goes_on_when_its_pull_is_cancelled() -> None:
    async def main() -> None:
        async with streams.iter(Timeline(parsed("-----a|"))).timeout(3) as stream:
            with pytest.raises(TimeoutError, match="no item came within 3 seconds"):
                while True:
                    try:
                        async with asyncio.timeout(0.5):
                            await anext(stream)
                    except TimeoutError as error:
                        if str(error):
                            raise
            assert time() == 3

    virtually(main())


def test_an_item_that_has_come_is_given_however_late_one_looks() -> None:
    async def main() -> None:
        source = Timeline(parsed("-a|"))
        stream = streams.iter(source).timeout(2)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(stream), 0.5)
        await sleep(100)
        assert await observed(stream) == [(100.5, "a"), (100.5, END)]

    virtually(main())


def test_a_timeout_that_is_cancelled_while_it_closes_the_source_is_raised_by_the_next_pull() -> None:
    class Slow(Timeline):
        async def aclose(self) -> None:
            await sleep(10)
            await super().aclose()

    async def main() -> None:
        source = Slow(parsed("---------a"))
        stream = streams.iter(source).timeout(2)
        pull = asyncio.create_task(anext(stream))
        await sleep(5)
        pull.cancel()
        with pytest.raises(asyncio.CancelledError):
            await pull
        assert time() == 12 and source.closed == 1
        with pytest.raises(TimeoutError):
            await anext(stream)
        with pytest.raises(StopAsyncIteration):
            await anext(stream)

    virtually(main())


@operators("debounce", "sample")
def test_the_source_is_pulled_all_the_time_and_two_items_are_held_at_most(name: str) -> None:
    alive = 0

    class Item:
        def __init__(self) -> None:
            nonlocal alive
            alive += 1

        def __del__(self) -> None:
            nonlocal alive
            alive -= 1

    async def items() -> AsyncIterator[Item]:
        while True:
            await sleep(1)
            yield Item()

    async def main() -> None:
        applied = streams.iter(items()).sample(3) if name == "sample" else streams.iter(items()).debounce(0.5)
        async with applied as stream:
            await anext(stream)
            for _ in range(5):
                await sleep(20)
                assert alive <= 3  # one is in the hands of the generator
            assert alive > 0

    virtually(main())


def test_sources_rest_while_nobody_asks_where_every_item_counts() -> None:
    pulled: list[int] = []

    def numbers() -> Iterator[int]:
        for number in range(1000):
            pulled.append(number)
            yield number

    async def main() -> None:
        for name, most in {"timeout": 1, "throttle": 1, "chunks_timeout": 2, "delay": 5}.items():
            pulled.clear()
            apply = applied[name] if name != "delay" else lambda s: s.delay(1, limit=5)
            async with apply(streams.iter(numbers())) as stream:
                await anext(stream)
                await sleep(100)
                assert len(pulled) <= most + 1

    virtually(main())


@pytest.mark.parametrize(("name", "most"), [("throttle", 2), ("delay", 1)])
def test_pulls_that_are_cancelled_make_no_room(name: str, most: int) -> None:
    pulled: list[int] = []

    def numbers() -> Iterator[int]:
        for number in range(10):
            pulled.append(number)
            yield number

    async def main() -> None:
        source = streams.iter(numbers())
        async with source.throttle(10) if name == "throttle" else source.delay(10, limit=1) as stream:
            if name == "throttle":
                await anext(stream)
            for _ in range(5):
                pull = asyncio.create_task(anext(stream))
                await sleep(1)
                pull.cancel()
                await asyncio.wait([pull])
            assert len(pulled) == most
            assert await stream.collect() == list(range(most - 1, 10))

    virtually(main())


def test_nothing_drifts() -> None:
    ticks = 1000

    async def numbers() -> AsyncIterator[int]:
        for number in range(ticks * 2):
            yield number
            await sleep(0.05)

    async def main() -> None:
        seen = [moment for moment, _ in await observed(streams.iter(numbers()).sample(0.1), work=0.03)]
        assert len(seen) >= ticks
        for count, moment in enumerate(seen[: ticks - 1], start=1):
            assert moment == count * 0.1
        start = time()
        seen = [moment - start for moment, _ in await observed(streams.iter(range(ticks)).throttle(0.1), work=0.03)]
        assert seen[ticks - 1] == pytest.approx((ticks - 1) * 0.1, abs=1e-6)

    virtually(main())


def test_a_burst_costs_one_timer_however_many_items_it_has() -> None:
    async def burst() -> AsyncIterator[int]:
        for number in range(1000):
            yield number
            await yield_now()
            if number % 100 == 0:
                await sleep(0.5)

    async def main() -> None:
        with Timers() as made:
            assert await streams.iter(burst()).debounce(1).collect() == [999]
        assert len(made.made) + made.fired <= 10 + 10  # those of the source are among them

    virtually(main())


@operators()
def test_a_loop_that_calls_its_timers_early_is_believed(name: str) -> None:
    async def main() -> None:
        source = Timeline([(0, 0), (0, 1), (0, 2)])
        with Timers(early=0.25) as made:
            stream = applied[name](streams.iter(source))
            try:
                for _ in range(3 if name != "chunks_timeout" else 2):
                    await anext(stream)
                    if name in ("debounce", "sample"):
                        break
                if name == "timeout":
                    await anext(stream)
            except TimeoutError:
                pass
            assert made.fired <= 2
            await stream.aclose()

    virtually(main())


def test_forever_is_a_number_of_seconds() -> None:
    async def main() -> None:
        forever = math.inf
        source = parsed("abc|")
        for apply, expected in (
            (lambda s: s.timeout(forever), "abc|"),
            (lambda s: s.debounce(forever), "---(c|)"),
            (lambda s: s.sample(forever), "---(c|)"),
            (lambda s: s.chunks_timeout(2, forever), "-[ab]-([c]|)"),
        ):
            start = time()
            events = [(moment + start, thing) for moment, thing in source]
            with Timers() as made:
                seen = await observed(apply(streams.iter(Timeline(events))))
            assert max(made.moments) < forever
            assert drawn([(moment - start, thing) for moment, thing in seen]) == expected
        for name, first in {"throttle": 1, "delay": 0}.items():
            async with getattr(streams.iter("ab"), name)(forever) as stream:
                for _ in range(first):
                    await anext(stream)
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(anext(stream), 1e6)

    virtually(main())


wrong_seconds = [
    pytest.param(0, ValueError, id="0"),
    pytest.param(-1, ValueError, id="-1"),
    pytest.param(math.nan, ValueError, id="nan"),
    pytest.param(10**400, ValueError, id="more than a float can hold"),
    pytest.param(True, TypeError, id="True"),
    pytest.param("1", TypeError, id="text"),
    pytest.param(timedelta(seconds=1), TypeError, id="timedelta"),
    pytest.param(None, TypeError, id="None"),
]


@operators("timeout", "throttle", "debounce", "sample", "delay")
@pytest.mark.parametrize(("seconds", "error"), wrong_seconds)
def test_what_is_no_time_is_refused_at_the_call_and_the_stream_stays_usable(
    name: str, seconds: Any, error: type[Exception]
) -> None:
    stream = streams.iter("abc")
    with pytest.raises(error, match="seconds must be"):
        getattr(stream, name)(seconds)
    assert run(stream.collect()) == ["a", "b", "c"]


@pytest.mark.parametrize(("limit", "error"), [(0, ValueError), (1.0, TypeError), (True, TypeError)])
def test_a_delay_of_none_is_refused(limit: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="limit"):
        streams.iter("abc").delay(1, limit=limit)


def test_a_timedelta_is_told_what_to_do() -> None:
    with pytest.raises(TypeError, match="total_seconds"):
        streams.iter("abc").throttle(timedelta(seconds=1))  # type: ignore[arg-type]


def test_the_repr_shows_the_times() -> None:
    stream = streams.iter([1]).timeout(1).throttle(0.5).debounce(2).sample(3).delay(4, limit=5).chunks_timeout(6, 7)
    assert repr(stream) == (
        "<Stream list.timeout(1).throttle(0.5).debounce(2).sample(3).delay(4, limit=5).chunks_timeout(6, 7)>"
    )
