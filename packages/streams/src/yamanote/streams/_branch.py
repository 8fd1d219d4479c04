"""Branch: one of several sources that are pulled side by side.

Invariant: a branch that rests is pulled in place, by `step`, so an item that is ready costs no turn of the loop. Still
a source that may wait is pulled by one task of its own, from the first instruction to its closing: that task is the
current one, in its own context, while the pull begins in place, and goes on with it if it has to wait. So time limits
and scopes inside an async generator are at home. What comes then lands; the task pulls on as long as it is told to, and
rests again. A source that never waits needs no task.
"""

from __future__ import annotations

import asyncio
import sys
import types
from asyncio.tasks import _enter_task, _leave_task
from collections.abc import Callable, Coroutine, Generator
from contextlib import suppress
from contextvars import Context, copy_context
from typing import Any

from yamanote.runtime import JoinError, shield_wait, start_task
from yamanote.streams._feeder import Feeder
from yamanote.streams._operator import Operator
from yamanote.streams._pipeline import Pipeline

__all__ = ["Branch", "branch_of"]

Land = Callable[["Branch", Any], bool]


class Branch(Operator[Any]):
    """A source that never waits, and what it has given."""

    waits = False

    __slots__ = ("_begun", "_source", "ahead", "failure", "item", "key", "land", "over", "rests")

    def __init__(self, source: Pipeline[Any], key: Any) -> None:
        super().__init__(source)
        self._source = source
        self._begun: Coroutine[Any, Any, Any] | None = None
        """A pull that has begun, and has not ended."""
        self.key = key
        self.item: Any = None
        """What the last step has given."""
        self.ahead = 0
        """How many items have landed, and have not been taken."""
        self.rests = True
        self.over = False
        self.failure: BaseException | None = None
        """Why it is over, unless that was the end of the source."""
        self.land: Land = _dropped
        """To be called with what came when `step` had to wait. Says whether to pull on."""

    def step(self) -> bool:
        """Pull the source. Whether that has given something: an item, or the end. If not, the loop is to turn once."""
        pull = self._begun or self._source.pull()
        self._begun = None
        try:
            pull.send(None)
        except StopIteration as result:
            self.item = result.value
        except StopAsyncIteration:
            self.over = True
        except Exception as error:
            self.over = True
            self.failure = error
        else:
            self._begun = pull
            return False
        return True

    @property
    def is_running(self) -> bool:
        """Whether it has a task that has not ended."""
        return False

    def stop(self) -> None:
        """Ask what runs to stop; `close` waits for it. What it raises is nobody's business any more."""
        self.land = _dropped

    def report(self) -> None:
        """If it has failed, nobody can be told any more: the error goes to the handler of the loop."""
        failure, self.failure = self.failure, None
        if isinstance(failure, Exception):
            asyncio.get_running_loop().call_exception_handler(
                {"message": f"{self} has failed, and nobody wants what it gives", "exception": failure}
            )

    async def pull(self) -> Any:
        raise NotImplementedError  # `step` does that

    def __str__(self) -> str:
        return str(self._source)


class TaskBranch(Branch):
    """A source that may wait. If `step` had to, the branch lands when there is something."""

    waits = True

    __slots__ = ("_awaits", "_context", "_ended", "_loop", "_pull_source", "_refused", "_rest", "_task")

    def __init__(self, source: Pipeline[Any], key: Any) -> None:
        super().__init__(source, key)
        self._task: asyncio.Task[None] | None = None
        self._rest: asyncio.Future[None] | None = None
        self._ended = False
        self._awaits: Any = None
        """What the pull that has begun waits for; None for a turn of the loop."""
        self._refused: BaseException | None = None
        """What the pull that has begun has raised, for the task to end with."""

    def step(self) -> bool:
        if self._task is None and not self._start():
            return False
        pull = self._pull_source()
        loop = self._loop
        caller = _swap_current_task(loop, self._task)
        try:
            awaits = self._context.run(pull.send, None)
        except StopIteration as result:
            self.item = result.value
            return True
        except (Exception, asyncio.CancelledError) as error:
            self._refused = error
        else:
            self._begun = pull
            self._awaits = awaits
            if hasattr(awaits, "_asyncio_future_blocking"):
                # The mark is for a task, which is to wait for it soon. Until then others may begin to wait for it.
                awaits._asyncio_future_blocking = False
        finally:
            _swap_current_task(loop, caller)
        if self._rest is not None and not self._rest.done():
            self._rest.set_result(None)
        return False

    def _start(self) -> bool:
        """Start the task. Whether it rests; on a loop that cannot run its first step now it begins with a pull."""
        self._loop = asyncio.get_running_loop()
        self._context: Context = copy_context()
        self._pull_source = self._source.puller()
        feeder = Feeder(self, self._accept, self._end_with)
        self._task = start_task(feeder.run(), context=self._context, eager=True)
        self._task.add_done_callback(self._check)
        self.rests = self._rest is not None
        return self.rests

    def pull(self) -> Any:
        """The coroutine of the next pull, for the feeder."""
        return self._rest_and_go_on() if self.rests else self._pull_source()

    async def _rest_and_go_on(self) -> Any:
        """Wait until a pull has begun in place, and go on with it."""
        cancelled = False
        self._rest = self._loop.create_future()
        try:
            await self._rest
        except asyncio.CancelledError as error:
            if self._begun is None and self._refused is None:
                raise
            task: Any = self._task
            if self._begun is not None and task.cancelling():
                # Once more, where the pull waits: so the task cancels that as well, be it another task.
                cancelled = True
                task.uncancel()
                task.cancel(*error.args)
        finally:
            self._rest = None
        self.rests = False
        try:
            if self._refused is not None:
                raise self._refused
            pull, self._begun = self._begun, None
            return await _rest_of(pull, self._awaits, cancelled)  # type: ignore[arg-type]
        finally:
            self._awaits = self._refused = None

    def _accept(self, item: Any) -> bool:
        self.ahead += 1
        self.rests = not self.land(self, item)
        return True

    def _end_with(self, failure: BaseException | None) -> None:
        if not self._ended:
            self._ended = True
            self.failure = failure
            self.land(self, None)

    def _check(self, task: asyncio.Task[None]) -> None:
        if not self._ended:  # it was cancelled before its first step, and could not say so
            self._end_with(asyncio.CancelledError())

    def stop(self) -> None:
        if self.land is not _dropped:
            self.land = _dropped
            if self._task is not None:
                self._task.cancel()

    async def _close(self) -> None:
        task = self._task
        try:
            if task is not None and task is not asyncio.current_task():
                self.stop()
                with suppress(JoinError):  # cancelled: by us
                    await shield_wait(task)
        finally:
            await super()._close()  # the task has done that, unless it was cancelled before its first step

    @property
    def is_running(self) -> bool:
        return self._task is not None and not self._task.done()

    @property
    def leftover(self) -> str | None:
        return "1 task" if self.is_running else super().leftover

    def abandon(self) -> None:
        if self._task is not None:
            try:
                self._loop.call_soon_threadsafe(self._task.cancel)
            except RuntimeError:  # the loop is closed, and the task with it
                pass
        super().abandon()


def branch_of(source: Pipeline[Any], key: Any = None) -> Branch:
    """A branch for `source`, which belongs to it."""
    return (TaskBranch if source.waits else Branch)(source, key)


def _dropped(branch: Branch, item: Any) -> bool:
    """What has come is of no interest any more."""
    branch.report()
    return False


@types.coroutine
def _rest_of(pull: Coroutine[Any, Any, Any], awaits: Any, cancelled: bool) -> Generator[Any, Any, Any]:
    """Go on with `pull`, which waits for `awaits`. The task that does that may have been `cancelled` meanwhile."""
    if awaits is None and not cancelled:  # it wanted a turn, and has had it
        return (yield from pull)
    while True:
        if awaits is not None and hasattr(awaits, "_asyncio_future_blocking"):
            awaits._asyncio_future_blocking = True  # "this was yielded to be waited for"
        error: BaseException | None = None
        try:
            yield awaits
        except GeneratorExit:
            pull.close()
            raise
        except BaseException as thrown:
            error = thrown
        if error is None:
            return (yield from pull)
        try:
            awaits = pull.throw(error)
        except StopIteration as result:
            return result.value
        finally:
            error = None


if sys.version_info >= (3, 12):
    from asyncio.tasks import _swap_current_task
else:

    def _swap_current_task(loop: asyncio.AbstractEventLoop, task: asyncio.Task[Any] | None) -> Any:
        """Make `task` the current one. Returns the one that was."""
        caller = asyncio.current_task(loop)
        if caller is not None:
            _leave_task(loop, caller)
        if task is not None:
            _enter_task(loop, task)
        return caller
