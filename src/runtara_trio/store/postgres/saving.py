"""Checkpoints on PostgreSQL, the hot path: all that is queued is one statement.

Each instance and its lease are locked for the statement, in the order in which all others
lock them: one that is taken over meanwhile lets nothing through. A state that a rival committed
after the statement's snapshot is not seen by it: such a message is sent once more.
"""

from __future__ import annotations

from collections.abc import Sequence

from ...errors import SdkError
from ...ids import signal_id
from ...messages import Checkpoint, CheckpointReply, GetCheckpoint, StoredState
from ..answers import rules
from ..noted import row_of_note
from ..values import signal_of
from . import history
from .connection import Connection
from .packing import Row

_SAVE = """
WITH input AS (
    SELECT * FROM unnest($1::text[], $2::bigint[], $3::text[], $4::bytea[])
    WITH ORDINALITY AS t (instance_id, epoch, checkpoint_id, state, n)
), leased AS MATERIALIZED (
    SELECT i.instance_id, i.status::text AS status, l.epoch, p.signal_type::text, p.payload
    FROM instances i JOIN runtara_trio_leases l ON l.instance_id = i.instance_id
    LEFT JOIN pending_signals p ON p.instance_id = i.instance_id AND p.acknowledged_at IS NULL
    WHERE i.instance_id = ANY ($5::text[]) ORDER BY i.instance_id
    FOR NO KEY UPDATE OF i FOR SHARE OF l
), allowed AS (
    SELECT input.* FROM input JOIN leased USING (instance_id, epoch) WHERE leased.status = 'running'
), saved AS (
    INSERT INTO checkpoints (instance_id, checkpoint_id, state)
    SELECT instance_id, checkpoint_id, state FROM allowed ORDER BY n
    ON CONFLICT (instance_id, checkpoint_id) DO NOTHING
    RETURNING instance_id, checkpoint_id
), newest AS (
    UPDATE instances i SET checkpoint_id = last.checkpoint_id FROM (
        SELECT DISTINCT ON (a.instance_id) a.instance_id, a.checkpoint_id
        FROM allowed a JOIN saved s USING (instance_id, checkpoint_id)
        ORDER BY a.instance_id, a.n DESC
    ) last WHERE i.instance_id = last.instance_id
){noting}
SELECT input.n, leased.epoch, leased.status,
    s.checkpoint_id IS NOT NULL,
    (SELECT c.state FROM checkpoints c
        WHERE c.instance_id = input.instance_id AND c.checkpoint_id = input.checkpoint_id),
    leased.signal_type, leased.payload,
    (SELECT true FROM pending_checkpoint_signals w
        WHERE w.instance_id = input.instance_id AND w.checkpoint_id = input.checkpoint_id)
    IS TRUE OR (SELECT true FROM checkpoints t
        WHERE t.instance_id = input.instance_id AND t.checkpoint_id = $6 || input.checkpoint_id)
    IS TRUE
FROM input
LEFT JOIN leased ON leased.instance_id = input.instance_id
LEFT JOIN saved s ON s.instance_id = input.instance_id AND s.checkpoint_id = input.checkpoint_id
ORDER BY input.n
"""

_SAVE_ALONE = _SAVE.format(noting="")
_SAVE_NOTING = _SAVE.format(noting=f", noted AS ({history.insert_from(7, 'leased')})")
"""With the steps that they end."""

_GET = """
SELECT i.instance_id IS NOT NULL, c.state IS NOT NULL, CASE WHEN
    sum(octet_length(c.state)) OVER (ORDER BY t.n) - octet_length(c.state) < $3 THEN c.state END
FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS t (instance_id, checkpoint_id, n)
LEFT JOIN instances i ON i.instance_id = t.instance_id
LEFT JOIN checkpoints c ON c.instance_id = t.instance_id AND c.checkpoint_id = t.checkpoint_id
ORDER BY t.n
"""

Saved = CheckpointReply | BaseException | None
"""None: to be sent once more."""


async def save(
    connection: Connection,
    messages: Sequence[Checkpoint],
    version: int,
    *,
    again: bool,
    holder: str | None,
) -> list[tuple[Saved, bool]]:
    """Save many, each (instance, id) once. For each the answer, and whether a custom signal
    for its id is or was there.

    Args:
      again: they may have been saved before, by a statement whose answer was lost.
      holder: who notes the steps that come with them; None: the tables have no room for those.
    """
    values = (
        [one.instance_id for one in messages],
        [one.lease for one in messages],
        [one.checkpoint_id for one in messages],
        [one.state for one in messages],
        sorted({one.instance_id for one in messages}),
        signal_id(""),
    )
    steps = [
        row_of_note(one.instance_id, one.lease, step, holder)
        for one in messages
        if holder is not None
        for step in one.steps
    ]
    if steps:
        rows = await connection.run(_SAVE_NOTING, *values, *history.columns_of(steps))
    else:
        rows = await connection.run(_SAVE_ALONE, *values)
    return [
        (_answer(message, row, version, again=again), bool(row[7]))
        for message, row in zip(messages, rows, strict=True)
    ]


def _answer(message: Checkpoint, row: Row, version: int, *, again: bool) -> Saved:
    _, epoch, status, saved, state, kind, payload, _ = row
    try:
        rules.check_lease(message.instance_id, message.lease, epoch)
        rules.check_running(message.verb, message.instance_id, status)
    except SdkError as refused:
        return refused
    if not saved and state is None:
        return None  # a rival's, committed since
    if again and not saved and state == message.state:
        saved = True
    return CheckpointReply(
        found=not saved,
        state=b"" if saved else state,
        pending_signal=signal_of(kind, payload),
        version=version,
    )


async def get(
    connection: Connection, messages: Sequence[GetCheckpoint], most_bytes: int
) -> list[StoredState | BaseException | None]:
    """Read many: up to so many bytes of states, and one more. None: to be read once more."""
    rows = await connection.run(
        _GET,
        [one.instance_id for one in messages],
        [one.checkpoint_id for one in messages],
        most_bytes,
    )
    return [
        rules.unknown(message.verb, message.instance_id) if not there else _stored(found, state)
        for message, (there, found, state) in zip(messages, rows, strict=True)
    ]


def _stored(found: bool, state: bytes | None) -> StoredState | None:
    if found and state is None:
        return None
    return StoredState(found=found, state=state or b"")
