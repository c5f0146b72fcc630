"""Signals, as the instance asks for them."""

from __future__ import annotations

from ...ids import check_stored_id
from ...messages import AcknowledgeSignal, PollSignals, TakeSignal
from ...types import InstanceStatus, Signal, SignalType
from .. import bodies
from . import bodies as asked
from .bodies import read
from .calls import DONE, One
from .messages import Reply, json


async def pending(one: One) -> Reply:
    found = await one.backend.request(PollSignals(instance_id=one.instance))
    return json(bodies.Signals(signal=told(found.signal)))


async def take(one: One) -> Reply:
    check_stored_id(one.name)
    if await one.status() is not InstanceStatus.RUNNING:
        return json(bodies.Signals())
    taken = await one.write(
        lambda lease: TakeSignal(instance_id=one.instance, lease=lease, checkpoint_id=one.name),
    )
    if taken.payload is None:
        return json(bodies.Signals())
    return json(bodies.Signals(custom_signal=bodies.CustomSignal(one.name, taken.payload)))


async def acknowledge(one: One) -> Reply:
    body = read(one.body, asked.Ack)
    kind = SIGNALS.get(body.signal_type)
    if kind is None:
        why = f"the signal type {body.signal_type!r} is unknown; there are {', '.join(SIGNALS)}"
        return json(bodies.Refusal(code="INVALID_SIGNAL_TYPE", error=why), 400)
    there = (await one.backend.request(PollSignals(instance_id=one.instance))).signal
    signal = there if there is not None and there.type is kind else None
    if kind is SignalType.CANCEL:
        return await one.end(InstanceStatus.CANCELLED, signal=signal)
    if kind is SignalType.PAUSE and not one.client:
        # The end of a stock program. Ours says next whether it ends or is held.
        return await one.end(InstanceStatus.SUSPENDED, signal=signal)
    if signal is not None:
        await one.write(
            lambda lease: AcknowledgeSignal(instance_id=one.instance, lease=lease, signal=signal),
        )
    return DONE


SIGNALS = {one.value: one for one in SignalType}


def told(signal: Signal | None) -> bodies.Signal | None:
    """A signal as an answer says it."""
    return None if signal is None else bodies.Signal(signal.type.value, signal.payload)
