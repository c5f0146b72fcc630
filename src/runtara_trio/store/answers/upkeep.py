"""What messages that clear up are answered."""

from __future__ import annotations

from ...backend import Handlers
from ...messages import Prune, Pruned, Vacuum, Vacuumed
from ..tables import Tables


async def prune(tx: Tables, message: Prune) -> Pruned:
    return Pruned(removed=await tx.prune(message.before_ms, message.limit, message.instance_ids))


async def vacuum(tx: Tables, message: Vacuum) -> Vacuumed:
    before = await tx.size()
    await tx.vacuum()
    return Vacuumed(bytes_before=before, bytes_after=await tx.size())


ANSWERS: Handlers[Tables] = {Prune: prune, Vacuum: vacuum}
