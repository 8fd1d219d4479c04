"""Fixtures of the tests that start threads."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import AsyncIterator, Iterator

import pytest

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
