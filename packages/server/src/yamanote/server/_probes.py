"""`probes`: the health and the metrics of a program over HTTP, for orchestrators and for Prometheus.

Invariant: one request, one answer, then the connection is closed; all of it within `_PATIENCE` seconds and within the
buffer of one stream, whatever the client does or leaves undone.
"""

from __future__ import annotations

import os
import re
from asyncio import IncompleteReadError, LimitOverrunError, StreamReader, StreamWriter, get_running_loop, timeout
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, NamedTuple, overload
from urllib.parse import urlsplit

from yamanote.server._endpoint import BACKLOG, Endpoint
from yamanote.server._health import Health
from yamanote.server._health_state import HealthState, PartState
from yamanote.server._serve import Server

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

__all__ = ["probes"]

_PATIENCE = 5.0
"""Seconds for a whole connection: its request, the answer, and the client that takes it."""

_CONNECTIONS = 64
"""How many there may be at once; the others wait."""

_PLAIN = "text/plain; charset=utf-8"
_REQUEST_LINE = re.compile(r"([!#$%&'*+.^_`|~\w-]+) (\S+) HTTP/1\.[01]", re.ASCII)
_HEADER = re.compile(r"([!#$%&'*+.^_`|~\w-]+):(.*)", re.ASCII)


@overload
def probes(
    health: Health,
    host: str | None,
    port: int,
    *,
    reuse_port: bool = False,
    registry: CollectorRegistry | None = None,
) -> Server: ...
@overload
def probes(health: Health, *, path: str | os.PathLike[str], registry: CollectorRegistry | None = None) -> Server: ...
def probes(
    health: Health,
    host: str | None = None,
    port: int | None = None,
    *,
    path: str | os.PathLike[str] | None = None,
    reuse_port: bool = False,
    registry: CollectorRegistry | None = None,
) -> Server:
    """Answer over HTTP how the program does, on a port of its own: a `Server`, to be entered or awaited as `serve`.

    | request | answer |
    |---|---|
    | `GET /livez` | 200 while `health` is live, 503 otherwise, with the parts that are not |
    | `GET /readyz` | 200 while `health` is ready, 503 otherwise, with the parts that are not |
    | `GET /metrics` | what `registry` collects, in the text format of Prometheus; 404 without a registry |

    The reasons of the parts are shown to whoever can connect: keep the port to the inside. The answers come from the
    loop on which it runs, and from no thread beside it: when that loop is blocked there is no answer, and whoever asks
    takes the program for dead. So does the collecting of metrics block the loop while it takes.

    A client has 5 seconds for everything. `host` and `port`, or the `path` of a Unix socket, are those of `serve`, and
    so are the errors. So is `reuse_port`, for a worker whose successor is to have the same port and starts before it
    ends. Raises TypeError for a `registry` that is none, and ImportError where prometheus_client is not installed: it
    comes with `yamanote-server[metrics]`.

    **Cancel safety:** that of `serve`.

    >>> async def main() -> bytes:
    ...     with Health() as health:
    ...         health.part("database").unready("connecting")
    ...         async with probes(health, "127.0.0.1", 0) as server:
    ...             reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    ...             writer.write(b"GET /readyz HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n")
    ...             answer = await reader.read()
    ...             writer.close()
    ...             return answer.splitlines()[-1]
    >>> run(main())
    b'database: connecting'
    """
    if not isinstance(health, Health):
        raise TypeError(f"health must be a Health, not {health!r}")
    pages: dict[str, _Page] = {
        "/livez": lambda _: _live(health.state),
        "/readyz": lambda _: _ready(health.state),
    }
    if registry is not None:
        pages["/metrics"] = _metrics_of(registry)

    async def answer(reader: StreamReader, writer: StreamWriter) -> None:
        try:
            async with timeout(_PATIENCE):
                await _converse(reader, writer, pages)
        except OSError:  # it is gone, or has had its time: what is left to send is not waited for
            writer.transport.abort()

    endpoint = Endpoint(host, port, path, None, reuse_port=reuse_port, mode=None, backlog=BACKLOG)
    # No deadline for the end: each connection has its own.
    return Server(answer, endpoint, limit=_CONNECTIONS, refuse=False, drain=None, tls=None, stop=None)


class _Request(NamedTuple):
    method: str
    path: str
    headers: Mapping[str, str]
    """By their names in lower case."""


class _Answer(NamedTuple):
    status: HTTPStatus
    body: bytes
    kind: str = _PLAIN
    headers: tuple[str, ...] = ()


_Page = Callable[[_Request], _Answer]
_Pages = Mapping[str, _Page]


def _live(state: HealthState) -> _Answer:
    return _verdict(state.live, [_line(name, part) for name, part in state.parts.items() if not part.live])


def _ready(state: HealthState) -> _Answer:
    reasons = ["stopping"] if state.stopping else []
    return _verdict(state.ready, reasons + [_line(name, part) for name, part in state.parts.items() if not part.ready])


def _verdict(good: bool, reasons: list[str]) -> _Answer:
    text = "\n".join(["ok"] if good else reasons) + "\n"
    return _Answer(HTTPStatus.OK if good else HTTPStatus.SERVICE_UNAVAILABLE, text.encode(errors="backslashreplace"))


def _line(name: str, part: PartState) -> str:
    return f"{name}: {' '.join(part.reason.split())}"


def _metrics_of(registry: CollectorRegistry) -> _Page:
    try:
        from prometheus_client import CollectorRegistry
        from prometheus_client.exposition import choose_encoder
    except ImportError as error:
        raise ImportError("registry needs prometheus_client: install yamanote-server[metrics]") from error
    if not isinstance(registry, CollectorRegistry):
        raise TypeError(f"registry must be a CollectorRegistry of prometheus_client, or None, not {registry!r}")

    def metrics(request: _Request) -> _Answer:
        encode, kind = choose_encoder(request.headers.get("accept", ""))
        return _Answer(HTTPStatus.OK, encode(registry), kind)

    return metrics


async def _converse(reader: StreamReader, writer: StreamWriter, pages: _Pages) -> None:
    transport = writer.transport
    transport.set_write_buffer_limits(0)  # so that `drain` returns when everything has been taken
    request = await _read(reader)
    if request is None:
        return
    answer = request if isinstance(request, _Answer) else _answer(request, pages)
    body_too = isinstance(request, _Answer) or request.method != "HEAD"
    head = [
        f"HTTP/1.1 {answer.status.value} {answer.status.phrase}",
        f"Content-Type: {answer.kind}",
        f"Content-Length: {len(answer.body)}",
        "Cache-Control: no-store",
        "Connection: close",
        *answer.headers,
    ]
    writer.write("".join(f"{line}\r\n" for line in [*head, ""]).encode() + (answer.body if body_too else b""))
    await writer.drain()


async def _read(reader: StreamReader) -> _Request | _Answer | None:
    """The request, or the answer to one that is none, or None where nothing was asked."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except LimitOverrunError:
        return _refusal(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
    except IncompleteReadError as error:  # without a byte it was only a look at whether the port is open
        return _refusal(HTTPStatus.BAD_REQUEST) if error.partial else None
    request_line, *lines = head.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
    request, headers = _REQUEST_LINE.fullmatch(request_line), [_HEADER.fullmatch(line) for line in lines]
    try:
        if request is None or None in headers:
            raise ValueError
        path = urlsplit(request[2]).path
    except ValueError:
        return _refusal(HTTPStatus.BAD_REQUEST)
    return _Request(request[1], path, {header[1].lower(): header[2] for header in headers if header})


def _answer(request: _Request, pages: _Pages) -> _Answer:
    page = pages.get(request.path)
    if page is None:
        return _refusal(HTTPStatus.NOT_FOUND)
    if request.method not in ("GET", "HEAD"):
        return _refusal(HTTPStatus.METHOD_NOT_ALLOWED, "Allow: GET, HEAD")
    try:
        return page(request)
    except Exception as error:  # a collector of the program's own, say
        message = f"{request.path} cannot be answered"
        get_running_loop().call_exception_handler({"message": message, "exception": error})
        return _refusal(HTTPStatus.INTERNAL_SERVER_ERROR)


def _refusal(status: HTTPStatus, *headers: str) -> _Answer:
    return _Answer(status, f"{status.phrase}\n".encode(), headers=headers)
