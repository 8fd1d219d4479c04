"""Writes src/yamanote/__init__.py: every public name of every area under one name, loaded when it is first used.

The names are read from the source of each area and not by importing it, so this needs nothing but Python and works on
areas that do not run yet. Run it by ``nox -s namespace``; with ``--check`` it only says whether the file is up to date.
"""

import ast
import builtins
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
OUTPUT = HERE / "src" / "yamanote" / "__init__.py"

# A test kit does not belong into a program: `yamanote[testing]` installs it, and `yamanote.testing` is its only name.
APART = {"testing"}

# These stay in their area, and this is why. Any other name that two areas give to different things is an error.
AT_HOME = {
    ("runtime", "time"): "`yamanote.time` is the area",
    ("time", "time"): "`yamanote.time` is the area",
    ("futures", "pending"): "`pending` is a future and a stream; neither is the more obvious one",
    ("streams", "pending"): "`pending` is a future and a stream; neither is the more obvious one",
    ("net", "socket"): "`yamanote.socket` would be taken for the standard module",
    ("server", "server"): "`yamanote.server` is the area",
    ("server", "main"): "the `main` of a program is the runtime's",
    ("server", "Supervisor"): "the `Supervisor` of aiotools is the runtime's; this one is Erlang's",
    ("streams", "select"): "`select` waits for the first of several things: the one of futures",
}


class Origin(NamedTuple):
    """Where a name is defined: two names with one origin are one object."""

    module: str
    name: str


class Area:
    """One importable area, read from its source."""

    def __init__(self, package: Path) -> None:
        self.name = package.name
        self.public = literal_all(package / "__init__.py")

    def origin(self, name: str) -> Origin:
        return follow(Origin(f"yamanote.{self.name}", name))


def find_areas() -> dict[str, Area]:
    """Every area of the namespace, by name."""
    packages = (path.parent for path in HERE.parent.glob("*/src/yamanote/*/__init__.py"))
    areas = (package for package in packages if package.name not in APART)
    return {package.name: Area(package) for package in sorted(areas, key=lambda package: package.name)}


def source_of(module: str) -> Path | None:
    """The file of a module of ours, or None."""
    path = module.replace(".", "/")
    found = [*HERE.parent.glob(f"*/src/{path}/__init__.py"), *HERE.parent.glob(f"*/src/{path}.py")]
    return found[0] if found else None


def literal_all(source: Path) -> list[str]:
    """The names in the `__all__` of a source file, which has to be written out."""
    for node in ast.parse(source.read_text("utf-8")).body:
        match node:
            case ast.Assign([ast.Name("__all__")]) | ast.AnnAssign(ast.Name("__all__")) if node.value:
                names: list[str] = ast.literal_eval(node.value)
                return names
    raise SystemExit(f"{source} has no __all__")


def statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """What a module does when it is imported, on whichever branch."""
    for node in body:
        yield node
        match node:
            case ast.If():
                yield from statements([*node.body, *node.orelse])
            case ast.Try():
                yield from statements([*node.body, *node.orelse, *node.finalbody])


def follow(origin: Origin) -> Origin:
    """The place where a name is defined, through every `from … import …` on the way."""
    source = source_of(origin.module)
    if source is None or origin.module == "yamanote":
        return origin
    for node in statements(ast.parse(source.read_text("utf-8")).body):
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if (alias.asname or alias.name) == origin.name:
                    return follow(Origin(absolute(node, origin.module, source), alias.name))
    return origin


def absolute(node: ast.ImportFrom, module: str, source: Path) -> str:
    """The full name of the module that a `from … import …` in `module` names."""
    if node.level == 0:
        return node.module or ""
    package = module.split(".") if source.name == "__init__.py" else module.split(".")[:-1]
    base = package[: len(package) - (node.level - 1)]
    return ".".join([*base, *([node.module] if node.module else [])])


def choose(areas: dict[str, Area]) -> dict[str, str]:
    """Which area each name comes from."""
    exporters: dict[str, list[Area]] = {}
    for area in areas.values():
        for name in area.public:
            if (area.name, name) not in AT_HOME:
                exporters.setdefault(name, []).append(area)
    homes: dict[str, str] = {}
    for name, candidates in sorted(exporters.items()):
        origins = {area.name: area.origin(name) for area in candidates}
        if name in areas:
            origins[name] = Origin("yamanote", name)  # the area itself
        if len(set(origins.values())) > 1:
            things = ", ".join(f"yamanote.{area}" for area in origins)
            raise SystemExit(f"{name!r} means different things in {things}: keep all but one AT_HOME in {__file__}")
        # Where it is defined, if that area exports it: then using the name loads no other area.
        homes[name] = min(origins, key=lambda area: (not origins[area].module.startswith(f"yamanote.{area}."), area))
    return homes


def block(opening: str, lines: Iterator[str] | list[str], closing: str) -> str:
    """One item per line, as the formatter leaves it."""
    return "".join([f"{opening}\n", *(f"    {line}\n" for line in lines), f"{closing}\n"])


def render(areas: dict[str, Area]) -> str:
    """The text of the module."""
    homes = choose(areas)
    visible: list[str] = [f"from . import {area} as {area}" for area in areas]
    for area in areas:
        visible += [f"from .{area} import {name} as {name}" for name, home in homes.items() if home == area]
    exported = [name for name in homes if not hasattr(builtins, name)]
    return TEMPLATE.format(
        visible=block("if TYPE_CHECKING:", visible, "").rstrip(),
        areas=block("_AREAS = {", [f'"{area}",' for area in areas], "}").rstrip(),
        area_of=block("_AREA_OF = {", [f'"{name}": "{home}",' for name, home in homes.items()], "}").rstrip(),
        exported=block("__all__ = [", [f'"{name}",' for name in exported], "]").rstrip(),
    )


TEMPLATE = '''\
"""Tokio for Python, on asyncio: every area of Yamanote under one name.

    from yamanote import channel, run, select, spawn

A name is loaded from its area when it is first used; the areas themselves are here too (`yamanote.streams`).
Written by packages/yamanote/namespace.py: change that one, or the `__all__` of an area, and run `nox -s namespace`.
"""

from importlib import import_module as _import_module
from pkgutil import extend_path as _extend_path

# The areas are distributions of their own and may be installed in another place than this file.
__path__ = _extend_path(__path__, __name__)

TYPE_CHECKING = False  # what checkers take for true; typing itself would be the largest thing that this file loads
{visible}

{areas}

# Where each name lives.
{area_of}

# Without the areas and without the names of builtins: `import *` takes neither `time` nor `map` from anybody.
{exported}

if not TYPE_CHECKING:  # a checker that saw this would let every misspelt name pass

    def __getattr__(name: str) -> object:
        if name in _AREAS:
            return _import_module(f"yamanote.{{name}}")
        if name not in _AREA_OF:
            raise AttributeError(f"module 'yamanote' has no attribute {{name!r}}")
        value = getattr(_import_module(f"yamanote.{{_AREA_OF[name]}}"), name)
        globals()[name] = value  # from now on an ordinary attribute
        return value


def __dir__() -> list[str]:
    return sorted({{*globals(), *_AREA_OF, *_AREAS}})
'''


def main() -> None:
    text = render(find_areas())
    if sys.argv[1:] != ["--check"]:
        OUTPUT.write_text(text, "utf-8")
    elif not OUTPUT.exists() or OUTPUT.read_text("utf-8") != text:
        raise SystemExit(f"{OUTPUT.name} of the meta-package is out of date: run `nox -s namespace`")


if __name__ == "__main__":
    main()
