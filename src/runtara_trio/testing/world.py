"""The world outside the program: what it did to it outlives a crash."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any, TypeVar

from ..errors import SdkError

T = TypeVar("T")


class World:
    """The effects of one case, over all starts of its program."""

    def __init__(self) -> None:
        self.effects: dict[str, Any] = {}
        self.conflicts: list[str] = []
        self.alive = True
        """Whether the process that runs now has not crashed: what a dead one does, by
        unwinding, has not happened."""

    def record(self, key: str | None, value: Any) -> Any:
        if not self.alive:
            return value
        if key is None:
            key = f"without a key, number {len(self.effects) + 1}"
        before = self.effects.setdefault(key, value)
        if before != value:
            self.conflicts.append(f"{key!r} was {before!r}, and then {value!r}")
        return before


class OfProcess(World):
    """The world as one process sees it: what that does once it is dead has not happened."""

    def __init__(self, world: World) -> None:
        self.effects, self.conflicts = world.effects, world.conflicts
        self.alive = True


_world: ContextVar[World | None] = ContextVar("runtara_trio_world", default=None)


def effect(key: str | None, value: T) -> T:
    """Note an effect on the world, as a fake of a payment service or a mailer does.

    Like an idempotent service it knows its keys: it returns the value that was noted
    first. ``key`` None: the service has no such keys, and every call is an effect of its own.

    Raises:
      SdkError: no program of the test kit is around the caller.
    """
    world = _world.get()
    if world is None:
        raise SdkError("effect() is for programs that runtara_trio.testing runs")
    noted: T = world.record(key, value)
    return noted


def enter(world: World) -> None:
    """Make this the world of the calling task and its children."""
    _world.set(world)
