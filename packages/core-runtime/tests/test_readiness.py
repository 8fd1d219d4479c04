"""Waiting for sockets: one task per direction, ends that everybody hears of, descriptors that are not mistaken."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import socket as standard
import threading
import warnings
from asyncio import CancelledError
from collections.abc import Callable, Coroutine
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import pytest

from yamanote.net import socket
from yamanote.runtime import EventLoop, spawn_blocking

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.SelectorEventLoop,
    "yamanote": EventLoop,
}
if find_spec("uvloop"):
    LOOPS["uvloop"] = import_module("uvloop").new_event_loop

Factory = Callable[[], asyncio.AbstractEventLoop]

each_loop = pytest.mark.parametrize("loop_factory", LOOPS.values(), ids=LOOPS)
forking = pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing forks here")


def on_loop(loop_factory: Factory, main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(main())


async def parked(operation: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    """The task of an operation that waits."""
    task = asyncio.create_task(operation)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not task.done()
    return task


def fill(sock: socket.socket) -> None:
    """Send until the system takes no more."""
    with standard.socket(fileno=os.dup(sock.fileno())) as same:
        same.setblocking(False)
        try:
            while True:
                same.send(bytes(65536))
        except BlockingIOError:
            pass


def is_watched(loop: asyncio.AbstractEventLoop, descriptor: int) -> bool:
    """Whether the loop had a reader or a writer for the descriptor; it has none now."""
    return any([loop.remove_reader(descriptor), loop.remove_writer(descriptor)])


class Elsewhere:
    """A loop that runs in another thread."""

    def __init__(self, loop_factory: Factory) -> None:
        self.loop = loop_factory()
        self._thread = threading.Thread(target=self.loop.run_forever)

    def __enter__(self) -> Elsewhere:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()

    async def call(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(coroutine, self.loop))


# ---------------------------------------------------------------------- one task per direction


@each_loop
def test_a_second_reader_is_refused_and_changes_nothing(loop_factory: Factory) -> None:
    async def main() -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            receiving = await parked(ours.recv(10))
            for call in (ours.recv(10), ours.recv_into(bytearray(1)), ours.recvfrom(10), ours.accept()):
                with pytest.raises(RuntimeError, match=f"another task is reading already.* fd={ours.fileno()}"):
                    await call
            await theirs.send(b"hello")
            with pytest.raises(RuntimeError):  # nor is it overtaken, now that there is something
                await ours.recv(10)
            assert await receiving == b"hello"
            await theirs.send(b"again")
            assert await ours.recv(10) == b"again"

    on_loop(loop_factory, main)


@each_loop
def test_nobody_sends_in_the_middle_of_a_sendall(loop_factory: Factory) -> None:
    async def main() -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            data = bytes(3_000_000)
            sending = await parked(ours.sendall(data))
            for call in (ours.send(b"x"), ours.sendall(b"x"), ours.sendmsg([b"x"])):
                with pytest.raises(RuntimeError, match="another task is writing already"):
                    await call
            size = 0
            while size < len(data):
                part = await theirs.recv(100_000)
                assert not part.strip(b"\0")
                size += len(part)
            await sending
            await ours.sendall(b"x")
            assert await theirs.recv(10) == b"x"

    on_loop(loop_factory, main)


@each_loop
def test_the_two_directions_are_two(loop_factory: Factory) -> None:
    async def main() -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            fill(ours)
            receiving = await parked(ours.recv(10))
            sending = await parked(ours.sendall(b"x"))
            await theirs.send(b"hello")
            assert await receiving == b"hello"
            assert not sending.done()
            while not sending.done():
                await theirs.recv(1_000_000)

    on_loop(loop_factory, main)


@each_loop
def test_duplicates_wait_for_themselves(loop_factory: Factory) -> None:
    async def main() -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs, ours.dup() as same:
            first = await parked(ours.recv(1))
            second = await parked(same.recv(1))
            ours.close()
            with pytest.raises(OSError):
                await first
            await theirs.send(b"x")
            assert await second == b"x"

    on_loop(loop_factory, main)


# ---------------------------------------------------------------------- closing


@each_loop
def test_close_wakes_who_waits_with_an_error(loop_factory: Factory) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        for how in (socket.socket.close, socket.socket.detach):
            ours, theirs = socket.socketpair()
            with ours, theirs:
                fill(ours)
                receiving = await parked(ours.recv(10))
                sending = await parked(ours.sendall(b"x"))
                descriptor = ours.fileno()
                how(ours)
                assert not is_watched(loop, descriptor)
                for task in (receiving, sending):
                    with pytest.raises(OSError, match=f"closed while a task waited.* fd={descriptor}") as caught:
                        await task
                    assert caught.value.errno == errno.EBADF
                for call in (ours.recv(1), ours.sendall(b"x"), ours.accept(), ours.connect("somewhere")):
                    with pytest.raises(OSError) as caught:
                        await call
                    assert caught.value.errno == errno.EBADF
                assert ours.detach() == -1
                if how is socket.socket.detach:
                    os.close(descriptor)

    on_loop(loop_factory, main)


@each_loop
def test_close_after_the_data_have_come_is_the_end_as_well(loop_factory: Factory) -> None:
    async def main() -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            receiving = await parked(ours.recv(10))
            await theirs.send(b"hello")
            ours.close()
            with pytest.raises(OSError) as caught:
                await receiving
            assert caught.value.errno == errno.EBADF

    on_loop(loop_factory, main)


@each_loop
def test_a_descriptor_whose_number_is_used_again_wakes_nobody_and_is_heard(loop_factory: Factory) -> None:
    async def main() -> None:
        for is_waiting in (True, False):
            ours, theirs = socket.socketpair()
            with theirs:
                descriptor = ours.fileno()
                receiving = await parked(ours.recv(10))
                if not is_waiting:  # the loop still watches
                    receiving.cancel()
                    await asyncio.wait([receiving])
                ours.close()
                new, other = standard.socketpair()
                spare = new.detach()
                if spare != descriptor:
                    os.dup2(spare, descriptor)
                    os.close(spare)
                with other, socket.socket(fileno=descriptor) as again:
                    fresh = await parked(again.recv(10))
                    other.send(b"new")
                    assert await fresh == b"new"
                with pytest.raises((OSError, CancelledError)):
                    await receiving

    on_loop(loop_factory, main)


@each_loop
def test_a_socket_may_be_closed_in_another_thread(loop_factory: Factory) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        with theirs:
            descriptor = ours.fileno()
            fill(ours)
            receiving = await parked(ours.recv(10))
            sending = await parked(ours.sendall(b"x"))
            thread = threading.Thread(target=ours.close)
            thread.start()
            thread.join()  # this loop cannot have let go yet
            assert ours.fileno() == -1
            os.fstat(descriptor)  # nobody else can have got the number
            for task in (receiving, sending):
                with pytest.raises(OSError, match="closed while a task waited"):
                    await task
            await asyncio.sleep(0)
            with pytest.raises(OSError):
                os.fstat(descriptor)
            assert not is_watched(loop, descriptor)
            while await theirs.recv(1_000_000):  # the other end hears of it
                pass

    on_loop(loop_factory, main)


@each_loop
def test_whenever_a_socket_is_closed_in_another_thread_its_reader_ends_and_hears_nobody_else(
    loop_factory: Factory,
) -> None:
    async def listen(sock: socket.socket, heard: set[bytes]) -> None:
        while True:
            heard.add(await sock.recv(1))

    def talk(ours: socket.socket, theirs: standard.socket, word: bytes, times: int) -> None:
        with theirs:
            for _ in range(times):
                theirs.send(word)
            ours.close()

    async def main() -> None:
        for number in range(200):  # the descriptors have the same few numbers all the time
            ends = [standard.socketpair() for _ in range(2)]
            words = [bytes([number]), bytes([number + 1])]
            heard: list[set[bytes]] = [set(), set()]
            talking, listening = [], []
            for (one, other), word, words_heard in zip(ends, words, heard, strict=True):
                ours = socket.from_stdlib_socket(one)
                listening.append(asyncio.create_task(listen(ours, words_heard)))
                talking.append(spawn_blocking(talk, ours, other, word, number % 7))
            for task in listening:
                with pytest.raises(OSError) as caught:
                    await task
                assert caught.value.errno == errno.EBADF
            for call in talking:
                await call
            assert all(words_heard <= {word} for words_heard, word in zip(heard, words, strict=True))

    on_loop(loop_factory, main)


@each_loop
def test_the_directions_of_a_socket_may_be_on_two_loops(loop_factory: Factory) -> None:
    async def main() -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs, Elsewhere(loop_factory) as elsewhere:
            data = bytes(3_000_000)
            receiving = await parked(ours.recv(10))
            sending = asyncio.create_task(elsewhere.call(ours.sendall(data)))
            size = len(await theirs.recv(1000))
            with pytest.raises(RuntimeError, match="another task is writing"):
                await ours.send(b"x")
            with pytest.raises(RuntimeError, match="another task is reading"):
                await elsewhere.call(ours.recv(10))
            while size < len(data):
                size += len(await theirs.recv(100_000))
            await sending
            await theirs.send(b"hello")
            assert await receiving == b"hello"
            # A direction may change its loop, too.
            receiving = asyncio.create_task(elsewhere.call(ours.recv(10)))
            await theirs.send(b"there")
            assert await receiving == b"there"
            blocked = asyncio.create_task(elsewhere.call(ours.recv(10)))
            await elsewhere.call(asyncio.sleep(0))
            ours.close()
            with pytest.raises(OSError) as caught:
                await blocked
            assert caught.value.errno == errno.EBADF

    on_loop(loop_factory, main)


@each_loop
def test_a_descriptor_is_given_away_from_any_thread(loop_factory: Factory) -> None:
    async def receive(sock: socket.socket) -> bytes:
        return await sock.recv(10)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        for is_waiting in (True, False):
            ours, theirs = socket.socketpair()
            with theirs, Elsewhere(loop_factory) as elsewhere:
                receiving = await parked(ours.recv(10))
                if not is_waiting:  # the loop still watches
                    receiving.cancel()
                    await asyncio.wait([receiving])
                before = ours.fileno()
                taken = await spawn_blocking(ours.detach)
                with pytest.raises((OSError, CancelledError)):
                    await receiving
                await asyncio.sleep(0)
                assert not is_watched(loop, before) and not is_watched(loop, taken)
                with pytest.raises(OSError):
                    os.fstat(before)
                with socket.socket(fileno=taken) as again:
                    await theirs.send(b"hello")
                    assert await elsewhere.call(receive(again)) == b"hello"
            assert ours.fileno() == ours.detach() == -1

    on_loop(loop_factory, main)


@each_loop
def test_a_socket_outlives_its_loop(loop_factory: Factory) -> None:
    ours, theirs = socket.socketpair()

    async def exchange() -> None:
        receiving = await parked(ours.recv(10))
        await theirs.send(b"hello")
        assert await receiving == b"hello"
        waiting = await parked(ours.recv(10))
        waiting.cancel()

    with ours, theirs:
        on_loop(loop_factory, exchange)
        on_loop(loop_factory, exchange)


@each_loop
@pytest.mark.parametrize("is_used_again", [True, False], ids=["used again", "closed"])
def test_a_loop_that_is_closed_under_a_task_that_waits_leaves_the_socket_to_others(
    loop_factory: Factory, is_used_again: bool
) -> None:
    ours, theirs = socket.socketpair()
    gone = loop_factory()
    receiving = gone.run_until_complete(parked(ours.recv(10)))
    gone.close()

    async def exchange() -> None:
        await theirs.send(b"hello")
        assert await ours.recv(10) == b"hello"
        waiting = await parked(ours.recv(10))
        receiving.get_coro().close()  # type: ignore[union-attr]  # what was left of it goes, and takes nothing along
        with pytest.raises(RuntimeError, match="another task is reading"):
            await asyncio.wait_for(ours.recv(10), 10)
        waiting.cancel()

    with theirs:
        if is_used_again:
            on_loop(loop_factory, exchange)
        descriptor = ours.fileno()
        ours.close()
        with pytest.raises(OSError):
            os.fstat(descriptor)
    assert not receiving.done()
    receiving._log_destroy_pending = False  # type: ignore[attr-defined]  # it is what this is about
    receiving.get_coro().close()  # type: ignore[union-attr]


@each_loop
def test_a_socket_that_is_closed_while_its_loop_rests_is_closed_with_the_loop(loop_factory: Factory) -> None:
    async def main() -> None:
        receiving = await parked(ours.recv(10))
        receiving.cancel()
        await asyncio.wait([receiving])

    ours, theirs = socket.socketpair()
    with theirs:
        loop = loop_factory()
        loop.run_until_complete(main())
        descriptor = ours.fileno()
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            ours.close()
            os.fstat(descriptor)  # the loop may run again, and watches it
            loop.close()
            del loop
            gc.collect()
        assert not said  # it was closed, not forgotten
        with pytest.raises(OSError):
            os.fstat(descriptor)


def test_of_two_threads_that_close_a_socket_at_once_one_closes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    detach, inside, both = standard.socket.detach, [], threading.Event()

    def detach_in_steps(sock: standard.socket) -> int:  # as it is without an interpreter lock
        descriptor = sock.fileno()
        if descriptor >= 0:
            inside.append(sock)
            if len(inside) == 2:
                both.set()
            both.wait(0.05)
            detach(sock)
        return descriptor

    monkeypatch.setattr(standard.socket, "detach", detach_in_steps)
    sock, taken = socket.socket(), []
    threads = [threading.Thread(target=lambda: taken.append(sock.detach())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    os.close(max(taken))
    assert min(taken) == -1


@each_loop
def test_a_loop_lets_go_of_what_comes_when_nobody_waits(loop_factory: Factory) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        with ours, theirs:
            receiving = await parked(ours.recv(10))
            receiving.cancel()
            await asyncio.wait([receiving])
            await theirs.send(b"hello")
            for _ in range(5):
                loop.call_later(0, int)  # so that every loop polls after this turn
                await asyncio.sleep(0)
            assert not is_watched(loop, ours.fileno())
            assert await ours.recv(10) == b"hello"

    on_loop(loop_factory, main)


# ---------------------------------------------------------------------- dropped, forked, out of place


@each_loop
def test_a_socket_that_is_dropped_is_closed_with_a_warning_and_no_longer_watched(loop_factory: Factory) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        with theirs:
            receiving = await parked(ours.recv(10))
            receiving.cancel()
            await asyncio.wait([receiving])
            descriptor = ours.fileno()
            del receiving
            with pytest.warns(ResourceWarning, match=f"unclosed .*fd={descriptor}"):
                del ours
                gc.collect()
            assert not is_watched(loop, descriptor)
            assert await theirs.recv(10) == b""

    on_loop(loop_factory, main)


@each_loop
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_a_socket_that_is_dropped_in_another_thread_is_closed_when_its_loop_has_let_go(loop_factory: Factory) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        with theirs:
            receiving = await parked(ours.recv(10))
            receiving.cancel()
            await asyncio.wait([receiving])
            del receiving
            box = [ours]
            descriptor = ours.fileno()
            del ours
            await spawn_blocking(box.clear)
            assert await theirs.recv(10) == b""
            assert not is_watched(loop, descriptor)

    on_loop(loop_factory, main)


@forking
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_has_the_socket_for_itself_and_leaves_the_loop_of_its_parent_alone() -> None:
    async def in_child(ours: socket.socket) -> bool:
        waiting = await parked(ours.recv(1))  # that of the parent is not in its way
        ours.close()
        await asyncio.wait([waiting])
        return isinstance(waiting.exception(), OSError)

    async def main() -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            receiving = await parked(ours.recv(10))
            child = os.fork()
            if not child:
                code = 1
                try:
                    asyncio._set_running_loop(None)  # newer ones do so themselves
                    with asyncio.Runner(loop_factory=EventLoop) as runner:
                        code = not runner.run(in_child(ours))
                    receiving.get_coro().close()  # the parent's task ends here, without a word to its loop
                finally:
                    os._exit(code)
            _, status = await spawn_blocking(os.waitpid, child, 0)
            assert os.waitstatus_to_exitcode(status) == 0
            await theirs.send(b"hello")
            assert await receiving == b"hello"

    on_loop(EventLoop, main)


def test_a_loop_that_cannot_watch_descriptors_is_named() -> None:
    class Proactor(asyncio.SelectorEventLoop):
        def add_reader(self, *_: object) -> None:
            raise NotImplementedError

    async def main() -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            for _ in range(2):
                with pytest.raises(RuntimeError, match=r"cannot wait on <.*Proactor.*: it needs one that watches"):
                    await ours.recv(10)
            await theirs.send(b"hello")
            assert await ours.recv(10) == b"hello"  # what is ready needs no watching

    on_loop(Proactor, main)


def test_sockets_are_made_and_closed_where_no_loop_runs() -> None:
    with socket.socket() as sock:
        assert sock.fileno() >= 0
