"""`probes`: what orchestrators and Prometheus are promised, over real sockets."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.parser import text_string_to_metric_families

from yamanote.runtime import move_on_after, yield_now
from yamanote.server import Health, Server, _probes, probes

HOST = "127.0.0.1"


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: str


@pytest.fixture
def health() -> Iterator[Health]:
    with Health() as health:
        yield health


async def send(server: Server, request: bytes) -> bytes:
    """What comes back until the server closes the connection."""
    reader, writer = await asyncio.open_connection(HOST, server.port)
    try:
        writer.write(request)
        return await reader.read()
    finally:
        writer.close()


async def ask(server: Server, target: str, method: str = "GET", **headers: str) -> Answer:
    lines = [f"{method} {target} HTTP/1.1", "Host: localhost", *(f"{name}: {value}" for name, value in headers.items())]
    return parse(await send(server, "\r\n".join([*lines, "", ""]).encode()))


def parse(answer: bytes) -> Answer:
    head, _, body = answer.decode().partition("\r\n\r\n")
    line, *headers = head.split("\r\n")
    version, status, _ = line.split(" ", 2)
    assert version == "HTTP/1.1"
    return Answer(int(status), dict(header.split(": ", 1) for header in headers), body)


async def test_a_program_that_is_well_is_live_and_ready(health: Health) -> None:
    health.part("database").ready()
    async with probes(health, HOST, 0) as server:
        for target in ("/livez", "/readyz", "/readyz?verbose", f"http://{HOST}/readyz"):
            answer = await ask(server, target)
            assert (answer.status, answer.body) == (200, "ok\n")
            assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
            assert answer.headers["Content-Length"] == "3"
            assert answer.headers["Connection"] == "close"
            assert answer.headers["Cache-Control"] == "no-store"


async def test_what_is_not_well_is_named_with_its_reason_on_one_line(health: Health) -> None:
    database, cache, consumer = health.part("database"), health.part("Wärmespeicher"), health.part("consumer")
    async with probes(health, HOST, 0) as server:
        consumer.ready()
        cache.unready("no connection:\n  timed out \udcff")
        assert (await ask(server, "/livez"))[::2] == (200, "ok\n")
        assert (await ask(server, "/readyz"))[::2] == (
            503,
            "database: starting\nWärmespeicher: no connection: timed out \\udcff\n",
        )
        database.dead("file is corrupt")
        assert (await ask(server, "/livez"))[::2] == (503, "database: file is corrupt\n")
        cache.ready()
        assert (await ask(server, "/readyz"))[::2] == (503, "database: file is corrupt\n")


async def test_a_program_that_stops_is_live_and_not_ready(health: Health) -> None:
    health.part("database").ready()
    async with probes(health, HOST, 0) as server:
        health.stopping()
        assert (await ask(server, "/livez"))[::2] == (200, "ok\n")
        assert (await ask(server, "/readyz"))[::2] == (503, "stopping\n")


async def test_head_gives_the_headers_alone(health: Health) -> None:
    health.part("database")
    async with probes(health, HOST, 0) as server:
        for target in ("/livez", "/readyz", "/elsewhere"):
            whole, head = await ask(server, target), await ask(server, target, "HEAD")
            assert head == whole._replace(body="") and whole.body


async def test_other_pages_and_other_methods_are_refused(health: Health) -> None:
    async with probes(health, HOST, 0) as server:
        for target in ("/", "/livez/", "/metrics", "/..%2flivez", "*"):
            assert (await ask(server, target)).status == 404
        for method in ("POST", "PUT", "DELETE", "OPTIONS", "get", "BREW"):
            answer = await ask(server, "/livez", method)
            assert (answer.status, answer.headers["Allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize(
    "nonsense",
    [
        b"\r\n\r\n",
        b"GET /livez\r\n\r\n",
        b"GET /livez HTTP/2.0\r\n\r\n",
        b"GET  /livez HTTP/1.1\r\n\r\n",
        b"GET / livez HTTP/1.1\r\n\r\n",
        b"G\xffT /livez HTTP/1.1\r\n\r\n",
        b"GET http://[/livez HTTP/1.1\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nA: b\r\n continued\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nA : b\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nA: b\nC: d\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    ],
)
async def test_nonsense_is_a_bad_request(health: Health, nonsense: bytes) -> None:
    async with probes(health, HOST, 0) as server:
        assert parse(await send(server, nonsense)).status == 400
        assert (await ask(server, "/livez")).status == 200


async def test_half_a_request_is_a_bad_request_and_none_at_all_is_no_error(health: Health) -> None:
    reported: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
    async with probes(health, HOST, 0) as server:
        for request, status in ((b"GET /livez HTTP/1.1\r\n", b"HTTP/1.1 400 "), (b"", b"")):
            reader, writer = await asyncio.open_connection(HOST, server.port)
            writer.write(request)
            writer.write_eof()
            assert (await reader.read())[:13] == status
            writer.close()
    assert reported == []


async def test_a_request_that_is_too_long_is_refused(health: Health) -> None:
    async with probes(health, HOST, 0) as server:
        assert parse(await send(server, b"GET /livez HTTP/1.1\r\nA: " + b"a" * 70_000)).status == 431


async def test_whoever_is_slow_is_cut_off(health: Health, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_probes, "_PATIENCE", 0.05)
    async with probes(health, HOST, 0) as server:
        reader, writer = await asyncio.open_connection(HOST, server.port)
        writer.write(b"GET /livez HTTP/1.1\r\nA: ")
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()


async def test_so_many_may_be_slow_at_once_and_the_others_wait(health: Health, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_probes, "_CONNECTIONS", 1)
    async with probes(health, HOST, 0) as server:
        _, slow = await asyncio.open_connection(HOST, server.port)
        while not server.connections:
            await yield_now()
        reader, writer = await asyncio.open_connection(HOST, server.port)
        await asyncio.sleep(0.01)
        assert server.connections == 1
        slow.close()
        writer.write(b"GET /livez HTTP/1.1\r\n\r\n")
        assert parse(await reader.read()).status == 200
        writer.close()


async def test_whoever_does_not_read_is_cut_off(health: Health, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_probes, "_PATIENCE", 0.05)
    registry = CollectorRegistry()
    Counter("long", "x" * 20_000_000, registry=registry)
    async with probes(health, HOST, 0, registry=registry) as server:
        with socket.create_connection((HOST, server.port)) as client:
            client.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
            while not server.connections:
                await yield_now()
            while server.connections:
                await asyncio.sleep(0.01)


async def test_a_registry_is_shown_in_the_format_of_prometheus(health: Health) -> None:
    registry = CollectorRegistry()
    Counter("trains", "Trains that have left.", registry=registry).inc(3)
    async with probes(health, HOST, 0, registry=registry) as server:
        answer = await ask(server, "/metrics")
        assert answer.status == 200
        assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        families = {family.name: family for family in text_string_to_metric_families(answer.body)}
        assert families["trains"].samples[0].value == 3
        head = await ask(server, "/metrics", "HEAD")
        assert head.headers["Content-Length"] == answer.headers["Content-Length"] and not head.body
        newer = await ask(server, "/metrics", Accept="application/openmetrics-text; version=1.0.0")
        assert newer.headers["Content-Type"].startswith("application/openmetrics-text")
        assert newer.body.endswith("# EOF\n")


async def test_a_collector_that_fails_is_reported_and_nothing_else_fails(health: Health) -> None:
    class Broken:
        def collect(self) -> Iterator[GaugeMetricFamily]:
            raise ZeroDivisionError("no trains")

    reported: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
    registry = CollectorRegistry()
    registry.register(Broken())
    async with probes(health, HOST, 0, registry=registry) as server:
        assert (await ask(server, "/metrics")).status == 500
        assert (await ask(server, "/livez")).status == 200
    assert [str(context["exception"]) for context in reported] == ["no trains"]
    assert reported[0]["message"] == "/metrics cannot be answered"


async def test_it_can_be_awaited_and_ends_with_a_cancellation(health: Health) -> None:
    with move_on_after(0.01) as scope:
        await probes(health, HOST, 0)
    assert scope.cancelled_caught


@pytest.mark.skipif(not hasattr(socket, "SO_REUSEPORT"), reason="a port cannot be shared")
async def test_the_port_can_be_taken_by_a_successor_before_it_is_given_up(health: Health) -> None:
    async with probes(health, HOST, 0, reuse_port=True) as old:
        async with probes(health, HOST, old.port, reuse_port=True) as successor:
            await old.shutdown()
            assert (await ask(successor, "/livez")).status == 200


async def test_it_can_listen_on_a_unix_socket(health: Health, tmp_path: Path) -> None:
    path = tmp_path / "probes.sock"
    async with probes(health, path=path):
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b"GET /livez HTTP/1.1\r\n\r\n")
        assert parse(await reader.read()).status == 200
        writer.close()
    assert not path.exists()


async def test_nonsense_arguments_are_refused_at_the_call(health: Health) -> None:
    anything: Any = object()
    with pytest.raises(TypeError, match="health must be a Health, not "):
        probes(anything, HOST, 0)
    with pytest.raises(TypeError, match="registry must be a CollectorRegistry of prometheus_client, or None, not "):
        probes(health, HOST, 0, registry=anything)
    with pytest.raises(ValueError, match="port must be between 0 and 65535, not -1"):
        probes(health, HOST, -1)
    with pytest.raises(TypeError, match="reuse_port goes with host and port only"):
        probes(health, path="probes.sock", reuse_port=True)  # type: ignore[call-overload]
    with pytest.raises((TypeError, ValueError)):
        probes(health, HOST, 0, path="probes.sock")  # type: ignore[call-overload]


async def test_without_prometheus_client_only_the_metrics_are_missing(
    health: Health, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = CollectorRegistry()
    for module in [name for name in sys.modules if name.partition(".")[0] == "prometheus_client"]:
        monkeypatch.setitem(sys.modules, module, None)
    async with probes(health, HOST, 0) as server:
        assert (await ask(server, "/readyz")).status == 200
    with pytest.raises(ImportError, match=r"registry needs prometheus_client: install yamanote-server\[metrics\]"):
        probes(health, HOST, 0, registry=registry)
