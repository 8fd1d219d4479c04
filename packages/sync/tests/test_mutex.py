"""What a mutex promises: its contents, its guard, poison, and who comes next."""

import asyncio
import copy
import operator
import pickle
import threading

import pytest

from yamanote.runtime import park, yield_now
from yamanote.sync import Guard, Mutex, MutexPoisoned, WouldBlock
from yamanote.testing import LeakError, no_leaks, step


async def settled() -> None:
    """Let every task run until it waits for somebody else."""
    for _ in range(20):
        await yield_now()


# ------------------------------------------------------------------ contents and guard


class Counter:
    def __init__(self):
        self.count = 0


async def test_an_awaited_turn_is_entered_without_waiting():
    mutex = Mutex([])
    locking = mutex.lock()
    with await locking as guard:
        guard.append("first")
        waiting = asyncio.ensure_future(locking)  # another use of the same one queues anew
        await settled()
        assert not waiting.done()
    with await waiting as guard:
        assert guard.value == ["first"]
    assert not mutex.locked()
    turn = await mutex.lock()
    with await turn:  # whose turn it is already does not wait for itself
        waiting = asyncio.ensure_future(turn)  # but it is its turn once
        await settled()
        assert mutex.locked() and not waiting.done()
    with await waiting:
        pass
    assert not mutex.locked()


async def test_a_mutex_makes_its_contents_or_takes_them():
    for mutex in (Mutex(Counter), Mutex(Counter())):
        async with mutex.lock() as guard:
            guard.count += 1
            assert isinstance(guard.value, Counter)
            assert guard.value.count == 1


async def test_contents_are_replaced_and_used_through_the_guard():
    async with (mutex := Mutex({"a": 1})).lock() as guard:
        guard["b"] = 2
        assert guard["a"] == 1
        assert len(guard) == 2
        assert "b" in guard
        del guard["a"]
        assert list(guard.keys()) == ["b"]
        guard.value = {}
        assert not guard
    async with mutex.lock() as guard:
        assert guard.value == {}


async def test_attributes_are_set_and_deleted_through_the_guard():
    async with Mutex(Counter).lock() as guard:
        guard.name = "n"
        assert guard.value.name == "n"
        del guard.name
        with pytest.raises(AttributeError):
            guard.name  # noqa: B018 - the look-up is the point


USES = {
    "value": lambda guard: guard.value,
    "set value": lambda guard: setattr(guard, "value", 1),
    "attribute": lambda guard: guard.append,
    "set attribute": lambda guard: setattr(guard, "other", 1),
    "delete attribute": lambda guard: delattr(guard, "other"),
    "item": lambda guard: guard[0],
    "set item": lambda guard: operator.setitem(guard, 0, 1),
    "delete item": lambda guard: operator.delitem(guard, 0),
    "length": len,
    "truth": bool,
    "iteration": iter,
    "containment": lambda guard: 1 in guard,
    "call": lambda guard: guard(),
    "equality": lambda guard: guard == [1],
    "inequality": lambda guard: guard != [1],
    "less": lambda guard: guard < [1],
    "less or equal": lambda guard: guard <= [1],
    "greater": lambda guard: guard > [1],
    "greater or equal": lambda guard: guard >= [1],
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
async def test_a_guard_is_dead_after_its_block_for_every_use_and_every_task(use):
    async with Mutex([1]).lock() as guard:
        pass

    async def elsewhere():
        use(guard)

    with pytest.raises(RuntimeError, match="end of its block"):
        use(guard)
    with pytest.raises(RuntimeError, match="end of its block"):
        await asyncio.create_task(elsewhere())
    assert "ended" in repr(guard)


async def test_a_guard_that_escaped_is_dead_while_somebody_else_is_inside():
    mutex = Mutex([1])
    async with mutex.lock() as escaped:
        pass
    async with mutex.lock() as guard:
        with pytest.raises(RuntimeError, match="end of its block"):
            escaped.append(2)
        assert guard == [1]


async def test_a_guard_is_called_and_compared_as_its_contents_are():
    async with Mutex(lambda: len).lock() as guard:
        assert guard([1, 2]) == 2
    async with Mutex(5).lock() as guard:
        assert guard == 5
        assert guard != 6
        assert 4 < guard <= 5
        assert 6 > guard >= 5
        with pytest.raises(TypeError):
            hash(guard)


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, pickle.dumps])
async def test_a_guard_has_no_copy_that_could_outlive_it(duplicate):
    async with Mutex([1]).lock() as guard:
        with pytest.raises(TypeError, match="neither be copied nor pickled"):
            duplicate(guard)


async def test_what_can_be_called_is_called_so_a_function_comes_out_of_a_call():
    async with Mutex(lambda: len).lock() as guard:
        assert guard.value is len
    for contents in (None, 0, "", ValueError("an ordinary value")):
        async with Mutex(contents).lock() as guard:
            assert guard.value is contents


async def test_a_mutex_and_its_guard_show_their_state():
    mutex = Mutex("x", poison=True)
    assert repr(mutex).startswith("<Mutex unlocked, 0 waiting")
    assert repr(mutex.lock()) == f"<Locking {mutex!r}>"
    async with mutex.lock() as guard:
        assert repr(mutex).startswith("<Mutex locked, 0 waiting")
        assert repr(guard) == "<Guard of 'x'>"
        assert mutex.statistics().free == 0
    with pytest.raises(ZeroDivisionError):
        async with mutex.lock():
            1 / 0  # noqa: B018 - raising is its use
    assert repr(mutex).startswith("<Mutex unlocked, poisoned, 0 waiting")


# ------------------------------------------------------------------ its turn


async def test_an_error_in_the_block_passes_through_and_frees_the_mutex():
    mutex = Mutex(0)
    with pytest.raises(ZeroDivisionError):
        async with mutex.lock() as guard:
            guard.value = 5
            1 / 0  # noqa: B018 - raising is its use
    assert not mutex.locked()
    async with mutex.lock() as guard:
        assert guard.value == 5


async def test_a_cancelled_lock_passes_it_on():
    mutex = Mutex("x")

    async def use():
        async with mutex.lock() as guard:
            return guard.value

    async with mutex.lock():
        first, second = asyncio.create_task(use()), asyncio.create_task(use())
        await settled()
    first.cancel()
    assert await second == "x"
    assert not mutex.locked()


async def test_the_contents_of_a_guard_are_iterated_over():
    async with Mutex({"a": 1}).lock() as guard:
        assert list(guard) == ["a"]


async def test_one_use_is_entered_again_and_again():
    locking = (mutex := Mutex(0)).lock()
    for _ in range(2):
        async with locking as guard:
            guard.value += 1
    async with mutex.lock() as guard:
        assert guard == 2


async def test_or_raise_takes_it_now_or_not_at_all():
    mutex = Mutex([])
    with mutex.or_raise() as guard:
        guard.append(1)
        with pytest.raises(WouldBlock):
            mutex.or_raise()
    async with mutex.or_raise() as guard:
        assert guard == [1]
    assert not mutex.locked()


async def test_or_raise_overtakes_nobody():
    mutex = Mutex(0)
    async with mutex.lock():
        next_one = step(mutex.lock().__aenter__())
        next_one.assert_pending()
    with pytest.raises(WouldBlock):
        mutex.or_raise()
    next_one.assert_ready()


async def test_what_a_wait_gives_has_its_turn_and_is_entered_without_waiting():
    mutex = Mutex(0)
    for _ in range(2):
        turn = await park(mutex.lock())
        assert mutex.locked()
        with turn as guard:
            guard.value += 1
    assert not mutex.locked()
    async with await park(mutex.lock()) as guard:
        assert guard == 2


async def test_a_turn_that_nobody_enters_is_a_leak():
    mutex = Mutex(0)
    with pytest.raises(LeakError, match="not given back"), no_leaks():
        turn = mutex.or_raise()
    with turn:
        pass


def test_a_thread_waits_for_so_long_and_no_longer():
    mutex = Mutex(0)
    with mutex.blocking_lock(timeout=10) as guard:
        guard.value = 1
        with pytest.raises(TimeoutError):
            mutex.blocking_lock(timeout=0.001)
    with mutex.lock() as guard:
        assert guard == 1
    assert mutex.statistics().waiting == 0


async def test_blocking_in_the_thread_of_a_loop_is_refused():
    mutex = Mutex(0)
    with pytest.raises(RuntimeError, match="event loop"):
        mutex.blocking_lock()
    with pytest.raises(RuntimeError, match="event loop"):
        with mutex.lock():
            pass
    assert not mutex.locked()


def test_a_thread_and_a_loop_take_turns():
    mutex = Mutex([])
    entered, leave = threading.Event(), threading.Event()

    def thread():
        with mutex.lock() as guard:
            entered.set()
            leave.wait()
            guard.append("thread")

    async def task():
        async with mutex.lock() as guard:
            guard.append("task")
            return guard.value

    async def main():
        waiting = asyncio.create_task(task())
        await settled()
        assert mutex.statistics().waiting == 1
        leave.set()
        return await waiting

    other = threading.Thread(target=thread)
    other.start()
    entered.wait()
    assert asyncio.run(main()) == ["thread", "task"]
    other.join()


# ------------------------------------------------------------------ poison


class Half(Exception):
    """Something went wrong half-way through."""


async def poison(mutex):
    with pytest.raises(Half):
        async with mutex.lock() as guard:
            guard.value = "half"
            raise Half


async def test_an_error_poisons_only_a_mutex_that_was_made_for_it():
    mutex = Mutex("whole")
    await poison(mutex)
    assert not mutex.is_poisoned
    async with mutex.lock() as guard:
        assert guard == "half"


async def test_a_poisoned_mutex_refuses_everybody_until_it_is_cleared():
    mutex = Mutex("whole", poison=True)
    await poison(mutex)
    assert mutex.is_poisoned
    for turn in (lambda: mutex.lock(), lambda: mutex.or_raise(), lambda: step(park(mutex.lock())).assert_ready()):
        with pytest.raises(MutexPoisoned, match="in doubt"):
            async with turn():
                raise AssertionError("it got in")
        assert not mutex.locked()
    mutex.clear_poison()
    async with mutex.lock() as guard:
        guard.value = "whole"
    assert not mutex.is_poisoned


async def test_who_waited_already_when_it_was_poisoned_is_refused_too():
    mutex = Mutex("whole", poison=True)
    waiting = []

    async def use():
        async with mutex.lock():
            raise AssertionError("it got in")

    with pytest.raises(Half):
        async with mutex.lock():
            waiting = [asyncio.create_task(use()) for _ in range(3)]
            turn = asyncio.create_task(park(mutex.lock()))
            await settled()
            raise Half
    for error in await asyncio.gather(*waiting, return_exceptions=True):
        assert isinstance(error, MutexPoisoned)
    with pytest.raises(MutexPoisoned), await turn:
        pass
    assert not mutex.locked()


def test_a_thread_that_waited_already_is_refused_too():
    mutex = Mutex("whole", poison=True)
    errors = []

    def thread():
        try:
            with mutex.lock():
                pass
        except MutexPoisoned as error:
            errors.append(error)

    other = threading.Thread(target=thread)
    with pytest.raises(Half):
        with mutex.lock():
            other.start()
            while not mutex.statistics().waiting:
                pass
            raise Half
    other.join()
    assert len(errors) == 1


async def test_a_cancellation_does_not_poison():
    mutex = Mutex("whole", poison=True)

    async def use():
        async with mutex.lock():
            await asyncio.sleep(3600)

    task = asyncio.create_task(use())
    await settled()
    task.cancel()
    await asyncio.wait([task])
    assert not mutex.is_poisoned
    async with mutex.lock() as guard:
        assert isinstance(guard, Guard)
