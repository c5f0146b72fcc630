"""Where tasks stop for a pause, and the steps that a pause waits for.

A pause is two-phase. *Asked*, nothing is interrupted: no new step starts, and a task that
reaches a boundary parks there. When at least one is parked and no step runs, nothing is
half done: the scope is cancelled, and every parked task goes on into it (with
``on_pause="hold"`` it stays parked, see ``holding``). When the grace
is over it is cancelled all the same: that is the scope's own deadline, so there is no
timer to keep.

A step that waits at a boundary inside itself does not count as running: it would wait for
itself. It does so when its task is parked, or waits for what its children bring, and so do all
tasks that it has started there; as long as one of them works, the step is running. Trio
tells nobody when a task ends, so the boundary checks it again and again while a pause is asked.

A resume in the first phase withdraws the pause. Once the scope is cancelled, by
whatever, nothing parks: what is parked inside a shield simply goes on.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from functools import cache
from types import CodeType

import trio

from .. import logs
from ..tasks import RepeatedEvent

CHECK_STEPS = 0.05
"""Seconds between two checks of the steps while a pause is asked."""

CHECK_HELD = 0.5
"""The same while it holds."""


@cache
def _nursery_exit() -> CodeType:
    """The code in which a task waits for the children of a nursery."""
    return type(trio.open_nursery()).__aexit__.__code__


def waits_for_children(task: trio.lowlevel.Task) -> bool:
    """Whether a task is at the end of a nursery, for its children."""
    return any(frame.f_code is _nursery_exit() for frame, _ in task.iter_await_frames())


class Step:
    """Work that a pause must not tear apart."""

    __slots__ = ("key", "task")

    def __init__(self, key: str | None) -> None:
        self.key = key
        self.task = trio.lowlevel.current_task()


_steps_around: ContextVar[tuple[Step, ...]] = ContextVar("runtara_trio_steps", default=())


class Boundary:
    """The boundaries of one block."""

    def __init__(
        self,
        instance_id: str,
        scope: trio.CancelScope,
        grace: float,
        hold: Callable[[], None] | None = None,
    ) -> None:
        """``hold``: what is done with a pause that has settled; None: it cancels the scope."""
        self._instance_id = instance_id
        self._scope = scope
        self._grace = grace
        self._hold = hold
        # Thousands of blocks may be open and idle: what one does not use is not made.
        self._steps: dict[Step, None] = {}
        self._waiting: dict[trio.lowlevel.Task, int] = {}
        self._collecting: set[trio.lowlevel.Task] = set()
        self._changed = RepeatedEvent()
        self.pause_requested = False
        self.settled = False
        """Nothing is half done: a pause has cancelled the scope, or holds it."""
        self.reached_at = 0.0
        """When the body came to a boundary last, by Trio's clock."""
        self._closed = False

    # ---- the operator's side

    def ask(self, grace: float | None = None) -> None:
        """A pause came; or a drain, whose ``grace`` may be shorter."""
        if self._closed or self.is_cancelled():
            return
        if not self.pause_requested:
            self.pause_requested = True
            self._scope.deadline = math.inf
            self._settle()
        elif grace is None:
            return
        if not self.settled:
            seconds = self._grace if grace is None else grace
            self._scope.deadline = min(self._scope.deadline, trio.current_time() + seconds)

    async def check_steps(self) -> None:
        """Settle a pause that nothing else would; ends with the pause or the scope."""
        while self.pause_requested and not self.is_cancelled():
            # Also while it is held: a scope around the block tells shielded tasks nothing.
            await trio.sleep(CHECK_HELD if self.settled else CHECK_STEPS)
            self._settle()
        self.release()

    def withdraw(self) -> bool:
        """A resume came. False where the pause has cancelled the scope already."""
        if self._scope.cancel_called:
            return False
        self.pause_requested = self.settled = False
        self._scope.deadline = math.inf
        self.release()
        return True

    def close(self) -> None:
        """The body has ended, or said how: no pause concerns it any more."""
        self._closed = True
        if not self._scope.cancel_called:
            self.withdraw()

    async def until_cancelled(self) -> None:
        """Until the scope is cancelled, by whatever."""
        while not self.is_cancelled():
            with trio.move_on_at(self._scope.deadline):
                await self._changed.wait()

    def release(self) -> None:
        """Wake what is parked: the pause or the scope has changed."""
        self._changed.set()

    # ---- the program's side

    async def reach(self) -> None:
        """A boundary: park while a pause is asked. Raises Cancelled in a cancelled scope."""
        self.reached_at = trio.current_time()
        if self.pause_requested:
            await trio.lowlevel.cancel_shielded_checkpoint()  # a resume may be here already
            logs.parked(instance_id=self._instance_id, running=len(self._steps))
            with self.waiting():
                while self.pause_requested and not self.is_cancelled():
                    with trio.move_on_at(self._scope.deadline):
                        await self._changed.wait()
        await trio.lowlevel.checkpoint_if_cancelled()

    async def reach_saved(self) -> None:
        """A boundary behind a save, whose result is handed out, as a replay hands it out: where
        a scope inside the body is cancelled, Cancelled comes at the next await.

        Only a pause lets nothing go on behind it.
        """
        self.reached_at = trio.current_time()
        if self.pause_requested:
            try:
                await self.reach()
            except trio.Cancelled:
                if self.is_cancelled():
                    raise

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Around a wait that is a boundary for its whole length. Call ``reach`` after it."""
        task = trio.lowlevel.current_task()
        self._waiting[task] = self._waiting.get(task, 0) + 1
        try:
            self._settle()
            yield
        finally:
            self._waiting[task] -= 1
            if not self._waiting[task]:
                del self._waiting[task]

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """Around a wait for what child tasks bring: it neither works nor is a boundary."""
        task = trio.lowlevel.current_task()
        self._collecting.add(task)
        try:
            yield
        finally:
            self._collecting.discard(task)

    def is_collecting(self, task: trio.lowlevel.Task) -> bool:
        """Whether a task waits for what others bring."""
        return task in self._collecting

    @asynccontextmanager
    async def step(self, key: str | None, *, saves: bool = False) -> AsyncIterator[None]:
        """A step; its entry and its exit are boundaries.

        An error goes out at once: it must not wait behind a pause, nor be replaced by the
        Cancelled that ends one.

        Args:
          key: what its ``step_key`` is made of.
          saves: it ends with a save, whose result must be handed out.
        """
        await self.reach()
        around = _steps_around.get()
        step = Step(key)
        self._steps[step] = None
        _steps_around.set((*around, step))
        try:
            yield
        finally:
            _steps_around.set(around)
            del self._steps[step]
            self._settle()
        await (self.reach_saved() if saves else self.reach())

    @property
    def in_step(self) -> bool:
        """Whether the calling task is inside a step of this block."""
        return any(step in self._steps for step in _steps_around.get())

    @property
    def step_key(self) -> str | None:
        """The checkpoint id that the innermost step around the calling task was given."""
        inside = [step for step in _steps_around.get() if step in self._steps]
        return inside[-1].key if inside else None

    # ----

    def is_cancelled(self) -> bool:
        """Whether the body's scope is cancelled, by itself or by one around the block.

        Of the latter Trio tells only tasks that are not shielded from it, so its own
        record is asked (a private name, see ``tests/values/test_private_names.py``).
        """
        record = self._scope._cancel_status  # None: not entered yet, or left
        return self._scope.cancel_called or (record is not None and record.effectively_cancelled)

    def _settle(self) -> None:
        """Cancel the scope if a pause is asked and nothing would be half done."""
        if (
            self.pause_requested
            and not self.settled
            and self._waiting
            and not self._scope.cancel_called
            and all(self._waits_inside(step) for step in self._steps)
        ):
            self.settled = True
            logs.settled(instance_id=self._instance_id)
            if self._hold is None:
                self._scope.cancel()
                self.release()
            else:
                self._scope.deadline = math.inf
                self._hold()

    def _waits_inside(self, step: Step) -> bool:
        """Whether a step waits at a boundary inside itself, and nothing in it works."""
        at_boundary = False
        tasks = [step.task]
        while tasks:
            task = tasks.pop()
            if step not in task.context.get(_steps_around, ()):
                continue  # started by the same task, but outside the step
            if task in self._waiting:
                at_boundary = True
            elif task not in self._collecting and not waits_for_children(task):
                return False
            for nursery in task.child_nurseries:
                tasks.extend(nursery.child_tasks)
        return at_boundary
