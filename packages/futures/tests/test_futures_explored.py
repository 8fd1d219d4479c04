"""Everything of this area in any order of its steps, and cancelled at each of its awaits."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from functools import partial
from itertools import count
from typing import Any

import pytest

from yamanote.futures import (
    CompletionQueue,
    amass,
    as_completed_safe,
    failed_branch,
    gather,
    gather_safe,
    join,
    race,
    race_ok,
    select,
    task_set,
    try_join,
)
from yamanote.runtime import JoinError, park, yield_now
from yamanote.testing import explore, explore_cancellations
from yamanote.time import interval_at, sleep

Scenario = Callable[[], Coroutine[Any, Any, None]]


async def ended(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Wait until `tasks` have ended; raise what went wrong in them."""
    tasks = list(tasks)
    await asyncio.wait(tasks)
    for task in tasks:
        if not task.cancelled():
            task.result()


class Works:
    """Coroutines that take their time, also to clean up, and what has become of them."""

    def __init__(self) -> None:
        self.running: set[Any] = set()
        self.most = 0
        self.finished: list[Any] = []
        """In the order of their ends, however they ended, as far as they had begun."""
        self.succeeded: list[Any] = []

    async def do(self, name: Any, seconds: float) -> Any:
        self.running.add(name)
        self.most = max(self.most, len(self.running))
        try:
            await sleep(seconds)
            self.succeeded.append(name)
            return name
        except asyncio.CancelledError:
            await yield_now()
            raise
        finally:
            self.running.discard(name)
            self.finished.append(name)


async def pops(parties: int, tasks: int, *, for_ever: bool = False) -> None:
    """Every finished task goes to one party, in the order of both; whoever finds nothing left is told so."""
    work, arrivals = Works(), count()
    taken: dict[int, int] = {}
    told: list[int] = []

    async def pop() -> None:
        arrival = next(arrivals)
        try:
            taken[arrival], _ = await (park(queue) if for_ever else queue.pop())
        except LookupError:
            told.append(arrival)

    async with CompletionQueue[int, None]() as queue:
        for number in range(tasks):
            queue.add(work.do(number, 1 + number % 2), number)
        popping = [asyncio.create_task(pop()) for _ in range(parties)]
        await sleep(5)  # all have finished by then
        cancelled = any(task.cancelled() for task in popping)
        assert not (queue and queue._waiters)
        if for_ever:
            for task in popping:
                task.cancel()
        await ended(popping)
        rest = [key async for key, _ in queue]
        assert not queue._waiters
    order = [taken[arrival] for arrival in sorted(taken)] + rest
    assert sorted(order) == list(range(tasks))
    if not cancelled:  # else the last task may have come back after somebody was told that nothing is left
        assert not (told and rest)
        assert len(told) == (0 if for_ever else max(0, parties - tasks))
        assert not told or min(told) >= tasks
        if len(work.finished) == tasks:
            assert order == work.finished


async def closes(parties: int) -> None:
    """Closing, at any moment and cancelled or not, ends every task and lets every party go."""
    work = Works()

    async def pop() -> None:
        try:
            await queue.pop()
        except LookupError:
            pass

    async def close(delay: float) -> None:
        await sleep(delay)
        try:
            await queue.aclose()
        finally:
            assert not work.running

    queue = CompletionQueue[int, None]()
    for number in range(2):
        queue.add(work.do(number, 1), number)
    waiting = [asyncio.create_task(pop()) for _ in range(parties)]
    await ended([asyncio.create_task(close(delay)) for delay in (0, 1)])
    await queue.aclose()
    await ended(waiting)
    assert not queue
    assert not queue._waiters


async def selects(takers: int) -> None:
    """A select takes one thing: all that the other branches had comes with later ones, in order."""
    work = Works()
    ticks = interval_at(1, 1)
    gate: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    seen: dict[str, list[Any]] = {"job": [], "tick": [], "gate": []}

    async def take() -> None:
        while len(seen["job"]) < 3 or len(seen["tick"]) < 3 or not seen["gate"]:
            name, value = await select(job=queue, tick=ticks, gate=None if seen["gate"] else gate)
            seen[name].append(value[0] if name == "job" else value)
            assert len(seen["tick"]) < 9, "something else never came"

    async with CompletionQueue[int, Any]() as queue:
        for number in range(3):
            queue.add(work.do(number, 1 + number // 2), number)
        asyncio.get_running_loop().call_at(1, gate.set_result, None)
        await ended([asyncio.create_task(take()) for _ in range(takers)])
        await take()
        assert not queue._waiters
        assert "0 waiting" in repr(ticks)
    if takers == 1 and len(work.finished) == 3:
        assert seen["job"] == work.finished
    if takers == 1:
        assert seen["tick"] == [1 + number for number in range(len(seen["tick"]))]
    assert sorted(seen["job"]) == [0, 1, 2]
    assert sorted(seen["tick"]) == [1 + number for number in range(len(seen["tick"]))]


async def takes_from_a_set(takers: int) -> None:
    """Each task of a set is taken once, with its own name, and whoever comes after the last one is told so."""
    work = Works()
    seen: list[str] = []

    async def take() -> None:
        while tasks:
            try:
                name, value = await select(tasks)
                assert name == value
            except JoinError as error:
                (name,) = failed_branch(error)
            except ValueError:  # another party has taken the last one
                return
            seen.append(name)
            if name == "a":
                tasks.spawn("again", work.do("again", 1))

    async with task_set(a=work.do("a", 1), b=work.do("b", 1), c=work.do("c", 2)) as tasks:
        await ended([asyncio.create_task(take()) for _ in range(takers)])
        await take()
        assert not tasks.names
    assert sorted(seen) == ["a", "again", "b", "c"]
    if takers == 1 and len(work.finished) == 4:
        assert seen == work.finished


async def iterates_a_set(takers: int) -> None:
    """The same by iterating; whoever sees the end may do so while others still spawn."""
    work = Works()
    seen: list[str] = []

    async def take() -> None:
        while True:
            try:
                async for name, value in tasks:
                    assert name == value
                    seen.append(name)
                    if name == "a":
                        tasks.spawn("again", work.do("again", 1))
                return
            except JoinError as error:
                seen.extend(failed_branch(error))

    async with task_set(a=work.do("a", 1), b=work.do("b", 1), c=work.do("c", 2)) as tasks:
        await ended([asyncio.create_task(take()) for _ in range(takers)])
        await take()
        assert not tasks.names
    # Who was cancelled by somebody else was never replaced.
    assert sorted(seen) in (["a", "again", "b", "c"], ["a", "b", "c"])
    if takers == 1 and len(work.finished) == 4:
        assert seen == work.finished


async def completes(takers: int, limit: int | None) -> None:
    """Every value is given once, in the order of the ends, with no more at once than the limit, to whoever takes."""
    work = Works()
    seen: list[int] = []

    async def take() -> None:
        async for result in results:
            try:
                seen.append(await result)
            except JoinError:
                seen.append(-1)

    async with as_completed_safe((work.do(n, 1 + n % 2) for n in range(4)), limit=limit) as results:
        await ended([asyncio.create_task(take()) for _ in range(takers)])
        await take()
        assert not results._queue._waiters
    assert not work.running
    assert work.most <= (limit or 4)
    assert len(seen) == 4
    if takers == 1 and -1 not in seen:
        assert seen == work.finished


async def amasses_until_an_error(limit: int | None) -> None:
    """The values before the first error, then all errors, then nothing; and all has ended."""
    work = Works()
    taken: list[int] = []
    raised: list[Exception] = []

    async def fail(seconds: float) -> None:
        try:
            await sleep(seconds)
        finally:
            await yield_now()
            raised.append(OSError(seconds))
            raise raised[-1]

    calls = [work.do(0, 1), fail(2), work.do(1, 3), fail(3)]
    values = amass(calls, limit=limit)
    try:
        async for value in values:
            taken.append(value)
    except* OSError as group:
        assert {*group.exceptions} == {*raised}
        assert len(group.exceptions) == len(raised)
    assert taken == work.succeeded == [0]  # the others were not waited for, but stopped
    assert raised
    assert not work.running
    assert [value async for value in values] == []


async def gathers_safely(work: Works) -> Any:
    results = await gather_safe((work.do(number, 1 + number % 2) for number in range(4)), limit=2)
    for result in results:
        if isinstance(result, JoinError):
            raise result
    return results


async def races_failures(first: Awaitable[Any], second: Awaitable[Any], success: Any, third: Awaitable[Any]) -> Any:
    success.close()
    return await race_ok(first, second, third)


Combine = Callable[[Works], Awaitable[Any]]
combinations: dict[str, tuple[Combine, Callable[[Works], Any]]] = {
    "join": (lambda work: join(work.do(0, 1), work.do(1, 2), work.do(2, 1)), lambda work: [0, 1, 2]),
    "try_join": (lambda work: try_join(work.do(0, 1), work.do(1, 2), work.do(2, 1)), lambda work: [0, 1, 2]),
    "gather": (lambda work: gather((work.do(n, 1 + n % 2) for n in range(4)), limit=2), lambda work: [0, 1, 2, 3]),
    "race": (lambda work: race(work.do(0, 1), work.do(1, 2), work.do(2, 1)), lambda work: work.finished[0]),
    "gather_safe": (gathers_safely, lambda work: [0, 1, 2, 3]),
    "race_ok": (lambda work: race_ok(work.do(0, 1), work.do(1, 2), work.do(2, 1)), lambda work: work.succeeded[0]),
    "select, coroutines": (
        lambda work: select({"0": work.do("0", 1), "1": work.do("1", 2)}, later=interval_at(3, 1)),
        lambda work: (work.finished[0], work.finished[0]),
    ),
    "select, a tie of two kinds": (lambda work: select(tick=interval_at(1, 1), work=work.do("work", 1)), None),  # type: ignore[dict-item]
}


async def owns(combination: str, forgives: type[Exception] | tuple[type[Exception], ...] = ()) -> None:
    """What a combinator has started has ended when it returns, and nothing of the cancelling stays with its caller."""
    combine, expected = combinations[combination]
    work = Works()

    async def call() -> None:
        task = asyncio.current_task()
        assert task is not None
        try:
            result = await combine(work)
        except forgives:
            pass  # a work of it has been cancelled, and not by it
        except asyncio.CancelledError:
            assert task.cancelling()
            raise
        else:
            assert not expected or result == expected(work)
            assert not task.cancelling()
        finally:
            assert not work.running
            assert work.most <= (2 if combination.startswith("gather") else 3)

    await ended([asyncio.create_task(call())])


async def reports_each_error_once(collect: Callable[..., Awaitable[Any]]) -> None:
    """All that is raised until the last one has ended is in the group, once."""
    raised: list[Exception] = []

    async def fail(seconds: float) -> None:
        try:
            await sleep(seconds)
        finally:
            await yield_now()
            raised.append(OSError(seconds))
            raise raised[-1]

    try:
        await collect(fail(1), fail(1), sleep(1), fail(2))
    except* OSError as group:
        assert {*group.exceptions} == {*raised}
        assert len(group.exceptions) == len(raised)
    assert raised


scenarios: dict[str, Scenario] = {
    "pop, one party": partial(pops, 1, 4),
    "pop, more tasks": partial(pops, 2, 3),
    "pop, more parties": partial(pops, 3, 2),
    "pop for ever": partial(pops, 3, 2, for_ever=True),
    "close": partial(closes, 2),
    "select": partial(selects, 1),
    "select, two parties": partial(selects, 2),
    "task set": partial(takes_from_a_set, 1),
    "task set, two parties": partial(takes_from_a_set, 2),
    "task set, iterated": partial(iterates_a_set, 1),
    "task set, iterated by two": partial(iterates_a_set, 2),
    "as completed": partial(completes, 1, None),
    "as completed, one at a time": partial(completes, 1, 1),
    "as completed, two parties": partial(completes, 2, 2),
}
undisturbed: dict[str, Scenario] = {
    **{name: partial(owns, name) for name in combinations},
    "errors of gather": partial(reports_each_error_once, gather),
    "errors of join": partial(reports_each_error_once, join),
    "errors of race_ok": partial(reports_each_error_once, races_failures),
    "errors of amass": partial(amasses_until_an_error, None),
    "errors of amass, two at a time": partial(amasses_until_an_error, 2),
}
disturbed: dict[str, Scenario] = {name: partial(owns, name, (JoinError, ExceptionGroup)) for name in combinations}


@pytest.mark.parametrize("name", [*scenarios, *undisturbed])
def test_in_any_order(name: str) -> None:
    explore((scenarios | undisturbed)[name], runs=40)


@pytest.mark.parametrize("name", [*scenarios, *disturbed])
def test_cancelled_anywhere(name: str) -> None:
    explore_cancellations((scenarios | disturbed)[name], runs=60)
