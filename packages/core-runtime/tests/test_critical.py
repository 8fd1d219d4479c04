"""What a critical section promises to whoever brings work from a place where it must not wait."""

import sys
import threading

from yamanote.runtime import CriticalSection


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
