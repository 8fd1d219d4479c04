"""Spawn sites: the line of the program that started a task or a call in a thread.

Invariant: a site is the innermost call outside of `yamanote` when the task was made. It is kept on the future of the
task, as code and position: no frame, so no variable of the program lives longer; the line is computed when it is asked.

Off by default: it costs up to a tenth of starting a task. In its debug mode asyncio keeps the whole call stack of each
task, and then there is nothing to switch on.
"""

from __future__ import annotations

import asyncio
import sys
from itertools import islice
from types import CodeType, FrameType
from typing import Any

__all__ = ["record_spawn_sites", "remember_site", "site_of"]

_OURS = "yamanote."

recording = False
"""Whether whoever makes a task, or the future of a call, is to give it to `remember_site`."""


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
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_globals.get("__name__", "").startswith(_OURS):
        frame = frame.f_back
    if frame is not None:
        future._yamanote_site = (frame.f_code, frame.f_lasti)  # type: ignore[attr-defined]


def site_of(future: asyncio.Future[Any]) -> str | None:
    """Where what `future` stands for was started: ``"file.py:12 in main"``. None if nobody has kept it."""
    site: tuple[CodeType, int] | None = getattr(future, "_yamanote_site", None)
    if site is not None:
        code, position = site
        line = next(islice(code.co_positions(), position // 2, None))[0]
        return f"{code.co_filename}:{line or code.co_firstlineno} in {code.co_qualname}"
    calls = getattr(future, "_source_traceback", None)  # asyncio's own, in debug mode, outermost first
    if calls:
        modules = list(sys.modules.items())
        ours = {getattr(module, "__file__", None) for name, module in modules if name.startswith(_OURS)}
        for call in reversed(calls):
            if call.filename not in ours:
                return f"{call.filename}:{call.lineno} in {call.name}"
    return None
