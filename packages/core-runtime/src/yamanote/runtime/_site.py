"""Sites: the line of the program that made something.

Invariant: a site is the innermost call outside of `yamanote` when the thing was made. It is kept as code and position:
no frame, so no variable of the program lives longer; the line is computed when it is asked.

What is made seldom and must be closed by hand (the ends of channels) always knows its site. Tasks, and calls in
threads, are told theirs only when somebody has asked for it: it costs up to a tenth of starting a task. In its debug
mode asyncio keeps the whole call stack of each task, and then there is nothing to switch on.
"""

from __future__ import annotations

import asyncio
import sys
from itertools import islice
from types import CodeType, FrameType
from typing import Any, NamedTuple

__all__ = ["CallSite", "call_site", "record_spawn_sites", "remember_site", "site_of"]

_OURS = "yamanote."

recording = False
"""Whether whoever makes a task, or the future of a call, is to give it to `remember_site`."""


class CallSite(NamedTuple):
    """A line of the program. As a string: ``"file.py:12 in main"``."""

    code: CodeType
    position: int
    """Of the instruction, in bytes."""

    def __str__(self) -> str:
        line = next(islice(self.code.co_positions(), self.position // 2, None))[0]
        return f"{self.code.co_filename}:{line or self.code.co_firstlineno} in {self.code.co_qualname}"


def call_site() -> CallSite | None:
    """The line of the program that the running call comes from: the innermost one outside of `yamanote`.

    For what has to be closed by hand, and is to say where it was made when nobody has. None when all is `yamanote`.

    >>> def example():
    ...     return call_site()
    >>> str(example())
    '... in example'
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_globals.get("__name__", "").startswith(_OURS):
        frame = frame.f_back
    return None if frame is None else CallSite(frame.f_code, frame.f_lasti)


def record_spawn_sites(enabled: bool = True) -> None:
    """Keep, from now on, where each task and each call in a thread is started; False ends it.

    `dump`, `describe` and `JoinHandle.spawned_at` tell it then. In asyncio's debug mode they do so anyway.

    **Threads:** it is for the whole process, and may be called from any thread.

    >>> async def main():
    ...     handle = spawn(asyncio.sleep(0))
    ...     await handle
    ...     return handle.spawned_at
    >>> record_spawn_sites()
    >>> run(main())
    '... in main'
    >>> record_spawn_sites(False)
    """
    global recording
    recording = enabled


def remember_site(future: asyncio.Future[Any]) -> None:
    """Keep where the running call comes from."""
    if (site := call_site()) is not None:
        future._yamanote_site = site  # type: ignore[attr-defined]


def site_of(future: asyncio.Future[Any]) -> str | None:
    """Where what `future` stands for was started: ``"file.py:12 in main"``. None if nobody has kept it."""
    site: CallSite | None = getattr(future, "_yamanote_site", None)
    if site is not None:
        return str(site)
    calls = getattr(future, "_source_traceback", None)  # asyncio's own, in debug mode, outermost first
    if calls:
        modules = list(sys.modules.items())
        ours = {getattr(module, "__file__", None) for name, module in modules if name.startswith(_OURS)}
        for call in reversed(calls):
            if call.filename not in ours:
                return f"{call.filename}:{call.lineno} in {call.name}"
    return None
