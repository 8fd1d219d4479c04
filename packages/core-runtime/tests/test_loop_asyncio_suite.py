"""asyncio's own tests, from the standard library, on our event loop.

They run in a process of their own, in which every loop that asyncio makes is ours. By default those that are quick;
all with the environment variable YAMANOTE_ASYNCIO_SUITE, or `nox -s asyncio_suite`.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import re
import subprocess
import sys
import unittest
from importlib.util import find_spec

import pytest

from yamanote.runtime import EventLoop

QUICK = [
    "test_context",
    "test_locks",
    "test_queues",
    "test_runners",
    "test_server",
    "test_streams",
    "test_threads",
    "test_timeouts",
    "test_unix_events",
]
LONG = [
    "test_base_events",
    "test_buffered_proto",
    "test_eager_task_factory",
    "test_events",
    "test_free_threading",
    "test_futures",
    "test_sendfile",
    "test_sock_lowlevel",
    "test_ssl",
    "test_sslproto",
    "test_subprocess",
    "test_taskgroups",
    "test_tasks",
    "test_waitfor",
]


def substitute() -> None:
    """Make every loop that asyncio makes ours, whoever asks for it."""
    for module in (asyncio, sys.modules["asyncio.unix_events"]):
        for name in ("SelectorEventLoop", "EventLoop"):
            if hasattr(module, name):
                setattr(module, name, EventLoop)
    get_policy = getattr(asyncio.events, "_get_event_loop_policy", asyncio.get_event_loop_policy)
    type(get_policy())._loop_factory = EventLoop


def run_suite(names: list[str]) -> bool:
    chosen = unittest.TestSuite()
    for name in names:
        try:
            module = importlib.import_module(f"test.test_asyncio.{name}")
        except (ModuleNotFoundError, unittest.SkipTest):  # not in this version of Python, or not for this system
            continue
        chosen.addTests(unittest.defaultTestLoader.loadTestsFromModule(module))
    return unittest.TextTestRunner(verbosity=1).run(chosen).wasSuccessful()


@pytest.mark.skipif(find_spec("test") is None or find_spec("test.test_asyncio") is None, reason="Python without tests")
@pytest.mark.skipif(sys.platform == "win32", reason="asyncio's own tests take another loop on Windows")
def test_the_tests_of_asyncio_pass() -> None:
    names = QUICK + LONG if "YAMANOTE_ASYNCIO_SUITE" in os.environ else QUICK
    result = subprocess.run([sys.executable, __file__, *names], capture_output=True, text=True)

    assert 0 == result.returncode, result.stderr[-20_000:]
    count = re.search(r"^Ran (\d+) tests", result.stderr, re.MULTILINE)
    assert count is not None
    assert int(count[1]) > 300


if __name__ == "__main__":
    substitute()
    loop = asyncio.new_event_loop()
    loop.close()
    sys.exit(not (type(loop) is EventLoop and run_suite(sys.argv[1:])))
