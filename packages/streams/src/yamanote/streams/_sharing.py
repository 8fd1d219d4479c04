"""The operators for streams that fail, and for streams with several consumers."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from yamanote.streams._handle import Handle

if TYPE_CHECKING:
    pass

__all__ = ["Sharing"]

T_co = TypeVar("T_co", covariant=True)
U = TypeVar("U")


class Sharing(Handle[T_co]):
    """After an error, and for several consumers."""

    __slots__ = ()
