"""What `census.py` counts, and how: plain functions, which know nothing of Yamanote."""

import ast
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple


class FileCount(NamedTuple):
    """What there is in one file; a line of the output."""

    path: str
    bytes: int = 0
    lines: int = 0
    functions: int = 0
    async_functions: int = 0
    classes: int = 0
    longest: int = 0
    longest_name: str = ""
    error: str = ""


def find_files(folders: Iterable[Path], without: Sequence[str]) -> Iterator[Path]:
    """Every Python file below `folders`; and every folder that cannot be listed, for `count_file` to complain about."""
    unlisted: list[OSError] = []
    for top in folders:
        for folder, subfolders, names in os.walk(top, onerror=unlisted.append):
            subfolders[:] = sorted(name for name in subfolders if name not in without)
            yield from (Path(folder, name) for name in sorted(names) if name.endswith(".py"))
    yield from (Path(error.filename) for error in unlisted)


def statements(module: ast.Module) -> Iterator[ast.AST]:
    """Every statement, however deep. Not the expressions: those hold no definitions, and are most of the tree."""
    nodes: list[ast.AST] = [module]
    while nodes:
        yield (node := nodes.pop())
        for block in ("body", "orelse", "handlers", "finalbody", "cases"):
            nodes += getattr(node, block, ())


def count_file(path: Path) -> FileCount:
    """Read and parse a file. If that cannot be done, the result says why, and has no numbers."""
    try:
        if path.exists() and not path.is_file():  # a pipe would be waited for, and a device might never end
            raise OSError("a folder that cannot be listed" if path.is_dir() else "not a regular file")
        source = path.read_bytes()
        nodes = list(statements(ast.parse(source, path)))
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError) as error:
        reason = (isinstance(error, OSError) and error.strerror) or str(error)
        return FileCount(str(path), error=f"{type(error).__name__}: {reason}")
    functions = [node for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    lengths = [((node.end_lineno or node.lineno) - node.lineno + 1, node.name) for node in functions]
    longest, longest_name = max(lengths, default=(0, ""))
    return FileCount(
        path=str(path),
        bytes=len(source),
        lines=len(source.splitlines()),
        functions=sum(isinstance(node, ast.FunctionDef) for node in functions),
        async_functions=sum(isinstance(node, ast.AsyncFunctionDef) for node in functions),
        classes=sum(isinstance(node, ast.ClassDef) for node in nodes),
        longest=longest,
        longest_name=longest_name,
    )


def differences(counts: Iterable[FileCount], expected: Iterable[FileCount]) -> Iterator[str]:
    """What is wrong with `counts`, a line for each file."""
    missing = {count.path: count for count in expected}
    for count in counts:
        other = missing.pop(count.path, None)
        if other is None:
            yield f"{count.path}: there is no such file, or it was counted twice"
        elif count != other:
            fields = zip(FileCount._fields, count, other, strict=True)
            yield f"{count.path}: " + ", ".join(f"{name} {a!r}, not {b!r}" for name, a, b in fields if a != b)
    yield from (f"{path}: not counted" for path in missing)
