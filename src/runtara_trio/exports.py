"""Instances as JSON: for scripts, and all of one to be kept."""

from __future__ import annotations

from typing import Any

import msgspec

from .sdk.operator import Operator
from .types import CheckpointRecord, Event, InstanceDetails, InstanceSummary
from .words import readable, state_of

PAGE = 1000


def summary_json(one: InstanceSummary) -> dict[str, Any]:
    """A row of the list for scripts; times are RFC 3339 texts, in UTC."""
    built: dict[str, Any] = msgspec.to_builtins(one)
    return built


def details_json(details: InstanceDetails) -> dict[str, Any]:
    """One instance for scripts: the summary's fields, and what only ``show`` has."""
    output = details.output
    return {
        **summary_json(details.summary),
        "holder": details.holder,
        "input": None if details.input is None else readable(details.input),
        "output": None if output is None else readable(output),
        "error": details.error,
        "checkpoints": details.checkpoints,
        "events": details.events,
        "termination_reason": details.termination_reason,
        "exit_code": details.exit_code,
        "unread_signals": details.unread_signals,
        "open_steps": msgspec.to_builtins(details.open_steps),
    }


def event_json(event: Event) -> dict[str, Any]:
    """An event for scripts; its payload as text, or ``base64:…`` where it is not UTF-8."""
    return {**msgspec.to_builtins(event), "payload": readable(event.payload)}


def checkpoint_json(one: CheckpointRecord) -> dict[str, Any]:
    """A checkpoint for scripts; its state as text, or ``base64:…`` where it is not UTF-8."""
    return {**msgspec.to_builtins(one), "state": readable(state_of(one))}


async def exported(operator: Operator, instance_id: str) -> dict[str, Any]:
    """All of an instance. Bytes are texts, or ``base64:…`` where they are not UTF-8."""
    details = await operator.show(instance_id)
    events, checkpoints = [], []
    after, more = 0, True
    while more:
        page = await operator.events(instance_id, after=after, limit=PAGE)
        events += [event_json(one) for one in page.events]
        after, more = max((one.id for one in page.events), default=after), page.more
    behind: str | None = None
    more = True
    while more:
        found = await operator.checkpoints(instance_id, after=behind, limit=PAGE)
        checkpoints += [checkpoint_json(one) for one in found.checkpoints]
        behind = found.checkpoints[-1].checkpoint_id if found.checkpoints else behind
        more = found.more
    return {
        "instance": details_json(details),
        "steps": msgspec.to_builtins(await operator.steps(instance_id)),
        "checkpoints": checkpoints,
        "events": events,
    }
