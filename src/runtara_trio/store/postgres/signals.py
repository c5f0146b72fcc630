"""Signals on PostgreSQL, the operator's and custom ones; messages wait among the latter."""

from __future__ import annotations

from ...ids import refused_id, signal_id
from ...types import Signal
from ..structs import Custom
from ..values import signal_of
from .queues import PostgresQueues


class PostgresSignals(PostgresQueues):
    """The part of the port that is about signals."""

    async def pending(self, instance_id: str) -> Signal | None:
        found = await self._run(
            "SELECT signal_type::text, payload FROM pending_signals"
            " WHERE instance_id = $1 AND acknowledged_at IS NULL",
            instance_id,
        )
        return signal_of(*found[0]) if found else None

    async def put_signal(self, instance_id: str, signal: Signal) -> None:
        self._later(
            "INSERT INTO pending_signals (instance_id, signal_type, payload)"
            " VALUES ($1, $2::text::signal_type, $3) ON CONFLICT (instance_id) DO UPDATE SET"
            " signal_type = excluded.signal_type, payload = excluded.payload,"
            " created_at = now(), acknowledged_at = NULL",
            instance_id,
            signal.type.value,
            signal.payload,
        )
        self.announces = True

    async def drop_signal(self, instance_id: str, signal: Signal | None = None) -> None:
        if signal is None:
            self._later("DELETE FROM pending_signals WHERE instance_id = $1", instance_id)
        else:
            self._later(
                "DELETE FROM pending_signals WHERE instance_id = $1 AND signal_type::text = $2"
                " AND COALESCE(payload, ''::bytea) = $3",
                instance_id,
                signal.type.value,
                signal.payload,
            )

    async def custom_signal(self, instance_id: str, checkpoint_id: str) -> Custom:
        ((waiting, taken, refused),) = await self._run(
            "SELECT (SELECT COALESCE(payload, ''::bytea) FROM pending_checkpoint_signals"
            " WHERE instance_id = $1 AND checkpoint_id = $2),"
            " (SELECT state FROM checkpoints WHERE instance_id = $1 AND checkpoint_id = $3),"
            " EXISTS (SELECT 1 FROM checkpoints WHERE instance_id = $1 AND checkpoint_id = $4)",
            instance_id,
            checkpoint_id,
            signal_id(checkpoint_id),
            refused_id(checkpoint_id),
        )
        return Custom(waiting, taken, refused)

    async def put_custom_signal(self, instance_id: str, checkpoint_id: str, payload: bytes) -> None:
        self._later(
            "INSERT INTO pending_checkpoint_signals (instance_id, checkpoint_id, payload)"
            " VALUES ($1, $2, $3) ON CONFLICT (instance_id, checkpoint_id) DO UPDATE"
            " SET payload = excluded.payload, created_at = now()",
            instance_id,
            checkpoint_id,
            payload,
        )
        self.announces = True

    async def take_custom_signal(self, instance_id: str, checkpoint_id: str) -> bytes | None:
        found = await self._run(
            "DELETE FROM pending_checkpoint_signals WHERE instance_id = $1"
            " AND checkpoint_id = $2 RETURNING payload",
            instance_id,
            checkpoint_id,
        )
        return (found[0][0] or b"") if found else None

    async def first_message(self, instance_id: str, prefix: str) -> str | None:
        return await self._message("", instance_id, prefix)

    async def last_message(self, instance_id: str, prefix: str) -> str | None:
        return await self._message(" DESC", instance_id, prefix)

    async def _message(self, order: str, instance_id: str, prefix: str) -> str | None:
        found = await self._run(
            "SELECT checkpoint_id FROM pending_checkpoint_signals WHERE instance_id = $1"
            " AND left(checkpoint_id, length($2)) = $2"
            f' ORDER BY checkpoint_id COLLATE "C"{order} LIMIT 1',
            instance_id,
            prefix,
        )
        return found[0][0] if found else None
