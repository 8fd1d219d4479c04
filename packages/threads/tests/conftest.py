"""Fixtures of the tests that start threads."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import AsyncIterator, Iterator

import pytest

from yamanote.runtime import yield_now

POOLS = ("asyncio_", "uvloop_", "yamanote-blocking")
"""Threads that rest for the next call, which comes from a test itself."""


@pytest.fixture
async def nothing_left_over() -> AsyncIterator[None]:
    """No task, and no thread, outlives the test."""
    before = set(threading.enumerate())
    yield
    assert asyncio.all_tasks() == {asyncio.current_task()}
    new = set(threading.enumerate()) - before
    assert [thread for thread in new if not thread.name.startswith(POOLS)] == []


@pytest.fixture
def switching_often() -> Iterator[None]:
    """Threads take turns as often as the interpreter can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


class Stage:
    """A coroutine that runs for ever, and takes its time to end; a test waits until it is there."""

    def __init__(self) -> None:
        self.running = threading.Event()
        self.steps: list[str] = []

    @property
    def ended(self) -> bool:
        return self.steps == ["clean-up begins", "clean-up ends"]

    async def run(self) -> None:
        self.running.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.steps.append("clean-up begins")
            for _ in range(3):
                await yield_now()
            self.steps.append("clean-up ends")

    async def run_and_fail(self) -> None:
        try:
            await self.run()
        finally:
            raise KeyError("in the clean-up")

    async def reached(self) -> None:
        await asyncio.to_thread(self.running.wait)


@pytest.fixture
def stage() -> Stage:
    """One to run in another thread."""
    return Stage()


@pytest.fixture
def stages() -> list[Stage]:
    """Three of them."""
    return [Stage() for _ in range(3)]
