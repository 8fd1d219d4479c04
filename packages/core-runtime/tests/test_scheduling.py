from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from asyncio import Handle
from collections.abc import Callable
from typing import Any, ClassVar

import pytest

from yamanote.runtime import (
    EventLoop,
    SchedulingEventLoopPolicy,
    SchedulingMixin,
    SchedulingProactorEventLoop,
    SchedulingSelectorEventLoop,
    _scheduling,
    blocked_tasks,
    create_task_descend,
    eager,
    event_loop_policy,
    make_task,
    run,
    runnable_tasks,
    sleep_insert,
    spawn,
    start_task,
    task_reinsert,
    yield_now,
)


class SchedulingEventLoop(SchedulingMixin, EventLoop):
    """Ours."""


SCHEDULING = [SchedulingSelectorEventLoop, SchedulingEventLoop]
LOOPS = [asyncio.SelectorEventLoop, EventLoop, *SCHEDULING]
each_loop = pytest.mark.parametrize("loop_class", LOOPS)
each_scheduling_loop = pytest.mark.parametrize("loop_class", SCHEDULING)


@pytest.fixture(params=[False, True], ids=["plain", "debug"])
def debug(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


class Log(list[Any]):
    async def note(self, *words: Any) -> None:
        for word in words:
            self.append(word)
            await yield_now()


def scheduling_loop() -> Any:
    """The running loop, one of `SCHEDULING`."""
    return asyncio.get_running_loop()


# the mixin


@each_scheduling_loop
def test_the_ready_queue_can_be_counted_and_edited(loop_class: Any, debug: bool) -> None:
    async def main() -> None:
        loop, log = scheduling_loop(), Log()
        length = loop.ready_len()
        for word in "abcd":
            loop.call_soon(log.append, word)
        start_task(log.note("task"))
        assert loop.ready_len() == length + 5
        loop.ready_insert(length, loop.ready_pop())  # task a b c d
        loop.ready_insert(length + 1, loop.ready_pop(-2))  # task c a b d
        assert loop.ready_len() == length + 5
        await yield_now()
        assert log == ["task", "c", "a", "b", "d"]

    run(main(), loop_factory=loop_class, debug=debug)


@each_scheduling_loop
def test_rotating_moves_the_last_to_the_front_and_back(loop_class: Any) -> None:
    async def main() -> None:
        loop, log = scheduling_loop(), Log()
        for word in "abcd":
            loop.call_soon(log.append, word)
        loop.ready_rotate(1)  # d a b c
        loop.ready_rotate(1)  # c d a b
        loop.ready_rotate(-1)  # d a b c
        await yield_now()
        await yield_now()
        assert log == ["d", "a", "b", "c"]

    run(main(), loop_factory=loop_class)


@each_scheduling_loop
def test_a_callback_can_be_scheduled_at_any_place(loop_class: Any, debug: bool) -> None:
    async def main() -> None:
        loop, log = scheduling_loop(), Log()
        loop.call_soon(log.append, "first")
        loop.call_soon(log.append, "last")
        assert isinstance(loop.call_insert(0, log.append, "before"), Handle)
        loop.call_insert(-1, log.append, "before the last")
        loop.call_insert(99, log.append, "end")
        cancelled = loop.call_insert(0, log.append, "never")
        cancelled.cancel()
        await yield_now()
        await yield_now()
        assert log == ["before", "first", "before the last", "last", "end"]

    run(main(), loop_factory=loop_class, debug=debug)


@each_scheduling_loop
def test_taking_elements_out_in_the_middle_of_a_turn_does_no_harm(loop_class: Any, debug: bool) -> None:
    async def main() -> None:
        loop, log = scheduling_loop(), Log()
        kept: list[Any] = []

        def take_all() -> None:
            while loop.ready_len():
                kept.insert(0, loop.ready_pop())
            log.append("taken")
            loop.call_later(0, put_back)

        def put_back() -> None:
            for element in kept:
                loop.ready_insert(loop.ready_len(), element)

        loop.call_soon(take_all)
        loop.call_soon(log.append, "a")
        tasks = [start_task(log.note("b")), start_task(log.note("c"))]
        await asyncio.wait(tasks)
        assert log == ["taken", "a", "b", "c"]

    run(main(), loop_factory=loop_class, debug=debug)


@each_scheduling_loop
def test_nonsense_does_not_get_into_the_queue(loop_class: Any) -> None:
    async def main() -> None:
        loop = scheduling_loop()
        length = loop.ready_len()
        with pytest.raises(TypeError, match="element must come from ready_pop"):
            loop.ready_insert(0, lambda: None)
        with pytest.raises(TypeError, match="pos must be a whole number"):
            loop.call_insert("0", print)
        with pytest.raises(IndexError):
            loop.ready_pop(99)
        assert loop.ready_len() == length

    run(main(), loop_factory=loop_class)


def test_a_fault_inside_of_the_loop_is_not_hidden() -> None:
    class Broken(asyncio.SelectorEventLoop):
        def _run_once(self) -> None:
            raise IndexError("a fault")

    class Loop(SchedulingMixin, Broken):
        pass

    loop = Loop()
    loop.call_soon(print)
    with pytest.raises(IndexError, match="a fault"):
        loop.run_forever()
    loop.close()


@pytest.mark.skipif(sys.platform == "win32", reason="proactor loops are of Windows")
def test_where_there_is_no_proactor_loop_its_name_says_so() -> None:
    with pytest.raises(RuntimeError, match="needs Windows"):
        SchedulingProactorEventLoop()


# versions and policies


@pytest.mark.skipif(sys.version_info < (3, 12), reason="Python 3.11 cannot be taken for a newer one")
def test_the_import_neither_fails_nor_warns_where_policies_are_gone() -> None:
    program = """
import asyncio, sys
for name in [name for name in vars(asyncio) if "policy" in name.lower()]:
    delattr(asyncio, name)
sys.version_info = (3, 16, 0, "final", 0)
from yamanote.runtime import SchedulingEventLoopPolicy, SchedulingSelectorEventLoop, event_loop_policy
"""
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True)


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="Python 3.14 deprecates policies")
def test_a_policy_makes_scheduling_loops() -> None:
    async def main() -> bool:
        return isinstance(asyncio.get_running_loop(), SchedulingMixin)

    before = asyncio.get_event_loop_policy()
    with event_loop_policy():
        assert asyncio.run(main())
        with event_loop_policy(before):
            assert not asyncio.run(main())
        assert asyncio.run(main())
    assert asyncio.get_event_loop_policy() is before
    asyncio.set_event_loop_policy(SchedulingEventLoopPolicy())
    try:
        assert asyncio.run(main())
    finally:
        asyncio.set_event_loop_policy(before)
    assert not asyncio.run(main())


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="Python 3.14 deprecates policies")
def test_the_policy_from_before_comes_back_after_an_error() -> None:
    before = asyncio.get_event_loop_policy()
    with pytest.raises(LookupError), event_loop_policy():
        raise LookupError
    assert asyncio.get_event_loop_policy() is before


@pytest.mark.skipif(sys.version_info < (3, 14), reason="policies are there before Python 3.14")
@pytest.mark.parametrize("use", [SchedulingEventLoopPolicy, event_loop_policy])
def test_where_policies_are_deprecated_a_loop_factory_is_recommended(use: Callable[[], Any]) -> None:
    with pytest.raises(RuntimeError, match="loop_factory=SchedulingSelectorEventLoop"):
        use()


# sleeping in a place


@each_loop
@pytest.mark.parametrize(
    ("pos", "place"), [(0, 0), (1, 1), (2, 2), (3, 3), (99, 3), (-1, 2), (-2, 1), (-99, 0)], ids=str
)
def test_a_sleeper_goes_on_at_its_place(loop_class: Any, debug: bool, pos: int, place: int) -> None:
    async def main() -> None:
        log = Log()
        for word in "ab":
            start_task(log.note(word))
        asyncio.get_running_loop().call_soon(log.append, "c")
        await sleep_insert(pos)
        assert log == ["a", "b", "c"][:place]
        await yield_now()

    run(main(), loop_factory=loop_class, debug=debug)


@each_loop
def test_a_sleeper_of_place_0_keeps_others_waiting_but_not_the_loop(loop_class: Any) -> None:
    async def main() -> int:
        loop, fired = asyncio.get_running_loop(), False

        def fire() -> None:
            nonlocal fired
            fired = True
            loop.call_soon_threadsafe(lambda: None)

        timer = threading.Timer(0, lambda: loop.call_soon_threadsafe(fire))
        timer.start()
        turns = 0
        while not fired:
            await sleep_insert(0) if turns % 100 else await asyncio.sleep(0)
            turns += 1
        timer.join()
        return turns

    assert run(main(), loop_factory=loop_class)


async def test_a_sleeper_that_is_cancelled_raises_when_it_goes_on() -> None:
    log: list[str] = []

    async def sleep(pos: int) -> None:
        try:
            await sleep_insert(pos)
        finally:
            log.append("awake")

    task = start_task(sleep(99))
    await yield_now()
    task.cancel("enough")
    with pytest.raises(asyncio.CancelledError, match="enough"):
        await task
    assert task.cancelling() == 1 and log == ["awake"]

    task = eager(sleep(99))
    task.cancel()
    task.uncancel()
    await asyncio.wait([task])
    assert task.cancelled() == (sys.version_info < (3, 13))  # as with `asyncio.sleep(0)`


async def test_a_cancellation_from_before_the_sleep_is_raised_by_it() -> None:
    async def work() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await sleep_insert(0)

    task = start_task(work())
    await asyncio.wait([task])
    assert task.cancelled()


# moving tasks


@each_loop
def test_a_task_can_be_moved_to_any_place(loop_class: Any, debug: bool) -> None:
    async def main() -> None:
        log = Log()
        a, b, c = (start_task(log.note(word)) for word in "abc")
        task_reinsert(c, 0)
        task_reinsert(a, 99)
        await a
        assert log == ["c", "b", "a"]
        await asyncio.gather(b, c)

    run(main(), loop_factory=loop_class, debug=debug)


@each_loop
def test_the_last_task_in_the_queue_can_be_moved_without_naming_it(loop_class: Any, debug: bool) -> None:
    async def main() -> None:
        log = Log()
        tasks = [start_task(log.note(word)) for word in "abc"]
        asyncio.get_running_loop().call_soon(log.append, "callback")
        task_reinsert(1)  # a c b callback
        await yield_now()
        assert log == ["a", "c", "b", "callback"]
        await asyncio.gather(*tasks)

    run(main(), loop_factory=loop_class, debug=debug)


@each_loop
def test_a_task_that_was_woken_can_be_moved(loop_class: Any, debug: bool) -> None:
    async def main() -> None:
        log = Log()
        event = asyncio.Event()

        async def wait(word: str) -> None:
            await event.wait()
            log.append(word)

        a, b = start_task(wait("a")), start_task(wait("b"))
        await yield_now()
        event.set()
        task_reinsert(b, 0)
        await asyncio.gather(a, b)
        assert log == ["b", "a"]

    run(main(), loop_factory=loop_class, debug=debug)


async def test_tasks_in_python_can_be_moved_as_well() -> None:
    log = Log()
    loop = asyncio.get_running_loop()
    python_task: Any = asyncio.tasks._PyTask  # type: ignore[attr-defined]
    future = loop.create_future()

    async def wait() -> None:
        await future
        log.append("woken")

    waiting, first = python_task(wait(), loop=loop), start_task(log.note("first"))
    new = python_task(log.note("new"), loop=loop)
    task_reinsert(new, 0)
    await yield_now()
    assert log == ["new", "first"]
    loop.call_soon(log.append, "callback")
    future.set_result(None)
    task_reinsert(waiting, 0)
    await yield_now()
    assert log == ["new", "first", "woken", "callback"]
    await asyncio.wait([new, first])


async def test_only_the_step_of_a_task_is_moved_and_no_other_call_of_its_methods() -> None:
    log = Log()
    loop = asyncio.get_running_loop()
    task = start_task(log.note("task"))
    other = start_task(log.note("other"))
    loop.call_soon(task.cancel)
    task_reinsert(0)  # the last task, and not the cancelling
    assert runnable_tasks() == {task, other}
    await yield_now()
    assert log == ["other", "task"]
    await asyncio.wait([task, other])
    assert task.cancelled()


async def test_who_is_not_ready_cannot_be_moved() -> None:
    async def wait() -> None:
        await asyncio.Event().wait()

    current = asyncio.current_task()
    assert current is not None
    blocked, done = start_task(wait()), eager(asyncio.sleep(-1))
    await yield_now()
    for task in (current, blocked, done):
        with pytest.raises(ValueError, match="task must be ready to run"):
            task_reinsert(task, 0)
    blocked.cancel()
    task_reinsert(blocked, 0)
    await asyncio.wait([blocked])
    with pytest.raises(ValueError, match="no task is ready"):
        task_reinsert(0)


async def test_nonsense_is_refused() -> None:
    task: Any = start_task(asyncio.sleep(0))
    with pytest.raises(TypeError, match="task must be a task"):
        task_reinsert("task", 0)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="pos must be a whole number"):
        task_reinsert(task, 0.5)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="pos must be a whole number"):
        task_reinsert(task)
    with pytest.raises(TypeError, match="pos must be a whole number"):
        await sleep_insert("1")  # type: ignore[arg-type]
    await task


def test_without_a_running_loop_nothing_can_be_moved() -> None:
    with pytest.raises(RuntimeError, match="no running event loop"):
        task_reinsert(0)


async def test_a_task_that_was_just_made_is_found_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[Any] = []

    def look(entry: Any) -> Any:
        looked.append(entry)
        return task_of(entry)

    task_of = _scheduling.task_of
    monkeypatch.setattr(_scheduling, "task_of", look)
    tasks = [start_task(asyncio.sleep(0)) for _ in range(100)]
    task_reinsert(tasks[-1], 0)
    task_reinsert(0)
    assert len(looked) == 2
    await asyncio.wait(tasks)


# depth first


@each_loop
def test_a_descended_task_runs_first_and_its_caller_next(loop_class: Any, debug: bool) -> None:
    async def main() -> None:
        log = Log()

        async def child(depth: int) -> None:
            log.append(depth)
            if depth:
                task = await create_task_descend(child(depth - 1), name=f"child {depth - 1}")
                assert task.get_name() == f"child {depth - 1}"
                log.append(-depth)
                await task
            await yield_now()
            log.append("end")

        other = start_task(log.note("other"))
        task = await create_task_descend(child(2))
        log.append("caller")
        assert log == [2, 1, 0, -1, -2, "caller"]
        await task
        assert log == [2, 1, 0, -1, -2, "caller", "other", "end", "end", "end"]
        await other

    run(main(), loop_factory=loop_class, debug=debug)


async def test_a_descended_task_that_fails_tells_whoever_awaits_it() -> None:
    async def fail() -> None:
        raise LookupError

    task = await create_task_descend(fail())
    assert task.done()
    with pytest.raises(LookupError):
        await task


async def test_a_caller_that_is_cancelled_while_it_descends_leaves_no_task_behind() -> None:
    log: list[str] = []
    callers: list[asyncio.Task[Any]] = []

    async def child() -> None:
        callers[0].cancel()
        try:
            await asyncio.Event().wait()
        finally:
            await yield_now()
            log.append("cleaned up")

    async def caller() -> None:
        await create_task_descend(child())

    callers.append(start_task(caller()))
    await asyncio.wait(callers)
    assert callers[0].cancelled() and callers[0].cancelling() == 1
    assert log == ["cleaned up"]
    assert len(asyncio.all_tasks()) == 1


async def test_what_cannot_be_awaited_is_refused_by_a_descent() -> None:
    with pytest.raises(TypeError, match="start_task"):
        await create_task_descend(3)  # type: ignore[arg-type]


# loops that show no ready queue


class Foreign(asyncio.SelectorEventLoop):
    """A loop that keeps its queue to itself, as those do that are not written in Python."""

    def __getattribute__(self, name: str) -> Any:
        if name == "_ready" and sys._getframe(1).f_globals["__name__"].startswith("yamanote."):
            raise AttributeError(name)
        return super().__getattribute__(name)


def uvloop() -> asyncio.AbstractEventLoop:
    loop: asyncio.AbstractEventLoop = pytest.importorskip("uvloop").new_event_loop()
    return loop


@pytest.mark.parametrize("factory", [Foreign, uvloop])
def test_loops_that_show_no_ready_queue_are_refused(factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
    async def main() -> None:
        task = start_task(asyncio.sleep(0))
        child = asyncio.sleep(0)
        with pytest.raises(RuntimeError, match=r"sleep_insert.*shows its ready queue"):
            await sleep_insert(0)
        with pytest.raises(RuntimeError, match=r"task_reinsert.*shows its ready queue"):
            task_reinsert(task, 0)
        with pytest.raises(RuntimeError, match=r"create_task_descend.*shows its ready queue"):
            await create_task_descend(child)
        with pytest.raises(RuntimeError, match=r"create_task_descend.*shows its ready queue"):
            await create_task_descend(asyncio.get_running_loop().create_future())
        with pytest.raises(RuntimeError, match="cannot reuse"):  # it has been closed
            await child
        await task

    run(main(), loop_factory=factory)


def test_a_queue_of_another_kind_is_left_alone() -> None:
    class Heap:
        _ready: ClassVar[list[Any]] = []

    with pytest.raises(RuntimeError, match="shows its ready queue"):
        _scheduling.ready_queue(Heap(), "sleep_insert")  # type: ignore[arg-type]


# who does what


@pytest.mark.parametrize("factory", [*LOOPS, Foreign, uvloop])
def test_each_task_is_running_or_runnable_or_blocked(
    factory: Callable[[], asyncio.AbstractEventLoop], debug: bool
) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        event = asyncio.Event()

        async def wait_for(other: Any) -> None:
            await other

        waiting = start_task(event.wait())
        yielding = start_task(asyncio.sleep(0))
        sleeping = start_task(asyncio.sleep(60))
        handle = spawn(asyncio.sleep(60))
        joining = start_task(wait_for(handle))
        gathering = start_task(wait_for(asyncio.gather(event.wait(), event.wait())))
        everybody = asyncio.all_tasks() - {asyncio.current_task()}
        assert runnable_tasks() == runnable_tasks(loop) == everybody and blocked_tasks() == set()
        await yield_now()
        assert yielding in runnable_tasks()
        await yield_now()
        everybody = asyncio.all_tasks() - {asyncio.current_task()}
        assert blocked_tasks() == blocked_tasks(loop) == everybody and runnable_tasks() == set()
        assert {waiting, sleeping, joining, gathering} < everybody
        event.set()
        sleeping.cancel()
        joining.cancel()
        assert runnable_tasks() >= {waiting, sleeping, joining} and gathering in blocked_tasks()
        assert runnable_tasks() | blocked_tasks() == everybody
        assert not runnable_tasks() & blocked_tasks()
        handle.abort()
        await asyncio.wait({waiting, sleeping, joining, gathering})

    run(main(), loop_factory=factory, debug=debug)


async def test_who_is_starting_somebody_eagerly_is_running() -> None:
    seen: list[set[Any]] = []

    async def look(depth: int) -> None:
        if depth:
            await eager(look(depth - 1))
        seen.append(runnable_tasks() | blocked_tasks())

    new = make_task(asyncio.sleep(0), asyncio.get_running_loop())
    task = eager(look(2))
    assert task.done() and seen[0] == {new}
    await new


async def test_another_thread_may_look() -> None:
    loop = asyncio.get_running_loop()
    task = start_task(asyncio.Event().wait())
    await yield_now()
    found: set[Any] = await asyncio.to_thread(blocked_tasks, loop)
    assert task in found
    task.cancel()


@pytest.mark.parametrize("look", [runnable_tasks, blocked_tasks])
def test_without_a_loop_there_is_nothing_to_see(look: Callable[..., set[Any]]) -> None:
    with pytest.raises(RuntimeError, match="no running event loop"):
        look()
    loop = asyncio.new_event_loop()
    assert look(loop) == set()
    loop.close()
