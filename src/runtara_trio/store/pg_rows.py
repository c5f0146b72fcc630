"""Reading and locking instances on PostgreSQL."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec

from ..errors import LeaseLost
from ..types import InstanceStatus, Signal
from .leases import Holder
from .pg_connection import Connection
from .pg_liveness import AGE, LOCKED
from .transaction import check_running, is_ours, signal_of, status_of


class Stand(msgspec.Struct, frozen=True, kw_only=True):
    """What decides about an instance; its row is locked until the transaction ends."""

    tenant_id: str
    status: InstanceStatus
    epoch: int | None
    owner: str | None
    ours: bool
    """Started last by a register of ours."""
    signal: Signal | None
    output: bytes | None
    error: str | None
    ended: int | None
    """The lease under which an outcome was recorded last."""


async def lock(connection: Connection, instance_id: str) -> Stand | None:
    """Lock an instance's row and read what belongs to it."""
    # Two statements: what one reads beside the row that it waits for is older than that.
    found = await connection.run(
        "SELECT 1 FROM instances WHERE instance_id = $1 FOR UPDATE", instance_id
    )
    if not found:
        return None
    (
        (tenant, status, epoch, owner, same_start, kind, payload, output, error, ended),
    ) = await connection.run(
        "SELECT i.tenant_id, i.status::text, l.epoch, l.owner, b.started_at = i.started_at,"
        " s.signal_type::text, s.payload, i.output, i.error, b.ended FROM instances i"
        " LEFT JOIN runtara_trio_leases l USING (instance_id)"
        " LEFT JOIN runtara_trio_starts b USING (instance_id)"
        " LEFT JOIN pending_signals s ON s.instance_id = i.instance_id"
        " AND s.acknowledged_at IS NULL WHERE i.instance_id = $1",
        instance_id,
    )
    known = status_of(status)
    return Stand(
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


async def held(connection: Connection, instance_id: str, lease: int) -> Stand:
    """The instance, locked, whose lease must be this one. Raises LeaseLost."""
    stand = await lock(connection, instance_id)
    if stand is None or stand.epoch != lease:
        raise LeaseLost(instance_id)
    return stand


async def running(connection: Connection, call: str, instance_id: str, lease: int) -> Stand:
    """The same, and it must be running. Raises ServerError."""
    stand = await held(connection, instance_id, lease)
    check_running(call, instance_id, stand.status)
    return stand


async def holder(connection: Connection, owner: str, me: str | None, who: str) -> Holder:
    """Who an owner is, and whether it lives, as far as one look can tell: see ``pg_liveness``."""
    if owner == me:
        return Holder(owner, who, True, None)
    rows = await connection.run(
        "SELECT holder, renewed_at + lease_ms * interval '1 ms',"
        f" {AGE} >= lease_ms, {AGE} >= lease_ms / 2,"
        f" {LOCKED} FROM runtara_trio_owners o WHERE owner = $1",
        owner,
    )
    if not rows:
        return Holder(owner, "an owner that ended", False, None)
    ((name, until, expired, half, locked),) = rows
    alive = not expired and (locked or not half)
    return Holder(owner, name, alive, until, certain=locked or not alive)


LIVING = (
    "SELECT owner FROM runtara_trio_owners o"
    f" WHERE {AGE} < lease_ms AND ({LOCKED} OR {AGE} < lease_ms / 2)"
)


def from_ms(ms: int) -> str:
    """Unix ms as a text that PostgreSQL reads as a time; the year 9999 is the last."""
    last = 253402300799000
    return datetime.fromtimestamp(min(ms, last) / 1000, UTC).isoformat()
