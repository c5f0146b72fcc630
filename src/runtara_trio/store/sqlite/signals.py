"""Signals on SQLite, the operator's and custom ones; messages wait among the latter."""

from __future__ import annotations

from ...ids import refused_id, signal_id
from ...types import Signal
from ..structs import Custom
from ..values import as_bytes, signal_of
from .queues import SqliteQueues
from .schema import time_text


class SqliteSignals(SqliteQueues):
    """The part of the port that is about signals."""

    signals_changed: bool
    signals_taken: bool
    """What was told of is gone: the same id may come again."""

    async def pending(self, instance_id: str) -> Signal | None:
        found = self.db.execute(
            "SELECT signal_type, payload FROM pending_signals"
            " WHERE instance_id = ? AND acknowledged_at IS NULL",
            (instance_id,),
        ).fetchone()
        return None if found is None else signal_of(*found)

    async def put_signal(self, instance_id: str, signal: Signal) -> None:
        self.db.execute(
            "INSERT OR REPLACE INTO pending_signals"
            " (instance_id, signal_type, payload, created_at) VALUES (?, ?, ?, ?)",
            (instance_id, signal.type.value, signal.payload, time_text(int(self.now))),
        )
        self.signals_changed = True

    async def drop_signal(self, instance_id: str, signal: Signal | None = None) -> None:
        if signal is None:
            self.db.execute("DELETE FROM pending_signals WHERE instance_id = ?", (instance_id,))
        else:
            self.db.execute(
                "DELETE FROM pending_signals WHERE instance_id = ? AND signal_type = ?"
                " AND COALESCE(payload, x'') = ?",
                (instance_id, signal.type.value, signal.payload),
            )

    async def custom_signal(self, instance_id: str, checkpoint_id: str) -> Custom:
        waiting, taken, refused = self.db.execute(
            "SELECT (SELECT COALESCE(payload, x'') FROM pending_custom_signals"
            " WHERE instance_id = :instance AND checkpoint_id = :waiting),"
            " (SELECT state FROM checkpoints"
            " WHERE instance_id = :instance AND checkpoint_id = :taken),"
            " EXISTS (SELECT 1 FROM checkpoints"
            " WHERE instance_id = :instance AND checkpoint_id = :refused)",
            {
                "instance": instance_id,
                "waiting": checkpoint_id,
                "taken": signal_id(checkpoint_id),
                "refused": refused_id(checkpoint_id),
            },
        ).fetchone()
        return Custom(waiting, taken, bool(refused))

    async def put_custom_signal(self, instance_id: str, checkpoint_id: str, payload: bytes) -> None:
        self.db.execute(
            "INSERT OR REPLACE INTO pending_custom_signals"
            " (instance_id, checkpoint_id, payload, created_at) VALUES (?, ?, ?, ?)",
            (instance_id, checkpoint_id, payload, time_text(int(self.now))),
        )
        self.signals_changed = True

    async def take_custom_signal(self, instance_id: str, checkpoint_id: str) -> bytes | None:
        where = "FROM pending_custom_signals WHERE instance_id = ? AND checkpoint_id = ?"
        found = self.db.execute(f"SELECT payload {where}", (instance_id, checkpoint_id)).fetchone()
        if found is None:
            return None
        self.db.execute(f"DELETE {where}", (instance_id, checkpoint_id))
        self.signals_taken = True
        return as_bytes(found[0])

    async def first_message(self, instance_id: str, prefix: str) -> str | None:
        return self._message("MIN", instance_id, prefix)

    async def last_message(self, instance_id: str, prefix: str) -> str | None:
        return self._message("MAX", instance_id, prefix)

    def _message(self, which: str, instance_id: str, prefix: str) -> str | None:
        (found,) = self.db.execute(
            f"SELECT {which}(checkpoint_id) FROM pending_custom_signals"
            " WHERE instance_id = ? AND checkpoint_id >= ? AND checkpoint_id < ?",
            (instance_id, prefix, prefix + chr(0x10FFFF)),
        ).fetchone()
        return None if found is None else str(found)
