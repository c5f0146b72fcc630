"""The contract of a backend, verb by verb, on every store.

``core`` marks what every backend does, a stock runtara-core too; ``guard`` what our
stores do beyond it.
"""

from __future__ import annotations

from contextlib import aclosing
from datetime import UTC, datetime, timedelta

import pytest
import trio

from runtara_trio import (
    ConfigError,
    EventType,
    InstanceStatus,
    LeaseLost,
    Operator,
    SdkError,
    ServerError,
    SharedBackend,
    Signal,
    SignalRefused,
    SignalType,
    SystemClock,
)
from runtara_trio.backend import Backend
from runtara_trio.ids import signal_id, wake_id
from runtara_trio.messages import (
    AcknowledgeSignal,
    Checkpoint,
    CheckpointReply,
    GetCheckpoint,
    GetStatus,
    PollSignals,
    ReadCheckpoints,
    RecordEvent,
    RecordOutcome,
    RecordRetry,
    Register,
    Registered,
    Request,
    SignalTaken,
    Sleep,
    StopWaiting,
    StoredState,
    TakeSignal,
)
from runtara_trio.store.location import locate
from runtara_trio.store.sqlite.backend import open_sqlite

from ..helpers.support import WRITING_CALLS, block, sql

core = pytest.mark.core
guard = pytest.mark.guard


async def register(backend: Backend, instance_id: str = "i", **options: bool) -> Registered:
    return await backend.request(
        Register(instance_id=instance_id, tenant_id="t", **options)  # type: ignore[arg-type]
    )


async def save(backend: Backend, lease: int, checkpoint_id: str, state: bytes) -> CheckpointReply:
    return await backend.request(
        Checkpoint(instance_id="i", lease=lease, checkpoint_id=checkpoint_id, state=state)
    )


async def end(backend: Backend, lease: int, status: InstanceStatus, payload: bytes = b"") -> None:
    await backend.request(
        RecordOutcome(instance_id="i", lease=lease, status=status, payload=payload)
    )


async def info_of(backend: Backend, instance_id: str = "i"):  # type: ignore[no-untyped-def]
    return await backend.request(GetStatus(instance_id=instance_id))


# ---- an instance's life


@core
async def test_an_unknown_instance_has_the_status_unknown(backend: SharedBackend) -> None:
    await register(backend, "other")
    info = await info_of(backend)
    assert (info.status, info.started_at) == (InstanceStatus.UNKNOWN, None)


@pytest.mark.unless_http
@core
async def test_register_sets_running_and_when(backend: SharedBackend) -> None:
    await register(backend)
    info = await info_of(backend)
    assert info.status is InstanceStatus.RUNNING
    assert abs(info.started_at - datetime.now(UTC)) < timedelta(minutes=1)


@core
@pytest.mark.parametrize(
    ("status", "payload", "output", "error"),
    [
        (InstanceStatus.COMPLETED, b"42", b"42", None),
        (InstanceStatus.COMPLETED, b"", None, None),
        (InstanceStatus.FAILED, b"broken", None, "broken"),
        (InstanceStatus.FAILED, b"", None, "Unknown error"),
        (InstanceStatus.SUSPENDED, b"why", None, None),
        (InstanceStatus.CANCELLED, b"", None, None),
    ],
)
async def test_outcomes(
    backend: SharedBackend,
    status: InstanceStatus,
    payload: bytes,
    output: bytes | None,
    error: str | None,
) -> None:
    lease = (await register(backend)).lease
    await end(backend, lease, status, payload)
    info = await info_of(backend)
    assert (info.status, info.output, info.error) == (status, output, error)


@guard
async def test_finished_at_is_set_by_an_end_alone(backend: SharedBackend) -> None:
    await end(backend, (await register(backend)).lease, InstanceStatus.SUSPENDED)
    assert (await info_of(backend)).finished_at is None
    await end(backend, (await register(backend)).lease, InstanceStatus.CANCELLED)
    assert (await info_of(backend)).finished_at is not None


@guard
async def test_an_outcome_releases_the_lease(backend: SharedBackend) -> None:
    first = (await register(backend)).lease
    await end(backend, first, InstanceStatus.SUSPENDED)
    with pytest.raises(LeaseLost):
        await end(backend, first, InstanceStatus.COMPLETED)
    second = (await register(backend)).lease
    assert second > first
    with pytest.raises(LeaseLost):
        await save(backend, first, "a", b"")
    await save(backend, second, "a", b"")


@guard
@pytest.mark.parametrize(
    "message",
    [
        Checkpoint(instance_id="i", lease=0, checkpoint_id="a", state=b""),
        Sleep(instance_id="i", lease=0, checkpoint_id="a", wake_at_ms=1),
        RecordEvent(instance_id="i", lease=0, type=EventType.CUSTOM),
        RecordRetry(instance_id="i", lease=0, checkpoint_id="a", attempt=1),
        TakeSignal(instance_id="i", lease=0, checkpoint_id="a"),
        AcknowledgeSignal(instance_id="i", lease=0, signal=Signal(SignalType.PAUSE)),
        RecordOutcome(instance_id="i", lease=0, status=InstanceStatus.COMPLETED),
    ],
    ids=lambda message: type(message).__name__,
)
async def test_every_write_checks_its_lease(
    backend: SharedBackend, message: Request[object]
) -> None:
    await register(backend)
    with pytest.raises(LeaseLost):
        await backend.request(message)
    assert (await info_of(backend)).status is InstanceStatus.RUNNING
    assert (await Operator(backend).checkpoints("i")).checkpoints == ()


@guard
async def test_an_outcome_gives_way_to_a_cancel_that_stands(backend: SharedBackend) -> None:
    lease = (await register(backend)).lease
    await Operator(backend).cancel("i", b"token")
    reply = await backend.request(
        RecordOutcome(
            instance_id="i", lease=lease, status=InstanceStatus.COMPLETED, unless_cancelled=True
        )
    )
    assert reply.cancel == Signal(SignalType.CANCEL, b"token")
    assert (await info_of(backend)).status is InstanceStatus.RUNNING
    await end(backend, lease, InstanceStatus.COMPLETED)
    assert (await info_of(backend)).status is InstanceStatus.COMPLETED


# ---- checkpoints


@core
async def test_a_checkpoint_is_saved_or_returned(backend: SharedBackend) -> None:
    lease = (await register(backend)).lease
    first = await save(backend, lease, "a", b"one")
    assert (first.found, first.state) == (False, b"")
    second = await save(backend, lease, "a", b"two")
    assert (second.found, second.state) == (True, b"one")
    assert second.version > first.version  # what was seen later counts
    stored = await backend.request(GetCheckpoint(instance_id="i", checkpoint_id="a"))
    assert stored == StoredState(found=True, state=b"one")
    assert (await info_of(backend)).checkpoint_id == "a"


@pytest.mark.unless_http
@core
async def test_an_empty_state_and_an_empty_id_are_legal(backend: SharedBackend) -> None:
    lease = (await register(backend)).lease
    await save(backend, lease, "", b"")
    assert (await save(backend, lease, "", b"x")).found
    stored = await backend.request(GetCheckpoint(instance_id="i", checkpoint_id=""))
    assert stored == StoredState(found=True, state=b"")


@core
async def test_a_missing_checkpoint_and_a_missing_instance(backend: SharedBackend) -> None:
    await register(backend)
    stored = await backend.request(GetCheckpoint(instance_id="i", checkpoint_id="a"))
    assert stored == StoredState(found=False, state=b"")
    with pytest.raises(ServerError, match=r"^get_checkpoint: .*nobody") as unknown:
        await backend.request(GetCheckpoint(instance_id="nobody", checkpoint_id="a"))
    assert unknown.value.code == "GET_CHECKPOINT_ERROR"


@guard
async def test_one_of_many_racing_writers_wins(backend: SharedBackend) -> None:
    lease = (await register(backend)).lease
    replies: dict[bytes, CheckpointReply] = {}

    async def write(state: bytes) -> None:
        replies[state] = await save(backend, lease, "race", state)

    async with trio.open_nursery() as nursery:
        for number in range(32):
            nursery.start_soon(write, b"%d" % number)
    (winner,) = [state for state, reply in replies.items() if not reply.found]
    assert {reply.state for reply in replies.values() if reply.found} == {winner}


@pytest.mark.unless_http
@core
async def test_sixty_megabytes(backend: SharedBackend) -> None:
    lease = (await register(backend)).lease
    state = bytes(60 * 1024 * 1024)
    await save(backend, lease, "big", state)
    stored = await backend.request(GetCheckpoint(instance_id="i", checkpoint_id="big"))
    assert stored.state == state


@guard
async def test_checkpoints_are_read_in_pages_by_prefix(backend: SharedBackend) -> None:
    lease = (await register(backend)).lease
    for name in ("b", "a/2", "a/1", "a/10", "ä", "a", "A", "a%"):
        await save(backend, lease, name, name.encode())

    async def read(prefix: str, after: str | None = None) -> list[str]:
        names: list[str] = []
        while True:
            page = await backend.request(
                ReadCheckpoints(instance_id="i", prefix=prefix, after=after, limit=2)
            )
            names += [one.checkpoint_id for one in page.checkpoints]
            if not page.more:
                return names
            after = names[-1]

    assert await read("") == ["A", "a", "a%", "a/1", "a/10", "a/2", "b", "ä"]
    assert await read("a/") == ["a/1", "a/10", "a/2"]
    assert await read("a/", after="a/1") == ["a/10", "a/2"]
    assert await read("zzz") == []


@core
async def test_a_retry_is_recorded_once_an_attempt(backend: SharedBackend) -> None:
    lease = (await register(backend)).lease
    for error in ("first", "second"):
        await backend.request(
            RecordRetry(instance_id="i", lease=lease, checkpoint_id="a", attempt=1, error=error)
        )
    stored = await backend.request(GetCheckpoint(instance_id="i", checkpoint_id="a::retry::1"))
    assert stored.found
    assert stored.state in (b"first", b"")  # a core on PostgreSQL has a column for it


@guard
async def test_the_first_sleep_under_an_id_decides(backend: SharedBackend) -> None:
    lease = (await register(backend)).lease
    wake = int(datetime.now(UTC).timestamp() * 1000) + 3_600_000
    for at, state in ((wake, b"one"), (wake + 5, b"two")):
        reply = await backend.request(
            Sleep(instance_id="i", lease=lease, checkpoint_id="nap", wake_at_ms=at, state=state)
        )
        assert reply.wake_at_ms == wake
    saved = {one.checkpoint_id: one.state for one in await checkpoints(backend)}
    assert saved == {"nap": b"one", wake_id("nap"): wake.to_bytes(8, "big")}
    summary = (await Operator(backend).show("i")).summary
    assert summary.status is InstanceStatus.RUNNING
    assert summary.sleep_until is not None
    assert 0 <= summary.sleep_until.timestamp() * 1000 - wake < 1000


async def checkpoints(backend: Backend):  # type: ignore[no-untyped-def]
    return (await Operator(backend).checkpoints("i")).checkpoints


# ---- custom signals


@guard
async def test_a_custom_signal_is_saved_before_it_is_handed_out(backend: SharedBackend) -> None:
    lease = (await register(backend)).lease
    take = TakeSignal(instance_id="i", lease=lease, checkpoint_id="approve")
    assert await backend.request(take) == SignalTaken(payload=None)
    await Operator(backend).send_signal("i", "approve", b"yes")
    for _ in range(2):  # as often as it is asked for: after a crash too
        assert await backend.request(take) == SignalTaken(payload=b"yes")
    saved = {one.checkpoint_id: one.state for one in await checkpoints(backend)}
    assert saved == {signal_id("approve"): b"\1yes"}
    await backend.request(StopWaiting(instance_id="i", checkpoint_id="approve"))


@core
async def test_a_checkpoint_carries_its_custom_signal(
    backend: SharedBackend, operator: Operator
) -> None:
    lease = (await register(backend)).lease
    await operator.send_signal("i", "a", b"yes")
    reply = await save(backend, lease, "a", b"")
    assert reply.custom_signal is not None
    assert (reply.custom_signal.checkpoint_id, reply.custom_signal.payload) == ("a", b"yes")


@guard
async def test_a_replay_gets_the_custom_signal_again(backend: SharedBackend) -> None:
    lease = (await register(backend)).lease
    await Operator(backend).send_signal("i", "a", b"yes")
    first = await save(backend, lease, "a", b"")
    again = await save(backend, lease, "a", b"")
    assert again.found
    assert again.custom_signal == first.custom_signal
    taken = await backend.request(TakeSignal(instance_id="i", lease=lease, checkpoint_id="a"))
    assert taken.payload == b"yes"


@guard
async def test_a_second_different_signal_is_refused(backend: SharedBackend) -> None:
    operator = Operator(backend)
    lease = (await register(backend)).lease
    await operator.send_signal("i", "a", b"yes")
    await operator.send_signal("i", "a", b"yes")  # the same: one signal
    with pytest.raises(SignalRefused, match="has another signal already"):
        await operator.send_signal("i", "a", b"no")
    await backend.request(TakeSignal(instance_id="i", lease=lease, checkpoint_id="a"))
    await operator.send_signal("i", "a", b"yes")
    with pytest.raises(SignalRefused, match="was answered already"):
        await operator.send_signal("i", "a", b"no")
    await save(backend, lease, "x", b"")
    with pytest.raises(SignalRefused, match="there is no instance 'nobody'"):
        await operator.send_signal("nobody", "a", b"yes")
    await end(backend, lease, InstanceStatus.COMPLETED)
    with pytest.raises(SignalRefused, match="is completed"):
        await operator.send_signal("i", "b", b"yes")


@guard
async def test_an_empty_custom_signal_is_a_signal(backend: SharedBackend) -> None:
    lease = (await register(backend)).lease
    await Operator(backend).send_signal("i", "a")
    taken = await backend.request(TakeSignal(instance_id="i", lease=lease, checkpoint_id="a"))
    assert taken.payload == b""


# ---- signals: poll and acknowledge


@core
async def test_a_signal_is_polled_until_acknowledged(
    backend: SharedBackend, operator: Operator
) -> None:
    lease = (await register(backend)).lease
    poll = PollSignals(instance_id="i")
    assert (await backend.request(poll)).signal is None
    await operator.pause("i", b"token")
    signal = (await backend.request(poll)).signal
    assert signal == Signal(SignalType.PAUSE, b"token")
    assert (await save(backend, lease, "a", b"")).pending_signal == signal
    assert (await backend.request(poll)).signal == signal


@guard
async def test_an_acknowledgement_means_this_very_signal(backend: SharedBackend) -> None:
    lease = (await register(backend)).lease
    await Operator(backend).pause("i", b"new")
    poll = PollSignals(instance_id="i")
    for other in (Signal(SignalType.PAUSE, b"old"), Signal(SignalType.RESUME, b"new")):
        await backend.request(AcknowledgeSignal(instance_id="i", lease=lease, signal=other))
        assert (await backend.request(poll)).signal == Signal(SignalType.PAUSE, b"new")
    await backend.request(
        AcknowledgeSignal(instance_id="i", lease=lease, signal=Signal(SignalType.PAUSE, b"new"))
    )
    assert (await backend.request(poll)).signal is None
    with pytest.raises(SdkError, match="recording the outcome"):
        await backend.request(
            AcknowledgeSignal(instance_id="i", lease=lease, signal=Signal(SignalType.CANCEL))
        )


@guard
async def test_every_signal_gets_a_payload_of_its_own(backend: SharedBackend) -> None:
    await register(backend)
    await Operator(backend).pause("i")
    first = (await backend.request(PollSignals(instance_id="i"))).signal
    await Operator(backend).resume("i")
    await Operator(backend).pause("i")
    second = (await backend.request(PollSignals(instance_id="i"))).signal
    assert first is not None
    assert second is not None
    assert first.payload != second.payload


@guard
@pytest.mark.parametrize("kind", ["memory", "file"])
async def test_signals_come_in_batches_to_their_reader(kind: str, url: str) -> None:
    """The iterator of a bare store: all that waits for what is registered through it."""
    location = locate(":memory:" if kind == "memory" else url)
    async with open_sqlite(location, lease_ms=30_000, clock=SystemClock()) as store:
        for name in ("i", "j"):
            await register(store, name)
        await Operator(store).cancel("i", b"x")
        await Operator(store).send_signal("j", "approve", b"yes")
        async with aclosing(store.signals()) as batches:
            async for batch in batches:
                assert batch.signals == (("i", Signal(SignalType.CANCEL, b"x")),)
                if batch.hints:
                    assert batch.hints == (("j", "approve"),)
                    break


async def test_the_signals_of_an_open_backend_are_its_services(backend: SharedBackend) -> None:
    assert isinstance(backend, Backend)
    with pytest.raises(SdkError, match="read by its services"):
        backend.signals()


# ---- the operator


@guard
async def test_the_list_is_paged_newest_first(backend: SharedBackend) -> None:
    for number in range(5):
        await register(backend, f"i{number}")
    operator = Operator(backend)
    page = await operator.list(limit=2)
    names = [one.instance_id for one in page.instances]
    while page.next is not None:
        page = await operator.list(limit=2, before=page.next)
        names += [one.instance_id for one in page.instances]
    assert names == ["i4", "i3", "i2", "i1", "i0"]
    assert all(one.held for one in page.instances)
    with pytest.raises(ConfigError, match="the next of an earlier page, not 'yesterday'"):
        await operator.list(before="yesterday")
    assert (await operator.list(tenant_id="nobody")).instances == ()
    assert (await operator.list(statuses=[])).instances == ()
    assert (await operator.list(statuses=[InstanceStatus.FAILED])).instances == ()
    assert len((await operator.list(statuses=[InstanceStatus.RUNNING])).instances) == 5


@guard
async def test_show_and_events(backend: SharedBackend) -> None:
    operator = Operator(backend)
    lease = (await register(backend)).lease
    await save(backend, lease, "a", b"")
    await backend.request(
        RecordEvent(
            instance_id="i", lease=lease, type=EventType.CUSTOM, subtype="note", payload=b"hi"
        )
    )
    await end(backend, lease, InstanceStatus.COMPLETED, b"out")
    details = await operator.show("i")
    assert (details.checkpoints, details.events, details.output) == (1, 3, b"out")
    assert (details.holder, details.summary.held) == (None, False)
    events = (await operator.events("i")).events
    assert [(one.type, one.subtype, one.payload) for one in events] == [
        (EventType.STARTED, None, b""),
        (EventType.CUSTOM, "note", b"hi"),
        (EventType.COMPLETED, None, b"out"),
    ]
    later = (await operator.events("i", after=events[0].id, limit=1)).events
    assert [one.type for one in later] == [EventType.CUSTOM]
    with pytest.raises(ServerError, match="no instance 'nobody'"):
        await operator.show("nobody")


@pytest.mark.parametrize("verb", WRITING_CALLS)
async def test_a_refused_call_says_what_was_asked_of_which_instance(
    verb: str, backend: SharedBackend
) -> None:
    """Another program, a core or an environment, has changed the status meanwhile."""
    with pytest.raises(ServerError) as refused:
        async with block(backend, "order-7") as sdk:
            await sql(backend, "UPDATE instances SET status = 'failed'")
            await WRITING_CALLS[verb](sdk)
    assert str(refused.value) == f"{verb}: instance 'order-7' is failed, not running"
    assert refused.value.call == verb


@guard
async def test_prune_takes_what_finished_long_ago(backend: SharedBackend) -> None:
    operator = Operator(backend)
    lease = (await register(backend)).lease
    await save(backend, lease, "a", b"")
    await register(backend, "running")
    await end(backend, lease, InstanceStatus.COMPLETED)
    assert await operator.prune(3600) == 0
    await sql(
        backend, "UPDATE instances SET finished_at = '2020-01-01 00:00:00' WHERE instance_id = 'i'"
    )
    seen: list[int] = []
    assert await operator.prune(3600, progress=seen.append) == 1
    assert seen == [1]
    assert [one.instance_id for one in (await operator.list()).instances] == ["running"]
    assert await sql(backend, "SELECT count(*) FROM checkpoints") == [(0,)]
