"""Handle: what a stream is before it has operators: somebody's pipeline, to be iterated and closed.

Invariant: a pipeline has one handle at a time. Who takes it over puts in its place a word on who has it now, so that
the old handle refuses to be used, and closes, when it is closed, all that has become of it.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import AsyncIterable, AsyncIterator, Callable, Coroutine, Iterable, Iterator
from inspect import isawaitable, iscoroutine
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, NoReturn, Self, TypeVar, overload

from yamanote.streams._immediate import Immediate
from yamanote.streams._pipeline import Awaited, Pipeline
from yamanote.streams._stages import Stage
from yamanote.streams._thrown_away import close_or_abandon

if TYPE_CHECKING:
    from yamanote.streams._stream import Stream

__all__ = ["Handle", "require_sources", "take_over"]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Handle(ABC, Generic[T_co]):
    """Owns a pipeline. The operators of each theme are a class on top of this one; `Stream` is all of them together."""

    __slots__ = ("__weakref__", "_again", "_begun", "_pipeline")

    _pipeline: Pipeline[T_co]
    _again: Callable[[], AsyncIterable[Any] | Iterable[Any]] | None
    """Gives the source once more, if there are no operators and that can be done."""
    _begun: bool
    """Whether an item has been asked for."""

    @overload
    def __init__(self, source: AsyncIterable[T_co]) -> None: ...
    @overload
    def __init__(self, source: Iterable[T_co]) -> None: ...
    def __init__(self, source: AsyncIterable[T_co] | Iterable[T_co]) -> None:
        """A stream of what `source` gives; the same as `iter`."""
        require_sources(source=source)
        self._begun = False
        self._again = None if isinstance(source, Handle | AsyncIterator | Iterator) else lambda: source
        self._pipeline = take_over(source, self)

    def __aiter__(self) -> Self:
        return self

    def __anext__(self) -> Coroutine[Any, Any, T_co]:
        if self._begun:
            return self._pipeline.pull()
        self._begun = True
        return self._pull_first()

    async def _pull_first(self) -> T_co:
        """Keeps this handle, which may be nobody else's: it is to tell what is left behind, and nothing is as yet."""
        return await self._pipeline.pull()

    async def aclose(self) -> None:
        """Close the source, cancel what runs, and wait until that is done. Closing again does nothing.

        Another task may pull meanwhile: what it waits for is cancelled, and it is told the end. What has not been given
        yet is dropped. Two tasks may close at once; both wait.

        Never raises the cancellations that it asked for. **Cancel safety**: tasks of the stream are waited for all the
        same; the source is closed by the task that pulls, or when this is repeated.
        """
        await self._pipeline.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is GeneratorExit:
            await close_or_abandon(self._pipeline, traceback)
        else:
            await self._pipeline.close()

    def __del__(self) -> None:
        pipeline = getattr(self, "_pipeline", None)  # none if the source was refused
        if pipeline is None:
            return
        leftover = pipeline.leftover
        if leftover is not None:
            pipeline.abandon()
            warnings.warn(
                f"{self!r} was dropped with {leftover}: use `async with`, or aclose()",
                ResourceWarning,
                stacklevel=2,
                source=self,
            )

    def __repr__(self) -> str:
        return f"<Stream {self._pipeline}>"

    @property
    def _owned(self) -> Pipeline[T_co]:
        """The pipeline, for an operator that takes it over."""
        if isinstance(self._pipeline, _Moved):
            self._pipeline.refuse()
        return self._pipeline

    def _owned_with(self, *others: AsyncIterable[Any] | Iterable[Any]) -> list[Pipeline[Any]]:
        """The pipelines of this stream and of `others`, which have all been checked before the first is taken over."""
        require_sources(self=self, **{f"others[{number}]": other for number, other in enumerate(others)})
        return [self._owned, *map(take_over, others)]

    def _with(self, stage: Stage) -> Stream[Any]:
        """A stream with one stage more."""
        return self._moved_into(self._owned.then(stage))

    def _give_to(self, owner: Handle[Any] | Pipeline[Any]) -> None:
        """Say from now on that this stream belongs to `owner`."""
        self._pipeline = _Moved(owner)

    @abstractmethod
    def _moved_into(self, pipeline: Pipeline[Any], *others: object, mapped: bool = False) -> Stream[Any]:
        """A stream of `pipeline`, which has taken over the one of this, and those of the streams among `others`.

        `mapped` if it gives what an async function gives, called for one item after the other.
        """


class _Moved(Pipeline[Any]):
    """In place of a pipeline that somebody else has taken over."""

    __slots__ = ("_owner",)

    def __init__(self, owner: Handle[Any] | Pipeline[Any]) -> None:
        self._owner = owner

    def refuse(self) -> NoReturn:
        raise RuntimeError(f"this stream has been taken over by {self._owner!r}: use that one")

    async def pull(self) -> Any:
        self.refuse()

    async def _close(self) -> None:
        # Whoever closes the stream that he began with means all that has become of it.
        if isinstance(self._owner, Pipeline):
            await self._owner.close()
        else:
            await self._owner.aclose()

    @property
    def leftover(self) -> str | None:
        return None

    def __str__(self) -> str:
        return str(self._owner._pipeline if isinstance(self._owner, Handle) else self._owner)


def require_sources(**sources: object) -> None:
    """Raise TypeError or RuntimeError that names the argument unless each can be iterated over, and taken over.

    To be called with all sources of an operator before the first is taken over: what is refused stays as it was.
    """
    seen: set[int] = set()
    for name, source in sources.items():
        if isinstance(source, Handle):
            source._owned  # noqa: B018  # raises if it is somebody else's
            if id(source) in seen:
                raise ValueError(f"{name} is a stream that is among the sources already")
            seen.add(id(source))
        elif not isinstance(source, AsyncIterable | Iterable) and not hasattr(source, "__getitem__"):
            advice = ": await it first" if isawaitable(source) else ""
            if iscoroutine(source):
                source.close()
            raise TypeError(f"{name} must be something to iterate over, plain or async, not {source!r}{advice}")


def take_over(source: AsyncIterable[T] | Iterable[T], owner: Handle[Any] | None = None) -> Pipeline[T]:
    """The pipeline of `source`, which belongs from now on to the caller, or to `owner` if that is known already.

    `require_sources` has looked at it.
    """
    if isinstance(source, Handle):
        pipeline: Pipeline[T] = source._owned
        source._pipeline = _Moved(pipeline if owner is None else owner)
        return pipeline
    if isinstance(source, AsyncIterable):
        return Awaited(source)
    return Immediate(source)
