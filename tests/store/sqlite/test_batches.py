"""A batch answers as its messages would one by one, whatever its checkpoints share."""

from __future__ import annotations

import sqlite3
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from runtara_trio.messages import (
    AcknowledgeSignal,
    Checkpoint,
    GetCheckpoint,
    GetStatus,
    ListInstances,
    RecordOutcome,
    Register,
    Request,
    SendCustomSignal,
    SendSignal,
    Sleep,
    TakeSignal,
)
from runtara_trio.store.location import locate
from runtara_trio.store.sqlite.database import Database, Job
from runtara_trio.types import InstanceStatus, Signal, SignalType

INSTANCES = ("one", "two")
instances = st.sampled_from(INSTANCES)
ids = st.sampled_from(("a", "b", "c"))
states = st.sampled_from((b"", b"x", b"yy"))
leases = st.sampled_from((0, 0, 0, 7))  # added to the one that is held: 7 makes it a lost one
kinds = st.sampled_from(list(SignalType))


def message(kind: type[Any], **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.builds(kind, instance_id=instances, **fields)


messages = st.one_of(
    *[message(Checkpoint, checkpoint_id=ids, state=states, lease=leases)] * 6,
    message(GetCheckpoint, checkpoint_id=ids),
    message(GetStatus),
    message(SendSignal, type=kinds, payload=states),
    message(SendCustomSignal, checkpoint_id=ids, payload=states),
    message(TakeSignal, checkpoint_id=ids, lease=leases),
    message(Sleep, checkpoint_id=ids, wake_at_ms=st.just(5), state=states, lease=leases),
    message(
        AcknowledgeSignal,
        lease=leases,
        signal=st.builds(
            Signal, type=st.sampled_from((SignalType.PAUSE, SignalType.RESUME)), payload=states
        ),
    ),
    message(RecordOutcome, lease=leases, status=st.just(InstanceStatus.SUSPENDED)),
    st.builds(ListInstances),
)


def opened() -> tuple[Database, dict[str, int]]:
    """A store in memory on which both instances are registered, and their leases."""
    database = Database(locate(":memory:"), 30_000, lambda batch: None)
    jobs = [Job(Register(instance_id=one, tenant_id="t"), 1e9) for one in INSTANCES]
    database.run(jobs)
    return database, dict(zip(INSTANCES, (job.result.unwrap().lease for job in jobs), strict=True))


def answers(database: Database, batches: list[list[Request[Any]]]) -> list[Any]:
    """What they are answered with; errors as their texts, the numbers of looks left out."""
    found = []
    for batch in batches:
        jobs = [Job(one, 1e9) for one in batch]
        database.run(jobs)
        for job in jobs:
            try:
                reply = msgspec.to_builtins(job.result.unwrap())
            except Exception as exc:
                found.append(f"{type(exc).__name__}: {exc}")
            else:
                found.append({**reply, "version": None})
    return found


def rows(db: sqlite3.Connection) -> list[list[Any]]:
    tables = ("instances", "checkpoints", "pending_signals", "pending_custom_signals")
    return [db.execute(f"SELECT * FROM {table}").fetchall() for table in tables]


@settings(max_examples=300, deadline=None)
@given(st.lists(messages, min_size=1, max_size=12))
def test_as_one_by_one(drawn: list[Any]) -> None:
    together, leases = opened()
    alone, same_leases = opened()
    assert leases == same_leases
    batch = [
        msgspec.structs.replace(one, lease=leases[one.instance_id] + one.lease)
        if hasattr(one, "lease")
        else one
        for one in drawn
    ]
    assert answers(together, [batch]) == answers(alone, [[one] for one in batch])
    assert together.file is not None
    assert alone.file is not None
    assert rows(together.file.db) == rows(alone.file.db)
    together.close()
    alone.close()
