"""Durable waits. Wall time decides, Trio waits; each is a boundary for its whole length."""

from __future__ import annotations

import trio

from .. import logs
from ..clock import TrioClock, milliseconds
from ..engine.block import Block
from ..messages import Sleep, TakeSignal

LOOK_AGAIN = 60.0
"""Seconds after which a wait is checked against the wall clock: it may have jumped."""


async def sleep(block: Block, seconds: float, checkpoint_id: str, state: bytes) -> None:
    """Save when to wake, then wait for what is left of it."""
    clock = block.shared.clock
    block.visited.add(checkpoint_id)
    reply = await block.save(
        Sleep(
            instance_id=block.instance_id,
            lease=block.writing(),
            checkpoint_id=checkpoint_id,
            wake_at_ms=milliseconds(clock.now() + seconds),
            state=state,
        )
    )
    block.deliver(reply.pending_signal, reply.look)
    left = reply.wake_at_ms / 1000 - clock.now()
    logs.sleeping(instance_id=block.instance_id, checkpoint_id=checkpoint_id, seconds=left)
    with block.boundary.waiting():
        while (left := reply.wake_at_ms / 1000 - clock.now()) > 0:  # noqa: ASYNC110
            await trio.sleep(left if isinstance(clock, TrioClock) else min(left, LOOK_AGAIN))
    await block.boundary.reach()


async def wait_for_signal(block: Block, checkpoint_id: str) -> bytes:
    """Take a custom signal, waiting until there is one."""
    message = TakeSignal(
        instance_id=block.instance_id, lease=block.writing(), checkpoint_id=checkpoint_id
    )
    block.visited.add(checkpoint_id)
    waited = False
    payload = None
    try:
        with block.boundary.waiting():
            while payload is None:
                with block.hinted(checkpoint_id) as hinted:
                    payload = (await block.request(message)).payload
                    if payload is None:
                        if not waited:
                            logs.waiting(instance_id=block.instance_id, checkpoint_id=checkpoint_id)
                        waited = True
                        await hinted.wait()
    finally:
        if waited:
            block.stop_waiting(checkpoint_id)
    await block.boundary.reach()
    return payload
