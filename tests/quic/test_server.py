"""Our server: whose instance it is, and what it does with clients that mean no good.

In memory on MockClock, but for the command line.
"""

from __future__ import annotations

import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.lowlevel
from trio.testing import MockClock

from runtara_trio import (
    InstanceStatus,
    LeaseLost,
    Operator,
    ServerError,
    SharedBackend,
)
from runtara_trio.messages import (
    Checkpoint,
    FreeLease,
    GetCheckpoint,
    GetStatus,
    Register,
    TakeLease,
)
from runtara_trio.quic.client.connection import ConnectionLost
from runtara_trio.quic.server.connection import Limits
from runtara_trio.quic.server.server import Server, open_server
from runtara_trio.serving.leases import open_leases
from runtara_trio.wire import calls, frames, mapping

from ..helpers.network import Network
from ..helpers.places import free_port, served_place
from ..helpers.quic import IDENTITY, ask, begin_call, ignored_by, kept_by, raw_client, streams_of
from ..helpers.restarting import goes_on_over_a_restart
from ..helpers.support import WRITING_CALLS, backend_of, block, sql, start_args

REGISTER = calls.RegisterInstance("i", "t")


def checkpoint(name: str) -> calls.Checkpoint:
    return calls.Checkpoint("i", name, b"state")


@asynccontextmanager
async def serving(
    store: SharedBackend, network: Network, *, port: int = 8001, **limits: Any
) -> AsyncIterator[Server]:
    async with (
        open_leases(store, keep=30) as leases,
        open_server(
            store, network.listen(port), IDENTITY, leases, limits=Limits(**limits)
        ) as server,
    ):
        yield server


# ---- whose instance it is


async def test_a_register_takes_the_instance_from_an_earlier_connection(
    autojump_clock: MockClock, memory: SharedBackend
) -> None:
    network = Network()
    async with (
        serving(memory, network),
        raw_client(network) as first,
        raw_client(network) as second,
    ):
        assert (await ask(first, REGISTER)).success
        assert not (await ask(first, checkpoint("a"))).found
        lost = await ask(second, checkpoint("b"))
        assert (lost.code, "another owner took it over" in lost.message) == ("LEASE_LOST", True)
        assert (await ask(second, REGISTER)).success
        assert not (await ask(second, checkpoint("b"))).found
        assert (await ask(first, checkpoint("c"))).code == "LEASE_LOST"
        assert (await ask(first, calls.GetCheckpoint("i", "b"))).found  # to read is free


async def test_a_connection_that_comes_back_goes_on_without_a_register(
    autojump_clock: MockClock, memory: SharedBackend
) -> None:
    network = Network()
    async with serving(memory, network):
        async with raw_client(network) as first:
            await ask(first, REGISTER)
        async with raw_client(network) as second:
            assert not (await ask(second, checkpoint("a"))).found
            assert (await ask(second, calls.InstanceEvent("i", 2, payload=b"out"))).success
            info = await memory.request(GetStatus(instance_id="i"))
            assert (info.status, info.output) == (InstanceStatus.COMPLETED, b"out")
            again = await ask(second, calls.InstanceEvent("i", 3, payload=b"no"))
            assert (again.code, again.message) == (
                "INSTANCE_EVENT_ERROR",
                "instance 'i' is completed, not running",
            )


async def test_leases_outlive_their_connection_for_a_while(
    autojump_clock: MockClock, memory: SharedBackend
) -> None:
    network = Network()
    operator = Operator(memory)
    async with serving(memory, network) as server:
        async with raw_client(network) as client:
            await ask(client, REGISTER)
        await trio.sleep(29)
        assert (await operator.show("i")).summary.held
        await trio.sleep(2)
        assert not (await operator.show("i")).summary.held
        assert len(server.leases) == 0
        answer = await operator.cancel("i")
        assert answer.text == "cancelled: its process had died"
        async with raw_client(network) as client:
            late = await ask(client, checkpoint("late"))
            assert (late.code, late.message) == (
                "CHECKPOINT_ERROR",
                "instance 'i' is cancelled, not running",
            )


async def test_a_restarted_server_lets_its_clients_go_on(
    autojump_clock: MockClock, memory: SharedBackend
) -> None:
    network = Network()
    async with serving(memory, network):
        async with raw_client(network) as client:
            await ask(client, REGISTER)
    await memory.request(  # what a new owner of a file finds: a lease of a dead one
        FreeLease(instance_id="i", lease=await _lease(memory))
    )
    async with serving(memory, network), raw_client(network) as client:
        assert not (await ask(client, checkpoint("after"))).found


async def _lease(store: SharedBackend) -> int:
    ((epoch,),) = await sql(store, "SELECT epoch FROM runtara_trio_leases")
    return int(epoch)


async def test_another_owners_instance_is_busy(
    autojump_clock: MockClock, memory: SharedBackend
) -> None:
    network = Network()
    async with serving(memory, network), raw_client(network) as client:
        async with block(memory) as sdk:
            refused = await ask(client, REGISTER)
            assert not refused.success
            assert refused.error.startswith("InstanceBusy: process ")
            assert (await ask(client, checkpoint("a"))).code == "LEASE_LOST"
            await sdk.checkpoint("mine")
        assert (await ask(client, REGISTER)).success  # revived, as by runtara-core


@pytest.mark.guard
async def test_leases_in_stores(backend: SharedBackend) -> None:
    await backend.request(Register(instance_id="other", tenant_id="t"))
    with pytest.raises(ServerError, match="no instance 'i'"):
        await backend.request(TakeLease(instance_id="i"))
    first = (await backend.request(Register(instance_id="i", tenant_id="t"))).lease
    with pytest.raises(LeaseLost):
        await backend.request(TakeLease(instance_id="i"))
    second = (await backend.request(Register(instance_id="i", tenant_id="t", replaces=first))).lease
    third = (await backend.request(TakeLease(instance_id="i", replaces=second))).lease
    await backend.request(FreeLease(instance_id="i", lease=first))  # not his any more
    save = Checkpoint(instance_id="i", lease=third, checkpoint_id="a", state=b"")
    await backend.request(save)
    await backend.request(FreeLease(instance_id="i", lease=third))
    with_nobody = (await Operator(backend).show("i")).summary
    assert (with_nobody.held, with_nobody.ours) == (False, True)
    fourth = (await backend.request(TakeLease(instance_id="i"))).lease
    with pytest.raises(LeaseLost):
        await backend.request(save)
    assert first < second < third < fourth


# ---- the protocol's errors


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"\0\0",
        b"\0\0\0\5\0\1ab",
        b"\7\0\0\0\0\1",
        b"\0\0\0\1\0\x09x",
        b"\0\0\0\2\0\1\xff\xff",
    ],
    ids=["nothing", "half a head", "cut short", "too long", "of no type", "garbage"],
)
async def test_what_is_no_request_is_ended_without_a_frame(
    autojump_clock: MockClock, memory: SharedBackend, sent: bytes
) -> None:
    network = Network()
    async with serving(memory, network), raw_client(network) as client:
        assert await client.call(sent, trio.current_time() + 5) is None
        assert (await ask(client, REGISTER)).success  # the connection goes on


async def test_a_frame_is_answered_without_its_end_and_with_more_behind_it(
    autojump_clock: MockClock, memory: SharedBackend
) -> None:
    network = Network()
    frame = frames.encode(frames.REQUEST, mapping.encode_call(REGISTER))
    async with serving(memory, network) as server, raw_client(network) as client:
        assert await client.call(frame + b"more", trio.current_time() + 5) is not None
        begin_call(client, frame)
        await trio.sleep(1)
        assert not ignored_by(server.listener.clients[0])
        assert (await ask(client, checkpoint("a"))).found is False


async def test_requests_whose_end_comes_later_hold_nothing_up(
    autojump_clock: MockClock, memory: SharedBackend
) -> None:
    """As the stock SDK writes them: a frame, and the end of the stream in a packet of its own."""
    network = Network()
    async with block(memory) as sdk:
        await sdk.checkpoint("large", bytes(4_000))
    frame = frames.encode(frames.REQUEST, mapping.encode_call(calls.GetCheckpoint("i", "large")))
    async with serving(memory, network) as server, raw_client(network) as client:
        start = trio.current_time()
        for _ in range(5):
            first = client.quic.get_next_available_stream_id()
            ids = range(first, first + 400, 4)
            for stream_id in ids:
                client.quic.send_stream_data(stream_id, frame)
            client.touch()
            await trio.sleep(0.0015)
            for stream_id in ids:
                client.quic.send_stream_data(stream_id, b"", end_stream=True)
            client.touch()
            while streams_of(client):
                await trio.sleep(0.001)
        assert trio.current_time() - start < 1  # of the mocked clock
        assert not ignored_by(server.listener.clients[0])


async def test_an_empty_request_and_ids_that_are_none(
    autojump_clock: MockClock, memory: SharedBackend
) -> None:
    network = Network()
    async with serving(memory, network), raw_client(network) as client:
        empty = await client.call(frames.encode(frames.REQUEST, b""), trio.current_time() + 5)
        assert empty is not None
        assert mapping.decode_answer(empty).code == "EMPTY_REQUEST"  # type: ignore[attr-defined]
        for wrong in (calls.RegisterInstance("", "t"), calls.RegisterInstance("i", "")):
            assert "is empty" in (await ask(client, wrong)).error
        assert not (await ask(client, calls.RegisterInstance("i", "t", ""))).success
        await ask(client, REGISTER)
        long = await ask(client, calls.Checkpoint("i", "x" * 2000, b""))
        assert (long.code, "at most" in long.message) == ("CHECKPOINT_ERROR", True)
        unknown = await ask(client, calls.PollSignals("nobody", "a"))
        assert unknown == calls.PollSignalsAnswer()


async def test_a_sleep_only_waits_and_ends_when_nobody_waits(
    autojump_clock: MockClock, memory: SharedBackend
) -> None:
    network = Network()
    async with serving(memory, network) as server, raw_client(network) as client:
        start = trio.current_time()
        assert await ask(client, calls.Sleep("i", 5_000)) == calls.SleepAnswer()
        assert trio.current_time() - start == pytest.approx(5, abs=0.1)
        with trio.move_on_after(1):
            await ask(client, calls.Sleep("i", 3_600_000))
        await trio.sleep(1)
        assert server.answering == 0


async def test_a_batch_of_events(autojump_clock: MockClock, memory: SharedBackend) -> None:
    network = Network()
    async with serving(memory, network), raw_client(network) as client:
        await ask(client, REGISTER)
        batch = calls.InstanceEventBatch(
            (calls.InstanceEvent("i"), calls.InstanceEvent("i", 5, subtype="note"))
        )
        assert await ask(client, batch) is None
        events = (await Operator(memory).events("i")).events
        assert [event.subtype for event in events] == [None, "note"]


# ---- clients that mean no good


async def test_handshakes_that_never_finish(
    autojump_clock: MockClock, memory: SharedBackend
) -> None:
    network = Network()
    async with serving(memory, network, handshakes=20, handshake_timeout=5) as server:
        hello = await _first_datagrams(60)
        before = len(network.sent)
        for n, datagram in enumerate(hello):
            network.links["127.0.0.1", 8001].put(0, n, datagram, ("10.0.0.1", n))
        await trio.sleep(0.1)
        # Two began, the rest is asked to show that its address is its own.
        assert len(kept_by(server.listener).clients) == 2
        answered = network.sent[before:]
        assert sum(len(data) for _, _, data in answered) < 60 * 1200  # no amplifier
        async with raw_client(network) as client:  # an honest one gets in by that very way
            assert (await ask(client, REGISTER)).success
        await trio.sleep(30)
        assert len(kept_by(server.listener).clients) == 0
        assert not kept_by(server.listener).connection_ids


async def _first_datagrams(count: int) -> list[bytes]:
    network = Network()
    network.refuses = False
    for _ in range(count):
        with trio.move_on_after(0.001):
            async with raw_client(network):
                pass
    firsts = {data[6:14]: data for _, _, data in network.sent if len(data) >= 1200}
    return list(firsts.values())[:count]


async def test_no_more_connections_than_allowed(
    autojump_clock: MockClock, memory: SharedBackend
) -> None:
    network = Network()
    async with serving(memory, network, connections=2) as server:
        async with raw_client(network) as one, raw_client(network):
            assert (await ask(one, REGISTER)).success
            with trio.move_on_after(3) as waited:
                async with raw_client(network):
                    pass
            assert waited.cancelled_caught
        await trio.sleep(5)
        async with raw_client(network) as later:
            assert (await ask(later, checkpoint("a"))).found is False
        await trio.sleep(1)
        assert server.connections == 0


async def test_requests_that_never_become_whole(
    autojump_clock: MockClock, memory: SharedBackend
) -> None:
    network = Network()
    async with (
        serving(memory, network, stream_timeout=20) as server,
        raw_client(network) as client,
    ):
        begin_call(client, b"\0\1\0\0\0\1" + bytes(5_000))
        await trio.sleep(1)
        assert server.listener.held == 5_006
        for _ in range(4):
            client.ping()
            await trio.sleep(10)
        assert server.listener.held == 0
        assert client.lost is None
        assert (await ask(client, REGISTER)).success


async def test_a_client_that_wants_too_much_at_once_is_closed(
    autojump_clock: MockClock, memory: SharedBackend
) -> None:
    network = Network()
    async with serving(memory, network, memory=4_000_000) as server, raw_client(network) as other:
        async with raw_client(network) as client:
            for _ in range(2):
                stream_id = client.quic.get_next_available_stream_id()
                client.quic.send_stream_data(stream_id, b"\0\x40\0\0\0\1" + bytes(600_000))
            client.touch()
            with trio.fail_after(30):
                await client.over.wait()
            assert "more requests or unread replies" in (client.lost or "")
            assert client.close_code == 1
        await trio.sleep(1)
        assert server.listener.held == 0
        assert (await ask(other, REGISTER)).success


async def test_a_reader_that_does_not_read_is_closed(
    autojump_clock: MockClock, memory: SharedBackend
) -> None:
    network = Network()
    async with block(memory) as sdk:
        await sdk.checkpoint("large", bytes(6_000_000))
    async with serving(memory, network, stream_timeout=20) as server, raw_client(network) as client:
        # Its windows never open again.
        client.quic._write_connection_limits = lambda **_: None
        client.quic._write_stream_limits = lambda **_: None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_expect_lost, client, calls.GetCheckpoint("i", "large"))
            await trio.sleep(5)
            assert server.listener.held > 1_000_000
            for _ in range(4):
                client.ping()
                await trio.sleep(10)
            assert server.listener.held == 0
            assert "unread replies" in (client.lost or "")


async def _expect_lost(client: Any, call: calls.Call) -> None:
    with pytest.raises(ConnectionLost, match="unread replies"):
        await ask(client, call, seconds=1e6)


async def test_connections_that_came_and_went_leave_nothing(
    autojump_clock: MockClock, memory: SharedBackend
) -> None:
    network = Network()
    async with serving(memory, network) as server:
        for _ in range(100):
            async with raw_client(network) as client:
                await ask(client, REGISTER)
        await trio.sleep(60)
        kept = kept_by(server.listener)
        assert not kept.clients
        assert not kept.connection_ids
        assert len(kept.unfinished) <= 1
        assert all(connection is None for connection in kept.timed)
        assert len(server.leases) == 0
        assert server.listener.held == 0


async def test_a_mistake_in_one_connection_ends_it_alone(
    autojump_clock: MockClock, memory: SharedBackend, caplog: pytest.LogCaptureFixture
) -> None:
    network = Network()
    async with (
        serving(memory, network) as server,
        raw_client(network) as spoiled,
        raw_client(network) as other,
    ):
        for client in (spoiled, other):
            await ask(client, REGISTER)

        def fail(*_: object) -> None:
            raise AssertionError("a mistake")

        server.listener.clients[0].quic.receive_datagram = fail  # type: ignore[method-assign]
        spoiled.ping()
        other.ping()
        await trio.sleep(20)
        events = {record.__dict__.get("event") for record in caplog.records}
        assert "connection_failed" in events
        left = [one for one in (spoiled, other) if one.lost is None]
        assert len(left) == 1
        assert (await ask(left[0], REGISTER)).success


async def test_a_drain_answers_what_was_asked_and_closes(
    autojump_clock: MockClock, memory: SharedBackend
) -> None:
    network = Network()
    async with raw_client_later(network) as connect:
        async with serving(memory, network):
            client = await connect()
            await ask(client, REGISTER)
        await trio.sleep(0.01)
        assert client.lost is not None


@asynccontextmanager
async def raw_client_later(network: Network) -> AsyncIterator[Any]:
    """A client that connects in the block, and is closed behind it."""
    async with trio.open_nursery() as nursery:
        opened: list[Any] = []
        wanted, ready, done = trio.Event(), trio.Event(), trio.Event()

        async def run() -> None:
            await wanted.wait()
            async with raw_client(network) as client:
                opened.append(client)
                ready.set()
                await done.wait()

        async def connect() -> Any:
            wanted.set()
            await ready.wait()
            return opened[0]

        nursery.start_soon(run)
        yield connect
        done.set()


# ---- the command


async def test_serve_from_the_command_line(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path}/served.db"
    async with start_args("-m", "runtara_trio", "serve", "--store", store, "--port", "0") as server:
        line = await server.line("serving")
        url = line.rpartition(" ")[2]
        pin = (await server.line("certificate pin=")).removeprefix("certificate ")
        async with block(f"{url}?{pin}") as sdk:
            await sdk.checkpoint("a", b"kept")
            await sdk.suspended()
        server.send(signal.SIGTERM)
        assert await server.wait() == 0
        assert "SIGTERM: draining" in server.lines[-1]
    async with block(store) as sdk:
        assert await sdk.get_checkpoint("a") == b"kept"


async def test_a_taken_port_is_refused(tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        async with start_args(
            "-m", "runtara_trio", "serve", "--store", ":memory:", "--port", str(port)
        ) as server:
            assert await server.wait() == 2
            assert f"UDP port {port} of 127.0.0.1 is taken" in " ".join(server.lines)


async def test_a_program_goes_on_over_a_killed_and_restarted_server(tmp_path: Path) -> None:
    port = free_port()
    options = ("--port", str(port))
    await goes_on_over_a_restart(f"quic://127.0.0.1:{port}", options, signal.SIGKILL, tmp_path)


def test_limits_are_those_of_the_command_line() -> None:
    from click.testing import CliRunner

    from runtara_trio.cli.main import main

    text = CliRunner().invoke(main, ["serve", "--help"]).output
    for option in ("connections", "handshakes", "calls", "memory"):
        assert f"--max-{option}" in text


async def test_a_refused_call_says_what_was_asked_as_on_a_store() -> None:
    async with served_place() as place:
        for asked, call in WRITING_CALLS.items():
            if asked == "wait_for_signal":
                continue  # the protocol's poll is refused by nothing: the wait goes on
            with pytest.raises(ServerError) as refused:
                async with block(place.backend, asked) as sdk:
                    await sql(backend_of(place.operator), "UPDATE instances SET status = 'failed'")
                    await call(sdk)
            assert str(refused.value) == f"{asked}: instance {asked!r} is failed, not running"
            await sql(backend_of(place.operator), "DELETE FROM instances")
        with pytest.raises(ServerError, match=r"^get_checkpoint: no instance 'nobody'$"):
            await place.backend.request(GetCheckpoint(instance_id="nobody", checkpoint_id="a"))
