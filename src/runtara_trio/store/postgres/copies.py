"""Attributes of runs, and copies of instances, on PostgreSQL."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from ...ids import WORKFLOW_TIMEOUT, deadline_id, signal_id
from .claims import NOW_US
from .signals import PostgresSignals

_COPY = f"""
WITH made AS (
    INSERT INTO instances (instance_id, tenant_id, definition_version, status, input,
        started_at) -- it has a past: its first run looks for what is stored
    SELECT $2, tenant_id, definition_version, 'pending', COALESCE($3, input), now() FROM instances
    WHERE instance_id = $1 RETURNING instance_id
), run AS (
    INSERT INTO runtara_trio_runs (instance_id, tenant_id, workflow, version, queue, key, priority,
        state, ready_us)
    SELECT made.instance_id, tenant_id, workflow, version, queue, key, priority, 'ready', {NOW_US}
    FROM runtara_trio_runs r CROSS JOIN made WHERE r.instance_id = $1
), attributes AS (
    INSERT INTO runtara_trio_attributes (instance_id, name, value)
    SELECT made.instance_id, name, value FROM runtara_trio_attributes a CROSS JOIN made
    WHERE a.instance_id = $1
)
INSERT INTO checkpoints (instance_id, checkpoint_id, state, created_at, is_retry_attempt,
    attempt_number, error_message)
SELECT made.instance_id, checkpoint_id, state, created_at, is_retry_attempt, attempt_number,
    error_message
FROM checkpoints c CROSS JOIN made
WHERE c.instance_id = $1 AND ($4::bigint = 0 OR id <= $4::bigint) AND checkpoint_id <> $5
ORDER BY id
"""


class PostgresCopies(PostgresSignals):
    """The part of the port that is about what an instance has besides its checkpoints."""

    async def set_attributes(
        self, instance_id: str, attributes: Mapping[str, str | int | float | bool]
    ) -> int:
        self._later(
            "INSERT INTO runtara_trio_attributes (instance_id, name, value)"
            " SELECT $1, * FROM unnest($2::text[], $3::text[])"
            " ON CONFLICT (instance_id, name) DO UPDATE SET value = excluded.value",
            instance_id,
            list(attributes),
            [msgspec.json.encode(value).decode() for value in attributes.values()],
        )
        ((count,),) = await self._run(
            "SELECT count(*) FROM runtara_trio_attributes WHERE instance_id = $1", instance_id
        )
        return int(count)

    async def copy(
        self, instance_id: str, new_id: str, until: str | None, input: bytes | None
    ) -> bool:
        last = 0
        if until is not None:
            ((found,),) = await self._run(
                "SELECT max(id) FROM checkpoints WHERE instance_id = $1"
                " AND checkpoint_id = ANY ($2::text[])",
                instance_id,
                [until, signal_id(until)],
            )
            if found is None:
                return False
            last = int(found)
        self._later(_COPY, instance_id, new_id, input, last, deadline_id(WORKFLOW_TIMEOUT))
        self.runs_changed = True
        return True
