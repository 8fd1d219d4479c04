"""The operators of time against what they say, in a few lines each, for any times."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from itertools import accumulate, pairwise
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from yamanote import streams
from yamanote.streams import Stream

from .test_timed import END, Event, Timeline, observed, virtually

times = st.lists(st.sampled_from([0, 0, 0.5, 1, 1, 1.5, 2, 3, 7]), min_size=1, max_size=12).map(
    lambda gaps: list(accumulate(gaps))
)
"""When the items come, and the end."""
fails = st.booleans()
works = st.sampled_from([0, 0, 0.25, 1, 3])
seconds = st.sampled_from([0.5, 1, 2, 3.5])


def timeline(moments: list[float], fails: bool) -> list[Event]:
    end = OSError("of the source") if fails else END
    return [*((moment, number) for number, moment in enumerate(moments[:-1])), (moments[-1], end)]


def compare(
    apply: Callable[[Stream[Any]], Stream[Any]], events: list[Event], expected: list[Event], work: float = 0
) -> None:
    async def main() -> None:
        source = Timeline(events)
        seen = await observed(apply(streams.iter(source)), work)
        assert [
            (moment, TimeoutError if isinstance(thing, TimeoutError) else thing) for moment, thing in seen
        ] == expected
        assert source.closed == 1

    virtually(main())


@given(times, fails, seconds, works)
@settings(max_examples=60, deadline=None)
def test_throttle_does_what_it_says(moments: list[float], fails: bool, seconds: float, work: float) -> None:
    events = timeline(moments, fails)
    expected: list[Event] = []
    free, earliest = 0.0, 0.0
    for moment, thing in events[:-1]:
        given = max(moment, free, earliest)
        expected.append((given, thing))
        free, earliest = given + work, given + seconds
    expected.append((max(moments[-1], free), events[-1][1]))
    compare(lambda s: s.throttle(seconds), events, expected, work)


@given(times, fails, seconds, works)
@settings(max_examples=60, deadline=None)
def test_delay_does_what_it_says(moments: list[float], fails: bool, seconds: float, work: float) -> None:
    events = timeline(moments, fails)
    expected: list[Event] = []
    free = 0.0
    for moment, thing in events:
        given = max(moment + seconds, free)
        expected.append((given, thing))
        free = given + work
    compare(lambda s: s.delay(seconds), events, expected, work)


def superseding(events: list[Event], due: Callable[[float], float], work: float) -> list[Event]:
    """The items whose moment comes no later than the next item, of which a slow consumer gets the newest."""
    ripe: deque[tuple[float, float, Any]] = deque()  # since when, when by the clock, and what
    end = events[-1][0]
    for (moment, thing), (following, _) in pairwise(events):
        if due(moment) <= following or thing == len(events) - 2:
            ripe.append((min(due(moment), end), due(moment), thing))
    given: list[Event] = []
    free = 0.0
    while ripe:
        now = max(free, ripe[0][0])
        while len(ripe) > 1 and ripe[1][1] <= now:
            ripe.popleft()
        given.append((now, ripe.popleft()[2]))
        free = now + work
    return [*given, (max(end, free), events[-1][1])]


@given(times, fails, seconds, works)
@settings(max_examples=100, deadline=None)
def test_debounce_does_what_it_says(moments: list[float], fails: bool, seconds: float, work: float) -> None:
    events = timeline(moments, fails)
    compare(lambda s: s.debounce(seconds), events, superseding(events, lambda moment: moment + seconds, work), work)


@given(times, fails, seconds, works)
@settings(max_examples=100, deadline=None)
def test_sample_does_what_it_says(moments: list[float], fails: bool, seconds: float, work: float) -> None:
    events = timeline(moments, fails)
    expected = superseding(events, lambda moment: (moment // seconds + 1) * seconds, work)
    compare(lambda s: s.sample(seconds), events, expected, work)


@given(times, fails, st.sampled_from([0.875, 1.125, 2.375]), works)
@settings(max_examples=60, deadline=None)
def test_timeout_does_what_it_says(moments: list[float], fails: bool, seconds: float, work: float) -> None:
    events = timeline(moments, fails)
    expected: list[Event] = []
    free = 0.0
    for moment, thing in events:
        if moment > free + seconds:
            expected.append((free + seconds, TimeoutError))
            break
        given = max(moment, free)
        expected.append((given, thing))
        free = given + work

    compare(lambda s: s.timeout(seconds), events, expected, work)


@given(times, fails, st.sampled_from([0.875, 1.125, 2.375]), st.integers(1, 4))
@settings(max_examples=60, deadline=None)
def test_chunks_timeout_does_what_it_says(moments: list[float], fails: bool, seconds: float, count: int) -> None:
    events = timeline(moments, fails)
    expected: list[Event] = []
    chunk: list[Any] = []
    oldest = 0.0
    for moment, thing in events:
        if chunk and (moment > oldest + seconds or (moment, thing) == events[-1]):
            expected.append((min(moment, oldest + seconds), chunk))
            chunk = []
        if (moment, thing) == events[-1]:
            expected.append((moment, thing))
            break
        if not chunk:
            oldest = moment
        chunk.append(thing)
        if len(chunk) == count:
            expected.append((moment, chunk))
            chunk = []
    compare(lambda s: s.chunks_timeout(count, seconds), events, expected)
