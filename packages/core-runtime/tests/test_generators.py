"""Generators as coroutines: the driver, and the functions that take them."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import inspect
import sys
import traceback
import types
import weakref
from asyncio import CancelledError
from collections.abc import Callable, Generator
from functools import partial
from typing import Any, get_type_hints

import pytest

from yamanote import runtime
from yamanote.runtime import describe, generators
from yamanote.runtime.generators import Runtime, coroutine, main, map, run, spawn, yield_now
from yamanote.testing import explore_cancellations

Yields = Generator[Any, Any, Any]


def double(number: int) -> Generator[Any, Any, int]:
    yield
    return number * 2


async def value_of(value: Any) -> Any:
    await yield_now()
    return value


async def failing(error: BaseException) -> Any:
    await yield_now()
    raise error


def raising(error: BaseException) -> Yields:
    yield
    raise error


# -------------------------------------------------------------------------------------------------- values and turns


def test_what_is_yielded_is_waited_for_and_its_value_is_the_value_of_the_yield() -> None:
    def program() -> Yields:
        future = asyncio.get_running_loop().create_future()
        future.set_result("future")
        return [
            (yield),
            (yield value_of("coroutine")),
            (yield asyncio.ensure_future(value_of("task"))),
            (yield future),
            (yield spawn(value_of("handle"))),
            (yield double(21)),
            (yield coroutine(double(4))),
        ]

    assert run(program()) == [None, "coroutine", "task", "future", "handle", 42, 8]


def test_a_yield_alone_lets_everybody_else_run_once() -> None:
    def program() -> Yields:
        log: list[str] = []

        def count(name: str) -> Yields:
            for number in range(3):
                log.append(f"{name}{number}")
                yield

        yield spawn(count("a"), count("b"))
        return log

    assert run(program()) == ["a0", "b0", "a1", "b1", "a2", "b2"]


def test_a_call_of_a_generator_costs_no_turn_and_no_task() -> None:
    def innermost() -> Yields:
        return asyncio.current_task()
        yield

    def inner() -> Yields:
        return (yield innermost())

    def program() -> Yields:
        turned: list[None] = []
        asyncio.get_running_loop().call_soon(turned.append, None)
        assert (yield inner()) is asyncio.current_task()
        assert not turned
        yield
        assert turned

    run(program())


def test_generators_call_each_other_deeper_than_python_calls_functions() -> None:
    depth = 20 * sys.getrecursionlimit()

    def count(number: int) -> Yields:
        if number == depth:
            yield
            return 0
        return 1 + (yield count(number + 1))

    def fall(number: int) -> Yields:
        yield (raising(LookupError()) if number == depth else fall(number + 1))

    assert run(count(0)) == depth
    with pytest.raises(LookupError):
        run(fall(0))


def test_yield_from_works_as_ever() -> None:
    def both() -> Yields:
        one = yield from double(1)
        two = yield double(one)
        return one, two

    assert run(both()) == (2, 4)


def test_a_coroutine_that_is_made_of_a_generator_is_awaited() -> None:
    @types.coroutine
    def ask(future: asyncio.Future[str]) -> Generator[Any, Any, str]:
        return (yield from future)

    def program() -> Yields:
        future = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(future.set_result, "answer")
        return (yield ask(future))

    assert run(program()) == "answer"


def test_what_a_callee_sets_in_a_context_variable_its_caller_sees_and_who_spawned_it_does_not() -> None:
    variable = contextvars.ContextVar("variable", default="unset")

    def change(value: str) -> Yields:
        yield
        variable.set(value)

    def program() -> Yields:
        yield spawn(change("spawned"))
        before = variable.get()
        yield change("called")
        return before, variable.get()

    assert run(program()) == ("unset", "called")


# ------------------------------------------------------------------------------------------------------------ errors


@pytest.mark.parametrize("fail", [failing, raising, lambda error: spawn(failing(error))])
def test_an_error_is_raised_at_the_yield_and_can_be_caught_there(fail: Callable[[BaseException], Any]) -> None:
    def program() -> Yields:
        try:
            yield fail(LookupError("here"))
        except LookupError as error:
            caught = error
        return caught.args, (yield double(1))

    assert run(program()) == (("here",), 2)


def test_clean_up_may_yield_on_every_level() -> None:
    log: list[str] = []

    def level(number: int) -> Yields:
        try:
            yield level(number - 1) if number else failing(LookupError())
        finally:
            log.append(f"begin {number}")
            yield
            log.append(f"end {number}")

    with pytest.raises(LookupError):
        run(level(1))
    assert log == ["begin 0", "end 0", "begin 1", "end 1"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_what_is_no_exception_passes_through_the_callers_too(error: type[BaseException]) -> None:
    def child() -> Yields:
        yield
        raise error

    def program() -> Yields:
        try:
            yield child()
        except error:
            return (yield double(1))

    assert run(program()) == 2


def test_errors_have_the_context_that_they_would_have_without_a_driver() -> None:
    def handler() -> Yields:
        try:
            yield raising(LookupError())
        except LookupError:
            yield raising(ArithmeticError())

    def program() -> Yields:
        try:
            yield handler()
        except ArithmeticError as error:
            in_handler = error
        try:
            yield raising(OSError())
        except OSError as error:
            return in_handler.__context__, error.__context__

    inside, outside = run(program())
    assert isinstance(inside, LookupError) and outside is None


def test_an_error_that_was_handled_is_not_kept() -> None:
    class Failure(Exception):
        pass

    def program() -> Yields:
        known: list[weakref.ref[Failure]] = []

        def child() -> Yields:
            yield
            error = Failure()
            known.append(weakref.ref(error))
            try:
                raise error
            finally:
                del error

        try:
            yield child()
        except Failure:
            pass
        yield
        assert known[0]() is None

    gc.disable()
    try:
        run(program())
    finally:
        gc.enable()


async def test_an_error_that_left_its_task_goes_when_nobody_refers_to_it() -> None:
    class Failure(Exception):
        pass

    def child() -> Yields:
        yield
        raise Failure

    async def fail() -> weakref.ref[Failure]:
        try:
            await coroutine(child())
        except Failure as error:
            return weakref.ref(error)
        raise AssertionError

    gc.disable()
    try:
        assert (await fail())() is None
    finally:
        gc.enable()


def test_a_stop_iteration_in_a_generator_is_a_runtime_error_for_its_caller() -> None:
    def child() -> Yields:
        yield
        next(iter([]))

    def program() -> Yields:
        with pytest.raises(RuntimeError, match="raised StopIteration"):
            yield child()
        return (yield double(1))

    assert run(program()) == 2


def test_a_traceback_reads_as_if_generators_had_called_each_other() -> None:
    async def innermost() -> None:
        raise LookupError("lost")

    def inner() -> Yields:
        yield
        yield innermost()

    def outer() -> Yields:
        try:
            yield inner()
        finally:
            yield

    def program() -> Yields:
        try:
            yield outer()
        except LookupError as error:
            return [(frame.name, frame.line) for frame in traceback.extract_tb(error.__traceback__)]

    assert run(program()) == [
        ("program", "yield outer()"),
        ("outer", "yield inner()"),
        ("inner", "yield innermost()"),
        ("innermost", 'raise LookupError("lost")'),
    ]


def test_out_of_a_task_the_driver_is_in_a_traceback_once() -> None:
    def inner() -> Yields:
        yield raising(LookupError())

    with pytest.raises(LookupError) as caught:
        run(inner())
    names = [frame.name for frame in traceback.extract_tb(caught.tb)]
    assert names[-3:] == ["drive", "inner", "raising"] and names.count("drive") == 1


# ------------------------------------------------------------------------------------------------ unsupported values


async def items() -> Any:
    yield 1


@pytest.mark.parametrize(
    ("target", "advice"),
    [
        (5, "only None, awaitables, and generators"),
        ("text", "only None, awaitables, and generators"),
        (double, "call it"),
        ([], "yield spawn"),
        ((), "yield spawn"),
        (items(), "yield anext"),
    ],
)
def test_an_unsupported_value_is_a_type_error_at_that_yield_and_nothing_else(target: Any, advice: str) -> None:
    def child() -> Yields:
        yield
        yield target

    def program() -> Yields:
        other = spawn(double(2))
        with pytest.raises(TypeError, match=advice) as caught:
            yield child()
        assert traceback.extract_tb(caught.tb)[-1].line == "yield target"
        assert caught.value.__context__ is None
        return (yield other)

    assert run(program()) == 4


def test_a_value_that_cannot_even_be_shown_is_a_type_error_at_that_yield_too() -> None:
    class Shy:
        def __repr__(self) -> str:
            raise ArithmeticError

    def program() -> Yields:
        with pytest.raises(TypeError, match=r"cannot yield <.+Shy object at"):
            yield Shy()
        return (yield double(1))

    assert run(program()) == 2


def test_a_type_error_of_what_is_awaited_is_left_alone() -> None:
    class Broken:
        def __await__(self) -> Any:
            raise TypeError("mine")

    def program() -> Yields:
        yield Broken()

    with pytest.raises(TypeError, match=r"^mine$"):
        run(program())


def test_a_generator_runs_once() -> None:
    def program() -> Yields:
        ended, running = double(1), double(2)
        yield ended
        first, second = spawn(running), spawn(running)
        with pytest.raises(RuntimeError, match="call the function again"):
            yield ended
        with pytest.raises(RuntimeError, match="call the function again"):
            yield second
        return (yield first)

    assert run(program()) == 4


def test_a_generator_cannot_wait_for_itself() -> None:
    def program() -> Yields:
        with pytest.raises(RuntimeError, match="runs already"):
            yield itself
        return "on"

    itself = program()
    assert run(itself) == "on"


# ------------------------------------------------------------------------------------------- cancellation and closing


def test_a_cancellation_is_raised_at_the_yield_of_the_innermost_generator() -> None:
    log: list[str] = []

    def inner() -> Yields:
        try:
            yield asyncio.sleep(3600)
        except CancelledError:
            log.append("inner")
            yield
            raise

    def outer() -> Yields:
        try:
            yield inner()
        except CancelledError:
            log.append("outer")
            raise

    def program() -> Yields:
        handle = spawn(outer())
        yield
        handle.abort()
        with pytest.raises(runtime.JoinError):
            yield handle
        return handle.is_cancelled()

    assert run(program()) is True
    assert log == ["inner", "outer"]


def test_whoever_catches_a_cancellation_goes_on() -> None:
    def stubborn() -> Yields:
        try:
            yield asyncio.sleep(3600)
        except CancelledError:
            return (yield double(1))

    def program() -> Yields:
        handle = spawn(stubborn())
        yield
        handle.abort()
        return (yield handle)

    assert run(program()) == 2


def test_every_generator_of_a_stack_cleans_up_wherever_it_is_cancelled() -> None:
    async def scenario() -> None:
        open_levels: list[int] = []

        def level(number: int) -> Yields:
            yield
            open_levels.append(number)
            try:
                yield level(number - 1) if number else asyncio.sleep(1)
                yield value_of(number)
            finally:
                try:
                    yield
                finally:
                    open_levels.remove(number)

        task = asyncio.ensure_future(coroutine(level(3)))
        await asyncio.wait([task])
        assert not open_levels

    assert explore_cancellations(scenario, runs=120).runs


def closing_stack(log: list[str]) -> Yields:
    def level(name: str, inner: Any) -> Yields:
        try:
            yield inner
        finally:
            log.append(name)

    return level("outer", level("middle", level("inner", None)))


def test_closing_closes_the_innermost_generator_first() -> None:
    log: list[str] = []
    driven = coroutine(closing_stack(log))
    driven.send(None)
    driven.close()
    assert log == ["inner", "middle", "outer"]


def test_a_coroutine_that_is_thrown_away_closes_its_generators() -> None:
    log: list[str] = []
    driven = coroutine(closing_stack(log))
    driven.send(None)
    del driven
    gc.collect()
    assert log == ["inner", "middle", "outer"]


def test_a_generator_that_goes_on_when_it_is_closed_is_an_error_and_the_others_are_closed_all_the_same() -> None:
    log: list[str] = []

    def stubborn() -> Yields:
        try:
            yield
        except GeneratorExit:
            yield

    def outer() -> Yields:
        try:
            yield stubborn()
        finally:
            log.append("outer")

    driven = coroutine(outer())
    driven.send(None)
    with pytest.raises(RuntimeError, match="ignored GeneratorExit"):
        driven.close()
    assert log == ["outer"]


# ------------------------------------------------------------------------------------------------------ the functions


def test_a_task_has_the_name_of_its_generator_and_its_generators_are_in_the_dump() -> None:
    def inner() -> Yields:
        yield asyncio.sleep(3600)

    def through() -> Yields:
        yield from inner()

    def program() -> Yields:
        task = asyncio.ensure_future(coroutine(through()))
        spawned = asyncio.ensure_future(coroutine(outer()))
        yield
        return repr(spawned), describe(spawned), describe(task)

    def outer() -> Yields:
        yield through()

    name, nested, single = run(program())
    assert "coro=<test_a_task_has_the_name_of_its_generator" in name and "outer() running at" in name
    calls = [line.rpartition(".")[2] for line in nested.splitlines()[1:]]
    assert [*calls[:3], calls[-1].split()[-1]] == ["outer", "through", "inner", "sleep"]
    assert "in drive" not in nested + single and "inner" in single


def test_run_takes_generators_and_awaitables_with_the_options_of_run() -> None:
    def program() -> Yields:
        yield
        return asyncio.get_running_loop().get_debug()

    assert run(program(), debug=True) is True
    assert run(value_of(1)) == 1
    with pytest.raises(TypeError, match=r"run\(\) needs a coroutine"):
        run(5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def test_the_options_are_those_of_the_runtime() -> None:
    options = set(inspect.signature(runtime.run).parameters) - {"main"}
    assert set(get_type_hints(generators._RunOptions)) == options
    options = set(inspect.signature(runtime.spawn).parameters) - {"coros"}
    assert set(get_type_hints(generators._SpawnOptions)) == options


def test_who_takes_no_generators_says_where_to_find_those_that_do() -> None:
    with pytest.raises(TypeError, match=r"yamanote\.runtime\.generators"):
        runtime.run(double(1))  # type: ignore[arg-type]  # pyright: ignore


def test_main_makes_a_plain_function_of_both_kinds() -> None:
    @main
    def yields(number: int, *, more: int) -> Generator[Any, Any, int]:
        """Adds."""
        yield
        return number + more

    @main(debug=True)
    async def awaits() -> bool:
        return asyncio.get_running_loop().get_debug()

    @main
    @coroutine
    def both() -> Yields:
        return (yield double(1))

    assert (yields(1, more=2), awaits(), both(), yields.__doc__) == (3, True, 2, "Adds.")


def test_main_refuses_a_function_that_neither_yields_nor_is_async_and_unknown_options() -> None:
    with pytest.raises(TypeError, match="with a `yield` in it"):
        main(len)  # type: ignore[call-overload]  # pyright: ignore
    with pytest.raises(TypeError, match="turbo"):
        main(turbo=True)  # type: ignore[call-overload]  # pyright: ignore


def test_a_runtime_takes_generators_as_often_as_needed() -> None:
    with Runtime() as by_hand:
        handle = by_hand.spawn(double(1), name="early")
        assert by_hand.run_until_complete(double(2)) == 4
        assert by_hand.run_until_complete(handle) == 2
        assert handle.name == "early"


def test_spawn_takes_generators_and_awaitables_and_options() -> None:
    def program() -> Yields:
        handle = spawn(double(1), name="mine")
        eager = spawn(value_of(2), eager=True)
        several = yield spawn(double(1), value_of(3), double(2))
        return handle.name, (yield handle), (yield eager), several, (yield spawn())

    assert run(program()) == ("mine", 2, 2, [2, 3, 4], [])


def test_map_takes_both_kinds_of_functions_and_a_limit() -> None:
    running: list[int] = []

    def work(number: int) -> Yields:
        running.append(number)
        assert len(running) <= 2
        yield
        running.remove(number)
        return number * 2

    def program() -> Yields:
        return (yield map(work, range(5), limit=2)), (yield map(value_of, "ab"))

    assert run(program()) == ([0, 2, 4, 6, 8], ["a", "b"])
    with pytest.raises(TypeError, match="map"):
        map(5, [])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def test_a_coroutine_of_a_generator_goes_wherever_coroutines_go() -> None:
    doubling = coroutine(double)
    assert await doubling(21) == 42
    assert await asyncio.wait_for(coroutine(double(2)), 5) == 4
    assert await coroutine(partial(double, 3))() == 6
    async with asyncio.TaskGroup() as group:
        task = group.create_task(doubling(1))
    assert task.result() == 2
    if sys.version_info >= (3, 12):
        assert inspect.iscoroutinefunction(doubling)
    for wrong in (5, len, value_of, [1]):
        with pytest.raises(TypeError, match="needs a generator"):
            coroutine(wrong)  # type: ignore[call-overload]  # pyright: ignore
