"""Checkpoints, the hot path: what the checkpoints of one commit share is done once.

Nobody else writes inside a transaction, so what decides about an instance (its status, its
lease, its signals) is read for the first of its checkpoints and stands for the others; and
the name of its newest checkpoint is written once, for the last. Any other message of the
batch sees a database in which that has happened: see :meth:`Saving.settle`.

A checkpoint is then one statement, an INSERT that a stored state of that id declines. Where
custom signals wait for an instance, or were handed to it, each is looked at closely.
"""

from __future__ import annotations

from typing import Any

import msgspec

from ...ids import RESERVED, signal_id, signal_payload
from ...messages import Checkpoint, CheckpointReply, GetCheckpoint, StoredState
from ...types import CustomSignal, Signal
from ..answers import rules
from ..answers.signals import take
from ..driving import drive
from ..noted import row_of_note
from ..values import as_bytes, signal_of
from . import history, rows
from .tables import SqliteTables

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

_GET = (
    "SELECT c.state, c.id FROM instances i LEFT JOIN checkpoints c"
    " ON c.instance_id = i.instance_id AND c.checkpoint_id = ? WHERE i.instance_id = ?"
)


class _Known(msgspec.Struct, frozen=True):
    """What decides about the checkpoints of an instance."""

    status: str
    epoch: int | None
    signal: Signal | None
    custom_signals: bool
    """Some wait, or were handed out."""


class Saving:
    """The checkpoints of one batch."""

    def __init__(self, tx: SqliteTables) -> None:
        self._tx = tx
        self._known: dict[str, _Known] = {}
        """By instance id."""
        self._steps: list[tuple[Any, ...]] = []
        """Steps that are noted with them."""
        self._newest: dict[str, str] = {}
        """The newest checkpoint of an instance, where it is not written yet."""

    def checkpoint(self, message: Checkpoint) -> CheckpointReply:
        tx, instance, checkpoint_id = self._tx, message.instance_id, message.checkpoint_id
        known = self._known.get(instance) or self._read(instance)
        rules.check_lease(instance, message.lease, known.epoch)
        rules.check_running(message.verb, instance, known.status)
        custom = self._custom_signal(instance, checkpoint_id) if known.custom_signals else None
        saved = rows.save(tx.db, instance, checkpoint_id, message.state, tx.now_text)
        if saved:
            self._newest[instance] = checkpoint_id
        who = tx.leases.who
        self._steps += [row_of_note(instance, message.lease, one, who) for one in message.steps]
        return CheckpointReply(
            found=not saved,
            state=b"" if saved else rows.stored(tx.db, instance, checkpoint_id) or b"",
            pending_signal=known.signal,
            version=tx.version,
            custom_signal=custom,
        )

    def get(self, message: GetCheckpoint) -> StoredState:
        found = self._tx.db.execute(_GET, (message.checkpoint_id, message.instance_id)).fetchone()
        if found is None:
            raise rules.unknown(message.verb, message.instance_id)
        return StoredState(found=found[1] is not None, state=as_bytes(found[0]))

    def settle(self) -> None:
        """Write what was put off and forget what was read: somebody else looks, or commits."""
        if self._newest:
            self._tx.db.executemany(
                "UPDATE instances SET checkpoint_id = ? WHERE instance_id = ?",
                [(name, instance) for instance, name in self._newest.items()],
            )
            self._newest.clear()
        if self._steps:
            history.write(self._tx.db, self._steps)
            self._steps.clear()
        self._known.clear()

    def _read(self, instance: str) -> _Known:
        found = self._tx.db.execute(_READ_KNOWN, (_SIGNALS_FROM, _SIGNALS_TO, instance)).fetchone()
        status, epoch, kind, payload, custom = found or ("unknown", None, None, None, False)
        known = _Known(status, epoch, signal_of(kind, payload), bool(custom))
        self._known[instance] = known
        return known

    def _custom_signal(self, instance: str, checkpoint_id: str) -> CustomSignal | None:
        """The custom signal for a checkpoint's id; a wait that timed out has no signal."""
        payload = signal_payload(drive(take(self._tx, instance, checkpoint_id)))
        return None if payload is None else CustomSignal(checkpoint_id, payload)
