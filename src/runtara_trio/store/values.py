"""What rows say, whichever database they are in."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import msgspec

from ..errors import ConfigError
from ..ids import own_record, received_id, signal_id
from ..messages import Result
from ..types import (
    EventType,
    InstanceStatus,
    Queue,
    QueueInfo,
    RunInfo,
    RunState,
    Signal,
    SignalType,
)
from .structs import Awaited, Lane, Listed, Orphan, Ready, Row, Run, Stored


def is_ours(status: InstanceStatus, same_start: object, *, leased: bool) -> bool:
    """Whether a register of ours started an instance last, not a runtara-core.

    Args:
      same_start: the row's started_at is the one that our register wrote.
      leased: it has a lease; a running one without is core's.
    """
    return bool(same_start) and (leased or status is not InstanceStatus.RUNNING)


def status_of(text: str) -> InstanceStatus:
    try:
        return InstanceStatus(text)
    except ValueError:
        return InstanceStatus.UNKNOWN


def event_type(text: str) -> EventType | str:
    try:
        return EventType(text)
    except ValueError:
        return text  # of a later runtara


def as_bytes(value: object) -> bytes:
    """A BLOB column: NULL is nothing, and a text or a number is what somebody wrote by hand."""
    if isinstance(value, bytes):
        return value
    return b"" if value is None else str(value).encode()


def signal_of(kind: str | None, payload: bytes | str | None) -> Signal | None:
    """A row of pending_signals; a type that runtara-core does not know either is nothing."""
    try:
        return None if kind is None else Signal(SignalType(kind), as_bytes(payload))
    except ValueError:
        return None


def row_of(
    tenant_id: str,
    status: str,
    epoch: int | None,
    owner: str | None,
    same_start: object,
    signal_type: str | None,
    signal_payload: bytes | str | None,
    output: bytes | None,
    error: str | None,
    ended: int | None = None,
    run_state: str | None = None,
    waiting_for: str | None = None,
    waits_children: str | None = None,
    parent_id: str | None = None,
    block: str | None = None,
    by_parent: object = False,
    children: int = 0,
    has_turn: object = False,
    keyed: object = False,
) -> Row:
    """What decides about an instance, of columns in this order."""
    known = status_of(status)
    return Row(
        tenant_id=tenant_id,
        status=known,
        epoch=epoch,
        owner=owner,
        ours=is_ours(known, same_start, leased=epoch is not None),
        signal=signal_of(signal_type, signal_payload),
        output=output,
        error=error,
        ended=ended,
        run=None
        if run_state is None
        else Run(
            RunState(run_state),
            waiting_of(waiting_for),
            awaited_of(waits_children),
            parent_id,
            block,
            bool(by_parent),
            children,
            bool(has_turn),
            bool(keyed),
        ),
    )


def waiting_text(ids: tuple[str, ...]) -> str | None:
    """The ids that a run waits for, as a column has them."""
    return msgspec.json.encode(ids).decode() if ids else None


def waiting_of(text: str | None) -> tuple[str, ...]:
    """The ids in such a column."""
    return () if text is None else msgspec.json.decode(text, type=tuple[str, ...])


def awaited_text(awaited: Awaited | None) -> str | None:
    """The children that a run waits for, as a column has them."""
    return None if awaited is None else msgspec.json.encode(awaited).decode()


def awaited_of(text: str | None) -> Awaited | None:
    return None if text is None else msgspec.json.decode(text, type=Awaited)


_OF_ROW = 19
"""Columns of :func:`row_of`."""


def ready_of(instance_id: str, row: tuple[Any, ...]) -> Ready:
    """A row of what decides, and behind that what a claim needs."""
    workflow, version, given, attempt, recoveries, resumed, begins, queue, key, us = row[_OF_ROW:]
    return Ready(
        instance_id=instance_id,
        row=row_of(*row[:_OF_ROW]),
        workflow=workflow,
        version=version,
        input=given or b"",
        attempt=attempt,
        recoveries=recoveries,
        resumed=bool(resumed),
        begins=bool(begins),
        lane=Lane(queue, row[0], key),
        waited_ms=max(0, us // 1000),
    )


def orphan_of(row: tuple[Any, ...]) -> Orphan:
    instance, waits, recoveries, progress, newest, checkpoint_id = row
    return Orphan(
        instance_id=instance,
        waits=bool(waits),
        recoveries=recoveries,
        progress=progress,
        newest=newest,
        checkpoint_id=checkpoint_id,
    )


def result_of(
    status: str,
    tenant_id: str,
    workflow: str | None,
    output: bytes | None,
    error: str | None,
    number: int | None,
    ended_ms: int | None,
    by_parent: object,
) -> Result:
    return Result(
        number=number,
        ended_ms=ended_ms,
        by_parent=bool(by_parent),
        status=status_of(status),
        tenant_id=tenant_id,
        workflow=workflow,
        output=output,
        error=error,
    )


def listed_of(
    instance_id: str,
    tenant_id: str,
    status: str,
    checkpoint_id: str | None,
    times: Iterable[datetime | None],
    owner: str | None,
    signal_type: str | None,
    same_start: object,
    run: RunInfo | None = None,
) -> Listed:
    """One instance in a list. ``times``: created, started, finished, sleeps until."""
    created, started, finished, sleeps = times
    known = status_of(status)
    signal = signal_of(signal_type, None)
    return Listed(
        instance_id=instance_id,
        tenant_id=tenant_id,
        status=known,
        owner=owner,
        ours=is_ours(known, same_start, leased=owner is not None),
        checkpoint_id=checkpoint_id,
        created_at=created,
        started_at=started,
        finished_at=finished,
        sleep_until=sleeps,
        signal=None if signal is None else signal.type,
        run=run,
    )


def run_info_of(
    workflow: str | None,
    version: int,
    queue: str,
    key: str,
    priority: int,
    state: str,
    due_ms: int | None,
    waiting_for: str | None,
    recoveries: int,
    parent_id: str | None,
    waits_children: str | None,
    waits: object,
    wants: object,
    children: int,
    attempt: int,
    attributes: str | None,
) -> RunInfo | None:
    """A run in a list, of columns in this order; None: there is no such row."""
    if workflow is None:
        return None
    return RunInfo(
        workflow=workflow,
        version=version,
        queue=queue,
        key=key or None,
        priority=priority,
        state=RunState(state),
        due_at=None if due_ms is None else datetime.fromtimestamp(due_ms / 1000, UTC),
        waiting_for=waiting_of(waiting_for),
        recoveries=recoveries,
        parent_id=parent_id,
        waiting_for_children=waits_children is not None,
        waits=bool(waits),
        wants_place=bool(wants),
        children=children,
        attempt=attempt,
        attributes=msgspec.json.decode(attributes) if attributes else {},
    )


def stored_of(info: str, paused: object) -> Stored:
    return Stored(queue=msgspec.json.decode(info, type=Queue), paused=bool(paused))


def queue_info_of(
    name: str,
    stored: Stored | None,
    ready: int,
    behind: int,
    working: int,
    wanting: int,
    ready_us: int | None,
) -> QueueInfo:
    """``ready_us``: since when the oldest is ready, Unix µs."""
    return QueueInfo(
        queue=Queue(name) if stored is None else stored.queue,
        stored=stored is not None,
        paused=stored is not None and stored.paused,
        ready=ready,
        behind=behind,
        working=working,
        wanting=wanting,
        ready_since=None if ready_us is None else datetime.fromtimestamp(ready_us / 1e6, UTC),
    )


def invalid_cursor(cursor: str) -> ConfigError:
    """The error of a page whose ``before`` no earlier page has given."""
    return ConfigError(f"before must be the next of an earlier page, not {cursor!r}")


# ---- steps

OF_SIGNAL = own_record(signal_id(""))[0]
OF_MESSAGE = own_record(received_id("", "", 0))[0]
