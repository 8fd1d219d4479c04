"""`afork`: what a user of it is promised, with real processes and real signals.

What the children call is in the standard library, mostly `exec`: this module could not be imported there.
"""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from multiprocessing import forkserver
from pathlib import Path
from textwrap import dedent
from types import ModuleType
from typing import Any, Literal

import pytest

from yamanote.futures import select
from yamanote.runtime import spawn_blocking
from yamanote.server import Child, ChildStartError, _popen, _reaper, afork
from yamanote.server._afork import start_child

Method = Literal["spawn", "forkserver"]
METHODS: tuple[Method, ...] = ("spawn", "forkserver")
both = pytest.mark.parametrize("method", METHODS)

FOR_EVER = 3600
SOON = 0.02
"""A deadline that a test lets pass, in seconds: only what has happened when it is over is looked at."""

DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); tell.send(b'!'); time.sleep(3600)"
POLITE = "import signal, time; signal.signal(signal.SIGTERM, lambda *_: exit(5)); tell.send(b'!'); time.sleep(3600)"


@pytest.fixture(autouse=True)
def nothing_to_import(monkeypatch: pytest.MonkeyPatch) -> None:
    """The main module of these children is empty: to import pytest's again would take most of their time."""
    main = ModuleType("__main__")
    main.__spec__ = None
    monkeypatch.setitem(sys.modules, "__main__", main)


@pytest.fixture(autouse=True)
async def nothing_left() -> Any:
    """After each test there are as many open files as before it, and no child that anybody believes to run."""
    await (await afork(abs, 0, method="forkserver")).wait()  # whose server has files open from now on
    before = open_files()
    yield
    gc.collect()
    assert not multiprocessing.active_children()
    assert open_files() == before


@pytest.fixture
def often() -> Iterator[None]:
    """Threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def open_files() -> int:
    return len(os.listdir("/proc/self/fd" if sys.platform == "linux" else "/dev/fd"))


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def execute(source: str, *, method: Method = "forkserver", **given: Any) -> Any:
    """Run `source` in a child, with the variables that it is given."""
    return afork(exec, source, given, name="a child", method=method)


class Unpickled:
    """An argument that runs `source` when the child unpickles it."""

    def __init__(self, source: str) -> None:
        self._source = source

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, (self._source, {})


async def child_that_tells(source: str) -> Child:
    """A child that runs `source`, and has come as far as to `tell`."""
    here, there = socket.socketpair()
    here.setblocking(False)
    with here, there:
        child: Child = await execute(source, tell=there)
        await asyncio.get_running_loop().sock_recv(here, 1)
    return child


# ---------------------------------------------------------------- the call


@both
async def test_the_function_is_called_in_another_process_and_its_result_is_the_exit_status(method: Method) -> None:
    async with await afork(max, 3, 41, method=method) as child:
        assert child.pid != os.getpid()
        assert await child.wait() == 41
        assert child.exitcode == 41


@both
async def test_it_returns_when_the_child_has_imported_everything(method: Method, tmp_path: Path) -> None:
    slow = Unpickled(f"import time; time.sleep(0.05); open({str(tmp_path / 'imported')!r}, 'w').close()")

    async with await afork(print, slow, method=method):
        assert (tmp_path / "imported").exists()


async def test_it_ends_with_the_exit_status_of_a_program() -> None:
    interrupt = "import os, signal, time; os.kill(os.getpid(), signal.SIGINT); time.sleep(60)"
    expected: dict[str, int] = {
        "raise SystemExit(3)": 3,
        "raise SystemExit(-1)": 255,
        "raise LookupError('a traceback on the standard error stream')": 1,
        interrupt: -signal.SIGINT,
        "": 0,
        "raise SystemExit": 0,
        "raise SystemExit('why')": 1,
        "import os; os.abort()": -signal.SIGABRT,
    }
    # The two kinds end in different ways; the last four cases do not depend on that.
    children = await asyncio.gather(*(execute(source, method="spawn") for source in list(expected)[:4]))
    assert [await child.wait() for child in children] == list(expected.values())[:4]
    children = await asyncio.gather(*(execute(source) for source in expected))
    assert [await child.wait() for child in children] == list(expected.values())


@both
async def test_a_traceback_is_written_in_one_piece_and_says_whose_it_is(method: Method) -> None:
    # Each write is a message: who reads gets no more than one.
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    here.setblocking(False)
    with here, there:
        child = await execute("import os; os.dup2(s.fileno(), 2); 1 / 0", s=there, method=method)
        assert await child.wait() == 1
        lines = here.recv(10_000).decode().splitlines()
    assert lines[:2] == [f"a child (process {child.pid}):", "Traceback (most recent call last):"]
    assert lines[-1] == "ZeroDivisionError: division by zero"


async def test_an_error_is_shown_by_the_hook_of_the_child_if_it_has_one() -> None:
    source = "import os, sys; sys.excepthook = lambda kind, *_: os._exit(len(kind.__name__)); 1 / 0"
    assert await (await execute(source)).wait() == len("ZeroDivisionError")


async def test_what_is_no_exit_status_is_an_error_of_the_child() -> None:
    for status in "256", "-1", "'0'":
        child = await afork(eval, status, method="forkserver")
        assert await child.wait() == 1


async def test_children_may_have_children_which_have_their_signal_mask() -> None:
    source = """
import multiprocessing, signal
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
count = "import signal; exit(7 + len(signal.pthread_sigmask(signal.SIG_BLOCK, ())))"
process = multiprocessing.get_context("fork").Process(target=exec, args=(count, {}))
process.start()
process.join()
exit(process.exitcode)
"""
    assert await (await execute(source)).wait() == 8


async def test_sockets_and_arguments_of_any_size_reach_the_child() -> None:
    for method in METHODS:
        here, there = socket.socketpair()
        with here:
            with there:
                starting = asyncio.create_task(execute("s.send(b'%d' % len(x))", method=method, s=there, x="x" * 10**6))
                await asyncio.sleep(0)  # the copy is made at the call
            child = await starting
            assert await child.wait() == 0
            assert here.recv(100) == b"1000000"
            assert here.recv(100) == b""


async def test_the_name_is_that_of_the_function_unless_it_is_given_another() -> None:
    async with await afork(time.sleep, FOR_EVER, method="forkserver") as one:
        assert one.name == "sleep"
        assert repr(one) == f"<Child 'sleep' pid={one.pid} running>"
    async with await afork(time.sleep, FOR_EVER, name="two", method="forkserver") as two:
        assert two.name == "two"


async def test_bad_arguments_are_named_at_the_call_and_nothing_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    def inner() -> None: ...

    async def work() -> None: ...

    monkeypatch.setattr("yamanote.server._afork._starters", None)
    with pytest.raises(TypeError, match="function must be callable, not 3"):
        await afork(3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"function must be a plain function, .*, not <function .*work"):
        await afork(work)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"function must be something that a child can import, not <function .*inner"):
        await afork(inner)
    with (
        socket.socket() as listener,
        pytest.raises(TypeError, match=r"args\[1\] must be .* pickled, not <.*lock") as caught,
    ):
        await afork(print, listener, threading.Lock())
    assert isinstance(caught.value.__cause__, TypeError)
    with pytest.raises(TypeError, match="name must be a string or None, not 3"):
        await afork(print, name=3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="method must be 'spawn' or 'forkserver', not 'fork'"):
        await afork(print, method="fork")  # type: ignore[arg-type]


async def test_without_descriptors_left_it_says_so_and_keeps_none() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with socket.socket() as sock:
        before = open_files()
        highest = max(map(int, os.listdir("/dev/fd")))
        for room in range(3):
            filling = [os.dup(sock.fileno())]
            resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 4, hard))
            try:
                with suppress(OSError):
                    while True:
                        filling.append(os.dup(sock.fileno()))
                for descriptor in filling[:room]:
                    os.close(descriptor)
                with pytest.raises(OSError, match="Too many open files"):
                    await afork(print, sock)
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
                for descriptor in filling[room:]:
                    os.close(descriptor)
            assert open_files() == before


# ---------------------------------------------------------------- a child that does not get so far


@both
async def test_a_child_that_cannot_import_the_function_ends_the_start(
    method: Method, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = ModuleType("known_only_here")
    exec("def work(): ...", module.__dict__)
    monkeypatch.setitem(sys.modules, module.__name__, module)

    with pytest.raises(ChildStartError, match="child 'work' ended with 1 before it called its function") as caught:
        await afork(module.work, method=method)
    assert caught.value.exitcode == 1


@both
async def test_a_child_that_is_killed_before_it_is_ready_ends_the_start(method: Method) -> None:
    with pytest.raises(ChildStartError) as caught:
        await afork(print, Unpickled("import os, signal; os.kill(os.getpid(), signal.SIGKILL)"), method=method)
    assert caught.value.exitcode == -signal.SIGKILL


async def test_a_child_that_is_killed_while_it_is_sent_its_arguments_ends_the_start() -> None:
    deadly = Unpickled("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    with pytest.raises(ChildStartError):
        await afork(print, deadly, "x" * 10**7, method="forkserver")


@both
async def test_a_start_that_is_cancelled_leaves_no_child(method: Method, tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    os.mkfifo(pid)
    hangs = Unpickled(f"import os, time; open({str(pid)!r}, 'w').write(str(os.getpid())); time.sleep(3600)")
    starting = asyncio.create_task(afork(print, hangs, method=method))
    child = int(await spawn_blocking(pid.read_text))

    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert not is_running(child)


async def test_a_start_that_is_cancelled_at_once_leaves_no_child() -> None:
    for turns in range(4):
        starting = asyncio.create_task(afork(time.sleep, FOR_EVER, method="forkserver"))
        for _ in range(turns):
            await asyncio.sleep(0)
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting


# ---------------------------------------------------------------- signals


async def test_signals_reach_the_child_as_long_as_it_runs_and_nobody_afterwards() -> None:
    child = await afork(time.sleep, FOR_EVER, method="forkserver")
    assert child.exitcode is None
    assert child.send_signal(signal.SIGTERM)
    assert await child.wait() == -signal.SIGTERM
    assert not child.send_signal(signal.SIGTERM)
    assert not child.terminate()
    assert not child.kill()


async def test_what_is_no_signal_is_refused() -> None:
    async with await afork(time.sleep, FOR_EVER, method="forkserver") as child:
        with pytest.raises(TypeError, match=r"signum must be a signal, such as .*, not 'TERM'"):
            child.send_signal("TERM")  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="signum must be a signal, not 0"):
            child.send_signal(0)


@both
async def test_the_child_begins_with_the_signals_of_a_new_program(method: Method) -> None:
    handlers = {signum: signal.signal(signum, signal.SIG_IGN) for signum in (signal.SIGTERM, signal.SIGINT)}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1, signal.SIGCHLD, signal.SIGTERM})
    try:
        child = await execute(
            """
            from signal import *
            assert not pthread_sigmask(SIG_BLOCK, [])
            assert getsignal(SIGTERM) is SIG_DFL
            assert getsignal(SIGINT) is default_int_handler
            """.replace("    ", ""),
            method=method,
        )
        assert await child.wait() == 0
        assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == mask | {signal.SIGUSR1, signal.SIGCHLD, signal.SIGTERM}
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for signum, handler in handlers.items():
            signal.signal(signum, handler)


@both
async def test_what_a_child_forks_off_handles_signals_as_the_child_does(method: Method) -> None:
    child = await execute(
        dedent("""
        import os
        from signal import *
        signal(SIGTERM, lambda *_: os._exit(5))
        pthread_sigmask(SIG_BLOCK, [SIGUSR1])
        if (copy := os.fork()) == 0:
            assert pthread_sigmask(SIG_BLOCK, []) == {SIGUSR1}
            raise_signal(SIGTERM)
        exit(os.waitstatus_to_exitcode(os.waitpid(copy, 0)[1]))
        """),
        method=method,
    )
    assert await child.wait() == 5


async def test_other_children_of_the_fork_server_have_no_signal_blocked() -> None:
    source = "from signal import *; exit(len(pthread_sigmask(SIG_BLOCK, [])))"
    process = multiprocessing.get_context("forkserver").Process(target=exec, args=(source, {}))
    process.start()
    process.join()
    assert process.exitcode == 0
    process.close()


@both
async def test_signals_that_the_function_is_to_handle_are_blocked_from_the_first_instruction(method: Method) -> None:
    early = Unpickled("import signal; signal.raise_signal(signal.SIGTERM); signal.raise_signal(signal.SIGUSR1)")
    source = "from signal import *; signal(SIGTERM, SIG_IGN); exit(len(pthread_sigmask(SIG_UNBLOCK, [SIGTERM])))"
    child = await start_child(
        exec, (source, {"early": early}), name="a child", method=method, blocked=[signal.SIGTERM, signal.SIGUSR1]
    )
    assert await child.wait() == 2


# ---------------------------------------------------------------- waiting and stopping


async def test_any_number_of_tasks_wait_and_each_may_be_cancelled() -> None:
    child = await afork(time.sleep, FOR_EVER, method="forkserver")
    waiting = [asyncio.create_task(child.wait()) for _ in range(3)]
    await asyncio.sleep(0)
    waiting.pop(1).cancel()
    await asyncio.sleep(0)
    child.kill()
    assert await asyncio.gather(*waiting, child.wait()) == [-signal.SIGKILL] * 3


async def test_another_loop_waits_for_it_as_well() -> None:
    child = await afork(time.sleep, FOR_EVER, method="forkserver")
    waiting = spawn_blocking(lambda: asyncio.run(child.wait()))
    child.kill()
    assert await waiting == -signal.SIGKILL


async def test_it_can_be_selected() -> None:
    async with await afork(time.sleep, FOR_EVER, method="forkserver") as child:
        with pytest.raises(TimeoutError):
            await select(ended=child, timeout=SOON)
        child.kill()
        assert await select(ended=child) == ("ended", -signal.SIGKILL)


async def test_stop_asks_and_waits_for_the_grace_period() -> None:
    child = await child_that_tells(POLITE)
    assert await child.stop() == 5
    assert await child.stop() == 5
    child = await child_that_tells(POLITE)
    assert await child.stop(grace=None) == 5


async def test_stop_kills_a_child_that_does_not_listen() -> None:
    child = await child_that_tells(DEAF)
    assert await child.stop(grace=SOON) == -signal.SIGKILL
    assert not is_running(child.pid)


async def test_a_stop_that_is_cancelled_kills_and_reaps() -> None:
    child = await child_that_tells(DEAF)
    stopping = asyncio.create_task(child.stop(grace=None))
    await asyncio.sleep(SOON)
    assert child.exitcode is None
    stopping.cancel()
    await asyncio.sleep(0)
    stopping.cancel()  # it would not be reaped if that were enough
    with pytest.raises(asyncio.CancelledError):
        await stopping
    assert child.exitcode == -signal.SIGKILL


async def test_the_block_of_a_child_stops_it_however_it_is_left() -> None:
    child = await child_that_tells(POLITE)
    with pytest.raises(LookupError):
        async with child:
            raise LookupError
    assert child.exitcode == 5


async def test_a_grace_period_that_is_none_is_refused_and_nothing_is_done() -> None:
    async with await child_that_tells(POLITE) as child:
        with pytest.raises(TypeError, match="grace must be a number of seconds or None, not '1'"):
            await child.stop("1")  # type: ignore[arg-type]
        for seconds in (-1, float("nan"), float("inf")):
            with pytest.raises(ValueError, match="grace must be 0 or more seconds, or None for no end, not"):
                await child.stop(seconds)
        assert child.exitcode is None


# ---------------------------------------------------------------- what is left


async def test_hundreds_of_children_leave_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_reaper, "_PATIENCE", 0)  # that is for somebody else who reaps
    before = open_files()
    for _ in range(2):
        children = await asyncio.gather(*(afork(abs, number, method="forkserver") for number in range(100)))
        assert [await child.wait() for child in children] == list(range(100))
        assert open_files() == before
        assert not multiprocessing.active_children()


async def test_the_exit_status_is_right_whoever_asks_multiprocessing_for_it_at_the_same_time(
    often: None,
) -> None:
    def ask() -> None:
        while multiprocessing.active_children():
            pass

    here, there = socket.socketpair()
    with here:
        with there:
            children = await asyncio.gather(*(execute("s.recv(1); exit(8)", s=there) for _ in range(30)))
        asking = [spawn_blocking(ask) for _ in range(4)]
    assert [await child.wait() for child in children] == [8] * 30
    await asyncio.gather(*asking)


async def test_the_end_is_noticed_without_a_pidfd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "pidfd_open", raising=False)
    for method in METHODS:
        async with await afork(time.sleep, FOR_EVER, method=method) as child:
            assert child.terminate()
            assert await child.wait() == -signal.SIGTERM
            assert not child.kill()


async def test_a_child_that_outlives_the_fork_server_is_watched_to_its_end() -> None:
    child = await afork(time.sleep, FOR_EVER, method="forkserver")
    server = forkserver._forkserver._forkserver_pid  # type: ignore[attr-defined]
    os.kill(server, signal.SIGKILL)
    os.waitid(os.P_PID, server, os.WEXITED | os.WNOWAIT)
    async with await afork(time.sleep, FOR_EVER, method="forkserver") as next_child:  # from a new server
        with pytest.raises(TimeoutError):
            await select(ended=child, timeout=SOON)
        assert next_child.pid != child.pid
        child.kill()
        assert await child.wait() == 255  # who knew it is dead


async def test_a_child_that_somebody_else_has_reaped_has_ended_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_reaper, "_REST", 0.0)
    child = await afork(time.sleep, FOR_EVER)
    os.kill(child.pid, signal.SIGKILL)
    os.waitpid(child.pid, 0)
    assert not child.kill()
    assert await child.wait() == 255


async def test_a_child_that_nobody_refers_to_is_killed_and_reaped() -> None:
    child = await afork(time.sleep, FOR_EVER, method="forkserver")
    pid = child.pid
    with pytest.warns(ResourceWarning, match="<Child 'sleep' pid=.* running> was not waited for: it is killed"):
        del child
        gc.collect()
    await asyncio.sleep(0)
    assert not is_running(pid)


async def test_a_child_that_somebody_waits_for_is_not_forgotten() -> None:
    ended = asyncio.get_running_loop().create_future()

    async def wait(child: Child) -> None:
        ended.set_result(await child.wait())

    child = await afork(time.sleep, FOR_EVER, method="forkserver")
    pid = child.pid
    asyncio.get_running_loop().call_soon(asyncio.create_task, wait(child))
    del child
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    gc.collect()
    os.kill(pid, signal.SIGTERM)
    assert await ended == -signal.SIGTERM


@pytest.mark.filterwarnings("ignore:.* was not waited for:ResourceWarning")
async def test_a_child_that_is_collected_while_it_is_reaped_neither_blocks_nor_is_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    child = await afork(time.sleep, FOR_EVER, method="forkserver")
    reaper, pid = child._reaper, child.pid
    poll = _popen.ForkServerPopen.poll

    def collect_and_poll(self: Any, flag: int = os.WNOHANG) -> int | None:
        gc.collect()
        return poll(self, flag)

    monkeypatch.setattr(_popen.ForkServerPopen, "poll", collect_and_poll)
    cycle: list[Any] = [child]
    cycle.append(cycle)
    forgotten = weakref.ref(child)
    del child, cycle
    os.kill(pid, signal.SIGTERM)
    assert await reaper.ended.wait() == -signal.SIGTERM
    assert forgotten() is None


def test_a_child_outlives_its_loop() -> None:
    async def begin() -> Child:
        return await afork(time.sleep, FOR_EVER, method="forkserver")

    async def end(child: Child) -> int:
        return await child.stop()

    child = asyncio.run(begin())
    assert child.exitcode is None
    assert asyncio.run(end(child)) == -signal.SIGTERM

    child = asyncio.run(begin())
    child.kill()
    assert asyncio.run(select(ended=child, timeout=FOR_EVER)) == ("ended", -signal.SIGKILL)

    forgotten = asyncio.run(begin())
    pid = forgotten.pid
    with pytest.warns(ResourceWarning):
        del forgotten
        gc.collect()
    assert not is_running(pid)


# ---------------------------------------------------------------- whole programs


Program = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Program]:
    """Starts a program in a session of its own; its main function is an async one."""
    started: list[subprocess.Popen[str]] = []

    def start(source: str, *, guard: str = 'if __name__ == "__main__":', **options: Any) -> subprocess.Popen[str]:
        path = tmp_path / "program.py"
        imports = "import asyncio, atexit, os, signal, socket, sys, threading, time\nfrom yamanote.server import *\n"
        path.write_text(f"{imports}\n{source}\n\n{guard}\n    asyncio.run(main())\n")
        environment = {**os.environ}
        environment.pop("PYTHONUNBUFFERED", None)  # what is buffered must be written out at the end
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        process = subprocess.Popen(
            [sys.executable, str(path)], text=True, start_new_session=True, env=environment, **options
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        with process:
            """Its pipes are closed, and it is waited for."""


def test_everything_that_a_child_has_written_is_there_when_it_has_ended(program: Program) -> None:
    output, errors = program(
        """
import logging.handlers

def work(method):
    print(method, "has buffered this")
    atexit.register(print, "exit handlers run")
    logging.getLogger().addHandler(logging.handlers.MemoryHandler(100, target=logging.StreamHandler(sys.stdout)))
    logging.getLogger().warning("logs are flushed")
    threading.Thread(target=lambda: (time.sleep(0.05), print("threads are joined"))).start()
    sys.exit("this is why")

async def main():
    for method in "spawn", "forkserver":
        child = await afork(work, method, method=method)
        print(await child.wait(), flush=True)
"""
    ).communicate()

    rest = ["threads are joined", "exit handlers run", "logs are flushed", "1"]
    assert output.splitlines() == ["spawn has buffered this", *rest, "forkserver has buffered this", *rest]
    assert errors == "this is why\n" * 2


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no full disk here")
def test_a_full_disk_neither_keeps_a_child_from_starting_nor_hides_its_exit_status(program: Program) -> None:
    with open("/dev/full", "w") as full:
        process = program(
            """
def work(status):
    print("nowhere to go")
    sys.exit(status)

async def main():
    print("nor this")
    for method in "spawn", "forkserver":
        for status in 0, 3:
            child = await afork(work, status, method=method)
            print(await child.wait(), file=sys.stderr)
    os._exit(0)
""",
            stdout=full,
        )
        _, errors = process.communicate()
    assert [line for line in errors.splitlines() if line.isdigit()] == ["120", "3", "120", "3"]
    assert "No space left on device" in errors


def test_a_child_learns_that_its_parent_is_gone(program: Program) -> None:
    output, _ = program(
        """
import multiprocessing
from multiprocessing.connection import wait

def work():
    wait([multiprocessing.parent_process().sentinel])
    print("without a parent")

async def main():
    children = [await afork(work, method=method) for method in ("spawn", "forkserver")]
    os.kill(os.getpid(), signal.SIGKILL)
"""
    ).communicate()  # which waits for the children as well: they have the same standard output
    assert output == "without a parent\n" * 2


def test_signals_to_the_whole_group_end_neither_the_fork_server_nor_the_resource_tracker(program: Program) -> None:
    output, errors = program(
        """
from multiprocessing import forkserver, resource_tracker
SIGNALS = signal.SIGHUP, signal.SIGTERM, signal.SIGUSR1, signal.SIGINT

def ignore_all():
    for signum in SIGNALS:
        signal.signal(signum, signal.SIG_IGN)

def work(tell):
    before = [signal.getsignal(signum) for signum in SIGNALS]
    assert before == [signal.SIG_DFL, signal.SIG_DFL, signal.SIG_DFL, signal.default_int_handler], before
    ignore_all()
    tell.send(b"!")
    tell.recv(1)
    return 9

async def main():
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    here, there = socket.socketpair()
    child = await afork(work, there, method="forkserver")
    here.recv(1)
    servers = forkserver._forkserver._forkserver_pid, resource_tracker._resource_tracker._pid
    ignore_all()
    for signum in SIGNALS:
        os.killpg(0, signum)
    here.send(b"!")
    print(await child.wait())
    print([os.waitpid(pid, os.WNOHANG) for pid in servers])
    print(await (await afork(abs, -8, method="forkserver")).wait())
"""
    ).communicate()
    assert errors == ""
    assert output == "9\n[(0, 0), (0, 0)]\n8\n"


@both
def test_a_program_that_starts_children_when_it_is_imported_is_told_so(program: Program, method: Method) -> None:
    process = program(f"async def main():\n    await afork(abs, 1, method={method!r})", guard="if True:")
    _, errors = process.communicate()
    assert process.returncode == 1
    assert 'put what starts the program under `if __name__ == "__main__":`' in errors
    assert "ChildStartError: " in errors


def test_a_main_module_that_cannot_be_imported_again_is_refused_at_the_call() -> None:
    source = "import asyncio; from yamanote.server import afork\ndef work(): ...\nasyncio.run(afork(work))"
    for command in ([sys.executable, "-c", source], [sys.executable, "-"]):
        result = subprocess.run(command, input=source, capture_output=True, text=True)
        assert "RuntimeError: a child process cannot import the main module" in result.stderr


def test_a_copy_of_the_parent_does_not_kill_the_children_when_it_forgets_them(program: Program) -> None:
    output, _ = program(
        """
async def main():
    child = await afork(time.sleep, 3600, method="forkserver")
    if (copy := os.fork()) == 0:
        del child
        os._exit(0)
    os.waitpid(copy, 0)
    print(await child.stop())
"""
    ).communicate()
    assert output == f"{-signal.SIGTERM}\n"
