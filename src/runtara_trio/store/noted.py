"""What rows say of steps, of waits, and of what people have done."""

from __future__ import annotations

import time
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import msgspec

from ..messages import AuditPage, OpenSteps, StepNote, Steps, Transact, Waits
from ..types import AuditRecord, StepInfo, StepKind, StepOutcome, WaitInfo


def row_of_note(instance_id: str, lease: int, note: StepNote, holder: str) -> tuple[Any, ...]:
    """The columns of a step, in their order. ``holder``: who writes it."""
    return (
        instance_id,
        note.step,
        lease,
        note.kind.value,
        note.worker or holder,
        note.parent,
        note.started_ms,
        note.ended_ms,
        None if note.outcome is None else note.outcome.value,
        msgspec.json.encode(note.attempts).decode() if note.attempts else None,
        note.summary,
        note.asks,
    )


def row_of_transaction(message: Transact, began: float, holder: str) -> tuple[Any, ...] | None:
    """The columns of the step that a transaction is, which ends now; None: nobody wants it noted.
    ``began``: by ``time.monotonic``."""
    if message.note is None:
        return None
    ended = message.note.started_ms + int((time.monotonic() - began) * 1000)
    note = msgspec.structs.replace(message.note, ended_ms=ended, outcome=StepOutcome.DONE)
    return row_of_note(message.instance_id, message.lease, note, holder)


def steps_of(rows: Iterable[Any], lease: int | None, limit: int) -> Steps:
    """A page of steps, of one row more than it has, if there is more.

    ``lease``: the one under which the instance runs; None: it does not.
    """
    found = [*rows]
    infos = [_step_of(*row, lease=lease) for row in found[:limit]]
    last = found[limit - 1] if len(found) > limit else None
    following = None if last is None else (int(last[0]), last[1], int(last[2]))
    return Steps(steps=tuple(infos), next=following)


_KINDS = {one.value: one for one in StepKind}
_OUTCOMES = {one.value: one for one in StepOutcome}


def _step_of(
    at_ms: int,
    step: str,
    run: int,
    kind: str,
    worker: str,
    parent: str | None,
    started_ms: int | None,
    ended_ms: int | None,
    outcome: str | None,
    attempts: str | None,
    summary: str | None,
    asks: str | None,
    *,
    lease: int | None,
) -> StepInfo:
    if ended_ms is None and outcome is None and run != lease and kind != StepKind.CHILD:
        outcome = StepOutcome.LOST
    return StepInfo(
        step=step,
        kind=_KINDS[kind],
        run=run,
        worker=worker,
        started_at=_time_of(started_ms),
        ended_at=_time_of(ended_ms),
        outcome=None if outcome is None else _OUTCOMES[outcome],
        attempts=tuple(
            (datetime.fromtimestamp(ms / 1000, UTC), error)
            for ms, error in (msgspec.json.decode(attempts) if attempts else ())
        ),
        parent=parent,
        summary=summary,
        asks=asks,
    )


def _time_of(ms: int | None) -> datetime | None:
    return None if ms is None else datetime.fromtimestamp(ms / 1000, UTC)


def open_steps_of(rows: Iterable[Any]) -> OpenSteps:
    """Steps that run, of rows of an instance, the lease under which it runs, and a step."""
    return OpenSteps(
        steps=tuple((instance, _step_of(*step, lease=lease)) for instance, lease, *step in rows)
    )


def waits_of(rows: Iterable[Any], limit: int) -> Waits:
    """A page of waits, of one row more than it has, if there is more."""
    found = [*rows]
    waits = [
        WaitInfo(
            instance_id=instance,
            tenant_id=tenant,
            checkpoint_id=step,
            workflow=workflow,
            since=datetime.fromtimestamp(first_ms / 1000, UTC),
            asks=asks,
        )
        for _, instance, step, tenant, workflow, asks, first_ms in found[:limit]
    ]
    # Pages follow each other by the runs that wait now; a wait is as old as its first run.
    waits.sort(key=lambda one: one.since)
    last = found[limit - 1] if len(found) > limit else None
    following = None if last is None else (int(last[0]), str(last[1]), str(last[2]))
    return Waits(waits=tuple(waits), next=following)


def audit_page_of(rows: Iterable[Any], limit: int) -> AuditPage:
    """A page of what people have done, of one row more than it has, if there is more."""
    found = [*rows]
    records = [
        AuditRecord(
            id=number,
            at=datetime.fromtimestamp(at_ms / 1000, UTC),
            who=who,
            what=what,
            instance_id=instance,
            detail=detail,
        )
        for number, at_ms, who, what, instance, detail in found[:limit]
    ]
    following = records[-1].id if len(found) > limit else None
    return AuditPage(records=tuple(records), next=following)
