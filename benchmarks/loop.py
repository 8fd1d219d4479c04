"""Our event loop against asyncio's and uvloop's: the same programs on each. Run it: `benchmarks/loop.py --help`."""

from __future__ import annotations

import asyncio
import socket
from asyncio import AbstractEventLoop, Task, create_task, sleep
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from harness import Version, Workload, check, main
from peers import installed, load

from yamanote.channels import channel
from yamanote.net import socket as net
from yamanote.runtime import EventLoop, TaskGroup

uvloop = load("uvloop")

LOOPS: dict[str, Callable[[], AbstractEventLoop]] = {
    "yamanote": EventLoop,
    "uvloop": lambda: uvloop.new_event_loop(),
}

Program = Callable[..., Coroutine[Any, Any, None]]


def workloads(scale: float = 1.0) -> list[Workload]:
    """All of them, with about `scale` times the ordinary number of operations."""
    turns = max(10, int(10_000 * scale))
    tasks = max(3, int(10_000 * scale))
    depth = min(1000, max(3, int(100_000 * scale)))
    rounds = max(2, int(40 * scale))
    return [
        on_each_loop("yield, 1 task", turns, 0.55, yielding, 1, turns),
        on_each_loop("yield, 2 tasks", turns // 2 * 2, 0.60, yielding, 2, turns // 2),
        on_each_loop("yield, 100 tasks", max(1, turns // 100) * 100, 0.65, yielding, 100, max(1, turns // 100)),
        on_each_loop("spawn+join no-op tasks, eager", tasks, 0.35, spawning, tasks, ours=spawning_eagerly),
        on_each_loop("ping-pong over channels, cap=1", turns, 0.40, ping_pong, turns),
        on_each_loop("tasks that each start and await the next, 1000 deep", depth, 0.60, chain, depth),
        on_each_loop("echo, 16 connections of 1 KiB", rounds * 16, 0.80, echo, 16, rounds),
        awaiting_sockets("echo with net.socket, 1 connection of 1 KiB", 1, rounds * 16),
        awaiting_sockets("echo with net.socket, 16 connections of 1 KiB", 16, rounds),
    ]


def on_each_loop(
    name: str, operations: int, bar: float, program: Program, *arguments: int, ours: Program | None = None
) -> Workload:
    versions: dict[str, Version] = {"asyncio": partial(program, *arguments)}
    for library in installed(LOOPS):
        own = ours if ours is not None and library == "yamanote" else program
        versions[library] = partial(own, *arguments)
    return Workload(name, operations, versions, bar, loops=LOOPS)


def awaiting_sockets(name: str, connections: int, rounds: int) -> Workload:
    versions: dict[str, Version] = {
        "asyncio": partial(echo, connections, rounds),
        "asyncio.streams": partial(echo_with_streams, connections, rounds),
        "yamanote": partial(echo_with_ours, connections, rounds),
    }
    return Workload(name, connections * rounds, versions, 0.75, loops=LOOPS)


# ------------------------------------------------------------------------------------------- tasks


async def yielding(tasks: int, turns: int) -> None:
    done = 0

    async def work() -> None:
        nonlocal done
        for _ in range(turns):
            await sleep(0)
            done += 1

    await asyncio.gather(*(work() for _ in range(tasks)))
    check(done == tasks * turns, f"{done} turns were taken")


async def spawning(tasks: int) -> None:
    done: list[None] = []

    async def work() -> None:
        done.append(None)

    async with asyncio.TaskGroup() as group:
        for _ in range(tasks):
            group.create_task(work())
    check(len(done) == tasks, f"{len(done)} tasks have run")


async def spawning_eagerly(tasks: int) -> None:
    done: list[None] = []

    async def work() -> None:
        done.append(None)

    async with TaskGroup() as group:
        for _ in range(tasks):
            group.spawn(work(), eager=True)
    check(len(done) == tasks, f"{len(done)} tasks have run")


async def ping_pong(rounds: int) -> None:
    ping, pinged = channel[int](1)
    pong, ponged = channel[int](1)

    async def answer() -> None:
        async for number in pinged:
            await pong.send(number + 1)

    with ping, pinged, pong, ponged:
        answering = create_task(answer())
        number = 0
        for _ in range(rounds):
            await ping.send(number)
            number = await ponged.recv()
        ping.close()
        await answering
    check(number == rounds, f"{number} rounds were played")


async def chain(depth: int) -> None:
    async def link(left: int) -> int:
        if not left:
            return 0
        following: Task[int] = create_task(link(left - 1))
        return 1 + await following

    check(await link(depth) == depth, "some tasks are missing")


# ------------------------------------------------------------------------------------------- sockets

MESSAGE = bytes(range(256)) * 4


async def echo(connections: int, rounds: int) -> None:
    loop = asyncio.get_running_loop()
    pairs = [socket.socketpair() for _ in range(connections)]
    received = 0

    async def serve(sock: socket.socket) -> None:
        while data := await loop.sock_recv(sock, len(MESSAGE)):
            await loop.sock_sendall(sock, data)

    async def talk(sock: socket.socket) -> None:
        nonlocal received
        for _ in range(rounds):
            await loop.sock_sendall(sock, MESSAGE)
            answer = b""
            while len(answer) < len(MESSAGE):
                answer += await loop.sock_recv(sock, len(MESSAGE) - len(answer))
            received += answer == MESSAGE
        sock.shutdown(socket.SHUT_WR)

    try:
        for pair in pairs:
            for sock in pair:
                sock.setblocking(False)
        await asyncio.gather(*(serve(theirs) for _, theirs in pairs), *(talk(ours) for ours, _ in pairs))
    finally:
        for pair in pairs:
            for sock in pair:
                sock.close()
    check(received == connections * rounds, f"{received} messages came back")


async def echo_with_ours(connections: int, rounds: int) -> None:
    pairs = [net.socketpair() for _ in range(connections)]
    received = 0

    async def serve(sock: net.socket) -> None:
        while data := await sock.recv(len(MESSAGE)):
            await sock.sendall(data)

    async def talk(sock: net.socket) -> None:
        nonlocal received
        for _ in range(rounds):
            await sock.sendall(MESSAGE)
            answer = b""
            while len(answer) < len(MESSAGE):
                answer += await sock.recv(len(MESSAGE) - len(answer))
            received += answer == MESSAGE
        sock.shutdown(net.SHUT_WR)

    try:
        await asyncio.gather(*(serve(theirs) for _, theirs in pairs), *(talk(ours) for ours, _ in pairs))
    finally:
        for pair in pairs:
            for sock in pair:
                sock.close()
    check(received == connections * rounds, f"{received} messages came back")


Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def echo_with_streams(connections: int, rounds: int) -> None:
    pairs = [socket.socketpair() for _ in range(connections)]
    received = 0

    async def serve(stream: Stream) -> None:
        reader, writer = stream
        while data := await reader.read(len(MESSAGE)):
            writer.write(data)
            await writer.drain()

    async def talk(stream: Stream) -> None:
        nonlocal received
        reader, writer = stream
        for _ in range(rounds):
            writer.write(MESSAGE)
            await writer.drain()
            answer = await reader.readexactly(len(MESSAGE))
            received += answer == MESSAGE
        writer.write_eof()

    streams = [[await asyncio.open_connection(sock=sock) for sock in pair] for pair in pairs]
    try:
        await asyncio.gather(*(serve(theirs) for _, theirs in streams), *(talk(ours) for ours, _ in streams))
    finally:
        for pair in streams:
            for _, writer in pair:
                writer.close()
                await writer.wait_closed()
    check(received == connections * rounds, f"{received} messages came back")


if __name__ == "__main__":
    main("loop", workloads())
