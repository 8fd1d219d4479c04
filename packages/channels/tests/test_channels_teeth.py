"""The ladder can bite: each of these wrong channels is caught by a scenario that the right one passes."""

import gc
from collections.abc import Callable
from dataclasses import dataclass
from itertools import repeat

import pytest

from yamanote.channels import Receiver, Sender
from yamanote.channels._handover import ENDED, Handover
from yamanote.channels._permit import Sending
from yamanote.channels._rendezvous import RendezvousHandover
from yamanote.sync import PermitPool
from yamanote.testing import Counterexample, explore, explore_cancellations, explore_preemptions, replay

from .test_channels_explored import CASTS, Cast
from .test_channels_preempted import a_branch_loses_in_the_very_moment, at_once

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")  # what runs that went wrong have dropped


@dataclass(frozen=True)
class Tooth:
    """A method that is replaced by a wrong one, and the scenario that must notice."""

    kind: type
    method: str
    wrong: Callable[..., object]
    explorer: Callable[..., object]
    cast: Cast


def keeps_what_was_handed_over(handover, waiter):
    if not waiter.settled and waiter in handover.receivers:
        handover.receivers.remove(waiter)


def puts_back_at_the_end(handover, number, item):
    handover.items.append(item)


def puts_each_before_all_others(handover, number, item):
    handover.items.appendleft(item)


def puts_back_and_wakes_nobody(handover, waiter):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Handover, "serve_locked", lambda handover: False)
        take_back(handover, waiter)


def serves_the_last_receiver_first(handover):
    handover.receivers.reverse()
    try:
        return serve(handover)
    finally:
        handover.receivers.reverse()


def hands_over_twice(handover):
    if handover.items and len(handover.receivers) > 1 and ENDED not in handover.receivers:
        handover.items.append(handover.items[0])
    return serve(handover)


def forgets_the_receivers_at_the_end(handover):
    if not handover.ended and not handover.items and not handover.under_way():
        handover._announce_end()
    return False


def ends_although_permits_are_out(handover):
    return False


def drops_what_is_left(handover, items):
    pass


def never_gives_the_room_back(handover, waiter):
    if not waiter.settled:
        delist(handover, waiter)


def gives_the_room_back_twice(pool, count):
    pool.tokens.extend(repeat(None, 2 * count))
    pool.serve()


def serves_the_last_sender_first(pool):
    pool.waiters.reverse()
    try:
        return serve_senders(pool)
    finally:
        pool.waiters.reverse()


def takes_from_a_sender_though_nobody_waits(handover):
    return PermitPool.serve_locked(handover) or any(
        waiter.claim() and waiter.settle(waiter.operation.grant()) is None and handover.waiters.remove(waiter) is None
        for waiter in handover.waiters.copy()
        if waiter.is_waiting()
    )


def parks_a_sender_without_looking_for_receivers(handover, waiter, want):
    PermitPool.enlist(handover, waiter, want)


def drops_without_telling(handover, item):
    handover.dropped += 1


def sends_again_when_it_is_taken(sending):
    sending.sender._items.extend([sending.item, sending.item])


def forgets_who_waits_for_the_close(handover, cause=None):
    handover.watchers.clear()
    shut(handover, cause)


def leaves_its_parked_calls(end):
    pass


def numbers_what_goes_out_again_anew(handover, item):
    return handover.number()


take_back = Handover._take_back
serve = Handover.serve_locked
shut = Handover.shut
delist = PermitPool._delist
serve_senders = Handover._serve_senders

TEETH = [
    Tooth(Handover, "_take_back", keeps_what_was_handed_over, explore_cancellations, CASTS["any number"]),
    Tooth(Handover, "_take_back", puts_back_and_wakes_nobody, explore_cancellations, CASTS["any number"]),
    Tooth(Handover, "_put_back", puts_back_at_the_end, explore_cancellations, CASTS["batches without end"]),
    Tooth(Handover, "_put_back", puts_each_before_all_others, explore, CASTS["receivers are cancelled"]),
    Tooth(Handover, "_number_of", numbers_what_goes_out_again_anew, explore, CASTS["receivers are cancelled"]),
    Tooth(Handover, "serve_locked", serves_the_last_receiver_first, explore, CASTS["one place"]),
    Tooth(Handover, "serve_locked", hands_over_twice, explore, CASTS["one place"]),
    Tooth(Handover, "_conclude", forgets_the_receivers_at_the_end, explore, CASTS["one place"]),
    Tooth(Handover, "under_way", ends_although_permits_are_out, explore, CASTS["shutdown"]),
    Tooth(Handover, "_deliver_nowhere", drops_what_is_left, explore, CASTS["receivers leave"]),
    Tooth(Handover, "shut", forgets_who_waits_for_the_close, explore, CASTS["receivers leave"]),
    Tooth(PermitPool, "_delist", never_gives_the_room_back, explore_cancellations, CASTS["permits"]),
    Tooth(PermitPool, "give_back", gives_the_room_back_twice, explore, CASTS["permits"]),
    Tooth(Handover, "_serve_senders", serves_the_last_sender_first, explore, CASTS["one place"]),
    Tooth(
        RendezvousHandover,
        "_serve_senders",
        takes_from_a_sender_though_nobody_waits,
        explore,
        CASTS["hand to hand"],
    ),
    Tooth(
        RendezvousHandover,
        "enlist",
        parks_a_sender_without_looking_for_receivers,
        explore,
        CASTS["hand to hand, selected"],
    ),
    Tooth(Handover, "drop", drops_without_telling, explore, CASTS["the oldest are dropped"]),
    Tooth(Sending, "grant", sends_again_when_it_is_taken, explore, CASTS["one place"]),
    Tooth(Sender, "_end_calls", leaves_its_parked_calls, explore, CASTS["a sender is closed"]),
    Tooth(Receiver, "_end_calls", leaves_its_parked_calls, explore, CASTS["a receiver is closed"]),
]


@pytest.mark.parametrize("tooth", TEETH, ids=lambda tooth: f"{tooth.kind.__name__} {tooth.wrong.__name__}")
def test_a_wrong_channel_is_caught_and_can_be_shown_again(tooth, monkeypatch):
    monkeypatch.setattr(tooth.kind, tooth.method, tooth.wrong)
    with pytest.raises(Counterexample) as caught:
        tooth.explorer(tooth.cast, runs=500)
    with pytest.raises(Counterexample):
        replay(tooth.cast, caught.value.token)
    del caught
    gc.collect()


def parks_a_receiver_without_looking_again(receiver, waiter):
    waiter.operation = receiver
    receiver._core.receivers.append(waiter)


def parks_a_sender_without_looking_again(pool, waiter, want):
    waiter.operation = want
    pool.waiters.append(waiter)


def drops_what_a_branch_has_lost(handover, number, item):
    pass


def keeps_the_room(handover, number, item):
    handover._restore(number, item)


@pytest.mark.parametrize(
    ("kind", "method", "wrong", "scenario"),
    [
        (
            Receiver,
            "register",
            parks_a_receiver_without_looking_again,
            at_once(1, "empty", "send_nowait", "park_receiver"),
        ),
        (PermitPool, "enlist", parks_a_sender_without_looking_again, at_once(1, "full", "recv_nowait", "park_sender")),
        (Handover, "give_back_item", drops_what_a_branch_has_lost, a_branch_loses_in_the_very_moment),
        (Handover, "_restore_with_room", keeps_the_room, a_branch_loses_in_the_very_moment),
    ],
)
def test_a_channel_that_is_wrong_among_threads_is_caught_and_can_be_shown_again(
    kind, method, wrong, scenario, monkeypatch
):
    monkeypatch.setattr(kind, method, wrong)
    with pytest.raises(Counterexample) as caught:
        explore_preemptions(scenario, within="yamanote")
    with pytest.raises(Counterexample):
        explore_preemptions(scenario, within="yamanote", token=caught.value.token)
    del caught
    gc.collect()
