"""Names are looked up without stopping the loop."""

from __future__ import annotations

import asyncio
import socket as standard
import threading
from typing import Any

import pytest

from yamanote.net import socket


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, bool]]:
    """Who was looked up, and whether in another thread; `nowhere` is the only name that there is not."""
    questions: list[tuple[Any, bool]] = []
    real = standard.getaddrinfo
    here = threading.current_thread()

    def getaddrinfo(host: Any, port: Any, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0) -> Any:
        if flags & socket.AI_NUMERICHOST:
            return real(host, port, family, type, proto, flags)
        questions.append((host, threading.current_thread() is not here))
        if host == "nowhere":
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        if host == "twice":
            return [*real("127.0.0.2", 1, family, type), *real("127.0.0.1", port, family, type)]
        if host == "here6":
            return real("::1", port, family, type, proto, flags)
        return real("127.0.0.1", port, family, type, proto, flags)

    monkeypatch.setattr(standard, "getaddrinfo", getaddrinfo)
    return questions


async def test_numbers_are_answered_without_a_thread(asked: list[Any]) -> None:
    for host in ("127.0.0.1", "::1", None):
        assert await socket.getaddrinfo(host, 80)
    with await socket.create_server(("", 0)) as server:
        with await socket.create_connection(("127.0.0.1", server.getsockname()[1])):
            pass
    assert asked == []


async def test_names_are_asked_in_a_thread(asked: list[Any]) -> None:
    assert (await socket.getaddrinfo("here", 80, type=socket.SOCK_STREAM))[0][4] == ("127.0.0.1", 80)
    with await socket.create_server(("here", 0)) as server:
        with socket.socket() as client:
            await client.bind(("here", 0))
            await client.connect(("here", server.getsockname()[1]))
    with socket.socket(type=socket.SOCK_DGRAM) as one:
        await one.bind(("here", 0))
        await one.sendto(b"x", ("here", one.getsockname()[1]))
        await one.sendmsg([b"y"], [], 0, ("here", one.getsockname()[1]))
        assert [await one.recv(1), await one.recv(1)] == [b"x", b"y"]
    assert asked == [("here", True)] * 7


async def test_a_name_that_there_is_not_is_an_error(asked: list[Any]) -> None:
    with socket.socket() as sock:
        for call in (
            socket.getaddrinfo("nowhere", 80),
            socket.create_connection(("nowhere", 80)),
            socket.create_server(("nowhere", 80)),
            sock.connect(("nowhere", 80)),
            sock.connect_ex(("nowhere", 80)),
            sock.bind(("nowhere", 80)),
        ):
            with pytest.raises(socket.gaierror):
                await call


async def test_addresses_are_tried_one_after_the_other(asked: list[Any]) -> None:
    with await socket.create_server(("127.0.0.1", 0)) as server:
        address = "twice", server.getsockname()[1]
        with await socket.create_connection(address, source_address=("127.0.0.1", 0)) as client:
            assert client.getpeername() == server.getsockname()
    with pytest.raises(ExceptionGroup) as caught:
        await socket.create_connection(address, all_errors=True)
    assert len(caught.value.exceptions) == 2


async def test_an_ipv6_name_keeps_the_scope_that_was_given(asked: list[Any]) -> None:
    with socket.socket(socket.AF_INET6) as sock:
        await sock.bind(("here6", 0, 0, 0))
        assert sock.getsockname()[0] == "::1"
        with pytest.raises(TypeError):
            await sock.bind(("here6", 0, 1, 2, 3))  # the system says what is wrong


async def test_what_is_no_address_is_refused_by_the_system(asked: list[Any]) -> None:
    with socket.socket() as sock:
        for address in (["name", 80], ("name",), ("name", "80"), "name", 80):
            with pytest.raises((TypeError, ValueError)):
                await sock.connect(address)  # type: ignore[arg-type]
    assert asked == []


async def test_a_look_up_that_is_cancelled_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def getaddrinfo(*question: Any) -> Any:
        if question[-1] & socket.AI_NUMERICHOST:
            raise socket.gaierror(socket.EAI_NONAME, "no number")
        begun.set()
        go_on.wait()
        return []

    monkeypatch.setattr(standard, "getaddrinfo", getaddrinfo)
    task = asyncio.create_task(socket.create_connection(("here", 80)))
    while not begun.is_set():
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    go_on.set()


async def test_the_other_questions_are_asked_in_threads_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    here = threading.current_thread()
    for name in ("gethostbyname", "gethostbyname_ex", "gethostbyaddr", "getfqdn", "getnameinfo"):
        monkeypatch.setattr(standard, name, lambda *question: (question, threading.current_thread() is not here))
    answers: list[Any] = [
        await socket.gethostbyname("a"),
        await socket.gethostbyname_ex("a"),
        await socket.gethostbyaddr("a"),
        await socket.getfqdn("a"),
        await socket.getnameinfo(("a", 1), 0),
    ]
    assert answers == [*[(("a",), True)] * 4, ((("a", 1), 0), True)]
