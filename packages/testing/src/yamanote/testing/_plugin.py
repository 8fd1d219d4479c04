"""The pytest plugin: a marker, two fixtures, and the options of the explorers.

Invariant: what a test asks for holds inside its own call, on the loop that the call runs on, whichever plugin runs it:
fixtures are set up before, and torn down after.
"""

from __future__ import annotations

import inspect
import random
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial, wraps
from typing import Any

import pytest

from yamanote.runtime import Clock
from yamanote.testing._leaks import Inventory, LeakError
from yamanote.testing._settings import Settings, settings
from yamanote.time import VirtualClock

_MARKER = "no_leaks(check=True): fail when the test leaves tasks, threads, open ends or held permits behind"


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("yamanote", "Yamanote: explorers")
    group.addoption(
        "--explore-runs",
        type=_count,
        metavar="N",
        help="how many runs each exploration makes at most, instead of what the test says",
    )
    group.addoption(
        "--explore-seed",
        type=_seed,
        metavar="S",
        help="where random choices begin: a number, or 'random' for another one each time",
    )
    group.addoption(
        "--replay",
        metavar="TOKEN",
        help="make only the run of this token, which a failed exploration has printed",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", _MARKER)
    option = config.option
    if option.explore_seed == "random":
        worker: dict[str, Any] = getattr(config, "workerinput", {})
        option.explore_seed = worker.get("explore_seed") or random.SystemRandom().randrange(1, 2**32)
    config.add_cleanup(partial(_apply, replace(settings)))
    _apply(Settings(option.explore_runs, option.explore_seed, option.replay))


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Of pytest-xdist: all workers use the seed that the header shows."""
    node.workerinput["explore_seed"] = settings.seed


def pytest_report_header() -> str | None:
    given = {"runs": settings.runs, "seed": settings.seed, "replay": settings.replay}
    shown = ", ".join(f"{name} {value}" for name, value in given.items() if value is not None)
    return f"explore: {shown}" if shown else None


@pytest.fixture
def no_leaks() -> None:
    """Fail the test when it leaves tasks, threads, open ends or held permits behind; the same as the marker.

    It is a fixture as well so that ``usefixtures = ["no_leaks"]`` in the settings of pytest turns it on everywhere.
    """


@pytest.fixture
def virtual_clock() -> VirtualClock:
    """The clock that an async test runs on: time passes as soon as there is nothing else to do.

    A fixture of that name in a conftest.py may return another `yamanote.runtime.Clock`.
    """
    return VirtualClock()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    if not isinstance(item, pytest.Function):
        return (yield)
    checked = _is_checked(item)
    clock = item.funcargs.get("virtual_clock")
    if not checked and clock is None:
        return (yield)

    # Hypothesis calls the function once per example, and pytest-asyncio and anyio look for it in the same place.
    place, name = (item.obj.hypothesis, "inner_test") if hasattr(item.obj, "hypothesis") else (item, "obj")
    function = getattr(place, name)
    if not inspect.iscoroutinefunction(function):
        with _checking(checked):
            return (yield)

    @wraps(function)
    async def inside(*args: Any, **kwargs: Any) -> Any:
        with ExitStack() as stack:
            if isinstance(clock, Clock):  # or somebody has a fixture of that name, which is none of ours
                stack.enter_context(clock.patch_loop())
            stack.enter_context(_checking(checked))
            return await function(*args, **kwargs)

    setattr(place, name, inside)
    try:
        return (yield)
    finally:
        setattr(place, name, function)


def _is_checked(item: pytest.Function) -> bool:
    marker = item.get_closest_marker("no_leaks")
    if marker is None:
        return "no_leaks" in item.fixturenames
    return _check(*marker.args, **marker.kwargs)


def _check(check: bool = True) -> bool:
    return check


@contextmanager
def _checking(checked: bool) -> Iterator[None]:
    if not checked:
        yield
        return
    before = Inventory()
    yield
    if leaks := before.new_leaks():
        pytest.fail(str(LeakError(*leaks)), pytrace=False)


def _apply(chosen: Settings) -> None:
    settings.runs, settings.seed, settings.replay = chosen.runs, chosen.seed, chosen.replay


def _count(text: str) -> int:
    count = int(text)
    if count < 1:
        raise ValueError(text)
    return count


def _seed(text: str) -> int | str:
    return text if text == "random" else int(text)
