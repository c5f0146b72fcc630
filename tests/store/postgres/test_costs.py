"""What each message costs in statements, beside BEGIN and COMMIT."""

from __future__ import annotations

from typing import Any

import pytest

from runtara_trio import EventType, InstanceFinished, InstanceStatus, SdkConfig, Signal, SignalType
from runtara_trio import open_backend as open_store
from runtara_trio.messages import (
    AcknowledgeSignal,
    Checkpoint,
    FreeLease,
    GetCheckpoint,
    GetStatus,
    GoOn,
    Heartbeats,
    Hold,
    ListEvents,
    ListInstances,
    PollSignals,
    Prune,
    ReadCheckpoints,
    RecordEvent,
    RecordOutcome,
    RecordRetry,
    Register,
    Request,
    SendCustomSignal,
    SendSignal,
    ShowInstance,
    Sleep,
    TakeLease,
    TakeSignal,
)
from runtara_trio.store.postgres.connection import Connection

from ...helpers.places import postgres_place

PAUSE = Signal(SignalType.PAUSE, b"p")
OF_TRANSACTIONS = ("BEGIN", "COMMIT", "ROLLBACK")
OF_SERVICES = ("SELECT pg_notify", "LISTEN", "SELECT s.instance_id")


async def test_the_statements_of_each_message(
    postgres_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Connection.run
    statements: list[str] = []

    async def counted(self: Connection, statement: str, *parameters: Any) -> Any:
        if not statement.startswith((*OF_TRANSACTIONS, *OF_SERVICES)):
            statements.append(statement)
        return await run(self, statement, *parameters)

    async with (
        postgres_place(postgres_server) as place,
        open_store(place.url, config=SdkConfig(heartbeat_interval_ms=0)) as backend,
    ):
        await backend.request(Register(instance_id="first", tenant_id="t"))  # makes it ready
        monkeypatch.setattr(Connection, "run", counted)

        async def cost(message: Request[Any], expected: int) -> Any:
            statements.clear()
            reply = await backend.request(message)
            assert len(statements) == expected, statements
            return reply

        i = {"instance_id": "i"}
        lease = (await cost(Register(**i, tenant_id="t"), 4)).lease
        mine = {**i, "lease": lease}
        await cost(Checkpoint(**mine, checkpoint_id="a", state=b"x"), 1)
        await cost(GetCheckpoint(**i, checkpoint_id="a"), 1)
        await cost(ReadCheckpoints(**i), 1)
        await cost(Sleep(**mine, checkpoint_id="s", wake_at_ms=5), 5)
        await cost(RecordRetry(**mine, checkpoint_id="c", attempt=1, error="e"), 3)
        await cost(RecordEvent(**mine, type=EventType.CUSTOM, subtype="s"), 3)
        await cost(TakeSignal(**mine, checkpoint_id="w"), 4)
        await cost(SendCustomSignal(**i, checkpoint_id="w", payload=b"x"), 4)
        await cost(TakeSignal(**mine, checkpoint_id="w"), 5)
        await cost(SendSignal(**i, type=SignalType.PAUSE, payload=b"p"), 3)
        await cost(PollSignals(**i), 1)
        await cost(Hold(**mine, signal=PAUSE), 5)
        await cost(GoOn(**mine, tenant_id="t"), 3)
        await cost(SendSignal(**i, type=SignalType.PAUSE, payload=b"p"), 3)
        await cost(AcknowledgeSignal(**mine, signal=PAUSE), 3)
        await cost(GetStatus(**i), 1)
        await cost(ListInstances(), 3)
        await cost(ShowInstance(**i), 4)
        await cost(ListEvents(**i), 1)
        lease = (await cost(TakeLease(**i, replaces=lease), 3)).lease
        await cost(FreeLease(**i, lease=lease), 1)
        lease = (await cost(Register(**i, tenant_id="t"), 5)).lease
        end = InstanceStatus.COMPLETED
        await cost(RecordOutcome(**i, lease=lease, status=end), 3)
        statements.clear()
        with pytest.raises(InstanceFinished):
            await backend.request(Register(**i, tenant_id="t"))
        assert len(statements) == 2
        await cost(Register(**i, tenant_id="t", revive=True), 7)
        await cost(Heartbeats(instance_ids=("i",)), 1)
        await cost(SendSignal(**i, type=SignalType.CANCEL, payload=b""), 3)
        await cost(Prune(before_ms=0), 2)
