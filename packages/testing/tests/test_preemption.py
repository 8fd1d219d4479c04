"""What the preemption explorer promises: it stops at each instruction, says where it failed, and repeats it."""

import gc
import threading
import types
from collections import deque

import pytest

from yamanote.testing import Counterexample, explore_preemptions


def incrementing(*, lock=None):
    counter = [0]

    def unsafe():
        counter[0] += 1

    def safe():
        with lock:
            counter[0] += 1

    def check():
        assert counter[0] == 2

    return (unsafe if lock is None else safe,) * 2 + (check,)


def test_two_threads_that_increment_without_a_lock_are_found():
    with pytest.raises(Counterexample) as caught:
        explore_preemptions(incrementing)
    assert isinstance(caught.value.__cause__, AssertionError)
    assert "first preempted before" in str(caught.value)
    assert "test_preemption.py" in str(caught.value)
    assert caught.value.trace == ("first", "second", "first")


def test_with_a_lock_they_are_not():
    exploration = explore_preemptions(lambda: incrementing(lock=threading.Lock()))
    assert exploration.runs > 10


def test_a_token_makes_that_one_run_again():
    with pytest.raises(Counterexample) as caught:
        explore_preemptions(incrementing)
    with pytest.raises(Counterexample) as again:
        explore_preemptions(incrementing, token=caught.value.token)
    assert str(again.value) == str(caught.value)
    assert explore_preemptions(incrementing, token="first@0").runs == 1


def test_either_of_the_two_is_preempted():
    def scenario():
        values = [0]

        def step_by_step():
            values[0] = 1
            values[0] = 2

        return (lambda: seen.add(values[0])), step_by_step, lambda: None

    seen = set()
    explore_preemptions(scenario)
    assert seen == {0, 1, 2}


def test_every_state_on_the_way_of_one_is_seen_by_the_other():
    def scenario():
        values = [0] * 5

        def change():
            for place in range(5):
                values[place] = 1

        return change, (lambda: seen.add(tuple(values))), lambda: None

    seen = set()
    explore_preemptions(scenario)
    assert seen == {(1,) * ones + (0,) * (5 - ones) for ones in range(6)}


def test_a_function_that_the_scenario_itself_calls_is_stopped_in_as_well():
    def scenario():
        counter = [0]

        def increment():
            counter[0] += 1

        def check():
            increment()
            assert counter[0] == 4

        increment()
        return increment, increment, check

    with pytest.raises(Counterexample):
        explore_preemptions(scenario)


def test_who_holds_a_lock_goes_on_until_the_other_can():
    def scenario():
        lock = threading.Lock()
        order = deque()

        def hold():
            with lock:
                order.append("held")
            order.append("released")
            order.append("end")

        def wait():
            order.append("came")
            with lock:
                order.append("waited")

        def check():
            orders.add(" ".join(order))

        return hold, wait, check

    orders = set()
    explore_preemptions(scenario)
    assert "came held waited released end" in orders
    assert orders >= {"came waited held released end", "came held released end waited", "held released end came waited"}


def test_a_dead_lock_is_found_and_says_who_waits_where():
    def scenario():
        one, two = threading.Lock(), threading.Lock()

        def in_order():
            with one, two:
                pass

        def out_of_order():
            with two, one:
                pass

        return in_order, out_of_order, lambda: None

    with pytest.raises(Counterexample, match=r"waits .* in .*out_of_order") as caught:
        explore_preemptions(scenario, patience=0.1)
    assert isinstance(caught.value.__cause__, TimeoutError)


def test_a_lost_wake_up_is_found():
    def scenario():
        parked, items = deque(), deque()

        def receive():
            if not items:
                wake_up = threading.Semaphore(0)
                parked.append(wake_up)  # and does not look again
                wake_up.acquire()
            items.popleft()

        def send():
            items.append(None)
            if parked:
                parked.popleft().release()

        return receive, send, lambda: None

    with pytest.raises(Counterexample, match="first waits"):
        explore_preemptions(scenario, patience=0.1)


def test_a_hand_shake_comes_to_its_end():
    def scenario():
        there, back = threading.Event(), threading.Event()

        def call():
            there.set()
            back.wait()

        def answer():
            there.wait()
            back.set()

        return call, answer, lambda: None

    explore_preemptions(scenario, within=__name__)


@pytest.mark.parametrize("culprit", [0, 1, 2])
def test_an_error_of_an_operation_or_of_the_check_is_found(culprit):
    def fail():
        raise ZeroDivisionError("broken")

    functions = [lambda: None] * 3
    functions[culprit] = fail
    with pytest.raises(Counterexample, match="broken") as caught:
        explore_preemptions(lambda: functions)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_only_the_instructions_within_a_module_are_stopped_at():
    module = types.ModuleType("inner")
    exec("def work(): return [number + 1 for number in (1, 2)]", vars(module))

    def scenario():
        def outer():
            return [module.work() for _ in range(3)]

        return outer, lambda: None, lambda: None

    everything = explore_preemptions(scenario).runs
    inside = explore_preemptions(scenario, within="inner").runs
    nothing = explore_preemptions(scenario, within="inn").runs
    assert everything > inside > nothing == 2


@pytest.mark.parametrize("token", ["", "fifo", "third@1", "first@-1", "first"])
def test_what_is_no_token_is_refused(token):
    with pytest.raises(ValueError, match="token"):
        explore_preemptions(incrementing, token=token)


def test_what_is_no_scenario_is_refused():
    with pytest.raises(TypeError, match="scenario"):
        explore_preemptions(incrementing())


def test_no_thread_and_no_setting_is_left_behind():
    threads = threading.active_count()
    explore_preemptions(lambda: incrementing(lock=threading.Lock()))
    assert threading.active_count() == threads
    assert gc.isenabled()
