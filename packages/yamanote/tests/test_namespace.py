"""The meta-package: every public name of every area, the same objects, loaded on first use."""

import builtins
import subprocess
import sys
from importlib import import_module

import pytest

import yamanote

if getattr(yamanote, "__file__", None) is None:
    pytest.skip("the meta-package is not installed: an editor's environment leaves it out", allow_module_level=True)

# They stay with their areas, as `namespace.py` says, also while only one area has them.
AT_HOME = {"pending", "socket"}

AREAS = sorted(yamanote._AREAS)
NAMES = sorted(yamanote._AREA_OF)


def run_isolated(program: str) -> str:
    """What a program prints in a fresh interpreter."""
    result = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, text=True, check=True)
    return result.stdout.strip()


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_the_object_of_its_area(name: str) -> None:
    home = import_module(f"yamanote.{yamanote._AREA_OF[name]}")

    assert getattr(home, name) is getattr(yamanote, name)


@pytest.mark.parametrize("area", AREAS)
def test_every_name_of_an_area_is_here_unless_it_has_another_meaning(area: str) -> None:
    names = import_module(f"yamanote.{area}").__all__
    taken = {*AREAS, *(name for other in AREAS if other != area for name in import_module(f"yamanote.{other}").__all__)}

    assert set(names) <= {*NAMES, *taken, *AT_HOME}


@pytest.mark.parametrize("area", AREAS)
def test_an_area_is_reachable_as_an_attribute(area: str) -> None:
    assert import_module(f"yamanote.{area}") is getattr(yamanote, area)


def test_a_star_import_hides_neither_a_builtin_nor_the_standard_time() -> None:
    assert not [name for name in yamanote.__all__ if hasattr(builtins, name) or name in AREAS]
    assert set(NAMES) == set(yamanote.__all__) | {name for name in NAMES if hasattr(builtins, name)}


def test_importing_it_loads_no_area() -> None:
    assert "['yamanote']" == run_isolated("import sys, yamanote; print([m for m in sys.modules if 'yamanote' in m])")


def test_a_name_loads_only_what_its_area_needs() -> None:
    program = "import sys, yamanote; yamanote.run; print('yamanote.streams' in sys.modules)"

    assert "False" == run_isolated(program)


def test_a_name_that_does_not_exist_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'yamanote' has no attribute 'chanel'"):
        yamanote.chanel  # noqa: B018 - looking is the test

    with pytest.raises(ImportError, match="chanel"):
        from yamanote import chanel  # noqa: F401 - looking is the test


def test_dir_offers_every_name_and_area() -> None:
    assert {*NAMES, *AREAS} <= set(dir(yamanote))
