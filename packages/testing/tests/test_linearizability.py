"""What a history promises: it accepts what one call after the other can explain, and nothing else."""

import asyncio
import threading
from collections import deque
from contextlib import ExitStack
from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yamanote.testing import Call, History, NotLinearizable


def register(value, call):
    match call.name, *call.arguments:
        case "write", new:
            yield None, new
        case ("read",):
            yield value, value


def stack(items, call):
    """Its `pop` raises when there is nothing, its `take` waits."""
    match call.name, *call.arguments:
        case "append", item:
            yield None, (*items, item)
        case ("pop",) if not items:
            yield IndexError, items
        case ("pop",) | ("take",) if items:
            yield items[-1], items[:-1]


def is_linearizable(history, model, state):
    try:
        history.assert_linearizable(model, state)
    except NotLinearizable:
        return False
    return True


@pytest.mark.parametrize(("value", "possible"), [(0, True), (1, True), (2, False)])
def test_while_a_write_goes_on_a_read_sees_the_old_value_or_the_new_one(value, possible):
    history = History()
    with history.calling("write", 1), history.calling("read") as read:
        read.result = value
    assert is_linearizable(history, register, 0) is possible


@pytest.mark.parametrize(("value", "possible"), [(0, False), (1, True)])
def test_a_read_after_a_write_sees_the_new_value(value, possible):
    history = History()
    with history.calling("write", 1):
        pass
    with history.calling("read") as read:
        read.result = value
    assert is_linearizable(history, register, 0) is possible


def test_a_later_read_does_not_see_an_older_value():
    history = History()
    with history.calling("write", 1):  # each read for itself could be explained
        for value in (1, 0):
            with history.calling("read") as read:
                read.result = value
    assert not is_linearizable(history, register, 0)


@pytest.mark.parametrize("values", [(0, 0), (0, 1), (1, 1)])
def test_a_call_that_has_not_ended_may_have_happened_or_not(values):
    history = History()
    with history.calling("write", 1):
        for value in values:
            with history.calling("read") as read:
                read.result = value
        assert is_linearizable(history, register, 0)


def test_a_call_that_has_not_ended_may_have_had_any_result():
    items = []
    history = History()
    with history.calling("take"):
        history.call(items.append, 1)
        items.clear()
        history.call(items.pop)
        assert is_linearizable(history, stack, ())


def test_a_call_that_has_not_ended_happens_once_at_most():
    history = History()
    with history.calling("append", 1):
        for _ in range(2):
            with history.calling("take") as take:
                take.result = 1
        assert not is_linearizable(history, stack, ())


@pytest.mark.parametrize("appended", [True, False])
def test_a_call_that_had_to_wait_comes_after_what_it_waited_for(appended):
    history = History()
    with history.calling("take") as take:
        if appended:
            history.call([].append, "x")
        take.result = "x"
    assert is_linearizable(history, stack, ()) is appended


def test_an_error_is_a_result_like_any_other():
    items = deque()
    history = History()
    assert history.call(items.pop) is IndexError
    assert history.call(items.append, 1) is None
    assert history.call(items.pop) == 1
    assert is_linearizable(history, stack, ())
    items.append(2)  # unseen
    assert history.call(items.pop) == 2
    assert not is_linearizable(history, stack, ())


def test_a_cancellation_is_recorded_and_goes_on():
    history = History()
    with pytest.raises(asyncio.CancelledError), history.calling("take"):
        raise asyncio.CancelledError

    def cancelled(state, call):
        yield asyncio.CancelledError, state

    assert is_linearizable(history, cancelled, None)


def test_a_failed_assertion_is_no_result():
    with pytest.raises(AssertionError), History().calling("take"):
        raise AssertionError


@pytest.mark.parametrize(("drawn", "possible"), [("heads", True), ("edge", False)])
def test_a_model_may_leave_a_choice(drawn, possible):
    def coin(tosses, call):
        yield "heads", tosses + 1
        yield "tails", tosses + 1

    history = History()
    with history.calling("toss") as toss:
        toss.result = drawn
    assert is_linearizable(history, coin, 0) is possible


def explained_by_trying_all(spans, state):
    """The definition: every order, and every choice of which of the calls that have not ended have happened."""
    ended = [call for call, (_, end) in spans.items() if end is not None]
    open_calls = [call for call in spans if call not in ended]
    for number in range(len(open_calls) + 1):
        for happened in permutations(open_calls, number):
            for order in permutations([*ended, *happened]):
                ends = [(spans[call][0], spans[call][1]) for call in order]
                if any(
                    later_end is not None and later_end < begin
                    for place, (begin, _) in enumerate(ends)
                    for _, later_end in ends[place + 1 :]
                ):
                    continue
                worlds = {state}
                for call in order:
                    worlds = {
                        after
                        for world in worlds
                        for result, after in stack(world, call)
                        if not call.ended or result == call.result
                    }
                if worlds:
                    return True
    return False


calls = st.one_of(
    st.tuples(st.just("append"), st.sampled_from([(1,), (2,)]), st.none()),
    st.tuples(st.sampled_from(["pop", "take"]), st.just(()), st.sampled_from([1, 2, IndexError])),
)


@settings(derandomize=True, max_examples=150, deadline=None)
@given(st.lists(calls, max_size=4), st.data())
def test_it_decides_as_trying_all_orders_does(made, data):
    history = History()
    spans = {}
    open_calls = []
    for moment in range(2 * len(made)):
        if made and (not open_calls or data.draw(st.booleans())):
            name, arguments, result = made.pop()
            context = history.calling(name, *arguments)
            call = context.__enter__()
            spans[call] = [moment, None]
            open_calls.append((context, call, result))
        elif data.draw(st.booleans()):
            context, call, result = open_calls.pop(data.draw(st.integers(0, len(open_calls) - 1)))
            call.result = result
            context.__exit__(None, None, None)
            spans[call][1] = moment
    assert is_linearizable(history, stack, ()) == explained_by_trying_all(spans, ())


def test_a_long_history_takes_no_longer_per_call_than_a_short_one():
    looked_at = 0

    def counted(value, call):
        nonlocal looked_at
        looked_at += 1
        yield from register(value, call)

    history = History()
    for number in range(1000):
        with history.calling("write", number), history.calling("read") as read:
            read.result = number
    history.assert_linearizable(counted, 0)
    assert looked_at < 10_000


def test_what_threads_do_at_the_same_time_is_recorded():
    history = History()
    items = deque()
    together = threading.Barrier(3)

    def work(item):
        together.wait()
        for _ in range(5):
            history.call(items.append, item)
            history.call(items.pop)

    threads = [threading.Thread(target=work, args=(item,)) for item in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    history.assert_linearizable(stack, ())


def test_the_message_draws_the_calls_and_marks_the_one_that_does_not_fit():
    history = History()
    with ExitStack() as under_way:
        under_way.enter_context(history.calling("write", 1))
        with history.calling("read") as read:
            read.result = 7
    with pytest.raises(NotLinearizable) as caught:
        history.assert_linearizable(register, 0)
    assert str(caught.value).splitlines() == [
        "read() -> 7, drawn with *, cannot be explained. Before it ended the state was 0",
        "  MainThread  write(1) -> None  [==",
        "  MainThread  read() -> 7        []",
    ]


def test_the_message_of_a_long_history_draws_its_end():
    history = History()
    for value in range(100):
        history.call(lambda value: None, value)
        with history.calling("write", value):
            pass
    with history.calling("read") as read:
        read.result = -1

    def lenient(value, call):
        return iter([(None, value)]) if call.name == "<lambda>" else register(value, call)

    with pytest.raises(NotLinearizable) as caught:
        history.assert_linearizable(lenient, 0)
    first, *drawn = str(caught.value).splitlines()
    assert first.endswith("was 99")
    assert 20 <= len(drawn) <= 25
    assert drawn[-1].endswith("[]")


def test_a_call_shows_itself():
    assert str(Call("pop", (), "T")) == "pop()"
    assert str(Call("put", (1, "x"), "T", IndexError, ended=True)) == "put(1, 'x') -> IndexError"
