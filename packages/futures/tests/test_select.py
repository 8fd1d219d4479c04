"""Select over anything: one commit, nothing lost, fairness, ownership."""

import asyncio
import gc
import pickle
import random
import sys
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

from yamanote.futures import CompletionQueue, blocking_select, failed_branch, select, shared, task_set
from yamanote.runtime import (
    BUDGET,
    CancellationToken,
    JoinError,
    TaskWaiter,
    Waiter,
    set_random_source,
    spawn,
    yield_now,
)
from yamanote.time import interval, interval_at, time


class Box:
    """A queue of items and of parked parties, for one thread, that counts what is done to it."""

    def __init__(self, *items: Any) -> None:
        self.items = list(items)
        self.waiters: list[Waiter[Any]] = []
        self.registered = 0

    def put(self, item: Any) -> None:
        self.items.append(item)
        self._serve()

    def register(self, waiter: Waiter[Any], /) -> None:
        self.registered += 1
        self.waiters.append(waiter)
        self._serve()

    def withdraw(self, waiter: Waiter[Any], /) -> None:
        if waiter.settled:
            self.items.insert(0, waiter.value)
            self._serve()
        elif waiter in self.waiters:
            self.waiters.remove(waiter)

    def _serve(self) -> None:
        while self.items and self.waiters:
            waiter = self.waiters.pop(0)
            if waiter.claim():
                waiter.settle(self.items.pop(0))


class Broken:
    """Something whose waits fail, or which cannot even be waited for."""

    def __init__(self, error: BaseException, at_once: bool = False) -> None:
        self.error = error
        self.at_once = at_once

    def register(self, waiter: Waiter[Any], /) -> None:
        if self.at_once:
            raise self.error
        if waiter.claim():
            waiter.fail(self.error)

    def withdraw(self, waiter: Waiter[Any], /) -> None: ...


async def turns(count: int, value: Any = None) -> Any:
    for _ in range(count):
        await yield_now()
    return value


async def never() -> None:
    await asyncio.get_running_loop().create_future()


async def fail(error: BaseException) -> None:
    raise error


def others() -> set[asyncio.Task[Any]]:
    current = asyncio.current_task()
    return {task for task in asyncio.all_tasks() if task is not current}


@pytest.fixture
def seeded() -> Iterator[random.Random]:
    source = random.Random(7)
    previous = set_random_source(source)
    yield source
    set_random_source(previous)


async def test_a_branch_that_is_ready_is_taken_at_once_and_without_a_task() -> None:
    noted: list[str] = []
    asyncio.get_running_loop().call_soon(lambda: noted.append("a turn"))
    assert await select(empty=Box(), full=Box("item")) == ("full", "item")
    assert noted == []


@pytest.mark.parametrize("value", [None, 0, "", ValueError("a value"), asyncio.CancelledError("a value")])
@pytest.mark.parametrize("ready", [False, True])
async def test_every_value_is_a_value(value: Any, ready: bool) -> None:
    box = Box()
    if ready:
        box.put(value)
    else:
        asyncio.get_running_loop().call_soon(box.put, value)
    assert await select(other=Box(), box=box) == ("box", value)
    future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(future.set_result, value)
    assert await select(other=Box(), future=future) == ("future", value)
    assert await select(other=Box(), work=turns(0 if ready else 2, value)) == ("work", value)


async def test_it_waits_until_the_first_is_ready_and_withdraws_from_the_others() -> None:
    boxes = {name: Box() for name in "abc"}
    task = asyncio.create_task(select(boxes))
    await turns(3)
    assert not task.done()
    boxes["b"].put("item")
    assert await task == ("b", "item")
    assert [box.waiters for box in boxes.values()] == [[], [], []]


async def test_exactly_one_of_two_branches_that_become_ready_together_commits() -> None:
    one, two = Box(), Box()
    task = asyncio.create_task(select(one=one, two=two))
    await yield_now()
    one.put(1)
    two.put(2)
    assert await task == ("one", 1)
    assert two.items == [2]


async def test_a_select_loop_over_boxes_takes_everything_once() -> None:
    one, two = Box(*range(10)), Box(*range(10, 20))
    seen = [await select(one=one, two=two) for _ in range(20)]
    assert sorted(value for _, value in seen) == list(range(20))
    assert [value for name, value in seen if name == "one"] == list(range(10))


async def test_everything_of_the_runtime_can_be_a_branch() -> None:
    token, ticks = CancellationToken(), interval_at(time() + 3600, 1)
    handle = spawn(turns(1, "handle"))
    box = Box()
    async with task_set(task=never()) as tasks:
        branches: dict[str, Any] = {"token": token, "ticks": ticks, "handle": handle, "box": box, "tasks": tasks}
        assert await select(branches) == ("handle", "handle")
        del branches["handle"]
        asyncio.get_running_loop().call_soon(token.cancel)
        assert await select(branches) == ("token", None)
        del branches["token"]
        ticks.reset_at(time() - 1)
        assert (await select(branches))[0] == "ticks"
        ticks.reset_after(3600)
        tasks.spawn("quick", turns(1, "value"))
        assert await select(branches) == ("tasks", ("quick", "value"))
        assert tasks.names == ("task",)


async def test_a_tick_that_lost_is_not_used_up() -> None:
    ticks = interval(3600)
    start = time()
    assert await select(box=Box("item"), ticks=ticks, biased=True) == ("box", "item")
    _, tick = await select(box=Box(), ticks=ticks)
    assert tick >= start


async def test_branches_that_are_none_are_disabled() -> None:
    box = Box("item")
    assert await select(off=None, box=box) == ("box", "item")
    for branches in ({}, {"off": None}, {"off": None, "empty": task_set()}):
        with pytest.raises(ValueError, match="disabled"):
            await select(branches)


@pytest.mark.parametrize("value", [None, "", ValueError("a value")])
async def test_else_is_what_one_gets_when_every_branch_is_disabled(value: Any) -> None:
    noted: list[str] = []
    asyncio.get_running_loop().call_soon(noted.append, "a turn")
    assert await select(off=None, else_=value) == ("else_", value)
    assert await select({"off": None}, empty=task_set(), else_=value, biased=True, timeout=60) == ("else_", value)
    assert await select({}, else_=value) == await select(else_=value) == ("else_", value)
    assert await select(task_set(), else_=value, timeout=60) == ("else_", value)
    assert noted == []


async def test_else_is_not_for_branches_that_are_only_not_ready_yet() -> None:
    box = Box()
    asyncio.get_running_loop().call_soon(box.put, "item")
    assert await select(off=None, box=box, else_="else") == ("box", "item")
    assert await select(empty=task_set(), work=turns(2, "value"), else_="else") == ("work", "value")
    with pytest.raises(TimeoutError):
        await select(box=box, else_="else", timeout=0)
    async with task_set(a=turns(2, "value")) as tasks:
        assert await select(tasks, else_="else") == ("a", "value")
        assert await select(tasks, else_="else") == ("else_", "else")


async def test_else_is_for_who_comes_too_late_for_the_last_task_of_a_set() -> None:
    async with task_set(only=turns(3, "value")) as tasks:
        both = [asyncio.create_task(select(tasks, else_="else")) for _ in range(2)]
        assert [await task for task in both] == [("only", "value"), ("else_", "else")]


async def test_a_branch_may_be_named_like_the_option() -> None:
    assert await select({"else_": Box("item")}, else_="else") == ("else_", "item")


async def test_rounds_that_only_take_else_yield_after_the_budget() -> None:
    rounds = 0

    async def loop() -> None:
        nonlocal rounds
        while True:
            await (select(off=None, else_=None) if rounds % 2 else select(task_set(), else_=None))
            rounds += 1

    await select(box=Box(), work=turns(1))  # a select that waited begins a new budget
    task = asyncio.create_task(loop())
    noted: list[int] = []
    asyncio.get_running_loop().call_soon(lambda: noted.append(rounds))
    await yield_now()
    task.cancel()
    await asyncio.wait([task])
    assert noted == [rounds] == [BUDGET]


async def test_an_empty_task_set_is_never_ready_but_may_be_filled_while_one_waits() -> None:
    async with task_set() as tasks:
        assert await select(tasks=tasks, box=Box("item")) == ("box", "item")
        waiting = asyncio.create_task(select(tasks=tasks, box=Box()))
        await turns(3)
        tasks.spawn("late", turns(0, "value"))
        assert await waiting == ("tasks", ("late", "value"))


async def test_names_that_are_options_go_into_a_mapping() -> None:
    for name in ("biased", "timeout", "first", "no identifier"):
        assert await select({name: Box("item")}, biased=True) == (name, "item")
    assert await select({"biased": Box()}, box=Box("item")) == ("box", "item")
    assert await select(first=Box("item")) == ("first", "item")
    with pytest.raises(ValueError, match="twice"):
        await select({"a": Box()}, a=Box())


async def test_without_bias_every_branch_has_its_turn(seeded: random.Random) -> None:
    boxes = {name: Box(*range(1000)) for name in "abc"}
    counts = dict.fromkeys("abc", 0)
    for _ in range(900):
        name, _ = await select(boxes)
        counts[name] += 1
    assert min(counts.values()) > 200


async def test_the_random_source_decides_and_can_be_replaced() -> None:
    async def trace(seed: int) -> list[str]:
        previous = set_random_source(random.Random(seed))
        boxes = {name: Box(*range(100)) for name in "abcd"}
        names = [(await select(boxes))[0] for _ in range(50)]
        assert isinstance(set_random_source(previous), random.Random)
        return names

    assert await trace(1) == await trace(1)
    assert await trace(1) != await trace(2)


async def test_with_bias_the_first_that_is_ready_is_taken() -> None:
    boxes = {name: Box(*range(100)) for name in "abc"}
    assert [(await select(boxes, biased=True))[0] for _ in range(100)] == ["a"] * 100
    assert (await select(boxes, biased=True))[0] == "b"


async def test_with_bias_coroutines_begin_in_the_order_of_the_arguments() -> None:
    for _ in range(30):
        assert await select(a=turns(1, 1), b=turns(1, 2), c=turns(1, 3), biased=True) == ("a", 1)


async def test_without_bias_coroutines_begin_anywhere(seeded: random.Random) -> None:
    winners = {(await select(a=turns(1), b=turns(1), c=turns(1)))[0] for _ in range(30)}
    assert winners == {"a", "b", "c"}


async def test_ready_rounds_yield_after_the_budget_and_a_cancellation_there_takes_nothing() -> None:
    one, two = Box(*range(10 * BUDGET)), Box()
    rounds = 0

    async def loop() -> None:
        nonlocal rounds
        while True:
            await select(one=one, two=two)
            rounds += 1

    await select(box=Box(), work=turns(1))  # a select that waited begins a new budget
    task = asyncio.create_task(loop())
    noted: list[int] = []
    asyncio.get_running_loop().call_soon(lambda: noted.append(rounds))
    await yield_now()
    assert noted == [BUDGET]
    task.cancel()
    await asyncio.wait([task])
    assert rounds == BUDGET
    assert one.items[0] == BUDGET
    assert (one.waiters, two.waiters) == ([], [])


@pytest.mark.parametrize("sent_at", range(4))
@pytest.mark.parametrize("cancelled_at", range(8))
async def test_a_cancelled_select_takes_nothing(sent_at: int, cancelled_at: int) -> None:
    """Before and after each turn, whatever is ready then: nothing lost, nothing twice, nobody left registered."""
    one, two = Box(), Box()
    seen: list[Any] = []

    async def take() -> None:
        for _ in range(2):
            seen.append((await select(one=one, two=two))[1])

    task = asyncio.create_task(take())
    for turn in range(9):
        if turn == sent_at:
            one.put("one")
            two.put("two")
        if turn == cancelled_at:
            task.cancel()
        await yield_now()
    assert sorted([*seen, *one.items, *two.items]) == ["one", "two"]
    assert (one.waiters, two.waiters) == ([], [])
    assert others() == set()


async def test_an_item_that_comes_back_is_the_first_again() -> None:
    box = Box()
    task = asyncio.create_task(select(box=box, other=Box()))
    await yield_now()
    for item in range(3):
        box.put(item)
    task.cancel()  # it has been handed the first item, and has not run since
    await asyncio.wait([task])
    assert task.cancelled()
    assert box.items == [0, 1, 2]


async def test_a_select_that_is_thrown_away_gives_back_what_it_was_handed() -> None:
    box = Box()
    coroutine = select(box=box, work=never())
    coroutine.send(None)
    box.put("item")
    coroutine.close()
    assert box.items == ["item"]
    (task,) = others()
    await asyncio.wait([task])
    assert task.cancelled()


async def test_coroutines_run_as_tasks_and_the_losers_have_ended() -> None:
    ended: list[str] = []

    async def lose(name: str) -> None:
        try:
            await never()
        finally:
            await turns(3)
            ended.append(name)

    assert await select(a=lose("a"), b=turns(2, "value"), c=lose("c")) == ("b", "value")
    assert sorted(ended) == ["a", "c"]
    assert others() == set()

    box = Box()
    task = asyncio.create_task(select(a=lose("again"), box=box))
    await turns(2)
    box.put("item")
    assert await task == ("box", "item")
    assert ended[-1] == "again"


async def test_coroutines_do_not_begin_when_something_else_is_ready() -> None:
    async def begin() -> None:
        pytest.fail("began")

    assert await select(work=begin(), box=Box("item"), biased=True) == ("box", "item")


@pytest.mark.parametrize("turn", range(12))
async def test_a_select_cancelled_while_its_losers_end_gives_back_what_it_took(turn: int) -> None:
    box = Box()
    ended: list[str] = []

    async def lose() -> None:
        try:
            await never()
        finally:
            await turns(4)
            ended.append("loser")

    task = asyncio.create_task(select(work=lose(), box=box))
    await turns(2)
    box.put("item")
    await turns(turn)
    was_done = task.done()
    task.cancel()
    await asyncio.wait([task])
    assert ended == ["loser"]
    assert others() == set()
    assert task.cancelled() != was_done
    assert box.items == ([] if was_done else ["item"])


async def test_a_select_cancelled_while_its_losers_end_is_cancelled_although_a_coroutine_won_at_once() -> None:
    async def lose() -> None:
        try:
            await never()
        finally:
            await turns(3)

    selecting = asyncio.create_task(select(loser=lose(), winner=turns(0), biased=True))
    await turns(2)
    selecting.cancel()
    await asyncio.wait([selecting])
    assert selecting.cancelled()
    assert others() == set()


async def test_an_interrupt_after_a_coroutine_has_won_at_once_is_raised_as_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("yamanote.futures._select.commit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        select(winner=turns(0)).send(None)


async def test_a_coroutine_that_serves_another_branch_while_it_begins_is_no_trouble() -> None:
    box = Box()

    async def serve() -> str:
        box.put("item")
        return "served"

    name, value = await select(box=box, work=serve(), biased=True)
    assert (name, value) in [("box", "item"), ("work", "served")]
    assert box.items == ([] if name == "box" else ["item"])
    assert box.waiters == []


async def test_what_a_loser_raises_while_it_is_cancelled_goes_to_the_exception_handler_once() -> None:
    error = OSError("in the clean-up")
    reported: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: reported.append(context["exception"]))

    async def lose() -> None:
        try:
            await never()
        finally:
            raise error

    assert await select(a=lose(), b=turns(2, "value")) == ("b", "value")
    gc.collect()
    assert reported == [error]


@pytest.mark.parametrize("spent", ["taken", "lost", "closed", "never begun"])
async def test_a_coroutine_of_an_earlier_round_is_refused_with_advice(spent: str) -> None:
    coroutine = turns(0) if spent == "taken" else never()
    if spent == "taken":
        await select(work=coroutine)
    elif spent == "lost":
        await select(work=coroutine, other=turns(1))
    elif spent == "never begun":
        await select(work=coroutine, box=Box("item"))
    else:
        coroutine.close()
    with pytest.raises(ValueError, match=r"'work' .* make a new one for each round, .* task_set"):
        await select(work=coroutine, other=never())


async def test_one_coroutine_cannot_be_two_branches() -> None:
    coroutine = never()
    with pytest.raises(ValueError, match="'a' and 'b' are one and the same"):
        await select(a=coroutine, b=coroutine)


async def test_nonsense_is_refused_at_the_call() -> None:
    with pytest.raises(TypeError, match="'bad'"):
        select(bad=1, work=never())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="timeout"):
        select(task_set(), timeout="1")  # type: ignore[call-overload]
    with pytest.raises(ValueError, match="twice"):
        select({"work": never()}, work=never())


async def test_the_select_after_a_cancelled_one_knows_nothing_of_it() -> None:
    box, ticks = Box(), interval(3600)
    await ticks.tick()
    for _ in range(3):
        task = asyncio.create_task(select(box=box, ticks=ticks, work=never()))
        await turns(2)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
    asyncio.get_running_loop().call_soon(box.put, "item")
    assert await select(box=box, ticks=ticks, work=never()) == ("box", "item")
    assert (others(), box.waiters) == (set(), [])


async def test_futures_and_tasks_are_not_ours_and_go_on() -> None:
    future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(turns(5, "task"))
    assert await select(box=Box("item"), future=future, task=task, biased=True) == ("box", "item")
    waiting = asyncio.create_task(select(future=future, task=task, box=Box()))
    await turns(2)
    waiting.cancel()
    await asyncio.wait([waiting])
    assert not future.done()
    assert await select(future=future, task=task) == ("task", "task")
    task.cancel()
    assert await select(future=future, task=task) == ("task", "task")
    assert not future.cancelled()


async def test_a_future_that_was_cancelled_is_an_error_and_cancels_nobody() -> None:
    future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(future.cancel)
    with pytest.raises(JoinError) as caught:
        await select(future=future, box=Box())
    assert failed_branch(caught.value) == ("future",)

    async def cancel_itself() -> None:
        raise asyncio.CancelledError

    with pytest.raises(JoinError) as caught:
        await select(work=cancel_itself(), box=Box())
    assert failed_branch(caught.value) == ("work",)


async def test_the_error_of_a_branch_is_raised_with_its_name() -> None:
    error = OSError("no answer")
    for branch in (Broken(error), fail(error)):
        with pytest.raises(OSError) as caught:
            await select(bad=branch, good=Box())
        assert caught.value is error
        assert failed_branch(error) == ("bad",)
    assert len(error.__notes__) == 1
    async with task_set(fetch=fail(error)) as tasks:
        with pytest.raises(OSError):
            await select(jobs=tasks, good=Box())
        assert failed_branch(error) == ("jobs", "fetch")
        assert not tasks.names


async def test_each_of_those_who_get_one_error_is_told_its_own_branch() -> None:
    page = shared(fail(OSError("no answer")))

    async def ask(name: str) -> tuple[str, ...]:
        try:
            await select({name: page, "box": Box()})
        except OSError as error:
            await turns(2)
            return failed_branch(error)
        return ()

    assert await asyncio.gather(ask("x"), ask("y")) == [("x",), ("y",)]


async def test_who_gets_an_error_that_a_select_of_another_task_raised_is_told_the_branch_of_that() -> None:
    error = OSError("no answer")
    with pytest.raises(OSError):
        await select(mine=fail(OSError("another one")), box=Box())
    with pytest.raises(OSError):
        await spawn(select(theirs=fail(error), box=Box()))
    assert failed_branch(error) == ("theirs",)
    assert failed_branch(pickle.loads(pickle.dumps(error))) == ("theirs",)


async def test_the_notes_of_selects_that_raise_one_error_do_not_pile_up() -> None:
    error = OSError("no answer")
    error.add_note("from the program")
    for number in range(3):
        with pytest.raises(OSError):
            await select({f"branch {number}": fail(error), "box": Box()})
    assert error.__notes__ == ["from the program", "raised by the branch 'branch 2' of a select"]


def test_a_forgotten_await_is_reported_by_the_name_of_select() -> None:
    with pytest.warns(RuntimeWarning, match="coroutine 'select' was never awaited"):
        select(box=Box())
        gc.collect()
    with pytest.warns(RuntimeWarning, match="coroutine 'select' was never awaited"):
        select(task_set())
        gc.collect()


async def test_a_branch_that_cannot_be_waited_for_leaves_the_others_untouched() -> None:
    box = Box()
    with pytest.raises(OSError):
        await select(box=box, bad=Broken(OSError(), at_once=True), work=never(), biased=True)
    assert box.waiters == []
    assert others() == set()


async def test_a_branch_that_cannot_be_waited_for_is_named() -> None:
    with pytest.raises(OSError) as caught:
        await select(box=Box(), bad=Broken(OSError(), at_once=True), biased=True)
    assert failed_branch(caught.value) == ("bad",)
    with pytest.raises(OverflowError) as caught_of_none:
        await select(box=Box(), timeout=10**400)
    assert failed_branch(caught_of_none.value) == ()


async def test_a_set_that_is_closed_meanwhile_is_an_error_of_its_branch() -> None:
    tasks = task_set(task=never())
    waiting = asyncio.create_task(select(tasks=tasks, box=Box()))
    await turns(2)
    await tasks.aclose()
    with pytest.raises(LookupError) as caught:
        await waiting
    assert failed_branch(caught.value) == ("tasks",)


@pytest.mark.parametrize("seconds", [0, -1, 0.001])
async def test_a_timeout_is_an_error_of_no_branch_and_takes_nothing(seconds: float) -> None:
    box, work = Box(), Box()
    with pytest.raises(TimeoutError) as caught:
        await select(box=box, other=work, loser=never(), timeout=seconds)
    assert failed_branch(caught.value) == ()
    assert (box.waiters, work.waiters) == ([], [])
    assert others() == set()
    assert await select(box=Box("item"), timeout=seconds) == ("box", "item")


async def test_a_timeout_of_nothing_does_not_wait() -> None:
    noted: list[str] = []
    asyncio.get_running_loop().call_soon(lambda: noted.append("a turn"))
    with pytest.raises(TimeoutError):
        await select(box=Box(), timeout=0)
    assert noted == []


async def test_a_timeout_leaves_no_timer() -> None:
    loop = asyncio.get_running_loop()
    box = Box()
    loop.call_soon(box.put, "item")
    assert await select(box=box, timeout=3600) == ("box", "item")
    assert [timer for timer in loop._scheduled if not timer.cancelled()] == []  # type: ignore[attr-defined]


@pytest.mark.parametrize("branch", [1, "text", Box, turns, asyncio.Event])
async def test_what_is_neither_is_refused_by_name_and_nothing_begins(branch: Any) -> None:
    async def begin() -> None:
        pytest.fail("began")

    box = Box("item")
    if branch is Box:
        branch = object()
    with pytest.raises(TypeError, match="'bad'"):
        await select(work=begin(), box=box, bad=branch, more=begin())
    with pytest.raises((TypeError, ValueError), match="timeout"):
        await select(work=begin(), box=box, timeout=float("nan"))
    with pytest.raises((TypeError, ValueError), match="timeout"):
        await select(work=begin(), box=box, timeout="1")  # type: ignore[call-overload]
    assert box.items == ["item"]


class Sink:
    """Has what a sender has."""

    def sending(self, item: Any) -> Any: ...


@pytest.mark.parametrize(
    ("branch", "advice"),
    [
        (CancellationToken, r"a class: make one, `CancellationToken\(\.\.\.\)`"),
        (asyncio.Event, r"a class: make one, `Event\(\.\.\.\)`"),
        (turns, "a function: call it"),
        (Sink(), r"to send: `tx\.sending\(item\)`"),
    ],
    ids=["selectable class", "class", "function", "sender"],
)
async def test_what_is_nearly_a_branch_is_refused_with_advice(branch: Any, advice: str) -> None:
    with pytest.raises(TypeError, match=f"branch 'bad' can neither be selected nor awaited .*{advice}"):
        select(bad=branch, work=never())
    with pytest.raises(TypeError, match=f"branch 'bad' can neither be selected nor awaited .*{advice}"):
        await asyncio.to_thread(blocking_select, bad=branch)


async def test_something_that_stands_for_a_branch_is_one() -> None:
    assert await select(box=weakref.proxy(box := Box("item"))) == ("box", "item")
    assert box.items == []


async def test_a_loop_that_never_takes_one_branch_does_not_pile_up_waiters() -> None:
    busy, idle = Box(*range(100)), Box()
    async with CompletionQueue[str, Any]() as queue:
        queue.add(never(), "never")
        token, ticks = CancellationToken(), interval_at(time() + 3600, 1)
        handle = spawn(never())
        branches = {"idle": idle, "queue": queue, "token": token, "ticks": ticks, "handle": handle, "busy": busy}
        for _ in range(100):
            assert (await select(branches, biased=True))[0] == "busy"
        assert idle.registered == 100
        assert idle.waiters == []
        assert len(queue._waiters) == len(token._waiters) == len(ticks._waiters) == 0
        handle.abort()


class LockedBox(Box):
    """A box that any thread may use."""

    def __init__(self) -> None:
        super().__init__()
        self.mutex = threading.RLock()

    def put(self, item: Any) -> None:
        with self.mutex:
            super().put(item)

    def register(self, waiter: Waiter[Any], /) -> None:
        with self.mutex:
            super().register(waiter)

    def withdraw(self, waiter: Waiter[Any], /) -> None:
        with self.mutex:
            super().withdraw(waiter)


def test_senders_in_threads_lose_nothing_to_claims_and_cancellations() -> None:
    count = 2000
    boxes = {"one": LockedBox(), "two": LockedBox()}
    seen: dict[str, list[int]] = {"one": [], "two": []}

    def send(box: Box) -> None:
        for number in range(count):
            box.put(number)

    async def take() -> None:
        while sum(map(len, seen.values())) < 2 * count:
            name, value = await select(boxes)
            seen[name].append(value)

    async def main() -> None:
        threads = [threading.Thread(target=send, args=[box]) for box in boxes.values()]
        for thread in threads:
            thread.start()
        task = asyncio.create_task(take())
        source = random.Random(3)
        while not task.done():
            await turns(source.randrange(20))
            if task.done():
                break
            task.cancel()
            await asyncio.wait([task])
            if task.cancelled():
                task = asyncio.create_task(take())
        await task
        for thread in threads:
            thread.join()

    interval_before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        asyncio.run(main())
    finally:
        sys.setswitchinterval(interval_before)
    assert seen == {"one": list(range(count)), "two": list(range(count))}
    assert [box.waiters for box in boxes.values()] == [[], []]


async def test_nothing_of_a_select_is_kept() -> None:
    class Value:
        pass

    box = Box(Value())
    await select(box=box, other=Box())
    gc.collect()
    assert [thing for thing in gc.get_objects() if isinstance(thing, Value)] == []


@pytest.mark.parametrize("kind", ["selectable", "coroutine", "set", "named set"])
async def test_an_error_is_in_no_circle_with_the_select_that_raised_it(kind: str) -> None:
    class Failure(Exception):
        pass

    async def fail() -> None:  # with an error that it does not know itself, nor who starts it
        await yield_now()
        raise Failure

    async def one_round() -> weakref.ref[Failure]:
        tasks = task_set(work=fail()) if "set" in kind else None
        try:
            if kind == "selectable":
                await select(bad=Broken(Failure()), box=Box())
            elif kind == "coroutine":
                await select(bad=fail(), box=Box())
            elif kind == "set" and tasks is not None:
                await select(tasks)
            else:
                await select(tasks=tasks, box=Box())
        except Failure as error:
            return weakref.ref(error)
        finally:
            del tasks
        raise AssertionError("nothing was raised")

    gc.disable()
    try:
        assert (await one_round())() is None
    finally:
        gc.enable()


async def test_what_is_ready_needs_no_future(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[TaskWaiter[Any]] = []
    monkeypatch.setattr(TaskWaiter, "future", property(asked.append))
    assert await select(empty=Box(), full=Box("item"), biased=True) == ("full", "item")
    assert asked == []


async def test_an_item_that_comes_while_the_rest_is_registered_is_seen() -> None:
    """By somebody else than the branch that is being registered: a finalizer, say, or the clean-up of a coroutine."""

    class Disturbing(Box):
        def register(self, waiter: Waiter[Any], /) -> None:
            super().register(waiter)
            one.put("item")

    one, two = Box(), Disturbing()
    assert await select(one=one, two=two, biased=True) == ("one", "item")
    assert (one.items, one.waiters, two.waiters) == ([], [], [])
