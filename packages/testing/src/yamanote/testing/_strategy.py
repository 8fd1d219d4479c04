"""Strategies: which schedules to try, one after the other.

Invariant: a schedule decides from the labels that it is shown and from its own seed alone; so the same strategy with
the same seed tries the same schedules of the same program.

A run consists of steps. Before each step with more than one candidate the schedule makes a *choice*: the index of the
candidate that goes first. They stand in the order in which they became ready, so 0 is what asyncio does.
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Generator, Mapping, Sequence
from typing import NamedTuple, Protocol

__all__ = ["PCT", "Choice", "Exhaustive", "Fifo", "RandomOrder", "Schedule", "Script", "Strategy"]


_PATIENCE = 50
"""How often in a row a schedule with priorities lets the same one go first."""


class Choice(NamedTuple):
    """One choice that was made."""

    step: int
    """The number of the step before which it was made."""
    taken: int
    options: int
    first: str
    """Whose turn it would have been, first in, first out."""


class Schedule(Protocol):
    """The order of one run."""

    def choose(self, candidates: Sequence[str]) -> int:
        """The index of the candidate that goes first; they are two or more."""
        ...


class Strategy(ABC):
    """A plan for many runs."""

    @abstractmethod
    def schedules(self, seed: int) -> Generator[Schedule, Sequence[Choice], None]:
        """Give one schedule after the other, and receive for each the choices that were made in its run."""


class Script:
    """The schedule that takes what `deviations` says, and otherwise the first candidate.

    `strayed` turns true when a deviation asks for a candidate that is not there.
    """

    def __init__(self, deviations: Mapping[int, int]) -> None:
        self._deviations = deviations
        self._made = 0
        self.strayed = False

    def choose(self, candidates: Sequence[str]) -> int:
        option = self._deviations.get(self._made, 0)
        self._made += 1
        if option < len(candidates):
            return option
        self.strayed = True
        return 0


class Fifo(Strategy):
    """First in, first out, once: what asyncio does."""

    def schedules(self, seed: int) -> Generator[Schedule, Sequence[Choice], None]:
        yield Script({})


class Exhaustive(Strategy):
    """Every schedule that deviates from first-in-first-out at most `deviations` times, the fewest first.

    Most concurrency bugs need one or two (the bound is that of Musuvathi and Qadeer, "Iterative context bounding",
    2007).
    """

    def __init__(self, deviations: int = 2) -> None:
        if not isinstance(deviations, int) or deviations < 0:
            raise ValueError(f"deviations must be a whole number, at least 0, not {deviations!r}")
        self.deviations = deviations

    def schedules(self, seed: int) -> Generator[Schedule, Sequence[Choice], None]:
        plans: deque[dict[int, int]] = deque([{}])
        while plans:
            plan = plans.popleft()
            choices = yield Script(plan)
            if len(plan) < self.deviations:
                for number in range(max(plan, default=-1) + 1, len(choices)):
                    plans.extend({**plan, number: option} for option in range(1, choices[number].options))


class RandomOrder(Strategy):
    """Any candidate, each time with the same probability; without end."""

    def schedules(self, seed: int) -> Generator[Schedule, Sequence[Choice], None]:
        source = random.Random(seed)
        while True:
            yield _RandomSchedule(random.Random(source.getrandbits(64)))


class _RandomSchedule:
    def __init__(self, source: random.Random) -> None:
        self._source = source

    def choose(self, candidates: Sequence[str]) -> int:
        return self._source.randrange(len(candidates))


class PCT(Strategy):
    """Random priorities, and `depth` - 1 random moments at which the one that would run falls behind all others.

    A bug that needs `depth` ordered events is found, in each run, with a probability of at least 1 / (n * k^(depth-1))
    for n actors and k choices: far better than a random walk in long runs (Burckhardt and others, "A randomized
    scheduler with probabilistic guarantees of finding bugs", 2010). Without end.
    """

    def __init__(self, depth: int = 3) -> None:
        if not isinstance(depth, int) or depth < 1:
            raise ValueError(f"depth must be a whole number, at least 1, not {depth!r}")
        self._depth = depth

    def schedules(self, seed: int) -> Generator[Schedule, Sequence[Choice], None]:
        source = random.Random(seed)
        length = len((yield Script({})))  # where to change priorities can be drawn once it is known how long a run is
        while True:
            moments = {source.randrange(length) for _ in range(self._depth - 1)} if length else set()
            choices = yield _PCTSchedule(random.Random(source.getrandbits(64)), moments)
            length = max(length, len(choices))


class _PCTSchedule:
    def __init__(self, source: random.Random, moments: set[int]) -> None:
        self._source = source
        self._moments = moments
        self._made = 0
        self._last = ""
        self._in_a_row = 0
        self._priorities: dict[str, float] = {}

    def choose(self, candidates: Sequence[str]) -> int:
        priorities = self._priorities
        for candidate in candidates:
            if candidate not in priorities:
                priorities[candidate] = self._source.random()
        first = max(range(len(candidates)), key=lambda index: priorities[candidates[index]])
        # One that yields again and again waits for somebody whom it does not let run: without end, if it may.
        if self._made in self._moments or self._in_a_row == _PATIENCE:
            priorities[candidates[first]] = -1.0 - self._made  # below all others, and below those that fell before
            first = max(range(len(candidates)), key=lambda index: priorities[candidates[index]])
        self._in_a_row = self._in_a_row + 1 if candidates[first] == self._last else 0
        self._last = candidates[first]
        self._made += 1
        return first
