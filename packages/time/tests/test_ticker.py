"""The schedule of a ticker, without a loop."""

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yamanote.time._ticker import MissedTickBehavior, Ticker

BURST, DELAY, SKIP = MissedTickBehavior.BURST, MissedTickBehavior.DELAY, MissedTickBehavior.SKIP

periods = st.floats(min_value=0.01, max_value=1e6)
starts = st.floats(min_value=-1e6, max_value=1e6)
waits = st.lists(st.floats(min_value=0, max_value=20), max_size=50)


def take_all(ticker: Ticker, now: float) -> list[float]:
    ticks = []
    while (tick := ticker._take(now)) is not None:
        ticks.append(tick)
    return ticks


@pytest.mark.parametrize(
    ("missed", "first", "then"),
    [
        # Started at 0 with a period of 10, on time once, then looked at only at 35, at 41 and at 51.
        (BURST, [10, 20, 30], [[40], [50]]),
        (DELAY, [10], [[], [45]]),
        (SKIP, [10], [[40], [50]]),
    ],
)
def test_missed_ticks(missed: MissedTickBehavior, first: list[float], then: list[list[float]]) -> None:
    ticker = Ticker(0, 10, missed)
    assert take_all(ticker, 0) == [0]
    assert take_all(ticker, 9.9) == []
    assert take_all(ticker, 35) == first
    assert [take_all(ticker, now) for now in (41, 51)] == then


@pytest.mark.parametrize("missed", list(MissedTickBehavior))
def test_a_tick_that_is_late_by_a_wake_up_moves_no_schedule(missed: MissedTickBehavior) -> None:
    ticker = Ticker(0, 1, missed)
    for number in range(1000):
        assert take_all(ticker, number + 0.004) == [number]


@pytest.mark.parametrize(("missed", "then"), [(BURST, 20), (DELAY, 20.00501), (SKIP, 20)])
@pytest.mark.parametrize("start", [0, 8, 1000, 40_000])
def test_a_tick_is_missed_when_it_is_taken_more_than_five_milliseconds_late(
    missed: MissedTickBehavior, then: float, start: float
) -> None:
    ticker = Ticker(start, 10, missed)
    ticker._take(start)
    assert ticker._take(start + 10 + 0.005) == start + 10
    assert ticker._take(start + 20) == start + 20
    ticker = Ticker(start, 10, missed)
    ticker._take(start)
    assert ticker._take(start + 10.00501) == start + 10
    assert ticker._take(start + 19.99) is None
    assert ticker._take(start + 20.00501) == pytest.approx(start + then, abs=1e-9)


def test_the_first_tick_is_due_when_it_is_first_asked_for() -> None:
    ticker = Ticker(None, 10, BURST)
    assert take_all(ticker, 123) == [123]
    assert take_all(ticker, 133) == [133]


def test_a_start_in_the_past_is_missed_ticks() -> None:
    assert take_all(Ticker(0, 10, BURST), 25) == [0, 10, 20]
    assert take_all(Ticker(0, 10, SKIP), 25) == [0]
    assert take_all(Ticker(0, 10, DELAY), 25) == [0]


@given(start=starts, period=periods, waits=waits)
def test_burst_gives_every_instant_of_the_schedule_once(start: float, period: float, waits: list[float]) -> None:
    ticker, now, ticks = Ticker(start, period, BURST), start, []
    for wait in waits:
        now += wait * period
        ticks += take_all(ticker, now)
    assert ticks == [start + number * period for number in range(len(ticks))]
    assert start + len(ticks) * period > now or not waits


@given(start=starts, period=periods, waits=waits)
def test_skip_gives_only_instants_of_the_schedule_and_never_two_at_once(
    start: float, period: float, waits: list[float]
) -> None:
    ticker, now, ticks = Ticker(start, period, SKIP), start, []
    for wait in waits:
        now += wait * period
        due = take_all(ticker, now)
        assert len(due) <= 1 or due[-1] > now - 0.006
        ticks += due
    assert len(set(ticks)) == len(ticks)
    assert ticks == sorted(ticks)
    for tick in ticks:
        number = round((tick - start) / period)
        assert tick == start + number * period


@given(start=starts, period=periods, waits=waits)
def test_delay_keeps_ticks_a_period_apart(start: float, period: float, waits: list[float]) -> None:
    ticker, now, taken = Ticker(start, period, DELAY), start, []
    for wait in waits:
        now += wait * period
        taken += [now] * len(take_all(ticker, now))
    for before, after in pairwise(taken):
        assert after - before >= period - 0.006 - math.ulp(now) * 4


def test_skip_neither_repeats_nor_loses_a_tick_to_rounding() -> None:
    # 0.1 is no binary fraction: the quotient of the elapsed time is now above, now below the whole number.
    for number in range(1, 2000):
        ticker = Ticker(0, 0.1, SKIP)
        ticker._take(0)
        assert take_all(ticker, number * 0.1) == [1 * 0.1]
        assert take_all(ticker, (number + 1.5) * 0.1) == [(number + 1) * 0.1]
        # Just before a tick: the quotient may be rounded up to it, but it is still to come.
        ticker = Ticker(0, 0.1, SKIP)
        ticker._take(0)
        take_all(ticker, math.nextafter((number + 2) * 0.1, 0))
        assert take_all(ticker, (number + 2.5) * 0.1) == [(number + 2) * 0.1]


@pytest.mark.parametrize("missed", MissedTickBehavior)
@pytest.mark.parametrize("period", [1e-9, 1, 1e300])
@pytest.mark.parametrize("now", [0.0, 5e4, 1e18])
@pytest.mark.parametrize("start", [-1.7e308, -1e300, -1e16])
def test_however_long_ago_a_schedule_began_a_tick_is_found_at_once(
    start: float, now: float, period: float, missed: MissedTickBehavior
) -> None:
    ticker = Ticker(start, period, missed)
    assert ticker._take(now) == start
    if missed is not MissedTickBehavior.BURST:
        assert now <= ticker._next_due(now) <= now + period
