"""Functions with a memory: what makes `scan`, `inspect`, `skip_while` and `dedup` of mapping and filtering.

Invariant: what is made of an async function is async, and remembers nothing before the function has answered, so a call
that was cancelled can be repeated.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from yamanote.streams._arguments import is_async

__all__ = ["accumulating", "changing", "inspecting", "skipping"]

Function = Callable[[Any], Any]


def accumulating(state: Any, function: Callable[[Any, Any], Any]) -> Function:
    """What maps an item to the state behind it."""

    def step(item: Any) -> Any:
        nonlocal state
        state = function(state, item)
        return state

    async def step_async(item: Any) -> Any:
        nonlocal state
        state = await function(state, item)
        return state

    return step_async if is_async(function) else step


def inspecting(function: Function) -> Function:
    """What maps an item to itself, once `function` has seen it."""

    def show(item: Any) -> Any:
        function(item)
        return item

    async def show_async(item: Any) -> Any:
        await function(item)
        return item

    return show_async if is_async(function) else show


def skipping(predicate: Function) -> Function:
    """What says no as long as `predicate` says yes, and then does not ask it any more."""
    begun = False

    def is_wanted(item: Any) -> bool:
        nonlocal begun
        begun = begun or not predicate(item)
        return begun

    async def is_wanted_async(item: Any) -> bool:
        nonlocal begun
        begun = begun or not await predicate(item)
        return begun

    return is_wanted_async if is_async(predicate) else is_wanted


def changing(key: Function | None) -> Function:
    """What tells whether the key of an item, or the item itself, is another one than last time."""
    last: list[Any] = []

    def is_new(value: Any) -> bool:
        if last and last[0] == value:
            return False
        last[:] = [value]
        return True

    if key is None:
        return is_new

    def has_new(item: Any) -> bool:
        return is_new(key(item))

    async def has_new_async(item: Any) -> bool:
        return is_new(await key(item))

    return has_new_async if is_async(key) else has_new
