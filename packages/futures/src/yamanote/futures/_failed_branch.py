"""Which branch an error came from: written on the error, as a path of names, and into its traceback as a note."""

from __future__ import annotations

__all__ = ["failed_branch", "mark_branch"]


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
    path: tuple[str, ...] = error.__dict__.get("_yamanote_branch", ())
    return path


def mark_branch(error: BaseException, path: tuple[str, ...]) -> None:
    """Write the branch on the error. Past its own attributes, which may be frozen, or made up by a `__getattr__`."""
    note = f"raised by the branch {' / '.join(map(repr, path))} of a select"
    written = error.__dict__
    notes = written.get("__notes__", [])
    written["_yamanote_branch"] = path
    if note not in notes:
        written["__notes__"] = [*notes, note]
