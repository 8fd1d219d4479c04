"""Scopes of generators: `with scope() as s`, and `yield s()`."""

from __future__ import annotations

import asyncio
import gc
import sys
from asyncio import CancelledError
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from yamanote.runtime import JoinError, TaskGroup, finish_within
from yamanote.runtime.generators import Scope, coroutine, map, run, scope, spawn
from yamanote.testing import explore_cancellations

Yields = Generator[Any, Any, Any]


class Child:
    """A child that has to clean up, and says how far it came."""

    def __init__(self) -> None:
        self.state = "new"

    def run(self, seconds: float = 3600, error: BaseException | None = None) -> Yields:
        self.state = "running"
        try:
            yield asyncio.sleep(seconds)
            if error is not None:
                raise error
            return "value"
        finally:
            self.state = "cleaning up"
            yield
            yield
            self.state = "ended"


def test_the_scope_waits_where_it_is_yielded_and_handles_have_the_values() -> None:
    def program() -> Yields:
        child = Child()
        with scope(name="mine") as s:
            handle = s.spawn(child.run(0.01), name="child")
        before = child.state
        yield s()
        return before, child.state, handle.name, (yield handle)

    assert run(program()) == ("new", "ended", "child", "value")


def test_cancelling_ends_the_children_and_the_block_and_raises_nothing() -> None:
    def program() -> Yields:
        children = [Child(), Child()]
        with scope() as s:
            for child in children:
                s.spawn(child.run())
            yield
            s.cancel("enough")
            yield asyncio.sleep(3600)
            raise AssertionError
        yield s()
        return [child.state for child in children], s.cancelled_caught

    assert run(program()) == (["ended", "ended"], True)


def test_a_block_without_children_is_cancelled_all_the_same() -> None:
    def program() -> Yields:
        with scope() as s:
            s.cancel()
            yield asyncio.sleep(3600)
            raise AssertionError
        yield s()
        return s.cancelled_caught

    assert run(program()) is True


def test_the_error_of_a_child_ends_the_block_and_the_other_children_and_is_raised_by_the_scope() -> None:
    def program() -> Yields:
        failing, other = Child(), Child()
        with scope() as s:
            s.spawn(failing.run(0.01, LookupError("child")))
            s.spawn(other.run())
            yield asyncio.sleep(3600)
        with pytest.raises(ExceptionGroup) as caught:
            yield s()
        yield s()  # there is nothing left to wait for
        return [repr(error) for error in caught.value.exceptions], failing.state, other.state

    assert run(program()) == (["LookupError('child')"], "ended", "ended")


def test_an_error_that_leaves_the_block_is_raised_as_it_is_when_the_children_have_ended() -> None:
    def broken(child: Child) -> Yields:
        with scope() as s:
            s.spawn(child.run())
            yield
            raise LookupError("block")

    def program() -> Yields:
        child = Child()
        with pytest.raises(LookupError, match="block"):
            yield broken(child)
        return child.state

    assert run(program()) == "ended"


def test_an_error_that_is_caught_behind_the_block_has_cancelled_the_children() -> None:
    def program() -> Yields:
        child = Child()
        try:
            with scope() as s:
                s.spawn(child.run())
                yield
                raise LookupError
        except LookupError:
            yield s()
        return child.state

    assert run(program()) == "ended"


def test_a_generator_that_does_not_wait_for_its_scope_waits_at_its_end() -> None:
    def forgetful(child: Child, error: Exception | None = None) -> Yields:
        with scope() as s:
            s.spawn(child.run(0.01, error))
        yield
        return "value"

    def program() -> Yields:
        child = Child()
        value = yield forgetful(child)
        assert child.state == "ended"
        with pytest.raises(ExceptionGroup):
            yield forgetful(Child(), LookupError())
        return value

    assert run(program()) == "value"


def test_an_error_behind_the_block_cancels_the_children_whose_errors_are_reported() -> None:
    reports: list[Any] = []

    def child() -> Yields:
        try:
            yield asyncio.sleep(3600)
        finally:
            raise ArithmeticError("child")

    def broken() -> Yields:
        with scope() as s:
            s.spawn(child())
        yield
        raise LookupError("generator")

    def program() -> Yields:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: reports.append(context["exception"]))
        with pytest.raises(LookupError, match="generator") as caught:
            yield broken()
        return caught.value.__context__

    assert run(program()) is None
    assert [repr(error) for error in reports] == ["ArithmeticError('child')"]


def test_a_cancellation_that_comes_while_an_error_waits_for_the_children_is_raised_behind_it() -> None:
    def broken() -> Yields:
        with scope() as s:
            s.spawn(Child().run())
            yield
            raise LookupError

    def host(log: list[str]) -> Yields:
        try:
            yield broken()
        except LookupError:
            log.append("error")
        try:
            yield asyncio.sleep(3600)
        except CancelledError:
            log.append("cancellation")
            raise

    def program() -> Yields:
        log: list[str] = []
        handle = spawn(host(log))
        yield
        yield
        handle.abort()
        with pytest.raises(JoinError):
            yield handle
        return log

    assert run(program()) == ["error", "cancellation"]


def test_scopes_inside_of_each_other_end_from_the_inside_out_and_with_their_own_generators() -> None:
    def program() -> Yields:
        outer_child, inner_child, early = Child(), Child(), Child()

        def early_one() -> Yields:
            with scope() as s:
                s.spawn(early.run(0.01))
            yield

        with scope() as outer:
            outer.spawn(outer_child.run())
            with scope() as inner:
                inner.spawn(inner_child.run())
                yield early_one()
                assert (early.state, inner_child.state, outer_child.state) == ("ended", "running", "running")
                inner.cancel()
            yield inner()
            assert (inner_child.state, outer_child.state) == ("ended", "running")
            outer.cancel()
        yield outer()
        return outer_child.state

    assert run(program()) == "ended"


def test_many_scopes_one_after_the_other_leave_nothing_in_the_generator() -> None:
    def program() -> Yields:
        seen: set[int] = set()
        for _ in range(10):
            with scope() as s:
                s.spawn(coroutine(Child().run(0)))
            with scope() as t:
                t.spawn(coroutine(Child().run(0)))
            yield s()
            yield t()
            seen.add(len(s._callers))
        return seen

    assert run(program()) == {0}


def test_children_may_be_coroutines_and_may_spawn_others_until_all_have_ended() -> None:
    def program() -> Yields:
        log: list[str] = []

        async def last() -> None:
            log.append("last")

        def first() -> Yields:
            yield
            s.spawn(last())
            log.append("first")

        with scope() as s:
            s.spawn(first())
        yield s()
        with pytest.raises(RuntimeError, match="takes no children"):
            s.spawn(first())
        return log

    assert run(program()) == ["first", "last"]


def test_whoever_is_cancelled_while_it_waits_cancels_the_children_and_waits_for_them() -> None:
    def host(child: Child) -> Yields:
        with scope() as s:
            s.spawn(child.run())
        try:
            yield s()
        finally:
            assert child.state == "ended"

    def program() -> Yields:
        child = Child()
        handle = spawn(host(child))
        yield
        yield
        assert child.state == "running"
        handle.abort()
        with pytest.raises(JoinError):
            yield handle
        return child.state

    assert run(program()) == "ended"


def test_no_child_outlives_its_generator_wherever_anything_is_cancelled() -> None:
    async def scenario() -> None:
        running: list[int] = []

        def child(number: int) -> Yields:
            running.append(number)
            try:
                yield asyncio.sleep(number)
            finally:
                try:
                    yield
                finally:
                    running.remove(number)

        def inner() -> Yields:
            with scope() as s:
                s.spawn(child(2))
                yield asyncio.sleep(1)

        def host() -> Yields:
            try:
                with scope() as s:
                    s.spawn(child(3))
                    yield inner()
                    assert 2 not in running
                yield s()
            finally:
                assert 2 not in running

        task = asyncio.ensure_future(coroutine(host()))
        await asyncio.wait([task])
        assert not running

    assert explore_cancellations(scenario, runs=150).runs


def test_a_generator_that_is_thrown_away_cancels_the_children_which_end_on_their_own() -> None:
    def program() -> Yields:
        child, left = Child(), Child()

        def host() -> Yields:
            with scope() as behind:
                behind.spawn(left.run())
            with scope() as s:
                s.spawn(child.run())
                yield
                yield

        driven = coroutine(host())
        driven.send(None)
        yield
        driven.close()
        for _ in range(6):
            yield
        return child.state, left.state

    assert run(program()) == ("ended", "ended")


def test_misuse_is_refused_with_advice() -> None:
    async def awaiting() -> None:
        with scope():
            pass

    def program() -> Yields:
        with pytest.raises(RuntimeError, match="in an async function"):
            yield awaiting()
        with pytest.raises(RuntimeError, match="in an async function"):
            yield spawn(awaiting(), eager=True)
        with scope() as s:
            with pytest.raises(RuntimeError, match="behind its block"):
                yield s()
        yield s()
        with pytest.raises(RuntimeError, match="only once"):
            s.__enter__()

    run(program())
    with pytest.raises(RuntimeError, match="in a generator"):
        scope().__enter__()


@pytest.mark.parametrize("worker", [0, 1], ids=["same worker", "other worker"])
def test_only_the_task_that_opened_a_scope_can_wait_for_it(worker: int) -> None:
    def program() -> Yields:
        child = Child()
        with scope() as s:
            s.spawn(child.run())
            yield
        with pytest.raises(RuntimeError, match="only in the task that has opened it"):
            yield finish_within(5, spawn(s(), on=worker))
        assert child.state == "running"
        s.cancel()
        yield finish_within(60, s())
        return child.state

    assert run(program(), workers=2) == "ended"


def test_a_callee_may_wait_for_the_scope_of_its_caller() -> None:
    def finish(s: Scope) -> Yields:
        yield s()

    def program() -> Yields:
        children = [Child() for _ in range(3)]
        for child in children:
            with scope() as s:
                s.spawn(child.run(0.01))
            yield finish(s)
        with scope() as last:
            pass
        yield last()
        return [child.state for child in children], last._callers

    assert run(program()) == (["ended"] * 3, [])


def test_a_scope_on_each_of_very_many_levels_costs_as_much_as_in_one() -> None:
    scopes: list[Scope] = []

    class Watched(list[Any]):
        looks = 0

        def __getitem__(self, key: Any) -> Any:
            Watched.looks += 1
            return super().__getitem__(key)

        def __iter__(self) -> Any:
            raise AssertionError("a search through all levels")

        __contains__ = remove = index = __iter__  # type: ignore[assignment]

    def level(number: int) -> Yields:
        with scope() as s:
            s._callers = watched
            watched.append(s)
            if number:
                yield level(number - 1)
        yield s()
        scopes.append(s)

    watched = Watched()
    depth = 3 * sys.getrecursionlimit()
    run(level(depth))
    assert len(scopes) == depth + 1 and not watched and Watched.looks <= 3 * len(scopes)


def test_a_plain_function_may_enter_a_scope_for_its_generator() -> None:
    def enter() -> Scope:
        return scope().__enter__()

    def program() -> Yields:
        child = Child()
        s = enter()
        s.spawn(child.run(0.01))
        s.__exit__(None, None, None)
        yield s()
        return child.state, isinstance(s, TaskGroup)

    assert run(program()) == ("ended", True)


def test_a_scope_that_a_context_manager_or_a_delegate_entered_is_its_generator_s() -> None:
    @contextmanager
    def one_child(child: Child) -> Iterator[Scope]:
        with scope() as s:
            s.spawn(child.run(0.01))
            yield s

    def delegate(child: Child) -> Yields:
        with one_child(child):
            yield

    def owner(children: list[Child]) -> Yields:
        with one_child(children[0]):
            pass
        yield from delegate(children[1])

    def program() -> Yields:
        children = [Child(), Child()]
        yield owner(children)
        return [child.state for child in children]

    assert run(program()) == ["ended", "ended"]


def test_children_on_other_workers_may_spawn_into_the_scope() -> None:
    def program() -> Yields:
        log: list[int] = []

        def child(number: int) -> Yields:
            yield
            if number:
                s.spawn(child(number - 1))
            log.append(number)

        with scope() as s:
            for _ in range(8):
                s.spawn(child(3))
        yield s()
        return sorted(log)

    assert run(program(), workers=4) == sorted([0, 1, 2, 3] * 8)


def test_an_eager_child_that_opens_a_scope_has_it_for_itself() -> None:
    def child(log: list[str]) -> Yields:
        with scope() as s:
            s.spawn(Child().run(0.01))
        yield s()
        log.append("child")

    def program() -> Yields:
        log: list[str] = []
        with scope() as s:
            s.spawn(child(log), eager=True)
            assert s._callers == [s]
        yield s()
        return log

    assert run(program()) == ["child"]


def test_what_was_sent_last_is_not_kept_by_a_scope() -> None:
    class Big:
        alive = 0

        def __init__(self) -> None:
            Big.alive += 1

        def __del__(self) -> None:
            Big.alive -= 1

    async def make() -> Big:
        return Big()

    def program() -> Yields:
        big = yield make()
        with scope() as s:
            del big
            s.spawn(asyncio.sleep(0))
        yield s()
        gc.collect()
        return Big.alive

    assert run(program()) == 0


def test_a_map_in_a_scope_ends_with_it() -> None:
    def work(number: int) -> Yields:
        try:
            yield asyncio.sleep(3600)
        except CancelledError:
            ended.append(number)
            raise

    ended: list[int] = []

    def program() -> Yields:
        with scope() as s:
            s.spawn(map(work, range(3)))
            yield
            yield
            yield
            s.cancel()
        yield s()
        return sorted(ended)

    assert run(program()) == [0, 1, 2]
