"""What the pytest plugin promises, in runs of pytest of their own, beside the other plugins of this field."""

import importlib.util
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from textwrap import dedent

import pytest

# From the sources, without an installation, nobody finds the plugin by itself.
LOAD = [] if entry_points(group="pytest11", name="yamanote") else ["-p", "yamanote.testing._plugin"]
SETTINGS = """
[pytest]
addopts = -q --strict-markers --strict-config -p no:cacheprovider
filterwarnings = error
asyncio_default_fixture_loop_scope = function
"""

RunTests = Callable[..., "Run"]


class Run:
    """One run of pytest."""

    def __init__(self, folder: Path, *options: str, timeout: float = 60) -> None:
        command = [sys.executable, "-m", "pytest", *LOAD, *options]
        finished = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=timeout)
        self.output = finished.stdout + finished.stderr

    def outcomes(self) -> dict[str, str]:
        """How each test ended, by its name."""
        lines = [line.split() for line in self.output.splitlines() if ".py::" in line and " " in line]
        words = {"PASSED", "FAILED", "ERROR", "SKIPPED", "XFAIL"}
        return {name.split("::")[-1]: word for name, word, *_ in lines if word in words}


@pytest.fixture
def run_tests(tmp_path: Path) -> RunTests:
    """Runs pytest over a module with this source."""

    def run(source: str, *options: str, settings: str = "asyncio_mode = auto") -> Run:
        (tmp_path / "pytest.ini").write_text(f"{SETTINGS}{settings}\n", "utf-8")
        (tmp_path / "test_it.py").write_text(dedent(source), "utf-8")
        # Its plugin imports all of Hypothesis, which takes longer than all the rest of such a run.
        without = () if "hypothesis" in source else ("-p", "no:hypothesispytest")
        return Run(tmp_path, "-vv", *without, *options)

    return run


def needs(*modules: str) -> pytest.MarkDecorator:
    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")


LEAKY = """
    import asyncio, threading
    import pytest

    kept, stop = [], threading.Event()

    def start():
        kept.append(asyncio.create_task(asyncio.sleep(3600), name="forgotten"))
"""


def test_a_marked_test_that_leaves_something_behind_fails_and_says_what(run_tests: RunTests) -> None:
    run = run_tests(f"""{LEAKY}
    pytestmark = pytest.mark.no_leaks

    async def test_clean():
        await asyncio.sleep(0)
        assert 3 == await asyncio.to_thread(sum, [1, 2])

    async def test_leaky():
        start()

    async def test_leaky_and_exempt():
        start()

    test_leaky_and_exempt = pytest.mark.no_leaks(False)(test_leaky_and_exempt)

    class TestMethods:
        async def test_leaky_method(self):
            start()

        def test_clean_method(self):
            pass

    @pytest.mark.parametrize("number", [1, 2])
    async def test_parametrized(number):
        if number == 2:
            start()

    async def test_fails_by_itself():
        start()
        raise OSError("the real thing")

    async def test_skips():
        start()
        pytest.skip("no")

    def test_thread():
        kept.append(threading.Thread(target=stop.wait, name="lingering"))
        kept[-1].start()

    def test_joins_it():
        stop.set()
        kept[-1].join()
    """)

    assert {
        "test_clean": "PASSED",
        "test_leaky": "FAILED",
        "test_leaky_and_exempt": "PASSED",
        "test_leaky_method": "FAILED",
        "test_clean_method": "PASSED",
        "test_parametrized[1]": "PASSED",
        "test_parametrized[2]": "FAILED",
        "test_fails_by_itself": "FAILED",
        "test_skips": "SKIPPED",
        "test_thread": "FAILED",
        "test_joins_it": "PASSED",
    } == run.outcomes(), run.output
    assert 3 == run.output.count("\nleft behind:\n- 'forgotten' has not started"), run.output
    assert "- thread 'lingering' goes on" in run.output
    assert "the real thing" in run.output
    assert "_plugin.py" not in run.output  # no frames of the plugin: what is left behind is the whole report


def test_the_fixture_turns_it_on_for_a_whole_suite(run_tests: RunTests) -> None:
    source = f"""{LEAKY}
    async def test_leaky():
        start()

    @pytest.mark.no_leaks(check=False)
    async def test_exempt():
        start()
    """
    settings = "asyncio_mode = auto\nusefixtures = no_leaks"

    assert {"test_leaky": "FAILED", "test_exempt": "PASSED"} == run_tests(source, settings=settings).outcomes()


def test_the_strict_mode_and_wider_loops_of_pytest_asyncio_are_served_alike(run_tests: RunTests) -> None:
    run = run_tests(
        f"""{LEAKY}
    import pytest_asyncio

    pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.no_leaks]

    @pytest_asyncio.fixture(loop_scope="module", scope="module")
    async def background():
        event = asyncio.Event()

        async def work():
            while True:
                await event.wait()
                event.clear()

        task = asyncio.create_task(work(), name="background")
        yield event
        task.cancel()

    async def test_with_a_background_task(background):
        await asyncio.sleep(0)
        background.set()
        await asyncio.sleep(0)

    async def test_leaky(background):
        start()

    async def test_after_the_leaky_one(background):
        pass

    async def test_in_virtual_time(background, virtual_clock):
        before = asyncio.get_running_loop().time()
        await asyncio.sleep(1000)
        assert 1000 <= asyncio.get_running_loop().time() - before < 1001

    async def test_not_in_virtual_time(background):
        before = asyncio.get_running_loop().time()
        await asyncio.sleep(0.001)
        assert asyncio.get_running_loop().time() - before < 900
    """,
        settings="asyncio_mode = strict",
    )

    assert {
        "test_with_a_background_task": "PASSED",
        "test_leaky": "FAILED",
        "test_after_the_leaky_one": "PASSED",
        "test_in_virtual_time": "PASSED",
        "test_not_in_virtual_time": "PASSED",
    } == run.outcomes(), run.output


def test_the_virtual_clock_moves_the_loop_of_a_test_and_its_deadlock_is_the_failure(run_tests: RunTests) -> None:
    run = run_tests("""
    import asyncio
    import pytest
    from yamanote.runtime import run
    from yamanote.time import instant, sleep

    async def test_a_year(virtual_clock):
        start = instant()
        await sleep(365 * 86400)
        assert start.elapsed() >= 365 * 86400

    @pytest.mark.usefixtures("virtual_clock")
    async def test_by_a_mark():
        await asyncio.sleep(86400)

    async def test_times_out(virtual_clock):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(3600):
                await asyncio.Event().wait()

    @pytest.mark.no_leaks
    async def test_leaves_nothing(virtual_clock):
        await asyncio.sleep(3600)

    async def test_dead_lock(virtual_clock):
        await asyncio.Event().wait()

    async def test_after_it():
        await asyncio.sleep(0)

    def test_plain_function(virtual_clock):
        run(asyncio.sleep(3600), loop_factory=virtual_clock.loop_factory)
    """)

    assert {
        "test_a_year": "PASSED",
        "test_by_a_mark": "PASSED",
        "test_times_out": "PASSED",
        "test_leaves_nothing": "PASSED",
        "test_dead_lock": "FAILED",
        "test_after_it": "PASSED",
        "test_plain_function": "PASSED",
    } == run.outcomes(), run.output
    assert "DeadlockError" in run.output


def test_a_test_runs_on_whatever_clock_its_fixture_returns(run_tests: RunTests) -> None:
    run = run_tests("""
    import asyncio
    import pytest
    from yamanote.runtime import Clock

    class Leaping(Clock):
        def start(self, moment):
            self.now = moment

        def time(self):
            return self.now

        def wait(self, select, seconds):
            self.now += seconds or 0
            return select(0)

    @pytest.fixture
    def virtual_clock():
        return Leaping()

    async def test_an_hour(virtual_clock):
        assert virtual_clock.loop is asyncio.get_running_loop()
        await asyncio.sleep(3600)
        assert virtual_clock.now == 3600
    """)

    assert {"test_an_hour": "PASSED"} == run.outcomes(), run.output


@needs("hypothesis")
def test_each_example_of_hypothesis_is_checked(run_tests: RunTests) -> None:
    run = run_tests(f"""{LEAKY}
    from hypothesis import Phase, given, settings, strategies

    pytestmark = pytest.mark.no_leaks
    few = settings(max_examples=3, deadline=None, database=None, phases=[Phase.generate])

    @few
    @given(strategies.integers())
    async def test_clean(number):
        await asyncio.sleep(0)

    @few
    @given(strategies.integers())
    async def test_leaky(number):
        start()
    """)

    assert {"test_clean": "PASSED", "test_leaky": "FAILED"} == run.outcomes(), run.output
    assert "'forgotten' has not started" in run.output


@needs("anyio")
def test_the_tests_of_anyio_are_checked_before_their_loop_ends(run_tests: RunTests) -> None:
    run = run_tests(
        f"""{LEAKY}
    pytestmark = [pytest.mark.anyio, pytest.mark.no_leaks]

    @pytest.fixture
    def anyio_backend():
        return "asyncio"

    async def test_clean():
        await asyncio.sleep(0)

    async def test_leaky():
        start()

    async def test_in_virtual_time(virtual_clock):
        await asyncio.sleep(3600)
    """,
        settings="",
    )

    assert {"test_clean": "PASSED", "test_leaky": "FAILED", "test_in_virtual_time": "PASSED"} == run.outcomes(), (
        run.output
    )


SHOW = """
    from yamanote.testing._settings import settings

    def test_settings():
        print(f"settings: {settings}")
"""


def test_the_options_reach_the_explorers_and_the_header_shows_them(run_tests: RunTests) -> None:
    run = run_tests(SHOW, "-s", "--verbosity=0", "--explore-runs=7", "--explore-seed=3", "--replay=abc")

    assert "explore: runs 7, seed 3, replay abc" in run.output
    assert "settings: Settings(runs=7, seed=3, replay='abc')" in run.output


def test_without_options_nothing_is_set_and_nothing_is_shown(run_tests: RunTests) -> None:
    run = run_tests(SHOW, "-s")

    assert "settings: Settings(runs=None, seed=None, replay=None)" in run.output
    assert "explore:" not in run.output


def test_a_random_seed_is_shown_so_that_it_can_be_used_again(run_tests: RunTests) -> None:
    output = run_tests(SHOW, "-s", "--verbosity=0", "--explore-seed=random").output
    seed = output.partition("explore: seed ")[2].split()[0]

    assert f"settings: Settings(runs=None, seed={seed}, replay=None)" in output


@needs("xdist")
def test_workers_of_xdist_use_the_one_random_seed(run_tests: RunTests) -> None:
    source = """
    import pytest
    from yamanote.testing._settings import settings

    @pytest.mark.parametrize("number", range(4))
    def test_settings(number):
        pytest.fail(f"seed is {settings.seed}")
    """
    output = run_tests(source, "--verbosity=0", "--explore-seed=random", "-n2").output
    seed = output.partition("explore: seed ")[2].split()[0]

    assert seed.isdecimal(), output
    assert 4 == output.count(f"\nE       Failed: seed is {seed}\n"), output


@pytest.mark.parametrize("option", ["--explore-runs=0", "--explore-runs=many", "--explore-seed=lucky"])
def test_an_option_that_is_nonsense_is_refused(run_tests: RunTests, option: str) -> None:
    assert f"argument {option.split('=')[0]}: invalid" in run_tests(SHOW, option).output


def test_the_marker_and_the_fixtures_are_documented(run_tests: RunTests) -> None:
    assert "@pytest.mark.no_leaks(check=True): fail when" in run_tests(SHOW, "--markers").output
    fixtures = run_tests(SHOW, "--fixtures").output
    assert "no_leaks -- " in fixtures
    assert "Fail the test when it leaves" in fixtures
    assert "The clock that an async test runs on" in fixtures


def test_the_kit_itself_needs_no_pytest() -> None:
    program = "import sys; sys.modules['pytest'] = None; import yamanote.testing"
    subprocess.run([sys.executable, "-c", program], check=True)
