"""What an answer works with: the connection, the time, and what follows the commit."""

from __future__ import annotations

import sqlite3

import msgspec

from ..errors import ServerError
from ..types import EventType, InstanceStatus, Signal, SignalType
from .leases import Leases
from .schema import time_text


class Known(msgspec.Struct, frozen=True):
    """What decides about the checkpoints of an instance."""

    status: str
    epoch: int | None
    signal: Signal | None
    custom_signals: bool
    """Some wait, or were handed out."""


class Transaction:
    """A batch's view of the store. Answers read and decide first, then write."""

    def __init__(self, db: sqlite3.Connection, leases: Leases) -> None:
        self.db = db
        self.leases = leases
        self.now = 0.0
        """When the message that is being answered was sent, Unix seconds."""
        self.look = 0
        """The number of its look at signals."""
        self.known: dict[str, Known] = {}
        """By instance id, for its checkpoints; see ``saving``."""
        self.newest: dict[str, str] = {}
        """The newest checkpoint of an instance, where it is not written yet."""
        self.held: list[tuple[str, int | None]] = []
        """Leases taken, and given up (None), in this order, once it has committed."""
        self.dead_files: list[str] = []
        """Side files to be removed then."""
        self.signals_changed = False

    @property
    def now_text(self) -> str:
        return time_text(int(self.now))


class Row(msgspec.Struct, frozen=True):
    """What most answers must know of an instance."""

    tenant_id: str
    status: InstanceStatus
    epoch: int | None
    ours: bool
    """Started last by a register of ours."""
    signal: Signal | None


def read_row(tx: Transaction, instance_id: str) -> Row | None:
    """The instance, its lease and its pending signal."""
    found = tx.db.execute(
        "SELECT i.tenant_id, i.status, l.epoch, b.started_at = i.started_at,"
        " s.signal_type, s.payload FROM instances i"
        " LEFT JOIN runtara_trio_leases l ON l.instance_id = i.instance_id"
        " LEFT JOIN runtara_trio_starts b ON b.instance_id = i.instance_id"
        " LEFT JOIN pending_signals s ON s.instance_id = i.instance_id"
        " AND s.acknowledged_at IS NULL WHERE i.instance_id = ?",
        (instance_id,),
    ).fetchone()
    if found is None:
        return None
    tenant, status, epoch, same_start, kind, payload = found
    known = status_of(status)
    ours = is_ours(known, same_start, leased=epoch is not None)
    return Row(tenant, known, epoch, ours, signal_of(kind, payload))


def is_ours(status: InstanceStatus, same_start: object, *, leased: bool) -> bool:
    """Whether a register of ours started an instance last, not a runtara-core.

    Args:
      same_start: the row's started_at is the one that our register wrote.
      leased: it has a lease; a running one without is core's.
    """
    return bool(same_start) and (leased or status is not InstanceStatus.RUNNING)


def refused(call: str, text: str) -> ServerError:
    """The error of a refused call, with the code that runtara-core would give it."""
    return ServerError(call, f"{call.upper()}_ERROR", text)


def check_running(call: str, instance: str, status: str) -> None:
    """Raises ServerError where another program changed the status: a core, an environment."""
    if status != "running":
        raise refused(call, f"instance {instance!r} is {status}, not running")


def unknown(call: str, instance_id: str) -> ServerError:
    """The error of a call for an instance that is not there."""
    return refused(call, f"no instance {instance_id!r}")


def check_known(tx: Transaction, call: str, instance_id: str) -> None:
    """Raises ServerError where there is no such instance."""
    found = tx.db.execute("SELECT 1 FROM instances WHERE instance_id = ?", (instance_id,))
    if found.fetchone() is None:
        raise unknown(call, instance_id)


def status_of(text: str) -> InstanceStatus:
    try:
        return InstanceStatus(text)
    except ValueError:
        return InstanceStatus.UNKNOWN


def event_type(text: str) -> EventType | str:
    try:
        return EventType(text)
    except ValueError:
        return text  # of a later runtara


def as_bytes(value: object) -> bytes:
    """A BLOB column: NULL is nothing, and a text or a number is what somebody wrote by hand."""
    if isinstance(value, bytes):
        return value
    return b"" if value is None else str(value).encode()


def signal_of(kind: str | None, payload: bytes | str | None) -> Signal | None:
    """A row of pending_signals; a type that runtara-core does not know either is nothing."""
    try:
        return None if kind is None else Signal(SignalType(kind), as_bytes(payload))
    except ValueError:
        return None


def delete_signal(tx: Transaction, instance_id: str, signal: Signal | None = None) -> None:
    """Remove the pending signal: any, or only this very one."""
    if signal is None:
        tx.db.execute("DELETE FROM pending_signals WHERE instance_id = ?", (instance_id,))
    else:
        tx.db.execute(
            "DELETE FROM pending_signals WHERE instance_id = ? AND signal_type = ?"
            " AND COALESCE(payload, x'') = ?",
            (instance_id, signal.type.value, signal.payload),
        )


def add_event(
    tx: Transaction,
    instance_id: str,
    kind: str,
    payload: bytes = b"",
    subtype: str | None = None,
    checkpoint_id: str | None = None,
) -> None:
    tx.db.execute(
        "INSERT INTO instance_events (instance_id, event_type, checkpoint_id, payload,"
        " created_at, subtype) VALUES (?, ?, ?, ?, ?, ?)",
        (instance_id, kind, checkpoint_id, payload or None, tx.now_text, subtype),
    )
