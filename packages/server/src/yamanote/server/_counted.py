"""Numbers in messages: "1 worker", "2 workers", "0.3 seconds"."""

from __future__ import annotations

__all__ = ["counted"]


def counted(number: float, noun: str) -> str:
    """So many of them."""
    figure = str(number) if isinstance(number, int) else f"{number:g}"
    return f"{figure} {noun}" if number == 1 else f"{figure} {noun}s"
