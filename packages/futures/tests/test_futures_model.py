"""Task sets against a dictionary: named tasks, those that have finished, and those who wait for one."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from yamanote.futures import TaskSet, failed_branch, select, task_set
from yamanote.runtime import JoinError

names = st.sampled_from("abcd")
EMPTY = "the task set is empty"


async def outcome_of(selecting: Any) -> Any:
    """How a `select` of one task set ended: what the model says of it, too."""
    try:
        return await selecting
    except TimeoutError:
        return "nothing yet"
    except ValueError as error:
        assert str(error) == EMPTY
        return EMPTY
    except JoinError as error:
        return failed_branch(error), "cancelled"
    except OSError as error:
        return failed_branch(error), "failed"


@dataclass
class Party:
    """A call of `select`, and how it has to end; None while it has to wait."""

    call: asyncio.Task[Any]
    end: Any = None


class TaskSets(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.tasks: TaskSet[int] = self.loop.run_until_complete(self.make())
        self.gates: dict[str, asyncio.Future[int]] = {}
        self.running: list[str] = []
        self.finished: deque[tuple[str, Any]] = deque()
        self.names: list[str] = []
        self.parties: list[Party] = []
        self.parked: deque[Party] = deque()
        self.closed = False

    async def make(self) -> TaskSet[int]:
        return task_set()

    def teardown(self) -> None:
        self.loop.run_until_complete(self.tasks.aclose())
        self.settle()
        self.loop.close()

    def settle(self) -> None:
        async def turn() -> None:
            for _ in range(8):
                await asyncio.sleep(0)

        self.loop.run_until_complete(turn())

    def serve(self) -> None:
        """The model: who has waited longest gets what finished first; when nothing is left all are told so."""
        while self.parked and self.finished:
            name, self.parked.popleft().end = self.finished.popleft()
            self.names.remove(name)
        while self.parked and not self.names:
            self.parked.popleft().end = EMPTY
        self.settle()

    @rule(name=names)
    def spawn(self, name: str) -> None:
        async def spawn() -> None:
            gate = self.loop.create_future()

            async def wait() -> int:
                return await gate

            self.tasks.spawn(name, wait())
            self.gates[name] = gate

        if name in self.names:
            with pytest.raises(ValueError, match=name):
                self.loop.run_until_complete(spawn())
        elif self.closed:
            with pytest.raises(RuntimeError, match="closed"):
                self.loop.run_until_complete(spawn())
        else:
            self.loop.run_until_complete(spawn())
            self.names.append(name)
            self.running.append(name)

    @precondition(lambda self: self.running)
    @rule(data=st.data(), how=st.sampled_from(["value", "failed", "cancelled"]))
    def finish(self, data: st.DataObject, how: str) -> None:
        self.settle()  # a task that has not begun would not look at its gate
        name = data.draw(st.sampled_from(self.running))
        self.running.remove(name)
        if how == "value":
            self.gates[name].set_result(len(name))
            self.finished.append((name, (name, len(name))))
        else:
            if how == "failed":
                self.gates[name].set_exception(OSError())
            else:
                self.tasks.cancel(name)
            self.finished.append((name, ((name,), how)))
        self.settle()
        self.serve()

    @rule(timeout=st.sampled_from([None, 0]))
    def select(self, timeout: float | None) -> None:
        party = Party(self.loop.create_task(outcome_of(select(self.tasks, timeout=timeout))))
        self.parties.append(party)
        self.parked.append(party)
        self.serve()
        if timeout is not None and party in self.parked:
            self.parked.remove(party)
            party.end = "nothing yet"

    @precondition(lambda self: self.parked)
    @rule(data=st.data())
    def give_up(self, data: st.DataObject) -> None:
        party = data.draw(st.sampled_from(list(self.parked)))
        self.parked.remove(party)
        self.parties.remove(party)
        party.call.cancel()
        self.settle()
        assert party.call.cancelled()

    @precondition(lambda self: not self.closed)
    @rule(is_time=st.integers(0, 9).map(lambda number: number == 9))
    def close(self, is_time: bool) -> None:
        if is_time:
            self.closed = True
            self.names, self.running = [], []
            self.finished.clear()
            self.loop.run_until_complete(self.tasks.aclose())
            self.serve()

    @invariant()
    def the_set_is_what_the_model_is(self) -> None:
        assert list(self.tasks.names) == self.names
        assert len(self.tasks) == len(self.names)
        for party in self.parties:
            assert party.call.done() is (party.end is not None)
            assert party.end is None or party.call.result() == party.end


TestTaskSets = TaskSets.TestCase
TestTaskSets.settings = settings(max_examples=30, stateful_step_count=25, deadline=None, derandomize=True)
