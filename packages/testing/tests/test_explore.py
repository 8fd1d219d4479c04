"""The schedule explorer: what it runs, what it finds, and how it tells."""

from __future__ import annotations

import asyncio
import contextvars
import random
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from yamanote.runtime import random_source, spawn_blocking
from yamanote.testing import (
    PCT,
    Counterexample,
    Exhaustive,
    Fifo,
    LeftBehind,
    NotRepeatable,
    RandomOrder,
    Strategy,
    Unhandled,
    explore,
    replay,
)
from yamanote.time import DeadlockError

# ---------------------------------------------------------------- planted bugs


async def lost_wakeup() -> None:
    """A waiter that looks, lets others run, and only then says that it waits."""
    waiting: list[asyncio.Future[None]] = []
    done = False

    async def wait() -> None:
        if not done:
            future = asyncio.get_running_loop().create_future()
            await asyncio.sleep(0)
            waiting.append(future)
            await future

    async def notify() -> None:
        nonlocal done
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        done = True
        for future in waiting:
            future.set_result(None)

    await asyncio.gather(wait(), notify())


async def lost_item() -> None:
    """A mailbox for one item that two post to without looking again."""
    box: list[int] = []
    received: list[int] = []

    async def post(item: int) -> None:
        while box:
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        box[:] = [item]

    async def collect() -> None:
        for _ in range(40):
            received.extend(box)
            box.clear()
            await asyncio.sleep(0)

    await asyncio.gather(post(1), collect(), post(2))
    assert {1, 2} == set(received), received


async def deadlock() -> None:
    """Two locks, taken in two orders."""
    left, right = asyncio.Lock(), asyncio.Lock()

    async def take(first: asyncio.Lock, second: asyncio.Lock, pause: int) -> None:
        for _ in range(pause):
            await asyncio.sleep(0)
        async with first:
            await asyncio.sleep(0)
            async with second:
                await asyncio.sleep(0)

    await asyncio.gather(take(left, right, 0), take(right, left, 2))


PLANTED: list[tuple[Callable[[], Awaitable[None]], type[BaseException]]] = [
    (lost_wakeup, DeadlockError),
    (lost_item, AssertionError),
    (deadlock, DeadlockError),
]
planted = pytest.mark.parametrize(("scenario", "kind"), PLANTED, ids=[scenario.__name__ for scenario, _ in PLANTED])


def counterexample(scenario: Callable[[], Awaitable[object]], **options: Any) -> Counterexample:
    with pytest.raises(Counterexample) as caught:
        explore(scenario, **options)
    return caught.value


@planted
def test_first_in_first_out_does_not_show_a_planted_bug(
    scenario: Callable[[], Awaitable[None]], kind: type[BaseException]
) -> None:
    asyncio.run(scenario())  # type: ignore[arg-type]
    explore(scenario, strategies=[Fifo()])


@planted
@pytest.mark.parametrize("strategy", [Exhaustive(2), PCT(3), RandomOrder()], ids=["exhaustive", "PCT", "random"])
def test_each_strategy_finds_a_planted_bug(
    scenario: Callable[[], Awaitable[None]], kind: type[BaseException], strategy: Strategy
) -> None:
    found = counterexample(scenario, strategies=[strategy], runs=500)

    assert isinstance(found.__cause__, kind)
    assert type(strategy).__name__ in str(found)
    assert f"--replay={found.token}" in str(found)


@planted
def test_a_planted_bug_is_replayed_from_its_token_in_another_process(
    scenario: Callable[[], Awaitable[None]], kind: type[BaseException]
) -> None:
    found = counterexample(scenario)
    program = f"""
import importlib.util, sys
from yamanote.testing import Counterexample, replay
spec = importlib.util.spec_from_file_location("scenarios", {str(Path(__file__))!r})
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
try:
    replay(module.{scenario.__name__}, {found.token!r})
except Counterexample as again:
    print(type(again.__cause__).__name__, *again.trace)
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert " ".join([type(found.__cause__).__name__, *found.trace]) == result.stdout.strip()


@planted
def test_a_counterexample_is_made_short(scenario: Callable[[], Awaitable[None]], kind: type[BaseException]) -> None:
    tokens = [counterexample(scenario, strategies=[RandomOrder()], runs=500, seed=seed).token for seed in range(5)]

    assert all(3 >= len(token.split(",")) for token in tokens), tokens


def test_a_dead_lock_is_told_with_what_each_task_waits_for() -> None:
    found = counterexample(deadlock)

    told = str(found.__cause__)

    assert "'take#1' waits for <asyncio.locks.Lock" in told
    assert "'take#2' waits for <asyncio.locks.Lock" in told
    assert f"{Path(__file__)}:" in told


def test_the_message_names_the_step_that_ran_out_of_turn() -> None:
    async def load_and_use() -> None:
        settings: dict[str, int] = {}

        async def load() -> None:
            settings["port"] = 8080

        async def use() -> int:
            return settings["port"]

        await asyncio.gather(load(), use())

    found = counterexample(load_and_use)

    assert "0:1" == found.token
    assert str(found).startswith("KeyError: 'port'")
    assert "step 1: use#2 before load#1" in str(found)
    assert ("load_and_use#0", "use#2") == found.trace[:2]


# ---------------------------------------------------------------- what else is a failure


def test_a_scenario_that_ends_before_its_tasks_fails() -> None:
    async def forgetful() -> None:
        tasks.append(asyncio.create_task(asyncio.sleep(10), name="forgotten"))

    tasks: list[asyncio.Task[None]] = []
    found = counterexample(forgetful)

    assert isinstance(found.__cause__, LeftBehind)
    assert "forgotten#1" in str(found)
    assert all(task.cancelled() for task in tasks)


def test_a_task_that_has_nothing_more_to_wait_for_is_not_left_behind() -> None:
    async def scenario() -> None:
        done = asyncio.Event()

        async def work() -> None:
            done.set()
            await asyncio.sleep(0)

        task = asyncio.create_task(work())
        await done.wait()
        del task

    explore(scenario)


def test_an_error_that_nobody_awaited_fails() -> None:
    async def careless() -> None:
        async def fail() -> None:
            raise OSError("nobody looks")

        await asyncio.wait([asyncio.create_task(fail())])

    found = counterexample(careless)

    assert isinstance(found.__cause__, Unhandled)
    assert isinstance(found.__cause__.__cause__, OSError)


def test_an_error_that_only_the_garbage_collector_brings_up_fails() -> None:
    async def careless() -> None:
        async def fail(cycle: list[object]) -> None:
            cycle.append(asyncio.current_task())
            raise OSError("nobody looks")

        cycle: list[object] = []
        cycle.append(cycle)
        await asyncio.wait([asyncio.create_task(fail(cycle))])

    assert isinstance(counterexample(careless).__cause__, Unhandled)


def test_a_scenario_without_end_fails() -> None:
    async def endless() -> None:
        while True:
            await asyncio.sleep(0)

    found = counterexample(endless)

    assert "not ended after 10000 steps" in str(found)


def test_a_stubborn_task_does_not_hold_up_the_explorer() -> None:
    async def stubborn() -> None:
        async def stay() -> None:
            while True:
                try:
                    await asyncio.get_running_loop().create_future()
                except asyncio.CancelledError:
                    pass

        await asyncio.create_task(stay())

    assert isinstance(counterexample(stubborn).__cause__, DeadlockError)


def test_an_interrupt_ends_the_exploration() -> None:
    async def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        explore(interrupted)


# ---------------------------------------------------------------- determinism


def test_the_same_seed_makes_the_same_runs() -> None:
    async def scenario() -> None:
        order: list[int] = []

        async def work(number: int) -> None:
            for _ in range(3):
                await asyncio.sleep(0)
                order.append(number)

        await asyncio.gather(*map(work, range(3)))
        seen.append(tuple(order))

    runs = []
    for seed in (1, 1, 2):
        seen: list[tuple[int, ...]] = []
        explore(scenario, strategies=[RandomOrder()], runs=50, seed=seed)
        runs.append(seen)

    assert runs[0] == runs[1]
    assert runs[0] != runs[2]
    assert 40 < len(set(runs[0]))


def test_random_choices_of_a_scenario_repeat_and_those_of_the_program_around_it_go_on() -> None:
    async def scenario() -> None:
        drawn.append((random.random(), random_source().random()))

    drawn: list[tuple[float, float]] = []
    source = random_source()
    random.seed(7)
    expected = random.random()
    random.seed(7)
    explore(scenario, runs=3, strategies=[RandomOrder()])

    assert 1 == len(set(drawn))
    assert expected == random.random()
    assert source is random_source()


def test_a_scenario_that_does_not_repeat_itself_is_told_so() -> None:
    async def scenario() -> None:
        runs.append(None)
        for _ in range(len(runs)):
            await asyncio.sleep(0)

    runs: list[None] = []
    with pytest.raises(NotRepeatable, match=r"step 2 ran 'callbacks' once and 'scenario#0' the next time"):
        explore(scenario)


def test_a_failure_that_does_not_come_back_is_no_counterexample() -> None:
    async def scenario() -> None:
        runs.append(None)
        assert len(runs) != 4

    runs: list[None] = []
    with pytest.raises(NotRepeatable, match="ended with AssertionError"):
        explore(scenario, strategies=[RandomOrder()])


def test_context_variables_of_a_run_stay_in_it() -> None:
    variable = contextvars.ContextVar("variable", default=0)

    async def scenario() -> None:
        assert 0 == variable.get()
        variable.set(1)

    explore(scenario, runs=3)

    assert 0 == variable.get()


# ---------------------------------------------------------------- what the loop keeps, and what it shuffles


def test_time_stands_still_while_anything_is_ready_and_then_jumps() -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        start = loop.time()

        async def busy() -> float:
            for _ in range(20):
                await asyncio.sleep(0)
            return loop.time()

        moments = await asyncio.gather(busy(), asyncio.sleep(365 * 86400.0), busy())

        assert [start, start] == moments[::2]
        assert start + 365 * 86400 == loop.time()

    explore(scenario, runs=30)


def test_timers_that_are_due_at_once_come_in_any_order_and_others_in_theirs() -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        order: list[str] = []
        for name, delay in [("a", 1), ("b", 1), ("c", 2)]:
            loop.call_later(delay, order.append, name)
        await asyncio.sleep(3)
        seen.add("".join(order))

    seen: set[str] = set()
    explore(scenario)

    assert {"abc", "bac"} == seen


def test_plain_callbacks_keep_their_order() -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        order: list[int] = []
        for number in range(4):
            loop.call_soon(order.append, number)
        task = asyncio.create_task(asyncio.sleep(0))
        while len(order) < 4:
            await asyncio.sleep(0)
        await task

        assert [0, 1, 2, 3] == order

    explore(scenario)


def test_ready_tasks_run_in_every_order() -> None:
    async def scenario() -> None:
        order: list[int] = []

        async def work(number: int) -> None:
            order.append(number)

        await asyncio.gather(*map(work, range(3)))
        seen.add(tuple(order))

    seen: set[tuple[int, ...]] = set()
    result = explore(scenario)

    assert 6 == len(seen)
    assert result.exhausted


def test_it_ends_early_when_every_order_was_tried() -> None:
    async def scenario() -> None:
        await asyncio.gather(asyncio.sleep(0), asyncio.sleep(0))

    bounded = explore(scenario, strategies=[Exhaustive(2)], runs=1000)
    complete = explore(scenario, strategies=[Exhaustive(9), RandomOrder()], runs=1000)

    assert bounded.exhausted and complete.exhausted
    assert bounded.runs < complete.runs < 1000


def test_a_deadline_and_the_end_of_the_work_in_the_same_moment_come_in_both_orders() -> None:
    async def scenario() -> None:
        try:
            async with asyncio.timeout(1):
                await asyncio.sleep(1)
        except TimeoutError:
            outcomes.add("timeout")
        else:
            outcomes.add("done")

    outcomes: set[str] = set()
    explore(scenario)

    assert {"timeout", "done"} == outcomes


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with Python 3.12")
def test_eager_tasks_are_explored_too() -> None:
    async def scenario() -> None:
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
        order: list[int] = []

        async def work(number: int) -> None:
            await asyncio.sleep(0)
            order.append(number)

        await asyncio.gather(*[asyncio.create_task(work(number)) for number in range(3)])
        seen.add(tuple(order))

    seen: set[tuple[int, ...]] = set()
    explore(scenario)

    assert 6 == len(seen)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with Python 3.12")
def test_eager_tasks_are_numbered_in_the_order_in_which_they_were_made() -> None:
    async def scenario() -> None:
        slow = asyncio.create_task(asyncio.sleep(1))

        async def wait() -> None:
            await slow

        loop = asyncio.get_running_loop()
        # As asyncio names them: "Task-10" would come before "Task-9" in the alphabet, and so after it in other runs.
        tasks = [asyncio.Task(wait(), loop=loop, name=f"Task-{n}", eager_start=True) for n in (9, 10)]
        await asyncio.gather(*tasks)
        names.append([task.get_name() for task in tasks])

    names: list[list[str]] = []
    explore(scenario, strategies=[Fifo()])

    assert ["wait#2", "wait#3"] == names[0]


# ---------------------------------------------------------------- what is refused


def test_a_thread_that_calls_in_is_refused() -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        future = loop.create_future()

        def call_in() -> None:
            try:
                loop.call_soon_threadsafe(future.set_result, None)
            except RuntimeError as error:
                refused.append(error)

        thread = threading.Thread(target=call_in)
        thread.start()
        thread.join()
        await future

    refused: list[RuntimeError] = []
    found = counterexample(scenario)

    assert isinstance(found.__cause__, RuntimeError)
    assert "another thread called into the loop" in str(found)
    assert refused


def test_a_call_that_goes_on_in_a_worker_thread_is_refused() -> None:
    async def scenario() -> None:
        await spawn_blocking(go_on.wait)

    go_on = threading.Event()
    try:
        with pytest.raises((Counterexample, NotRepeatable), match="do without them"):
            explore(scenario)
    finally:
        go_on.set()


@pytest.mark.parametrize(
    "reach",
    [
        lambda: asyncio.to_thread(print),
        lambda: asyncio.open_connection("localhost", 1),
        lambda: asyncio.start_server(lambda reader, writer: None, "localhost", 0),
        lambda: asyncio.create_subprocess_exec("true"),
        lambda: asyncio.get_running_loop().getaddrinfo("localhost", 1),
    ],
    ids=["to_thread", "open_connection", "start_server", "subprocess", "getaddrinfo"],
)
def test_what_reaches_outside_is_refused_with_advice(reach: Callable[[], Awaitable[object]]) -> None:
    async def scenario() -> None:
        await reach()

    assert "reaches outside of the program" in str(counterexample(scenario))


async def test_it_cannot_be_called_where_a_loop_runs() -> None:
    async def scenario() -> None: ...

    with pytest.raises(RuntimeError, match="plain function"):
        explore(scenario)
    with pytest.raises(RuntimeError, match="plain function"):
        replay(scenario, "fifo")


@pytest.mark.parametrize("scenario", [None, lambda: 3], ids=["None", "a plain function"])
def test_what_is_no_scenario_is_refused(scenario: Any) -> None:
    with pytest.raises(TypeError, match="scenario"):
        explore(scenario)


@pytest.mark.parametrize("runs", [0, -1, 1.5])
def test_nonsense_numbers_of_runs_are_refused(runs: Any) -> None:
    async def scenario() -> None: ...

    with pytest.raises(ValueError, match="runs"):
        explore(scenario, runs=runs)


def test_a_replay_of_a_mended_scenario_passes() -> None:
    async def scenario() -> None:
        await asyncio.gather(asyncio.sleep(0), asyncio.sleep(0))

    replay(scenario, "0:1,3:1")
    with pytest.raises(ValueError, match="token"):
        replay(scenario, "nonsense")
