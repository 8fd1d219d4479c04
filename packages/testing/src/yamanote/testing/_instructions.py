"""Instructions: be told before each one that a thread executes.

Invariant: from the beginning of a `watch` block to its end, each instruction of each Python function that is entered in
the calling thread is announced before it is executed, whatever other threads do with the same function.

The last part is why `sys.settrace` does not do where there is `sys.monitoring`: there, a function whose instructions
are traced forgets so when a thread that is not traced comes along, and remembers in time for the next call only.
"""

from __future__ import annotations

import sys
from _thread import get_ident
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import CodeType, FrameType
from typing import Any

__all__ = ["instructions_announced", "watch"]

_hooks: dict[int, Callable[[FrameType], object]] = {}
"""Whom to tell, by the thread that executes the instruction."""


@contextmanager
def watch(hook: Callable[[FrameType], object]) -> Iterator[None]:
    """Call `hook` before each instruction of the calling thread. Only inside of `instructions_announced`."""
    thread = get_ident()
    _hooks[thread] = hook
    try:
        with _traced():
            yield
    finally:
        del _hooks[thread]


if sys.version_info >= (3, 12):
    from contextlib import nullcontext as _traced

    @contextmanager
    def instructions_announced() -> Iterator[None]:
        """Let `watch` work, in every thread. Not twice at the same time."""
        monitoring = sys.monitoring
        event = monitoring.events.INSTRUCTION
        tool = next(tool for tool in range(6) if monitoring.get_tool(tool) is None)
        monitoring.use_tool_id(tool, "yamanote.testing")
        try:
            monitoring.register_callback(tool, event, _announce)
            monitoring.set_events(tool, event)
            yield
        finally:
            monitoring.set_events(tool, 0)
            monitoring.register_callback(tool, event, None)
            monitoring.free_tool_id(tool)

    def _announce(code: CodeType, offset: int) -> None:
        hook = _hooks.get(get_ident())
        if hook is not None:
            hook(sys._getframe(1))

else:
    from contextlib import nullcontext as instructions_announced

    @contextmanager
    def _traced() -> Iterator[None]:
        before = sys.gettrace()
        sys.settrace(_trace)
        try:
            yield
        finally:
            sys.settrace(before)

    def _trace(frame: FrameType, event: str, argument: Any) -> Any:
        if event == "call":
            frame.f_trace_lines = False
            frame.f_trace_opcodes = True
        elif event == "opcode":
            _hooks[get_ident()](frame)
        return _trace
