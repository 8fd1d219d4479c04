from __future__ import annotations

import asyncio
import contextvars
import functools
import gc
import inspect
import sys
import weakref
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from yamanote.runtime import (
    EventLoop,
    TaskGroup,
    async_eager,
    coro_eager,
    eager,
    make_task,
    park,
    prime,
    primed,
    run,
    spawn,
    start_task,
    yield_now,
)
from yamanote.runtime._eager_start import start_now
from yamanote.testing import no_leaks
from yamanote.time import VirtualClock, timeout

Start = Callable[..., asyncio.Task[Any]]


def in_the_way_of_3_11(coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    """How tasks are started where Python cannot do it. It works, and is tested, everywhere."""
    return start_now(coroutine, asyncio.get_running_loop(), None, None)


STARTS: list[Start] = [eager, coro_eager, prime, functools.partial(start_task, eager=True), in_the_way_of_3_11]
each_start = pytest.mark.parametrize("start", STARTS, ids=lambda start: getattr(start, "__name__", "start_task"))


@contextmanager
def reports() -> Iterator[list[dict[str, Any]]]:
    """What reaches the exception handler of the loop."""
    contexts: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: contexts.append(context))
    yield contexts
    loop.set_exception_handler(None)


def only_error(contexts: list[dict[str, Any]]) -> BaseException | None:
    gc.collect()
    (context,) = contexts
    error: BaseException | None = context["exception"]
    return error


# the order


def as_it_is(coroutine: Coroutine[Any, Any, None]) -> Awaitable[None]:
    return coroutine


@pytest.mark.parametrize("loop_class", [asyncio.SelectorEventLoop, EventLoop])
@pytest.mark.parametrize(
    ("convert", "order"),
    [
        (as_it_is, ["a", "b", "c", 1, 2]),
        (lambda coroutine: asyncio.create_task(coroutine), ["a", "b", 1, "c", 2]),
        (eager, ["a", 1, "b", "c", 2]),
        (coro_eager, ["a", 1, "b", "c", 2]),
        (in_the_way_of_3_11, ["a", 1, "b", "c", 2]),
    ],
)
def test_an_eager_coroutine_starts_where_it_is_called(
    convert: Any, order: list[object], loop_class: type[asyncio.AbstractEventLoop]
) -> None:
    log: list[object] = []

    async def work() -> None:
        log.append(1)
        await asyncio.sleep(0.2)
        log.append(2)

    async def caller() -> None:
        with VirtualClock().patch_loop():
            log.append("a")
            future = convert(work())
            log.append("b")
            await asyncio.sleep(0.1)
            log.append("c")
            await future

    run(caller(), loop_factory=loop_class)
    assert log == order


async def test_a_decorated_function_sends_its_request_before_the_caller_goes_on() -> None:
    log: list[str] = []

    @eager
    async def get_slow_remote_data() -> str:
        log.append("request")
        await yield_now()
        log.append("answer")
        return "important data"

    future = get_slow_remote_data()
    log.append("local computation")
    assert await future == "important data"
    assert log == ["request", "local computation", "answer"]


@each_start
async def test_eager_starts_may_be_nested(start: Start) -> None:
    log: list[object] = []
    tasks: list[Any] = [asyncio.current_task()]

    async def work(depth: int) -> None:
        tasks.append(asyncio.current_task())
        log.append(depth)
        if depth:
            inner = start(work(depth - 1))
        assert asyncio.current_task() is tasks[-1 - depth]
        log.append(-depth)
        await yield_now()
        assert asyncio.current_task() is tasks[-1 - depth]
        if depth:
            await inner

    await start(work(3))
    assert asyncio.current_task() is tasks[0]
    assert log == [3, 2, 1, 0, 0, -1, -2, -3]
    assert len(set(tasks)) == 5


# its own task


@each_start
async def test_all_of_it_runs_in_one_task_of_its_own(start: Start) -> None:
    here = asyncio.current_task()

    async def work() -> list[Any]:
        tasks = [asyncio.current_task()]
        await yield_now()
        return [*tasks, asyncio.current_task()]

    task = start(work())
    assert type(task) is asyncio.Task and task is not here and not task.done()
    assert asyncio.current_task() is here
    assert task in asyncio.all_tasks()
    assert await task == [task, task]


@each_start
async def test_what_never_waits_has_ended_when_the_call_returns(start: Start) -> None:
    async def work() -> int:
        return 7

    task = start(work())
    assert type(task) is asyncio.Task
    assert task.done() and task.result() == 7
    assert await task == 7 == await task


@each_start
async def test_it_runs_in_a_copy_of_the_context_of_the_caller(start: Start) -> None:
    variable = contextvars.ContextVar("variable", default="nothing")
    variable.set("outside")

    async def work() -> str:
        before = variable.get()
        token = variable.set("inside")
        await yield_now()
        assert variable.get() == "inside"
        variable.reset(token)  # the same context as before the wait
        return before

    task = start(work())
    assert variable.get() == "outside"
    variable.set("later")
    assert await task == "outside"


@each_start
async def test_a_timeout_entered_before_the_first_wait_is_that_of_the_task(start: Start) -> None:
    async def work(limit: Callable[[float], Any]) -> str:
        try:
            async with limit(1):
                await asyncio.sleep(5)
        except TimeoutError:
            return "timed out"
        return "not timed out"

    with VirtualClock().patch_loop():
        here = asyncio.current_task()
        assert here is not None
        tasks = [start(work(asyncio.timeout)), start(work(timeout))]
        await asyncio.sleep(3)  # not cancelled here
        assert [task.result() for task in tasks] == ["timed out"] * 2
        assert here.cancelling() == 0 and all(task.cancelling() == 0 for task in tasks)


@each_start
async def test_timeouts_of_nothing_do_not_cancel_their_common_parent(start: Start) -> None:
    async def work() -> str:
        try:
            async with asyncio.timeout(0):
                await asyncio.sleep(5)
        except TimeoutError:
            return "timed out"
        return "not timed out"

    assert await asyncio.gather(*(start(work()) for _ in range(3))) == ["timed out"] * 3
    assert await start(asyncio.wait_for(start(work()), 5)) == "timed out"


@each_start
@pytest.mark.parametrize("group_class", [asyncio.TaskGroup, TaskGroup])
async def test_a_task_group_entered_before_the_first_wait_is_that_of_the_task(start: Start, group_class: Any) -> None:
    async def fail() -> None:
        raise LookupError

    async def work() -> str:
        try:
            async with group_class() as group:
                (group.spawn if group_class is TaskGroup else group.create_task)(fail())
                await asyncio.sleep(5)
        except* LookupError:
            pass
        return "handled"

    task = start(work())
    await yield_now()
    assert await task == "handled"
    current = asyncio.current_task()
    assert current is not None and current.cancelling() == 0


@each_start
async def test_it_can_be_started_in_a_callback_where_no_task_runs(start: Start) -> None:
    started: list[Any] = []

    async def work() -> str:
        started.append(asyncio.current_task())
        async with asyncio.timeout(5):
            await asyncio.sleep(1)
        return "done"

    def call_back() -> None:
        started.append(start(work()))
        started.append(asyncio.current_task())

    with VirtualClock().patch_loop():
        asyncio.get_running_loop().call_soon(call_back)
        await yield_now()
        own, task, current = started
        assert own is task and current is None
        assert await task == "done"


@each_start
async def test_a_timeout_in_a_task_started_by_a_callback_fires(start: Start) -> None:
    tasks: list[Any] = []

    async def work() -> None:
        async with asyncio.timeout(1):
            await asyncio.sleep(5)

    with VirtualClock().patch_loop():
        asyncio.get_running_loop().call_soon(lambda: tasks.append(start(work())))
        await asyncio.sleep(3)
        with pytest.raises(TimeoutError):
            tasks[0].result()


@each_start
async def test_tasks_made_by_the_eager_part_are_not_eager_themselves(start: Start) -> None:
    log: list[str] = []
    children: list[Any] = []

    async def child() -> None:
        log.append("child")

    async def work() -> None:
        children.append(asyncio.create_task(child()))
        log.append("work")

    start(work())
    log.append("caller")
    await yield_now()
    assert log == ["work", "caller", "child"]


@each_start
async def test_nobody_needs_to_keep_the_task(start: Start) -> None:
    if start is in_the_way_of_3_11:
        pytest.skip("the bare task, which start_task keeps alive")
    log: list[str] = []

    class Box:
        def register(self, waiter: Any) -> None:
            log.append("waits")

        def withdraw(self, waiter: Any) -> None:
            log.append("withdrawn")

    async def work() -> None:
        await park(Box())

    reference = weakref.ref(start(work()))
    gc.collect()
    task = reference()
    assert task is not None and log == ["waits"]
    task.cancel()
    await asyncio.wait([task])


async def test_the_name_and_the_context_are_those_that_were_given() -> None:
    variable = contextvars.ContextVar("variable", default="nothing")
    context = contextvars.copy_context()
    context.run(variable.set, "inside")
    loop = asyncio.get_running_loop()

    async def work() -> tuple[str, str]:
        task = asyncio.current_task()
        assert task is not None
        await yield_now()
        return task.get_name(), variable.get()

    assert await make_task(work(), loop, "name", context, True) == ("name", "inside")
    assert await start_now(work(), loop, "name", context) == ("name", "inside")
    assert variable.get() == "nothing"


@each_start
def test_nothing_keeps_the_loop_alive(start: Start) -> None:
    loops: list[weakref.ref[asyncio.AbstractEventLoop]] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loops.append(weakref.ref(loop))
        loop.call_soon(lambda: start(asyncio.sleep(-1)))
        await start(asyncio.sleep(0))

    run(main())
    gc.collect()
    assert loops[0]() is None


@pytest.mark.parametrize("loop_class", [asyncio.SelectorEventLoop, EventLoop])
def test_it_works_on_a_loop_in_debug_mode(loop_class: Any) -> None:
    async def main() -> list[bool]:
        tasks = [start(asyncio.sleep(0, True)) for start in STARTS]
        return list(await asyncio.gather(*tasks))

    assert run(main(), loop_factory=loop_class, debug=True) == [True] * len(STARTS)


def test_it_works_on_uvloop() -> None:
    uvloop = pytest.importorskip("uvloop")

    async def work() -> str:
        async with asyncio.timeout(5):
            await asyncio.sleep(0)
        return "done"

    async def main() -> None:
        for start in STARTS:
            log: list[str] = []
            task = start(asyncio.wait_for(work(), 5))
            asyncio.get_running_loop().call_soon(log.append, "a turn")
            assert not task.done() and not log
            assert await task == "done"

    run(main(), loop_factory=uvloop.new_event_loop)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager task factories came with Python 3.12")
def test_it_makes_no_difference_under_an_eager_task_factory() -> None:
    async def work() -> Any:
        await yield_now()
        return asyncio.current_task()

    async def main() -> None:
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
        for start in STARTS:
            task = start(work())
            assert await task is task

    run(main())


# errors


@each_start
async def test_an_error_before_the_first_wait_is_raised_where_the_task_is_awaited(start: Start) -> None:
    async def work() -> None:
        raise LookupError("eager")

    task = start(work())
    assert task.done()
    with pytest.raises(LookupError, match="eager"):
        await task


@each_start
async def test_an_error_that_nobody_asks_for_is_reported_once(start: Start) -> None:
    async def work() -> None:
        raise LookupError("forgotten")

    with reports() as contexts:
        start(work())
        await yield_now()
        assert isinstance(only_error(contexts), LookupError)


@each_start
async def test_a_cancellation_that_it_raises_itself_makes_it_a_cancelled_task(start: Start) -> None:
    async def work() -> None:
        raise asyncio.CancelledError("by itself")

    task = start(work())
    assert task.cancelled()
    with pytest.raises(asyncio.CancelledError):
        await task


@each_start
@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
async def test_an_interrupt_in_the_eager_part_comes_out_of_the_call(start: Start, kind: type[BaseException]) -> None:
    here = asyncio.current_task()

    async def work() -> None:
        raise kind

    with reports() as contexts:
        with pytest.raises(kind):
            start(work())
        assert asyncio.current_task() is here  # whose turn it is again
        await yield_now()
        if isinstance(asyncio.get_running_loop(), EventLoop):
            assert not contexts  # it was told to the caller
        else:
            assert isinstance(only_error(contexts), kind)


@each_start
async def test_a_task_cancelled_at_its_first_wait_cleans_up_in_its_own_name(start: Start) -> None:
    log: list[object] = []

    async def work() -> None:
        try:
            await asyncio.sleep(5)
        finally:
            log.append(asyncio.current_task())

    task = start(work())
    task.cancel("enough")
    with pytest.raises(asyncio.CancelledError):
        await task
    assert log == [task] and task.cancelling() == 1


@each_start
async def test_a_task_may_be_cancelled_by_its_own_eager_part(start: Start) -> None:
    async def work() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(5)

    task = start(work())
    await asyncio.wait([task])
    assert task.cancelled()


@pytest.mark.parametrize("start", [eager, coro_eager, prime, async_eager(asyncio.sleep), eager(asyncio.sleep)])
def test_without_a_loop_nothing_of_the_coroutine_runs(start: Any) -> None:
    log: list[str] = []

    async def work() -> None:
        log.append("ran")

    coroutine = work()
    if start in (eager, coro_eager, prime):
        with pytest.raises(RuntimeError, match="needs a running event loop"):
            start(coroutine)
        with pytest.raises(RuntimeError, match="cannot reuse"):  # it has been closed
            coroutine.send(None)
    else:
        coroutine.close()
        with pytest.raises(RuntimeError, match="needs a running event loop"):
            start(0)
    assert log == []


# functions


class Counter:
    def __init__(self) -> None:
        self.count = 0

    async def add(self, number: int) -> int:
        self.count += number
        await yield_now()
        return self.count

    @eager
    async def add_one(self) -> int:
        return await self.add(1)

    async def __call__(self, number: int) -> int:
        return await self.add(number)


@pytest.mark.parametrize("decorate", [eager, async_eager, primed])
async def test_whatever_returns_a_coroutine_can_be_made_eager(decorate: Callable[..., Any]) -> None:
    counter = Counter()
    for function in (
        decorate(counter.add),
        decorate(functools.partial(counter.add)),
        decorate(counter),
        decorate(lambda number: counter.add(number)),
    ):
        before = counter.count
        task = function(2)
        assert type(task) is asyncio.Task
        assert counter.count == before + 2
        assert await task == before + 2


async def test_a_method_can_be_decorated() -> None:
    counter = Counter()
    task = counter.add_one()
    assert counter.count == 1
    assert await task == 1


def test_a_decorated_function_keeps_its_name_and_its_documentation() -> None:
    async def work() -> None:
        """Works."""

    for decorated in (eager(work), async_eager(work), primed(work)):
        assert decorated.__name__ == "work" and decorated.__doc__ == "Works."
        assert not inspect.iscoroutinefunction(decorated)  # it returns a task


async def test_other_awaitables_are_welcome() -> None:
    future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    task = eager(future)
    assert not task.done()
    future.set_result(3)
    assert await task == 3
    assert await prime(spawn(asyncio.sleep(0, 4))) == 4


@pytest.mark.parametrize("nonsense", [None, 3, "text"])
async def test_nonsense_is_refused_at_the_call(nonsense: Any) -> None:
    for function in (eager, coro_eager, async_eager, prime, primed):
        with pytest.raises(TypeError, match="needs a"):
            function(nonsense)


async def test_a_function_given_for_a_coroutine_is_refused_with_advice() -> None:
    with pytest.raises(TypeError, match=r"call it: coro_eager\(sleep\(\)\)"):
        coro_eager(asyncio.sleep)  # type: ignore[arg-type]


async def test_a_decorated_function_that_returns_no_coroutine_is_refused_when_it_is_called() -> None:
    with pytest.raises(TypeError, match=r"eager\(\) needs a coroutine"):
        eager(lambda: 3)()  # type: ignore[arg-type,return-value]


# the way of Python 3.11


async def test_the_loop_is_as_it_was_after_a_start() -> None:
    loop = asyncio.get_running_loop()
    before = dict(vars(loop))
    with no_leaks():
        await in_the_way_of_3_11(asyncio.sleep(0))
    assert vars(loop).keys() == before.keys()
    with pytest.raises(TypeError, match="coroutine was expected"):
        start_now(3, loop, None, None)  # type: ignore[arg-type]
    assert "call_soon" not in vars(loop)


async def test_a_call_soon_that_somebody_has_put_on_the_loop_stays_there() -> None:
    loop = asyncio.get_running_loop()
    original = loop.call_soon
    called: list[object] = []

    def spy(callback: Any, *args: Any, **options: Any) -> Any:
        called.append(callback)
        return original(callback, *args, **options)

    loop.call_soon = spy  # type: ignore[method-assign]
    try:
        task = in_the_way_of_3_11(asyncio.sleep(0))
        assert loop.call_soon is spy
        await task
        assert called
    finally:
        del loop.call_soon


async def test_callbacks_scheduled_while_the_task_is_being_made_are_run_by_the_loop() -> None:
    loop = asyncio.get_running_loop()
    log: list[str] = []

    class Name:
        """Runs in the middle of the constructor, as a finalizer or a signal handler may."""

        def __str__(self) -> str:
            loop.call_soon(log.append, "callback")
            log.append("constructor")
            return "name"

    async def work() -> None:
        log.append("task")

    task = start_now(work(), loop, Name(), None)  # type: ignore[arg-type]
    assert task.done() and task.get_name() == "name"
    assert log == ["constructor", "task"]
    await yield_now()
    assert log == ["constructor", "task", "callback"]


def test_on_a_loop_that_hides_its_attributes_it_starts_on_the_next_turn() -> None:
    class Sealed(asyncio.SelectorEventLoop):
        @property
        def __dict__(self) -> Any:
            raise AttributeError

    async def main() -> str:
        task = in_the_way_of_3_11(asyncio.sleep(-1, "done"))
        assert not task.done()
        return str(await task)

    assert run(main(), loop_factory=Sealed) == "done"
