"""All workers of one `start_server`, under a supervisor.

Invariant: every worker that was opened is in `_workers` until it has ended, and the fleet ends after all of them. Each
has a place, which holds at most one worker that serves; a place is filled by the supervised function that attends it,
and its worker is exchanged for another one only by a reload, in one step, when the new one is ready. A worker that ends
while it holds its place, and was not told to, has died.
"""

from __future__ import annotations

import asyncio
from asyncio import CancelledError
from collections.abc import AsyncIterable, Callable, Iterable
from signal import SIGTERM, Signals
from typing import Any, Literal, final

from yamanote.runtime import CancelScope, Started, TaskGroup, contextualize, signals
from yamanote.server._counted import counted
from yamanote.server._signums import SAME_REQUEST_SECONDS
from yamanote.server._supervised_task import SupervisedTask
from yamanote.server._supervisor import Supervisor, what_is_done
from yamanote.server._worker import Worker, WorkerError, log

__all__ = ["Fleet"]


@final
class Fleet:
    """Starts the workers and keeps them running, until a signal comes or too many of them have died."""

    def __init__(
        self,
        make_worker: Callable[[int], Worker],
        count: int,
        supervisor: Supervisor,
        *,
        restart: Literal["permanent", "transient", "temporary"],
        start_timeout: float | None,
        stop_signals: Iterable[Signals],
        reload_signals: Iterable[Signals],
    ) -> None:
        self._make_worker = make_worker
        self._places = [_Place(index) for index in range(count)]
        self._workers: set[Worker] = set()
        self._supervisor = supervisor
        self._restart: Literal["permanent", "transient", "temporary"] = restart
        self._start_timeout = start_timeout
        self._stop_signals = tuple(stop_signals)
        self._reload_signals = tuple(reload_signals)
        self._reloading = CancelScope()
        self._all_started = asyncio.Event()
        self._told: list[Worker] | None = None
        self._dead: list[WorkerError] = []
        self._stopped_at = 0.0
        self.stop_signal: Signals | None = None
        """The first stop signal."""
        self.last_signal: Signals | None = None
        """The second one, when it came."""

    async def run(self) -> None:
        """From the start to the end of all workers.

        Raises WorkerError when one does not start, SupervisorError when too many have died, ExceptionGroup when one has
        died that is not restarted, or did not stop in order. All workers have ended when it returns or raises.
        """
        asyncio.get_running_loop().set_exception_handler(_report)
        with signals(*self._stop_signals) as stops:
            async with contextualize(self._listen(stops)), contextualize(self._reload()):
                await self._run_workers()
        if self.last_signal is None:
            farewells = [worker.farewell() for worker in self._told or ()]
            failures = self._dead + [failure for failure in farewells if failure is not None]
            if failures:
                # During a reload there may be two for a place.
                count = len({failure.index for failure in failures})
                have = "has" if count == 1 else "have"
                raise ExceptionGroup(f"{count} of {counted(len(self._places), 'worker')} {have} failed", failures)

    def kill(self) -> None:
        """End all processes now, without an event loop: it is gone, and nobody is left to wait."""
        for worker in self._workers:
            worker.kill()

    # ---------------------------------------------------------------- starting

    async def _run_workers(self) -> None:
        failure: Exception | None = None
        async with self._supervisor:
            try:
                async with TaskGroup(name="start of the workers") as group:
                    for place in self._places:
                        group.spawn(self._start(place))
                self._all_started.set()
                for place in self._places:
                    if place.child is not None:
                        await place.child.wait()
            except ExceptionGroup as errors:
                failure, *others = errors.exceptions
                for other in others:
                    log.error("%s", other)
                log.error("%s; the start has failed", failure)
                self._supervisor.stop()
                self._tell_all(SIGTERM)
            except CancelledError:  # the supervisor ends us first, and then one child after the other
                if (given_up := self._supervisor._error) is not None:
                    log.error("%s; no restart is left: stopping all workers", given_up.exceptions[0])
                self._tell_all(SIGTERM)
                raise
        if failure is not None:
            try:
                raise failure
            finally:
                del failure  # no reference cycle with the traceback

    async def _start(self, place: _Place) -> None:
        name = f"worker {place.index}"
        place.child = await self._supervisor.start(self._attend, place, name=name, restart=self._restart)

    async def _launch(self, index: int) -> Worker:
        worker = self._make_worker(index)
        self._workers.add(worker)
        try:
            await worker.launch(self._start_timeout)
        except BaseException:
            self._workers.remove(worker)
            raise
        log.info("%s is ready", worker)
        return worker

    # ---------------------------------------------------------------- serving

    async def _attend(self, started: Started[None], place: _Place) -> None:
        """Fill a place, until the worker in it dies. This is what is supervised."""
        place.attendance = asyncio.current_task()
        place.worker = worker = await self._launch(place.index)
        started()
        try:
            await worker.wait()
            while place.worker is not worker:  # it has been replaced, by one which may have ended meanwhile
                worker = place.worker
                await worker.wait()
        except CancelledError:
            worker = place.worker
            place.worker = None  # before the wait: a successor that becomes ready meanwhile would be forgotten here
            await worker.stop(SIGTERM)
            raise
        finally:
            self._workers.discard(worker)
            place.worker = None
        if self._told is None:
            self._bury(worker)

    def _bury(self, worker: Worker) -> None:
        death = worker.death()
        if death is None:
            log.info("%s has ended%s", worker, ", and is restarted" if self._restart == "permanent" else "")
            return
        if self._restart == "temporary":
            self._dead.append(death)
        try:
            raise death
        finally:
            del death  # as above

    # ---------------------------------------------------------------- signals

    async def _listen(self, arrived: AsyncIterable[Signals]) -> None:
        async for signum in arrived:
            if self.stop_signal is None:
                self._stop(signum)
            elif asyncio.get_running_loop().time() >= self._stopped_at + SAME_REQUEST_SECONDS:
                self._stop_now(signum)

    def _stop(self, signum: Signals) -> None:
        count = len({worker.index for worker in self._workers})
        log.info("%s: stopping %s", signum.name, counted(count, "worker"))
        self.stop_signal = signum
        self._stopped_at = asyncio.get_running_loop().time()
        self._supervisor.stop()
        self._tell_all(signum)

    def _stop_now(self, signum: Signals) -> None:
        self.last_signal = signum
        left = [worker for worker in self._workers if worker.open]
        names = ", ".join(map(str, left))
        log.error("a second signal, %s%s", signum.name, f": {left[0].killing.format(names)}" if left else "")
        for worker in left:
            worker.kill()

    def _tell_all(self, signum: Signals) -> None:
        """All at once, so that their deadlines run at the same time, however many they are. Later calls do nothing."""
        if self._told is not None:
            return
        self._reloading.cancel()
        self._told = [worker for worker in self._workers if worker.open]
        for worker in self._told:
            worker.begin_to_stop(signum)
        for place in self._places:
            # A restart is not to go on until it is its turn to be stopped. A first start belongs to who waits for it.
            if place.child is not None and place.attendance is not None:
                place.attendance.cancel()

    # ---------------------------------------------------------------- reloading

    async def _reload(self) -> None:
        if not self._reload_signals:
            return
        # A signal that comes meanwhile is kept, once: then all are replaced again.
        with signals(*self._reload_signals) as arrived, self._reloading:
            await self._all_started.wait()
            async for signum in arrived:
                log.info("%s: replacing the workers, one after the other", signum.name)
                for place in self._places:
                    try:
                        await self._replace(place, signum)
                    except Exception as error:  # or the system could not start anything
                        strange = None if isinstance(error, WorkerError) else error
                        log.error("%s; the workers that are left to replace serve on", error, exc_info=strange)
                        break
                else:
                    log.info("%s: all workers have been replaced", signum.name)

    async def _replace(self, place: _Place, signum: Signals) -> None:
        old = place.worker
        if old is None:  # about to be restarted, or gone for good
            return
        new = await self._launch(place.index)
        if place.worker is old:
            place.worker = new
        else:
            old = new  # the old one has died meanwhile: whoever is in its place, or comes there, is as new
        try:
            await old.stop(signum)
        finally:
            self._workers.discard(old)
        if (failure := old.farewell()) is not None:
            log.error("%s", failure)


@final
class _Place:
    """The place of a worker, which those after it take over."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.worker: Worker | None = None
        self.child: SupervisedTask | None = None
        """When it has been started."""
        self.attendance: asyncio.Task[Any] | None = None
        """Its present life, or the last one."""


def _report(loop: asyncio.AbstractEventLoop, report: dict[str, Any]) -> None:
    """In one line what the supervisor has to say about a worker: where that error came from is of no interest."""
    error = report.get("exception")
    if isinstance(error, WorkerError):
        log.error("%s%s", error, what_is_done(report["message"]))
    else:
        loop.default_exception_handler(report)
