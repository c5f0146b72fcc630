"""The rows that decide about instances: locked and read, many at once.

Two statements: what one reads beside the row that it waits for is older than that.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..structs import Row
from ..values import row_of
from .connection import Connection

_LOCK = (
    "SELECT 1 FROM instances WHERE instance_id = ANY ($1::text[]) ORDER BY instance_id"
    " FOR NO KEY UPDATE"
)
COLUMNS = (
    "i.instance_id, i.tenant_id, i.status::text, l.epoch, l.owner,"
    " b.started_at = i.started_at, s.signal_type::text, s.payload, i.output, i.error, b.ended"
)
"""What decides about an instance, behind its id in the order of ``values.row_of``."""

OF_INSTANCE = (
    " FROM instances i LEFT JOIN runtara_trio_leases l USING (instance_id)"
    " LEFT JOIN runtara_trio_starts b USING (instance_id)"
    " LEFT JOIN pending_signals s ON s.instance_id = i.instance_id AND s.acknowledged_at IS NULL"
    "{runs} WHERE i.instance_id = ANY ($1::text[])"
)
RUN_COLUMNS = (
    ", r.state, r.waiting_for, r.waits_children, r.parent_id, r.block, r.by_parent, r.children,"
    " r.has_turn, r.key <> ''"
)
"""Behind those, where the tables of workflows are there."""
OF_RUN = " LEFT JOIN runtara_trio_runs r ON r.instance_id = i.instance_id"
_READ = {
    True: f"SELECT {COLUMNS}{RUN_COLUMNS}{OF_INSTANCE.format(runs=OF_RUN)}",
    False: f"SELECT {COLUMNS}{OF_INSTANCE.format(runs='')}",
}


async def lock(
    connection: Connection, instance_ids: Iterable[str], *, runs: bool
) -> dict[str, Row | None]:
    """Lock instances, in the order in which all lock them, and read what belongs to them.

    ``runs``: the tables of workflows are there.
    """
    ids = sorted(instance_ids)
    connection.later(_LOCK, ids)
    found = {row[0]: row_of(*row[1:]) for row in await connection.run(_READ[runs], ids)}
    return {one: found.get(one) for one in ids}
