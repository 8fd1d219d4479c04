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
    path: tuple[str, ...] = getattr(error, "_yamanote_branch", ())
    return path


def mark_branch(error: BaseException, path: tuple[str, ...]) -> None:
    """Write the branch on the error. Past its own `__setattr__`, which may refuse (a frozen dataclass does)."""
    note = f"raised by the branch {' / '.join(map(repr, path))} of a select"
    notes = getattr(error, "__notes__", [])
    BaseException.__setattr__(error, "_yamanote_branch", path)
    if note not in notes:
        BaseException.__setattr__(error, "__notes__", [*notes, note])
