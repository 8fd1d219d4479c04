"""The fleet of `start_server`, with workers that do what they are told to, and no more: the moments in between."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import Callable
from signal import SIGHUP, SIGTERM, Signals
from typing import Any, Literal

import pytest

from yamanote.runtime import run
from yamanote.server import Supervisor, SupervisorError, WorkerError
from yamanote.server._fleet import Fleet
from yamanote.server._worker import Worker
from yamanote.time import VirtualClock

if sys.platform == "win32":
    pytest.skip("needs a POSIX system", allow_module_level=True)


class Puppet(Worker):
    """A worker that opens, gets ready, and ends, when its `Stage` says so."""

    def __init__(self, stage: Stage, index: int) -> None:
        super().__init__(index, grace=10)
        self.stage = stage
        self.life = sum(worker.index == index for worker in stage.workers)
        self.opened, self.became_ready, self.told = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        stage.workers.append(self)

    async def _open(self) -> None:
        self.stage.log.append(f"{self} opens")
        if self.stage.by_itself(self):
            self.opened.set()
            self.became_ready.set()
        await self.opened.wait()

    async def _ready(self) -> bool:
        await self.became_ready.wait()
        return True

    async def _wait(self) -> int:
        return await asyncio.shield(self.ended)

    def end(self, exitcode: int = 0) -> None:
        if not self.ended.done():
            self.stage.log.append(f"{self} ends")
            self.ended.set_result(exitcode)

    def _tell(self, signum: Signals) -> None:
        self.stage.log.append(f"{self} is told {signum.name}")
        self.told.set()
        asyncio.get_running_loop().call_later(self.stage.farewell_seconds, self.end)

    def _terminate(self) -> None:
        self.end(143)

    def _kill(self) -> None:
        self.end(-9)

    def __str__(self) -> str:
        return f"{self.index}.{self.life}"


class Stage:
    """A fleet of puppets, and what has happened to them."""

    farewell_seconds = 1.0

    def __init__(self, count: int, strategy: Literal["one_for_one", "one_for_all"], max_restarts: int = 3) -> None:
        self.workers: list[Puppet] = []
        self.log: list[str] = []
        self.by_itself: Callable[[Puppet], bool] = lambda worker: True
        self.fleet = Fleet(
            lambda index: Puppet(self, index),
            count,
            Supervisor(strategy, max_restarts=max_restarts),
            restart="permanent",
            start_timeout=60,
            stop_signals=[SIGTERM],
            reload_signals=[SIGHUP],
        )

    def __getitem__(self, name: str) -> Puppet:
        return next(worker for worker in self.workers if str(worker) == name)

    def play(self, scene: Callable[[], Any]) -> None:
        """Run the fleet, and the `scene` when all have started. All virtual seconds of others are short to it."""

        async def main() -> None:
            acting = asyncio.ensure_future(scene_after_the_start())
            try:
                await self.fleet.run()
            finally:
                acting.cancel()
                if not acting.cancelled() and acting.done():
                    acting.result()

        async def scene_after_the_start() -> None:
            await asyncio.sleep(0.1)
            del self.log[:]
            await scene()

        run(main(), clock=VirtualClock())


def test_after_too_many_restarts_the_others_are_stopped_all_at_once(caplog: pytest.LogCaptureFixture) -> None:
    stage = Stage(4, "one_for_one", max_restarts=0)
    told: list[str] = []

    async def scene() -> None:
        stage["2.0"].end(1)
        await asyncio.sleep(0.1)
        told.extend(caplog.messages)  # before the others have ended

    with pytest.raises(SupervisorError):
        stage.play(scene)

    assert told == ["2.0 ended with exit status 1; no restart is left: stopping all workers"]
    assert stage.log[0] == "2.0 ends"
    assert sorted(stage.log[1:4]) == ["0.0 is told SIGTERM", "1.0 is told SIGTERM", "3.0 is told SIGTERM"]
    assert sorted(stage.log[4:]) == ["0.0 ends", "1.0 ends", "3.0 ends"]


def test_a_stop_ends_a_restart_at_once_however_long_others_need_to_stop() -> None:
    stage = Stage(2, "one_for_one")

    async def scene() -> None:
        stage.by_itself = lambda worker: False
        stage["0.0"].end(1)
        await asyncio.sleep(0.1)
        signal.raise_signal(SIGTERM)
        await asyncio.sleep(0.1)
        stage["0.1"].opened.set()
        stage["0.1"].became_ready.set()

    stage.play(scene)

    assert stage.log == ["0.0 ends", "0.1 opens", "1.0 is told SIGTERM", "1.0 ends"]


def test_a_successor_that_is_ready_while_its_predecessor_is_stopped_for_a_sibling_is_stopped_too() -> None:
    stage = Stage(2, "one_for_all")

    async def scene() -> None:
        stage.by_itself = lambda worker: str(worker) != "0.1"
        signal.raise_signal(SIGHUP)
        await asyncio.sleep(0.1)
        stage["0.1"].opened.set()
        await asyncio.sleep(0.1)
        stage["1.0"].end(1)
        await stage["0.0"].told.wait()
        stage["0.1"].became_ready.set()
        await asyncio.sleep(5)
        signal.raise_signal(SIGTERM)

    stage.play(scene)

    assert "0.1 is told SIGHUP" in stage.log
    assert [str(worker) for worker in stage.workers if not worker.ended.done()] == []


def test_a_stop_ends_a_reload_and_says_nothing_of_those_who_serve_on(caplog: pytest.LogCaptureFixture) -> None:
    stage = Stage(2, "one_for_one")

    async def scene() -> None:
        stage.by_itself = lambda worker: False
        signal.raise_signal(SIGHUP)
        await asyncio.sleep(0.1)
        stage["0.1"].opened.set()
        await asyncio.sleep(0.1)
        signal.raise_signal(SIGTERM)

    stage.play(scene)

    assert sorted(stage.log[1:4]) == ["0.0 is told SIGTERM", "0.1 is told SIGTERM", "1.0 is told SIGTERM"]
    assert caplog.messages == []


def test_when_several_do_not_start_one_is_raised_and_the_others_are_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    stage = Stage(3, "one_for_one")

    def broken(worker: Puppet) -> bool:
        raise WorkerError(f"{worker} is broken", worker.index, None)

    stage.by_itself = broken
    with pytest.raises(WorkerError) as raised:
        stage.play(lambda: asyncio.sleep(0))

    assert caplog.messages[-1] == f"{raised.value}; the start has failed"
    assert sorted([str(raised.value), *caplog.messages[:-1]]) == [f"{index}.0 is broken" for index in range(3)]


def test_a_worker_that_is_not_ready_in_time_is_told_to_stop_and_the_log_says_so_at_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    stage = Stage(1, "one_for_one")
    stage.farewell_seconds = 10.5

    def slow(worker: Puppet) -> bool:
        worker.opened.set()
        return False

    stage.by_itself = slow
    with pytest.raises(WorkerError):
        stage.play(lambda: asyncio.sleep(0))

    assert caplog.messages == [
        "0.0 was not ready within 60 seconds: stopping it",
        "0.0 did not stop within 10 seconds: terminating it",
        "0.0 was not ready within 60 seconds; the start has failed",
    ]


def test_the_log_tells_a_reload_from_its_beginning_to_its_end(caplog: pytest.LogCaptureFixture) -> None:
    stage = Stage(2, "one_for_one")
    told: list[str] = []

    async def scene() -> None:
        caplog.clear()
        signal.raise_signal(SIGHUP)
        await asyncio.sleep(5)
        told.extend(caplog.messages)
        signal.raise_signal(SIGTERM)

    with caplog.at_level(logging.INFO, "yamanote"):
        stage.play(scene)

    assert told == [
        "SIGHUP: replacing the workers, one after the other",
        *("0.1 is ready", "0.0 has ended", "1.1 is ready", "1.0 has ended"),
        "SIGHUP: all workers have been replaced",
    ]


def test_a_worker_that_ends_in_order_is_restarted_and_the_log_says_both(caplog: pytest.LogCaptureFixture) -> None:
    stage = Stage(1, "one_for_one")

    async def scene() -> None:
        caplog.clear()
        stage["0.0"].end(0)
        await asyncio.sleep(0.1)
        signal.raise_signal(SIGTERM)

    with caplog.at_level(logging.INFO, "yamanote"):
        stage.play(scene)

    assert caplog.messages == [
        *("0.0 has ended, and is restarted", "0.1 is ready"),
        *("SIGTERM: stopping 1 worker", "0.1 has ended"),
    ]


@pytest.mark.parametrize(("seconds", "exitcode"), [(0.04, 0), (0.06, -9)])
def test_two_signals_at_nearly_the_same_time_are_one_request(seconds: float, exitcode: int) -> None:
    stage = Stage(1, "one_for_one")

    async def scene() -> None:
        signal.raise_signal(SIGTERM)
        await asyncio.sleep(seconds)
        signal.raise_signal(SIGTERM)

    stage.play(scene)

    assert stage["0.0"].ended.result() == exitcode
    assert stage.fleet.last_signal == (None if exitcode == 0 else SIGTERM)


def test_a_worker_and_its_successor_count_as_one(caplog: pytest.LogCaptureFixture) -> None:
    stage = Stage(1, "one_for_one")
    stage.farewell_seconds = 10.5

    async def scene() -> None:
        signal.raise_signal(SIGHUP)
        await stage["0.0"].told.wait()
        signal.raise_signal(SIGTERM)

    with caplog.at_level(logging.INFO, "yamanote"), pytest.raises(ExceptionGroup) as raised:
        stage.play(scene)

    assert "SIGTERM: stopping 1 worker" in caplog.messages
    assert raised.value.message == "1 of 1 worker has failed"
    assert sorted(map(str, raised.value.exceptions)) == [
        f"0.{life} did not stop within 10 seconds, and ended with exit status 143" for life in range(2)
    ]
