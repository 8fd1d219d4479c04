"""What can go wrong with a lock or a semaphore."""

from __future__ import annotations

__all__ = ["SemaphoreClosed"]


class SemaphoreClosed(Exception):
    """The semaphore was closed: it gives out no more permits."""
