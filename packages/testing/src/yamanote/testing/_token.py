"""Replay tokens: one run, in a string that is short enough to paste.

Invariant: a token says all in which its run differs from the first-in-first-out one, and nothing else does.

``fifo`` is the run in which nothing is out of turn. ``7:1`` means that at the seventh choice (counted from 0) the
second of the actors that could run did; ``2@4`` that task 2 is cancelled as soon as it waits for the fourth time, and
``2@4i3`` and ``2@4w`` that it is cancelled there, too, but not before everybody waits for the third time, or not before
it is woken. Parts are joined by commas.
"""

from __future__ import annotations

import re
from typing import NamedTuple

__all__ = ["Injection", "Token"]

_PART = re.compile(
    r"(?P<choice>\d+):(?P<option>[1-9]\d*)|(?P<task>\d+)@(?P<point>\d+)(i(?P<idles>[1-9]\d*)|(?P<woken>w))?"
)


class Injection(NamedTuple):
    """A cancellation: of which task, at which of its await points, and when; by default as soon as it waits there."""

    task: int
    """Tasks are numbered as they are made; 0 is the one that runs the scenario."""
    point: int
    """The await points of a task are numbered from 1; 0 is before its first step."""
    idles: int = 0
    """When it still waits there and, for so many times now, nobody can go on before time passes."""
    woken: bool = False
    """When it was woken, and has not run since."""

    def __str__(self) -> str:
        moment = "w" if self.woken else f"i{self.idles}" if self.idles else ""
        return f"{self.task}@{self.point}{moment}"


class Token(NamedTuple):
    """What `str` writes, and `parse` reads."""

    deviations: dict[int, int]
    """Which option was taken instead of the first one, by the number of the choice."""
    injections: tuple[Injection, ...] = ()

    def __str__(self) -> str:
        parts = [f"{choice}:{option}" for choice, option in sorted(self.deviations.items())]
        return ",".join([*parts, *map(str, self.injections)]) or "fifo"

    @classmethod
    def parse(cls, text: str) -> Token:
        """Read a token. Raises ValueError for anything else."""
        deviations: dict[int, int] = {}
        injections: list[Injection] = []
        for part in text.strip().split(",") if text.strip() != "fifo" else ():
            match = _PART.fullmatch(part)
            if match is None:
                raise ValueError(f"token must be like 'fifo' or '7:1,12:2' or '3:1,2@4w', not {text!r}")
            if match["choice"]:
                deviations[int(match["choice"])] = int(match["option"])
            else:
                idles, woken = int(match["idles"] or 0), match["woken"] is not None
                injections.append(Injection(int(match["task"]), int(match["point"]), idles, woken))
        return cls(deviations, tuple(injections))
