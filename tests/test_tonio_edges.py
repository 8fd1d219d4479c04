"""Where people who come from TonIO were let down: each of its known failures, in both syntaxes, and how it ends here.

The pairs do the same, as in `test_tonio_examples`.
"""

from __future__ import annotations

import asyncio
from asyncio import CancelledError
from collections.abc import Callable
from contextvars import ContextVar
from threading import current_thread
from typing import Any

import pytest

from yamanote.channels import ChannelClosed, channel
from yamanote.futures import race, select
from yamanote.runtime import JoinError, generators, run, scope, spawn, spawn_blocking, yield_now
from yamanote.runtime.generators import coroutine
from yamanote.sync import Barrier, Event, Lock, Semaphore
from yamanote.time import sleep, timeout

from .test_tonio_examples import Options, both, with_each_runtime


async def fail_async(error: BaseException) -> None:
    await yield_now()
    raise error


def fail(error: BaseException) -> Any:
    yield
    raise error


# ------------------------------------------------------------------------------------------------ running and spawning


@with_each_runtime
def test_what_is_left_at_the_end_of_the_program_cleans_up(options: Options) -> None:
    log: list[str] = []

    def left(started: Event) -> Any:
        try:
            started.set()
            yield sleep(3600)
        finally:
            yield
            log.append("cleaned up")

    def yields() -> Any:
        started = Event()
        generators.spawn(left(started))
        yield started.wait()

    async def awaits() -> None:
        started = Event()
        spawn(coroutine(left(started)))
        await started.wait()

    both(yields, awaits, options)
    assert log == ["cleaned up"] * 2


@with_each_runtime
def test_a_handle_has_one_value_or_a_list_of_them(options: Options) -> None:
    def value(number: int) -> Any:
        yield
        return number

    def yields() -> Any:
        one = yield generators.spawn(value(1))
        return one, (yield generators.spawn(value(1), value(2))), (yield generators.spawn())

    async def awaits() -> Any:
        one, two, three = value(1), value(1), value(2)
        return await spawn(coroutine(one)), await spawn(coroutine(two), coroutine(three)), await spawn()

    assert both(yields, awaits, options) == (1, [1, 2], [])


def test_what_is_spawned_together_starts_in_order() -> None:
    def yields() -> Any:
        log: list[int] = []

        def work(number: int) -> Any:
            log.append(number)
            yield

        yield generators.spawn(*[work(number) for number in range(10)])
        return log

    async def awaits() -> Any:
        log: list[int] = []

        async def work(number: int) -> None:
            log.append(number)
            await yield_now()

        await spawn(*[work(number) for number in range(10)])
        return log

    assert both(yields, awaits, {}) == [*range(10)]


@with_each_runtime
def test_several_may_wait_for_the_same_work_and_none_goes_on_before_it_is_done(options: Options) -> None:
    def yields() -> Any:
        opened = Event()

        def work() -> Any:
            yield opened.wait()
            return "value"

        def wait() -> Any:
            return (yield handle)

        handle = generators.spawn(work())
        waiters = generators.spawn(wait(), wait())
        for _ in range(5):
            yield
        early = waiters.is_finished()
        opened.set()
        return early, (yield waiters)

    async def awaits() -> Any:
        opened = Event()

        async def work() -> str:
            await opened.wait()
            return "value"

        async def wait() -> str:
            return await handle

        handle = spawn(work())
        waiters = spawn(wait(), wait())
        for _ in range(5):
            await yield_now()
        early = waiters.is_finished()
        opened.set()
        return early, await waiters

    assert both(yields, awaits, options) == (False, ["value", "value"])


@with_each_runtime
def test_an_error_that_nobody_waits_for_is_reported(options: Options) -> None:
    def report(reports: list[str], seen: Event) -> None:
        def handle(_: Any, context: dict[str, Any]) -> None:
            reports.append(repr(context["exception"]))
            seen.set()

        asyncio.get_running_loop().set_exception_handler(handle)

    # Pinned: it is reported on the loop on which it happens.
    def yields() -> Any:
        reports: list[str] = []
        seen = Event()
        report(reports, seen)
        generators.spawn(fail(LookupError()), on=0)
        yield seen.wait()
        return reports

    async def awaits() -> Any:
        reports: list[str] = []
        seen = Event()
        report(reports, seen)
        spawn(fail_async(LookupError()), on=0)
        await seen.wait()
        return reports

    assert both(yields, awaits, options) == ["LookupError()"]


@with_each_runtime
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_what_ends_a_program_ends_it_from_any_task(options: Options, error: type[BaseException]) -> None:
    log: list[str] = []

    def yields() -> Any:
        generators.spawn(fail(error()))
        try:
            yield sleep(3600)
        finally:
            log.append("cleaned up")

    async def awaits() -> None:
        spawn(fail_async(error()))
        try:
            await sleep(3600)
        finally:
            log.append("cleaned up")

    with pytest.raises(error):
        generators.run(yields(), **options)
    with pytest.raises(error):
        run(awaits(), **options)
    assert log == ["cleaned up"] * 2


@with_each_runtime
def test_a_task_that_cancels_itself_has_no_value(options: Options) -> None:
    def yields() -> Any:
        with pytest.raises(JoinError):
            yield generators.spawn(fail(CancelledError()))

    async def awaits() -> None:
        with pytest.raises(JoinError):
            await spawn(fail_async(CancelledError()))

    both(yields, awaits, options)


@with_each_runtime
def test_nobody_runs_twice(options: Options) -> None:
    def yields() -> Any:
        work = fail(LookupError())
        with pytest.raises(LookupError):
            yield generators.spawn(work)
        with pytest.raises(RuntimeError):
            yield generators.spawn(work)

    async def awaits() -> None:
        work = fail_async(LookupError())
        with pytest.raises(LookupError):
            await spawn(work)
        with pytest.raises(RuntimeError):
            await spawn(work)

    both(yields, awaits, options)


@with_each_runtime
@pytest.mark.parametrize("thing", [5, object(), []], ids=["int", "object", "list"])
def test_what_cannot_be_waited_for_is_an_error_there_and_everybody_else_goes_on(options: Options, thing: Any) -> None:
    async def go_on() -> str:
        await sleep(0.001)
        return "on"

    def yields() -> Any:
        other = generators.spawn(go_on())
        with pytest.raises(TypeError):
            yield thing
        return (yield other)

    async def awaits() -> Any:
        other = spawn(go_on())
        with pytest.raises(TypeError):
            await thing
        return await other

    assert both(yields, awaits, options) == "on"


@with_each_runtime
def test_who_gives_way_again_and_again_starves_nobody(options: Options) -> None:
    def yields() -> Any:
        stop: list[None] = []

        def spin() -> Any:
            while not stop:
                yield

        spinning = generators.spawn(spin(), spin())
        yield sleep(0.001)
        stop.append(None)
        yield spinning

    async def awaits() -> None:
        stop: list[None] = []

        async def spin() -> None:
            while not stop:
                await yield_now()

        spinning = spawn(spin(), spin())
        await sleep(0.001)
        stop.append(None)
        await spinning

    both(yields, awaits, options)


@with_each_runtime
def test_two_who_wake_each_other_starve_nobody(options: Options) -> None:
    def yields() -> Any:
        stop: list[None] = []

        def play(mine: Event, other: Event) -> Any:
            while not stop:
                yield mine.wait()
                mine.clear()
                other.set()

        ping, pong = Event(), Event()
        playing = generators.spawn(play(ping, pong), play(pong, ping))
        ping.set()
        yield sleep(0.001)
        yield
        stop.append(None)
        ping.set()
        pong.set()
        yield playing

    async def awaits() -> None:
        stop: list[None] = []

        async def play(mine: Event, other: Event) -> None:
            while not stop:
                await mine.wait()
                mine.clear()
                other.set()

        ping, pong = Event(), Event()
        playing = spawn(play(ping, pong), play(pong, ping))
        ping.set()
        await sleep(0.001)
        await yield_now()
        stop.append(None)
        ping.set()
        pong.set()
        await playing

    both(yields, awaits, options)


@with_each_runtime
def test_context_variables_belong_to_their_task_and_go_along_into_threads(options: Options) -> None:
    variable = ContextVar("variable", default="unset")

    def yields() -> Any:
        def change() -> Any:
            variable.set("changed")
            yield

        variable.set("mine")
        yield generators.spawn(change(), change())
        return variable.get(), (yield generators.spawn_blocking(variable.get))

    async def awaits() -> Any:
        async def change() -> None:
            variable.set("changed")
            await yield_now()

        variable.set("mine")
        await spawn(change(), change())
        return variable.get(), await spawn_blocking(variable.get)

    assert both(yields, awaits, options) == ("mine", "mine")


@with_each_runtime
def test_blocking_calls_begin_when_they_are_spawned(options: Options) -> None:
    def yields() -> Any:
        here = Barrier(2)
        first = generators.spawn_blocking(meet, here)
        second = generators.spawn_blocking(meet, here)
        names = {(yield first), (yield second)}
        return len(names)

    async def awaits() -> Any:
        here = Barrier(2)
        first, second = spawn_blocking(meet, here), spawn_blocking(meet, here)
        return len({await first, await second})

    def meet(here: Barrier) -> str:
        with here:  # two threads are in it at once
            return current_thread().name

    assert both(yields, awaits, options) == 2


# ------------------------------------------------------------------------------------------- scopes, and cancellation


@with_each_runtime
def test_a_scope_loses_no_error(options: Options) -> None:
    def yields() -> Any:
        with pytest.raises(ExceptionGroup) as caught:
            with generators.scope() as s:
                s.spawn(fail(LookupError()))
            yield s()
        return repr(caught.value.exceptions)

    async def awaits() -> Any:
        with pytest.raises(ExceptionGroup) as caught:
            async with scope() as s:
                s.spawn(fail_async(LookupError()))
        return repr(caught.value.exceptions)

    assert both(yields, awaits, options) == "(LookupError(),)"


@with_each_runtime
def test_cancelling_a_scope_takes_effect_at_once(options: Options) -> None:
    def yields() -> Any:
        with generators.scope() as s:
            handle = s.spawn(sleep(3600))
            yield
            s.cancel()
            with pytest.raises(CancelledError):
                yield sleep(3600)
        yield s()
        return handle.is_cancelled()

    async def awaits() -> Any:
        async with scope() as s:
            handle = s.spawn(sleep(3600))
            await yield_now()
            s.cancel()
            with pytest.raises(CancelledError):
                await sleep(3600)
        return handle.is_cancelled()

    assert both(yields, awaits, options) is True


@with_each_runtime
def test_a_scope_that_has_ended_takes_nothing_and_says_so(options: Options) -> None:
    def yields() -> Any:
        with generators.scope() as s:
            yield
        yield s()
        with pytest.raises(RuntimeError):
            s.spawn(fail(LookupError()))
        with pytest.raises(RuntimeError), s:
            pass

    async def awaits() -> None:
        async with scope() as s:
            await yield_now()
        with pytest.raises(RuntimeError):
            s.spawn(fail_async(LookupError()))
        with pytest.raises(RuntimeError):
            async with s:
                pass

    both(yields, awaits, options)


@with_each_runtime
def test_clean_up_may_wait_after_a_cancellation(options: Options) -> None:
    def yields() -> Any:
        log: list[str] = []

        def work() -> Any:
            try:
                started.set()
                yield sleep(3600)
            finally:
                yield sleep(0.001)
                yield
                log.append("cleaned up")

        started = Event()
        with generators.scope() as s:
            s.spawn(work())
            yield started.wait()
            s.cancel()
        yield s()
        return log

    async def awaits() -> Any:
        log: list[str] = []

        async def work() -> None:
            try:
                started.set()
                await sleep(3600)
            finally:
                await sleep(0.001)
                await yield_now()
                log.append("cleaned up")

        started = Event()
        async with scope() as s:
            s.spawn(work())
            await started.wait()
            s.cancel()
        return log

    assert both(yields, awaits, options) == ["cleaned up"]


@with_each_runtime
def test_a_time_limit_waits_for_the_clean_up(options: Options) -> None:
    def work(log: list[str]) -> Any:
        try:
            yield sleep(3600)
        finally:
            yield
            log.append("cleaned up")

    def yields() -> Any:
        log: list[str] = []
        return (yield timeout(coroutine(work(log)), 0.001)), log

    async def awaits() -> Any:
        log: list[str] = []
        return await timeout(coroutine(work(log)), 0.001), log

    assert both(yields, awaits, options) == ((None, False), ["cleaned up"])


@with_each_runtime
def test_the_first_of_several_generators_wins_and_the_others_clean_up(options: Options) -> None:
    def work(seconds: float, log: list[str]) -> Any:
        try:
            yield sleep(seconds)
            return seconds
        finally:
            yield
            log.append("ended")

    def yields() -> Any:
        log: list[str] = []
        first = yield race(coroutine(work(0.001, log)), coroutine(work(3600, log)))
        chosen = yield select(slow=coroutine(work(3600, log)), fast=coroutine(work(0.001, log)))
        return first, chosen, log

    async def awaits() -> Any:
        log: list[str] = []
        first = await race(coroutine(work(0.001, log)), coroutine(work(3600, log)))
        chosen = await select(slow=coroutine(work(3600, log)), fast=coroutine(work(0.001, log)))
        return first, chosen, log

    assert both(yields, awaits, options) == (0.001, ("fast", 0.001), ["ended"] * 4)


def test_whoever_takes_no_generators_says_what_makes_a_coroutine_of_one() -> None:
    def work() -> Any:
        yield

    def yields() -> Any:
        for function, arguments in [
            (timeout, (work(), 1)),
            (timeout, (1, work())),
            (race, (work(), work())),
            (select, ({"a": work()},)),
        ]:
            with pytest.raises(TypeError, match=r"`coroutine` of yamanote\.runtime\.generators"):
                yield function(*arguments)

    generators.run(yields())


# ------------------------------------------------------------------------------------ synchronization, and channels


@with_each_runtime
@pytest.mark.parametrize("make", [Lock, lambda: Semaphore(1)], ids=["lock", "semaphore"])
def test_who_gives_up_waiting_for_a_lock_takes_nothing_along(options: Options, make: Callable[[], Any]) -> None:
    def yields() -> Any:
        lock = make()

        def hold() -> Any:
            with (yield lock()):
                yield
                return "held"

        with (yield lock()):
            given_up = yield timeout(coroutine(hold()), 0.001)
        return given_up, (yield hold()), lock.locked()

    async def awaits() -> Any:
        lock = make()

        async def hold() -> str:
            async with lock():
                await yield_now()
                return "held"

        async with lock():
            given_up = await timeout(hold(), 0.001)
        return given_up, await hold(), lock.locked()

    assert both(yields, awaits, options) == ((None, False), "held", False)


@with_each_runtime
def test_a_lock_that_nobody_has_cannot_be_released(options: Options) -> None:
    def yields() -> Any:
        lock = Lock()
        with (yield lock()):
            yield
        with pytest.raises(RuntimeError):
            lock.release()

    async def awaits() -> None:
        lock = Lock()
        async with lock():
            await yield_now()
        with pytest.raises(RuntimeError):
            lock.release()

    both(yields, awaits, options)


@with_each_runtime
def test_a_lock_that_is_called_is_a_branch_of_a_select(options: Options) -> None:
    def yields() -> Any:
        lock, never = Lock(), Event()
        chosen = yield select(lock=lock(), never=never.wait())
        held = lock.locked()
        other = yield select(lock=lock(), ready=sleep(0.001))  # it does not get it a second time
        lock.release()
        return chosen, held, other, lock.locked()

    async def awaits() -> Any:
        lock, never = Lock(), Event()
        chosen = await select(lock=lock(), never=never.wait())
        held = lock.locked()
        other = await select(lock=lock(), ready=sleep(0.001))
        lock.release()
        return chosen, held, other, lock.locked()

    assert both(yields, awaits, options) == (("lock", None), True, ("ready", None), False)


@with_each_runtime
def test_a_barrier_is_used_again_and_does_not_count_who_gave_up(options: Options) -> None:
    def yields() -> Any:
        barrier = Barrier(2)
        given_up = yield timeout(barrier.wait(), 0.001)
        rounds = []
        for _ in range(2):
            rounds.append(sorted((yield generators.spawn(barrier.wait(), barrier.wait()))))
        return given_up, rounds, barrier.value()

    async def awaits() -> Any:
        barrier = Barrier(2)
        given_up = await timeout(barrier.wait(), 0.001)
        rounds = []
        for _ in range(2):
            rounds.append(sorted(await spawn(barrier.wait(), barrier.wait())))
        return given_up, rounds, barrier.value()

    assert both(yields, awaits, options) == ((None, False), [[0, 1], [0, 1]], 0)


@with_each_runtime
def test_a_sender_that_waits_for_room_hears_of_it_when_the_receiver_goes(options: Options) -> None:
    def yields() -> Any:
        sender, receiver = channel(1)
        with sender:
            yield sender.send("first")
            sending = generators.spawn(sender.send("second"))
            yield sleep(0.001)
            receiver.close()
            with pytest.raises(ChannelClosed):
                yield sending

    async def awaits() -> None:
        sender, receiver = channel(1)
        with sender:
            await sender.send("first")
            sending = spawn(sender.send("second"))
            await sleep(0.001)
            receiver.close()
            with pytest.raises(ChannelClosed):
                await sending

    both(yields, awaits, options)


@with_each_runtime
def test_a_channel_without_capacity_hands_over_from_one_to_the_other(options: Options) -> None:
    def yields() -> Any:
        sender, receiver = channel(0)
        with sender, receiver:
            sending = generators.spawn(sender.send("message"))
            yield sleep(0.001)
            early = sending.is_finished()
            message = yield receiver.recv()
            yield sending
            return early, message

    async def awaits() -> Any:
        sender, receiver = channel(0)
        with sender, receiver:
            sending = spawn(sender.send("message"))
            await sleep(0.001)
            early = sending.is_finished()
            message = await receiver.recv()
            await sending
            return early, message

    assert both(yields, awaits, options) == (False, "message")
