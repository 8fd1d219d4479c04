"""The libraries to compare with: none of them need be installed, or work on this Python."""

from __future__ import annotations

from importlib import import_module
from typing import Any, NoReturn, TypeVar

from harness import available

__all__ = ["installed", "load"]

T = TypeVar("T")

OWN = ("asyncio", "yamanote")


def load(module: str) -> Any:
    """A module of a peer. What cannot be imported raises the reason when it is used: a version that fails by itself."""
    try:
        return import_module(module)
    except Exception as error:
        return _Broken(error)


def installed(by_library: dict[str, T]) -> dict[str, T]:
    """Without those whose library is not installed. `anyio.fast` is another way to use anyio."""
    return {
        library: value
        for library, value in by_library.items()
        if (name := library.split(".")[0]) in OWN or available(name) is not None
    }


class _Broken:
    def __init__(self, error: Exception) -> None:
        self._error = error

    def __getattr__(self, name: str) -> NoReturn:
        raise ImportError(f"cannot be imported: {self._error}")
