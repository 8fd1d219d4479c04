"""Collects the examples in the documents and in the docstrings as tests."""

import asyncio
import gc
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from doctest import ELLIPSIS
from importlib import import_module
from pathlib import Path

import pytest
from sybil import Example, Sybil
from sybil.document import PythonDocStringDocument
from sybil.example import NotEvaluated
from sybil.parsers.markdown import PythonCodeBlockParser, SkipParser
from sybil.parsers.rest import DocTestParser


class Docstrings(PythonDocStringDocument):
    """The docstrings of a source file; its examples have `asyncio`, `run` and the public names of its area in place."""

    def import_document(self, example: Example) -> None:
        # Sybil imports by the outermost folder with an __init__.py, and takes `yamanote.time` for the standard `time`.
        path = Path(self.path).parts
        area = path[path.index("src") + 2]
        self.namespace |= {"asyncio": asyncio, "run": import_module("yamanote.runtime").run}
        exec(f"from yamanote.{area} import *", self.namespace)
        self.pop_evaluator(self.import_document)
        raise NotEvaluated


def leave_nothing(namespace: dict[str, object]) -> None:
    """An end that an example did not close is to be reported here, not in whichever test comes next."""
    namespace.clear()
    gc.collect()


documents = Sybil(
    parsers=[PythonCodeBlockParser(doctest_optionflags=ELLIPSIS), SkipParser()],
    patterns=["*.md"],
    excludes=["CHANGELOG.md", "CONTRIBUTING.md"],
    teardown=leave_nothing,
)
docstrings = Sybil(
    parsers=[DocTestParser(optionflags=ELLIPSIS)],
    patterns=["src/yamanote/*/*.py", "src/yamanote/*/*/*.py"],  # `**` matches one folder only here
    document_types={".py": Docstrings},
    teardown=leave_nothing,
)

pytest_collect_file = (documents + docstrings).pytest()


def pytest_configure() -> None:
    """What a shell has put into the background ignores Ctrl-C, and the programs that the tests run would as well."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="module", autouse=True)
def little_to_look_through() -> Iterator[None]:
    """Thousands of tests are in memory, and hundreds collect the garbage: each looks only at what its own file made."""
    gc.freeze()
    yield
    gc.collect()  # before the next file makes garbage permanent, whose warnings nobody would see


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Tests run on the loop of `run`, and on every other Python on asyncio's: what we build must work on both."""
    if sys.version_info[1] % 2:
        return {"asyncio": asyncio.SelectorEventLoop}
    return {"yamanote": import_module("yamanote.runtime").EventLoop}
