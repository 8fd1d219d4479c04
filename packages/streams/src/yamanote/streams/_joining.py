"""The operators that join several sources to one stream, one source at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from yamanote.streams._handle import Handle

if TYPE_CHECKING:
    pass

__all__ = ["Joining"]

T_co = TypeVar("T_co", covariant=True)
U = TypeVar("U")


class Joining(Handle[T_co]):
    """Several sources, one at a time."""

    __slots__ = ()
