"""What future states promise."""

import asyncio
import pickle
from concurrent import futures

import pytest

from yamanote.runtime import move_on_after, yield_now
from yamanote.sync import FutureState


def fail():
    raise ZeroDivisionError("failed")


@pytest.mark.parametrize(
    ("state", "status", "result", "exception"),
    [
        (FutureState.new_pending(), "pending", None, None),
        (FutureState.new_success(1), "success", 1, None),
        (FutureState.new_success(None), "success", None, None),
        (FutureState.new_failed(ValueError("no")), "exception", None, ValueError),
        (FutureState.new_cancelled("why"), "cancelled", None, asyncio.CancelledError),
    ],
    ids=lambda value: value.status if isinstance(value, FutureState) else "",
)
def test_a_state_says_what_it_is_also_after_a_journey(state, status, result, exception):
    for each in (state, pickle.loads(pickle.dumps(state))):
        assert each.status == status
        assert each.result == result
        assert type(each.exception) is (exception or type(None))
        assert status == "pending" or each.outcome is not None
        assert repr(state.exception) in repr(each) or not exception
        if status == "pending":
            with pytest.raises(asyncio.InvalidStateError):
                each.apply()
        elif exception is None:
            assert each.apply() == result
        else:
            with pytest.raises(exception) as caught:
                each.apply()
            assert caught.value.args == state.exception.args


async def test_an_exception_that_was_returned_is_a_result():
    error = ValueError()
    state = FutureState.absorb_lambda(lambda: error)
    assert (state.status, state.result, state.exception) == ("success", error, None)


# ------------------------------------------------------------------ absorb


async def test_the_state_of_a_future_is_what_it_is_now():
    future = asyncio.get_running_loop().create_future()
    assert FutureState.absorb_future(future).status == "pending"
    future.cancel("because")
    state = FutureState.absorb_future(future)
    assert (state.status, state.exception.args) == ("cancelled", ("because",))
    failed: futures.Future[int] = futures.Future()
    failed.set_exception(ValueError("no"))
    assert FutureState.absorb_future(failed).status == "exception"


async def test_what_is_awaited_is_absorbed_however_it_ends():
    async def value():
        return 1

    async def raises():
        await yield_now()
        fail()

    cancelled = asyncio.get_running_loop().create_future()
    cancelled.cancel("because")
    assert (await FutureState.absorb_awaitable(value())).apply() == 1
    assert (await FutureState.absorb_awaitable(raises())).status == "exception"
    state = await FutureState.absorb_awaitable(cancelled)
    assert (state.status, state.exception.args) == ("cancelled", ("because",))


async def test_a_request_to_cancel_the_caller_is_not_absorbed():
    inner = asyncio.create_task(asyncio.sleep(3600))
    absorbing = asyncio.create_task(FutureState.absorb_awaitable(inner))
    await yield_now()
    absorbing.cancel("mine")
    with pytest.raises(asyncio.CancelledError, match="mine"):
        await absorbing
    assert inner.cancelled()
    with move_on_after(0) as scope:
        await FutureState.absorb_awaitable(asyncio.sleep(3600))
    assert scope.cancelled_caught


@pytest.mark.parametrize("block", [False, True])
async def test_a_request_that_came_before_is_not_absorbed_either(block):
    async def absorb():
        asyncio.current_task().cancel()
        if block:
            with FutureState.absorb_context():
                await asyncio.sleep(3600)
        else:
            await FutureState.absorb_awaitable(asyncio.sleep(3600))

    absorbing = asyncio.create_task(absorb())
    await asyncio.wait([absorbing])
    assert absorbing.cancelled()


async def test_a_task_that_is_being_cancelled_absorbs_the_cancellation_of_others_while_it_cleans_up():
    states = []

    async def work():
        try:
            await asyncio.sleep(3600)
        finally:
            other = asyncio.create_task(asyncio.sleep(3600))
            other.cancel("other")
            states.append(await FutureState.absorb_awaitable(other))
            with FutureState.absorb_context() as state:
                await other
            states.append(state)

    working = asyncio.create_task(work())
    await yield_now()
    working.cancel()
    await asyncio.wait([working])
    assert working.cancelled()
    assert [state.status for state in states] == ["cancelled", "cancelled"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_what_is_to_end_the_program_is_not_absorbed(error):
    def interrupt():
        raise error

    async def interrupted():
        interrupt()

    with pytest.raises(error):
        FutureState.absorb_lambda(interrupt)
    with pytest.raises(error):
        FutureState.absorb_awaitable(interrupted()).send(None)
    with pytest.raises(error), FutureState.absorb_context() as state:
        interrupt()
    assert state.status == "pending"


def test_a_block_is_absorbed_however_it_ends():
    with FutureState.absorb_context() as state:
        assert state.status == "pending"
    assert (state.status, state.apply()) == ("success", None)
    with FutureState.absorb_context("done") as state:
        pass
    assert state.apply() == "done"
    with FutureState.absorb_context("done") as state:
        fail()
    assert (state.status, str(state.exception)) == ("exception", "failed")
    with FutureState.absorb_context() as state:
        raise asyncio.CancelledError("inner")
    assert (state.status, state.exception.args) == ("cancelled", ("inner",))


# ------------------------------------------------------------------ transfer


async def test_a_future_ends_as_the_state_says():
    loop = asyncio.get_running_loop()
    succeeds, fails, cancelled, stops = (loop.create_future() for _ in range(4))
    assert FutureState.new_success(1).transfer(succeeds)
    assert FutureState.absorb_lambda(fail).transfer(fails)
    assert FutureState.new_cancelled("because").transfer(cancelled)
    assert FutureState.absorb_lambda(lambda: next(iter(()))).transfer(stops)
    assert await succeeds == 1
    with pytest.raises(ZeroDivisionError):
        await fails
    assert FutureState.absorb_future(cancelled).exception.args == ("because",)
    with pytest.raises(RuntimeError, match="StopIteration"):
        await stops


async def test_a_future_that_has_ended_stays_as_it_is():
    ended = asyncio.get_running_loop().create_future()
    ended.cancel()
    assert not FutureState.new_success(1).transfer(ended)
    assert ended.cancelled()


async def test_a_pending_state_is_not_transferred():
    future = asyncio.get_running_loop().create_future()
    for transfer in (FutureState.new_pending().transfer, FutureState.new_pending().transfer_threadsafe):
        with pytest.raises(asyncio.InvalidStateError, match="pending"):
            transfer(future)
    future.cancel()


async def test_another_thread_ends_a_future_and_one_that_was_cancelled_meanwhile_is_no_error():
    loop = asyncio.get_running_loop()
    errors = []
    loop.set_exception_handler(lambda loop, context: errors.append(context))
    waits, gone = loop.create_future(), loop.create_future()

    def work():
        FutureState.new_success(1).transfer_threadsafe(gone)
        FutureState.new_success(2).transfer_threadsafe(waits)

    working = loop.run_in_executor(None, work)
    gone.cancel()
    assert await waits == 2
    await working
    assert errors == []


async def test_what_cannot_be_absorbed_is_refused():
    for wrong in ("no", ValueError):
        with pytest.raises(TypeError, match="exception must be"):
            FutureState.new_failed(wrong)
    with pytest.raises(TypeError, match="function must be"):
        FutureState.absorb_lambda(5)
    with pytest.raises(TypeError, match="awaitable must be"):
        await FutureState.absorb_awaitable(5)


def test_a_block_that_is_entered_again_has_a_state_of_its_own():
    block = FutureState.absorb_context("done")
    with block as first:
        pass
    with block as second:
        fail()
    assert first.apply() == "done"
    assert second.status == "exception"
