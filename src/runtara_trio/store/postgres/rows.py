"""The rows that decide about instances: locked and read, many at once.

Two statements: what one reads beside the row that it waits for is older than that.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from ..tables import Row
from ..values import is_ours, signal_of, status_of
from .connection import Connection

_LOCK = (
    "SELECT 1 FROM instances WHERE instance_id = ANY ($1::text[]) ORDER BY instance_id"
    " FOR NO KEY UPDATE"
)
_READ = (
    "SELECT i.instance_id, i.tenant_id, i.status::text, l.epoch, l.owner,"
    " b.started_at = i.started_at, s.signal_type::text, s.payload, i.output, i.error, b.ended"
    " FROM instances i LEFT JOIN runtara_trio_leases l USING (instance_id)"
    " LEFT JOIN runtara_trio_starts b USING (instance_id)"
    " LEFT JOIN pending_signals s ON s.instance_id = i.instance_id AND s.acknowledged_at IS NULL"
    " WHERE i.instance_id = ANY ($1::text[])"
)


async def lock(connection: Connection, instance_ids: Iterable[str]) -> dict[str, Row | None]:
    """Lock instances, in the order in which all lock them, and read what belongs to them."""
    ids = sorted(instance_ids)
    found: dict[str, Row] = {}
    if await connection.run(_LOCK, ids):
        found = {row[0]: _row(row) for row in await connection.run(_READ, ids)}
    return {one: found.get(one) for one in ids}


def _row(found: Sequence[Any]) -> Row:
    _, tenant, status, epoch, owner, same_start, kind, payload, output, error, ended = found
    known = status_of(status)
    return Row(
        tenant_id=tenant,
        status=known,
        epoch=epoch,
        owner=owner,
        ours=is_ours(known, same_start, leased=epoch is not None),
        signal=signal_of(kind, payload),
        output=output,
        error=error,
        ended=ended,
    )
