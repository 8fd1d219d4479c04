"""An exit in the middle of a task ends `run`, with its status and without complaints."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import asyncio, sys
from yamanote.runtime import TaskGroup, run, spawn

async def child():
    await asyncio.sleep(0.001)
    sys.exit(3)

async def main():
    if sys.argv[1] == "group":
        async with TaskGroup() as group:
            group.spawn(child())
    elif sys.argv[1] == "group of asyncio":
        async with asyncio.TaskGroup() as group:
            group.create_task(child())
    else:
        spawn(child())
    await asyncio.sleep(3600)

run(main(), workers=int(sys.argv[2]))
"""


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("where", ["group", "group of asyncio", "spawn"])
def test_an_exit_in_a_task_is_the_status_of_the_program_and_nobody_complains(where: str, workers: str) -> None:
    program = [sys.executable, "-c", PROGRAM, where, workers]
    process = subprocess.run(program, capture_output=True, text=True, check=False, timeout=30)
    assert (process.returncode, process.stdout, process.stderr) == (3, "", "")
