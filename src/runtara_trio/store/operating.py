"""The answers to an operator's messages."""

from __future__ import annotations

from ..backend import Handlers
from ..errors import ServerError, SignalRefused
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
)
from ..types import FINISHED, Event, InstanceDetails, InstanceStatus, InstanceSummary
from . import rules
from .rules import Action, CustomAction
from .schema import parse_time
from .transaction import (
    Row,
    Transaction,
    as_bytes,
    check_known,
    delete_signal,
    event_type,
    is_ours,
    read_row,
    signal_of,
    status_of,
)


def send_signal(tx: Transaction, message: SendSignal) -> SignalAnswer:
    instance, asked = message.instance_id, message.type
    row = _known(tx, instance)
    holder = tx.leases.holder(tx.db, instance, tx.now)
    alive = holder is not None and holder.alive and row.ours
    action, text = rules.decide_signal(
        instance,
        asked,
        rules.standing(row.status, alive=alive, ours=row.ours),
        row.status,
        None if row.signal is None else row.signal.type,
    )
    status = row.status
    asked_already = row.signal is not None and row.signal.type is asked
    if action in (Action.DELIVER, Action.WAIT, Action.MARK) and not asked_already:
        tx.db.execute(
            "INSERT OR REPLACE INTO pending_signals"
            " (instance_id, signal_type, payload, created_at) VALUES (?, ?, ?, ?)",
            (instance, asked.value, message.payload, tx.now_text),
        )
        tx.signals_changed = True
    if action in (Action.CARRY_OUT, Action.MARK):
        status = InstanceStatus.CANCELLED
        tx.db.execute(
            "UPDATE instances SET status = 'cancelled', finished_at = ?, sleep_until = NULL"
            " WHERE instance_id = ?",
            (tx.now_text, instance),
        )
    if action is Action.CARRY_OUT:
        # The lease goes with it: a holder that comes back is fenced.
        tx.db.execute("DELETE FROM runtara_trio_leases WHERE instance_id = ?", (instance,))
        delete_signal(tx, instance)
    if action is Action.WITHDRAW:
        delete_signal(tx, instance)
    return SignalAnswer(status=status, text=text)


def send_custom_signal(tx: Transaction, message: SendCustomSignal) -> Done:
    instance, checkpoint_id = message.instance_id, message.checkpoint_id
    row = _known(tx, instance)
    waiting, taken, refused = tx.db.execute(
        "SELECT (SELECT COALESCE(payload, x'') FROM pending_custom_signals"
        " WHERE instance_id = :instance AND checkpoint_id = :waiting),"
        " (SELECT state FROM checkpoints WHERE instance_id = :instance AND checkpoint_id = :taken),"
        " EXISTS (SELECT 1 FROM checkpoints WHERE instance_id = :instance"
        " AND checkpoint_id = :refused)",
        {
            "instance": instance,
            "waiting": checkpoint_id,
            "taken": signal_id(checkpoint_id),
            "refused": refused_id(checkpoint_id),
        },
    ).fetchone()
    action = rules.decide_custom_signal(message, row.status, waiting, taken, refused=bool(refused))
    if action is CustomAction.STORE_AGAIN:
        tx.db.execute(
            "DELETE FROM checkpoints WHERE instance_id = ? AND checkpoint_id IN (?, ?)",
            (instance, signal_id(checkpoint_id), refused_id(checkpoint_id)),
        )
    if action is not CustomAction.NOTHING:
        tx.db.execute(
            "INSERT OR REPLACE INTO pending_custom_signals"
            " (instance_id, checkpoint_id, payload, created_at) VALUES (?, ?, ?, ?)",
            (instance, checkpoint_id, message.payload, tx.now_text),
        )
        tx.signals_changed = True
    return Done()


def list_instances(tx: Transaction, message: ListInstances) -> InstancePage:
    wanted: list[str] = []
    values: list[object] = []
    if message.tenant_id is not None:
        wanted.append("i.tenant_id = ?")
        values.append(message.tenant_id)
    if message.before is not None:
        wanted.append("i.rowid < ?")
        values.append(_rowid(message.before))
    if message.statuses is not None:
        wanted.append(f"i.status IN ({', '.join('?' * len(message.statuses))})")
        values += sorted(message.statuses)
    where = f" WHERE {' AND '.join(wanted)}" if wanted else ""
    rows = tx.db.execute(
        f"{_SUMMARY}{where} ORDER BY i.rowid DESC LIMIT ?", (*values, message.limit + 1)
    ).fetchall()
    living = tx.leases.living(tx.db)
    return InstancePage(
        instances=tuple(_summary(row, living) for row in rows[: message.limit]),
        next=str(rows[message.limit - 1][0]) if len(rows) > message.limit else None,
    )


def _rowid(cursor: str) -> int:
    if not (cursor.isdecimal() and int(cursor) < 2**63):
        raise rules.no_page(cursor)
    return int(cursor)


def show_instance(tx: Transaction, message: ShowInstance) -> InstanceDetails:
    instance = message.instance_id
    row = tx.db.execute(f"{_SUMMARY} WHERE i.instance_id = ?", (instance,)).fetchone()
    if row is None:
        raise ServerError("show", "SHOW_INSTANCE_ERROR", f"no instance {instance!r}")
    output, error, checkpoints, events = tx.db.execute(
        "SELECT output, error,"
        " (SELECT count(*) FROM checkpoints c WHERE c.instance_id = i.instance_id),"
        " (SELECT count(*) FROM instance_events e WHERE e.instance_id = i.instance_id)"
        " FROM instances i WHERE i.instance_id = ?",
        (instance,),
    ).fetchone()
    holder = tx.leases.holder(tx.db, instance, tx.now)
    summary = _summary(row, tx.leases.living(tx.db))
    return InstanceDetails(
        summary=summary,
        holder=holder.who if holder is not None and summary.held else None,
        output=output,
        error=error,
        checkpoints=checkpoints,
        events=events,
        unread_signals=tuple(
            checkpoint_id
            for (checkpoint_id,) in tx.db.execute(
                "SELECT checkpoint_id FROM pending_custom_signals WHERE instance_id = ?"
                " ORDER BY checkpoint_id LIMIT 100",
                (instance,),
            )
        ),
    )


def list_events(tx: Transaction, message: ListEvents) -> EventPage:
    rows = tx.db.execute(
        "SELECT id, event_type, subtype, checkpoint_id, payload, created_at FROM instance_events"
        " WHERE instance_id = ? AND id > ? ORDER BY id LIMIT ?",
        (message.instance_id, message.after, message.limit + 1),
    ).fetchall()
    if not rows:
        check_known(tx, "events", message.instance_id)
    return EventPage(
        events=tuple(
            Event(
                id=number,
                type=event_type(kind),
                subtype=subtype,
                checkpoint_id=checkpoint_id,
                payload=as_bytes(payload),
                created_at=parse_time(created_at),
            )
            for number, kind, subtype, checkpoint_id, payload, created_at in rows[: message.limit]
        ),
        more=len(rows) > message.limit,
    )


def prune(tx: Transaction, message: Prune) -> Pruned:
    finished = ", ".join(f"'{status.value}'" for status in sorted(FINISHED))
    removed = tx.db.execute(
        "DELETE FROM instances WHERE instance_id IN (SELECT instance_id FROM instances"
        f" WHERE status IN ({finished}) AND CAST(strftime('%s',"
        # a core leaves finished_at empty where it cancels
        " COALESCE(finished_at, started_at, created_at)) AS INTEGER) * 1000 < ? LIMIT ?)",
        (message.before_ms, message.limit),
    ).rowcount
    return Pruned(removed=removed)


_SUMMARY = (
    "SELECT i.rowid, i.instance_id, i.tenant_id, i.status, i.checkpoint_id, i.created_at,"
    " i.started_at, i.finished_at, i.sleep_until, l.owner, s.signal_type,"
    " b.started_at = i.started_at FROM instances i"
    " LEFT JOIN runtara_trio_leases l ON l.instance_id = i.instance_id"
    " LEFT JOIN runtara_trio_starts b ON b.instance_id = i.instance_id"
    " LEFT JOIN pending_signals s ON s.instance_id = i.instance_id AND s.acknowledged_at IS NULL"
)


def _summary(row: tuple[object, ...], living: set[str]) -> InstanceSummary:
    (
        _,
        instance,
        tenant,
        status,
        checkpoint_id,
        created,
        started,
        finished,
        sleeps,
        owner,
        kind,
        same_start,
    ) = row
    signal = signal_of(_text(kind), None)
    known = status_of(str(status))
    started_at, finished_at = parse_time(_text(started)), parse_time(_text(finished))
    if started_at is not None and finished_at is not None:
        finished_at = max(started_at, finished_at)  # it is stored in whole seconds
    return InstanceSummary(
        instance_id=str(instance),
        tenant_id=str(tenant),
        status=known,
        held=owner in living,
        ours=is_ours(known, same_start, leased=owner is not None),
        checkpoint_id=_text(checkpoint_id),
        created_at=parse_time(_text(created)),
        started_at=started_at,
        finished_at=finished_at,
        sleep_until=parse_time(_text(sleeps)),
        signal=None if signal is None else signal.type,
    )


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _known(tx: Transaction, instance: str) -> Row:
    row = read_row(tx, instance)
    if row is None:
        raise SignalRefused(f"there is no instance {instance!r}; 'list' shows those there are")
    return row


HANDLERS: Handlers[Transaction] = {
    SendSignal: send_signal,
    SendCustomSignal: send_custom_signal,
    ListInstances: list_instances,
    ShowInstance: show_instance,
    ListEvents: list_events,
    Prune: prune,
}
"""Which function answers which message."""
