"""A thousand requests to a server on this machine: never more at a time than the limit, as the server sees it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from yamanote import streams
from yamanote.runtime import run
from yamanote.streams import Stream

LIMIT = 50
PAGES = 1000

Fetch = Callable[[int], Awaitable[int]]


class Pages:
    """What the server has seen."""

    def __init__(self) -> None:
        self.served: list[int] = []
        self.open = 0
        self.most = 0
        self.fails_at: int | None = None
        self.full = asyncio.Event()
        """As many requests as there may be have been there together; nobody is answered before."""

    async def answer(self, request: Any) -> Any:
        from aiohttp import web

        number = int(request.match_info["number"])
        self.open += 1
        self.most = max(self.most, self.open)
        if self.open == LIMIT:
            self.full.set()
        try:
            await asyncio.wait_for(self.full.wait(), 10)
            if number == self.fails_at:
                return web.Response(status=500)
            await asyncio.sleep(0.001 * (number % 5))
            self.served.append(number)
            return web.Response(text=str(number * 2))
        finally:
            self.open -= 1


@asynccontextmanager
async def serving(pages: Pages) -> AsyncIterator[str]:
    web = pytest.importorskip("aiohttp.web")
    app = web.Application()
    app.router.add_get("/{number}", pages.answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.01)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def aiohttp_client(url: str) -> AsyncIterator[Fetch]:
    aiohttp = pytest.importorskip("aiohttp")

    async def fetch(number: int) -> int:
        async with session.get(f"{url}/{number}") as response:
            return int(await response.text())

    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0), raise_for_status=True
    ) as session:  # no limit of its own
        yield fetch


@asynccontextmanager
async def httpx_client(url: str) -> AsyncIterator[Fetch]:
    httpx = pytest.importorskip("httpx")

    async def fetch(number: int) -> int:
        return int((await client.get(f"{url}/{number}")).raise_for_status().text)

    async with httpx.AsyncClient(limits=httpx.Limits(max_connections=None), trust_env=False) as client:
        yield fetch


async def numbers(count: int) -> AsyncIterator[int]:
    for number in range(count):
        if not number % 100:
            await asyncio.sleep(0)
        yield number


pipelines: dict[str, Callable[[Fetch, int], Stream[int]]] = {
    "ordered": lambda fetch, count: streams.iter(range(count)).map(fetch, concurrency=LIMIT),
    "unordered": lambda fetch, count: streams.iter(range(count)).map(fetch, concurrency=LIMIT, ordered=False),
    "from an async generator": lambda fetch, count: streams.iter(numbers(count)).map(fetch, concurrency=LIMIT),
}


@pytest.mark.parametrize("name", pipelines)
def test_a_thousand_fetches_hold_their_limit_exactly(name: str) -> None:
    async def main() -> None:
        pages = Pages()
        async with serving(pages) as url, aiohttp_client(url) as fetch:
            got = await pipelines[name](fetch, PAGES).collect()
            assert (sorted(got) if name == "unordered" else got) == [2 * number for number in range(PAGES)]
            assert sorted(pages.served) == list(range(PAGES))
            assert pages.most == LIMIT

    run(main())


def test_the_same_with_httpx() -> None:
    async def main() -> None:
        pages = Pages()
        async with serving(pages) as url, httpx_client(url) as fetch:
            got = await pipelines["ordered"](fetch, 100).collect()
            assert got == [2 * number for number in range(100)]
            assert pages.most == LIMIT

    run(main())


def test_a_fetch_that_fails_cancels_the_others_and_no_more_are_made() -> None:
    async def main() -> None:
        aiohttp = pytest.importorskip("aiohttp")
        pages = Pages()
        pages.fails_at = 100
        async with serving(pages) as url, aiohttp_client(url) as fetch:
            running = 0

            async def counted(number: int) -> None:
                nonlocal running
                running += 1
                try:
                    await fetch(number)
                finally:
                    running -= 1

            with pytest.raises(aiohttp.ClientResponseError) as raised:
                await streams.iter(range(PAGES)).for_each(counted, concurrency=LIMIT)
            assert raised.value.status == 500
            assert not running
            assert max(pages.served) <= 100 + 2 * LIMIT

    run(main())
