"""Scopes, groups and tokens do what sequential models of them do, step by step.

The models are written from the promises alone: a stack of blocks and a count of requests, a queue and some children, a
tree of switches. After each step everything runs that can, and then the two must look the same. Time is virtual.
"""

from __future__ import annotations

import asyncio
from asyncio import CancelledError
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from math import inf
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from yamanote.runtime import CancellationToken, CancelScope, JoinError, JoinHandle, TaskGroup
from yamanote.time import VirtualClock

anyone = st.integers(0, 11)
"""Which of those that there are: counted round and round."""


class Machine(RuleBasedStateMachine):
    """What all of them need: a loop of their own that runs until nobody can go on."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = VirtualClock(autojump=False)
        self.loop = self.clock.loop_factory()
        self.unhandled: list[dict[str, Any]] = []
        self.loop.set_exception_handler(lambda _, context: self.unhandled.append(context))

    def do(self, function: Callable[..., Any], *args: Any, seconds: float = 0) -> Any:
        """Call `function` on the loop; let all happen that follows from it, and that falls due in so many seconds."""

        async def call() -> Any:
            result = function(*args)
            await self.clock.advance(seconds)
            return result

        return self.loop.run_until_complete(call())

    @invariant()
    def nothing_was_reported(self) -> None:
        assert self.unhandled == []

    def teardown(self) -> None:
        for _ in range(3):
            for task in asyncio.all_tasks(self.loop):
                task.cancel()
            self.do(lambda: None)
        left = asyncio.all_tasks(self.loop)
        self.loop.close()
        assert not left


# ---------------------------------------------------------------- cancel scopes


@dataclass(eq=False)
class Block:
    """A scope, and what the model knows of it."""

    scope: CancelScope
    deadline: float
    shield: bool
    called: bool = False
    delivered: bool = False
    caught: bool = False
    reason: str | None = None
    requests: int = 0
    """How many there were when it was opened."""

    def call(self, reason: str) -> None:
        if not self.called:
            self.called, self.reason = True, reason


class ScopeNesting(Machine):
    """A task in nested scopes, which are cancelled in all ways, also from outside, and which may take no notice."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks: list[Block] = []
        self.left: list[Block] = []
        self.requests = 0
        self.absorbs = 0
        self.start()

    def start(self) -> None:
        self.requests = self.absorbs = self.depth = 0
        self.outside: list[int] = []
        self.task = self.do(self.loop.create_task, self.live())

    # The task: it does what it is told, in the innermost block, until it is told to leave that.

    async def live(self) -> None:
        while True:
            self.told: asyncio.Future[CancelScope | None] = self.loop.create_future()
            try:
                scope = await self.told
            except CancelledError:
                if not self.absorbs:
                    raise
                self.absorbs -= 1
                continue
            if scope is None:
                return
            self.depth += 1
            try:
                with scope:
                    await self.live()
            finally:
                self.depth -= 1

    # The model.

    def deliver(self) -> None:
        """Cancel the blocks that have been called, unless a block inside them is shielded; until nothing changes."""
        while True:
            thrown = False
            for place, block in enumerate(self.blocks):
                shielded = any(inner.shield for inner in self.blocks[place + 1 :])
                if block.called and not block.delivered and not shielded:
                    block.delivered = thrown = True
                    self.requests += 1
            if not thrown:
                return
            self.throw()

    def throw(self) -> None:
        """A CancelledError goes from the innermost block outwards, to the one whose it is."""
        if self.expected_absorbs:
            self.expected_absorbs -= 1
            return
        while self.blocks:
            if self.leave(CancelledError()):
                return
        self.ended = True

    def leave(self, error: CancelledError | None) -> bool:
        """Close the innermost block; tell whether it swallows the error."""
        block = self.blocks.pop()
        self.left.append(block)
        self.outside = [min(depth, len(self.blocks)) for depth in self.outside]
        if block.delivered and self.requests > block.requests:
            self.requests -= 1
        block.caught = error is not None and block.delivered and self.requests <= block.requests
        return block.caught

    def step(self, *actions: Callable[[], object], seconds: float = 0, outside: bool = False) -> None:
        """Do it, in the world and in the model, and let so much time pass."""
        self.expected_absorbs, self.ended = self.absorbs, False
        now = self.loop.time()
        self.do(lambda: [action() for action in actions], seconds=seconds)
        moments = {block.deadline for block in self.blocks if now < block.deadline <= now + seconds}
        for moment in [now, *sorted(moments)]:
            for block in self.blocks:
                if block.deadline <= moment:
                    block.call("deadline passed")
            if outside:
                self.requests += 1
                self.outside.append(len(self.blocks))
                outside = False
                for block in self.blocks:  # all in the same moment: one error for all of them
                    shielded = any(inner.shield for inner in self.blocks[self.blocks.index(block) + 1 :])
                    if block.called and not block.delivered and not shielded:
                        block.delivered = True
                        self.requests += 1
                self.throw()
            self.deliver()
        assert self.absorbs == self.expected_absorbs
        assert self.task.done() == self.ended
        if self.ended:
            assert self.task.cancelled() and self.requests == self.task.cancelling() > 0
            self.start()

    # What may happen.

    @rule(deadline=st.sampled_from([inf, inf, -1, 0, 1, 2, 3]), shield=st.booleans(), called=st.booleans())
    def open(self, deadline: float, shield: bool, called: bool) -> None:
        moment = inf if deadline == inf else self.loop.time() + deadline
        scope = CancelScope(None if deadline == inf else moment, shield=shield)
        block = Block(scope, moment, shield, requests=self.requests)
        if called:
            scope.cancel("before")
            block.call("before")
        self.blocks.append(block)
        self.step(lambda: self.told.set_result(scope))

    @precondition(lambda self: self.blocks)
    @rule()
    def leave_the_innermost(self) -> None:
        self.leave(None)
        self.step(lambda: self.told.set_result(None))

    @precondition(lambda self: self.blocks)
    @rule(which=st.lists(anyone, min_size=1, max_size=3), outside=st.booleans())
    def cancel(self, which: list[int], outside: bool) -> None:
        """Several in the same moment; and last, so that it is one error for all, the task itself."""
        chosen = [self.blocks[number % len(self.blocks)] for number in which]
        for block in chosen:
            block.call("by hand")
        actions: list[Callable[[], object]] = [lambda b=block: b.scope.cancel("by hand") for block in chosen]  # type: ignore[misc]
        self.step(*actions, *[self.task.cancel] * outside, outside=outside)

    @rule()
    def cancel_the_task(self) -> None:
        self.step(self.task.cancel, outside=True)

    @precondition(lambda self: self.left)
    @rule(which=anyone)
    def cancel_one_that_was_left(self, which: int) -> None:
        block = self.left[which % len(self.left)]
        block.call("late")
        self.step(lambda: block.scope.cancel("late"))

    @precondition(lambda self: self.blocks)
    @rule(which=anyone, deadline=st.sampled_from([inf, 0, 1, 2]))
    def move_the_deadline(self, which: int, deadline: float) -> None:
        block = self.blocks[which % len(self.blocks)]
        block.deadline = inf if deadline == inf else self.loop.time() + deadline
        moment = None if deadline == inf else block.deadline
        self.step(lambda: setattr(block.scope, "deadline", moment))

    @rule(seconds=st.integers(1, 3))
    def let_time_pass(self, seconds: int) -> None:
        self.step(seconds=seconds)

    @rule()
    def take_no_notice_the_next_time(self) -> None:
        self.absorbs += 1

    @precondition(lambda self: self.outside and self.outside[-1] == len(self.blocks))
    @rule()
    def take_a_request_back(self) -> None:
        """One that was made from outside, and of which no notice was taken, in this very block."""
        self.outside.pop()
        self.requests -= 1
        self.step(self.task.uncancel)

    def teardown(self) -> None:
        self.absorbs = 0
        super().teardown()

    @invariant()
    def they_agree(self) -> None:
        assert self.depth == len(self.blocks)
        assert self.task.cancelling() == self.requests
        for block in self.blocks + self.left:
            scope = block.scope
            assert (scope.cancel_called, scope.cancelled_caught) == (block.called, block.caught)
            assert scope.reason == block.reason


# ---------------------------------------------------------------- task groups


@dataclass(eq=False)
class Child:
    """A child, and what the model knows of it."""

    number: int
    cleans_up: bool
    """Whether it goes on when it is cancelled, once."""
    handle: JoinHandle[int] = field(init=False)
    told: asyncio.Future[BaseException | None] = field(init=False)
    state: str = "queued"
    cancelled: bool = False
    error: BaseException | None = None

    async def live(self, started: list[int]) -> int:
        started.append(self.number)
        clean = not self.cleans_up
        while True:
            self.told = asyncio.get_running_loop().create_future()
            try:
                error = await self.told
            except CancelledError:
                if clean:
                    raise
                clean = True
                continue
            if error is not None:
                raise error
            return self.number


class GroupWithLimit(Machine):
    """A group whose children wait for their turns, end in all ways, and are cancelled, together or alone."""

    def __init__(self) -> None:
        super().__init__()
        self.enter(1)

    def enter(self, limit: int | None) -> None:
        self.limit = limit
        self.group = TaskGroup(limit=limit)
        self.started: list[int] = []
        self.expected: list[int] = []
        self.children: list[Child] = []
        self.queue: deque[Child] = deque()
        self.errors: list[BaseException] = []
        self.raised: tuple[BaseException, ...] = ()
        self.aborting = self.body_ended = self.group_ended = self.left = False
        self.requests = 0
        self.host = self.do(self.loop.create_task, self.live())

    async def live(self) -> None:
        self.told: asyncio.Future[BaseException | None] = self.loop.create_future()
        try:
            async with self.group:
                error = await self.told
                if error is not None:
                    raise error
        except BaseExceptionGroup as errors:
            self.raised = errors.exceptions
        finally:
            self.left = True
        await self.loop.create_future()  # a cancellation that errors took the place of is raised here

    # The model.

    def running(self) -> list[Child]:
        return [child for child in self.children if child.state == "running"]

    def full(self) -> bool:
        return self.limit is not None and len(self.running()) >= self.limit

    def start(self, child: Child) -> None:
        if self.aborting:
            child.state = "cancelled"
        elif self.full():
            self.queue.append(child)
        else:
            child.state = "running"
            self.expected.append(child.number)

    def end(self, child: Child, state: str, error: BaseException | None = None) -> None:
        child.state, child.error = state, error
        if error is not None:
            self.fail(error)
        while self.queue and not self.full():
            self.start(self.queue.popleft())

    def cancel_child(self, child: Child) -> None:
        if child.state == "queued":
            self.queue.remove(child)
            child.state = "cancelled"
        elif child.state == "running":
            if child.cleans_up and not child.cancelled:
                child.cancelled = True
            else:
                self.end(child, "cancelled")

    def fail(self, error: BaseException) -> None:
        self.errors.append(error)
        self.abort()

    def abort(self) -> None:
        if not self.aborting:
            self.aborting = self.body_ended = True
            for child in self.children:
                self.cancel_child(child)

    def step(self, action: Callable[[], Any]) -> Any:
        result = self.do(action)
        if self.body_ended and not self.running() and not self.queue:
            self.group_ended = True
        return result

    # What may happen.

    @precondition(lambda self: not self.group_ended)
    @rule(clean_up=st.lists(st.booleans(), min_size=1, max_size=4), eager=st.booleans(), wait=st.booleans())
    def spawn(self, clean_up: list[bool], eager: bool, wait: bool) -> None:
        for cleans_up in clean_up:
            child = Child(len(self.children), cleans_up)
            refused = not wait and self.full()
            if not refused:
                self.children.append(child)
                self.start(child)
            spawn: Any = self.group.spawn if wait else self.group.try_spawn
            handle = self.step(partial(self.call, spawn, child, eager))
            assert (handle is None) == refused
            child.handle = handle

    def call(self, spawn: Callable[..., Any], child: Child, eager: bool) -> Any:
        return spawn(child.live(self.started), name=str(child.number), eager=eager)

    @precondition(lambda self: self.running())
    @rule(which=anyone, fails=st.booleans())
    def end_a_child(self, which: int, fails: bool) -> None:
        child = self.running()[which % len(self.running())]
        error = LookupError(child.number) if fails else None
        told = child.told
        self.end(child, "failed" if fails else "value", error)
        self.step(lambda: told.set_result(error))

    @precondition(lambda self: self.children)
    @rule(which=anyone)
    def abort_a_child(self, which: int) -> None:
        child = self.children[which % len(self.children)]
        self.cancel_child(child)
        self.step(child.handle.abort)

    @precondition(lambda self: not self.group_ended)
    @rule(how=st.sampled_from(["body ends", "body fails", "group is cancelled", "host is cancelled"]))
    def begin_to_end(self, how: str) -> None:
        if how.startswith("body") and not self.body_ended:
            error = ArithmeticError() if how == "body fails" else None
            if error is not None:
                self.fail(error)
            self.body_ended = True
            self.step(lambda: self.told.set_result(error))
        elif how == "group is cancelled":
            self.abort()
            self.step(self.group.cancel)
        elif how == "host is cancelled":
            self.abort()
            self.requests += 1
            self.step(self.host.cancel)

    @precondition(lambda self: self.group_ended)
    @rule(limit=st.sampled_from([None, 1, 2, 3]))
    def begin_anew(self, limit: int | None) -> None:
        with pytest.raises(RuntimeError, match="not open"):
            self.do(lambda: self.group.spawn(Child(0, False).live([])))
        self.do(self.host.cancel)
        self.enter(limit)

    @invariant()
    def they_agree(self) -> None:
        assert self.started == self.expected
        assert self.left == self.group_ended
        for child in self.children:
            ended = child.state not in ("queued", "running")
            assert child.handle.is_finished() == ended
            if ended:
                assert self.outcome(child.handle) == (
                    child.number if child.state == "value" else child.error or JoinError
                )
        if self.group_ended:
            assert list(self.raised) == self.errors
            assert self.host.done() == self.host.cancelled() == (self.requests > 0)
            assert self.host.cancelling() == self.requests

    @staticmethod
    def outcome(handle: JoinHandle[int]) -> object:
        try:
            return handle.result()
        except JoinError:
            return JoinError
        except Exception as error:
            return error


# ---------------------------------------------------------------- cancellation tokens


@dataclass
class Watcher:
    """A task that waits for a token, be it with work that it does until then."""

    token: int
    task: asyncio.Task[Any]
    work: asyncio.Future[str] | None = None


class TokenTree(Machine):
    """Tokens below tokens, with tasks that watch them and give up; some that nobody refers to any more."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens: list[CancellationToken | None] = []
        self.parents: list[int | None] = []
        self.reasons: list[str | None] = []
        self.watchers: list[Watcher] = []
        self.plant()

    def known(self) -> list[int]:
        return [number for number, token in enumerate(self.tokens) if token is not None]

    def one(self, which: int) -> tuple[int, CancellationToken]:
        number = self.known()[which % len(self.known())]
        token = self.tokens[number]
        assert token is not None
        return number, token

    @rule()
    def plant(self) -> None:
        self.tokens.append(CancellationToken())
        self.parents.append(None)
        self.reasons.append(None)

    @precondition(lambda self: self.known())
    @rule(which=anyone)
    def grow(self, which: int) -> None:
        number, token = self.one(which)
        self.tokens.append(token.child_token())
        self.parents.append(number)
        self.reasons.append(self.reasons[number])

    @precondition(lambda self: self.known())
    @rule(which=anyone)
    def forget(self, which: int) -> None:
        self.tokens[self.one(which)[0]] = None

    @precondition(lambda self: self.known())
    @rule(which=anyone)
    def watch(self, which: int) -> None:
        number, token = self.one(which)
        self.watchers.append(Watcher(number, self.do(self.loop.create_task, token.cancelled())))

    @precondition(lambda self: self.known())
    @rule(which=anyone)
    def work(self, which: int) -> None:
        number, token = self.one(which)
        work = self.loop.create_future()
        task = self.do(self.loop.create_task, token.run_until_cancelled(work))
        self.watchers.append(Watcher(number, task, work))

    @precondition(lambda self: self.watchers)
    @rule(which=anyone)
    def end_the_work(self, which: int) -> None:
        watcher = self.watchers[which % len(self.watchers)]
        if watcher.work is not None and not watcher.task.done():
            self.do(watcher.work.set_result, "value")
            assert watcher.task.result() == "value"

    @precondition(lambda self: self.watchers)
    @rule(which=anyone)
    def give_up(self, which: int) -> None:
        task = self.watchers[which % len(self.watchers)].task
        waiting = not task.done()
        self.do(task.cancel)
        assert task.cancelled() or not waiting

    @precondition(lambda self: self.known())
    @rule(which=anyone, reason=st.sampled_from("abc"), and_work_ends=st.booleans())
    def cancel(self, which: int, reason: str, and_work_ends: bool) -> None:
        """And perhaps all the work that it would end has been done in the same moment: then its values go through."""
        number, token = self.one(which)
        reached = [other for other in range(len(self.tokens)) if self.is_below(other, number)]
        working = [w for w in self.watchers if w.work is not None and w.token in reached and not w.task.done()]

        def act() -> None:
            if and_work_ends:
                for watcher in working:
                    watcher.work.set_result("value")  # type: ignore[union-attr]
            token.cancel(reason)

        for other in reached:
            self.reasons[other] = self.reasons[other] or reason
        self.do(act)
        assert all(watcher.task.result() == ("value" if and_work_ends else None) for watcher in working)

    def is_below(self, number: int | None, other: int) -> bool:
        while number is not None and number != other:
            number = self.parents[number]
        return number == other

    @invariant()
    def they_agree(self) -> None:
        for token, reason in zip(self.tokens, self.reasons, strict=True):
            if token is not None:
                assert (token.reason, token.is_cancelled()) == (reason, reason is not None)
        for watcher in self.watchers:
            assert watcher.task.done() or self.reasons[watcher.token] is None
            assert watcher.task.cancelled() == (watcher.task.cancelling() > 0)
        for number in self.known():
            token = self.tokens[number]
            assert token is not None
            assert len(token._waiters) == sum(w.token == number and not w.task.done() for w in self.watchers)


@pytest.mark.parametrize("machine", [ScopeNesting, GroupWithLimit, TokenTree])
def test_it_does_what_the_model_does(machine: type[RuleBasedStateMachine], pytestconfig: pytest.Config) -> None:
    runs = pytestconfig.getoption("explore_runs", default=None)
    size = settings(
        max_examples=runs or 25,
        stateful_step_count=30,
        derandomize=runs is None,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(machine, settings=size)
