"""Checkpoints and sleeps."""

from __future__ import annotations

import contextlib
import time

import msgspec
import trio

from ...errors import LeaseLost, ServerError
from ...ids import check_stored_id
from ...messages import Checkpoint, CheckpointReply, GetCheckpoint, PollSignals, Sleep
from ...types import InstanceStatus
from .. import bodies
from . import bodies as asked
from .bodies import decoded, read
from .calls import DONE, One
from .messages import Reply, json
from .signals import told


async def checkpoint(one: One) -> Reply:
    body = read(one.body, asked.Checkpoint)
    check_stored_id(body.checkpoint_id)
    if not body.state:
        return await _probe(one, body.checkpoint_id)
    reply = await _saved(one, body.checkpoint_id, decoded(body.state, "state"))
    return _checkpoint_answer(reply)


async def _probe(one: One, checkpoint_id: str) -> Reply:
    """An empty state asks, and saves nothing. To read is free; only whose instance it is gets the
    signal that waits under the id. A stock client does not say who it is: it takes what is free."""
    message = GetCheckpoint(instance_id=one.instance, checkpoint_id=checkpoint_id)
    stored = await one.backend.request(message)
    if stored.found and (not one.client or one.leases.has(one.client, one.instance)):
        with contextlib.suppress(LeaseLost):
            return _checkpoint_answer(await _saved(one, checkpoint_id, b""))
    if await one.status() is not InstanceStatus.RUNNING:
        raise ServerError("get_checkpoint", "", "it does not run")
    pending = await one.backend.request(PollSignals(instance_id=one.instance))
    return json(
        bodies.CheckpointAnswer(found=stored.found, state=stored.state, signal=told(pending.signal))
    )


async def _saved(one: One, checkpoint_id: str, state: bytes) -> CheckpointReply:
    return await one.write(
        lambda lease: Checkpoint(
            instance_id=one.instance, lease=lease, checkpoint_id=checkpoint_id, state=state
        ),
    )


def _checkpoint_answer(reply: CheckpointReply) -> Reply:
    custom = reply.custom_signal
    return json(
        bodies.CheckpointAnswer(
            found=reply.found,
            state=reply.state,
            signal=told(reply.pending_signal),
            custom_signal=(
                None
                if custom is None
                else bodies.CustomSignal(custom.checkpoint_id, custom.payload)
            ),
        )
    )


async def sleep(one: One) -> Reply:
    """Save, then wait; a repeat waits for what is left. Who has no id to save under only waits."""
    body = read(one.body, asked.Sleep)
    state = decoded(body.state, "state")
    left = body.duration_ms / 1000
    if body.checkpoint_id and not left:
        await _saved(one, check_stored_id(body.checkpoint_id), state)
    elif body.checkpoint_id:
        wake_at_ms = min(_now_ms() + body.duration_ms, LATEST_MS)
        left = min(left, await slept(one, body.checkpoint_id, wake_at_ms, state))
    return msgspec.structs.replace(DONE, not_before=trio.current_time() + left)


async def slept(one: One, checkpoint_id: str, wake_at_ms: int, state: bytes) -> float:
    """Save a sleep; the seconds until it ends."""
    check_stored_id(checkpoint_id)
    reply = await one.write(
        lambda lease: Sleep(
            instance_id=one.instance,
            lease=lease,
            checkpoint_id=checkpoint_id,
            wake_at_ms=wake_at_ms,
            state=state,
        ),
    )
    return max(0.0, (reply.wake_at_ms - _now_ms()) / 1000)


LATEST_MS = 253_402_300_799_000
"""The last second of the year 9999."""


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
