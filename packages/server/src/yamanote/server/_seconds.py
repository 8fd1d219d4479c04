"""Seconds that somebody is to wait at most."""

from __future__ import annotations

import math

__all__ = ["require_seconds"]


def require_seconds(argument: str, seconds: float | None, *, none: str | None = None) -> None:
    """Raise TypeError or ValueError that names the argument, unless it is finite and 0 or more; or None, which means
    what `none` says, if that is said.
    """
    if seconds is None and none is not None:
        return
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        raise TypeError(f"{argument} must be a number of seconds{'' if none is None else ' or None'}, not {seconds!r}")
    if not 0 <= seconds < math.inf:  # nan neither
        otherwise = "" if none is None else f", or None for {none}"
        raise ValueError(f"{argument} must be 0 or more seconds{otherwise}, not {seconds}")
