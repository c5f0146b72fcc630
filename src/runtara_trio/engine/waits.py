"""What the tasks of a run wait for, and what its worker does with that.

A run all of whose tasks wait costs no slot of its worker, and it may be unloaded: its body
unwinds, and is run again when what it waits for is there. A wait says until when it lasts, or
for which signal; what is known of the deadlines around it is read where it begins.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Protocol

import msgspec
import trio

from . import deadlines
from .boundary import waits_for_children
from .signals import SignalScope


class Wait(msgspec.Struct, frozen=True, kw_only=True):
    """One wait of one task."""

    until_ms: int | None = None
    """When it ends, Unix ms; None: at a signal alone."""
    signal: str | None = None
    """The id that it waits for."""
    child: str | None = None
    """The id of the child whose end it waits for."""
    block: str | None = None
    """The block of children that it waits for: all of them."""
    failing: str | None = None
    """The block of children of which one that fails ends the wait."""
    can_unload: bool = True
    """False: its worker must keep it loaded."""

    @property
    def is_sleep(self) -> bool:
        """Whether it ends with a time, and with nothing else."""
        others = (self.signal, self.child, self.block, self.failing)
        return self.until_ms is not None and all(other is None for other in others)


class Turns(Protocol):
    """What a worker is told of a run's waits."""

    def waits(self) -> None:
        """All tasks of the run may wait now."""

    def goes_on(self) -> bool:
        """A task has waited. Whether the run may work at once."""

    async def go_on(self) -> None:
        """Until the run may work again."""


class Waits:
    """The waits of one block."""

    __slots__ = ("_outside", "_signals", "_waiting", "root", "turns")

    def __init__(self, signals: SignalScope) -> None:
        self._signals = signals
        self._waiting: dict[trio.lowlevel.Task, Wait] = {}
        self.turns: Turns | None = None
        """The worker's; None: this run is not a worker's."""
        self.root: trio.lowlevel.Task | None = None
        """The task that runs the body; None: nobody asks what it waits for."""
        self._outside = 0

    def begin(self, turns: Turns | None) -> None:
        """The calling task begins the body."""
        self.root, self.turns = trio.lowlevel.current_task(), turns
        self._outside = len(self.root.child_nurseries)

    @asynccontextmanager
    async def one(self, wait: Wait, *, short: bool = False) -> AsyncIterator[None]:
        """Around a wait; its end waits until the run may work again, also where a scope of the
        body's has cancelled the wait. ``short``: it is between two tries of something."""
        if self.root is None:
            yield
            return
        task = trio.lowlevel.current_task()
        times = (wait.until_ms, deadlines.earliest_ms())
        self._waiting[task] = msgspec.structs.replace(
            wait,
            until_ms=min((one for one in times if one is not None), default=None),
            can_unload=not short and not self._is_hurried(task),
        )
        turns = self.turns
        try:
            if turns is not None:
                turns.waits()
            yield
        finally:
            del self._waiting[task]
            if turns is not None and not (self._signals.boundary.is_cancelled() or turns.goes_on()):
                await self._go_on(turns)

    async def _go_on(self, turns: Turns) -> None:
        """Wait until the run may work again, or is to end."""
        with trio.CancelScope(shield=True) as shield:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._end_with_the_run, shield)
                await turns.go_on()
                nursery.cancel_scope.cancel()

    async def _end_with_the_run(self, shield: trio.CancelScope) -> None:
        await self._signals.boundary.until_cancelled()
        shield.cancel()

    def all(self) -> list[Wait] | None:
        """What the run waits for, where all its tasks wait; None: something works."""
        if self.root is None:
            return None
        waits: list[Wait] = []
        tasks = [self.root]
        while tasks:
            task = tasks.pop()
            wait = self._waiting.get(task)
            if wait is not None:
                waits.append(wait)
            elif not (self._signals.boundary.is_collecting(task) or waits_for_children(task)):
                return None
            for nursery in task.child_nurseries[self._outside if task is self.root else 0 :]:
                tasks.extend(nursery.child_tasks)
        return waits or None

    def _is_hurried(self, task: trio.lowlevel.Task) -> bool:
        """Whether a deadline of Trio's own is around a task: it would be lost with the body."""
        known = {id(scope) for scope in deadlines.scopes()}
        status: Any = task._cancel_status  # a private name, see tests/values/test_private_names.py
        while status is not None:
            scope = status._scope
            if scope is self._signals.scope:
                return False
            if scope.deadline != math.inf and id(scope) not in known:
                return True
            status = status._parent
        return False
