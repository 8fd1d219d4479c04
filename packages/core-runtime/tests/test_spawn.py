from __future__ import annotations

import asyncio
import contextvars
import gc
import sys
import threading
import traceback
import weakref
from collections.abc import Callable, Generator
from typing import Any

import pytest

from yamanote.runtime import (
    JoinError,
    JoinHandle,
    TaskGroup,
    TaskWaiter,
    cancel_and_wait,
    park,
    run,
    spawn,
    start_task,
    yield_now,
)


async def value_of(value: Any) -> Any:
    await yield_now()
    return value


async def failing(error: BaseException) -> None:
    await yield_now()
    raise error


class Reports:
    """What reaches the exception handler of the loop."""

    def __init__(self) -> None:
        self.contexts: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: self.contexts.append(context))

    async def collect(self) -> list[Any]:
        for _ in range(3):
            await yield_now()
        gc.collect()
        return [context["exception"] for context in self.contexts]


# starting


async def test_spawned_coroutines_start_on_the_next_turn_in_order() -> None:
    log: list[int] = []

    async def work(number: int) -> None:
        log.append(number)

    handles = [spawn(work(1)), spawn(work(2), work(3)), spawn(work(4))]
    assert log == []
    await yield_now()
    assert log == [1, 2, 3, 4]
    for handle in handles:
        await handle


async def test_an_eager_coroutine_runs_up_to_its_first_wait_in_a_task_of_its_own() -> None:
    tasks: list[Any] = []

    async def work() -> str:
        tasks.append(asyncio.current_task())
        await yield_now()
        return "done"

    here = asyncio.current_task()
    handle = spawn(work(), eager=True)
    assert len(tasks) == 1 and tasks[0] is not here
    assert not handle.is_finished()
    assert await handle == "done"
    ready = spawn(value_of(1), asyncio.sleep(0, 2), eager=True)
    assert await ready == [1, 2]


async def test_an_eager_coroutine_that_never_waits_is_finished_at_once() -> None:
    async def work() -> int:
        return 7

    handle = spawn(work(), eager=True)
    assert handle.is_finished()
    assert handle.result() == 7
    several = spawn(work(), work(), eager=True)
    assert several.is_finished() and several.result() == [7, 7]


async def test_the_context_and_the_name_are_those_that_were_given() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")
    context = contextvars.copy_context()
    context.run(variable.set, "inside")

    async def work() -> tuple[str, str]:
        task = asyncio.current_task()
        assert task is not None
        return variable.get(), task.get_name()

    handle = spawn(work(), name="worker", context=context)
    assert handle.name == "worker"
    assert await handle == ("inside", "worker")
    assert await spawn(work(), work(), name="w", context=context) == [("inside", "w-0"), ("inside", "w-1")]


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager task factories came with Python 3.12")
async def test_a_task_factory_has_no_say_in_when_a_task_starts() -> None:
    loop = asyncio.get_running_loop()
    loop.set_task_factory(asyncio.eager_task_factory)
    log: list[str] = []

    async def work(label: str) -> str:
        log.append(label)
        return label

    handles = [spawn(work("lazy")), spawn(work("eager"), eager=True), spawn(work("a"), work("b"))]
    assert log == ["eager"]
    assert [await handle for handle in handles] == ["lazy", "eager", ["a", "b"]]
    assert log == ["eager", "lazy", "a", "b"]


async def test_awaitables_that_are_no_coroutines_are_welcome() -> None:
    future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    future.set_result(3)

    class Ready:
        def __await__(self) -> Generator[Any, None, int]:
            return 4
            yield

    assert await spawn(future) == 3
    assert await spawn(Ready()) == 4
    assert await spawn(spawn(value_of(5))) == 5
    assert await spawn(yield_now()) is None


@pytest.mark.parametrize("starter", [spawn, start_task])
async def test_nonsense_is_refused_with_advice(starter: Callable[..., Any]) -> None:
    async def work() -> None: ...

    with pytest.raises(TypeError, match=r"not <function .*call it: \w+\(work\(\)\)"):
        starter(work)
    with pytest.raises(TypeError, match="not 3"):
        starter(3)


async def test_one_bad_argument_starts_nothing() -> None:
    log: list[int] = []

    async def work() -> None:
        log.append(1)

    with pytest.raises(TypeError):
        spawn(work(), 3, work())  # type: ignore[call-overload]
    await yield_now()
    assert log == []


@pytest.mark.parametrize("starter", [spawn, start_task])
def test_without_a_loop_the_coroutines_are_closed_and_the_error_gives_advice(starter: Callable[..., Any]) -> None:
    with pytest.raises(RuntimeError, match=r"inside `run"):
        starter(value_of(1))
    with pytest.raises(RuntimeError, match=r"inside `run"):
        spawn(value_of(1), value_of(2))


async def test_a_task_that_nobody_refers_to_lives_until_it_ends() -> None:
    woken: list[weakref.ref[asyncio.Future[None]]] = []
    log: list[str] = []

    async def work() -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        woken.append(weakref.ref(future))
        await future
        log.append("woken")

    spawn(work())
    spawn(work(), work())
    start_task(work())
    await yield_now()
    gc.collect()
    for reference in woken:
        future = reference()
        assert future is not None
        future.set_result(None)
    del future
    await yield_now()
    assert log == ["woken"] * 4


async def test_a_task_that_has_ended_is_forgotten() -> None:
    class Thing:
        pass

    async def work(thing: Thing) -> Thing:
        return thing

    thing = Thing()
    gone = weakref.ref(thing)
    await spawn(work(thing))
    await spawn(work(thing), work(thing))
    await start_task(work(thing))
    await yield_now()
    del thing
    gc.collect()
    assert gone() is None


# awaiting


async def test_a_handle_gives_the_value_as_often_as_asked() -> None:
    for value in (None, 0, "", ValueError("a value like any other")):
        handle = spawn(value_of(value))
        assert not handle.is_finished()
        assert await handle is value
        assert handle.is_finished()
        assert await handle is value
        assert await asyncio.gather(handle, handle) == [value, value]


async def test_several_give_a_list_in_order_and_none_an_empty_one() -> None:
    assert await spawn(asyncio.sleep(0.001, "slow"), value_of("fast")) == ["slow", "fast"]
    assert await spawn() == []


async def test_awaiting_costs_no_more_loop_turns_than_awaiting_the_task() -> None:
    turns = 0
    counting = True

    def count() -> None:
        nonlocal turns
        turns += 1
        if counting:
            loop.call_soon(count)

    async def nothing() -> None: ...

    loop = asyncio.get_running_loop()
    loop.call_soon(count)
    await asyncio.Task(nothing(), loop=loop)
    of_a_task, turns = turns, 0
    await spawn(nothing())
    of_a_handle = turns
    counting = False
    await yield_now()
    assert of_a_handle <= of_a_task


async def test_the_error_of_a_task_is_raised() -> None:
    error = LookupError("here")
    handle = spawn(failing(error))
    for _ in range(2):
        with pytest.raises(LookupError) as caught:
            await handle
        assert caught.value is error


async def test_of_several_the_first_error_in_order_is_raised_when_all_have_ended() -> None:
    log: list[str] = []

    async def late() -> None:
        try:
            await yield_now()
            await yield_now()
            raise LookupError
        finally:
            log.append("late")

    async def last() -> None:
        for _ in range(6):
            await yield_now()
        log.append("last")

    reports = Reports()
    early = ArithmeticError()
    with pytest.raises(LookupError):
        await spawn(late(), failing(early), last())
    assert log == ["late", "last"]
    assert await reports.collect() == [early]  # none is lost


async def test_cancelling_who_waits_leaves_the_task_alone() -> None:
    handle = spawn(value_of(1))
    waiter = start_task(park(handle))
    other = start_task(_await(handle))
    await yield_now()
    await cancel_and_wait(waiter, other)
    assert await handle == 1


async def _await(handle: JoinHandle[Any]) -> Any:
    return await handle


async def test_who_is_cancelled_while_it_awaits_a_handle_goes_on_in_its_own_context() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="of somebody else")
    handle = spawn(value_of(1))
    seen: list[str] = []

    async def wait() -> None:
        variable.set("its own")
        try:
            await handle
        finally:
            seen.append(variable.get())

    tasks = [start_task(wait()) for _ in range(2)]
    await yield_now()
    tasks[0].cancel()
    await asyncio.wait(tasks)
    assert seen == ["its own", "its own"]


async def test_awaiting_an_aborted_task_is_an_error_and_no_cancellation_and_a_new_one_each_time() -> None:
    handle = spawn(asyncio.sleep(3600), name="sleeper")
    await yield_now()
    handle.abort("enough")
    errors: list[JoinError] = []
    for _ in range(2):
        with pytest.raises(JoinError, match="sleeper was cancelled: enough") as caught:
            await handle
        errors.append(caught.value)
    assert errors[0] is not errors[1]
    assert errors[0].name == "sleeper" and errors[0].reason == "enough"
    several = spawn(asyncio.sleep(3600), value_of(1))
    several.abort()
    with pytest.raises(JoinError):
        await several


async def test_abort_lets_the_task_clean_up_and_changes_nothing_that_has_ended() -> None:
    log: list[str] = []

    async def work() -> str:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            await yield_now()
            log.append("cleaned up")
        return "value"

    handle = spawn(work())
    await yield_now()
    handle.abort()
    assert not handle.is_finished()
    assert await handle == "value"
    handle.abort()
    assert await handle == "value" and log == ["cleaned up"]


async def test_a_task_can_abort_itself_and_keeps_its_value_if_it_ends_first() -> None:
    async def work() -> str:
        handle.abort()
        return "value"

    handle = spawn(work())
    assert await handle == "value"

    async def wait() -> None:
        handle.abort("by itself")
        await asyncio.sleep(3600)

    handle = spawn(wait())
    with pytest.raises(JoinError, match="by itself"):
        await handle


async def test_a_task_that_awaits_its_own_handle_is_told_so() -> None:
    async def work() -> None:
        await handle

    handle: JoinHandle[Any] = spawn(work())
    with pytest.raises(RuntimeError, match="own end"):
        await handle
    handle = spawn(work(), value_of(1))
    with pytest.raises(RuntimeError, match="own end"):
        await handle

    async def stop() -> None:
        await cancel_and_wait(handle)

    handle = spawn(stop(), value_of(1))
    with pytest.raises(RuntimeError, match="own end"):
        await handle


@pytest.mark.skipif(sys.version_info < (3, 14), reason="Python keeps these records from 3.14 on")
async def test_the_call_graph_shows_who_awaits_a_handle_and_a_group() -> None:
    async def child() -> Any:
        await yield_now()
        graph = asyncio.capture_call_graph()  # type: ignore[attr-defined,unused-ignore]
        return [edge.future.get_name() for edge in graph.awaited_by]

    async def host() -> Any:
        async with TaskGroup() as group:
            handle = group.spawn(child())
        return await handle

    assert await spawn(host(), name="host") == ["host"]
    handle = spawn(child())
    task = start_task(_await(handle), name="waiter")
    assert await task == ["waiter"]


async def test_a_handle_tells_whether_its_task_was_cancelled() -> None:
    finished, aborted = spawn(asyncio.sleep(0)), spawn(asyncio.sleep(60))
    assert not finished.is_cancelled() and not aborted.is_cancelled()
    await finished
    await cancel_and_wait(aborted)
    assert not finished.is_cancelled() and aborted.is_cancelled()


async def test_an_id_belongs_to_one_handle() -> None:
    handles = [spawn(value_of(number)) for number in range(10)]
    assert len({handle.id for handle in handles}) == 10
    for handle in handles:
        await handle


async def test_it_shows_its_state() -> None:
    handle = spawn(value_of(1), name="named")
    assert "'named' running" in repr(handle)
    await handle
    assert "finished" in repr(handle)
    handle = spawn(value_of(1))
    handle.abort()
    await cancel_and_wait(handle)
    assert "cancelled" in repr(handle)


# other loops and threads


def in_a_thread(function: Callable[[], Any]) -> Callable[[], Any]:
    """Start `function` in a thread; call the result to join it and to get what it returned or raised."""
    outcome: list[Any] = []

    def call() -> None:
        try:
            outcome.append((function(), None))
        except BaseException as error:
            outcome.append((None, error))

    thread = threading.Thread(target=call)
    thread.start()

    def join() -> Any:
        thread.join()
        value, error = outcome[0]
        if error is not None:
            raise error
        return value

    return join


async def join_later(join: Callable[[], Any], handle: JoinHandle[Any]) -> Any:
    await cancel_and_wait() if handle.is_finished() else await asyncio.wait([handle._future])
    await asyncio.sleep(0.001)
    return join()


def test_nothing_keeps_tasks_of_two_loops_that_end_at_the_same_moment() -> None:
    kept: list[object] = []

    async def end_one() -> None:
        handle = spawn(yield_now())
        await handle
        task = weakref.ref(handle._future)
        del handle
        await asyncio.sleep(0)
        gc.collect()
        kept.append(task())

    class Loop(asyncio.SelectorEventLoop):
        def call_soon(self, callback: Any, *args: Any, context: Any = None) -> asyncio.Handle:
            def meanwhile(*args: Any) -> None:
                in_a_thread(lambda: run(end_one()))()
                callback(*args)

            of_a_task = isinstance(getattr(callback, "__self__", None), asyncio.Task)
            return super().call_soon(callback if of_a_task else meanwhile, *args, context=context)

    run(end_one(), loop_factory=Loop)
    assert len(kept) > 1 and not any(kept)


async def test_a_handle_can_be_awaited_on_another_loop() -> None:
    handle = spawn(asyncio.sleep(0.01, "value"))
    joins = [in_a_thread(lambda: run(_await(handle))) for _ in range(3)]
    assert [await join_later(join, handle) for join in joins] == ["value"] * 3
    aborted = spawn(asyncio.sleep(3600))
    join = in_a_thread(lambda: run(_await(aborted)))
    in_a_thread(lambda: aborted.abort("from a thread"))()
    with pytest.raises(JoinError, match="from a thread"):
        await join_later(join, aborted)


async def test_a_plain_thread_blocks_for_the_result() -> None:
    handle = spawn(asyncio.sleep(0.01, "value"))
    join = in_a_thread(handle.result)
    assert await join_later(join, handle) == "value"
    assert handle.result() == "value"  # it has ended: nobody need wait
    failed = spawn(failing(LookupError()))
    join = in_a_thread(lambda: failed.result(60))
    with pytest.raises(LookupError):
        await join_later(join, failed)


async def test_blocking_ends_after_a_timeout_and_is_refused_in_a_thread_with_a_loop() -> None:
    handle = spawn(asyncio.sleep(3600))
    with pytest.raises(RuntimeError, match="block the event loop"):
        handle.result()
    with pytest.raises(TimeoutError):
        in_a_thread(lambda: handle.result(0))()
    await cancel_and_wait(handle)


def test_waiting_for_a_task_whose_loop_was_closed_is_an_error() -> None:
    async def lose() -> JoinHandle[None]:
        return spawn(asyncio.sleep(3600))

    loop = asyncio.new_event_loop()
    handle = loop.run_until_complete(lose())
    loop.close()
    handle.abort()
    with pytest.raises(JoinError, match="loop has been closed"):
        handle.result(60)
    with pytest.raises(JoinError, match="loop has been closed"):
        run(_await(handle))
    handle._future._log_destroy_pending = False  # type: ignore[attr-defined]
    handle._future.get_coro().close()  # type: ignore[attr-defined]


async def test_a_cancelled_wait_on_another_loop_leaves_nothing_behind() -> None:
    handle = spawn(asyncio.sleep(3600))

    async def give_up() -> None:
        task = start_task(_await(handle))
        await yield_now()
        await cancel_and_wait(task)

    in_a_thread(lambda: run(give_up()))()
    await yield_now()
    await yield_now()
    assert len(handle._future._callbacks) == 1  # type: ignore[attr-defined]  # that of the set of running tasks
    await cancel_and_wait(handle)


# reporting


async def test_an_error_that_nobody_asks_for_is_reported_once() -> None:
    reports = Reports()
    error = LookupError("lost")
    spawn(failing(error))
    assert await reports.collect() == [error]
    handle = spawn(failing(error))
    assert await reports.collect() == [error]  # as long as there is a handle somebody may ask
    del handle
    assert await reports.collect() == [error, error]


async def test_an_error_that_somebody_got_is_not_reported() -> None:
    reports = Reports()
    for ask in (_await, park, asyncio.wait_for):
        handle = spawn(failing(LookupError()))
        with pytest.raises(LookupError):
            await (ask(handle) if ask is not asyncio.wait_for else asyncio.wait_for(_await(handle), 60))
        del handle
    assert await reports.collect() == []


@pytest.mark.parametrize("ask", [_await, park])
async def test_an_error_that_came_together_with_a_cancellation_of_who_asked_is_reported(ask: Any) -> None:
    reports = Reports()
    error = LookupError("lost")
    release = asyncio.Event()

    async def fail() -> None:
        await release.wait()
        raise error

    handle = spawn(fail())
    waiter = start_task(ask(handle))
    await yield_now()
    release.set()
    while not handle.is_finished():
        await yield_now()
    # `park` has been settled, or is about to be; the waiter has not run since.
    waiter.cancel()
    await cancel_and_wait(waiter)
    if waiter.cancelled():
        del handle, waiter
        assert await reports.collect() == [error]


async def test_an_error_that_was_settled_and_given_back_is_reported_unless_another_got_it() -> None:
    reports = Reports()
    for others in (0, 1):
        error = LookupError("lost")
        handle = spawn(failing(error))
        await asyncio.wait([handle._future])
        waiter: TaskWaiter[Any] = TaskWaiter()
        handle.register(waiter)
        assert waiter.error is error
        handle.withdraw(waiter)
        for _ in range(others):
            with pytest.raises(LookupError):
                await handle
        del handle, waiter
    assert len(await reports.collect()) == 1


async def test_an_error_that_two_threads_get_at_once_is_not_reported() -> None:
    both = threading.Barrier(2)

    class Handle(JoinHandle[Any]):
        """Both threads find that nobody has got the error yet."""

        _kept: Any = None

        @property
        def _delivery(self) -> Any:
            return self._kept

        @_delivery.setter
        def _delivery(self, delivery: Any) -> None:
            if delivery is not None:
                both.wait(10)
            self._kept = delivery
            if delivery is not None:
                both.wait(10)

    reports = Reports()
    task = start_task(failing(OSError("no answer")))
    await asyncio.wait([task])
    handle: JoinHandle[Any] = Handle(task)
    got: list[BaseException] = []

    def ask(handle: JoinHandle[Any]) -> None:
        try:
            handle.result()
        except OSError as error:
            got.append(error)

    threads = [threading.Thread(target=ask, args=[handle]) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 2
    got.clear()
    del handle, task
    assert await reports.collect() == []


@pytest.mark.parametrize("ask", [_await, park])
async def test_an_error_is_reported_as_soon_as_nobody_can_ask_for_it_any_more(ask: Any) -> None:
    reports = Reports()
    release = asyncio.Event()

    async def fail() -> None:
        await release.wait()
        raise LookupError

    gc.collect()
    gc.disable()
    try:
        handle = spawn(fail())
        waiter = start_task(ask(handle))
        await yield_now()
        await cancel_and_wait(waiter)
        del waiter
        release.set()
        await asyncio.wait([handle._future])
        assert reports.contexts == []
        del handle
        await yield_now()
        assert len(reports.contexts) == 1
    finally:
        gc.enable()


async def test_an_error_that_was_raised_by_a_handle_is_no_reference_cycle() -> None:
    class Error(Exception):
        pass

    async def fail() -> None:
        await yield_now()
        raise Error

    gc.collect()
    gc.disable()
    try:
        for wait in (False, True):
            for through_park in (False, True):
                handle = spawn(fail())
                if wait:
                    await asyncio.wait([handle._future])
                try:
                    await (park(handle) if through_park else handle)
                except Error as error:
                    gone = weakref.ref(error)
                del handle
                await yield_now()
                assert gone() is None
    finally:
        gc.enable()


# cancel_and_wait


async def test_cancel_and_wait_returns_when_all_have_ended_however_they_end() -> None:
    log: list[str] = []

    async def clean() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            await yield_now()
            log.append("clean")

    async def swallow() -> str:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError as error:
            log.append(str(error))
        return "value"

    async def break_down() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            raise LookupError

    tasks = [start_task(clean()), start_task(swallow()), start_task(break_down())]
    handle = spawn(asyncio.sleep(3600))
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    done = spawn(value_of(1))
    await done
    await yield_now()
    assert await cancel_and_wait(*tasks, handle, future, done, reason="stop") is None  # type: ignore[func-returns-value]
    assert log == ["stop", "clean"]
    assert tasks[0].cancelled() and tasks[1].result() == "value" and future.cancelled() and handle.is_finished()
    with pytest.raises(LookupError):
        tasks[2].result()
    assert await done == 1
    await cancel_and_wait()


async def test_cancel_and_wait_refuses_the_calling_task() -> None:
    task = asyncio.current_task()
    assert task is not None
    other = spawn(asyncio.sleep(0))
    with pytest.raises(RuntimeError, match="itself"):
        await cancel_and_wait(other, task)
    await other


async def test_a_caller_that_is_cancelled_still_waits_and_then_raises_it() -> None:
    release = asyncio.Event()

    async def slow() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            await release.wait()

    slow_task = start_task(slow())
    await yield_now()
    caller = start_task(cancel_and_wait(slow_task))
    await yield_now()
    caller.cancel("first")
    await yield_now()
    caller.cancel("second")
    await yield_now()
    assert not caller.done()
    release.set()
    with pytest.raises(asyncio.CancelledError, match="first"):
        await caller
    assert slow_task.cancelled()


async def test_cancel_and_wait_reaches_tasks_of_other_loops() -> None:
    started: list[JoinHandle[None]] = []
    ready = threading.Event()

    async def other_loop() -> str:
        started.append(spawn(asyncio.sleep(3600)))
        ready.set()
        try:
            await started[0]
        except JoinError:
            return "aborted"
        return "not aborted"

    join = in_a_thread(lambda: run(other_loop()))
    ready.wait()
    await cancel_and_wait(started[0])
    assert join() == "aborted"


async def test_a_task_of_a_closed_loop_is_not_waited_for():
    loop = asyncio.new_event_loop()
    task = loop.create_task(asyncio.sleep(3600))
    await asyncio.to_thread(loop.run_until_complete, asyncio.sleep(0))
    loop.close()
    await asyncio.wait_for(cancel_and_wait(task), 5)
    task._log_destroy_pending = False
    task.get_coro().close()


# where it failed


def calls_in(error: BaseException) -> list[str]:
    return [call.name for call in traceback.extract_tb(error.__traceback__)]


async def fails_inside() -> None:
    await failing(OSError("no answer"))


async def awaited(handle: JoinHandle[None]) -> None:
    await handle


@pytest.mark.parametrize("wait", [awaited, park])
async def test_an_error_shows_where_it_failed_however_often_it_is_asked_for(wait: Any) -> None:
    handle = spawn(fails_inside())
    shown = []
    for _ in range(3):
        with pytest.raises(OSError) as caught:
            await wait(handle)
        shown.append(calls_in(caught.value))
    assert shown[0] == shown[1] == shown[2]
    assert shown[0][-2:] == ["fails_inside", "failing"]


def test_an_error_shows_in_each_thread_where_it_failed() -> None:
    async def main() -> JoinHandle[None]:
        handle = spawn(fails_inside())
        with pytest.raises(OSError):
            await handle
        return handle

    handle = run(main())
    shown = []
    for _ in range(2):
        with pytest.raises(OSError) as caught:
            handle.result()
        shown.append(calls_in(caught.value))
    assert shown[0] == shown[1]
    assert shown[0][-2:] == ["fails_inside", "failing"]


async def test_a_group_that_raises_what_was_awaited_shows_where_it_failed() -> None:
    with pytest.raises(ExceptionGroup) as caught:
        async with TaskGroup() as group:
            handle = group.spawn(fails_inside())
            for _ in range(2):
                with pytest.raises((OSError, asyncio.CancelledError)):
                    await handle
    assert calls_in(caught.value.exceptions[0])[-2:] == ["fails_inside", "failing"]
