"""Which branch an error came from: written on the error, as a path of names, and into its traceback as a note.

Invariant: one error can be raised by many selects. Each asker is told what its own, the last one in its context, has
written; those who have none, and the note, what was written last.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import TypeAlias

__all__ = ["failed_branch", "mark_branch"]

Path: TypeAlias = tuple[str, ...]


def failed_branch(error: BaseException) -> tuple[str, ...]:
    """The branch of `select` that raised `error`: its name, and below that the task's when the branch is a task set.

    Empty for an error that no branch has raised.

    >>> from yamanote.futures import failed_branch, select
    >>> from yamanote.runtime import run
    >>> async def main():
    ...     async def fail():
    ...         raise OSError("no answer")
    ...     try:
    ...         await select(page=fail())
    ...     except OSError as error:
    ...         return failed_branch(error)
    >>> run(main())
    ('page',)
    """
    written: list[Path] = error.__dict__.get("_yamanote_branch", [])
    here = _raised_here.get()
    if here is not None and here[0] is written:
        return here[1]
    return written[0] if written else ()


def mark_branch(error: BaseException, path: Path) -> None:
    """Write the branch on the error. Past its own attributes, which may be frozen, or made up by a `__getattr__`."""
    attributes = error.__dict__
    written: list[Path] = attributes.setdefault("_yamanote_branch", [])
    outdated = [*map(_note, written)]
    written[:] = [path]
    _raised_here.set((written, path))
    notes = [note for note in attributes.get("__notes__", []) if note not in outdated]
    attributes["__notes__"] = [*notes, _note(path)]


def _note(path: Path) -> str:
    return f"raised by the branch {' / '.join(map(repr, path))} of a select"


_raised_here: ContextVar[tuple[list[Path], Path] | None] = ContextVar("_raised_here", default=None)
"""What the last select of this context wrote, and where: the list stands for its error, which is not kept alive."""
