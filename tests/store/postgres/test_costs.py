"""What each message costs in statements, beside BEGIN and COMMIT, and in round trips with them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from runtara_trio import (
    EventType,
    InstanceFinished,
    InstanceStatus,
    RunState,
    SdkConfig,
    Signal,
    SignalType,
    WorkerInfo,
)
from runtara_trio import open_backend as open_store
from runtara_trio.messages import (
    AcknowledgeSignal,
    AnnounceWorker,
    Checkpoint,
    ClaimRuns,
    CountInstances,
    EndsSince,
    Filter,
    FreeLease,
    GetCheckpoint,
    GetInput,
    GetResults,
    GetStatus,
    GoOn,
    Heartbeats,
    Hold,
    ListEvents,
    ListInstances,
    ListWorkers,
    LookForWork,
    MarkRuns,
    NewRun,
    Next,
    PollSignals,
    Prune,
    ReadCheckpoints,
    RecordEvent,
    RecordOutcome,
    RecordRetry,
    RecoverRuns,
    Register,
    Request,
    SendCustomSignal,
    SendSignal,
    ShowInstance,
    Sleep,
    StartRuns,
    TakeLease,
    TakeSignal,
)
from runtara_trio.store.postgres.connection import Connection

from ...helpers.places import postgres_place
from ...helpers.statements import watch

PAUSE = Signal(SignalType.PAUSE, b"p")
OF_TRANSACTIONS = ("BEGIN", "COMMIT", "ROLLBACK")
OF_SERVICES = ("SELECT pg_notify", "LISTEN", "SELECT s.instance_id")


async def test_the_statements_and_round_trips_of_each_message(
    postgres_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    statements: list[str] = []
    trips: list[object] = []
    run_all, commit = Connection.run_all, Connection.commit

    def count(statement: str, parameters: object) -> None:
        if not statement.startswith((*OF_TRANSACTIONS, *OF_SERVICES)):
            statements.append(statement)

    async def runs(self: Connection, *sent: tuple[str, Any]) -> Any:
        if not sent[-1][0].startswith(OF_SERVICES):
            trips.append(sent)
        return await run_all(self, *sent)

    async def commits(self: Connection, *channels: str) -> None:
        trips.append(channels)
        await commit(self, *channels)

    async with (
        postgres_place(postgres_server) as place,
        open_store(place.url, config=SdkConfig(heartbeat_interval_ms=0)) as backend,
    ):
        await backend.request(Register(instance_id="first", tenant_id="t"))  # makes it ready
        watch(monkeypatch, count)
        monkeypatch.setattr(Connection, "run_all", runs)
        monkeypatch.setattr(Connection, "commit", commits)

        async def cost(message: Request[Any], expected: int, round_trips: int) -> Any:
            statements.clear()
            trips.clear()
            reply = await backend.request(message)
            assert (len(statements), len(trips)) == (expected, round_trips), statements
            return reply

        i = {"instance_id": "i"}
        lease = (await cost(Register(**i, tenant_id="t"), 5, 4)).lease
        mine = {**i, "lease": lease}
        await cost(Checkpoint(**mine, checkpoint_id="a", state=b"x"), 1, 1)
        await cost(GetCheckpoint(**i, checkpoint_id="a"), 1, 1)
        await cost(ReadCheckpoints(**i), 1, 2)
        await cost(Sleep(**mine, checkpoint_id="s", wake_at_ms=5), 5, 3)
        await cost(RecordRetry(**mine, checkpoint_id="c", attempt=1, error="e"), 3, 2)
        await cost(RecordEvent(**mine, type=EventType.CUSTOM, subtype="s"), 3, 2)
        await cost(TakeSignal(**mine, checkpoint_id="w"), 4, 4)
        await cost(SendCustomSignal(**i, checkpoint_id="w", payload=b"x"), 4, 3)
        await cost(TakeSignal(**mine, checkpoint_id="w"), 5, 4)
        await cost(SendSignal(**i, type=SignalType.PAUSE, payload=b"p"), 3, 2)
        await cost(PollSignals(**i), 1, 2)
        await cost(Hold(**mine, signal=PAUSE), 5, 2)
        await cost(GoOn(**mine, tenant_id="t"), 3, 2)
        await cost(SendSignal(**i, type=SignalType.PAUSE, payload=b"p"), 3, 2)
        await cost(AcknowledgeSignal(**mine, signal=PAUSE), 3, 2)
        await cost(GetStatus(**i), 1, 2)
        await cost(GetInput(**i), 2, 3)
        await cost(ListInstances(), 3, 3)
        await cost(ShowInstance(**i), 6, 6)
        await cost(ListEvents(**i), 1, 2)
        lease = (await cost(TakeLease(**i, replaces=lease), 4, 3)).lease
        await cost(FreeLease(**i, lease=lease), 1, 2)
        lease = (await cost(Register(**i, tenant_id="t"), 6, 4)).lease
        end = InstanceStatus.COMPLETED
        await cost(RecordOutcome(**i, lease=lease, status=end), 3, 2)
        statements.clear()
        with pytest.raises(InstanceFinished):
            await backend.request(Register(**i, tenant_id="t"))
        assert len(statements) == 2
        await cost(Register(**i, tenant_id="t", revive=True), 8, 4)
        await cost(Heartbeats(instance_ids=("i",)), 1, 2)
        await cost(SendSignal(**i, type=SignalType.CANCEL, payload=b""), 3, 2)
        await cost(Prune(before_ms=0), 2, 2)

        kinds = {"queues": ("default",), "workflows": (("w", 1),)}
        await cost(LookForWork(**kinds), 1, 1)
        await cost(ClaimRuns(**kinds, limit=100), 2, 3)
        await cost(StartRuns(tenant_id="t", runs=(_run("r1"), _run("r2"))), 1, 2)
        await cost(StartRuns(tenant_id="t", runs=(_run("r1"), _run("r3"))), 2, 3)
        claimed = (await cost(ClaimRuns(**kinds, limit=100), 7, 7)).runs
        assert len(claimed) == 3
        await cost(MarkRuns(waiting=("r1",)), 1, 2)
        first, second = claimed[:2]
        ended = {"instance_id": first.instance_id, "lease": first.lease}
        await cost(RecordOutcome(**ended, status=end), 4, 2)
        mine = {"instance_id": second.instance_id, "lease": second.lease}
        waits = Next(state=RunState.TIMED, due_ms=1, waiting_for=("s",))
        suspended = InstanceStatus.SUSPENDED
        await cost(RecordOutcome(**mine, status=suspended, next=waits), 5, 3)
        await cost(
            SendCustomSignal(instance_id=second.instance_id, checkpoint_id="s", payload=b""), 5, 3
        )
        await cost(RecoverRuns(dead=("gone",), max_recoveries=10), 2, 3)
        await cost(AnnounceWorker(info=WORKER), 1, 1)
        await cost(ListWorkers(), 2, 3)
        await cost(EndsSince(after=0), 1, 1)
        await cost(GetResults(instance_ids=("r1", "r2", "r3")), 1, 1)
        await cost(CountInstances(filter=Filter(workflow="w")), 2, 2)
        await cost(ListInstances(filter=Filter(no_live_worker=True)), 5, 5)


def _run(instance_id: str) -> NewRun:
    return NewRun(instance_id=instance_id, workflow="w", version=1, queue="default", input=b"[]")


WORKER = WorkerInfo(
    owner="",
    name="one",
    holder="",
    workflows=(("w", 1),),
    queues=("default",),
    tenant_ids=None,
    slots=1,
    working=0,
    loaded=0,
    last_look=datetime.now(UTC),
    oldest_boundary=None,
)
