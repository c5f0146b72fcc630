"""What people do, noted in the transaction that does it, and read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ...backend import Handlers
from ...messages import (
    Action,
    AuditPage,
    Fork,
    ListAudit,
    PauseQueue,
    PauseSchedule,
    Prune,
    RemoveSchedule,
    Rerun,
    SendCustomSignal,
    SendMessage,
    SendSignal,
    SetQueues,
    SetSchedules,
    SignalMany,
    StartRuns,
    Vacuum,
)
from ..tables import Tables

Noted = tuple[str, Sequence[str | None], str | None]
"""What was done, to which instances, and a detail."""

NOTED: dict[type[Action[Any]], Callable[[Any, Any], Noted]] = {
    SendSignal: lambda message, _: (
        message.type.value,
        [message.instance_id],
        "with its children" if message.tree else None,
    ),
    SignalMany: lambda message, reply: (message.type.value, reply.instance_ids, "of many"),
    SendCustomSignal: lambda message, _: ("signal", [message.instance_id], message.checkpoint_id),
    SendMessage: lambda message, _: ("send", [message.instance_id], message.name),
    Rerun: lambda message, reply: (
        "rerun",
        reply.instance_ids,
        "of many" if message.each else None,
    ),
    Fork: lambda message, _: ("fork", [message.instance_id], f"to {message.new_id}"),
    Prune: lambda message, reply: (
        "prune",
        message.instance_ids or [None],
        f"{reply.removed} removed",
    ),
    Vacuum: lambda message, _: ("vacuum", [None], None),
    SetQueues: lambda message, _: (
        "set queue",
        [None],
        ", ".join(one.name for one in message.queues),
    ),
    PauseQueue: lambda message, _: (
        "pause queue" if message.paused else "resume queue",
        [None],
        message.name,
    ),
    SetSchedules: lambda message, _: (
        "set schedule",
        [None],
        ", ".join(one.name for one in message.schedules),
    ),
    PauseSchedule: lambda message, _: (
        "pause schedule" if message.paused else "resume schedule",
        [None],
        message.name,
    ),
    RemoveSchedule: lambda message, _: ("remove schedule", [None], message.name),
    StartRuns: lambda message, _: ("start", [one.instance_id for one in message.runs], None),
}
"""What each action is noted as, by its message and its reply."""


def audited(handlers: Handlers[Tables]) -> Handlers[Tables]:
    """The same, where those of actions leave their rows."""
    return {
        kind: _audited(handler, NOTED[kind]) if kind in NOTED else handler
        for kind, handler in handlers.items()
    }


def _audited(handler: Callable[..., Any], noted: Callable[[Any, Any], Noted]) -> Any:
    async def answer(tx: Tables, message: Action[Any]) -> Any:
        reply = await handler(tx, message)
        if message.who is not None:
            what, instance_ids, detail = noted(message, reply)
            await tx.write_audit(message.who, what, instance_ids, detail)
        return reply

    return answer


async def list_audit(tx: Tables, message: ListAudit) -> AuditPage:
    return await tx.read_audit(message)


ANSWERS: Handlers[Tables] = {ListAudit: list_audit}
