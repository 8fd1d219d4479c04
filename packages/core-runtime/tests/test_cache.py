"""The async cache."""

from __future__ import annotations

import asyncio
import functools
import gc
import inspect
import sys
import weakref
from asyncio import CancelledError
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from yamanote.runtime import JoinError, cancel_and_wait, lru_cache, run, spawn_blocking, start_task


class Calls(list[Any]):
    """An async function that notes its calls, and takes until it is let go."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.go.set()
        self.error: Exception | None = None

    async def __call__(self, key: Any, *more: Any, **options: Any) -> str:
        self.append(key)
        number, error = len(self), self.error
        await self.go.wait()
        if error is not None:
            raise error
        return f"{key}{number}"


def cached(calls: Calls, **options: Any) -> Any:
    @lru_cache(**options)
    async def function(*args: Any, **kwargs: Any) -> str:
        return await calls(*args, **kwargs)

    return function


async def test_a_value_is_computed_once() -> None:
    calls = Calls()
    function = cached(calls)
    assert [await function("a"), await function("b"), await function("a")] == ["a1", "b2", "a1"]
    assert function.cache_info() == (1, 2, 128, 2)


async def test_it_can_be_used_without_arguments_and_keeps_the_face_of_the_function() -> None:
    @lru_cache
    async def double(number: int) -> int:
        """Twice."""
        return number * 2

    assert await double(2) == 4
    assert (double.__name__, double.__doc__) == ("double", "Twice.")  # type: ignore[attr-defined]
    assert str(inspect.signature(double)) == "(number: 'int') -> 'int'"
    assert double.cache_parameters() == {"maxsize": 128, "typed": False, "expire_after": None}
    assert await double.__wrapped__(3) == 6
    assert "lru_cache of <function" in repr(double) and "double" in repr(double)
    if sys.version_info >= (3, 12):
        assert inspect.iscoroutinefunction(double)


async def test_the_one_not_used_for_longest_is_dropped() -> None:
    calls = Calls()
    function = cached(calls, maxsize=2)
    for key in "abacab":
        await function(key)
    assert calls == ["a", "b", "c", "b"]
    assert function.cache_info().currsize == 2


async def test_no_limit_and_no_room() -> None:
    calls = Calls()
    function = cached(calls, maxsize=None)
    for key in range(300):
        await function(key)
    assert function.cache_info().currsize == 300
    function = cached(calls, maxsize=0)
    await function("a")
    await function("a")
    assert calls[300:] == ["a", "a"] and function.cache_info() == (0, 2, 0, 0)


async def test_keys_are_told_apart_as_they_should() -> None:
    calls = Calls()
    function = cached(calls)
    pair = ("a", 1)
    await function(1, pair)
    await function(1, a=1)
    await function((1,), a=1)
    assert len(calls) == 3
    await function(1.0, pair)
    await function(key=1, a=2, b=3)
    await function(key=1, b=3, a=2)
    assert len(calls) == 4
    function = cached(calls, typed=True)
    await function(1, a=1)
    await function(1.0, a=1)
    await function(1, a=1.0)
    await function(1, a=1)
    assert len(calls) == 7


async def test_a_value_expires_so_many_seconds_after_its_completion() -> None:
    loop = asyncio.get_running_loop()
    now = loop.time()
    time = loop.time
    loop.time = lambda: now  # type: ignore[method-assign]
    try:
        calls = Calls()
        function = cached(calls, expire_after=10)
        calls.go.clear()
        task = start_task(function("a"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        now += 100
        calls.go.set()
        assert await task == "a1"
        now += 9.9
        assert await function("a") == "a1"
        now += 0.1
        assert await function("a") == "a2"
        assert function.cache_info() == (1, 2, 128, 1)
    finally:
        loop.time = time  # type: ignore[method-assign]


def test_a_value_does_not_stay_when_the_next_clock_is_behind_the_one_that_it_came_with() -> None:
    class Loop(asyncio.SelectorEventLoop):
        now = 0.0

        def time(self) -> float:
            return self.now

    calls = Calls()
    function = cached(calls, expire_after=10)
    ahead, behind = Loop(), Loop()
    ahead.now = 1e9
    try:
        assert ahead.run_until_complete(function("a")) == "a1"
        assert behind.run_until_complete(function("a")) == "a2"
        behind.now = 9.9
        assert behind.run_until_complete(function("a")) == "a2"
        behind.now = 10.0
        assert behind.run_until_complete(function("a")) == "a3"
    finally:
        ahead.close()
        behind.close()


async def test_who_asks_meanwhile_waits_for_the_same_call() -> None:
    calls = Calls()
    calls.go.clear()
    function = cached(calls)
    tasks = [start_task(function("a")) for _ in range(3)]
    await asyncio.sleep(0)
    calls.go.set()
    assert await asyncio.gather(*tasks) == ["a1"] * 3
    assert function.cache_info() == (2, 1, 128, 1)


async def test_all_who_wait_get_the_error_and_the_next_one_calls_again() -> None:
    calls = Calls()
    calls.error = LookupError()
    function = cached(calls)
    results = await asyncio.gather(function("a"), function("a"), return_exceptions=True)
    assert list(results) == [calls.error, calls.error]
    calls.error = None
    assert await function("a") == "a2"


async def test_who_asks_right_behind_a_failure_calls_again() -> None:
    calls = Calls()
    calls.go.clear()
    calls.error = LookupError()
    function = cached(calls)

    async def ask_late() -> str:
        await calls.go.wait()  # woken together with the call, behind it
        calls.error = None
        return str(await function("a"))

    early, late = start_task(function("a")), start_task(ask_late())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    late.cancel()
    late = start_task(ask_late())
    await asyncio.sleep(0.001)
    calls.go.set()
    await asyncio.wait([early, late])
    assert early.exception() is not None
    assert late.result() == "a2"


async def test_cancelling_one_who_waits_leaves_the_call_to_the_others() -> None:
    calls = Calls()
    calls.go.clear()
    function = cached(calls)
    first, second = start_task(function("a")), start_task(function("a"))
    await asyncio.sleep(0.001)
    first.cancel()
    with pytest.raises(CancelledError):
        await first
    calls.go.set()
    assert await second == "a1"


async def test_the_last_one_to_be_cancelled_cancels_the_call_and_waits_for_its_end() -> None:
    log = []

    @lru_cache
    async def function() -> int:
        log.append("call")
        if len(log) > 1:
            return len(log)
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.001)
            log.append("end")
        return 0

    tasks = [start_task(function()), start_task(function())]
    await asyncio.sleep(0.001)
    for task in tasks:
        task.cancel()
    await asyncio.wait([tasks[0]])
    assert await function() == 2  # a call of its own, though the other one has not ended
    await asyncio.wait(tasks)
    assert log == ["call", "call", "end"]
    assert await function() == 2


async def test_a_call_that_is_cancelled_from_outside_is_an_error_for_who_waits() -> None:
    @lru_cache
    async def function() -> str:
        task = asyncio.current_task()
        assert task is not None
        if not cancelled:
            cancelled.append(task.cancel())
        await asyncio.sleep(0)
        return "value"

    cancelled: list[bool] = []
    with pytest.raises(JoinError, match="function was cancelled"):
        await function()
    assert await function() == "value"


async def test_forgetting_one_value_and_all_values() -> None:
    calls = Calls()
    function = cached(calls)
    await function("a", b=1)
    await function("c")
    assert function.cache_invalidate("a", b=1) is True
    assert function.cache_invalidate("a", b=1) is False
    assert await function("c") == "c2"
    assert await function("a", b=1) == "a3"
    function.cache_clear()
    assert function.cache_info() == (0, 0, 128, 0)


@pytest.mark.parametrize("asked_meanwhile", [False, True])
@pytest.mark.parametrize("forget", ["cache_clear", "cache_invalidate"])
async def test_what_was_being_computed_when_it_was_forgotten_is_delivered_but_not_kept(
    forget: str, asked_meanwhile: bool
) -> None:
    calls = Calls()
    calls.go.clear()
    function = cached(calls)
    before = start_task(function("a"))
    await asyncio.sleep(0.001)
    if forget == "cache_clear":
        function.cache_clear()
    else:
        assert function.cache_invalidate("a") is False
    after = start_task(function("a")) if asked_meanwhile else None
    await asyncio.sleep(0.001)
    calls.go.set()
    assert await before == "a1"
    assert await function("a") == "a2"
    assert after is None or await after == "a2"
    assert calls == ["a", "a"]


async def test_a_call_that_asks_for_its_own_value_is_an_error_not_a_dead_lock() -> None:
    @lru_cache
    async def even(number: int) -> bool:
        return not number or await odd(number - 1)

    @lru_cache
    async def odd(number: int) -> bool:
        return await (even(number - 1) if number else even(3))

    assert await even(4)
    even.cache_clear()
    odd.cache_clear()
    with pytest.raises(RuntimeError, match=r"even .*would wait for its own end"):
        await even(3)

    @lru_cache
    async def itself(number: int) -> int:
        return await itself(number)

    with pytest.raises(RuntimeError, match="itself"):
        await itself(1)


async def test_a_call_that_asks_for_its_own_value_in_other_tasks_ends_with_those_who_wait_for_it() -> None:
    ended: list[str] = []

    @lru_cache
    async def itself() -> None:
        try:
            await asyncio.gather(itself(), itself())
        finally:
            ended.append("itself")

    @lru_cache
    async def left() -> None:
        try:
            await asyncio.gather(right())
        finally:
            ended.append("left")

    @lru_cache
    async def right() -> None:
        try:
            await asyncio.gather(left())
        finally:
            ended.append("right")

    for call in itself(), left():
        asking = start_task(call)
        for _ in range(10):
            await asyncio.sleep(0)
        await cancel_and_wait(asking)
    assert ended == ["itself", "right", "left"]
    assert len(asyncio.all_tasks()) == 1


async def test_who_gave_up_waiting_is_not_taken_for_one_who_waits() -> None:
    go, given_up = asyncio.Event(), asyncio.Event()

    @lru_cache
    async def outer() -> int:
        await given_up.wait()
        waiting = start_task(middle())
        go.set()
        return await middle() + await waiting

    @lru_cache
    async def middle() -> int:
        value = await inner()
        given_up.set()
        await go.wait()
        return value

    @lru_cache
    async def inner() -> int:
        try:
            async with asyncio.timeout(0.001):
                return await outer()
        except TimeoutError:
            return 1

    asking = start_task(outer())
    assert await middle() == 1
    assert await asking == 2


async def test_each_instance_has_a_cache_of_its_own_that_does_not_keep_it_alive() -> None:
    class Account:
        __hash__ = None  # type: ignore[assignment]

        def __init__(self, name: str) -> None:
            self.name = name
            self.calls = 0

        def __eq__(self, other: object) -> bool:
            return True

        @lru_cache(maxsize=1)
        async def balance(self, year: int) -> str:
            """Of a year."""
            self.calls += 1
            return f"{self.name}{year}"

    a, b = Account("a"), Account("b")
    assert [await a.balance(1), await b.balance(1), await a.balance(year=1), await b.balance(1)] == ["a1", "b1"] * 2
    assert (a.calls, b.calls) == (2, 1)
    b.balance.cache_clear()
    assert a.balance.cache_info() == (0, 2, 1, 1)
    assert b.balance.cache_info() == (0, 0, 1, 0)
    assert a.balance.cache_invalidate(year=1) and not a.balance.cache_info().currsize
    if sys.version_info >= (3, 12):
        assert inspect.iscoroutinefunction(a.balance)

    gc.disable()
    try:
        gone = weakref.ref(a)
        del a
        assert gone() is None
    finally:
        gc.enable()
    assert len(Account.balance._caches) == 1


async def test_class_methods_and_static_methods_can_be_cached() -> None:
    class Bank:
        calls = 0

        @classmethod
        @lru_cache
        async def make(cls, name: str) -> int:
            cls.calls += 1
            return cls.calls

        @staticmethod
        @lru_cache
        async def rate(year: int) -> list[int]:
            return [year]

    bank: Any = Bank  # type checkers see a method in them
    assert [await bank.make("a"), await bank.make("a"), await bank().make("b")] == [1, 1, 2]
    assert await bank.rate(1) is await bank().rate(1)


def test_values_are_shared_by_loops_and_calls_in_progress_are_not() -> None:
    calls = []

    @lru_cache
    async def function(key: str) -> int:
        calls.append(key)
        if key == "both":
            if len(calls) == 1:
                await spawn_blocking(run, function(key))
        return len(calls)

    assert run(function("both")) == 2
    assert calls == ["both", "both"]
    assert run(function("both")) == 2
    assert len(calls) == 2


def test_what_another_loop_computed_meanwhile_is_used_last_when_the_call_ends() -> None:
    calls = []

    @lru_cache(maxsize=2)
    async def function(key: str) -> str:
        calls.append(key)
        if calls == ["a"]:
            await spawn_blocking(run, function("a"))
            await spawn_blocking(run, function("b"))
        return key

    for key in "acab":
        run(function(key))
    assert calls == ["a", "a", "b", "c", "b"]


async def test_many_loops_in_many_threads_can_use_one_cache() -> None:
    @lru_cache(maxsize=5)
    async def function(key: int) -> int:
        await asyncio.sleep(0)
        return key

    async def work(seed: int) -> None:
        for number in range(200):
            keys = [(seed + number * step) % 9 for step in (1, 3, 1)]
            assert list(await asyncio.gather(*map(function, keys))) == keys

    await asyncio.gather(*(spawn_blocking(run, work(seed)) for seed in range(4)))
    info = function.cache_info()
    assert info.hits + info.misses == 4 * 200 * 3
    assert info.currsize == 5 and not function._cache._calls


async def test_arguments_that_cannot_be_hashed_are_refused() -> None:
    with pytest.raises(TypeError, match="unhashable"):
        await cached(Calls())([])


@pytest.mark.parametrize("options", [{"maxsize": -1}, {"expire_after": 0}, {"expire_after": float("nan")}])
def test_nonsense_is_a_value_error(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        lru_cache(**options)


@pytest.mark.parametrize("options", [{"maxsize": 1.5}, {"maxsize": True}, {"expire_after": "1"}])
def test_what_is_no_number_is_a_type_error(options: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match=next(iter(options))):
        lru_cache(**options)


@pytest.mark.parametrize("decorate", [lru_cache, lru_cache()])
def test_a_plain_function_is_refused(decorate: Callable[[Any], object]) -> None:
    with pytest.raises(TypeError, match="needs an async function"):
        decorate(len)


async def test_a_partial_of_an_async_function_can_be_cached() -> None:
    async def add(a: int, b: int) -> int:
        return a + b

    function: Callable[[int], Coroutine[Any, Any, int]] = lru_cache(functools.partial(add, 1))
    assert await function(2) == 3


@pytest.mark.skipif(not hasattr(asyncio, "eager_task_factory"), reason="Python 3.12 has it")
async def test_an_eager_task_factory_changes_nothing() -> None:
    asyncio.get_running_loop().set_task_factory(getattr(asyncio, "eager_task_factory"))  # noqa: B009
    calls = Calls()
    function = cached(calls)
    tasks = [asyncio.create_task(function("a")) for _ in range(2)]
    assert await asyncio.gather(*tasks) == ["a1", "a1"]
    tasks[0] = asyncio.create_task(function("a"))
    assert tasks[0].done()


def test_nothing_is_left_of_a_loop_that_was_closed_in_the_middle_of_a_call() -> None:
    @lru_cache
    async def cached() -> None:
        await asyncio.sleep(3600)

    waiting = [cached()]

    async def main() -> None:
        task = asyncio.ensure_future(waiting[0])
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not task.done() and len(cached._cache._calls) == 1

    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda _, context: None)  # tasks that are destroyed
    loop.run_until_complete(main())
    loop.close()
    waiting.pop().close()
    gone = weakref.ref(loop)
    del loop
    gc.collect()
    assert gone() is None and not cached._cache._calls
