"""A web application in several workers behind one port, replaced and restarted without a lost request.

    python examples/web.py aiohttp
    python examples/web.py uvicorn --workers 4 --port 8000
    python examples/web.py hypercorn --threads

It prints where it listens and its process id. `kill -HUP <pid>` replaces the workers, one after the other; SIGTERM or
Ctrl-C stops them, and what has been asked is answered first. A worker that dies is started again.

The listening socket is opened once, before the workers, and closed after them. So the system never refuses a
connection, and one that nobody has accepted yet is never lost with a worker. A worker that is to stop leaves in three
steps: it accepts no more; for a moment it closes each connection with its next answer, so that nobody asks on one that
is being closed; then its web server ends, which waits for the requests that are being answered.

Needs `yamanote-server` and the web server that is to be used: `aiohttp`, `uvicorn` or `hypercorn`.
"""

import argparse
import asyncio
import json
import os
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator, MutableMapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from signal import Signals
from typing import Any

from yamanote.runtime import TaskGroup
from yamanote.server import main, server, start_server

BACKLOG = 1024  # connections that may wait to be accepted
UNHURRIED = 5  # seconds that a web server gives to the requests which are being answered

Message = MutableMapping[str, Any]


class Service:
    """What is served, whoever serves it: it says who has answered."""

    def __init__(self, index: int) -> None:
        self.leaving = False
        self.started = asyncio.Event()
        self._worker = {"worker": index, "pid": os.getpid()}

    async def answer(self, path: str) -> tuple[int, bytes]:
        """Status and body. The page /slow takes a second."""
        if path == "/slow":
            await asyncio.sleep(1)
        return 200 if path in ("/", "/slow") else 404, json.dumps(self._worker).encode() + b"\n"

    async def asgi(
        self, scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
    ) -> None:
        """The ASGI application."""
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            self.started.set()
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
        elif scope["type"] == "http":
            status, body = await self.answer(scope["path"])
            headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
            if self.leaving:
                headers.append((b"connection", b"close"))
            await send({"type": "http.response.start", "status": status, "headers": headers})
            await send({"type": "http.response.body", "body": body})


@asynccontextmanager
async def with_aiohttp(service: Service, listener: socket.socket) -> AsyncIterator[None]:
    from aiohttp import web

    async def handle(request: web.Request) -> web.Response:
        status, body = await service.answer(request.path)
        response = web.Response(status=status, body=body, content_type="application/json")
        if service.leaving:
            response.force_close()
        return response

    application = web.Application()
    application.router.add_get("/{path:.*}", handle)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=UNHURRIED)
    await runner.setup()
    try:
        await web.SockSite(runner, listener, backlog=BACKLOG).start()
        yield
    finally:
        await runner.cleanup()


@asynccontextmanager
async def with_uvicorn(service: Service, listener: socket.socket) -> AsyncIterator[None]:
    import uvicorn

    config = uvicorn.Config(
        service.asgi,
        interface="asgi3",
        backlog=BACKLOG,
        lifespan="on",
        log_level="warning",
        timeout_graceful_shutdown=UNHURRIED,
    )
    web_server = uvicorn.Server(config)
    web_server.capture_signals = nullcontext  # signals are told to us, and not to it
    async with TaskGroup() as group:
        group.spawn(web_server.serve(sockets=[listener]))
        await service.started.wait()
        yield
        web_server.should_exit = True


@asynccontextmanager
async def with_hypercorn(service: Service, listener: socket.socket) -> AsyncIterator[None]:
    from hypercorn.asyncio import serve
    from hypercorn.config import Config

    config = Config()
    config.bind = [f"fd://{listener.detach()}"]  # from now on the socket is its own
    config.backlog = BACKLOG
    config.errorlog = None
    config.graceful_timeout = UNHURRIED
    stop = asyncio.Event()
    async with TaskGroup() as group:
        group.spawn(serve(service.asgi, config, shutdown_trigger=stop.wait))
        await service.started.wait()
        yield
        stop.set()


Serving = Callable[[Service, socket.socket], AbstractAsyncContextManager[None]]
WEB_SERVERS: dict[str, Serving] = {"aiohttp": with_aiohttp, "uvicorn": with_uvicorn, "hypercorn": with_hypercorn}


@main
def listening() -> Generator[socket.socket, Signals, None]:
    options = parse_arguments()
    with socket.create_server((options.host, options.port), backlog=BACKLOG) as listener:
        # Accepted connections take it over. Without it, an answer in two parts waits 40 ms for the peer to acknowledge.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # All processes that have the socket share this. In one that blocked, whoever is too late for a connection would
        # wait for the next one, and do nothing else.
        listener.setblocking(False)
        host, port = listener.getsockname()
        print(f"{options.web_server} listens on http://{host}:{port} in process {os.getpid()}", flush=True)
        yield listener


@server
async def worker(loop: asyncio.AbstractEventLoop, index: int, args: list[Any]) -> AsyncGenerator[None, Signals]:
    shared, web_server, leave = args
    service = Service(index)
    # A duplicate, because the web server closes what it is given. Not by `dup`, which would make all of them block.
    listener = socket.fromfd(shared.fileno(), shared.family, shared.type)
    accepting = listener.fileno()
    async with WEB_SERVERS[web_server](service, listener):
        yield
        loop.remove_reader(accepting)  # the workers that stay have the same socket
        service.leaving = True
        await asyncio.sleep(leave)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="A web application in several workers behind one port.")
    parser.add_argument("web_server", choices=WEB_SERVERS)
    parser.add_argument("--workers", type=int, default=2, metavar="N")
    parser.add_argument("--threads", action="store_true", help="workers in threads instead of processes")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000, help="0 for any that is free")
    parser.add_argument("--leave", type=float, default=1.0, metavar="SECONDS", help="how long a worker takes its leave")
    return parser.parse_args()


if __name__ == "__main__":
    options = parse_arguments()
    start_server(
        worker,
        listening,
        num_workers=options.workers,
        workers="threads" if options.threads else "processes",
        args=[options.web_server, options.leave],
    )
