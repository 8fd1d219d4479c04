"""`Health`: what is promised to a program that says how it does, and to whoever watches."""

from __future__ import annotations

import asyncio
import gc
import threading
from typing import Any

import pytest

from yamanote.channels import ChannelClosed, HandleClosed
from yamanote.runtime import TaskGroup, spawn_blocking, yield_now
from yamanote.server import Health, HealthState, PartState


def test_without_parts_a_program_is_live_and_ready() -> None:
    with Health() as health:
        assert health.state == HealthState({}, stopping=False)
        assert health.state.live and health.state.ready


def test_a_new_part_is_live_and_not_ready() -> None:
    with Health() as health:
        health.part("database")
        assert dict(health.state.parts) == {"database": PartState(live=True, ready=False, reason="starting")}
        assert health.state.live and not health.state.ready


def test_a_program_is_ready_only_when_all_its_parts_are() -> None:
    with Health() as health:
        database, cache = health.part("database"), health.part("cache")
        database.ready()
        assert not health.state.ready
        cache.ready()
        assert health.state.ready
        assert list(health.state.parts) == ["database", "cache"]
        database.unready("connecting again")
        assert health.state.live and not health.state.ready
        assert health.state.parts["database"].reason == "connecting again"
        database.ready()
        assert health.state.ready and health.state.parts["database"].reason == ""


def test_a_dead_part_makes_the_program_neither_live_nor_ready() -> None:
    with Health() as health:
        consumer, cache = health.part("consumer"), health.part("cache")
        consumer.ready()
        cache.ready()
        consumer.dead("it has crashed")
        assert not health.state.live and not health.state.ready
        assert health.state.parts["consumer"] == PartState(live=False, ready=False, reason="it has crashed")
        consumer.ready()  # the last word counts
        assert health.state.live and health.state.ready


def test_a_program_that_stops_is_live_and_never_ready_again() -> None:
    with Health() as health:
        database = health.part("database")
        database.ready()
        health.stopping()
        health.stopping()
        assert health.state.live and not health.state.ready and health.state.stopping
        database.unready("closing")
        database.ready()
        assert health.state.live and not health.state.ready
        with health.part("cache"):
            pass
        assert health.state.stopping


def test_a_part_that_is_closed_is_judged_no_more_and_its_name_is_free() -> None:
    with Health() as health:
        with health.part("import") as first:
            first.dead("no such file")
            assert not health.state.live
        assert health.state.live and health.state.ready and not health.state.parts
        second = health.part("import")
        second.ready()
        first.close()
        for speak in (first.ready, lambda: first.unready("late"), lambda: first.dead("late")):
            with pytest.raises(HandleClosed, match="the part 'import' was closed"):
                speak()
        assert health.state.ready and list(health.state.parts) == ["import"]


def test_two_parts_do_not_have_one_name() -> None:
    with Health() as health:
        health.part("database").ready()
        with pytest.raises(ValueError, match="name must be new, and there is a part 'database'"):
            health.part("database")
        assert health.state.ready


@pytest.mark.parametrize("name", ["", "two\nlines", "\x1b[31m"])
def test_a_name_that_cannot_be_shown_is_refused(name: str) -> None:
    with Health() as health:
        with pytest.raises(ValueError, match="name must be printable and not empty, not "):
            health.part(name)
        assert not health.state.parts


@pytest.mark.parametrize("name", [None, 1, b"database"])
def test_a_name_that_is_no_string_is_refused(name: Any) -> None:
    with Health() as health, pytest.raises(TypeError, match="name must be a string, not "):
        health.part(name)


def test_a_reason_that_says_nothing_is_refused_and_changes_nothing() -> None:
    with Health() as health:
        part = health.part("database")
        part.ready()
        nothing: Any = None
        for speak in (part.unready, part.dead):
            with pytest.raises(ValueError, match="reason must say something, not ' '"):
                speak(" ")
            with pytest.raises(TypeError, match="reason must be a string, not None"):
                speak(nothing)
        assert health.state.ready


def test_a_state_cannot_be_changed_and_does_not_change() -> None:
    with Health() as health:
        part = health.part("database")
        before = health.state
        part.ready()
        after = health.state
        assert not before.ready and after.ready and before != after
        part.close()
        for state in (before, after, health.state):
            parts: Any = state.parts
            with pytest.raises(TypeError):
                parts["database"] = PartState(live=True, ready=True, reason="")


async def test_whoever_has_subscribed_is_told_of_each_change_and_not_of_what_is_said_again() -> None:
    with Health() as health:
        part = health.part("database")
        with health.subscribe() as receiver:
            part.ready()
            await receiver.changed()
            assert receiver.borrow_and_update().ready
            part.ready()
            assert not receiver.has_changed()
            part.unready("connecting again")
            assert receiver.has_changed() and not receiver.borrow_and_update().ready
            health.stopping()
            assert receiver.has_changed() and receiver.borrow_and_update().stopping


async def test_whoever_watches_sees_the_last_state_and_then_the_end() -> None:
    seen: list[bool] = []

    async def watch(health: Health) -> None:
        with health.subscribe() as receiver:
            async for state in receiver:
                seen.append(state.ready)

    async with TaskGroup() as group:
        with Health() as health:
            part = health.part("database")
            group.spawn(watch(health))
            await yield_now()
            part.ready()
    assert seen == [False, True]


async def test_one_can_wait_until_the_program_is_ready() -> None:
    with Health() as health:
        await health.wait_ready()
        parts = [health.part("database"), health.part("cache")]
        async with TaskGroup() as group:
            waiting = group.spawn(health.wait_ready())
            for part in parts:
                await yield_now()
                assert not waiting.is_finished()
                part.ready()


async def test_who_waits_for_a_program_that_ends_is_told() -> None:
    health = Health()
    health.part("database")
    waiting = asyncio.ensure_future(health.wait_ready())
    await yield_now()
    health.close()
    with pytest.raises(ChannelClosed):
        await waiting


def test_after_the_end_nothing_can_be_said_but_a_part_may_be_closed() -> None:
    with Health() as health:
        part = health.part("database")
    calls = (part.ready, health.stopping, lambda: health.part("cache"), lambda: health.state, health.subscribe)
    for call in calls:
        with pytest.raises(HandleClosed, match="this Health was closed"):
            call()
    part.close()
    health.close()


def test_a_health_that_is_dropped_is_reported_with_the_line_that_made_it() -> None:
    with pytest.warns(ResourceWarning) as warned:
        Health()
        gc.collect()
    assert [str(warning.message).split(" at ")[0] for warning in warned] == ["a Health, made"]
    assert "test_health.py" in str(warned[0].message)


async def test_threads_lose_no_change_of_each_other() -> None:
    with Health() as health:
        parts = [health.part(f"part {number}") for number in range(4)]
        together = threading.Barrier(len(parts))

        def speak(number: int) -> None:
            together.wait(60)
            for _ in range(200):
                parts[number].unready("busy")
                with health.part(f"guest {number}") as guest:
                    guest.ready()
                parts[number].ready()

        await asyncio.gather(*(spawn_blocking(speak, number) for number in range(len(parts))))
        assert health.state.ready
        assert list(health.state.parts) == [part.name for part in parts]
