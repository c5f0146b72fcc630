"""What each message is answered, once for both databases.

An answer reads, asks ``rules``, and only then writes: what it refuses has changed nothing. It
works on ``store/tables.py`` and knows no SQL. (Checkpoints and their reads are not here: each
database saves them in batches of its own, ``saving``, or at the end of a user's transaction,
``transact``, and asks the same rules.)

rules       what may be done in which state: tables and pure functions
checks      what most answers check first
instances   an instance's life, its work, its history
signals     signals, the instance's side and the operator's
runs        workflows: starts, claims, recoveries, ends
queues      what queues allow
history     steps, for people
audit       what people do
children    what the end of one sets off in its parent and its children
turns       whose turn it is, between queues, tenants and keys
schedules   slots, each once
again       instances that are run again, or copied
reading     questions
upkeep      what clears up
"""

from __future__ import annotations

from typing import Any

from ...backend import Handlers
from ...messages import Done, Request, StopWaiting
from ..tables import Tables
from . import (
    again,
    audit,
    children,
    history,
    instances,
    queues,
    reading,
    runs,
    schedules,
    signals,
    upkeep,
)

ANSWERS: Handlers[Tables] = audit.audited(
    {
        **instances.ANSWERS,
        **signals.ANSWERS,
        **runs.ANSWERS,
        **queues.ANSWERS,
        **again.ANSWERS,
        **schedules.ANSWERS,
        **children.ANSWERS,
        **reading.ANSWERS,
        **history.ANSWERS,
        **upkeep.ANSWERS,
        **audit.ANSWERS,
    }
)
"""Which function answers which message."""


async def set_off(tx: Tables) -> None:
    """What the ends in a transaction set off, once they are written and before it commits."""
    await children.tell_parents(tx)
    await queues.advance_keys(tx)


def at_once(message: Request[Any]) -> Done | None:
    """The answer to a message that needs no database; None: it needs one."""
    if isinstance(message, StopWaiting):
        return Done()  # a store's hints are the rows themselves: nobody keeps a list
    return None
