"""An async cache: each value is computed once, and kept until it is too old or others have been used since.

Invariant: on one loop at most one call per key is in progress, and all who ask for the key wait for it: it is `Shared`,
and stands in the table as long as somebody waits. Only a value is kept, never an error. The entries stand in the order
of their use, the next to be dropped first.
"""

from __future__ import annotations

import asyncio
import inspect
import sys
from asyncio import get_running_loop
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Hashable
from functools import update_wrapper
from threading import RLock
from typing import Any, Concatenate, Generic, NamedTuple, ParamSpec, TypeVar, cast, final, overload
from weakref import WeakValueDictionary, ref

from yamanote.runtime._shared import Shared

__all__ = ["lru_cache"]

P = ParamSpec("P")
Q = ParamSpec("Q")
T = TypeVar("T")
AsyncFunction = Callable[P, Coroutine[Any, Any, T]]


@overload
def lru_cache(function: AsyncFunction[P, T], /) -> _CachedFunction[P, T]: ...
@overload
def lru_cache(
    maxsize: int | None = 128, typed: bool = False, *, expire_after: float | None = None
) -> Callable[[AsyncFunction[P, T]], _CachedFunction[P, T]]: ...
def lru_cache(maxsize: Any = 128, typed: bool = False, *, expire_after: float | None = None) -> Any:
    """`functools.lru_cache` for async functions: decorator, with arguments or without.

    Keeps the values of the `maxsize` calls that were used last (None: of all), each for `expire_after` seconds from its
    completion, on the clock of the running loop; a value of a clock that is ahead of this one has expired. With
    `typed`, 1 and 1.0 are two keys. Arguments must be hashable.

    Whoever asks for a value that is being computed waits for it: one call for all of them, in a task of its own.
    When the call fails, all of them get its error, and the next one calls again. When it was cancelled from outside,
    they get JoinError.

    The decorated function has `cache_info()`, `cache_parameters()`, `cache_clear()`, and `cache_invalidate(*args,
    **kwargs)`, which forgets one value and tells whether there was one. What is being computed meanwhile is delivered,
    but not kept. `__wrapped__` is the function without the cache.

    Of a method, each instance has a cache of its own, of `maxsize` values, that goes when the instance goes: it keeps
    no instance alive, unless a value refers to its own instance. `instance.method.cache_clear()` clears that one.

    **Cancel safety:** cancelling who waits leaves the call to the others. With the last one the call is cancelled, and
    that is raised when it has ended; who asks next calls anew.

    **Threads:** may be used from any number of loops. Values are shared; a call in progress is not: each loop makes
    its own.

    Raises TypeError and ValueError for nonsense; RuntimeError when a call asks, in its own task, for its own value,
    which would never come. What it asks for in other tasks, as by `gather`, is not seen: that waits until those who
    wait for the call are cancelled.

    >>> @lru_cache(expire_after=60)
    ... async def fetch(page):
    ...     print("fetch", page)
    ...     return page.upper()
    >>> async def main():
    ...     return await asyncio.gather(fetch("a"), fetch("a"), fetch("b"))
    >>> run(main())
    fetch a
    fetch b
    ['A', 'A', 'B']
    >>> fetch.cache_info()
    CacheInfo(hits=1, misses=2, maxsize=128, currsize=2)
    """
    if callable(maxsize):
        return lru_cache()(cast("AsyncFunction[..., Any]", maxsize))
    if maxsize is not None and (isinstance(maxsize, bool) or not isinstance(maxsize, int)):
        raise TypeError(f"maxsize must be a whole number, or None for no limit, not {maxsize!r}")
    if maxsize is not None and maxsize < 0:
        raise ValueError(f"maxsize must not be negative, not {maxsize!r}")
    if expire_after is not None:
        if isinstance(expire_after, bool) or not isinstance(expire_after, (int, float)):
            raise TypeError(f"expire_after must be a number of seconds, or None for ever, not {expire_after!r}")
        if not expire_after > 0:
            raise ValueError(f"expire_after must be more than 0 seconds, not {expire_after!r}")
    parameters = _Parameters(maxsize, bool(typed), expire_after)
    return lambda function: _CachedFunction(function, parameters)


class CacheInfo(NamedTuple):
    """How a cache does: `hits` were answered by it, or by a call in progress; `misses` made a call."""

    hits: int
    misses: int
    maxsize: int | None
    currsize: int


class _Parameters(NamedTuple):
    maxsize: int | None
    typed: bool
    expire_after: float | None


Place = tuple[asyncio.AbstractEventLoop, Hashable]
"""Where a call stands in the table: its loop and its key."""

_KEYWORDS = object()
"""Stands in a key between the positional arguments and the others."""


class _Cache:
    """The values of one function, or of one method of one instance."""

    __slots__ = ("_calls", "_entries", "_hits", "_lock", "_misses", "_parameters")

    def __init__(self, parameters: _Parameters) -> None:
        self._parameters = parameters
        self._entries: OrderedDict[Hashable, tuple[Any, float]] = OrderedDict()
        # Weak: a call is gone with the last who waits, also when these are thrown away because their loop was closed.
        self._calls: WeakValueDictionary[Place, Shared[Any]] = WeakValueDictionary()
        self._hits = self._misses = 0
        # Reentrant: the arguments compare themselves in here, and values that are dropped may have finalizers.
        self._lock = RLock()

    async def get(self, function: AsyncFunction[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        key = self.key(args, kwargs)
        loop = get_running_loop()
        with self._lock:
            entry = self._entries.get(key)
            if entry is not None:
                value, completed = entry
                lasts = self._parameters.expire_after
                # What is completed later than now was so on another clock, and might stay for ever.
                if lasts is None or completed <= loop.time() < completed + lasts:
                    self._entries.move_to_end(key)
                    self._hits += 1
                    return value
                del self._entries[key]
            place = loop, key
            call = self._calls.get(place)
            if call is not None and (seat := call.join()) is not None:
                self._hits += 1
            else:
                self._misses += 1
                call = seat = self._calls[place] = self._call(place, function, args, kwargs)
        try:
            return await seat
        finally:
            del call, seat  # an error refers to this frame, and they to the error

    def _call(
        self, place: Place, function: AsyncFunction[..., T], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Shared[T]:
        async def compute() -> T:
            value = await function(*args, **kwargs)
            # Kept by the call itself, not when others learn of its end: in between somebody might call again.
            self._keep(place, call, value)
            return value

        call = ref(shared := Shared(compute, name=getattr(function, "__name__", None)))
        return shared

    def _keep(self, place: Place, call: ref[Shared[T]], value: T) -> None:
        loop, key = place
        maxsize, _, expire_after = self._parameters
        completed = 0.0 if expire_after is None else loop.time()
        with self._lock:
            if (shared := call()) is not None and self._calls.get(place) is shared:  # else it has been invalidated
                self._entries[key] = (value, completed)
                self._entries.move_to_end(key)
                while maxsize is not None and len(self._entries) > maxsize:
                    self._entries.popitem(last=False)

    def key(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Hashable:
        key = args
        if kwargs:
            key = (*args, _KEYWORDS, *sorted(kwargs.items(), key=_name))
        if self._parameters.typed:
            key = (*key, *map(type, args), *(type(value) for _, value in sorted(kwargs.items(), key=_name)))
        return key

    def info(self) -> CacheInfo:
        with self._lock:
            return CacheInfo(self._hits, self._misses, self._parameters.maxsize, len(self._entries))

    def invalidate(self, key: Hashable) -> bool:
        with self._lock:
            places = [place for place in self._calls if place[1] == key]
            for place in places:
                self._calls.pop(place, None)  # it may be gone with who waited
            return self._entries.pop(key, None) is not None

    def clear(self) -> None:
        with self._lock:
            self._entries.clear()
            self._calls.clear()
            self._hits = self._misses = 0


def _name(item: tuple[str, object]) -> str:
    return item[0]


class _Cached(Generic[P, T]):
    """An async function, or a bound method, with its cache."""

    __wrapped__: AsyncFunction[P, T]

    def __init__(self, function: AsyncFunction[P, T], cache: _Cache) -> None:
        self.__wrapped__ = function
        self._cache = cache

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, T]:
        return self._cache.get(self.__wrapped__, args, kwargs)

    def __repr__(self) -> str:
        return f"<lru_cache of {self.__wrapped__!r}>"

    def cache_info(self) -> CacheInfo:
        """Hits, misses, the most that it may hold, and what it holds now, which may be too old already."""
        return self._cache.info()

    def cache_parameters(self) -> dict[str, Any]:
        """What `lru_cache` was called with."""
        return self._cache._parameters._asdict()

    def cache_clear(self) -> None:
        """Forget all values, and start to count anew."""
        self._cache.clear()

    def cache_invalidate(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Forget the value for these arguments; tell whether there was one."""
        return self._cache.invalidate(self._cache.key(args, kwargs))


if sys.version_info >= (3, 12):  # a callable object can pass for an async function
    inspect.markcoroutinefunction(_Cached)


@final
class _CachedFunction(_Cached[P, T]):
    """What `lru_cache` makes of an async function."""

    def __init__(self, function: AsyncFunction[P, T], parameters: _Parameters) -> None:
        if not inspect.iscoroutinefunction(function):
            raise TypeError(f"lru_cache() needs an async function, not {function!r}")
        super().__init__(function, _Cache(parameters))
        update_wrapper(self, function)
        # By identity: instances need not be hashable, and equal ones may behave differently.
        self._caches: dict[int, tuple[_Cache, ref[Any]]] = {}

    @overload
    def __get__(self, instance: None, owner: type, /) -> _CachedFunction[P, T]: ...
    @overload
    def __get__(
        self: _CachedFunction[Concatenate[Any, Q], T], instance: object, owner: type | None = None, /
    ) -> _Cached[Q, T]: ...
    def __get__(self, instance: Any, owner: type | None = None, /) -> Any:
        if instance is None:
            return self
        method = self.__wrapped__.__get__(instance, owner)
        known = self._caches.get(id(instance))
        if known is None:
            number, caches = id(instance), self._caches
            known = (_Cache(self._cache._parameters), ref(instance, lambda _: caches.pop(number, None)))
            known = caches.setdefault(number, known)
        return _Cached(method, known[0])
