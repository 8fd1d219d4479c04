"""What the command line of pytest asks of the explorers; the plugin writes it, the explorers read it."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Settings", "settings"]


@dataclass(slots=True)
class Settings:
    """Each of them overrides what a test passes to an explorer; None leaves the test's own choice."""

    runs: int | None = None
    """How many schedules to try, at most."""
    seed: int | None = None
    """Where the random choices begin."""
    replay: str | None = None
    """The token of the one run to repeat."""


settings = Settings()
