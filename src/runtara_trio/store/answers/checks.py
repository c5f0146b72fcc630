"""What most answers check first: whose instance it is, and whether it runs."""

from __future__ import annotations

from ..structs import Row
from ..tables import Tables
from . import rules


async def leased(tx: Tables, instance_id: str, lease: int) -> Row:
    """The instance, whose lease must be this one. Raises LeaseLost."""
    row = await tx.lock(instance_id)
    rules.check_lease(instance_id, lease, None if row is None else row.epoch)
    assert row is not None
    return row


async def running(tx: Tables, asked: str, instance_id: str, lease: int) -> Row:
    """The same, and it must run. Raises ServerError."""
    row = await leased(tx, instance_id, lease)
    rules.check_running(asked, instance_id, row.status)
    return row


async def check_known(tx: Tables, asked: str, instance_id: str) -> None:
    """Raises ServerError where there is no such instance."""
    if not await tx.exists(instance_id):
        raise rules.unknown(asked, instance_id)
