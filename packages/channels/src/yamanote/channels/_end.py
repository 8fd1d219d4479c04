"""End: what both sides of every kind of channel have in common. It is closed, once, by whoever holds it.

Invariant: an end is closed by `close`, by the end of a `with` or `async with` block, or, at worst, by its finalizer,
which does the same and emits a ResourceWarning that names the line where the end was made.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from types import TracebackType
from typing import NoReturn, Self

from yamanote.runtime import call_site

__all__ = ["End"]


class End(ABC):
    """One end of a channel of any kind."""

    __slots__ = ("__weakref__", "_closed", "_site")

    def __init__(self) -> None:
        self._closed = False
        self._site = call_site()

    @property
    @abstractmethod
    def is_closed(self) -> bool:
        """Whether this end was closed, or nothing more can pass through the channel."""

    @abstractmethod
    def close(self) -> None:
        """Close this end. Never waits; any thread may call it, again and again."""

    @abstractmethod
    def _drop(self) -> None:
        """`close`, for the finalizer of an open end: it may begin inside any other call, and so must not block."""

    def __enter__(self) -> Self:
        return self

    async def __aenter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> NoReturn:
        # A copy would close what it does not hold, once more.
        raise TypeError(f"{self!r} can be neither copied nor pickled")

    def __leak__(self) -> str | None:
        """Whether it was not closed, for `yamanote.testing.no_leaks`."""
        return None if getattr(self, "_closed", True) else f"{self!r} was not closed"

    def __del__(self) -> None:
        if not getattr(self, "_closed", True):  # without the attribute, it was refused in the making
            message = f"{self!r}, made at {self._site}, was dropped and never closed"
            self._closed = True
            self._drop()
            warnings.warn(message, ResourceWarning, stacklevel=2, source=self)
