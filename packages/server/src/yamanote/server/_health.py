"""Health: which parts of a program work, for whoever watches from inside or outside.

Invariant: a part changes only its own state, and only until it is closed; the state of the whole is computed from all
parts in the very step that stores it. So nobody sees a half of a change, and a closed part never speaks for the next
one of its name.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import MappingProxyType, TracebackType
from typing import Self, final

from yamanote.channels import HandleClosed, WatchReceiver, watch
from yamanote.runtime import call_site
from yamanote.server._health_state import HealthState, PartState

__all__ = ["Health", "HealthPart"]

_READY = PartState(live=True, ready=True, reason="")
_STARTING = PartState(live=True, ready=False, reason="starting")


@final
class Health:
    """Whether a program is live and ready, as the sum of its parts: ``with Health() as health:``.

    Each part of the program (the database pool, the cache, the consumer of a queue) takes a `part` and says how it
    does. The program is *live* while all parts are: it need not be restarted. It is *ready* while all parts are ready
    and it is not `stopping`: work may be sent to it. Without parts it is both.

    The newest `HealthState` is in `state`; `subscribe` gives a receiver that is told of each change; `probes` shows it
    to the outside. Close it (`close`, or ``with``) when the program ends; one that is merely dropped emits a
    ResourceWarning.

    **Threads:** everything but `wait_ready` may be called from any thread.

    >>> with Health() as health:
    ...     database = health.part("database")
    ...     print(health.state.ready, health.state.parts["database"].reason)
    ...     database.ready()
    ...     print(health.state.ready)
    False starting
    True
    """

    __slots__ = ("_closed", "_sender", "_site")

    def __init__(self) -> None:
        self._closed = False
        self._site = call_site()
        self._sender, receiver = watch(HealthState(MappingProxyType({}), stopping=False))
        receiver.close()

    @property
    def state(self) -> HealthState:
        """The newest state. Raises HandleClosed when this health was closed."""
        with _named():
            return self._sender.borrow()

    def part(self, name: str) -> HealthPart:
        """Add a part, which is live and not ready yet: its reason is "starting".

        Raises ValueError if there is a part of that name, and HandleClosed when this health was closed.
        """
        if not isinstance(name, str):
            raise TypeError(f"name must be a string, not {name!r}")
        if not name or not name.isprintable():
            raise ValueError(f"name must be printable and not empty, not {name!r}")

        def add(state: HealthState) -> HealthState:
            if name in state.parts:
                raise ValueError(f"name must be new, and there is a part {name!r}")
            return HealthState(MappingProxyType({**state.parts, name: _STARTING}), state.stopping)

        self._change(add)
        return HealthPart(self, name)

    def stopping(self) -> None:
        """The program begins to stop: it is not ready from now on, whatever its parts say, and is still live.

        Whoever sends work here has time to notice while the program still accepts it. May be called again. Raises
        HandleClosed when this health was closed.
        """
        self._change(lambda state: HealthState(state.parts, stopping=True))

    def subscribe(self) -> WatchReceiver[HealthState]:
        """A new receiver, to be closed by the caller: ``await receiver.changed()``, ``async for state in receiver``.

        It has seen the newest state. Raises HandleClosed when this health was closed.
        """
        with _named():
            return self._sender.subscribe()

    async def wait_ready(self) -> None:
        """Wait until the program is ready.

        Raises ChannelClosed when this health is closed before that. **Cancel safety:** nothing to lose.
        """
        with self.subscribe() as receiver:
            await receiver.wait_for(lambda state: state.ready)

    def close(self) -> None:
        """End: receivers see the last state, and then the end. May be called again."""
        self._closed = True
        self._sender.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _change(self, change: Callable[[HealthState], HealthState]) -> None:
        with _named():
            self._sender.send_if_modified(change)

    def __del__(self) -> None:
        if not self._closed:
            self.close()  # before the sender is dropped, which would speak of itself
            message = f"a Health, made at {self._site}, was dropped and never closed"
            warnings.warn(message, ResourceWarning, stacklevel=1, source=self)


@final
class HealthPart:
    """One part of a program, which says how it does. Made by `Health.part`.

    It says so as often as it likes; the last word counts. Close it (`close`, or ``with``) when the part is gone and the
    program goes on without it; there is no need to at the end of the program.

    **Threads:** every method may be called from any thread.
    """

    __slots__ = ("_health", "_open", "name")

    name: str

    def __init__(self, health: Health, name: str) -> None:
        self.name = name
        self._health = health
        self._open = [None]  # taking it out closes the part: of two threads only one can

    def ready(self) -> None:
        """It works.

        Raises HandleClosed, as `unready` and `dead` do, when this part or its health was closed.
        """
        self._set(_READY)

    def unready(self, reason: str) -> None:
        """It does not work right now, and will again by itself: "connecting again", "too much to do"."""
        self._set(PartState(live=True, ready=False, reason=_require_reason(reason)))

    def dead(self, reason: str) -> None:
        """It does not work, and only a restart of the process will help: "the consumer has crashed"."""
        self._set(PartState(live=False, ready=False, reason=_require_reason(reason)))

    def close(self) -> None:
        """Take the part out: the program is judged without it, and its name is free. May be called again."""
        try:
            self._open.pop()  # *then* it goes: a call that is under way in another thread tries again, and sees it
        except IndexError:
            return

        def remove(state: HealthState) -> HealthState:
            left = {name: part for name, part in state.parts.items() if name != self.name}
            return HealthState(MappingProxyType(left), state.stopping)

        try:
            self._health._change(remove)
        except HandleClosed:
            pass  # nobody is judged any more

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _set(self, part: PartState) -> None:
        def change(state: HealthState) -> HealthState:
            if not self._open:
                return state
            return HealthState(MappingProxyType({**state.parts, self.name: part}), state.stopping)

        self._health._change(change)
        if not self._open:
            raise HandleClosed(f"the part {self.name!r} was closed")


@contextmanager
def _named() -> Iterator[None]:
    """The sender says that it was closed: to the caller that is the health."""
    try:
        yield
    except HandleClosed:
        raise HandleClosed("this Health was closed") from None


def _require_reason(reason: str) -> str:
    if not isinstance(reason, str):
        raise TypeError(f"reason must be a string, not {reason!r}")
    if not reason.strip():
        raise ValueError(f"reason must say something, not {reason!r}")
    return reason
