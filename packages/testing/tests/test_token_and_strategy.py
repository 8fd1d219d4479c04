"""Replay tokens, and the schedules that the strategies try."""

from __future__ import annotations

from itertools import islice, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yamanote.testing import PCT, Choice, Exhaustive, Fifo, RandomOrder, Strategy
from yamanote.testing._token import Injection, Token

injections = st.one_of(
    st.builds(Injection, st.integers(0, 9), st.integers(0, 50), st.integers(0, 20), st.just(False)),
    st.builds(Injection, st.integers(0, 9), st.integers(0, 50), st.just(0), st.just(True)),
)
tokens = st.builds(
    Token, st.dictionaries(st.integers(0, 500), st.integers(1, 9)), st.lists(injections, max_size=3).map(tuple)
)


@given(tokens)
def test_a_token_says_all(token: Token) -> None:
    assert token == Token.parse(str(token))


def test_the_run_in_order_is_called_fifo() -> None:
    assert "fifo" == str(Token({}))
    assert Token({}) == Token.parse("fifo")


@pytest.mark.parametrize(
    "text", ["", "7", "7:0", "a:1", "7:1;8:1", "2@", "@4", "2@4x", "2@4i", "2@4i0", "2@4wi1", "7:1,", "-1:1"]
)
def test_what_is_no_token_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="token must be"):
        Token.parse(text)


def orders(strategy: Strategy, actors: int, choices: int, seed: int = 0, runs: int | None = None) -> list[list[int]]:
    """What a strategy decides in runs that always have `choices` choices among the same actors."""
    candidates = [f"task#{actor}" for actor in range(actors)]
    schedules = strategy.schedules(seed)
    tried = []
    schedule = next(schedules)
    for _ in islice(iter(int, 1), runs):
        tried.append([schedule.choose(candidates) for _ in range(choices)])
        try:
            schedule = schedules.send([Choice(step, taken, actors, "") for step, taken in enumerate(tried[-1])])
        except StopIteration:
            break
    return tried


def test_fifo_is_one_run_in_which_nobody_is_overtaken() -> None:
    assert [[0, 0, 0]] == orders(Fifo(), actors=3, choices=3)


@pytest.mark.parametrize(("deviations", "runs"), [(0, 1), (1, 1 + 4 * 2), (2, 1 + 4 * 2 + 6 * 4), (4, 3**4)])
def test_an_exhaustive_search_tries_each_schedule_within_its_bound_once_the_fewest_deviations_first(
    deviations: int, runs: int
) -> None:
    tried = orders(Exhaustive(deviations), actors=3, choices=4)
    deviating = [sum(map(bool, order)) for order in tried]

    assert runs == len(tried) == len(set(map(tuple, tried)))
    assert sorted(deviating) == deviating
    assert deviations == max(deviating)


@pytest.mark.parametrize("strategy", [RandomOrder(), PCT(3)], ids=["random", "PCT"])
def test_the_same_seed_gives_the_same_schedules_and_another_seed_others(strategy: Strategy) -> None:
    first, again, other = (orders(strategy, actors=3, choices=9, seed=seed, runs=20) for seed in (1, 1, 2))

    assert first == again
    assert first != other
    assert 10 < len(set(map(tuple, first)))


def test_pct_keeps_its_priorities_but_for_depth_minus_one_changes() -> None:
    for order in orders(PCT(1), actors=4, choices=30, runs=40)[1:]:
        assert 1 == len(set(order))  # the highest priority always goes first
    for order in orders(PCT(3), actors=4, choices=30, runs=40)[1:]:
        assert 2 >= sum(before != after for before, after in pairwise(order))


@pytest.mark.parametrize("deviations", [-1, 1.5, None])
def test_an_exhaustive_search_refuses_a_bound_that_is_no_count(deviations: object) -> None:
    with pytest.raises(ValueError, match="deviations"):
        Exhaustive(deviations)  # type: ignore[arg-type]


@pytest.mark.parametrize("depth", [0, -1, 1.5, None])
def test_pct_refuses_a_depth_that_is_no_count(depth: object) -> None:
    with pytest.raises(ValueError, match="depth"):
        PCT(depth)  # type: ignore[arg-type]
