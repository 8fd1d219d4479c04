"""Schedules: which delays come, and when they end. No clock, no loop."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from itertools import islice
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yamanote.runtime import set_random_source
from yamanote.time import Schedule

fixed, exponential = Schedule.fixed, Schedule.exponential


@pytest.fixture
def seeded() -> Iterator[None]:
    before = set_random_source(random.Random(1))
    yield
    set_random_source(before)


def first(count: int, schedule: Schedule) -> list[float]:
    return list(islice(schedule, count))


def test_the_delays_that_were_given_come_in_turn() -> None:
    assert list(Schedule(0, 1, 0.5)) == [0, 1, 0.5]
    assert list(Schedule()) == []


def test_a_fixed_delay_never_ends() -> None:
    assert first(1000, fixed(3)) == [3] * 1000


def test_exponential_delays_grow_by_the_factor() -> None:
    assert first(5, exponential(0.1)) == [0.1, 0.2, 0.4, 0.8, 1.6]
    assert first(3, exponential(2, factor=10)) == [2, 20, 200]
    assert first(3, exponential(2, factor=1)) == [2, 2, 2]


def test_exponential_delays_can_be_capped_for_ever() -> None:
    assert first(5000, exponential(1, factor=10).capped(60))[-1] == 60


def test_exponential_delays_never_overflow() -> None:
    assert first(2000, exponential(1, factor=10).jittered())[-1] == math.inf


def test_each_run_begins_anew() -> None:
    schedule = Schedule(1, 2) + exponential(1).retries(2)
    assert list(schedule) == list(schedule) == [1, 2, 1, 2]
    one, another = schedule.begin(), schedule.begin()
    assert [one(0), one(0), another(0), one(0)] == [1, 2, 1, 1]


def test_retries_are_counted() -> None:
    assert list(fixed(1).retries(3)) == [1, 1, 1]
    assert list(fixed(1).retries(0)) == []
    assert list(Schedule(1).retries(3)) == [1]


def test_the_total_includes_the_delays() -> None:
    assert list(fixed(2).total(6)) == [2, 2, 2]
    assert list(fixed(2).total(5.9)) == [2, 2]
    assert list(exponential(1).total(0)) == []


def test_the_total_includes_the_time_for_attempts() -> None:
    run = fixed(2).total(10).begin()
    assert [run(3), run(8), run(8.1)] == [2, 2, None]


def test_the_total_of_a_second_part_begins_with_that() -> None:
    run = (Schedule(1) + fixed(2).total(4)).begin()
    assert [run(100), run(200), run(202), run(203)] == [1, 2, 2, None]


def test_plus_goes_on_with_the_second_when_the_first_has_ended() -> None:
    assert list(Schedule(1, 2) + Schedule(3)) == [1, 2, 3]
    assert list(Schedule() + Schedule(3) + Schedule() + Schedule(4)) == [3, 4]
    assert first(3, fixed(1) + Schedule(3)) == [1, 1, 1]


def test_and_goes_on_while_both_do_after_the_longer_delay() -> None:
    assert list(Schedule(1, 5, 3) & Schedule(4, 2)) == [4, 5]
    assert list(fixed(1) & Schedule()) == []


def test_or_goes_on_while_one_of_them_does_after_the_shorter_delay() -> None:
    assert list(Schedule(1, 5, 3) | Schedule(4, 2)) == [1, 2, 3]
    assert list(Schedule() | Schedule()) == []


def test_a_run_that_has_ended_is_not_asked_again() -> None:
    # 4 would come too late, and ends it; the 1 after it would not.
    assert list(Schedule(4, 1).total(3) | Schedule(2, 2, 2)) == [2, 2, 2]
    assert list(Schedule(4, 1).total(3) + Schedule(2, 2)) == [2, 2]


@pytest.mark.usefixtures("seeded")
def test_jitter_is_a_factor_between_its_bounds() -> None:
    delays = first(1000, fixed(10).jittered())
    assert 0 <= min(delays) < 0.5 and 9.5 < max(delays) <= 10
    delays = first(1000, fixed(10).jittered(0.5, 1.5))
    assert 5 <= min(delays) < 5.5 and 14.5 < max(delays) <= 15


def test_jitter_comes_from_the_random_source() -> None:
    schedule, runs = exponential(1).jittered(), []
    for _ in range(2):
        before = set_random_source(random.Random(7))
        runs.append(first(5, schedule))
        set_random_source(before)
    assert runs[0] == runs[1]


def test_a_schedule_shows_how_it_was_made() -> None:
    schedule = (Schedule(0, 1) + exponential(0.1).capped(5).jittered(0.5)).retries(7) | fixed(9).total(60) & fixed(1)
    assert eval(repr(schedule), {"Schedule": Schedule}) is not schedule
    assert repr(eval(repr(schedule), {"Schedule": Schedule})) == repr(schedule)


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda number: Schedule(1, number), "delays"),
        (fixed, "seconds"),
        (exponential, "first"),
        (lambda number: exponential(1, factor=number), "factor"),
        (lambda number: fixed(1).total(number), "seconds"),
        (lambda number: fixed(1).capped(number), "seconds"),
        (lambda number: fixed(1).retries(number), "count"),
        (lambda number: fixed(1).jittered(number), "low"),
        (lambda number: fixed(1).jittered(0, number), "high"),
    ],
)
def test_nonsense_is_refused_at_the_call_by_its_name(make: Any, name: str) -> None:
    for nonsense in (-1, math.nan, math.inf):
        with pytest.raises((ValueError, TypeError), match=name):
            make(nonsense)
    for nonsense in ("1", None):
        with pytest.raises(TypeError, match=name):
            make(nonsense)


def test_a_factor_that_shrinks_and_bounds_in_the_wrong_order_are_refused() -> None:
    with pytest.raises(ValueError, match="factor"):
        exponential(1, factor=0.5)
    with pytest.raises(ValueError, match="high"):
        fixed(1).jittered(0.6, 0.5)


def test_only_schedules_can_be_combined() -> None:
    for combine in (lambda s: s + 1, lambda s: s | [1], lambda s: s & None):
        with pytest.raises(TypeError):
            combine(fixed(1))


# ------------------------------------------------------------------ laws

delays = st.floats(0, 100) | st.integers(0, 100)
schedules = st.recursive(
    st.lists(delays, max_size=4).map(lambda given: Schedule(*given)) | delays.map(fixed),
    lambda inner: st.one_of(
        st.builds(lambda a, b: a + b, inner, inner),
        st.builds(lambda a, b: a & b, inner, inner),
        st.builds(lambda a, b: a | b, inner, inner),
        st.builds(Schedule.capped, inner, delays),
        st.builds(Schedule.total, inner, delays),
        st.builds(Schedule.retries, inner, st.integers(0, 5)),
    ),
    max_leaves=6,
)


@given(schedules, schedules, schedules)
def test_combining_is_associative_and_commutative_where_one_expects_it(a: Schedule, b: Schedule, c: Schedule) -> None:
    assert first(20, (a | b) | c) == first(20, a | (b | c))
    assert first(20, (a & b) & c) == first(20, a & (b & c))
    assert first(20, (Schedule(1, 2) + b) + c) == first(20, Schedule(1, 2) + (b + c))
    assert first(20, a | b) == first(20, b | a)
    assert first(20, a & b) == first(20, b & a)


@given(schedules)
def test_the_empty_schedule_adds_nothing_and_ends_everything(a: Schedule) -> None:
    assert first(20, a) == first(20, Schedule() + a) == first(20, a + Schedule()) == first(20, a | Schedule())
    assert first(20, a & Schedule()) == []


@given(schedules, delays, st.integers(0, 5))
def test_limits_are_kept_whatever_they_limit(a: Schedule, seconds: float, count: int) -> None:
    assert all(delay <= seconds for delay in first(20, a.capped(seconds)))
    assert math.fsum(first(20, a.total(seconds))) <= seconds * (1 + 1e-9)
    assert list(a.retries(count)) == first(count, a)
