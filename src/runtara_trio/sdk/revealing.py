"""What is stored, as people may read it who have the codec."""

from __future__ import annotations

import msgspec

from ..codec import Codec, Place, error_text, reveal, revealed, unseal
from ..ids import STEP_ENDS
from ..types import (
    CheckpointRecord,
    Event,
    InstanceDetails,
    InstanceInfo,
    InstanceStatus,
    StepInfo,
)

_replace = msgspec.structs.replace


def details(codec: Codec, one: InstanceDetails) -> InstanceDetails:
    instance = one.summary.instance_id
    return _replace(
        one,
        input=None if one.input is None else reveal(codec, Place(instance, "input"), one.input),
        output=_output(codec, instance, one.output),
        error=error_text(codec, instance, one.error),
        open_steps=tuple(step(codec, instance, each) for each in one.open_steps),
    )


def info(codec: Codec, one: InstanceInfo) -> InstanceInfo:
    return _replace(
        one,
        output=_output(codec, one.instance_id, one.output),
        error=error_text(codec, one.instance_id, one.error),
    )


def step(codec: Codec, instance_id: str, one: StepInfo) -> StepInfo:
    if one.summary is None and not one.attempts:
        return one
    attempt, summary = (Place(instance_id, kind, one.step) for kind in ("attempt", "summary"))
    return _replace(
        one,
        attempts=tuple((at, unseal(codec, attempt, text)) for at, text in one.attempts),
        summary=None if one.summary is None else unseal(codec, summary, one.summary),
    )


def checkpoint(codec: Codec, instance_id: str, one: CheckpointRecord) -> CheckpointRecord:
    return _replace(one, state=revealed(codec, instance_id, one.checkpoint_id, one.state))


def event(codec: Codec, instance_id: str, one: Event) -> Event:
    if one.type == InstanceStatus.COMPLETED.value:
        payload = reveal(codec, Place(instance_id, "output"), one.payload)
    elif one.subtype == STEP_ENDS:
        payload = _step_event(codec, instance_id, one.payload)
    elif one.type == "custom":
        payload = reveal(codec, Place(instance_id, "event", one.subtype or ""), one.payload)
    else:
        text = one.payload.decode(errors="surrogateescape")
        opened = unseal(codec, Place(instance_id, "error"), text)
        payload = opened.encode(errors="surrogateescape")
    return _replace(one, payload=payload)


def _step_event(codec: Codec, instance_id: str, payload: bytes) -> bytes:
    """An event that says what became of a step, with its error."""
    try:
        said = msgspec.json.decode(payload, type=dict[str, object])
    except msgspec.MsgspecError:  # somebody else's
        return payload
    error, step = said.get("error"), said.get("step_id")
    if not isinstance(error, str) or not isinstance(step, str):
        return payload
    said["error"] = unseal(codec, Place(instance_id, "attempt", step), error)
    return msgspec.json.encode(said)


def _output(codec: Codec, instance_id: str, data: bytes | None) -> bytes | None:
    return None if data is None else reveal(codec, Place(instance_id, "output"), data)
