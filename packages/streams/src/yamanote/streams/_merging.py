"""The operators that have several sources under way at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from yamanote.streams._handle import Handle

if TYPE_CHECKING:
    pass

__all__ = ["Merging"]

T_co = TypeVar("T_co", covariant=True)
U = TypeVar("U")


class Merging(Handle[T_co]):
    """Several sources at a time."""

    __slots__ = ()
