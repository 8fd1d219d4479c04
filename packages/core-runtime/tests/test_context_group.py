"""Many context managers as one: one after the other, and concurrently."""

from __future__ import annotations

import asyncio
from asyncio import CancelledError
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from contextvars import ContextVar
from typing import Any

import pytest

from yamanote.runtime import (
    AsyncContextGroup,
    CancelScope,
    TaskGroup,
    actxgroup,
    concurrent_contexts,
    run,
    start_task,
    suppress,
)

Grouping = Callable[..., AbstractAsyncContextManager[Any]]


def one_after_the_other(*managers: Any) -> AbstractAsyncContextManager[Any]:
    return AsyncContextGroup(managers)


each_grouping = pytest.mark.parametrize("group", [one_after_the_other, concurrent_contexts])


def requests() -> int:
    task = asyncio.current_task()
    assert task is not None
    return task.cancelling()


class Log(list[object]):
    """What happened, in order."""

    @asynccontextmanager
    async def manager(
        self,
        name: str,
        *,
        turns: int = 0,
        enter: BaseException | None = None,
        leave: BaseException | None = None,
        takes: type[BaseException] | None = None,
    ) -> AsyncIterator[str]:
        self.append(f"+{name}")
        for _ in range(turns):
            await asyncio.sleep(0)
        if enter is not None:
            raise enter
        try:
            yield name.upper()
        except BaseException as error:
            self.append(f"{name} saw {type(error).__name__}")
            if takes is None or not isinstance(error, takes):
                raise
        finally:
            for _ in range(turns):
                await asyncio.sleep(0)
            self.append(f"-{name}")
            if leave is not None:
                raise leave


# ---------------------------------------------------------------- what holds for both


@each_grouping
async def test_values_come_in_order_and_everything_is_exited(group: Grouping) -> None:
    log = Log()
    async with group(log.manager("a", turns=3), log.manager("b"), log.manager("c", turns=1)) as values:
        assert list(values) == ["A", "B", "C"]
        assert set(log) == {"+a", "+b", "+c"}
    assert set(log) == {"+a", "+b", "+c", "-a", "-b", "-c"}


@each_grouping
async def test_a_group_of_nothing_is_just_a_block(group: Grouping) -> None:
    async with group() as values:
        assert list(values) == []
    with pytest.raises(LookupError):
        async with group():
            raise LookupError


@each_grouping
async def test_sync_managers_are_welcome(group: Grouping) -> None:
    log = []

    @contextmanager
    def manager() -> Iterator[int]:
        try:
            yield 1
        finally:
            log.append("-")

    async with group(manager(), suppress(KeyError)) as values:
        assert list(values) == [1, None]
        raise KeyError
    assert log == ["-"]


@each_grouping
async def test_exits_see_the_error_of_the_block_and_it_goes_on_as_it_is(group: Grouping) -> None:
    log = Log()
    error, cause = LookupError(), KeyError()
    with pytest.raises(LookupError) as raised:
        async with group(log.manager("a"), log.manager("b")):
            raise error from cause
    assert raised.value is error and error.__cause__ is cause
    assert {"a saw LookupError", "b saw LookupError"} < set(log)


@each_grouping
async def test_one_manager_can_suppress_it(group: Grouping) -> None:
    log = Log()
    async with group(log.manager("a"), log.manager("b", takes=LookupError), log.manager("c")):
        raise LookupError
    assert {"-a", "b saw LookupError", "c saw LookupError"} < set(log)


@each_grouping
async def test_all_exits_run_and_no_error_is_lost(group: Grouping) -> None:
    log = Log()
    errors = [OSError("a"), OSError("c")]
    block = LookupError()
    with pytest.raises(ExceptionGroup) as raised:
        async with group(log.manager("a", leave=errors[0]), log.manager("b"), log.manager("c", leave=errors[1])):
            raise block
    assert raised.value.exceptions[0] is block
    assert set(raised.value.exceptions) == {block, *errors}
    assert {"-a", "-b", "-c"} < set(log)
    assert raised.value.__context__ is None or raised.value.__suppress_context__


@each_grouping
async def test_an_error_of_a_manager_that_stands_for_that_of_the_block_takes_its_place(group: Grouping) -> None:
    @asynccontextmanager
    async def translate() -> AsyncIterator[None]:
        try:
            yield
        except LookupError as error:
            raise OSError from error

    with pytest.raises((OSError, ExceptionGroup)) as raised:
        async with group(translate()):
            raise LookupError
    got = raised.value.exceptions if isinstance(raised.value, ExceptionGroup) else (raised.value,)
    assert [type(error) for error in got] == [OSError]


@each_grouping
async def test_what_was_entered_is_exited_when_another_cannot_be(group: Grouping) -> None:
    log = Log()
    error = LookupError()
    with pytest.raises((LookupError, ExceptionGroup)) as raised:
        async with group(log.manager("a"), log.manager("b"), log.manager("c", turns=3, enter=error), log.manager("d")):
            log.append("block")
    got = raised.value.exceptions if isinstance(raised.value, ExceptionGroup) else (raised.value,)
    assert got == (error,)
    assert "block" not in log and {"-a", "-b"} < set(log) and "-c" not in log
    assert ("+d" in log) == ("-d" in log)
    assert requests() == 0


@each_grouping
async def test_what_was_entered_is_exited_when_the_caller_is_cancelled(group: Grouping) -> None:
    log = Log()

    async def host() -> None:
        async with group(log.manager("a"), log.manager("b", turns=100_000)):
            log.append("block")

    task = start_task(host())
    await asyncio.sleep(0.001)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert "block" not in log and "-a" in log and "-b" not in log


@each_grouping
async def test_errors_of_the_way_back_are_not_lost_either(group: Grouping) -> None:
    log = Log()
    with pytest.raises(ExceptionGroup) as raised:
        async with group(log.manager("a", leave=OSError()), log.manager("b", turns=2, enter=LookupError())):
            log.append("block")
    assert {type(error) for error in raised.value.exceptions} == {OSError, LookupError}


@each_grouping
async def test_the_block_cannot_be_skipped(group: Grouping) -> None:
    log = Log()
    with pytest.raises((RuntimeError, ExceptionGroup)) as raised:
        async with group(log.manager("a", takes=BaseException), log.manager("b", turns=2, enter=LookupError())):
            log.append("block")
    assert "block" not in log
    if group is one_after_the_other:
        assert isinstance(raised.value.__cause__, LookupError)

    with pytest.raises(RuntimeError):
        task_group = TaskGroup()
        asyncio.get_running_loop().call_later(0.001, task_group.cancel)
        async with group(task_group, log.manager("b", turns=100_000)):
            log.append("block")
    assert "block" not in log and requests() == 0


@each_grouping
async def test_a_cancellation_goes_on_as_itself_and_exits_see_it(group: Grouping) -> None:
    log = Log()

    async def host() -> None:
        async with group(log.manager("a", turns=1), log.manager("b", turns=1)):
            await asyncio.Event().wait()

    task = start_task(host())
    await asyncio.sleep(0.001)
    task.cancel("enough")
    with pytest.raises(CancelledError, match="enough"):
        await task
    assert {"a saw CancelledError", "b saw CancelledError", "-a", "-b"} < set(log)


@each_grouping
async def test_a_cancellation_whose_place_an_error_took_is_raised_again(group: Grouping) -> None:
    log = Log()

    async def host() -> None:
        try:
            async with group(log.manager("a", leave=OSError())):
                await asyncio.Event().wait()
        except (OSError, ExceptionGroup):
            log.append("error")
        await asyncio.Event().wait()

    task = start_task(host())
    await asyncio.sleep(0.001)
    task.cancel()
    await asyncio.wait([task], timeout=1)
    assert task.cancelled() and task.cancelling() == 1 and log[-1] == "error"


@each_grouping
async def test_a_standard_timeout_in_it_ends_the_block(group: Grouping) -> None:
    log = Log()
    with pytest.raises((TimeoutError, ExceptionGroup)) as raised:
        async with group(log.manager("a"), asyncio.timeout(0.001), log.manager("b")):
            await asyncio.Event().wait()
    got = raised.value.exceptions if isinstance(raised.value, ExceptionGroup) else (raised.value,)
    assert [type(error) for error in got] == [TimeoutError]
    assert {"-a", "-b"} < set(log)
    assert requests() == 0
    await asyncio.sleep(0)


@each_grouping
async def test_a_standard_timeout_in_it_ends_the_entering_of_others(group: Grouping) -> None:
    log = Log()
    with pytest.raises((TimeoutError, ExceptionGroup)):
        async with group(asyncio.timeout(0.001), log.manager("b", turns=10_000)):
            log.append("block")
    assert log == ["+b"] and requests() == 0


@each_grouping
async def test_a_timeout_inside_one_manager_does_not_touch_the_others(group: Grouping) -> None:
    @asynccontextmanager
    async def connected() -> AsyncIterator[str]:
        try:
            async with asyncio.timeout(0):
                await asyncio.Event().wait()
        except TimeoutError:
            await asyncio.sleep(0)
        yield "second host"

    log = Log()
    async with group(log.manager("a", turns=5), connected(), log.manager("b", turns=5), connected()) as values:
        assert list(values) == ["A", "second host", "B", "second host"]
    assert requests() == 0


@each_grouping
@pytest.mark.parametrize("kind", [TaskGroup, asyncio.TaskGroup])
async def test_a_task_group_in_it_ends_the_block_when_a_child_fails(group: Grouping, kind: type[Any]) -> None:
    async def fail() -> None:
        raise LookupError

    with pytest.raises(ExceptionGroup) as raised:
        async with group(kind()) as (tasks,):
            start = tasks.spawn if isinstance(tasks, TaskGroup) else tasks.create_task
            start(fail())
            await asyncio.Event().wait()
    assert raised.value.subgroup(LookupError) is not None
    assert requests() == 0


@each_grouping
async def test_a_cancel_scope_in_it_ends_the_block_quietly(group: Grouping) -> None:
    log = Log()
    async with group(log.manager("a"), CancelScope()) as (_, scope):
        scope.cancel()
        await asyncio.Event().wait()
    assert scope.cancelled_caught and requests() == 0
    assert "-a" in log


@each_grouping
def test_no_loop_is_needed_to_make_one(group: Grouping) -> None:
    made = group(Log().manager("a"))

    async def main() -> list[object]:
        async with made as values:
            return list(values)

    assert run(main()) == ["A"]


@each_grouping
async def test_a_group_can_be_entered_only_once(group: Grouping) -> None:
    made = group()
    async with made:
        pass
    with pytest.raises(RuntimeError, match="only once"):
        async with made:
            pass


@each_grouping
async def test_what_is_no_context_manager_is_refused_at_the_call(group: Grouping) -> None:
    with pytest.raises(TypeError, match="needs context managers, not 5"):
        group(5)


# ---------------------------------------------------------------- one after the other


async def test_they_are_entered_in_order_and_exited_in_reverse() -> None:
    log = Log()
    async with actxgroup(log.manager(name, turns=1) for name in "ab"):
        log.append("block")
    assert log == ["+a", "+b", "block", "-b", "-a"]


async def test_managers_can_be_added_until_it_is_entered() -> None:
    log = Log()
    group = AsyncContextGroup([log.manager("a")])
    group.add(log.manager("b"))
    with pytest.raises(TypeError, match=r"add\(\) needs context managers"):
        group.add(5)  # type: ignore[arg-type]
    async with group as values:
        assert values == ["A", "B"]
        with pytest.raises(RuntimeError, match="before the group is entered"):
            group.add(log.manager("c"))


async def test_each_manager_sees_what_the_block_inside_of_it_raised() -> None:
    log = Log()
    async with AsyncContextGroup(
        [
            log.manager("outer"),
            log.manager("takes", takes=ExceptionGroup),
            log.manager("fails", leave=OSError()),
            log.manager("inner"),
        ]
    ):
        raise LookupError
    assert [entry for entry in log if "saw" in str(entry)] == [
        "inner saw LookupError",
        "fails saw LookupError",
        "takes saw ExceptionGroup",
    ]


async def test_a_timeout_surrounds_what_is_behind_it_also_while_that_is_exited() -> None:
    log = Log()
    with pytest.raises(TimeoutError):
        async with AsyncContextGroup[Any]([asyncio.timeout(0.001), TaskGroup()]) as (_, tasks):
            assert isinstance(tasks, TaskGroup)
            tasks.spawn(asyncio.Event().wait())
        log.append("beyond")
    assert not log and requests() == 0


async def test_they_run_in_the_task_of_the_caller_and_set_its_context_variables() -> None:
    variable: ContextVar[str] = ContextVar("variable")
    tasks = []

    @asynccontextmanager
    async def setting(value: str) -> AsyncIterator[None]:
        tasks.append(asyncio.current_task())
        token = variable.set(value)
        await asyncio.sleep(0)
        try:
            yield
        finally:
            tasks.append(asyncio.current_task())
            variable.reset(token)

    async with AsyncContextGroup([setting("a"), setting("b")]):
        assert variable.get() == "b"
    assert variable.get(None) is None
    assert set(tasks) == {asyncio.current_task()}


# ---------------------------------------------------------------- concurrently


async def test_they_wait_at_the_same_time_to_be_entered_and_to_be_exited() -> None:
    entered, exited = asyncio.Barrier(3), asyncio.Barrier(3)

    @asynccontextmanager
    async def meeting() -> AsyncIterator[None]:
        await entered.wait()
        yield
        await exited.wait()

    async with asyncio.timeout(5), concurrent_contexts(meeting(), meeting(), meeting()):
        pass


async def test_exits_begin_with_the_last_one() -> None:
    log = Log()
    async with concurrent_contexts(log.manager("a"), log.manager("b"), log.manager("c")):
        pass
    assert log[3:] == ["-c", "-b", "-a"]


async def test_each_manager_is_entered_and_exited_in_one_task_of_its_own() -> None:
    variable: ContextVar[str] = ContextVar("variable")
    tasks = []

    @asynccontextmanager
    async def setting(value: str) -> AsyncIterator[None]:
        tasks.append(asyncio.current_task())
        token = variable.set(value)
        try:
            yield
        finally:
            tasks.append(asyncio.current_task())
            variable.reset(token)

    async with concurrent_contexts(setting("a"), setting("b")):
        assert variable.get(None) is None
    a, b = tasks[:2]
    assert tasks[2:] == [b, a] and asyncio.current_task() not in tasks


async def test_errors_of_managers_always_come_in_a_group() -> None:
    with pytest.raises(ExceptionGroup) as raised:
        async with concurrent_contexts(Log().manager("a", leave=OSError())):
            pass
    assert raised.value.message == "errors in concurrent contexts"


async def test_a_cancellation_reaches_the_exits_that_still_run() -> None:
    log = []

    @asynccontextmanager
    async def slow() -> AsyncIterator[None]:
        yield
        try:
            await asyncio.Event().wait()
        except CancelledError:
            await asyncio.sleep(0)
            log.append("cancelled")
            raise

    async def host() -> None:
        async with concurrent_contexts(slow(), slow()):
            pass

    task = start_task(host())
    await asyncio.sleep(0.001)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled() and log == ["cancelled", "cancelled"]


async def test_a_manager_that_cancels_its_task_gets_its_own_cancellation_back() -> None:
    @asynccontextmanager
    async def knows_its_own() -> AsyncIterator[None]:
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().call_later(0.001, task.cancel, "mine")
        try:
            yield
        except CancelledError as error:
            assert task.uncancel() == 0
            if error.args != ("mine",):
                raise

    async with concurrent_contexts(knows_its_own()):
        await asyncio.Event().wait()
    assert requests() == 0


async def test_a_stranger_who_cancels_the_task_of_a_manager_cancels_the_block() -> None:
    tasks: list[Any] = []

    @asynccontextmanager
    async def manager() -> AsyncIterator[None]:
        tasks.append(asyncio.current_task())
        yield

    async def host() -> None:
        async with concurrent_contexts(manager()):
            tasks[0].cancel()
            await asyncio.Event().wait()

    task = start_task(host())
    await asyncio.wait([task])
    assert task.cancelled()


async def test_an_interrupt_of_the_block_is_raised_as_it_is() -> None:
    log = Log()
    with pytest.raises(SystemExit):
        async with concurrent_contexts(log.manager("a", leave=OSError())):
            raise SystemExit(1)


async def test_a_generator_that_is_closed_in_the_block_has_exited_them() -> None:
    log = Log()

    async def generator() -> AsyncGenerator[None, None]:
        async with concurrent_contexts(log.manager("a", turns=1)):
            yield

    steps = generator()
    await anext(steps)
    await steps.aclose()
    assert log == ["+a", "a saw GeneratorExit", "-a"]


@each_grouping
@pytest.mark.skipif(not hasattr(asyncio, "eager_task_factory"), reason="Python 3.12 has it")
async def test_an_eager_task_factory_changes_nothing(group: Grouping) -> None:
    asyncio.get_running_loop().set_task_factory(getattr(asyncio, "eager_task_factory"))  # noqa: B009
    log = Log()
    with pytest.raises((TimeoutError, ExceptionGroup)):
        async with group(log.manager("a"), asyncio.timeout(0.001), log.manager("b", turns=1)):
            await asyncio.Event().wait()
    assert {"+a", "+b", "-a", "-b"} < set(log) and requests() == 0
