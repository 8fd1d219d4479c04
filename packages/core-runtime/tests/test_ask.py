"""What a function returns in the thread of another loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from yamanote.runtime._ask import ask

PATIENCE = 20.0
"""Seconds after which a test gives up."""


@pytest.fixture
def elsewhere() -> Iterator[asyncio.AbstractEventLoop]:
    """A loop that runs in a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield loop
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def test_the_answer_is_that_of_the_other_thread(elsewhere: asyncio.AbstractEventLoop) -> None:
    assert ask(elsewhere, asyncio.get_running_loop, PATIENCE) is elsewhere
    assert ask(elsewhere, threading.get_ident, PATIENCE) != threading.get_ident()
    ask(elsewhere, lambda: None, PATIENCE)  # also an answer


def test_an_error_is_raised_here_and_not_reported_there(
    elsewhere: asyncio.AbstractEventLoop, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(LookupError, match="found"):
        ask(elsewhere, lambda: exec("raise LookupError('found')"), PATIENCE)
    assert not caplog.messages


def test_who_gets_no_answer_in_time_is_told_and_the_question_is_not_asked(elsewhere: asyncio.AbstractEventLoop) -> None:
    release = threading.Event()
    asked: list[None] = []
    elsewhere.call_soon_threadsafe(release.wait, PATIENCE)
    with pytest.raises(TimeoutError):
        ask(elsewhere, lambda: asked.append(None), 0)
    release.set()
    assert ask(elsewhere, asked.copy, PATIENCE) == []


def test_who_waits_no_longer_when_the_answer_is_under_way_gets_it(elsewhere: asyncio.AbstractEventLoop) -> None:
    entered, release = threading.Event(), threading.Event()

    def answer() -> str:
        entered.set()
        release.wait(PATIENCE)
        return "late"

    answers: list[str] = []
    asker = threading.Thread(target=lambda: answers.append(ask(elsewhere, answer, 0.01)))
    asker.start()
    assert entered.wait(PATIENCE)
    asker.join(0.05)
    release.set()
    asker.join(PATIENCE)
    assert answers == ["late"]


def test_a_closed_loop_is_not_asked() -> None:
    loop = asyncio.new_event_loop()
    loop.close()
    with pytest.raises(RuntimeError, match="closed"):
        ask(loop, lambda: None, PATIENCE)
