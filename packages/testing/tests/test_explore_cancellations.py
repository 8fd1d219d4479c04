"""The cancellation explorer: where it cancels, what it finds, and how it tells."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from yamanote.testing import CancellationExploration, Counterexample, explore_cancellations, replay

# ---------------------------------------------------------------- planted bugs


class Mailbox:
    """Hands items to parked receivers; what it gets wrong is up to its subclasses."""

    def __init__(self) -> None:
        self.items: deque[int] = deque()
        self.parked: deque[asyncio.Future[int]] = deque()

    def put(self, item: int) -> None:
        self.items.append(item)
        self.serve()

    def serve(self) -> None:
        while self.items and self.parked:
            future = self.parked.popleft()
            if not future.done():
                future.set_result(self.items.popleft())

    async def get(self) -> int:
        future = asyncio.get_running_loop().create_future()
        self.parked.append(future)
        self.serve()
        try:
            return await future
        except asyncio.CancelledError:
            self.give_back(future)
            raise

    def give_back(self, future: asyncio.Future[int]) -> None:
        if future.done() and not future.cancelled():
            self.items.appendleft(future.result())
            self.serve()


class LosesTheItem(Mailbox):
    """What was handed over to a receiver that is cancelled is gone."""

    def give_back(self, future: asyncio.Future[int]) -> None: ...


class ForgetsTheNext(Mailbox):
    """The item comes back, but whoever waits for it is not woken."""

    def give_back(self, future: asyncio.Future[int]) -> None:
        if future.done() and not future.cancelled():
            self.items.appendleft(future.result())


async def use(mailbox: Mailbox) -> tuple[list[int], int]:
    """Three want to receive what one sends. Returns what is there afterwards, and how many wait although there is."""
    received: list[int] = []

    async def receive(seconds: int) -> None:
        if seconds:
            await asyncio.sleep(seconds)
        received.append(await mailbox.get())

    async def send() -> None:
        await asyncio.sleep(3)
        for item in range(2):
            mailbox.put(item)

    receivers = [asyncio.create_task(receive(seconds)) for seconds in range(3)]
    sender = asyncio.create_task(send())
    await asyncio.wait([sender])
    await asyncio.sleep(1)
    stuck = sum(not receiver.done() for receiver in receivers) if mailbox.items else 0
    for receiver in receivers:
        receiver.cancel()
    await asyncio.wait(receivers)
    return sorted([*received, *mailbox.items]), stuck


def nothing_is_lost(result: tuple[list[int], int]) -> None:
    there, stuck = result
    assert there in ([], [0, 1]), f"only {there} is there"  # nothing, if the sender was cancelled
    assert not stuck, f"{stuck} wait although there is something"


def found(
    scenario: Callable[[], Awaitable[Any]], invariant: Callable[[Any], object] | None = None, **options: Any
) -> Counterexample:
    with pytest.raises(Counterexample) as caught:
        explore_cancellations(scenario, invariant, **options)
    return caught.value


def test_what_is_right_passes() -> None:
    result = explore_cancellations(lambda: use(Mailbox()), nothing_is_lost)

    assert result.exhausted
    assert result.points > 8


def test_a_lost_item_is_found_and_told_with_task_await_point_file_and_line() -> None:
    error = found(lambda: use(LosesTheItem()), nothing_is_lost)
    here = Path(__file__)
    line = here.read_text("utf-8").splitlines().index("            return await future") + 1

    assert isinstance(error.__cause__, AssertionError)
    assert str(error).startswith("AssertionError: only [1] is there")
    assert "receive#1 cancelled at its await point 1, woken, but not yet running again" in str(error)
    assert f"{here}:{line} in Mailbox.get" in str(error)
    assert error.token.endswith("1@1w")


def test_a_wake_up_that_is_not_forwarded_is_found() -> None:
    assert "1 wait although" in str(found(lambda: use(ForgetsTheNext()), nothing_is_lost))


class ForgetsWhoIsBehind(Mailbox):
    """Whoever gives up takes all with it who have parked since."""

    def give_back(self, future: asyncio.Future[int]) -> None:
        super().give_back(future)
        if future.cancelled():
            while self.parked and self.parked.pop() is not future:
                pass


def test_those_who_queued_up_behind_a_cancelled_waiter_are_not_forgotten() -> None:
    error = found(lambda: use(ForgetsWhoIsBehind()), nothing_is_lost)

    assert "while everybody waits" in str(error)
    assert error.token.endswith("@1i3")


def test_the_token_repeats_the_cancellation_and_its_failure() -> None:
    error = found(lambda: use(LosesTheItem()), nothing_is_lost)

    with pytest.raises(Counterexample) as again:
        replay(lambda: use(LosesTheItem()), error.token, invariant=nothing_is_lost)
    assert error.trace == again.value.trace
    assert error.token == again.value.token
    replay(lambda: use(Mailbox()), error.token, invariant=nothing_is_lost)


def test_a_failure_that_needs_two_cancellations_is_found() -> None:
    async def scenario() -> None:
        lock = asyncio.Lock()

        async def work() -> None:
            await lock.acquire()
            try:
                await asyncio.sleep(1)
            except asyncio.CancelledError:
                await asyncio.sleep(1)  # a second cancellation finds the way out from here
            lock.release()

        await asyncio.wait([asyncio.create_task(work())])
        assert not lock.locked()

    error = found(scenario)

    assert isinstance(error.__cause__, AssertionError)
    assert 2 == str(error).count("cancelled at its await point")


# ---------------------------------------------------------------- where it cancels


def cancelled_at(scenario: Callable[[list[str]], Awaitable[None]], **options: Any) -> set[str]:
    """What a scenario, which writes it down, saw of cancellations."""
    seen: set[str] = set()

    async def run() -> None:
        notes: list[str] = []
        await scenario(notes)
        seen.update(notes)

    explore_cancellations(run, **options)
    return seen


def test_each_await_point_is_tried_before_and_after_the_wake_up_and_the_time_before_the_first_step() -> None:
    async def scenario(notes: list[str]) -> None:
        loop = asyncio.get_running_loop()
        first, second = loop.create_future(), loop.create_future()

        async def work() -> None:
            where = "nowhere"
            try:
                for where, future in [("first", first), ("second", second)]:
                    await future
                    where = "done"
                notes.append("finished")
            except asyncio.CancelledError:
                notes.append(f"{where}, {'woken' if future.done() and not future.cancelled() else 'waiting'}")
                raise

        task = asyncio.create_task(work())
        loop.call_later(1, first.set_result, None)
        loop.call_later(2, lambda: second.done() or second.set_result(None))
        first.add_done_callback(lambda _: None)
        try:
            await asyncio.wait([task])
        finally:
            if task.cancelled() and not notes:
                notes.append("not begun")
            for future in (first, second):
                future.cancel()

    # A timer that finds its future cancelled is the scenario's own affair: it says so to nobody here.
    seen = cancelled_at(tolerant(scenario))

    assert {
        "not begun",
        "first, waiting",
        "first, woken",
        "second, waiting",
        "second, woken",
        "finished",
    } == seen


def tolerant(scenario: Callable[[list[str]], Awaitable[None]]) -> Callable[[list[str]], Awaitable[None]]:
    async def run(notes: list[str]) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
        await scenario(notes)

    return run


def test_the_task_that_runs_the_scenario_is_never_cancelled() -> None:
    async def scenario() -> None:
        for _ in range(3):
            await asyncio.sleep(1)
        completed.append(None)

    completed: list[None] = []
    result = explore_cancellations(scenario)

    assert result.points == 0
    assert result.runs == len(completed)


def test_all_points_of_one_order_are_tried_and_then_those_of_others() -> None:
    async def scenario() -> None:
        order: list[int] = []

        async def work(number: int) -> None:
            await asyncio.sleep(0)
            order.append(number)

        await asyncio.wait([asyncio.create_task(work(number)) for number in range(3)])
        seen.add(tuple(order))

    seen: set[tuple[int, ...]] = set()
    explore_cancellations(scenario)

    assert {(0,), (0, 1, 2), (2, 1, 0), (1, 2)} <= seen


def test_cancelling_counts_that_stay_unbalanced_can_be_seen() -> None:
    async def scenario() -> None:
        async def swallow() -> int:
            try:
                await asyncio.sleep(1)
            except asyncio.CancelledError:
                pass
            task = asyncio.current_task()
            return task.cancelling() if task else -1

        task = asyncio.create_task(swallow())
        await asyncio.wait([task])
        assert task.cancelled() or task.result() == 0

    assert "1@1" == found(scenario).token


def test_a_scenario_that_fails_by_itself_is_told_so() -> None:
    async def scenario() -> None:
        raise ValueError("no cancellation is needed")

    error = found(scenario)

    assert "fifo" == error.token
    assert isinstance(error.__cause__, ValueError)


def test_a_budget_of_runs_is_kept() -> None:
    result = explore_cancellations(lambda: use(Mailbox()), nothing_is_lost, runs=7)

    assert CancellationExploration(runs=7, points=result.points, exhausted=False) == result


@pytest.mark.parametrize("runs", [0, -1, 1.5])
def test_nonsense_numbers_of_runs_are_refused(runs: Any) -> None:
    with pytest.raises(ValueError, match="runs"):
        explore_cancellations(lambda: use(Mailbox()), runs=runs)


async def test_it_cannot_be_called_where_a_loop_runs() -> None:
    with pytest.raises(RuntimeError, match="plain function"):
        explore_cancellations(lambda: use(Mailbox()))
