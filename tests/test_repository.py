"""The shape of the repository: what each package holds, declares and exports."""

import ast
import inspect
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import import_module
from itertools import chain
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
META = "yamanote"

# A package imports only from packages on a lower floor.
FLOORS = {
    "core-runtime": 0,
    "sync": 1,
    "time": 1,
    "channels": 2,
    "futures": 2,
    "testing": 2,
    "streams": 3,
    "threads": 3,
    "server": 4,
    META: 5,
}
# `into_stream()` and `into_sink()` import what is above them when they are called; that is the only door upwards. The
# server, which stands higher, has the same door, so that it needs no streams by itself.
DOORS_UPWARDS = {("channels", "streams"), ("server", "streams"), ("testing", "streams")}
# A test kit does not belong into a program, so the meta-package has it as an extra.
EXTRAS = {"testing"}

PACKAGES = sorted(project.parent.name for project in ROOT.glob("packages/*/pyproject.toml"))
PACKAGE_OF = {
    module.parent.name: module.parents[3].name for module in sorted(ROOT.glob("packages/*/src/yamanote/*/__init__.py"))
}
AREAS = sorted(PACKAGE_OF)

each_package = pytest.mark.parametrize("package", PACKAGES)
each_area = pytest.mark.parametrize("area", AREAS)


def project_of(package: str) -> dict[str, Any]:
    return tomllib.loads((ROOT / "packages" / package / "pyproject.toml").read_text("utf-8"))


def siblings_in(requirements: list[str]) -> set[str]:
    """The folders of the packages of ours that are in a list of requirements."""
    names = [re.split(r"[^\w-]", requirement)[0] for requirement in requirements]
    return {name.removeprefix("yamanote-") for name in names if name.startswith("yamanote-")}


def declared_siblings(package: str) -> set[str]:
    """The folders of the packages that a package says it needs."""
    return siblings_in(project_of(package)["project"]["dependencies"])


def imports(node: ast.AST, *, later: bool = False) -> Iterator[tuple[str, bool]]:
    """The areas that a module imports, and whether it does so later: inside a function, or for checkers alone."""
    for child in ast.iter_child_nodes(node):
        match child:
            case ast.Import(names=names):
                modules = [alias.name for alias in names]
            case ast.ImportFrom(module="yamanote", level=0, names=names):
                modules = [f"yamanote.{alias.name}" for alias in names]
            case ast.ImportFrom(module=str(module), level=0):
                modules = [module]
            case _:
                modules = []
        for module in modules:
            if module.startswith("yamanote."):
                yield module.split(".")[1], later
        match child:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.If(test=ast.Name(id="TYPE_CHECKING")):
                yield from imports(child, later=True)
            case _:
                yield from imports(child, later=later)


def imported_siblings(package: str) -> set[str]:
    """The folders of the packages that a package's sources import, doors upwards left out."""
    siblings = set()
    for source in sorted((ROOT / "packages" / package / "src").rglob("*.py")):
        for area, later in imports(ast.parse(source.read_text("utf-8"))):
            sibling = PACKAGE_OF[area]
            if sibling != package and not (later and (package, sibling) in DOORS_UPWARDS):
                siblings.add(sibling)
    return siblings


@each_package
def test_a_package_has_a_readme_a_licence_and_types(package: str) -> None:
    folder = ROOT / "packages" / package
    modules = sorted(path.parent for path in (folder / "src").rglob("__init__.py"))

    assert (ROOT / "LICENSE").read_bytes() == (folder / "LICENSE").read_bytes()  # a copy: sdists cannot hold links
    assert project_of(package)["project"]["name"] in (folder / "README.md").read_text("utf-8")
    assert modules
    assert all((module / "py.typed").exists() for module in modules if module.parent.name in ("src", "yamanote"))


def test_only_the_meta_package_owns_the_namespace() -> None:
    owners = [path.parents[2].name for path in ROOT.glob("packages/*/src/yamanote/__init__.py")]

    assert [META] == owners


@each_package
def test_every_floor_of_a_sibling_is_the_version_that_a_checkout_without_tags_builds(package: str) -> None:
    floors = {project_of(other)["tool"]["hatch"]["version"]["fallback-version"] for other in PACKAGES}
    assert 1 == len(floors)
    (floor,) = floors
    major, minor = map(int, floor.split(".")[:2])
    pin = f">={floor},<{major}.{minor + 1}"
    project = project_of(package)["project"]
    lists = [project["dependencies"], *project.get("optional-dependencies", {}).values()]
    requirements = [r for r in chain.from_iterable(lists) if r.startswith("yamanote")]

    assert [f"{requirement.split('>=')[0]}{pin}" for requirement in requirements] == requirements


@pytest.mark.parametrize("package", sorted(set(PACKAGES) - {META}))
def test_a_package_declares_the_siblings_that_it_imports(package: str) -> None:
    assert imported_siblings(package) == declared_siblings(package)


def test_the_meta_package_needs_every_other_package_that_a_program_needs() -> None:
    assert set(PACKAGES) - {META} - EXTRAS == declared_siblings(META)


def test_what_the_meta_package_does_not_need_is_an_extra_of_it() -> None:
    extras = project_of(META)["project"]["optional-dependencies"]

    assert {extra: {extra} for extra in EXTRAS} == {
        extra: siblings_in(requirements) for extra, requirements in extras.items()
    }


@each_package
def test_a_package_imports_only_from_floors_below_its_own(package: str) -> None:
    assert [] == sorted(s for s in imported_siblings(package) if FLOORS[s] >= FLOORS[package])


def test_an_import_is_found_wherever_it_stands() -> None:
    source = """
import yamanote.sync
if TYPE_CHECKING:
    from yamanote import time
def into_stream():
    from yamanote.streams import Stream
"""

    assert [("sync", False), ("time", True), ("streams", True)] == list(imports(ast.parse(source)))


def test_the_namespace_of_the_meta_package_is_up_to_date() -> None:
    command = [sys.executable, ROOT / "packages/yamanote/namespace.py", "--check"]
    result = subprocess.run(command, capture_output=True, text=True)

    assert 0 == result.returncode, result.stderr


@each_area
def test_the_public_names_of_an_area_are_sorted_and_exist(area: str) -> None:
    module = import_module(f"yamanote.{area}")

    assert sorted(set(module.__all__)) == list(module.__all__)
    assert [] == [name for name in module.__all__ if not hasattr(module, name)]


@each_area
def test_what_an_area_shows_is_what_it_exports(area: str) -> None:
    module = import_module(f"yamanote.{area}")
    shown = {name for name, value in vars(module).items() if not name.startswith("_") and is_ours(value)}

    assert [] == sorted(shown - set(module.__all__))


def is_ours(value: object) -> bool:
    return not isinstance(value, ModuleType) and str(getattr(value, "__module__", "")).startswith("yamanote.")


@each_area
def test_every_public_name_has_a_docstring(area: str) -> None:
    module = import_module(f"yamanote.{area}")
    public = {name: getattr(module, name) for name in module.__all__}

    assert inspect.getdoc(module)
    assert [] == [name for name, value in public.items() if not is_documented(value)]


def is_documented(value: object) -> bool:
    if isinstance(value, type):
        written = vars(value).get("__doc__")
        return bool(written) and not written.startswith(f"{value.__name__}(")  # a dataclass writes its signature there
    return bool(inspect.getdoc(value))


@each_area
def test_an_area_has_its_pages_in_the_documentation(area: str) -> None:
    assert (ROOT / "docs" / "guide" / f"{area}.md").exists()
    assert (ROOT / "docs" / "api" / f"{area}.md").exists()
    assert f"api/{area}.md" in (ROOT / "mkdocs.yml").read_text("utf-8")


@each_area
def test_the_tools_know_where_an_area_is(area: str) -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]
    source = f"packages/{PACKAGE_OF[area]}/src"

    assert f"$MYPY_CONFIG_FILE_DIR/{source}" in settings["mypy"]["mypy_path"]
    assert source in settings["pyright"]["extraPaths"]
    assert f"{source}/yamanote/{area}" in settings["coverage"]["paths"][area]
