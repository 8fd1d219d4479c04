"""Linearizability: can what threads saw at the same time be explained by one call after the other?

Invariant: a history is accepted exactly if all its calls fit into one order in which a call that ended before another
began comes before it, and in which the model gives each call the result that it had. A call that has not ended may
stand anywhere after its beginning, with whatever result, or may not have happened yet.

The calls are put into order just in time, as late as the end of one of them demands (Lowe, "Testing for
linearizability", 2017, after Wing and Gong, 1993), in all ways at once; ways that lead to the same state are one. So
the time that it takes grows with the number of calls that overlap, and hardly with the length of the history.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

__all__ = ["Call", "History", "NotLinearizable"]

P = ParamSpec("P")
S = TypeVar("S", bound=Hashable)

_SHOWN = 48
"""How many events, beginnings and ends of calls, a message draws."""


class NotLinearizable(AssertionError):
    """No order of the calls explains their results. The message draws when they began and ended."""


@dataclass(eq=False)
class Call:
    """One call of a history."""

    name: str
    arguments: tuple[object, ...]
    thread: str
    """The name of the thread that made it."""
    result: object = None
    """What it returned, or the class of the error that it raised."""
    ended: bool = False

    def __str__(self) -> str:
        result = f" -> {getattr(self.result, '__name__', repr(self.result))}" if self.ended else ""
        return f"{self.name}({', '.join(map(repr, self.arguments))}){result}"


class History:
    """The calls that threads and tasks made of one object: when each began and ended, and what came out.

    Record the calls, then compare them with a model of the object: a generator function of a state and a call, that
    yields ``result, next state`` for everything that the call may do to an object in that state, if it is the only call
    in the world. That is nothing where the call has to wait, and several things where the object may choose. An error
    is yielded as its class. A state is immutable: a number, a tuple, a frozenset.

    >>> def register(value, call):
    ...     match call.name, *call.arguments:
    ...         case "write", new:
    ...             yield None, new
    ...         case ("read",):
    ...             yield value, value
    >>> history = History()
    >>> with history.calling("write", 1):
    ...     with history.calling("read") as read:  # while the other goes on: it may see either
    ...         read.result = 0
    >>> history.assert_linearizable(register, 0)
    >>> with history.calling("read") as read:  # afterwards
    ...     read.result = 0
    >>> try:
    ...     history.assert_linearizable(register, 0)
    ... except NotLinearizable:
    ...     print("1 was written and is gone")
    1 was written and is gone

    **Threads:** any thread may record; `assert_linearizable` is for when they have come to rest.
    """

    def __init__(self) -> None:
        # A call stands in it twice, when it begins and when it ends. The list itself is the clock: `list.append` is
        # atomic on every build of CPython.
        self._events: list[Call] = []

    def call(self, function: Callable[P, object], /, *args: P.args, **kwargs: P.kwargs) -> object:
        """Call `function(*args)` and record that under the name of the function; return what it returned.

        An error is a result too: it is recorded for the model to judge, and its class returned. Only a failed
        assertion, and what is no `Exception`, such as a cancellation, is recorded and raised.
        """
        with self.calling(function.__name__, *args) as call:
            call.result = function(*args, **kwargs)
        return call.result

    @contextmanager
    def calling(self, name: str, *arguments: object) -> Iterator[Call]:
        """Record what is done in the ``with`` block as one call; set its `result` there, if it has one.

        For what must be awaited, for instance. Errors are treated as in `call`: they end the block, no more.
        """
        call = Call(name, arguments, threading.current_thread().name)
        self._events.append(call)
        try:
            yield call
        except BaseException as error:
            call.result = type(error)
            if isinstance(error, AssertionError) or not isinstance(error, Exception):
                raise
        finally:
            call.ended = True
            self._events.append(call)

    def assert_linearizable(self, model: Callable[[S, Call], Iterable[tuple[object, S]]], state: S) -> None:
        """Raise `NotLinearizable` if no order of the calls agrees with `model`, beginning with `state`."""
        worlds: set[_World[S]] = {(state, frozenset())}
        under_way: dict[Call, None] = {}
        for now, call in enumerate(self._events):
            if call not in under_way:
                under_way[call] = None
                continue
            before = worlds
            worlds = _worlds_after(call, before, under_way, model)
            del under_way[call]
            if not worlds:
                raise NotLinearizable(self._message(call, now, {state for state, _ in before}))

    def _message(self, culprit: Call, now: int, states: set[S]) -> str:
        spans: dict[Call, list[int]] = {}
        for moment, call in enumerate(self._events):
            spans.setdefault(call, []).append(moment)
        start = max(0, now + 1 - _SHOWN)
        rows = [
            (
                call.thread,
                str(call),
                _bar([*span, len(self._events)][:2], start, now + 1, "*" if call is culprit else "="),
            )
            for call, span in spans.items()
            if span[0] <= now and (len(span) == 1 or span[1] >= start)
        ]
        threads, calls = (max(len(row[column]) for row in rows) for column in (0, 1))
        lines = [f"  {thread:{threads}}  {call:{calls}}  {bar}".rstrip() for thread, call, bar in rows]
        known = " or ".join(sorted(map(repr, states)))
        return "\n".join(
            [f"{culprit}, drawn with *, cannot be explained. Before it ended the state was {known}", *lines]
        )


_World = tuple[S, frozenset[Call]]
"""What may be: a state, and which of the calls that are under way have taken effect in it."""


def _worlds_after(
    ended: Call,
    before: set[_World[S]],
    under_way: Iterable[Call],
    model: Callable[[S, Call], Iterable[tuple[object, S]]],
) -> set[_World[S]]:
    """What may be once `ended` has ended: it has taken effect, and others that were under way may have before it."""
    after: set[_World[S]] = set()
    seen = before.copy()
    unseen = list(before)
    while unseen:
        state, effective = unseen.pop()
        if ended in effective:
            after.add((state, effective - {ended}))
            continue
        for call in under_way:
            if call in effective:
                continue
            for result, next_state in model(state, call):
                world = (next_state, effective | {call})
                if (not call.ended or result == call.result) and world not in seen:
                    seen.add(world)
                    unseen.append(world)
    return after


def _bar(span: list[int], start: int, stop: int, stroke: str) -> str:
    """A line from the beginning of a call to its end, as far as that is between `start` and `stop`."""
    begin, end = span
    line = "".join("[" if at == begin else "]" if at == end else stroke for at in range(begin, end + 1))
    visible = slice(max(0, start - begin), max(0, stop - begin))
    return " " * max(0, begin - start) + line[visible]
