"""Stream map: sources with keys, which come and go while somebody iterates."""

from __future__ import annotations

import warnings
from collections.abc import AsyncIterable, Coroutine, Hashable, Iterable, KeysView
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, TypeVar, final

from yamanote.streams._branch import Branch, branch_of
from yamanote.streams._handle import require_sources, take_over
from yamanote.streams._junction import Junction
from yamanote.streams._merged import Keyed
from yamanote.streams._stream import stream_of
from yamanote.streams._thrown_away import close_or_abandon

if TYPE_CHECKING:
    from yamanote.streams._stream import Stream

__all__ = ["StreamMap"]

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


@final
class StreamMap(Generic[K, T]):
    """What many sources give, with their keys: ``async for key, item in streams``. They may come and go meanwhile.

    Iterating ends when the map is empty, and may begin again when something has been inserted. A source that has ended
    leaves the map. Order and fairness are those of `merge`. `streams.iter(stream_map)` gives it the operators.

    The error of a source is raised once, behind its items; it leaves the map, and the others stay, so one can iterate
    again: `failed_key` is its key, which a note on the error tells as well.

    The map owns its sources: use ``async with``, or `aclose`. **Cancel safety**: nothing is lost, pull again.
    **Threads**: for the loop on which it is iterated. Nothing needs a running loop before that.

    >>> from yamanote import streams
    >>> from yamanote.runtime import run
    >>> async def main():
    ...     async with streams.StreamMap() as rooms:
    ...         rooms.insert("a", [1, 2])
    ...         rooms.insert("b", [3])
    ...         async for room, message in rooms:
    ...             print(room, message)
    ...             if message == 3:
    ...                 rooms.insert("c", [4])
    >>> run(main())
    a 1
    b 3
    a 2
    c 4
    """

    __slots__ = ("__weakref__", "_members")

    def __init__(self) -> None:
        self._members: _Members = _Members()

    def insert(self, key: K, source: AsyncIterable[T] | Iterable[T]) -> None:
        """Take over `source`: any iterable, plain or async. Its turn comes behind those of the others.

        A source that has the key already is closed, with what it has given and nobody has taken; to keep that, `remove`
        it first. It is not waited for here, but ends before the map does.

        Raises TypeError for what cannot be iterated over, and RuntimeError when the map has been closed; then `source`
        stays yours.
        """
        hash(key)
        require_sources(source=source)
        if self._members.closed:
            raise RuntimeError("this StreamMap has been closed")
        self._members.insert(branch_of(take_over(source), key))

    def remove(self, key: K) -> Stream[T] | None:
        """Take a source out, and return it as a stream: to be closed, or to go on with. None if there is none.

        Nothing is lost: what it has given and nobody has taken comes first, and a pull that is under way goes on.
        """
        return self._members.remove(key)

    def clear(self) -> None:
        """Close all sources. They are not waited for here, but end before the map does."""
        for key in list(self._members.by_key):
            self._members.dismiss(key)

    def keys(self) -> KeysView[K]:
        """The keys of the sources that have not ended yet, in the order in which they were inserted."""
        return self._members.by_key.keys()

    @property
    def failed_key(self) -> K | None:
        """The key of the source that has failed last; None if none has."""
        return self._members.failed_key  # type: ignore[no-any-return]

    def __len__(self) -> int:
        """How many sources have not ended yet."""
        return len(self._members.by_key)

    def __contains__(self, key: object) -> bool:
        return key in self._members.by_key

    def __aiter__(self) -> StreamMap[K, T]:
        return self

    def __anext__(self) -> Coroutine[Any, Any, tuple[K, T]]:
        return self._members.pull()

    async def aclose(self) -> None:
        """Close all sources, and wait until that is done. Closing again does nothing; nothing can be inserted any more.

        **Cancel safety**: tasks are waited for all the same.
        """
        await self._members.close()

    async def __aenter__(self) -> StreamMap[K, T]:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is GeneratorExit:
            await close_or_abandon(self._members, traceback)
        else:
            await self._members.close()

    def __del__(self) -> None:
        leftover = self._members.leftover
        if leftover is not None:
            self._members.abandon()
            warnings.warn(
                f"{self!r} was dropped with {leftover}: use `async with`, or aclose()",
                ResourceWarning,
                stacklevel=2,
                source=self,
            )

    def __repr__(self) -> str:
        return f"<{self._members}>"


class _Members(Keyed[Any]):
    """The branches of a map, by their keys. Not fused: it is over only when it has been closed."""

    __slots__ = ("_dismissed", "by_key", "failed_key")

    _kind = "StreamMap"

    def __init__(self) -> None:
        super().__init__()
        self.by_key: dict[Any, Branch] = {}
        self._dismissed: dict[Branch, None] = {}
        """Those that have been asked to stop, and have not been waited for."""
        self.failed_key: Any = None

    @property
    def closed(self) -> bool:
        return self._over

    def insert(self, branch: Branch) -> None:
        if branch.key in self.by_key:
            self.dismiss(branch.key)
        self.by_key[branch.key] = branch
        self._add(branch)

    def dismiss(self, key: Any) -> None:
        branch = self.by_key.pop(key)
        self._silence(branch)
        self._dismissed[branch] = None

    def remove(self, key: Any) -> Stream[Any] | None:
        branch = self.by_key.pop(key, None)
        return None if branch is None else stream_of(_Removed(branch, self))

    def _is_given(self, branch: Branch) -> bool:
        return self._has(branch) and super()._is_given(branch)

    def _has(self, branch: Branch) -> bool:
        """Whether nothing has replaced `branch`: it may have done that itself, while it was pulled in place."""
        return self.by_key.get(branch.key) is branch

    async def _leave(self, branch: Branch) -> None:
        if not self._has(branch):
            branch.report()
            return
        del self.by_key[branch.key]
        if branch.failure is not None:
            self.failed_key = branch.key
            self._dismissed[branch] = None
        await super()._leave(branch)

    async def _end(self, error: BaseException | None = None) -> None:
        raise StopAsyncIteration if error is None else error

    async def _pause(self) -> None:
        stopped = [branch for branch in self._dismissed if not (branch.is_running and self.by_key)]
        for branch in stopped:
            await branch.close()
            self._dismissed.pop(branch, None)
            self._branches.pop(branch, None)
        if not stopped:  # else something may have come meanwhile
            await super()._pause()

    async def _close(self) -> None:
        self.by_key.clear()
        await super()._close()

    def __str__(self) -> str:
        return f"StreamMap {', '.join(map(str, self.by_key)) or 'empty'}"


class _Removed(Junction[Any]):
    """What was one of the sources of a map."""

    __slots__ = ("_branch",)

    def __init__(self, branch: Branch, former: Junction[Any]) -> None:
        super().__init__()
        self._branch = branch
        self._take_over(branch, former)

    def __str__(self) -> str:
        return str(self._branch)
