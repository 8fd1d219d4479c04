"""Context managers around a block."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import weakref
from asyncio import CancelledError
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from yamanote.runtime import (
    AsyncContextGroup,
    AsyncDefer,
    aclosing,
    actxmgr,
    adefer,
    concurrent_contexts,
    contextualize,
    spawn_blocking,
    start_task,
    suppress,
)


async def for_ever() -> None:
    await asyncio.Event().wait()


def requests() -> int:
    task = asyncio.current_task()
    assert task is not None
    return task.cancelling()


def test_names_of_the_standard_library_are_the_same_objects() -> None:
    assert actxmgr is contextlib.asynccontextmanager
    assert aclosing is contextlib.aclosing


# ---------------------------------------------------------------- contextualize


async def test_the_awaitable_runs_while_the_block_does_and_has_ended_after_it() -> None:
    log = []

    async def work() -> None:
        log.append("begin")
        try:
            await for_ever()
        finally:
            await asyncio.sleep(0)
            log.append("end")

    async with contextualize(work()):
        await asyncio.sleep(0)
        log.append("block")

    assert log == ["begin", "block", "end"]


async def test_an_awaitable_that_returns_early_leaves_the_block_alone() -> None:
    async with contextualize(asyncio.sleep(0)):
        await asyncio.sleep(0.001)


async def test_any_awaitable_will_do() -> None:
    future = asyncio.get_running_loop().create_future()
    async with contextualize(future):
        await asyncio.sleep(0)
    assert future.cancelled()


async def test_an_error_beside_the_block_cancels_it_and_is_raised_as_it_is() -> None:
    error = LookupError()

    async def fail() -> None:
        raise error

    with pytest.raises(LookupError) as raised:
        async with contextualize(fail()):
            await for_ever()

    assert raised.value is error
    assert requests() == 0


async def test_an_error_of_the_block_is_raised_as_it_is_when_the_awaitable_has_ended() -> None:
    ended = False
    cause = KeyError()

    async def work() -> None:
        nonlocal ended
        try:
            await for_ever()
        finally:
            await asyncio.sleep(0)
            ended = True

    with pytest.raises(LookupError) as raised:
        async with contextualize(work()):
            await asyncio.sleep(0)
            raise LookupError from cause

    assert ended
    assert raised.value.__cause__ is cause


async def test_a_group_that_the_block_raises_is_not_taken_apart() -> None:
    group = ExceptionGroup("mine", [LookupError()])

    with pytest.raises(ExceptionGroup) as raised:
        async with contextualize(for_ever()):
            raise group

    assert raised.value is group


async def test_errors_of_both_are_raised_in_a_group() -> None:
    async def fail_in_clean_up() -> None:
        try:
            await for_ever()
        finally:
            raise KeyError

    with pytest.raises(ExceptionGroup) as raised:
        async with contextualize(fail_in_clean_up()):
            await asyncio.sleep(0)
            raise LookupError

    assert sorted(type(error).__name__ for error in raised.value.exceptions) == ["KeyError", "LookupError"]


async def test_a_cancellation_goes_on_when_the_awaitable_has_ended() -> None:
    ended = False

    async def work() -> None:
        nonlocal ended
        try:
            await for_ever()
        finally:
            await asyncio.sleep(0)
            ended = True

    async def host() -> None:
        async with contextualize(work()):
            await for_ever()

    task = start_task(host())
    await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(CancelledError):
        await task
    assert ended and task.cancelling() == 1


def test_what_cannot_be_awaited_is_refused_at_the_call() -> None:
    with pytest.raises(TypeError, match=r"contextualize\(\) needs a coroutine"):
        contextualize(5)  # type: ignore[arg-type]


# ---------------------------------------------------------------- suppress


def test_only_the_errors_named_are_suppressed() -> None:
    with suppress(KeyError, ValueError):
        raise ValueError
    with suppress():
        pass
    with pytest.raises(LookupError), suppress(KeyError):
        raise LookupError


def test_in_a_group_they_are_suppressed_at_any_depth_and_the_rest_goes_on() -> None:
    rest = [OSError("one"), OSError("two")]
    cause = RuntimeError()
    with pytest.raises(ExceptionGroup) as raised, suppress(KeyError):
        raise ExceptionGroup("outer", [KeyError(), rest[0], ExceptionGroup("inner", [KeyError(), rest[1]])]) from cause

    group = raised.value
    assert group.message == "outer" and group.__cause__ is cause and group.__context__ is None
    assert group.exceptions[0] is rest[0]
    assert group.exceptions[1].exceptions == (rest[1],)


def test_a_group_of_nothing_else_is_suppressed_and_one_of_none_of_them_stays_as_it_is() -> None:
    with suppress(KeyError):
        raise ExceptionGroup("outer", [KeyError(), ExceptionGroup("inner", [KeyError()])])
    with suppress(ExceptionGroup):
        raise ExceptionGroup("all", [OSError()])
    group = ExceptionGroup("outer", [OSError()])
    with pytest.raises(ExceptionGroup) as raised, suppress(KeyError):
        raise group
    assert raised.value is group


async def test_the_cancellation_of_a_cancelled_task_is_never_suppressed() -> None:
    log = []

    async def work(kind: type[BaseException]) -> None:
        with suppress(kind):
            try:
                await for_ever()
            except CancelledError as error:
                if kind is BaseExceptionGroup:
                    raise BaseExceptionGroup("with a cancellation", [error]) from None
                raise
        log.append("went on")

    tasks = [start_task(work(kind)) for kind in (CancelledError, BaseException, BaseExceptionGroup)]
    await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert not log
    assert [task.cancelled() for task in tasks] == [True, True, False]
    assert isinstance(tasks[2].exception(), BaseExceptionGroup)


async def test_the_end_of_something_else_that_was_cancelled_can_be_suppressed() -> None:
    future = asyncio.get_running_loop().create_future()
    future.cancel()
    with suppress(CancelledError):
        await future


async def test_a_cancelled_task_can_still_suppress_its_errors() -> None:
    async def work() -> None:
        try:
            await for_ever()
        finally:
            with suppress(OSError):
                raise ExceptionGroup("all", [OSError()])
            with suppress(BaseException):
                raise OSError
            with suppress(ExceptionGroup):
                raise ExceptionGroup("all", [OSError()])

    task = start_task(work())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()


def test_strict_wants_one_of_them() -> None:
    with suppress(KeyError, strict=True):
        raise KeyError
    with pytest.raises(RuntimeError, match="the block should have raised one of: KeyError, OSError"):
        with suppress(KeyError, OSError, strict=True):
            pass
    with pytest.raises(ValueError), suppress(KeyError, strict=True):
        raise ValueError


async def test_one_object_can_be_used_again_inside_itself_and_in_a_thread() -> None:
    ignore = suppress(KeyError)

    def block() -> None:
        with ignore, ignore:
            raise KeyError

    block()
    await spawn_blocking(block)


@pytest.mark.parametrize("error", [KeyError(), int, "KeyError"])
def test_what_is_no_exception_class_is_refused(error: object) -> None:
    with pytest.raises(TypeError, match="errors must be exception classes"):
        suppress(error)  # type: ignore[arg-type]


async def test_a_manager_made_of_a_generator_can_be_closed_and_handled() -> None:
    @actxmgr
    async def manager() -> AsyncIterator[int]:
        with suppress(KeyError):
            yield 1

    async with manager() as value:
        assert value == 1
        raise KeyError


@pytest.mark.skipif(not hasattr(asyncio, "eager_task_factory"), reason="Python 3.12 has it")
async def test_an_eager_task_factory_changes_nothing() -> None:
    asyncio.get_running_loop().set_task_factory(getattr(asyncio, "eager_task_factory"))  # noqa: B009
    with pytest.raises(LookupError):
        async with contextualize(for_ever()):
            await asyncio.sleep(0)
            raise LookupError


# ---------------------------------------------------------------- memory


class Failure(Exception):
    pass


async def fail() -> None:
    await asyncio.sleep(0)
    raise Failure


class FailsAtTheEnd:
    """Not made of a generator: on some versions of Python `contextlib` makes cycles of its own."""

    async def __aenter__(self) -> None:
        pass

    async def __aexit__(self, *error: object) -> None:
        await fail()


async def in_a_group() -> None:
    async with AsyncContextGroup([FailsAtTheEnd(), FailsAtTheEnd()]):
        raise OSError


async def in_concurrent_contexts() -> None:
    async with concurrent_contexts(FailsAtTheEnd(), FailsAtTheEnd()):
        raise OSError


async def while_entering() -> None:
    class FailsAtTheBeginning(FailsAtTheEnd):
        async def __aenter__(self) -> None:
            await fail()

    async with concurrent_contexts(FailsAtTheEnd(), FailsAtTheBeginning()):
        pass


async def beside_a_block() -> None:
    async with contextualize(fail()):
        await for_ever()


@adefer
async def in_deferred_calls(defer: AsyncDefer) -> None:
    defer(fail)
    await fail()


async def in_the_rest_of_a_group() -> None:
    with suppress(OSError):
        raise ExceptionGroup("all", [OSError(), Failure()])


@pytest.mark.parametrize(
    "scenario",
    [
        in_a_group,
        in_concurrent_contexts,
        while_entering,
        beside_a_block,
        in_deferred_calls,
        in_the_rest_of_a_group,
    ],
)
async def test_errors_are_not_kept_in_cycles(scenario: Callable[[], Awaitable[None]]) -> None:
    def failures(error: BaseException) -> list[BaseException]:
        if isinstance(error, BaseExceptionGroup):
            return [leaf for each in error.exceptions for leaf in failures(each)]
        return [error]

    gc.collect()
    gc.disable()
    try:
        try:
            await scenario()
        except Exception as error:
            gone = [weakref.ref(failure) for failure in failures(error) if isinstance(failure, Failure)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert gone and not any(failure() for failure in gone)
    finally:
        gc.enable()
