"""Outcomes: all that are recorded in one transaction are one statement."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from ..structs import End
from .connection import Connection

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


_TERMINATED = """
UPDATE instances i SET exit_code = NULLIF(t.code, -1), termination_reason = COALESCE(
    NULLIF(t.reason, ''),
    CASE WHEN i.status = 'suspended' AND i.sleep_until > now() THEN 'sleeping' END
)::termination_reason
FROM unnest($1::text[], $2::text[], $3::bigint[]) AS t (instance_id, reason, code)
WHERE i.instance_id = t.instance_id
"""


def note_terminations(
    connection: Connection, ends: Iterable[tuple[str, str | None, int | None]]
) -> None:
    """Write why instances do not run any more, into the columns of 1.6.4."""
    rows = [(one, reason or "", -1 if code is None else code) for one, reason, code in ends]
    if rows:
        connection.later(_TERMINATED, *(list(column) for column in zip(*rows, strict=True)))


def record(connection: Connection, ends: Sequence[End]) -> None:
    """Write outcomes, of each instance one."""
    columns = zip(*(_end(end) for end in ends), strict=True)
    connection.later(_RECORD, *(list(column) for column in columns))


def _end(end: End) -> tuple[Any, ...]:
    signal = end.signal
    return (
        end.instance_id,
        end.lease,
        end.status.value,
        int(end.status.finished),
        end.output or b"",
        end.error or "",
        end.payload,
        "" if signal is None else signal.type.value,
        b"" if signal is None else signal.payload,
    )
