"""Signals that somebody is to catch."""

from __future__ import annotations

from collections.abc import Iterable
from signal import Signals

__all__ = ["SAME_REQUEST_SECONDS", "require_signals"]

SAME_REQUEST_SECONDS = 0.05
"""A signal that comes so soon after the first one asks for nothing new.

It comes of one and the same request: programs such as `timeout` signal a process, and then the group that it is in.
"""


def require_signals(argument: str, signums: Iterable[int]) -> tuple[Signals, ...]:
    """The signals that `argument` consists of, each once, or a TypeError or ValueError that says which is none."""
    if not isinstance(signums, Iterable):
        raise TypeError(f"{argument} must be several signals, such as (signal.SIGTERM,), not {signums!r}")
    found: dict[Signals, None] = {}
    for signum in signums:
        if isinstance(signum, bool) or not isinstance(signum, int):
            raise TypeError(f"{argument} must be signals, such as signal.SIGTERM, but one is {signum!r}")
        try:
            known = Signals(signum)
        except ValueError:
            raise ValueError(f"{argument} must be signals with a name, but {signum} is none") from None
        if known.name in ("SIGKILL", "SIGSTOP"):
            raise ValueError(f"{argument} must be signals that can be caught, but {known.name} cannot")
        found[known] = None
    return tuple(found)
