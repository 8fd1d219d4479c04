"""What the tests of several workers share."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest

PATIENCE = 20.0
"""Seconds after which a test gives up."""


@pytest.fixture
def blocked() -> Callable[[], AbstractContextManager[Callable[[], bool]]]:
    """``with blocked() as block``: a function that blocks until the end of the block."""

    @contextmanager
    def blocked() -> Iterator[Callable[[], bool]]:
        release = threading.Event()
        try:
            yield lambda: release.wait(PATIENCE)
        finally:
            release.set()

    return blocked


@pytest.fixture(autouse=True)
def no_worker_is_left() -> Iterator[None]:
    yield
    for thread in threading.enumerate():
        if thread.name.startswith("yamanote-worker"):
            thread.join(PATIENCE)
            assert not thread.is_alive()
