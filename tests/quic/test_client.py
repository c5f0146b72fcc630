"""The client as a backend, against a server that does on script what a stock core does.

On MockClock, over a network in memory: a lost reply, a lock or a dead server is where the
test puts it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from runtara_trio import (
    EventType,
    InstanceBusy,
    InstanceFinished,
    InstanceStatus,
    LeaseLost,
    Operator,
    Outcome,
    RegistrationError,
    RequestTimeout,
    ServerError,
    Signal,
    SignalType,
    Unreachable,
    open_backend,
)
from runtara_trio.errors import ConfigError, NotSupported
from runtara_trio.ids import acknowledgement_id, signal_id, timeout_id
from runtara_trio.messages import (
    AcknowledgeSignal,
    Checkpoint,
    GetCheckpoint,
    GetStatus,
    Heartbeats,
    PollSignals,
    ReadCheckpoints,
    RecordEvent,
    RecordOutcome,
    RecordRetry,
    Register,
    StopWaiting,
    TakeSignal,
)
from runtara_trio.remote.backend import RemoteBackend
from runtara_trio.remote.polling import RATE
from runtara_trio.wire import calls

from ..helpers.network import Network
from ..helpers.quic import client_of, never, scripted
from ..helpers.support import block

LOCKED = calls.RpcError("CHECKPOINT_ERROR", "error returned: (code: 5) database is locked")
PAUSE = Signal(SignalType.PAUSE, b"token")


class Core:
    """One instance as a stock core on SQLite keeps it: signals stay after their
    acknowledgement."""

    def __init__(self) -> None:
        self.status = calls.InstanceStatus.UNKNOWN
        self.checkpoints: dict[str, bytes] = {}
        self.signal: calls.Signal | None = None
        self.custom: dict[str, bytes] = {}
        self.before: Callable[[Any], Any] = lambda call: None
        """An answer to be given instead."""

    async def __call__(self, call: Any) -> Any:
        instead = self.before(call)
        if instead is not None:
            return await instead if hasattr(instead, "__await__") else instead
        match call:
            case calls.RegisterInstance():
                self.status = calls.InstanceStatus.RUNNING
                return calls.RegisterInstanceAnswer(True)
            case calls.GetInstanceStatus():
                return calls.GetInstanceStatusAnswer(call.instance_id, self.status)
            case calls.Checkpoint():
                found = call.checkpoint_id in self.checkpoints
                state = self.checkpoints.setdefault(call.checkpoint_id, call.state)
                custom = self.custom.pop(call.checkpoint_id, None)
                return calls.CheckpointAnswer(
                    found,
                    state if found else b"",
                    self.signal,
                    None if custom is None else calls.CustomSignal(call.checkpoint_id, custom),
                )
            case calls.GetCheckpoint():
                stored = self.checkpoints.get(call.checkpoint_id)
                return calls.GetCheckpointAnswer(stored is not None, stored or b"")
            case calls.PollSignals():
                payload = self.custom.pop(call.checkpoint_id or "", None)
                custom = None
                if payload is not None:
                    custom = calls.CustomSignal(call.checkpoint_id or "", payload)
                return calls.PollSignalsAnswer(self.signal, custom)
            case calls.InstanceEvent():
                outcomes = {2: 4, 3: 5, 4: 3}
                if call.event_type in outcomes:
                    self.status = calls.InstanceStatus(outcomes[call.event_type])
                return calls.InstanceEventAnswer(True)
            case calls.SignalAck(signal_type=calls.SignalType.CANCEL):
                self.status = calls.InstanceStatus.CANCELLED
            case calls.RetryAttempt():
                self.checkpoints[f"{call.checkpoint_id}::retry::{call.attempt_number}"] = b""
        return None


def save(checkpoint_id: str = "a", state: bytes = b"mine") -> Checkpoint:
    return Checkpoint(instance_id="i", lease=0, checkpoint_id=checkpoint_id, state=state)


async def register(client: RemoteBackend, **options: Any) -> Any:
    return await client.request(Register(instance_id="i", tenant_id="t", **options))


def once(kind: type[Any], answer: Any, after: Callable[[Any], Any] | None = None) -> Any:
    """Answer the first call of a kind so, having done ``after`` with it."""
    done = False

    def before(call: Any) -> Any:
        nonlocal done
        if done or not isinstance(call, kind):
            return None
        done = True
        if after is not None:
            after(call)
        return answer

    return before


# ---- registering


async def test_a_finished_instance_is_not_registered(autojump_clock: MockClock) -> None:
    core, network = Core(), Network()
    core.before = lambda call: (
        calls.GetInstanceStatusAnswer("i", calls.InstanceStatus.FAILED, error="it broke")
        if isinstance(call, calls.GetInstanceStatus)
        else None
    )
    async with scripted(network, core) as server, client_of(network) as client:
        with pytest.raises(InstanceFinished) as finished:
            await register(client)
        assert (finished.value.status, finished.value.error) == ("failed", "it broke")
        assert not server.of(calls.RegisterInstance)
        assert (await register(client, revive=True)).resumed
        assert len(server.of(calls.RegisterInstance)) == 1


@pytest.mark.parametrize(
    ("error", "raised", "match"),
    [
        ("InstanceBusy: process 7 on host", InstanceBusy, "run by process 7 on host"),
        ("Checkpoint not found", RegistrationError, "Checkpoint not found"),
    ],
)
async def test_a_refused_register(
    autojump_clock: MockClock, error: str, raised: type[Exception], match: str
) -> None:
    core, network = Core(), Network()
    core.before = once(calls.RegisterInstance, calls.RegisterInstanceAnswer(False, error))
    async with scripted(network, core), client_of(network) as client:
        with pytest.raises(raised, match=match):
            await register(client)


@pytest.mark.parametrize(
    "text",
    [
        "UNIQUE constraint failed: instances.instance_id",
        'duplicate key value violates unique constraint "instances_pkey"',
        "error returned from database: (code: 517) database is locked",
    ],
)
async def test_registers_that_met_another_are_made_again(
    autojump_clock: MockClock, text: str
) -> None:
    core, network = Core(), Network()
    core.before = once(calls.RegisterInstance, calls.RegisterInstanceAnswer(False, text))
    async with scripted(network, core) as server, client_of(network) as client:
        assert not (await register(client)).resumed
        assert len(server.of(calls.RegisterInstance)) == 2


# ---- locks and lost replies


async def test_a_checkpoint_refused_by_a_lock_was_stored(autojump_clock: MockClock) -> None:
    core, network = Core(), Network()
    async with scripted(network, core) as server, client_of(network) as client:
        await register(client)
        core.before = once(
            calls.Checkpoint, LOCKED, lambda call: core.checkpoints.update(a=call.state)
        )
        reply = await client.request(save())
        assert (reply.found, reply.state) == (False, b"")
        assert len(server.of(calls.Checkpoint)) == 2
        core.before = once(
            calls.Checkpoint, LOCKED, lambda call: core.checkpoints.update(b=b"another's")
        )
        reply = await client.request(save("b"))
        assert (reply.found, reply.state) == (True, b"another's")


async def test_a_lock_that_stays_is_told(autojump_clock: MockClock) -> None:
    core, network = Core(), Network()
    core.before = lambda call: LOCKED if isinstance(call, calls.Checkpoint) else None
    async with scripted(network, core), client_of(network, request_timeout_ms=2000) as client:
        await register(client)
        start = trio.current_time()
        with pytest.raises(ServerError, match="database is locked"):
            await client.request(save())
        assert 1 < trio.current_time() - start <= 2.1


def kill(network: Network) -> None:
    network.links["127.0.0.1", 8001].close()


async def test_calls_in_flight_survive_a_restart(autojump_clock: MockClock) -> None:
    """A server that is killed in the middle of 64 calls, and comes back a second later."""
    core, network = Core(), Network()
    not_found: list[str] = []

    async def worker(client: RemoteBackend, n: int) -> None:
        for k in range(20):
            reply = await client.request(save(f"{n}/{k}", b"%d" % n))
            if not reply.found:
                not_found.append(f"{n}/{k}")

    async with client_of(network) as client:
        async with scripted(network, core):
            await register(client)
            async with trio.open_nursery() as nursery:
                for n in range(64):
                    nursery.start_soon(worker, client, n)
                await trio.sleep(0.02)
                before = len(core.checkpoints)
                kill(network)
                await trio.sleep(1)
                assert len(core.checkpoints) < 64 * 20
                async with scripted(network, core):
                    while len(not_found) < 64 * 20:
                        await trio.sleep(0.1)
    assert 0 < before < len(core.checkpoints) == 64 * 20
    assert len(set(not_found)) == len(not_found) == 64 * 20


async def test_an_event_of_unknown_fate_raises(autojump_clock: MockClock) -> None:
    core, network = Core(), Network()
    event = RecordEvent(instance_id="i", lease=0, type=EventType.CUSTOM, subtype="note")
    async with client_of(network) as client:
        async with scripted(network, core) as server:
            await register(client)
            core.before = lambda call: (
                never(call) if isinstance(call, calls.InstanceEvent) else None
            )
            async with trio.open_nursery() as nursery:

                async def send() -> None:
                    with pytest.raises(Unreachable, match="may have been carried out"):
                        await client.request(event)

                nursery.start_soon(send)
                await trio.sleep(0.1)
                assert len(server.of(calls.InstanceEvent)) == 1
                kill(network)
        async with scripted(network, core) as again:
            await client.request(GetStatus(instance_id="i"))
            assert not again.of(calls.InstanceEvent)


@pytest.mark.parametrize("arrived", [True, False])
async def test_an_outcome_whose_answer_was_lost_is_looked_up(
    autojump_clock: MockClock, arrived: bool
) -> None:
    core, network = Core(), Network()
    outcome = RecordOutcome(
        instance_id="i", lease=0, status=InstanceStatus.COMPLETED, payload=b"out"
    )

    def lose(call: Any) -> Any:
        if isinstance(call, calls.InstanceEvent):
            if arrived:
                core.status = calls.InstanceStatus.COMPLETED
            return never(call)
        return None

    async with client_of(network) as client, trio.open_nursery() as nursery:
        async with scripted(network, core):
            await register(client)
            core.before = lose
            nursery.start_soon(client.request, outcome)
            await trio.sleep(0.1)
            kill(network)
            core.before = lambda call: None
        async with scripted(network, core) as again:
            while core.status is not calls.InstanceStatus.COMPLETED:
                await trio.sleep(0.1)
            await trio.sleep(5)
            assert len(again.of(calls.InstanceEvent)) == (0 if arrived else 1)


async def test_a_request_has_its_timeout(autojump_clock: MockClock) -> None:
    core, network = Core(), Network()
    async with scripted(network, core), client_of(network, request_timeout_ms=3000) as client:
        await register(client)
        core.before = never
        start = trio.current_time()
        with pytest.raises(RequestTimeout, match=r"checkpoint at quic://127\.0\.0\.1:8001 .* may"):
            await client.request(save())
        assert trio.current_time() - start == pytest.approx(3, abs=0.1)


async def test_a_network_that_is_gone_for_a_minute(autojump_clock: MockClock) -> None:
    core, network = Core(), Network()
    network.refuses = False
    calm = network.fate
    async with scripted(network, core), client_of(network, request_timeout_ms=120_000) as client:
        await register(client)
        network.fate = lambda datagram, from_client: []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.request, save("patient"))
            await trio.sleep(60)
            network.fate = calm
        assert core.checkpoints == {"patient": b"mine"}
    async with scripted(network, core), client_of(network) as client:
        await register(client)
        network.fate = lambda datagram, from_client: []
        with pytest.raises(RequestTimeout, match="not connected"):
            await client.request(save("late"))
        await trio.sleep(30)
        network.fate = calm
        assert not (await client.request(save("later"))).found


# ---- connecting


async def test_a_dead_port_is_told_within_the_connect_timeout(autojump_clock: MockClock) -> None:
    network = Network()
    async with client_of(network, connect_timeout_ms=4000) as client:
        start = trio.current_time()
        with pytest.raises(
            Unreachable, match=r"quic://127\.0\.0\.1:8001 cannot .* port is closed; tried \d+ times"
        ):
            await client.request(GetStatus(instance_id="i"))
        assert trio.current_time() - start == pytest.approx(4, abs=0.1)


async def test_a_server_that_starts_late_is_waited_for(autojump_clock: MockClock) -> None:
    network = Network()
    async with client_of(network) as client, trio.open_nursery() as nursery:
        nursery.start_soon(client.request, GetStatus(instance_id="i"))
        await trio.sleep(5)
        async with scripted(network, Core()) as server:
            await trio.sleep(2)
            assert len(server.calls) == 1


async def test_a_server_that_accepts_and_never_answers(autojump_clock: MockClock) -> None:
    network = Network()
    network.listen(8001)  # takes what comes, and says nothing
    async with client_of(network, connect_timeout_ms=2000) as client:
        with pytest.raises(Unreachable, match=r"cannot be reached: .*no answer"):
            await client.request(GetStatus(instance_id="i"))


async def test_a_stopped_client_goes_on(autojump_clock: MockClock) -> None:
    """Stopped for longer than the idle timeout, with a call on its way."""
    core, network = Core(), Network()

    async def slow(call: Any) -> Any:
        if isinstance(call, calls.Checkpoint):
            await trio.sleep(2)
        return await core(call)

    async with scripted(network, slow), client_of(network, request_timeout_ms=10_000) as client:
        await register(client)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.request, save())
            await trio.sleep(1)
            autojump_clock.jump(200)
        assert core.checkpoints == {"a": b"mine"}
        assert not (await client.request(save("b"))).found


# ---- signals


async def test_an_acknowledged_signal_does_nothing_twice(autojump_clock: MockClock) -> None:
    core, network = Core(), Network()
    async with scripted(network, core):
        async with client_of(network) as client:
            await register(client)
            core.signal = calls.Signal("i", calls.SignalType.PAUSE, b"token")
            assert (await client.request(save())).pending_signal == PAUSE
            suspend = RecordOutcome(
                instance_id="i", lease=0, status=InstanceStatus.SUSPENDED, signal=PAUSE
            )
            await client.request(suspend)
        async with client_of(network) as client:  # another process, and the row is still there
            assert (await register(client)).signal is None
            assert (await client.request(save("b"))).pending_signal is None
            assert (await client.request(PollSignals(instance_id="i"))).signal is None
            core.signal = calls.Signal("i", calls.SignalType.PAUSE, b"another")
            found = (await client.request(PollSignals(instance_id="i"))).signal
            assert found == Signal(SignalType.PAUSE, b"another")
            await client.request(AcknowledgeSignal(instance_id="i", lease=0, signal=found))
            assert (await client.request(PollSignals(instance_id="i"))).signal is None
    assert core.checkpoints[acknowledgement_id(1)] == b"pause:token"
    assert core.checkpoints[acknowledgement_id(2)] == b"pause:another"


async def test_signals_without_payloads_are_told_apart_by_their_absence(
    autojump_clock: MockClock,
) -> None:
    core, network = Core(), Network()
    bare = Signal(SignalType.PAUSE)
    async with scripted(network, core), client_of(network) as client:
        await register(client)
        for n in range(3):
            core.signal = calls.Signal("i", calls.SignalType.PAUSE)
            assert (await client.request(PollSignals(instance_id="i"))).signal == bare, n
            await client.request(AcknowledgeSignal(instance_id="i", lease=0, signal=bare))
            assert (await client.request(PollSignals(instance_id="i"))).signal is None
            core.signal = None
            assert (await client.request(PollSignals(instance_id="i"))).signal is None
    records = [core.checkpoints.get(acknowledgement_id(n)) for n in range(1, 7)]
    assert records == [b"pause:", b"", b"pause:", b"", b"pause:", None]


async def test_the_highest_acknowledgement_counts(autojump_clock: MockClock) -> None:
    core, network = Core(), Network()
    core.checkpoints = {acknowledgement_id(n): b"pause:%d" % n for n in range(1, 38)}
    async with scripted(network, core), client_of(network) as client:
        core.status = calls.InstanceStatus.SUSPENDED
        core.signal = calls.Signal("i", calls.SignalType.PAUSE, b"37")
        assert (await register(client)).signal is None
        core.signal = calls.Signal("i", calls.SignalType.PAUSE, b"36")
        assert (await client.request(PollSignals(instance_id="i"))).signal is not None


async def test_an_acknowledgement_of_another_signal_does_nothing(
    autojump_clock: MockClock,
) -> None:
    core, network = Core(), Network()
    async with scripted(network, core) as server, client_of(network) as client:
        await register(client)
        core.signal = calls.Signal("i", calls.SignalType.CANCEL, b"now")
        await client.request(AcknowledgeSignal(instance_id="i", lease=0, signal=PAUSE))
        assert not server.of(calls.SignalAck)
        assert acknowledgement_id(1) not in core.checkpoints


async def test_a_cancels_acknowledgement_is_read_back(autojump_clock: MockClock) -> None:
    core, network = Core(), Network()
    cancel = Signal(SignalType.CANCEL, b"x")

    async def nothing() -> None:
        return None

    async with scripted(network, core) as server, client_of(network) as client:
        await register(client)
        core.before = once(calls.SignalAck, nothing())  # its handler failed, and said so nowhere
        await client.request(
            RecordOutcome(instance_id="i", lease=0, status=InstanceStatus.CANCELLED, signal=cancel)
        )
        assert len(server.of(calls.SignalAck)) == 2
        assert core.status is calls.InstanceStatus.CANCELLED


async def test_an_outcome_gives_way_to_a_cancel(autojump_clock: MockClock) -> None:
    core, network = Core(), Network()
    async with scripted(network, core), client_of(network) as client:
        await register(client)
        core.signal = calls.Signal("i", calls.SignalType.CANCEL, b"x")
        reply = await client.request(
            RecordOutcome(
                instance_id="i", lease=0, status=InstanceStatus.COMPLETED, unless_cancelled=True
            )
        )
        assert reply.cancel == Signal(SignalType.CANCEL, b"x")
        assert core.status is calls.InstanceStatus.RUNNING


async def test_a_custom_signal_is_saved_before_it_is_handed_on(autojump_clock: MockClock) -> None:
    core, network = Core(), Network()
    take = TakeSignal(instance_id="i", lease=0, checkpoint_id="approve")
    async with scripted(network, core):
        async with client_of(network) as client:
            await register(client)
            assert (await client.request(take)).payload is None
            core.custom["approve"] = b"yes"
            assert (await client.request(take)).payload == b"yes"
            assert core.checkpoints[signal_id("approve")] == b"\1yes"
        async with client_of(network) as client:
            await register(client)
            assert (await client.request(take)).payload == b"yes"


@pytest.mark.parametrize("step", range(12))
async def test_a_cancelled_call_loses_no_custom_signal(
    autojump_clock: MockClock, step: int
) -> None:
    """The server has deleted it: whatever happens to who asked, it must be saved."""
    core, network = Core(), Network()
    async with scripted(network, core), client_of(network) as client:
        await register(client)
        core.custom = {"a": b"yes", "b": b"no"}
        with trio.move_on_after(step * 0.0004):
            await client.request(save("a"))
        with trio.move_on_after(step * 0.0004):
            await client.request(TakeSignal(instance_id="i", lease=0, checkpoint_id="b"))
        await trio.sleep(1)
        for name, payload in (("a", b"yes"), ("b", b"no")):
            waits = core.custom.get(name) == payload
            kept = core.checkpoints.get(signal_id(name)) == b"\1" + payload
            assert waits != kept, (name, step)


async def test_a_signal_in_the_answer_to_a_saved_timeout(autojump_clock: MockClock) -> None:
    """It ends the wait at once: a poll has just been put off, for it had an answer."""
    core, network = Core(), Network()
    asked_at = 0.0

    def cancels(call: Any) -> None:
        nonlocal asked_at
        if isinstance(call, calls.Checkpoint) and call.checkpoint_id == timeout_id("approval"):
            core.signal = calls.Signal("i", calls.SignalType.CANCEL)
            asked_at = trio.current_time()

    core.before = cancels
    async with (
        scripted(network, core),
        client_of(network) as client,
        open_backend(client) as backend,
    ):
        async with block(backend) as sdk:
            try:
                await sdk.wait_for_signal("approval", timeout=3600)
            finally:
                waited = trio.current_time() - asked_at
    assert sdk.outcome is Outcome.CANCELLED
    assert 0 <= waited < backend.config.signal_poll_interval_ms / 1000 / 2


async def test_waits_are_hinted_until_nobody_waits(autojump_clock: MockClock) -> None:
    core, network = Core(), Network()
    async with (
        scripted(network, core),
        client_of(network) as client,
        trio.open_nursery() as nursery,
    ):
        await register(client)
        hints: list[tuple[str, str]] = []

        async def read() -> None:
            async for batch in client.signals():
                hints.extend(batch.hints)

        nursery.start_soon(read)
        await client.request(TakeSignal(instance_id="i", lease=0, checkpoint_id="a"))
        await trio.sleep(3.5)
        assert hints == [("i", "a")] * 3
        await client.request(StopWaiting(instance_id="i", checkpoint_id="a"))
        await trio.sleep(5)
        assert len(hints) == 3
        nursery.cancel_scope.cancel()


async def test_polls_are_left_out_where_checkpoints_bring_the_signals(
    autojump_clock: MockClock,
) -> None:
    core, network = Core(), Network()
    async with scripted(network, core) as server, client_of(network) as client:
        await register(client)
        server.calls.clear()
        for n in range(100):
            await client.request(save(f"{n}"))
            await trio.sleep(0.1)
        assert not server.of(calls.PollSignals)
        await trio.sleep(9.95)
        assert 9 <= len(server.of(calls.PollSignals)) <= 10
        await client.request(
            RecordOutcome(instance_id="i", lease=0, status=InstanceStatus.COMPLETED)
        )
        server.calls.clear()
        await trio.sleep(10)
        assert not server.of(calls.PollSignals)


async def test_polls_have_one_rate_limit(autojump_clock: MockClock) -> None:
    core, network = Core(), Network()
    async with scripted(network, core) as server, client_of(network) as client:
        async with trio.open_nursery() as nursery:
            for n in range(1_000):
                nursery.start_soon(client.request, Register(instance_id=f"i{n}", tenant_id="t"))
        await trio.sleep(10)
        server.calls.clear()
        await trio.sleep(10)
        polled = [call.instance_id for call in server.of(calls.PollSignals)]
        assert 0.9 * RATE * 10 < len(polled) <= RATE * 10 + 1
        assert len(set(polled)) == 1_000


async def test_heartbeats_go_out_as_one_batch(autojump_clock: MockClock) -> None:
    core, network = Core(), Network()
    async with scripted(network, core) as server, client_of(network) as client:
        await client.request(Heartbeats(instance_ids=("i", "j")))
        (batch,) = server.of(calls.InstanceEventBatch)
        assert [event.instance_id for event in batch.events] == ["i", "j"]
        assert {event.event_type for event in batch.events} == {0}
        assert all(event.timestamp_ms > 1_700_000_000_000 for event in batch.events)


async def test_a_retry_is_read_back(autojump_clock: MockClock) -> None:
    core, network = Core(), Network()

    async def nothing() -> None:
        return None

    async with scripted(network, core) as server, client_of(network) as client:
        await register(client)
        core.before = once(calls.RetryAttempt, nothing())
        await client.request(RecordRetry(instance_id="i", lease=0, checkpoint_id="a", attempt=1))
        assert len(server.of(calls.RetryAttempt)) == 2


async def test_a_lost_lease_ends_the_polls_and_nothing_else(autojump_clock: MockClock) -> None:
    core, network = Core(), Network()
    async with scripted(network, core) as server, client_of(network) as client:
        await register(client)
        core.before = lambda call: (
            calls.RpcError("LEASE_LOST", "gone")
            if isinstance(call, (calls.PollSignals, calls.Checkpoint))
            else None
        )
        await trio.sleep(3)  # polls that fail
        with pytest.raises(LeaseLost):
            await client.request(save())
        server.calls.clear()
        await trio.sleep(10)
        assert not server.calls
        core.before = lambda call: None
        assert (await client.request(GetStatus(instance_id="i"))).status == "running"


async def test_an_acknowledgement_of_a_finished_instance_is_a_lost_lease(
    autojump_clock: MockClock,
) -> None:
    core, network = Core(), Network()
    async with scripted(network, core), client_of(network) as client:
        await register(client)
        core.status = calls.InstanceStatus.FAILED

        async def nothing() -> None:
            return None

        core.before = once(calls.SignalAck, nothing())
        with pytest.raises(LeaseLost):
            await client.request(
                RecordOutcome(instance_id="i", lease=0, status=InstanceStatus.CANCELLED)
            )


async def test_a_closed_client_says_so_at_once(autojump_clock: MockClock) -> None:
    core, network = Core(), Network()
    async with scripted(network, core):
        async with client_of(network) as client:
            await register(client)
        with pytest.raises(Unreachable, match="was closed"):
            await client.request(save())


# ---- errors


async def test_errors_of_a_call(autojump_clock: MockClock) -> None:
    core, network = Core(), Network()
    async with scripted(network, core) as server, client_of(network) as client:
        await register(client)
        core.before = once(calls.Checkpoint, calls.RpcError("LEASE_LOST", "another has it"))
        with pytest.raises(LeaseLost):
            await client.request(save())
        core.before = once(calls.Checkpoint, calls.RpcError("CHECKPOINT_ERROR", "not running"))
        with pytest.raises(
            ServerError, match=r"^checkpoint: instance 'i': not running$"
        ) as refused:
            await client.request(save())
        assert refused.value.code == "CHECKPOINT_ERROR"
        core.before = once(calls.GetCheckpoint, calls.SleepAnswer())
        with pytest.raises(ServerError, match="answered with a SleepAnswer"):
            await client.request(GetCheckpoint(instance_id="i", checkpoint_id="a"))
        server.raw_reply = b"\0\0\0\2\0\2\xff\xff"
        with pytest.raises(ServerError, match=r"^get_checkpoint: instance 'i': ") as refused:
            await client.request(GetCheckpoint(instance_id="i", checkpoint_id="a"))
        assert refused.value.code == "BAD_REPLY"


async def test_what_only_stores_answer(autojump_clock: MockClock) -> None:
    network = Network()
    async with client_of(network) as client, open_backend(client) as backend:
        with pytest.raises(NotSupported, match="the URL of the server's database"):
            await backend.request(ReadCheckpoints(instance_id="i"))
        operator = Operator(backend)
        for ask in (operator.list, lambda: operator.cancel("i"), lambda: operator.show("i")):
            with pytest.raises(ConfigError, match="the URL of the server's database"):
                await ask()


@pytest.mark.parametrize(
    ("url", "match"),
    [
        ("quic://", "names no server"),
        ("quic://host:port", "names no server"),
        ("quic://host:70000", "names no server"),
        ("quic://user@host:1", "names no server"),
        ("quic://host/path", "names no server"),
        ("quic://host?verify=maybe", "verify is yes or no, not 'maybe'"),
        ("quic://host?color=red", "color=red is not understood"),
        ("quic://host?pin=", "pin= is not understood"),
        ("quic://host?pin=sha256:abc", "pin=sha256:abc is not a pin"),
        ("quic://host?ca=/nowhere.pem", "no file '/nowhere.pem'"),
        ("quic://host?verify=no&pin=sha256:" + "00" * 32, "verify=no does not go with"),
    ],
)
def test_urls_that_name_no_server(url: str, match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        open_backend(url).__class__  # noqa: B018
        trio.run(_open, url)


async def _open(url: str) -> None:
    async with open_backend(url):
        pass


async def test_a_program_that_starts_before_its_server_records_its_end(
    autojump_clock: MockClock,
) -> None:
    """Through the whole SDK: an engine that waits for nothing but the backend's answers."""
    from runtara_trio import Outcome

    core, network = Core(), Network()
    async with client_of(network) as client, open_backend(client) as backend:
        async with trio.open_nursery() as nursery:

            async def serve_later() -> None:
                await trio.sleep(3)
                async with scripted(network, core):
                    await done.wait()

            done = trio.Event()
            nursery.start_soon(serve_later)
            async with block(backend) as sdk:
                await sdk.sleep(3600, "nap")
            done.set()
    assert sdk.outcome is Outcome.COMPLETED
    assert core.status is calls.InstanceStatus.COMPLETED
