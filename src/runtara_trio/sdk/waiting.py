"""Durable waits. Wall time decides, Trio waits; each is a boundary for its whole length."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import trio

from .. import logs
from ..clock import Clock, is_steady, milliseconds
from ..engine import deadlines
from ..engine.block import Block
from ..engine.deadlines import Deadline
from ..engine.waits import Wait
from ..errors import StoreError
from ..ids import deadline_id, ended_id, message_id, own_record, timeout_id
from ..messages import Request, SignalTaken, Sleep, TakeMessage, TakeSignal
from ..types import StepKind

CHECK_CLOCK = 60.0
"""Seconds after which a wait is checked against the wall clock: it may have jumped."""

IN_TIME, TOO_LATE = b"\1", b"\0"
"""How the work under a deadline ended, as it is saved."""


async def sleep(block: Block, seconds: float, checkpoint_id: str, state: bytes) -> None:
    """Save when to wake, then wait for what is left of it."""
    clock = block.shared.clock
    block.past.touch(checkpoint_id)
    reply = await block.requests.save(
        Sleep(
            instance_id=block.instance_id,
            lease=block.state.lease_for_write(),
            checkpoint_id=checkpoint_id,
            wake_at_ms=milliseconds(clock.now() + seconds),
            state=state,
        )
    )
    block.inbox.deliver(reply.pending_signal, reply.version)
    left = _left(clock, reply.wake_at_ms)
    logs.sleeping(instance_id=block.instance_id, checkpoint_id=checkpoint_id, seconds=left)
    if left > 0:
        await deadlines.new_work()
    else:
        await deadlines.wait_over(reply.wake_at_ms)
    with block.boundary.waiting():
        if left > 0:
            with block.history.step(StepKind.SLEEP, checkpoint_id):
                async with block.waits.one(Wait(until_ms=reply.wake_at_ms)):
                    while (left := _left(clock, reply.wake_at_ms)) > 0:  # noqa: ASYNC110
                        await trio.sleep(_next_look(clock, left))
    await block.boundary.reach_saved()


Taking = Callable[[bool], Request[SignalTaken]]
"""The message that takes what is waited for; True: or saves that it did not come."""


async def wait_for_signal(
    block: Block, checkpoint_id: str, timeout: float | None, asks: Callable[[], str | None]
) -> bytes | None:
    """Take a custom signal, waiting until there is one. None: there was none in time; so it is
    in every replay. ``asks`` gives the JSON schema of what is wanted, for people."""

    def take(give_up: bool) -> TakeSignal:
        return TakeSignal(
            instance_id=block.instance_id,
            lease=block.state.lease_for_write(),
            checkpoint_id=checkpoint_id,
            give_up=give_up,
        )

    block.past.touch(checkpoint_id)
    noted = (StepKind.SIGNAL, checkpoint_id)
    stored_as = timeout_id(checkpoint_id)
    return await _wait(block, checkpoint_id, stored_as, timeout, take, noted, asks)


async def receive(block: Block, name: str, saved_as: str, timeout: float | None) -> bytes | None:
    """Take the oldest message under a name; the same, otherwise."""

    def take(give_up: bool) -> TakeMessage:
        return TakeMessage(
            instance_id=block.instance_id,
            lease=block.state.lease_for_write(),
            name=name,
            checkpoint_id=saved_as,
            give_up=give_up,
        )

    noted = (StepKind.MESSAGE, own_record(saved_as)[1])
    return await _wait(block, message_id(name), timeout_id(saved_as), timeout, take, noted)


async def _wait(
    block: Block,
    waited_for: str,
    timeout_as: str,
    timeout: float | None,
    take: Taking,
    noted: tuple[StepKind, str],
    asks: Callable[[], str | None] = lambda: None,
) -> bytes | None:
    """Take something, waiting until it is there; ``noted``: as which step."""
    waited = False
    until = None
    try:
        with block.boundary.waiting(), contextlib.ExitStack() as step:
            while True:
                with block.inbox.hints.wait(waited_for) as hinted:
                    over = until is not None and _left(block.shared.clock, until) <= 0
                    taken = await block.requests.save(take(over))
                    if taken.payload is not None or taken.timed_out:
                        break
                    if timeout is not None and until is None:
                        until = await _saved_time(block, timeout_as, timeout)
                    if not waited:
                        open_step = step.enter_context(block.history.step(*noted))
                        if open_step is not None:
                            open_step.asks = asks()
                        logs.waiting(instance_id=block.instance_id, checkpoint_id=waited_for)
                    waited = True
                    async with block.waits.one(Wait(until_ms=until, signal=waited_for)):
                        await _hint_or_time(block, hinted, until)
    finally:
        if waited:
            block.inbox.stop_waiting(waited_for)
    await block.boundary.reach_saved()
    return taken.payload


async def _hint_or_time(block: Block, hinted: trio.Event, until: int | None) -> None:
    """Wait for a hint, or until a wall time; it may come a little earlier."""
    if until is None:
        await hinted.wait()
        return
    clock = block.shared.clock
    while (left := _left(clock, until)) > 0 and not hinted.is_set():
        with trio.move_on_after(_next_look(clock, left)):
            await hinted.wait()


@asynccontextmanager
async def deadline(
    block: Block, checkpoint_id: str, seconds: float
) -> AsyncIterator[trio.CancelScope]:
    """A cancel scope with a wall time at which it cancels, saved first.

    How it ended is saved as well: what was done in time stays so, however late it is when a
    replay comes there.
    """
    with block.uses.once("deadline", checkpoint_id, around_body=True):
        block.past.touch(checkpoint_id)
        ended = await block.requests.find(ended_id(checkpoint_id))
        until = await _saved_time(block, deadline_id(checkpoint_id), seconds)
        await block.boundary.reach()
        scope = trio.CancelScope()
        if ended == IN_TIME:
            with scope:
                yield scope
            return
        clock = block.shared.clock
        over = ended == TOO_LATE or _left(clock, until) <= 0
        durable = Deadline(scope, until, over=over, recorded=ended == TOO_LATE)
        keeping = trio.CancelScope()
        with scope:
            before = deadlines.enter(durable)
            if not over:
                durable.cancel_at(trio.current_time() + _left(clock, until))
                if not is_steady(clock):
                    block.shared.start_soon(_keep, durable, keeping, clock)
            try:
                with block.history.step(StepKind.DEADLINE, checkpoint_id):
                    yield scope
                    if ended == TOO_LATE:  # it was cancelled then, so it is now
                        scope.cancel()
                        await trio.lowlevel.checkpoint()
            finally:
                deadlines.leave(before)
                keeping.cancel()
        # Not reached where something else ended the body: that decides nothing.
        if ended is None and block.state.is_writable:
            state = TOO_LATE if scope.cancelled_caught else IN_TIME
            await block.requests.checkpoint(ended_id(checkpoint_id), state)
        await block.boundary.reach_saved()


async def _keep(deadline: Deadline, keeping: trio.CancelScope, clock: Clock) -> None:
    """Hold a scope's deadline to a wall time, whatever the clocks do, until the program moves
    it."""
    with keeping:
        while not deadline.scope.cancel_called and not deadline.moved:
            deadline.cancel_at(trio.current_time() + _left(clock, deadline.until_ms))
            await trio.sleep(CHECK_CLOCK)


async def _saved_time(block: Block, stored_as: str, seconds: float) -> int:
    """A wall time ``seconds`` from now, or the one that was saved first. Unix ms."""
    time = milliseconds(block.shared.clock.now() + seconds)
    reply = await block.requests.checkpoint(stored_as, time.to_bytes(8, "big"))
    if not reply.found:
        return time
    if len(reply.state) != 8:
        raise StoreError(
            f"the time stored as {stored_as!r} of instance {block.instance_id!r} has "
            f"{len(reply.state)} bytes, not 8; remove that checkpoint"
        )
    return int.from_bytes(reply.state, "big")


def _left(clock: Clock, until_ms: int) -> float:
    return until_ms / 1000 - clock.now()


def _next_look(clock: Clock, left: float) -> float:
    return left if is_steady(clock) else min(left, CHECK_CLOCK)
