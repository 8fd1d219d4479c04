"""What a `Health` says at one moment: values, which never change.

Invariant: what is not live is not ready. A program is live while all its parts are, and ready while all its parts are
ready and it is not stopping.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

__all__ = ["HealthState", "PartState"]


@final
@dataclass(frozen=True)
class PartState:
    """The state of one part of a program."""

    live: bool
    """Whether it works, or will work again by itself. Where it is False, only a restart of the process helps."""
    ready: bool
    """Whether it can do its part of the work right now."""
    reason: str
    """Why it is not ready, or not live. Empty when it is ready."""


@final
@dataclass(frozen=True)
class HealthState:
    """The state of a program and of its parts at one moment. Two that say the same are equal."""

    parts: Mapping[str, PartState]
    """The state of each part, in the order in which they were made. Cannot be changed."""
    stopping: bool
    """Whether the program has begun to stop."""

    @property
    def live(self) -> bool:
        """Whether every part is live: whoever watches need not restart the process. True also without parts."""
        return all(part.live for part in self.parts.values())

    @property
    def ready(self) -> bool:
        """Whether work can be sent here: every part is ready, or there is none, and the program is not stopping."""
        return not self.stopping and all(part.ready for part in self.parts.values())
