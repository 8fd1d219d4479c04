"""Clocks: what a loop takes from them, when they are put on and taken off, and what they may be put on."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from typing import Any, TypeVar

import pytest

from yamanote.runtime import Clock, EventLoop, Runtime, move_on_after, run

T = TypeVar("T")

HOUR = 3600.0
each_loop = pytest.mark.parametrize("factory", [EventLoop, asyncio.SelectorEventLoop], ids=["ours", "asyncio's"])


class Faster(Clock):
    """So many seconds pass on it in one."""

    def __init__(self, rate: float) -> None:
        self.rate = rate

    def start(self, moment: float) -> None:
        self.moment, self.real = moment, time.monotonic()

    def time(self) -> float:
        return self.moment + self.rate * (time.monotonic() - self.real)

    def wait(self, select: Callable[[float | None], list[T]], seconds: float | None) -> list[T]:
        return select(seconds and seconds / self.rate)


class Recorded(Clock):
    """Says what it was asked; whoever waits on it has waited already."""

    def __init__(self) -> None:
        self.log: list[object] = []
        self.now = 0.0

    def start(self, moment: float) -> None:
        assert self.loop is not None
        self.log.append(("start", moment, self.loop.time() == self.now))
        self.now = moment

    def time(self) -> float:
        return self.now

    def wait(self, select: Callable[[float | None], list[T]], seconds: float | None) -> list[T]:
        if seconds:
            self.log.append(seconds)
            self.now += seconds
            return select(0)
        return select(seconds)

    def stop(self) -> None:
        assert self.loop is not None
        self.log.append(("stop", self.loop.time() == self.now))


# ---------------------------------------------------------------------- what the loop takes from it


@each_loop
def test_on_a_clock_that_runs_faster_an_hour_is_over_soon(factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
    async def main() -> float:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(HOUR):
                await asyncio.sleep(2 * HOUR)
        return asyncio.get_running_loop().time()

    before = time.monotonic()
    passed = run(main(), clock=Faster(1e6), loop_factory=factory)

    assert passed >= HOUR
    assert time.monotonic() - before < HOUR / 10


@each_loop
def test_a_loop_waits_through_its_clock_and_for_nothing_else(factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
    async def main() -> None:
        await asyncio.sleep(0)
        await asyncio.sleep(5)
        await asyncio.sleep(3)

    clock = Recorded()
    run(main(), clock=clock, loop_factory=factory)

    assert [entry for entry in clock.log if isinstance(entry, float)] == [5, 3]


def test_a_clock_that_does_not_say_how_to_wait_waits_for_real() -> None:
    class Own(Faster):
        wait = Clock.wait

    async def main() -> str:
        return await asyncio.sleep(0.001, "slept")

    assert run(main(), clock=Own(1)) == "slept"


# ---------------------------------------------------------------------- on a loop, and off


def test_a_clock_is_started_at_zero_and_stopped_at_the_end() -> None:
    clock = Recorded()
    clock.now = -1
    with Runtime(clock=clock):
        assert isinstance(clock.loop, EventLoop)
        assert clock.log == [("start", 0, False)]

    assert clock.log[-1] == ("stop", False)  # the loop has its own time again
    assert clock.loop is None


@each_loop
def test_where_a_timer_is_pending_time_goes_on_from_where_it_is(
    factory: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        fired: list[float] = []
        before = loop.time()
        loop.call_later(HOUR, lambda: fired.append(loop.time() - before))
        clock = Recorded()
        with clock.patch_loop():
            assert loop.time() >= before
            await asyncio.sleep(HOUR - 1)
            assert not fired
            await asyncio.sleep(10)
            assert fired and HOUR <= fired[0] < HOUR + 10

    run(main(), loop_factory=factory)


@each_loop
def test_on_leaving_time_goes_on_and_what_is_left_behind_has_as_long_to_go(
    factory: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        for _ in range(2):
            with Recorded().patch_loop():
                await asyncio.sleep(1000 * HOUR)
                timer = loop.call_later(HOUR, int)
                seen = loop.time()
            assert seen <= loop.time() < seen + HOUR / 2 < timer.when()
            timer.cancel()

    run(main(), loop_factory=factory)


def test_the_seconds_in_which_a_loop_was_busy_only_ever_grow_also_when_time_begins_anew() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, EventLoop)
        seen = [loop.statistics().busy]
        for _ in range(3):
            with Recorded().patch_loop():
                await asyncio.sleep(1000 * HOUR)
                seen.append(loop.statistics().busy)
            await asyncio.sleep(0.001)
            seen.append(loop.statistics().busy)
        assert seen == sorted(seen)
        assert seen[-1] < HOUR

    run(main())


def test_a_clock_that_fails_to_start_leaves_the_loop_as_it_was() -> None:
    class Broken(Recorded):
        def start(self, moment: float) -> None:
            raise OSError("no quartz")

    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        with move_on_after(1):
            pass
        before = (dict(vars(loop)), dict(vars(loop._selector)))
        clock = Broken()
        with pytest.raises(OSError, match="no quartz"), clock.patch_loop():
            pass
        assert clock.loop is None
        after = (dict(vars(loop)), dict(vars(loop._selector)))
        assert [names.keys() for names in before] == [names.keys() for names in after]

    run(main(), loop_factory=asyncio.SelectorEventLoop)
    with pytest.raises(OSError, match="no quartz"):
        Broken().loop_factory()


def test_a_loop_and_its_selector_have_nothing_of_a_clock_that_was_taken_off() -> None:
    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        resolution = loop._clock_resolution
        with Faster(2).patch_loop():
            loop._clock_resolution = 1.0
        assert "select" not in vars(loop._selector)
        assert loop._clock_resolution == resolution
        assert not isinstance(getattr(loop.time, "__self__", None), Clock)

    run(main())


def test_a_clock_serves_one_loop_after_the_other() -> None:
    clock = Recorded()
    with asyncio.Runner(loop_factory=clock.loop_factory) as runner:
        runner.run(asyncio.sleep(HOUR))
        with pytest.raises(RuntimeError, match="on a loop already"):
            run(asyncio.sleep(HOUR), clock=clock)
    run(asyncio.sleep(HOUR), clock=clock)
    assert clock.now == HOUR


# ---------------------------------------------------------------------- refusals


@each_loop
def test_a_block_that_has_ended_leaves_no_timer_pending(factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
    async def main() -> None:
        with move_on_after(HOUR):
            await asyncio.sleep(0)
        clock = Recorded()
        with clock.patch_loop():
            assert clock.log[0][:2] == ("start", 0)
        with move_on_after(HOUR) as scope:
            await asyncio.sleep(0)
            with Recorded().patch_loop():
                await asyncio.sleep(2 * HOUR)
        assert scope.expired

    run(main(), loop_factory=factory)


@each_loop
def test_a_clock_that_goes_exactly_to_the_next_timer_never_stands_before_it(
    factory: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    """However far it has gone: after some months the next float is further away than asyncio thinks."""

    async def main() -> None:
        loop, clock = asyncio.get_running_loop(), Recorded()
        with clock.patch_loop():
            for power in range(25, 35):
                await asyncio.sleep(2**power)
                for _ in range(3):
                    await asyncio.sleep(0.3)
                polls = len(clock.log)
                await asyncio.sleep(0.3)
                assert len(clock.log) - polls < 10
            assert loop.time() == clock.now

    run(main(), loop_factory=factory)


@each_loop
def test_a_loop_that_has_been_closed_is_refused(factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
    loop = factory()
    loop.close()
    clock = Recorded()
    with pytest.raises(RuntimeError, match="closed"), clock.patch_loop(loop):
        pass
    assert clock.log == []
    assert run(asyncio.sleep(0, 1), clock=clock) == 1


def test_what_says_no_time_is_no_clock() -> None:
    class Silent(Clock):
        def start(self, moment: float) -> None: ...

    with pytest.raises(TypeError, match="time"):
        Silent()  # type: ignore[abstract]
    for nonsense in (object(), time.monotonic, Recorded):
        with pytest.raises(TypeError, match="clock must be a Clock"):
            Runtime(clock=nonsense)  # type: ignore[arg-type]


def test_a_loop_that_has_a_clock_is_refused() -> None:
    async def main() -> None:
        with Recorded().patch_loop(), pytest.raises(RuntimeError, match="has a clock already"):
            Faster(2).patch_loop()

    run(main())


def test_a_loop_that_is_none_of_asyncios_is_refused() -> None:
    loop = asyncio.BaseEventLoop()
    with pytest.raises(TypeError, match=r"asyncio\.base_events\.BaseEventLoop is none"):
        Recorded().patch_loop(loop)
    loop.close()


def test_a_program_on_a_clock_has_a_selector_loop_where_others_have_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")

    async def main() -> type:
        return type(asyncio.get_running_loop())

    assert run(main(), clock=Recorded()) is EventLoop
