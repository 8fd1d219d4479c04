"""Preemption explorer: stop one thread before each of its instructions, and let another run through right there.

Invariant: of the two threads of a run only one has the turn. The one that is to be preempted loses it when it comes to
a certain instruction; either loses it when it blocks; and the preempted one does once more, as soon as the other, which
had blocked, can go on. Who is without the turn stops before its next instruction. So the same run can be made again.

One preemption is enough for most bugs of lock-free algorithms. (To bound their number is the idea of Musuvathi and
Qadeer, "Iterative context bounding", 2007; loom does it for Rust.)
"""

from __future__ import annotations

import dis
import gc
import re
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from pathlib import Path
from types import CodeType, FrameType

from yamanote.testing._instructions import instructions_announced, watch
from yamanote.testing._judge import Counterexample
from yamanote.testing._settings import settings

__all__ = ["PreemptionExploration", "explore_preemptions"]

_LOOK = 0.001
"""Seconds between two looks at a thread."""
_THREADS = Path("/proc/self/task")
_STILL = 0.001 if _THREADS.exists() else 0.03
"""Seconds without an instruction after which a thread that sleeps is taken for blocked."""

_PRIVATE = """
    CACHE COPY EXTENDED_ARG JUMP_FORWARD KW_NAMES LOAD_CONST LOAD_FAST LOAD_SMALL_INT MAKE_CELL NOP NOT_TAKEN PRECALL
    PUSH_NULL RESUME SWAP
""".split()
_PRIVATE_OPCODES = {code for name, code in dis.opmap.items() if name.startswith(tuple(_PRIVATE))}
"""Instructions that touch nothing which another thread can see: to stop before them or after them is the same."""

Scenario = Callable[[], tuple[Callable[[], object], Callable[[], object], Callable[[], object]]]


@dataclass(frozen=True)
class PreemptionExploration:
    """What was tried without finding a failure."""

    runs: int


def explore_preemptions(
    scenario: Scenario, *, within: str = "", patience: float = 5.0, token: str | None = None
) -> PreemptionExploration:
    """Run two operations in two threads: one stops before an instruction of its own, and the other runs through there.

    That for every instruction of the first one, and then the other way round. `scenario` is called for each run; it
    makes what is needed and returns two functions without arguments, the operations, and a third one, which is called
    when both have ended and raises if something is wrong.

    Where the other blocks, on a lock that the preempted one holds, for instance, the preempted one goes on until the
    other can. `within` is the name of a module or package: only its instructions are stopped at (those of this kit
    never are). The fewer, the faster: each takes about a millisecond, and ten if somebody blocks there.

    Raises `Counterexample` when an operation or the check raises, or when nothing moves for `patience` seconds because
    each thread waits for something; its token is that of the run. Give it back as `token`, or to ``--replay``, to make
    that one run, with the same Python: other versions have other instructions.

    >>> def two_increments():
    ...     counter = [0]
    ...     def increment():
    ...         counter[0] += 1
    ...     def check():
    ...         assert counter[0] == 2, f"two increments made {counter[0]}"
    ...     return increment, increment, check
    >>> try:
    ...     explore_preemptions(two_increments)
    ... except Counterexample as found:
    ...     print(found.__cause__)
    two increments made 1
    """
    if not callable(scenario):
        raise TypeError(f"scenario must be a function that returns two operations and a check, not {scenario!r}")
    explorer = _Explorer(scenario, within, patience)
    token = settings.replay if token is None else token
    collecting = gc.isenabled()
    gc.disable()  # a finalizer would run here once and there the next time
    try:
        with instructions_announced():
            if token is not None:
                explorer.run(*_parse(token))
            else:
                for preempted in (0, 1):
                    point = 0
                    while explorer.run(preempted, point):
                        point += 1
    finally:
        if collecting:
            gc.enable()
    return PreemptionExploration(explorer.runs)


class _Explorer:
    """The runs of one scenario."""

    def __init__(self, scenario: Scenario, within: str, patience: float) -> None:
        self._scenario = scenario
        self._within = within
        self._patience = patience
        self._stops: dict[CodeType, bool] = {}
        self.runs = 0

    def run(self, preempted: int, point: int) -> bool:
        """Preempt one of the two before its instruction number `point`; tell whether it came there before its end."""
        self.runs += 1
        *operations, check = self._scenario()
        names = ("first", "second")
        actors = [_Actor(*pair, self._stops_in) for pair in zip(names, operations, strict=True)]
        run = _Run(actors[preempted], actors[not preempted], point)
        run.preempt()
        run.finish(self._patience)
        if run.failure is None:
            try:
                check()
            except Exception as error:
                run.failure = error
        if run.failure is not None:
            raise run.counterexample() from run.failure
        return run.reached

    def _stops_in(self, frame: FrameType) -> bool:
        """Whether threads are stopped between the instructions of this function."""
        stops = self._stops.get(frame.f_code)
        if stops is None:
            module = f"{frame.f_globals.get('__name__')}."
            stops = not module.startswith("yamanote.testing.") and (
                not self._within or module.startswith(f"{self._within}.")
            )
            self._stops[frame.f_code] = stops
        return stops


class _Run:
    """One run: `victim` is preempted by `other`."""

    def __init__(self, victim: _Actor, other: _Actor, point: int) -> None:
        self._victim = victim
        self._other = other
        self._point = point
        self._where = ""
        self._turns: list[str] = []
        self.reached = False
        self.failure: BaseException | None = None

    def preempt(self) -> None:
        """Let the victim come to its point, or to its end, or to where it waits for the other."""
        victim = self._victim
        victim.stop_at = self._point
        self._advance(victim)
        self.reached = victim.halted.is_set() and not victim.ended
        self._where = victim.where if self.reached else "after its end" if victim.ended else "where it blocked"
        victim.stop_at, victim.gives_way_to = inf, self._other

    def finish(self, patience: float) -> None:
        """Let both come to their ends, the other one first."""
        still = 0.0
        while unfinished := [actor for actor in (self._other, self._victim) if not actor.ended]:
            if any([self._advance(actor) for actor in unfinished]):  # a list: each has its turn
                still = 0.0
            elif (still := still + _STILL + _LOOK) > patience:
                waiting = "; ".join(f"{actor.name} waits {actor.position()}" for actor in unfinished)
                self.failure = TimeoutError(waiting)
                return
        for actor in (self._victim, self._other):
            actor.thread.join()
        self.failure = self._victim.error or self._other.error

    def counterexample(self) -> Counterexample:
        token = f"{self._victim.name}@{self._point}"
        message = (
            f"{type(self.failure).__name__}: {self.failure}\n\n"
            f"  {self._victim.name} preempted {self._where}\n"
            f"  turns: {' '.join(self._turns)}\n"
            f"  see it again: pytest --replay={token}, or explore_preemptions(scenario, token={token!r})"
        )
        return Counterexample(message, token, self._turns)

    def _advance(self, actor: _Actor) -> bool:
        moved = actor.advance()
        if moved:
            self._turns.append(actor.name)
        return moved


class _Actor:
    """One of the two threads."""

    def __init__(self, name: str, operation: Callable[[], object], stops_in: Callable[[FrameType], bool]) -> None:
        self.name = name
        self.stop_at: float = inf
        self.gives_way_to: _Actor | None = None
        self.halted = threading.Event()
        """Set while it waits for its turn, before an instruction or after its end; not while it is blocked."""
        self.ended = False
        self.error: BaseException | None = None
        self.where = "before its first instruction"
        self._operation = operation
        self._stops_in = stops_in
        self._turn = threading.Event()
        self._steps = 0
        self.thread = threading.Thread(target=self._act, name=name, daemon=True)
        self.thread.start()

    def advance(self) -> bool:
        """Give it the turn until it halts or blocks; tell whether it got anywhere."""
        begun = last = self._steps
        self.halted.clear()
        self._turn.set()
        still = 0.0
        while not self.halted.wait(_LOOK):
            still = still + _LOOK if self._steps == last and self._sleeps() else 0.0
            if still > _STILL:
                self._turn.clear()
                break
            last = self._steps
        return self.ended or self._steps > begun

    def can_go_on(self) -> bool:
        """Whether it halts, or is about to, after it was blocked."""
        while not self.halted.wait(_LOOK / 4):
            if self._sleeps():
                return False
        return not self.ended

    def _sleeps(self) -> bool:
        """Whether the system does not run it; where that cannot be known, the time has to tell."""
        try:
            status = (_THREADS / str(self.thread.native_id) / "stat").read_bytes()
        except OSError:
            return True
        return status.rpartition(b") ")[2][:1] != b"R"

    def position(self) -> str:
        """Where a thread is that does not halt."""
        frame = sys._current_frames().get(self.thread.ident or 0)
        while frame is not None and not self._stops_in(frame):
            frame = frame.f_back
        return "its thread" if frame is None else _describe(frame)

    def _act(self) -> None:
        self._turn.wait()
        try:
            with watch(self._before_instruction):
                self._operation()
        except BaseException as error:
            self.error = error
        finally:
            self.ended = True
            self.halted.set()

    def _before_instruction(self, frame: FrameType) -> None:
        if not self._stops_in(frame) or frame.f_code.co_code[frame.f_lasti] in _PRIVATE_OPCODES:
            return
        if self._steps == self.stop_at or not self._turn.is_set() or self._gives_way():
            self.where = f"before {_describe(frame)}"
            self._turn.clear()
            self.halted.set()
            self._turn.wait()
        self._steps += 1

    def _gives_way(self) -> bool:
        other = self.gives_way_to
        return other is not None and not other.ended and other.can_go_on()


def _describe(frame: FrameType) -> str:
    code = frame.f_code
    return f"{dis.opname[code.co_code[frame.f_lasti]]} at {code.co_filename}:{frame.f_lineno} in {code.co_qualname}"


def _parse(token: str) -> tuple[int, int]:
    match = re.fullmatch(r"(first|second)@(\d+)", token.strip())
    if match is None:
        raise ValueError(f"token must be like 'first@17' or 'second@3', not {token!r}")
    return int(match[1] == "second"), int(match[2])
