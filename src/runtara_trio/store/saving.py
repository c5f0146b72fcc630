"""Checkpoints, the hot path: what the checkpoints of one commit share is done once.

Nobody else writes inside a transaction, so what decides about an instance (its status, its
lease, its signals) is read for the first of its checkpoints and stands for the others; and
the name of its newest checkpoint is written once, for the last. Any other message of the
batch sees a database in which that has happened: see :func:`settle`.

A checkpoint is then one statement, an INSERT that a stored state of that id declines. Where
custom signals wait for an instance, or were handed to it, each is looked at closely.
"""

from __future__ import annotations

from ..errors import LeaseLost
from ..ids import RESERVED, TIMED_OUT, signal_id, signal_payload, signal_record
from ..messages import Checkpoint, CheckpointReply
from ..types import CustomSignal
from .transaction import Known, Transaction, as_bytes, check_running, signal_of

_SIGNALS_FROM = signal_id("")
_SIGNALS_TO = RESERVED + "signal:;"  # the first text behind all that begin so

_READ_KNOWN = (
    "SELECT i.status, l.epoch, s.signal_type, s.payload,"
    " EXISTS (SELECT 1 FROM pending_custom_signals w WHERE w.instance_id = i.instance_id)"
    " OR EXISTS (SELECT 1 FROM checkpoints c WHERE c.instance_id = i.instance_id"
    " AND c.checkpoint_id >= ? AND c.checkpoint_id < ?)"
    " FROM instances i LEFT JOIN runtara_trio_leases l ON l.instance_id = i.instance_id"
    " LEFT JOIN pending_signals s ON s.instance_id = i.instance_id"
    " AND s.acknowledged_at IS NULL WHERE i.instance_id = ?"
)
_SAVE = (
    "INSERT INTO checkpoints (instance_id, checkpoint_id, state, created_at)"
    " VALUES (?, ?, ?, ?) ON CONFLICT (instance_id, checkpoint_id) DO NOTHING"
)
_READ = "SELECT state FROM checkpoints WHERE instance_id = ? AND checkpoint_id = ?"


def checkpoint(tx: Transaction, message: Checkpoint) -> CheckpointReply:
    instance, checkpoint_id = message.instance_id, message.checkpoint_id
    known = tx.known.get(instance) or _read_known(tx, instance)
    check_held(instance, message.lease, known.epoch)
    check_running("checkpoint", instance, known.status)
    custom = _custom_signal(tx, instance, checkpoint_id) if known.custom_signals else None
    saved = save(tx, instance, checkpoint_id, message.state)
    if saved:
        tx.newest[instance] = checkpoint_id
    return CheckpointReply(
        found=not saved,
        state=b"" if saved else stored(tx, instance, checkpoint_id) or b"",
        pending_signal=known.signal,
        look=tx.look,
        custom_signal=custom,
    )


def settle(tx: Transaction) -> None:
    """Write what was put off and forget what was read: somebody else looks, or commits."""
    if tx.newest:
        tx.db.executemany(
            "UPDATE instances SET checkpoint_id = ? WHERE instance_id = ?",
            [(name, instance) for instance, name in tx.newest.items()],
        )
        tx.newest.clear()
    tx.known.clear()


def save(tx: Transaction, instance: str, checkpoint_id: str, state: bytes) -> bool:
    """Store a state, unless there is one. Whether it was stored."""
    cursor = tx.db.execute(_SAVE, (instance, checkpoint_id, state, tx.now_text))
    return cursor.rowcount == 1


def stored(tx: Transaction, instance: str, checkpoint_id: str) -> bytes | None:
    """What is stored under an id; None: nothing."""
    found = tx.db.execute(_READ, (instance, checkpoint_id)).fetchone()
    return None if found is None else as_bytes(found[0])


def take(
    tx: Transaction, instance: str, checkpoint_id: str, *, give_up: bool = False
) -> bytes | None:
    """The record of the custom signal for an id: handed out before, or now, saved and removed
    in one transaction. None: there is none; with ``give_up`` that is recorded instead."""
    record = stored(tx, instance, signal_id(checkpoint_id))
    if record is not None:
        return record
    waiting = tx.db.execute(
        "SELECT payload FROM pending_custom_signals WHERE instance_id = ? AND checkpoint_id = ?",
        (instance, checkpoint_id),
    ).fetchone()
    if waiting is None and not give_up:
        return None
    record = TIMED_OUT if waiting is None else signal_record(as_bytes(waiting[0]))
    save(tx, instance, signal_id(checkpoint_id), record)
    tx.db.execute(
        "DELETE FROM pending_custom_signals WHERE instance_id = ? AND checkpoint_id = ?",
        (instance, checkpoint_id),
    )
    return record


def check_held(instance: str, lease: int, epoch: int | None) -> None:
    """Raises LeaseLost where the message's lease is not the instance's."""
    if epoch != lease:
        raise LeaseLost(instance)


def _read_known(tx: Transaction, instance: str) -> Known:
    found = tx.db.execute(_READ_KNOWN, (_SIGNALS_FROM, _SIGNALS_TO, instance)).fetchone()
    if found is None:
        raise LeaseLost(instance)
    status, epoch, kind, payload, custom_signals = found
    known = Known(status, epoch, signal_of(kind, payload), bool(custom_signals))
    tx.known[instance] = known
    return known


def _custom_signal(tx: Transaction, instance: str, checkpoint_id: str) -> CustomSignal | None:
    """The custom signal for a checkpoint's id; one that timed out is none."""
    payload = signal_payload(take(tx, instance, checkpoint_id))
    return None if payload is None else CustomSignal(checkpoint_id, payload)
