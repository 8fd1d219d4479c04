"""Single flight: one run per key, for all who ask meanwhile, and nothing afterwards."""

from __future__ import annotations

import asyncio
import gc
import inspect
import sys
import threading
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from yamanote.futures import SingleFlight, gather, pending, single_flight
from yamanote.runtime import JoinError, move_on_after, remaining, spawn_blocking, start_task, yield_now


class Calls(list[Any]):
    """An async function that notes its calls, and takes until it is let go."""

    def __init__(self, error: Exception | None = None) -> None:
        self.go = asyncio.Event()
        self.error = error
        self.cancelled = 0

    async def __call__(self, key: Any, **options: Any) -> str:
        self.append(key)
        number = len(self)
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            await turns(2)
            self.cancelled += 1
            raise
        if self.error is not None:
            raise self.error
        return f"{key}{number}"


def flying(calls: Calls) -> Any:
    @single_flight
    async def function(*args: Any, **options: Any) -> str:
        return await calls(*args, **options)

    return function


async def turns(count: int) -> None:
    for _ in range(count):
        await yield_now()


def left_of(function: Any) -> int:
    return len(function._flights)


async def test_calls_with_one_key_share_one_run_and_others_have_their_own() -> None:
    calls = Calls()
    function = flying(calls)
    tasks = [start_task(function(key)) for key in "aab"]
    await turns(3)
    assert calls == ["a", "b"] and left_of(function) == 2
    calls.go.set()
    assert [await task for task in tasks] == ["a1", "a1", "b2"]


async def test_nothing_is_kept_when_it_has_ended() -> None:
    calls = Calls()
    calls.go.set()
    function = flying(calls)
    assert [await function("a"), await function("a")] == ["a1", "a2"]
    assert left_of(function) == 0


async def test_who_asks_right_behind_the_end_begins_anew() -> None:
    calls = Calls()
    function = flying(calls)
    first = start_task(function("a"))
    await turns(3)
    second: list[asyncio.Task[str]] = []
    calls.go.set()
    # Behind the last step of the run, and before those who wait for it hear of its end.
    asyncio.get_running_loop().call_soon(lambda: second.append(start_task(function("a"), eager=True)))
    assert await first == "a1"
    assert await second[0] == "a2" and left_of(function) == 0


async def test_all_who_wait_get_the_error_and_the_next_one_calls_again() -> None:
    calls = Calls(OSError("no answer"))
    function = flying(calls)
    tasks = [start_task(function("a")) for _ in range(3)]
    await turns(3)
    calls.go.set()
    await asyncio.wait(tasks)
    assert [task.exception() for task in tasks] == [calls.error] * 3 and len(calls) == 1
    assert left_of(function) == 0  # although the error is still here
    calls.error = None
    assert await function("a") == "a2" and left_of(function) == 0


async def test_cancelling_one_who_waits_leaves_the_run_to_the_others() -> None:
    calls = Calls()
    function = flying(calls)
    first, second = start_task(function("a")), start_task(function("a"))
    await turns(3)
    first.cancel()
    await asyncio.wait([first])
    assert first.cancelled() and not calls.cancelled
    calls.go.set()
    assert await second == "a1" and left_of(function) == 0


async def test_with_the_last_who_waits_the_run_is_cancelled_and_has_ended_when_that_is_raised() -> None:
    calls = Calls()
    function = flying(calls)
    with move_on_after(0) as scope:
        await gather(function("a"), function("a"))
    assert scope.cancelled_caught and calls.cancelled == len(calls) == 1
    assert left_of(function) == 0 and len(asyncio.all_tasks()) == 1


async def test_who_asks_while_an_abandoned_run_ends_begins_anew() -> None:
    calls = Calls()
    function = flying(calls)
    first = start_task(function("a"))
    await turns(3)
    first.cancel()
    await turns(1)
    calls.go.set()
    assert await function("a") == "a2"
    await asyncio.wait([first])
    assert first.cancelled() and calls.cancelled == 1 and left_of(function) == 0


class Door:
    """A lock behind which something else happens, once, before who held it goes on."""

    def __init__(self, lock: Any, happen: Callable[[], None]) -> None:
        self.lock = lock
        self.happen: Callable[[], None] | None = happen

    def __enter__(self) -> None:
        self.lock.__enter__()

    def __exit__(self, *error: object) -> None:
        self.lock.__exit__(*error)
        happen, self.happen = self.happen, None
        if happen is not None:
            happen()


@pytest.mark.parametrize("begun", [True, False], ids=["the run of the other", "a run that it begins"])
async def test_who_has_found_a_run_gets_its_value_although_another_leaves_before_it_waits(begun: bool) -> None:
    flights: SingleFlight[str, str] = SingleFlight()
    calls = Calls()
    calls.go.set()
    other: Any = flights.run("a", partial(calls, "a"))
    if begun:
        other.send(None)

    def leave() -> None:
        if not begun:
            other.send(None)
        other.close()

    flights._lock = Door(flights._lock, leave)  # type: ignore[assignment]
    assert await flights.run("a", partial(calls, "a")) == "a1"
    assert not len(flights) and len(calls) == 1


async def test_the_limits_of_who_began_it_do_not_bind_the_run() -> None:
    calls = Calls()

    @single_flight
    async def fetch() -> float | None:
        left = remaining()
        await calls.go.wait()
        return left

    async def in_a_hurry() -> None:
        with move_on_after(0.001):
            await fetch()

    hurried = start_task(in_a_hurry())
    await turns(2)
    patient = start_task(fetch())
    await hurried
    calls.go.set()
    assert await patient is None


async def test_what_begins_anew_is_what_the_new_caller_brought() -> None:
    flights: SingleFlight[str, str] = SingleFlight()
    calls = Calls()
    first = start_task(flights.run("a", partial(calls, "first")))
    await turns(3)
    first.cancel()
    await turns(1)
    calls.go.set()
    assert await flights.run("a", partial(calls, "second")) == "second2"
    await asyncio.wait([first])
    assert calls == ["first", "second"] and calls.cancelled == 1


async def test_a_run_that_somebody_else_cancels_is_a_join_error_for_who_waits() -> None:
    @single_flight
    async def function() -> None:
        asyncio.current_task().cancel()  # type: ignore[union-attr]
        await pending()

    with pytest.raises(JoinError, match="function was cancelled"):
        await function()
    assert left_of(function) == 0


async def test_who_asks_after_a_forget_begins_anew_and_who_waits_gets_what_it_waits_for() -> None:
    calls = Calls()
    function = flying(calls)
    first = start_task(function("a", b=1))
    await turns(3)
    assert not function.forget("a") and not function.forget("b")
    assert function.forget("a", b=1) and not function.forget("a", b=1)
    second = start_task(function("a", b=1))
    third = start_task(function("a", b=1))
    await turns(3)
    assert calls == ["a", "a"] and left_of(function) == 1
    calls.go.set()
    assert [await first, await second, await third] == ["a1", "a2", "a2"]
    assert left_of(function) == 0


async def test_a_run_that_asks_for_its_own_key_is_told_so() -> None:
    @single_flight
    async def resolve(name: str) -> list[str]:
        return [name, *await resolve(needs[name])] if name in needs else [name]

    needs = {"a": "b", "b": "c"}
    assert await resolve("a") == ["a", "b", "c"]
    needs["c"] = "a"
    with pytest.raises(RuntimeError, match=r"resolve .* would wait for its own end"):
        await resolve("a")
    assert left_of(resolve) == 0


async def test_a_run_that_asks_for_its_own_key_in_other_tasks_can_be_cancelled() -> None:
    @single_flight
    async def function() -> None:
        await asyncio.gather(function())

    with move_on_after(0.001) as scope:
        await function()
    assert scope.cancelled_caught and left_of(function) == 0 and len(asyncio.all_tasks()) == 1


async def test_each_instance_has_runs_of_its_own_and_need_not_be_hashable() -> None:
    class Client:
        __hash__ = None  # type: ignore[assignment]

        def __init__(self, name: str) -> None:
            self.name = name

        def __eq__(self, other: object) -> bool:
            return True

        @single_flight
        async def fetch(self, page: int) -> str:
            """Of one client."""
            calls.append(page)
            await yield_now()
            return f"{self.name}{page}"

    calls: list[int] = []
    a, b = Client("a"), Client("b")
    assert await gather(a.fetch(1), a.fetch(1), b.fetch(1), a.fetch(page=1)) == ["a1", "a1", "b1", "a1"]
    assert calls == [1, 1, 1]
    task = start_task(a.fetch(3))
    await turns(1)
    assert not b.fetch.forget(3) and a.fetch.forget(3)
    assert await task == "a3"
    gone = weakref.ref(a)
    del a, task
    gc.collect()
    assert gone() is None


async def test_it_keeps_the_face_of_the_function() -> None:
    @single_flight
    async def double(number: int) -> int:
        """Twice."""
        return number * 2

    assert (double.__name__, double.__doc__) == ("double", "Twice.")  # type: ignore[attr-defined]
    assert str(inspect.signature(double)) == "(number: 'int') -> 'int'"
    assert await double.__wrapped__(3) == 6
    assert "single_flight of <function" in repr(double) and "double" in repr(double)
    if sys.version_info >= (3, 12):
        assert inspect.iscoroutinefunction(double)


async def test_any_key_will_do_and_any_factory() -> None:
    flights: SingleFlight[str, int] = SingleFlight()
    assert [await flights.run("a", lambda: 1), await flights.run("a", partial(int, "2"))] == [1, 2]
    calls = Calls()
    flights_of_calls: SingleFlight[int, str] = SingleFlight()
    tasks = [start_task(flights_of_calls.run(key, partial(calls, [key]))) for key in (1, 1, 2)]
    await turns(3)
    assert calls == [[1], [2]] and len(flights_of_calls) == 2 and "2 in progress" in repr(flights_of_calls)
    assert flights_of_calls.forget(1) and not flights_of_calls.forget(1)
    calls.go.set()
    assert [await task for task in tasks] == ["[1]1", "[1]1", "[2]2"] and not len(flights_of_calls)


async def test_a_factory_that_is_none_is_refused_and_a_coroutine_closed_also_where_a_run_would_be_joined() -> None:
    flights: SingleFlight[str, str] = SingleFlight()
    calls = Calls()
    running = start_task(flights.run("a", partial(calls, "a")))
    await turns(2)
    coroutine: Any = calls("a")
    for nonsense in coroutine, None, "a":
        with pytest.raises(TypeError, match="factory must be a function without arguments"):
            await flights.run("a", nonsense)
    assert coroutine.cr_frame is None
    calls.go.set()
    assert await running == "a1"


async def test_keys_that_cannot_be_hashed_are_refused() -> None:
    function = flying(Calls())
    with pytest.raises(TypeError, match="unhashable"):
        await function([])
    with pytest.raises(TypeError, match="unhashable"):
        await function(key=[])


@pytest.mark.parametrize("decorate", [lambda: single_flight(len), lambda: single_flight(None)])  # type: ignore[arg-type]
def test_a_plain_function_is_refused(decorate: Callable[[], object]) -> None:
    with pytest.raises(TypeError, match="needs an async function"):
        decorate()


def test_a_coroutine_is_refused_and_closed() -> None:
    coroutine: Any = turns(1)
    with pytest.raises(TypeError, match="needs an async function"):
        single_flight(coroutine)
    assert coroutine.cr_frame is None


# ---------------------------------------------------------------- loops and threads


async def test_loops_share_a_run() -> None:
    calls = Calls()
    function = flying(calls)
    task = start_task(function("a"))
    await turns(2)
    parties = [spawn_blocking(asyncio.run, function("a")) for _ in range(3)]
    while "4 waiting" not in repr(next(iter(function._flights._flights.values()))):
        await asyncio.sleep(0.001)
    calls.go.set()
    assert [await task, *[await party for party in parties]] == ["a1"] * 4
    assert left_of(function) == 0


def test_threads_that_come_and_go_never_run_one_key_twice_at_a_time() -> None:
    running = begun = 0

    @single_flight
    async def function(key: int) -> int:
        nonlocal running, begun
        begun += 1
        running += 1
        assert running == 1
        await turns(2)
        running -= 1
        return begun

    def visit() -> None:
        async def main() -> None:
            for _ in range(30):
                values.append(await function(1))

        try:
            asyncio.run(main())
        except BaseException as error:
            errors.append(error)

    values: list[int] = []
    errors: list[BaseException] = []
    threads = [threading.Thread(target=visit) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    gc.collect()  # without the GIL, what threads let go of goes a little later
    assert not errors and values and left_of(function) == 0


def test_nothing_is_left_of_a_loop_that_was_closed_in_the_middle_of_a_run() -> None:
    async def hang() -> None:
        await pending()

    flights: SingleFlight[str, None] = SingleFlight()
    loop = asyncio.new_event_loop()

    async def begin() -> None:
        coroutine = flights.run("a", hang)
        coroutine.send(None)
        waiting.append(coroutine)

    waiting: list[Any] = []
    loop.run_until_complete(begin())
    assert len(flights) == 1
    loop.close()
    assert asyncio.run(asyncio.wait_for(flights.run("a", lambda: None), 60)) is None  # and does not wait for that one
    waiting.pop().close()
    assert len(flights) == 0
    gc.collect()
    assert asyncio.run(flights.run("a", lambda: None)) is None
