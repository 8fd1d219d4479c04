"""What a critical section promises to whoever brings work from a place where it must not wait."""

import asyncio
import sys
import threading

import pytest

from yamanote.runtime import CriticalSection
from yamanote.testing import explore_preemptions


def test_work_is_done_at_once_when_nobody_is_inside():
    section, done = CriticalSection(), []
    section.run(lambda: done.append(1))
    section.do(lambda: done.append(2))
    assert done == [1, 2]


def test_work_brought_from_inside_is_done_on_the_way_out_and_in_order():
    section, done = CriticalSection(), []
    with section:
        section.run(lambda: done.append(1))
        with section:
            section.do(lambda: done.append(2))
        assert done == []
    assert done == [1, 2]


def test_nobody_enters_freshly_while_this_thread_is_inside():
    section = CriticalSection()
    with section:
        assert not section.try_enter()
    assert section.try_enter()
    section.leave()


def test_run_does_not_wait_for_another_thread_which_does_the_work_when_it_leaves():
    section, done = CriticalSection(), []
    inside, go_on = threading.Event(), threading.Event()

    def stay():
        with section:
            inside.set()
            go_on.wait()

    thread = threading.Thread(target=stay)
    thread.start()
    inside.wait()
    section.run(lambda: done.append(threading.get_ident()))
    assert done == []
    go_on.set()
    thread.join()
    assert done == [thread.ident]


def test_do_waits_for_another_thread():
    section, done = CriticalSection(), []
    inside, go_on = threading.Event(), threading.Event()

    def stay():
        with section:
            inside.set()
            go_on.wait()
            done.append("stayed")

    thread = threading.Thread(target=stay)
    thread.start()
    inside.wait()
    threading.Timer(0.001, go_on.set).start()
    section.do(lambda: done.append("done"))
    assert done == ["stayed", "done"]
    thread.join()


def test_foreign_calls_are_made_outside_and_their_errors_hurt_nobody(capsys):
    section, seen = CriticalSection(), []

    def foreign():
        seen.append(section.try_enter())
        section.leave()
        raise RuntimeError("foreign")

    with section:
        section.afterwards.append(foreign)
        section.run(lambda: 1 / 0)
    assert seen == [True]
    printed = capsys.readouterr().err
    assert "foreign" in printed
    assert "ZeroDivisionError" in printed


def test_all_work_of_all_threads_is_done_once_and_never_at_the_same_time():
    section, done, errors = CriticalSection(), [], []
    inside = 0

    def work():
        nonlocal inside
        inside += 1
        if inside != 1:
            errors.append(inside)
        done.append(None)
        inside -= 1

    def body():
        for _ in range(500):
            section.run(work)
            section.do(work)
            if section.try_enter():
                work()
                section.leave()
            else:
                section.run(work)

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=body) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    assert not errors
    assert len(done) == 4 * 500 * 3


def test_work_that_fails_hurts_nobody_and_leaves_the_section_open(capsys):
    section, done = CriticalSection(), []

    def fail():
        section.run(lambda: done.append("brought from inside"))
        raise LookupError("from inside")

    section.run(fail)
    assert "from inside" in capsys.readouterr().err
    assert done == ["brought from inside"]
    assert section.try_enter()
    section.leave()


def test_an_interruption_on_the_way_out_leaves_nothing_lying():
    section, done = CriticalSection(), []

    def interrupt():
        raise KeyboardInterrupt

    assert section.try_enter()
    section.afterwards.extend([interrupt, lambda: done.append("call")])
    section.run(interrupt)
    section.run(lambda: done.append("work"))
    with pytest.raises(KeyboardInterrupt):
        section.leave()
    assert done == ["work", "call"]
    assert section.try_enter()
    section.leave()


def test_a_cancellation_that_a_call_raises_is_no_cancellation_of_who_makes_the_call(capsys):
    section = CriticalSection()

    def cancelled():
        raise asyncio.CancelledError

    with section:
        section.afterwards.append(cancelled)
    assert "CancelledError" in capsys.readouterr().err


def test_no_preemption_loses_work_or_changes_the_order_of_what_one_thread_brings():
    def scenario():
        section, done = CriticalSection(), []

        def several():
            for number in range(3):
                section.run(lambda number=number: done.append(number))

        def one():
            section.run(lambda: done.append("other"))

        def check():
            assert sorted(done, key=str) == [0, 1, 2, "other"]
            assert [work for work in done if work != "other"] == [0, 1, 2]

        return several, one, check

    explore_preemptions(scenario, within="yamanote.runtime._critical")


def test_work_that_was_brought_before_and_left_for_the_next_to_leave_is_done_first():
    section, done = CriticalSection(), []
    section._work.append(lambda: done.append(1))  # its thread found somebody inside, who has left since
    section.run(lambda: done.append(2))
    assert done == [1, 2]
