"""Function tools for async functions."""

from __future__ import annotations

import asyncio
import functools
import inspect
import pickle

import pytest

from yamanote.runtime import aclosing, aiter, apartial, run


async def power(base: int, exponent: int = 2) -> int:
    """Raise to a power."""
    return int(base**exponent)


# ---------------------------------------------------------------- apartial


async def test_a_partial_of_an_async_function_is_an_async_function_with_its_name_and_docstring() -> None:
    cube = apartial(power, exponent=3)

    assert inspect.iscoroutinefunction(cube)
    assert (cube.__name__, cube.__doc__, cube.__module__) == ("power", "Raise to a power.", __name__)  # type: ignore[attr-defined]
    assert await cube(2) == 8
    assert await cube(2, exponent=2) == 4
    assert await apartial(cube, 3)() == 27


def test_its_signature_is_what_is_left_to_be_given() -> None:
    assert str(inspect.signature(apartial(power, 2))) == "(exponent: 'int' = 2) -> 'int'"


def test_it_is_a_functools_partial_and_can_be_pickled() -> None:
    bound = apartial(power, 5)
    again = pickle.loads(pickle.dumps(bound))

    assert isinstance(bound, functools.partial) and (bound.func, bound.args) == (power, (5,))
    assert run(again()) == 25 and again.__name__ == "power"


def test_a_plain_function_is_refused() -> None:
    with pytest.raises(TypeError, match=r"apartial\(\) needs an async function, not <built-in function len>"):
        apartial(len)  # type: ignore[arg-type]


# ---------------------------------------------------------------- aiter


class Source:
    def __init__(self, *values: object) -> None:
        self.values = list(values)

    async def __call__(self) -> object:
        value = self.values.pop(0)
        await asyncio.sleep(0)
        if isinstance(value, Exception):
            raise value
        return value


async def test_with_one_argument_it_is_the_builtin() -> None:
    class Aiterable:
        def __aiter__(self) -> Aiterable:
            return self

        async def __anext__(self) -> int:
            return 1

    aiterable = Aiterable()
    assert aiter(aiterable) is aiterable
    with pytest.raises(TypeError, match="async"):
        aiter([])  # type: ignore[call-overload]


async def test_a_function_is_called_until_it_returns_what_is_equal_to_the_sentinel() -> None:
    source = Source(1, None, 2.0, 3)
    assert [value async for value in aiter(source, 2)] == [1, None]
    assert source.values == [3]


async def test_the_sentinel_may_be_none_or_not_even_equal_to_itself() -> None:
    nan = float("nan")
    assert [value async for value in aiter(Source(0, "", None), None)] == [0, ""]
    assert [value async for value in aiter(Source(0, nan), nan)] == [0]


async def test_it_has_ended_for_good() -> None:
    source = Source(1, 0, 2)
    values = aiter(source, 0)
    assert [value async for value in values] == [1]
    assert [value async for value in values] == []
    assert source.values == [2]


async def test_closing_it_ends_it_and_leaving_a_loop_early_does_not() -> None:
    source = Source(1, 2, 3)
    async with aclosing(aiter(source, 0)) as values:
        async for _ in values:
            break
        assert await anext(values) == 2
    with pytest.raises(StopAsyncIteration):
        await anext(values)
    assert source.values == [3]


async def test_an_error_of_the_function_is_raised_and_the_next_step_calls_it_again() -> None:
    values = aiter(Source(1, OSError(), 2, 0), 0)
    assert await anext(values) == 1
    with pytest.raises(OSError):
        await anext(values)
    assert [value async for value in values] == [2]


def test_nonsense_is_refused_at_the_call() -> None:
    with pytest.raises(TypeError, match="needs an async function before a sentinel"):
        aiter([], None)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="at most 2 arguments, not 3"):
        aiter(power, 1, 2)  # type: ignore[call-overload]
