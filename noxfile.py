"""Everything there is to run here: ``nox`` for what a pull request must pass, ``nox --list`` for the sessions.

The sessions use the wheels that users get, never the sources, so a file that is missing from a distribution or an
import that it does not declare fails here and not after the release.
"""

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import nox

ROOT = Path(__file__).parent
META = "yamanote"
PACKAGES = sorted(project.parent.name for project in ROOT.glob("packages/*/pyproject.toml"))
AREAS = [package for package in PACKAGES if package != META]
KIT = "yamanote-testing"
BENCHMARKS = ["channels", "loop", "streams", "sync", "tasks", "threads", "timers", "workers"]
GROUPS: dict[str, list[str]] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["dependency-groups"]

# Every module of an installed distribution, except for those that are there for another program, such as pytest.
IMPORT_ALL = """
import importlib, importlib.metadata, sys
distribution = importlib.metadata.distribution(sys.argv[1])
modules = {".".join(file.with_suffix("").parts) for file in distribution.files if file.suffix == ".py"}
for module in sorted(modules - {entry.module for entry in distribution.entry_points}):
    importlib.import_module(module.removesuffix(".__init__"))
"""


def uv_can_install() -> bool:
    """Whether uv is here and reaches an index.

    uv does not read pip's configuration, so behind a mirror or a proxy pip may work where uv does not. Nothing but
    asking it tells.
    """
    if not nox.virtualenv.HAS_UV:
        return False
    ask = [nox.virtualenv.UV, "pip", "compile", "--no-deps", "--python", sys.executable, "-"]
    patience = {"UV_HTTP_RETRIES": "0", "UV_HTTP_TIMEOUT": "10"}
    answer = subprocess.run(ask, input=GROUPS["build"][0], env=patience | os.environ, capture_output=True, text=True)
    return answer.returncode == 0


nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "uv" if uv_can_install() else "virtualenv"
nox.options.error_on_external_run = True
nox.options.error_on_missing_interpreters = True
# A kept environment would keep the old wheels as well: the version does not change between two edits.
nox.options.reuse_venv = "never"


def distribution(package: str) -> str:
    """The name on PyPI of the package in this folder."""
    return package if package == META else f"yamanote-{package}"


def wheelhouse(session: nox.Session) -> Path:
    """Where the wheels of this checkout are; another ``--envdir`` has its own, so two runs do not meet."""
    return Path(session.cache_dir).resolve() / "wheels"


def install(session: nox.Session, *requirements: str) -> None:
    """Install requirements, taking every distribution of ours from this checkout."""
    # Not --find-links: given a folder and PyPI, an installer takes the higher version, and a checkout that is older
    # than the last release would test the release.
    session.install("-c", str(wheelhouse(session) / "constraints.txt"), *requirements)


def failing(session: nox.Session, *commands: list[str]) -> list[str]:
    """Run every command, also after one that failed: one run shows all that is wrong. Returns those that failed."""
    failed = []
    for command in commands:
        try:
            session.run(*command)
        except nox.command.CommandFailed:
            failed.append(" ".join(command[:2]))
    return failed


def fail_if(session: nox.Session, failed: list[str]) -> None:
    """End the session here if anything failed."""
    if failed:
        session.error(f"failed: {', '.join(failed)}")


@nox.session
def wheels(session: nox.Session) -> None:
    """Build every distribution."""
    session.install(*GROUPS["build"])
    house = wheelhouse(session)
    shutil.rmtree(house, ignore_errors=True)
    for package in PACKAGES:
        with session.chdir(ROOT / "packages" / package):
            session.run("python", "-m", "hatchling", "build", "-t", "wheel", "-d", str(house), silent=True)
    built = sorted(house.glob("*.whl"))
    lines = [f"{wheel.name.split('-')[0].replace('_', '-')} @ {wheel.as_uri()}\n" for wheel in built]
    (house / "constraints.txt").write_text("".join(lines), "utf-8")


@nox.session(requires=["wheels"])
def demo(session: nox.Session) -> None:
    """Show the library at work."""
    install(session, META, *GROUPS["example"])
    session.run("python", "examples/census.py", *session.posargs)


@nox.session(requires=["wheels"])
def tests(session: nox.Session) -> None:
    """The whole suite, documents included; ``-P 3.13`` for another Python, ``-- -k close`` for a part of it."""
    install(session, META, KIT, *GROUPS["test"])
    # A file stays in one process. One that hangs is not begun again in another. Options that are given here win.
    parallel = ["--numprocesses=auto", "--maxprocesses=4", "--dist=loadfile", "--max-worker-restart=0"]
    session.run("pytest", *parallel, *session.posargs)


@nox.session(requires=["wheels"])
@nox.parametrize("package", PACKAGES, ids=PACKAGES)
def alone(session: nox.Session, package: str) -> None:
    """One distribution with nothing but what it declares; then its tests, which may use the test kit."""
    install(session, distribution(package))
    session.run("python", "-c", IMPORT_ALL, distribution(package))
    install(session, KIT, *GROUPS["test"])
    session.run("pytest", f"packages/{package}", *session.posargs)


@nox.session(requires=["wheels"])
def types(session: nox.Session) -> None:
    """mypy and Pyright over the sources, then over the wheels as a user has them."""
    # The wheels come second: Pyright takes an installed meta-package for the home of all areas, and then a class in the
    # sources and the same class in a wheel are two.
    session.install(*GROUPS["types"])
    failed = failing(session, ["mypy", *(f"packages/{area}/src" for area in AREAS)], ["pyright"])
    install(session, META, KIT)
    # An empty --config-file: what a user's checker sees, without the paths to the sources.
    failed += failing(
        session,
        ["mypy", "--config-file=", "--strict", "tests/typing"],
        ["pyright", "-p", "tests/typing"],
        ["pyright", "-p", "tests/typing", "--ignoreexternal", "--verifytypes", META],
        ["pyright", "-p", "tests/typing", "--ignoreexternal", "--verifytypes", "yamanote.testing"],
    )
    fail_if(session, failed)


@nox.session
def lint(session: nox.Session) -> None:
    """Ruff: rules and format."""
    session.install(*GROUPS["lint"])
    fail_if(session, failing(session, ["ruff", "check"], ["ruff", "format", "--check", "--diff"]))


@nox.session(requires=["wheels"])
def docs(session: nox.Session) -> None:
    """Build the documentation into site/; ``-- serve`` to read it while writing."""
    install(session, META, KIT, *GROUPS["docs"])
    session.run("mkdocs", *(session.posargs or ["build", "--strict"]), env={"NO_MKDOCS_2_WARNING": "1"})


@nox.session(default=False)
def dist_check(session: nox.Session) -> None:
    """What a release uploads, in dist/: every sdist, and every wheel built from its sdist."""
    session.install(f"build[{session.venv_backend}]", "twine>=7")
    installer = "uv" if session.venv_backend == "uv" else "pip"
    shutil.rmtree(ROOT / "dist", ignore_errors=True)
    for package in PACKAGES:
        command = ["python", "-m", "build", "--installer", installer, "--outdir", "dist", f"packages/{package}"]
        session.run(*command, silent=True)
    session.run("twine", "check", "--strict", *sorted(map(str, Path("dist").iterdir())))


@nox.session(requires=["wheels"], default=False)
def coverage(session: nox.Session) -> None:
    """Which lines and branches no test takes."""
    install(session, META, KIT, "coverage", *GROUPS["test"])
    session.run("coverage", "run", "-m", "pytest", *session.posargs)
    session.run("coverage", "combine")
    session.run("coverage", "report")


@nox.session(requires=["wheels"], default=False)
def explore(session: nox.Session) -> None:
    """Look for races far longer than `tests` does, from another seed each time; pytest prints it."""
    install(session, META, KIT, *GROUPS["test"])
    # Options that are given here come later, and win.
    deep = ["--verbose", "--explore-runs=5000", "--explore-seed=random", "--override-ini=faulthandler_timeout=0"]
    session.run("pytest", *deep, "-k", "explored", *session.posargs)


@nox.session(requires=["wheels"], default=False)
def asyncio_suite(session: nox.Session) -> None:
    """asyncio's own tests on our event loop: all of them, where `tests` takes the quick ones."""
    install(session, distribution("core-runtime"), KIT, *GROUPS["test"])
    suite = ["packages/core-runtime/tests/test_loop_asyncio_suite.py", "--override-ini=faulthandler_timeout=0"]
    session.run("pytest", *suite, *session.posargs, env={"YAMANOTE_ASYNCIO_SUITE": "all"})


@nox.session(requires=["wheels"], default=False)
def bench(session: nox.Session) -> None:
    """Everybody against asyncio, into build/bench; ``-P 3.14 -- channels --only spsc`` for a part of it."""
    install(session, META, *GROUPS["example"])
    for peer in GROUPS["bench"]:
        try:
            session.install(peer)
        except nox.command.CommandFailed:
            session.warn(f"{peer} does not install here: it is missing in the tables")
    results = ROOT / "build" / "bench"
    results.mkdir(parents=True, exist_ok=True)
    areas = [argument for argument in session.posargs if argument in BENCHMARKS]
    options = [argument for argument in session.posargs if argument not in BENCHMARKS]
    failed = []
    for area in areas or BENCHMARKS:
        files = ["--json", str(results / f"{area}.json"), "--svg", str(results / f"{area}.svg")]
        try:
            # 3: a peer failed, which is in the table.
            session.run("python", f"benchmarks/{area}.py", *files, *options, success_codes=[0, 3])
        except nox.command.CommandFailed:
            failed.append(area)
    fail_if(session, failed)


@nox.session(requires=["wheels"], default=False)
def guard(session: nox.Session) -> None:
    """Fail if ours has become slower; needs ``-P 3.12`` or newer. ``-- --update`` if that is what it should cost."""
    install(session, META)
    session.run("python", "benchmarks/guard.py", *session.posargs)


@nox.session(default=False, venv_backend="none")
def namespace(session: nox.Session) -> None:
    """Write the meta-package's __init__.py anew, after a public name came or went."""
    session.run(sys.executable, "packages/yamanote/namespace.py", external=True)


@nox.session(default=False, venv_backend="none")
def dev(session: nox.Session) -> None:
    """Make .venv fit for an editor: every area editable, never the meta-package, which hides them from Pyright."""
    python = ROOT / ".venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not python.exists():
        session.run(sys.executable, "-m", "venv", ".venv", external=True)
    editable = [argument for area in AREAS for argument in ("--editable", f"packages/{area}")]
    groups = [*GROUPS["test"], *GROUPS["types"], *GROUPS["lint"]]
    if nox.options.default_venv_backend == "uv":
        installer = [nox.virtualenv.UV, "pip", "install", "--python", str(python)]
    else:
        installer = [str(python), "-m", "pip", "install"]
    session.run(*installer, "--quiet", *editable, *groups, external=True)
