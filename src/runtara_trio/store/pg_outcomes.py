"""Outcomes on PostgreSQL: all that wait to be recorded are one transaction.

A program that is stopped ends all its blocks at once. What an end costs must not depend on how
many there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..errors import LeaseLost
from ..messages import OutcomeReply, RecordOutcome
from ..types import InstanceStatus, Signal
from . import rules
from .pg_connection import Connection
from .transaction import signal_of

Recorded = OutcomeReply | BaseException

_LOCK = (
    "SELECT 1 FROM instances WHERE instance_id = ANY ($1::text[]) ORDER BY instance_id"
    " FOR NO KEY UPDATE"
)
_READ = (
    "SELECT i.instance_id, l.epoch, b.ended, s.signal_type::text, s.payload FROM instances i"
    " LEFT JOIN runtara_trio_leases l USING (instance_id)"
    " LEFT JOIN runtara_trio_starts b USING (instance_id)"
    " LEFT JOIN pending_signals s ON s.instance_id = i.instance_id AND s.acknowledged_at IS NULL"
    " WHERE i.instance_id = ANY ($1::text[])"
)
_RECORD = """
WITH input AS MATERIALIZED (
    SELECT * FROM unnest($1::text[], $2::bigint[], $3::text[], $4::bigint[], $5::bytea[],
        $6::text[], $7::bytea[], $8::text[], $9::bytea[])
    WITH ORDINALITY AS t (instance_id, epoch, status, finished, output, error, payload,
        signal_type, signal_payload, n)
), ended AS (
    UPDATE instances i SET status = input.status::instance_status,
        finished_at = CASE WHEN finished = 1 THEN now() END,
        output = NULLIF(input.output, ''), error = NULLIF(input.error, ''),
        sleep_until = CASE WHEN finished = 1 THEN NULL ELSE sleep_until END
    FROM input WHERE i.instance_id = input.instance_id
), event AS (
    INSERT INTO instance_events (instance_id, event_type, payload)
    SELECT instance_id, status::instance_event_type, NULLIF(payload, '') FROM input
    WHERE status <> 'cancelled' ORDER BY n
), acknowledged AS (
    DELETE FROM pending_signals p USING input WHERE p.instance_id = input.instance_id
    AND p.signal_type::text = input.signal_type AND COALESCE(p.payload, '') = signal_payload
), started AS (
    UPDATE runtara_trio_starts s SET ended = input.epoch
    FROM input WHERE s.instance_id = input.instance_id
)
DELETE FROM runtara_trio_leases l USING input WHERE l.instance_id = input.instance_id
"""


async def record(
    connection: Connection, messages: Sequence[RecordOutcome], *, again: bool
) -> list[Recorded]:
    """Record many, each instance once; the answer to each.

    ``again``: they may have been recorded before, by a transaction whose answer was lost.
    """
    await connection.run("BEGIN")
    try:
        answers = await _record(connection, messages, again=again)
    except BaseException:
        if not connection.broken:
            await connection.run("ROLLBACK")
        raise
    await connection.run("COMMIT")
    return answers


async def _record(
    connection: Connection, messages: Sequence[RecordOutcome], *, again: bool
) -> list[Recorded]:
    ids = sorted(message.instance_id for message in messages)
    # Two statements: what one reads beside the row that it waits for is older than that.
    await connection.run(_LOCK, ids)
    stands = {row[0]: row[1:] for row in await connection.run(_READ, ids)}
    answers: list[Recorded] = []
    rows: list[tuple[Any, ...]] = []
    for message in messages:
        epoch, ended, kind, payload = stands.get(message.instance_id, (None, None, None, None))
        signal = signal_of(kind, payload)
        if again and ended == message.lease:
            answers.append(OutcomeReply(cancel=None))
            continue
        try:
            cancel = rules.decide_outcome(message, epoch, signal)
        except LeaseLost as exc:
            answers.append(exc)
            continue
        answers.append(OutcomeReply(cancel=cancel))
        if cancel is None:
            rows.append(_row(message, rules.carried_out(message, signal)))
    if rows:
        await connection.run(_RECORD, *(list(column) for column in zip(*rows, strict=True)))
    return answers


def _row(message: RecordOutcome, done: Signal | None) -> tuple[Any, ...]:
    status, payload = message.status, message.payload
    return (
        message.instance_id,
        message.lease,
        status.value,
        int(status.finished),
        payload if status is InstanceStatus.COMPLETED else b"",
        rules.error_text(message) or "",
        payload,
        "" if done is None else done.type.value,
        b"" if done is None else done.payload,
    )
