"""Single flight: who asks for what is being made already waits for it, and nobody makes it twice at a time.

Invariant: a run stands in the table as long as somebody waits for it, since nobody else refers to it. It is cancelled
when the last of those who wait for it is cancelled. Nobody joins one that has ended, or is about to for that reason.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Awaitable, Callable, Coroutine, Hashable
from functools import partial, update_wrapper
from threading import RLock
from types import MethodType
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, final, overload
from weakref import WeakValueDictionary

from yamanote.futures._lazy import made_by, require_function
from yamanote.futures._shared import Shared

__all__ = ["SingleFlight", "single_flight"]

K = TypeVar("K", bound=Hashable)
P = ParamSpec("P")
Q = ParamSpec("Q")
T = TypeVar("T")
AsyncFunction = Callable[P, Coroutine[Any, Any, T]]


def single_flight(function: AsyncFunction[P, T], /) -> _SingleFlightFunction[P, T]:
    """Decorate an async function: calls with the same arguments that come while one is running share its run.

    Nothing is kept when it has ended; `yamanote.runtime.lru_cache` keeps values. Arguments must be hashable; for other
    keys use `SingleFlight`, which tells also about errors, cancelling and threads. Of a method, each instance has runs
    of its own.

    The decorated function has ``forget(*args, **kwargs)``: who calls it with these arguments from now on does not join
    the run in progress. It tells whether there was one. `__wrapped__` is the function itself.

    Raises TypeError for anything but an async function.

    >>> @single_flight
    ... async def fetch(page):
    ...     print("fetch", page)
    ...     return page.upper()
    >>> async def main():
    ...     return await asyncio.gather(fetch("a"), fetch("a"), fetch("b"))
    >>> run(main())
    fetch a
    fetch b
    ['A', 'A', 'B']
    """
    if not inspect.iscoroutinefunction(function):
        if inspect.iscoroutine(function):
            function.close()
        raise TypeError(f"single_flight() needs an async function, not {function!r}")
    return _SingleFlightFunction(function, SingleFlight(), None)


@final
class SingleFlight(Generic[K, T]):
    """Runs by their keys: who asks for a key that has one waits for it. `single_flight` is this for a function.

    **Cancel safety**: cancelling who waits leaves the run to the others. With the last of them it is cancelled, and
    their cancellation is raised when it has ended; who asks meanwhile begins anew.

    **Threads**: may be used from any number of loops. A run is on the loop of who began it; the others get the same
    value. When the program on that loop ends first, its tasks are cancelled, and they get JoinError.

    >>> async def main():
    ...     flights = SingleFlight()
    ...     async def fetch():
    ...         print("fetch")
    ...         return "page"
    ...     return await asyncio.gather(flights.run("a", fetch), flights.run("a", fetch))
    >>> run(main())
    fetch
    ['page', 'page']
    """

    __slots__ = ("__weakref__", "_flights", "_lock")

    def __init__(self) -> None:
        # Weak: a key is gone with the last who waits, also when these are thrown away because their loop was closed.
        self._flights: WeakValueDictionary[K, Shared[T]] = WeakValueDictionary()
        # Reentrant: keys compare themselves in here, and the table forgets what is thrown away at any moment.
        self._lock = RLock()

    async def run(self, key: K, factory: Callable[[], Awaitable[T] | T]) -> T:
        """Return what the run for `key` gives; when none is in progress, begin one by calling `factory`.

        What `factory` returns is the value, and is awaited first if it can be. It runs in a task of its own, with a
        copy of the caller's context, but not bound by its deadlines.

        Raises what the run raises, the same error for all who wait for it, and JoinError when it was cancelled by
        somebody else. Raises RuntimeError where a run asks, in its own task, for its own key; what it asks for in other
        tasks, as by `gather`, is not seen: that waits until it is cancelled. Raises TypeError for a factory that cannot
        be called, and for a key that cannot be hashed.
        """
        require_function(factory, "factory must be a function without arguments, not {!r}")
        with self._lock:
            flight = self._flights.get(key)
            # Joined under the lock: else the last who waits for it, on another loop, might leave before this one comes.
            while flight is None or (seat := flight.join()) is None:
                flight = self._flights[key] = made_by(factory)
        try:
            return await seat
        finally:
            del flight, seat  # an error refers to this frame, and they to the error

    def forget(self, key: K) -> bool:
        """Let who asks for `key` from now on begin anew; those who wait get what they wait for.

        Tells whether there was a run. Any thread may call it.
        """
        with self._lock:
            return self._flights.pop(key, None) is not None

    def __len__(self) -> int:
        """How many keys have a run."""
        return len(self._flights)

    def __repr__(self) -> str:
        return f"<SingleFlight {len(self)} in progress>"


@final
class _SingleFlightFunction(Generic[P, T]):
    """What `single_flight` makes of an async function, or of a method of one instance."""

    __wrapped__: AsyncFunction[P, T]

    def __init__(self, function: AsyncFunction[P, T], flights: SingleFlight[Hashable, T], instance: int | None) -> None:
        if instance is None:
            update_wrapper(self, function)
        self.__wrapped__ = function
        self._flights = flights
        self._instance = instance

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, T]:
        return self._flights.run(self._key(args, kwargs), partial(self.__wrapped__, *args, **kwargs))

    def __repr__(self) -> str:
        return f"<single_flight of {self.__wrapped__!r}>"

    def forget(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Let calls with these arguments begin anew from now on; tell whether a run was in progress."""
        return self._flights.forget(self._key(args, kwargs))

    def _key(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Hashable:
        # The instance by identity, which lasts as long as a call: it need not be hashable, and equal ones may differ.
        return self._instance, args, frozenset(kwargs.items())

    @overload
    def __get__(self, instance: None, owner: type, /) -> _SingleFlightFunction[P, T]: ...
    @overload
    def __get__(
        self: _SingleFlightFunction[Concatenate[Any, Q], T], instance: object, owner: type | None = None, /
    ) -> _SingleFlightFunction[Q, T]: ...
    def __get__(self, instance: Any, owner: type | None = None, /) -> Any:
        if instance is None:
            return self
        return _SingleFlightFunction(MethodType(self.__wrapped__, instance), self._flights, id(instance))


if sys.version_info >= (3, 12):  # a callable object can pass for an async function
    inspect.markcoroutinefunction(_SingleFlightFunction)
