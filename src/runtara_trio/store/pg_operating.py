"""The answers to an operator's messages on PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from ..backend import Handlers
from ..errors import ServerError, SignalRefused, StoreError
from ..ids import refused_id, signal_id
from ..messages import (
    Done,
    EventPage,
    InstancePage,
    ListEvents,
    ListInstances,
    Prune,
    Pruned,
    SendCustomSignal,
    SendSignal,
    ShowInstance,
    SignalAnswer,
    Vacuumed,
)
from ..types import (
    FINISHED,
    Event,
    InstanceDetails,
    InstanceStatus,
    InstanceSummary,
    SignalType,
)
from . import rules
from .pg_connection import Connection
from .pg_rows import LIVING, Stand, from_ms, holder, lock
from .pg_verbs import Work, check_known
from .rules import Action, CustomAction
from .transaction import event_type, is_ours, signal_of, status_of


async def send_signal(work: Work, message: SendSignal) -> SignalAnswer:
    instance, asked = message.instance_id, message.type
    stand = await _known(work, instance)
    if work.again and asked is SignalType.CANCEL and stand.status is InstanceStatus.CANCELLED:
        return SignalAnswer(status=stand.status, text="cancelled")  # its answer was lost
    alive = False
    if stand.owner is not None and stand.ours:
        found = await holder(work.connection, stand.owner, work.owner.name, work.owner.who)
        alive = found.alive
    action, text = rules.decide_signal(
        instance,
        asked,
        rules.standing(stand.status, alive=alive, ours=stand.ours),
        stand.status,
        None if stand.signal is None else stand.signal.type,
    )
    status = stand.status
    asked_already = stand.signal is not None and stand.signal.type is asked
    if action in (Action.DELIVER, Action.WAIT, Action.MARK) and not asked_already:
        await work.run(
            "INSERT INTO pending_signals (instance_id, signal_type, payload)"
            " VALUES ($1, $2::text::signal_type, $3) ON CONFLICT (instance_id) DO UPDATE SET"
            " signal_type = excluded.signal_type, payload = excluded.payload,"
            " created_at = now(), acknowledged_at = NULL",
            instance,
            asked.value,
            message.payload,
        )
        work.announce = True
    if action in (Action.CARRY_OUT, Action.MARK):
        status = InstanceStatus.CANCELLED
        await work.run(
            "UPDATE instances SET status = 'cancelled', finished_at = now(), sleep_until = NULL"
            " WHERE instance_id = $1",
            instance,
        )
    if action is Action.CARRY_OUT:
        await work.run("DELETE FROM runtara_trio_leases WHERE instance_id = $1", instance)
    if action in (Action.CARRY_OUT, Action.WITHDRAW):
        await work.run("DELETE FROM pending_signals WHERE instance_id = $1", instance)
    return SignalAnswer(status=status, text=text)


async def send_custom_signal(work: Work, message: SendCustomSignal) -> Done:
    instance, checkpoint_id = message.instance_id, message.checkpoint_id
    stand = await _known(work, instance)
    ((waiting, taken, refused),) = await work.run(
        "SELECT (SELECT COALESCE(payload, ''::bytea) FROM pending_checkpoint_signals"
        " WHERE instance_id = $1 AND checkpoint_id = $2),"
        " (SELECT state FROM checkpoints WHERE instance_id = $1 AND checkpoint_id = $3),"
        " EXISTS (SELECT 1 FROM checkpoints WHERE instance_id = $1 AND checkpoint_id = $4)",
        instance,
        checkpoint_id,
        signal_id(checkpoint_id),
        refused_id(checkpoint_id),
    )
    action = rules.decide_custom_signal(message, stand.status, waiting, taken, refused=refused)
    if action is CustomAction.STORE_AGAIN:
        await work.run(
            "DELETE FROM checkpoints WHERE instance_id = $1 AND checkpoint_id IN ($2, $3)",
            instance,
            signal_id(checkpoint_id),
            refused_id(checkpoint_id),
        )
    if action is not CustomAction.NOTHING:
        await work.run(
            "INSERT INTO pending_checkpoint_signals (instance_id, checkpoint_id, payload)"
            " VALUES ($1, $2, $3) ON CONFLICT (instance_id, checkpoint_id) DO UPDATE"
            " SET payload = excluded.payload, created_at = now()",
            instance,
            checkpoint_id,
            message.payload,
        )
        work.announce = True
    return Done()


async def list_instances(work: Work, message: ListInstances) -> InstancePage:
    wanted = InstanceStatus if message.statuses is None else message.statuses
    stored = [status for status in sorted(wanted) if status is not InstanceStatus.UNKNOWN]
    if not stored:
        return InstancePage(instances=(), next=None)
    at, last = _place(message.before)
    await work.run(_PLAN_FOR_VALUES)
    rows = await work.run(
        f"{_SUMMARY} WHERE i.instance_id IN ({_page_of(stored)})"
        " ORDER BY i.created_at DESC, i.instance_id DESC",
        *(message.tenant_id, at, last, message.limit + 1),
    )
    living = {owner for (owner,) in await work.run(LIVING)}
    instances = tuple(_summary(row, living) for row in rows[: message.limit])
    return InstancePage(
        instances=instances,
        next=_cursor(instances[-1]) if len(rows) > message.limit else None,
    )


async def show_instance(work: Work, message: ShowInstance) -> InstanceDetails:
    instance = message.instance_id
    found = await work.run(f"{_SUMMARY} WHERE i.instance_id = $1", instance)
    if not found:
        raise ServerError("show", "SHOW_INSTANCE_ERROR", f"no instance {instance!r}")
    ((output, error, checkpoints, events),) = await work.run(
        "SELECT output, error,"
        " (SELECT count(*) FROM checkpoints c WHERE c.instance_id = i.instance_id),"
        " (SELECT count(*) FROM instance_events e WHERE e.instance_id = i.instance_id)"
        " FROM instances i WHERE i.instance_id = $1",
        instance,
    )
    living = {owner for (owner,) in await work.run(LIVING)}
    summary = _summary(found[0], living)
    who = None
    if summary.held and found[0][8] is not None:
        who = (await holder(work.connection, found[0][8], work.owner.name, work.owner.who)).who
    unread = await work.run(
        "SELECT checkpoint_id FROM pending_checkpoint_signals WHERE instance_id = $1"
        ' ORDER BY checkpoint_id COLLATE "C" LIMIT 100',
        instance,
    )
    return InstanceDetails(
        summary=summary,
        holder=who,
        output=output,
        error=error,
        checkpoints=checkpoints,
        events=events,
        unread_signals=tuple(name for (name,) in unread),
    )


async def list_events(work: Work, message: ListEvents) -> EventPage:
    rows = await work.run(
        "SELECT id, event_type::text, subtype, checkpoint_id, payload, created_at"
        " FROM instance_events WHERE instance_id = $1 AND id > $2 ORDER BY id LIMIT $3",
        message.instance_id,
        message.after,
        message.limit + 1,
    )
    if not rows:
        await check_known(work, "events", message.instance_id)
    return EventPage(
        events=tuple(
            Event(
                id=number,
                type=event_type(kind),
                subtype=subtype,
                checkpoint_id=checkpoint_id,
                payload=payload or b"",
                created_at=created_at,
            )
            for number, kind, subtype, checkpoint_id, payload, created_at in rows[: message.limit]
        ),
        more=len(rows) > message.limit,
    )


async def prune(work: Work, message: Prune) -> Pruned:
    finished = ", ".join(f"'{status.value}'" for status in sorted(FINISHED))
    ended = "COALESCE(finished_at, started_at, created_at)"  # a core's cancel leaves it empty
    await work.run(_PLAN_FOR_VALUES)
    removed = await work.run(
        # Locked where it is looked at: one that is revived meanwhile is not removed.
        "DELETE FROM instances WHERE instance_id = ANY (ARRAY(SELECT instance_id FROM instances"
        f" WHERE status IN ({finished}) AND {ended} < $1::text::timestamptz"
        f" ORDER BY {ended} LIMIT $2 FOR UPDATE SKIP LOCKED)) RETURNING 1",
        from_ms(message.before_ms),
        message.limit,
    )
    return Pruned(removed=len(removed))


async def vacuum(connection: Connection) -> Vacuumed:
    """Answer a :class:`Vacuum`, which is no part of a transaction."""
    before = await connection.run(_SIZE)
    skipped = await connection.warnings_of(f"VACUUM (ANALYZE) {', '.join(_TABLES)}")
    if skipped:
        raise StoreError(
            f"{skipped[0]}; the tables' owner may vacuum them, and whoever has MAINTAIN on them"
        )
    after = await connection.run(_SIZE)
    return Vacuumed(bytes_before=before[0][0], bytes_after=after[0][0])


_TABLES = (
    "instances",
    "checkpoints",
    "instance_events",
    "pending_signals",
    "pending_checkpoint_signals",
    "runtara_trio_leases",
    "runtara_trio_starts",
)
_SIZES = " + ".join(f"pg_total_relation_size('{name}')" for name in _TABLES)
_SIZE = f"SELECT {_SIZES}"

_PLAN_FOR_VALUES = "SET LOCAL plan_cache_mode = force_custom_plan"
"""Which plan is best depends on the values: how many are of a status, how many are wanted."""


def _page_of(statuses: Iterable[InstanceStatus]) -> str:
    """The query for the ids of a page: of tenant $1, before the time $2 and id $3, $4 of them.

    Each status by itself: an index of status and creation gives it in this order, and none
    is read that is of another.
    """
    order = "ORDER BY created_at DESC, instance_id DESC LIMIT $4"
    each = " UNION ALL ".join(
        f"(SELECT instance_id, created_at FROM instances WHERE status = '{status.value}'"
        " AND ($1::text IS NULL OR tenant_id = $1)"
        f" AND (created_at, instance_id) < ($2::text::timestamptz, $3) {order})"
        for status in statuses
    )
    return f"SELECT instance_id FROM ({each}) AS each {order}"


_SUMMARY = (
    "SELECT i.instance_id, i.tenant_id, i.status::text, i.checkpoint_id, i.created_at,"
    " i.started_at, i.finished_at, i.sleep_until, l.owner, s.signal_type::text,"
    " b.started_at = i.started_at FROM instances i"
    " LEFT JOIN runtara_trio_leases l ON l.instance_id = i.instance_id"
    " LEFT JOIN runtara_trio_starts b ON b.instance_id = i.instance_id"
    " LEFT JOIN pending_signals s ON s.instance_id = i.instance_id AND s.acknowledged_at IS NULL"
)


def _summary(row: tuple[Any, ...], living: set[str]) -> InstanceSummary:
    instance, tenant, status, checkpoint_id, created, started, finished, sleeps = row[:8]
    owner, kind, same_start = row[8:]
    signal = signal_of(kind, None)
    known = status_of(status)
    return InstanceSummary(
        instance_id=instance,
        tenant_id=tenant,
        status=known,
        held=owner in living,
        ours=is_ours(known, same_start, leased=owner is not None),
        checkpoint_id=checkpoint_id,
        created_at=created,
        started_at=started,
        finished_at=finished,
        sleep_until=sleeps,
        signal=None if signal is None else signal.type,
    )


def _cursor(last: InstanceSummary) -> str:
    return f"{last.created_at} {last.instance_id}"


def _place(cursor: str | None) -> tuple[str, str]:
    """The time of creation and the id before which a page begins."""
    if cursor is None:
        return "infinity", ""
    day, time, instance = (*cursor.split(" ", 2), "", "")[:3]
    try:
        datetime.fromisoformat(f"{day} {time}")
    except ValueError as exc:
        raise rules.no_page(cursor) from exc
    return f"{day} {time}", instance


async def _known(work: Work, instance: str) -> Stand:
    stand = await lock(work.connection, instance)
    if stand is None:
        raise SignalRefused(f"there is no instance {instance!r}; 'list' shows those there are")
    return stand


HANDLERS: Handlers[Work] = {
    SendSignal: send_signal,
    SendCustomSignal: send_custom_signal,
    ListInstances: list_instances,
    ShowInstance: show_instance,
    ListEvents: list_events,
    Prune: prune,
}
"""Which function answers which message."""
