"""Moments and the clock they are on."""

import asyncio
import math
import operator
import pickle
from copy import copy, deepcopy
from datetime import timedelta
from typing import Any

import pytest

from yamanote.time import Instant, instant, sleep_until, time, timeout_at


class FixedLoop(asyncio.SelectorEventLoop):
    """A loop whose clock stands where the test puts it."""

    now = 1000.0

    def time(self) -> float:
        return self.now


def test_time_is_the_clock_of_the_running_loop() -> None:
    async def main() -> None:
        assert time() == 1000.0
        loop.now = 1003.5
        assert time() == 1003.5
        assert instant() == Instant.now() == 1003.5
        assert type(instant()) is type(Instant.now()) is Instant

    loop = FixedLoop()
    try:
        loop.run_until_complete(main())
    finally:
        loop.close()


def test_time_and_instant_need_a_running_loop() -> None:
    with pytest.raises(RuntimeError):
        time()
    with pytest.raises(RuntimeError):
        instant()
    with pytest.raises(RuntimeError):
        Instant.now()
    with pytest.raises(RuntimeError):
        Instant(0).elapsed()


def test_elapsed_counts_on_the_loops_clock() -> None:
    async def main() -> None:
        start = instant()
        loop.now += 2.25
        assert start.elapsed() == 2.25
        assert (start + 5).elapsed() == -2.75

    loop = FixedLoop()
    try:
        loop.run_until_complete(main())
    finally:
        loop.close()


def test_instants_are_compared_and_moved_by_seconds() -> None:
    start = Instant(10)

    assert start < start + 1
    assert sorted([start + 2, start, start + 1]) == [10, 11, 12]
    assert {start: "here"}[Instant(10)] == "here"
    assert type(start + 1) is Instant
    assert type(1 + start) is Instant
    assert type(start - 1) is Instant
    assert start - 1 == 9


def test_the_difference_of_two_instants_is_a_number_of_seconds() -> None:
    difference = Instant(12.5) - Instant(10)

    assert difference == 2.5
    assert type(difference) is float


def test_instants_and_floats_mix() -> None:
    start = Instant(10)

    assert 9.5 < start <= 10 == start != 10.5
    assert hash(start) == hash(10.0)
    assert 12.5 - start == 2.5
    assert type(12.5 - start) is float
    assert max(start, 11.0) == 11
    start += 5
    assert start == 15
    assert type(start) is Instant
    assert f"{start:.3f}" == "15.000"


def test_an_instant_can_be_copied_and_pickled() -> None:
    start = Instant(10.25)

    for twin in (copy(start), deepcopy(start), pickle.loads(pickle.dumps(start))):
        assert twin == start
        assert type(twin) is Instant


@pytest.mark.parametrize("nonsense", ["1", None, timedelta(seconds=1)], ids=["str", "None", "timedelta"])
def test_what_is_no_number_can_neither_be_added_nor_taken_away(nonsense: Any) -> None:
    for move in (operator.add, operator.sub):
        with pytest.raises(TypeError):
            move(Instant(10), nonsense)


def test_an_instant_shows_what_it_is() -> None:
    assert repr(Instant(1.5)) == "Instant(1.5)"


async def test_instants_and_floats_are_accepted_as_moments() -> None:
    await sleep_until(instant())
    await sleep_until(float(instant()))
    async with timeout_at(instant() + 60):
        pass
    async with timeout_at(time() + 60):
        pass


@pytest.mark.parametrize("nonsense", [math.nan, "soon", None, 1j])
async def test_what_is_no_moment_is_refused_by_name(nonsense: object) -> None:
    with pytest.raises((TypeError, ValueError), match="when"):
        await sleep_until(nonsense)  # type: ignore[arg-type]
