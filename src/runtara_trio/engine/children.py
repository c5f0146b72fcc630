"""A block of children: instances that a running one starts, and waits for as a nursery does.

The rules are a nursery's. A child that fails cancels its siblings and the body of the block; the
block is left when all have ended. But where the run of the parent ends, and not the parent, its
children go on, and its next run finds them: the same starts give the same ids.

Starts go out in batches, in a task of the services, and the end of every child is watched from
then on. In a replay the failure that ended an earlier run of the block is known before the body
has got back what it had got then, so it waits for that, as a deadline does that has passed.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from .. import logs
from ..codec import error_text
from ..errors import InstanceFailed, LeaseLost, SdkError
from ..messages import (
    CancelChildren,
    Existing,
    GetResults,
    NewRun,
    Result,
    Started,
    Starter,
    StartRuns,
)
from ..types import InstanceStatus
from . import deadlines
from .block import Block
from .deadlines import NEVER_MS, Deadline
from .outcome import contains, is_trouble, leaves_of
from .waits import Wait

BATCH = 1000
"""Children that are started in one commit."""

BATCH_BYTES = 8 * 2**20

MOST_QUEUED = 4 * BATCH
"""Starts that wait to be sent, before the next one waits for that."""

RETRY = 1.0
"""Seconds before a cancel of the children is sent again that the store did not take."""


class Child:
    """One child, as its parent's run knows it."""

    def __init__(self, group: Group, instance_id: str, workflow: str) -> None:
        self._group = group
        self.instance_id = instance_id
        self.workflow = workflow
        self.found = False
        """It was there before this run."""
        self.started = trio.Event()
        """It is stored, or was refused."""
        self.looked = trio.Event()
        """It is known whether it has ended."""
        self.ended = trio.Event()
        self.result: Result | None = None
        self.error: Exception | None = None
        """Why it has no result: what was wrong with its start, or how it ended."""

    @property
    def number(self) -> float:
        """Of its end; without one it comes last."""
        number = None if self.result is None else self.result.number
        return math.inf if number is None else number

    # ---- what the watch of ends tells

    def give(self, result: Result) -> None:
        self.result = result
        if result.status is not InstanceStatus.COMPLETED:
            text = error_text(self._group.codec, self.instance_id, result.error)
            self.error = InstanceFailed(self.instance_id, result.status, text)
        self._group.has_ended(self)

    def not_yet(self) -> None:
        self.looked.set()

    def fail(self, error: Exception) -> None:
        """It has no result, and never will."""
        self.error = error
        self._group.has_ended(self)


class Group:
    """The children of one block of them."""

    def __init__(self, block: Block, name: str) -> None:
        self._block = block
        self.codec = block.state.codec
        self._name = name
        self._queued: list[tuple[NewRun, Child]] = []
        self._sent = trio.Event()
        self._sending = False
        self._children: dict[str, Child] = {}
        self._unended = 0
        self._none_left = trio.Event()
        self._cancels = False
        self._closed = False
        self.scope = trio.CancelScope()
        """Around the body of the block."""
        self.deadline = Deadline(self.scope, NEVER_MS, over=False)
        """It has passed where a child had failed before this run came to it."""
        self.failures: list[Child] = []

    # ---- starting

    async def start(self, run: NewRun) -> Child:
        """Start a child, without a wait for its commit; that of an earlier run is the same."""
        block = self._block
        block.state.check_writable()
        if self._closed:
            raise SdkError(f"the block of children {self._name!r} is closed: nothing is started")
        await block.boundary.reach()
        if deadlines.replaying():
            await self._check_replay(run.instance_id)
        if len(self._queued) >= MOST_QUEUED:
            with block.boundary.collecting():
                await self._sent.wait()
        child = Child(self, run.instance_id, run.workflow)
        self._children[run.instance_id] = child
        self._unended += 1
        self._none_left = trio.Event() if self._unended == 1 else self._none_left
        self._queued.append((run, child))
        block.state.has_children = True
        if not self._sending:
            self._sending = True
            block.shared.start_soon(self._send)
        return child

    async def _check_replay(self, instance_id: str) -> None:
        """A start that is new ends the replay before a deadline that has passed."""
        known = await self._block.requests.request(GetResults(instance_ids=(instance_id,)))
        if instance_id in known.results:
            deadlines.replayed()
        else:
            await deadlines.new_work()

    async def _send(self) -> None:
        """Send what is queued, batch by batch. In a task of the services."""
        try:
            await trio.lowlevel.checkpoint()  # those that are started in a row go out in one
            while self._queued:
                batch = self._next_batch()
                try:
                    reply = await self._start(tuple(run for run, _ in batch))
                except SdkError as exc:
                    if is_trouble(exc) and self._block.state.is_writable:
                        logs.request_failed(task=StartRuns.__name__, error=str(exc))
                        self._queued[:0] = batch
                        await trio.sleep(RETRY)
                        continue
                    for _, child in batch:
                        child.started.set()
                        child.fail(exc)
                else:
                    for (run, child), existing in zip(batch, reply.existing, strict=True):
                        self._is_started(run, child, existing)
                self._sent.set()
                self._sent = trio.Event()
            if self._cancels:  # while this was sent; or before, when nothing was left to send
                await self._cancel()
        finally:
            self._sending = False

    def _next_batch(self) -> list[tuple[NewRun, Child]]:
        size = count = 0
        for run, _ in self._queued[:BATCH]:
            size += len(run.input)
            if count and size > BATCH_BYTES:
                break
            count += 1
        batch, self._queued = self._queued[:count], self._queued[count:]
        return batch

    async def _start(self, runs: tuple[NewRun, ...]) -> Started:
        state = self._block.state
        by = Starter(instance_id=state.instance_id, lease=state.lease_for_write(), block=self._name)
        return await self._block.requests.request(
            StartRuns(tenant_id=state.tenant_id, runs=runs, by=by)
        )

    def _is_started(self, run: NewRun, child: Child, existing: Existing | None) -> None:
        child.started.set()
        if existing is not None:
            child.found = True
            if existing.parent_id != self._block.instance_id:
                child.fail(
                    SdkError(
                        f"instance {run.instance_id!r} exists, and is not a child of "
                        f"{self._block.instance_id!r}; give the child another name="
                    )
                )
                return
            if existing.workflow != run.workflow:
                child.fail(
                    SdkError(
                        f"the child {run.instance_id!r} was started with the workflow "
                        f"{existing.workflow!r}, not {run.workflow!r}; give the child another name="
                    )
                )
                return
        if not self._closed:
            self._block.shared.ends.add(run.instance_id, child)

    # ---- ends

    def has_ended(self, child: Child) -> None:
        """A child has a result, or never will."""
        if child.ended.is_set():
            return
        self._block.shared.ends.remove(child.instance_id, child)
        child.looked.set()
        child.ended.set()
        self._unended -= 1
        if self._unended == 0:
            self._none_left.set()
        if child.error is not None and (child.result is None or child.result.failed):
            self._fail(child)

    def _fail(self, child: Child) -> None:
        """As in a nursery: the others are cancelled, and the body."""
        self.failures.append(child)
        if child.found and self._block.past.resumed:
            if not self.deadline.over:
                self.deadline.pass_now()
        else:
            self.scope.cancel()
        self.cancel_all()

    def cancel_all(self) -> None:
        """Cancel the children that have not ended. What was not sent is not started."""
        unsent, self._queued = self._queued, []
        for _, child in unsent:
            child.started.set()
            child.looked.set()
            child.ended.set()
            self._unended -= 1
        if self._unended == 0:
            self._none_left.set()
        elif not self._cancels and not self._sending:
            self._block.shared.start_soon(self._cancel)
        self._cancels = True

    async def _cancel(self) -> None:
        state = self._block.state
        while self._unended and state.is_writable:
            try:
                await self._block.requests.request(
                    CancelChildren(
                        instance_id=state.instance_id, lease=state.lease, block=self._name
                    )
                )
            except LeaseLost:
                return
            except SdkError as exc:
                if not is_trouble(exc):
                    raise
                logs.request_failed(task=CancelChildren.__name__, error=str(exc))
                await trio.sleep(RETRY)
            else:
                return

    # ---- waiting

    async def result(self, child: Child) -> Result:
        """The result of a child that has completed. Raises why it has none."""
        await self._wait(child.started, Wait(), short=True)
        if deadlines.replaying():
            with deadlines.asking():
                await child.looked.wait()
            await self._replayed(child)
        await self._wait(child.ended, Wait(child=child.instance_id))
        await self._block.boundary.reach_saved()
        if child.error is not None:
            raise child.error
        if child.result is None:  # it was never sent: the block is cancelled
            await trio.sleep_forever()
            raise AssertionError("a cancelled block went on")
        return child.result

    async def _replayed(self, child: Child) -> None:
        """An end that came behind what has cancelled an earlier run is new, as one that is to
        come. So is one that the block itself has brought about."""
        first = min((one.number for one in self.failures), default=math.inf)
        result = child.result
        if result is None or first < child.number or result.by_parent:
            await deadlines.new_work()
        elif result.ended_ms is not None:
            await deadlines.wait_over(result.ended_ms)
        deadlines.replayed()

    async def _wait(self, event: trio.Event, wait: Wait, *, short: bool = False) -> None:
        """Wait for something, as a boundary, and without a slot of the worker."""
        if event.is_set():
            return
        block = self._block
        with block.boundary.waiting(), block.history.wait_span(wait.child, wait.block):
            async with block.waits.one(wait, short=short):
                await event.wait()

    async def until_all_ended(self, *, failing: bool = False) -> None:
        """Wait for all children. ``failing``: one that fails cancels the wait."""
        for child in list(self._children.values()):
            await self._wait(child.started, Wait(), short=True)
        if deadlines.replaying():
            for child in self._children.values():
                with deadlines.asking():
                    await child.looked.wait()
                await self._replayed(child)
        if self._unended:
            name = self._name
            wait = Wait(block=name, failing=name if failing else None)
            await self._wait(self._none_left, wait)
        await self._block.boundary.reach_saved()

    async def end_soon(self) -> None:
        """A scope around the block is cancelled: so are the children, and waited for within
        ``final_timeout``."""
        self.cancel_all()
        signals, boundary = self._block.signals, self._block.boundary
        with trio.CancelScope(shield=True) as shield:
            shield.deadline = trio.current_time() + signals.final_timeout
            signals.saves.add(shield)
            try:
                with boundary.waiting():
                    await self._none_left.wait()
            finally:
                signals.saves.discard(shield)

    def close(self) -> None:
        """Nothing is started or watched any more."""
        self._closed = True
        for child in self._children.values():
            self._block.shared.ends.remove(child.instance_id, child)
            child.started.set()


@asynccontextmanager
async def open_group(block: Block, name: str) -> AsyncIterator[Group]:
    """A block of children.

    Raises:
      ExceptionGroup: of what the body raised and how children have failed.
    """
    group = Group(block, name)
    left: BaseException | None = None
    before = deadlines.enter(group.deadline)
    try:
        try:
            with group.scope:
                try:
                    yield group
                    await group.until_all_ended(failing=True)
                finally:
                    deadlines.leave(before)
        except BaseException as exc:
            left = exc
        await _end(block, group, left)
        errors = [] if left is None else [left]
        inside = leaves_of(left)
        for child in sorted(group.failures, key=lambda one: one.number):
            assert child.error is not None
            if child.error not in inside:
                errors.append(child.error)
        if errors:
            raise BaseExceptionGroup(f"children of instance {block.instance_id!r}", errors)
    finally:
        group.close()
        left = None


async def _end(block: Block, group: Group, left: BaseException | None) -> None:
    """The body has ended: wait for the children, as it must be. Raises what is to leave at once."""
    if left is not None:
        # The run ends, and not the instance: its next run finds the children.
        if block.boundary.is_cancelled() or is_trouble(left):
            raise left
        if contains(left, trio.Cancelled):
            await group.end_soon()
            raise left
        if not all(isinstance(leaf, Exception) for leaf in leaves_of(left)):
            raise left
        group.cancel_all()
    try:
        await group.until_all_ended()
    except trio.Cancelled:
        if not block.boundary.is_cancelled():
            await group.end_soon()
        raise
