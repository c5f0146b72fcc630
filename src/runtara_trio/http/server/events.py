"""Events, and how an instance ends."""

from __future__ import annotations

from typing import Any

import msgspec

from ...ids import check_stored_id, check_subtype, check_text
from ...messages import Hold, RecordEvent, RecordRetry
from ...remote.names import HOLD
from ...types import EventType, InstanceStatus
from . import bodies as asked
from .bodies import decoded, read
from .calls import DONE, One
from .checkpoints import LATEST_MS, slept
from .messages import Reply

ENDS = {
    "completed": InstanceStatus.COMPLETED,
    "failed": InstanceStatus.FAILED,
    "suspended": InstanceStatus.SUSPENDED,
}


async def event(one: One) -> Reply:
    body = read(one.body, asked.Event)
    payload = decoded(body.payload or "", "payload")
    end = ENDS.get(body.event_type)
    if end is InstanceStatus.SUSPENDED:
        return await _suspend(one, body, payload)
    if end is not None:
        return await one.end(end, payload)
    subtype = None if body.subtype is None else check_subtype(body.subtype)
    await one.write(
        lambda lease: RecordEvent(
            instance_id=one.instance,
            lease=lease,
            # Of a type that nobody knows it is a custom one, to runtara-core too.
            type=EventType.HEARTBEAT if body.event_type == "heartbeat" else EventType.CUSTOM,
            subtype=subtype,
            payload=payload,
        ),
    )
    return DONE


async def _suspend(one: One, body: asked.Event, payload: bytes) -> Reply:
    """Suspend; with a checkpoint and a time to wake, as a sleep that outlives its process."""
    if body.subtype == HOLD and await one.status() is InstanceStatus.RUNNING:
        hold = Hold(instance_id=one.instance, lease=0, signal=None, reason=payload)
        await one.write(lambda lease: msgspec.structs.replace(hold, lease=lease))
        return DONE
    if body.checkpoint_id is not None:
        try:
            wake = msgspec.json.decode(payload, type=asked.Wake)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            pass  # an ordinary reason
        else:
            state = decoded(wake.state, "payload")
            wake_at_ms = max(0, min(wake.wake_at_ms, LATEST_MS))
            await slept(one, body.checkpoint_id, wake_at_ms, state)
            payload = b""
    return await one.end(InstanceStatus.SUSPENDED, payload)


async def completed(one: One) -> Reply:
    output = _field(one.body, "output")
    payload = decoded(output, "output") if isinstance(output, str) else b""
    return await one.end(InstanceStatus.COMPLETED, payload)


async def failed(one: One) -> Reply:
    error = _field(one.body, "error")
    text = error if isinstance(error, str) and error else "Unknown error"
    return await one.end(InstanceStatus.FAILED, check_text("error", text).encode())


def _field(body: bytearray, name: str) -> Any:
    found = read(body, object)
    return found.get(name) if isinstance(found, dict) else None


async def suspended(one: One) -> Reply:
    return await one.end(InstanceStatus.SUSPENDED)


async def retry(one: One) -> Reply:
    body = read(one.body, asked.Retry)
    check_stored_id(body.checkpoint_id)
    error = body.error_message
    await one.write(
        lambda lease: RecordRetry(
            instance_id=one.instance,
            lease=lease,
            checkpoint_id=body.checkpoint_id,
            attempt=body.attempt,
            error=None if error is None else check_text("error_message", error),
        ),
    )
    return DONE
