"""Every way to have something done on the other side of a thread, and what holds for all of them.

A row says who asks and where the work is done; a test is one promise, for all rows. What is peculiar to one way is in
the tests of its own module.
"""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import threading
import weakref
from asyncio import CancelledError
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any, NamedTuple

import pytest

from yamanote.runtime import Handle, JoinError, Outcome, run, spawn, spawn_blocking, yield_now
from yamanote.sync import Event
from yamanote.threads import (
    Portal,
    ThreadTaskGroup,
    from_thread,
    launch_in_thread_loop,
    run_in_thread_loop,
    run_in_thread_loop_contextualized,
    threadsafe_aiter,
    to_thread,
)

Work = Callable[[], Any]

is_gil_enabled: Callable[[], bool] = getattr(sys, "_is_gil_enabled", lambda: True)
# What another thread has made or raised; on 3.12 and 3.13 an error out of a loop there has to wait for the collector.
frees_at_once = is_gil_enabled() and sys.version_info[:2] not in ((3, 12), (3, 13))

place: ContextVar[str] = ContextVar("place", default="nowhere")


# ---------------------------------------------------------------- the ways


async def launched(work: Work) -> Any:
    return await (await launch_in_thread_loop(work))


async def beside(work: Work) -> Any:
    found: list[Any] = []
    ended = Event()

    async def target() -> None:
        try:
            found.append(await work())
        finally:
            ended.set()

    async with run_in_thread_loop_contextualized(target):
        await ended.wait()
    return found.pop()


async def in_a_group(work: Work) -> Any:
    handles: list[Any] = []
    failed: list[BaseException] = []
    try:
        async with ThreadTaskGroup() as group:
            handles.append(group.spawn(work()))
    except BaseExceptionGroup as errors:
        failed += errors.exceptions
    try:
        if failed:  # not in there, or the group of errors, which refers to it, is its context
            raise failed.pop()
        return await handles[0]
    finally:
        handles.clear()


class Source:
    """An async iterator whose items are what the work returns."""

    def __init__(self, work: Work) -> None:
        self.work = work

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        return await self.work()


async def pulled_by_a_task(work: Work) -> Any:
    items = threadsafe_aiter(Source(work))
    return (await run_in_thread_loop(end_of(items.__anext__))).unwrap()


async def end_of(function: Work) -> Outcome[Any]:
    """How a call of an async function ends."""
    try:
        return Outcome.ok(await function())
    except BaseException as error:
        return Outcome.failed(error)


Call = Callable[[Work], Any]


@asynccontextmanager
async def the_loop_that_asked() -> AsyncIterator[Call]:
    yield from_thread


@asynccontextmanager
async def a_portal() -> AsyncIterator[Call]:
    async with Portal() as portal:
        yield portal.call


@asynccontextmanager
async def a_portal_for_tasks() -> AsyncIterator[Call]:
    async with Portal() as portal:
        yield lambda work: portal.spawn(work()).result()


@asynccontextmanager
async def a_handle() -> AsyncIterator[Call]:
    home = Handle.current()
    yield lambda work: home.block_on(work())


@asynccontextmanager
async def a_handle_for_tasks() -> AsyncIterator[Call]:
    home = Handle.current()
    yield lambda work: home.spawn(work()).result()


@asynccontextmanager
async def an_iterator() -> AsyncIterator[Call]:
    made = asyncio.get_running_loop()

    def pull(work: Work) -> Any:
        async def make() -> Any:
            assert asyncio.get_running_loop() is made
            return threadsafe_aiter(Source(work))

        return next(from_thread(make))

    yield pull


class Way(NamedTuple):
    """A row: how a task that lives here crosses over; or how a thread does that has come from here, and back."""

    name: str
    cross: Callable[[Work], Awaitable[Any]] | None = None
    opened: Callable[[], Any] | None = None
    plain: bool = False  # the work is a plain function
    cancels: bool = True  # the cancellation of who asks reaches the work
    pulls: bool = False  # the work is asked for the next item
    in_group: bool = False  # what is no Exception ends the group as well
    beside: bool = False  # the work stands beside a block, as that of `contextualize`, and gives nothing back
    spreads: bool = False  # among all workers of the runtime

    async def ask(self, work: Work) -> Outcome[Any]:
        """Have `work` done; tell what whoever asked, on their own side, has got."""
        try:
            if self.cross is not None:
                return Outcome.ok(await self.cross(work))
            assert self.opened is not None
            async with self.opened() as call:
                return await to_thread(outcome_of, call, work)
        except BaseException as error:
            return Outcome.failed(error)

    def of(self, function: Work) -> Work:
        """The work that this way takes: it does what `function` does, and an async one after a turn of its loop."""
        if self.plain:
            return function

        async def work() -> Any:
            await yield_now()
            return function()

        return work


def outcome_of(call: Call, work: Work) -> Outcome[Any]:
    try:
        return Outcome.ok(call(work))
    except BaseException as error:
        return Outcome.failed(error)


WAYS = [
    Way("to_thread", to_thread, plain=True, cancels=False),
    Way("spawn_blocking", lambda work: spawn_blocking(work), plain=True, cancels=False),
    Way("run_in_thread_loop", run_in_thread_loop),
    Way("launch_in_thread_loop", launched, cancels=False),
    Way("contextualized", beside, beside=True),
    Way("ThreadTaskGroup", in_a_group),
    Way("threadsafe_aiter-async", pulled_by_a_task, pulls=True),
    Way("from_thread", opened=the_loop_that_asked),
    Way("from_thread-plain", opened=the_loop_that_asked, plain=True, cancels=False),
    Way("Portal.call", opened=a_portal, in_group=True),
    Way("Portal.call-plain", opened=a_portal, plain=True, cancels=False),
    Way("Portal.spawn", opened=a_portal_for_tasks, in_group=True),
    Way("Handle.block_on", opened=a_handle, spreads=True, cancels=False),
    Way("Handle.spawn", opened=a_handle_for_tasks, spreads=True, cancels=False),
    Way("threadsafe_aiter", opened=an_iterator, pulls=True, cancels=False),
]
every_way = pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)


@pytest.fixture(autouse=True)
def nothing_left_and_nothing_told(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    told: list[Any] = []
    for module, hook in (sys, "excepthook"), (sys, "unraisablehook"), (threading, "excepthook"):
        monkeypatch.setattr(module, hook, told.append)
    run(to_thread(int))  # the pool has its first thread
    before = set(threading.enumerate()), descriptors()
    yield
    gc.collect()
    new = [thread for thread in threading.enumerate() if not thread.name.startswith("yamanote-blocking")]
    assert set(new) <= before[0]
    assert descriptors() == before[1]
    assert told == []
    assert caplog.records == []


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd")) if os.path.exists("/proc/self/fd") else 0


def done_by(way: Way, function: Work) -> Outcome[Any]:
    """How it ends for whoever asks for it: in a runtime of its own, in whose end nobody is left over."""

    async def main() -> Outcome[Any]:
        outcome = await way.ask(way.of(function))
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
        assert asyncio.all_tasks() == {task}
        return outcome

    return run(main())


# ---------------------------------------------------------------- values, errors


def identity(value: object) -> object:
    return value


@every_way
def test_a_value_comes_back_as_it_is(way: Way) -> None:
    for value in (
        None,
        False,
        0,
        "",
        (),
        object(),
        ValueError("no error"),
        CancelledError(),
        StopIteration(),
        JoinError("x"),
    ):
        outcome = done_by(way, partial(identity, value))
        assert outcome.error is None
        assert outcome.unwrap() is value


class Fatal(BaseException):
    """No Exception, and nobody's end."""


@every_way
def test_an_error_comes_back_as_it_is(way: Way) -> None:
    for error in LookupError("lost"), JoinError("another"), TimeoutError():
        assert done_by(way, throw(error)).error is error
    fatal = Fatal("no Exception")
    outcome = done_by(way, throw(fatal))
    if way.in_group:
        assert isinstance(outcome.error, BaseExceptionGroup)
        assert outcome.error.exceptions == (fatal,)
    else:
        assert outcome.error is fatal


@every_way
def test_the_end_of_an_iteration_is_an_error_like_any_other(way: Way) -> None:
    error = done_by(way, throw(StopIteration("the end"))).error
    assert isinstance(error, StopIteration) or isinstance(getattr(error, "__cause__", None), StopIteration)
    assert isinstance(error, StopIteration if way.plain and way.opened is not None else RuntimeError)
    if not way.pulls and not way.beside:
        error = StopAsyncIteration("the end")
        assert done_by(way, throw(error)).error is error


@every_way
def test_a_cancellation_of_the_work_itself_is_an_error_and_looks_like_nobodys_cancellation(way: Way) -> None:
    error = done_by(way, throw(CancelledError("by itself"))).error
    if way.beside:  # it has ended, and that was all that it was to do
        assert not isinstance(error, CancelledError)
    else:
        assert isinstance(error, JoinError)


@every_way
def test_what_ends_programs_ends_this_one(way: Way, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        task = asyncio.current_task()
        assert task is not None
        outcome = await way.ask(way.of(throw(kind())))
        if not task.cancelling():  # else it has come out of the loop itself
            outcome.unwrap()

    for kind in KeyboardInterrupt, SystemExit:
        with pytest.raises(kind):
            run(main())
    gc.collect()
    caplog.clear()  # a task that has ended so may be told of as well, if whoever awaited it was cancelled by the end


@every_way
def test_values_and_errors_are_gone_when_nobody_refers_to_them_any_more(way: Way) -> None:
    class Value:
        pass

    class Error(Exception):
        pass

    async def main() -> None:
        value, error = Value(), Error()
        gone = weakref.ref(value), weakref.ref(error)
        given: list[Any] = [value, error]
        del value, error

        def fail() -> None:
            raise given.pop()

        assert isinstance((await way.ask(way.of(fail))).error, Error)
        assert isinstance((await way.ask(way.of(given.pop))).unwrap(), Value)
        for _ in range(3):
            await yield_now()
        await to_thread(int)  # the thread has let go of what it did before
        if not frees_at_once:
            gc.collect()
        assert [reference() for reference in gone] == [None, None]

    gc.collect()
    gc.disable()
    try:
        run(main())
    finally:
        gc.enable()


def throw(error: BaseException) -> Work:
    def work() -> None:
        raise error

    return work


# ---------------------------------------------------------------- where, and with what


@every_way
def test_context_variables_go_over_and_do_not_come_back(way: Way) -> None:
    def look() -> str:
        seen = place.get()
        place.set("over there")
        return seen

    async def main() -> None:
        place.set("here")
        assert (await way.ask(way.of(look))).unwrap() == "here"
        assert place.get() == "here"

    run(main())


@every_way
def test_the_work_is_done_on_the_other_side(way: Way) -> None:
    def where() -> tuple[int, object]:
        return threading.get_ident(), asyncio._get_running_loop()

    async def main() -> None:
        home = threading.get_ident(), asyncio.get_running_loop()
        thread, loop = (await way.ask(way.of(where))).unwrap()
        if way.opened is not None or way.pulls:
            assert (thread, loop) == home
        else:
            assert thread != home[0]
            assert loop is None if way.plain else loop not in (None, home[1])

    run(main())


@every_way
def test_it_works_from_each_of_four_workers(way: Way) -> None:
    async def from_this_one() -> bool:
        here = threading.get_ident()
        thread = (await way.ask(way.of(threading.get_ident))).unwrap()
        assert isinstance(thread, int)
        return way.spreads or (thread == here) == (way.opened is not None or way.pulls)

    async def main() -> list[bool]:
        return [await handle for handle in [spawn(from_this_one(), on=number) for number in range(4)]]

    assert run(main(), workers=4) == [True] * 4


# ---------------------------------------------------------------- cancellation


class Stage:
    """A coroutine that waits for ever, and takes its time to end."""

    def __init__(self) -> None:
        self.running = Event()
        self.ended = False
        self.cancellations = 0

    async def run(self) -> None:
        self.running.set()
        try:
            await asyncio.Event().wait()
        finally:
            for _ in range(3):
                await yield_now()
            task = asyncio.current_task()
            assert task is not None
            self.cancellations = task.cancelling()
            self.ended = True


@pytest.mark.parametrize("way", [way for way in WAYS if way.cancels], ids=lambda way: way.name)
def test_a_cancellation_reaches_the_work_once_and_is_raised_when_that_has_ended(way: Way) -> None:
    stage = Stage()

    async def ask() -> None:
        task = asyncio.current_task()
        assert task is not None
        outcome = await way.ask(stage.run)
        assert outcome.cancelled
        assert stage.ended
        assert task.cancelling() == 1
        assert task.uncancel() == 0
        for _ in range(3):
            await yield_now()  # nothing comes after it

    async def main() -> None:
        asking = asyncio.create_task(ask())
        await stage.running.wait()
        asking.cancel()
        await asking

    run(main())
    assert stage.cancellations == 1


@pytest.mark.parametrize("way", [way for way in WAYS if way.cancels], ids=lambda way: way.name)
def test_a_timeout_around_it_is_an_ordinary_timeout(way: Way) -> None:
    stage = Stage()

    async def main() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                (await way.ask(stage.run)).unwrap()
        await yield_now()

    run(main())
    assert stage.ended or not stage.running.is_set()


# ---------------------------------------------------------------- the wrong side


def wrong_sides() -> dict[str, Callable[[Portal, Handle, Any], object]]:
    """What blocks, where that would stop the loop."""
    return {
        "from_thread": lambda portal, handle, items: from_thread(for_ever),
        "Portal.call": lambda portal, handle, items: portal.call(for_ever),
        "Handle.block_on": lambda portal, handle, items: handle.block_on(for_ever()),
        "iterator": lambda portal, handle, items: next(items),
        "with Portal": lambda portal, handle, items: Portal().__enter__(),
        "with ThreadTaskGroup": lambda portal, handle, items: ThreadTaskGroup().__enter__(),
        "with contextualized": lambda portal, handle, items: run_in_thread_loop_contextualized(for_ever()).__enter__(),
    }


async def for_ever() -> None:
    await asyncio.Event().wait()


@pytest.mark.parametrize("name", wrong_sides())
@pytest.mark.filterwarnings("error")
def test_what_blocks_is_refused_on_a_loop_with_advice_and_nothing_begins(name: str) -> None:
    begun = []

    async def work() -> None:
        begun.append(True)

    async def main() -> None:
        async with Portal() as portal:
            with pytest.raises(RuntimeError, match=r"would (block|stop)|awaited|await"):
                wrong_sides()[name](portal, Handle.current(), threadsafe_aiter(Source(work)))
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(main())
    assert begun == []


@pytest.mark.parametrize("opened", [a_portal, a_portal_for_tasks, a_handle, a_handle_for_tasks])
@pytest.mark.filterwarnings("error")
def test_when_the_loop_of_the_other_side_is_gone_that_is_an_error(opened: Callable[[], Any]) -> None:
    async def main() -> Call:
        async with opened() as opened_call:
            call: Call = opened_call
            return call

    call = run(main())
    with pytest.raises(RuntimeError):
        call(for_ever)


@pytest.mark.filterwarnings("error")
def test_an_iterator_whose_loop_is_gone_says_so() -> None:
    async def main() -> Any:
        return threadsafe_aiter(Source(for_ever))

    items = run(main())
    with pytest.raises(RuntimeError):
        next(items)
    with pytest.raises(RuntimeError):
        run(end_of(items.__anext__)).unwrap()
