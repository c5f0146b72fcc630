"""One QUIC connection: each trap of aioquic and of the network, and how it is met.

In memory, on MockClock: what is lost, late or doubled is the script's.
"""

from __future__ import annotations

import gc
import inspect
import os
import random
import re
from importlib.metadata import requires, version

import pytest
import trio
from aioquic.quic.connection import QuicConnection
from aioquic.quic.packet_builder import QuicPacketBuilder
from aioquic.tls import Epoch
from trio.testing import MockClock

from runtara_trio.quic.client.connection import BadReply, CallTimeout, ConnectionLost
from runtara_trio.quic.server.connection import Limits
from runtara_trio.quic.transport import shim
from runtara_trio.wire import calls, frames

from ..helpers.network import Network, delivered, rough
from ..helpers.quic import after, ask, calls_of, echo, never, raw_client, scripted, streams_of

OURS = {"_write_packets", "_missing", "_keys_from", "_all_streams"}
"""Names of the shim's own."""


def read(name: object) -> calls.GetCheckpoint:
    return calls.GetCheckpoint("i", str(name))


async def reads(connection, names) -> None:  # type: ignore[no-untyped-def]
    """All at once; each must get its own answer."""

    async def one(name: object) -> None:
        assert (await ask(connection, read(name))).state == str(name).encode()

    async with trio.open_nursery() as nursery:
        for name in names:
            nursery.start_soon(one, name)


async def test_calls_get_their_own_replies_and_ids(autojump_clock: MockClock) -> None:
    network = Network()
    async with scripted(network, echo) as server, raw_client(network) as connection:
        await reads(connection, range(300))
    assert len(server.streams) == len(set(server.streams)) == 300


@pytest.mark.parametrize("count", [129, 1_001, 3_000])
async def test_more_calls_at_once_than_streams(autojump_clock: MockClock, count: int) -> None:
    network = Network()
    async with scripted(network, echo) as server, raw_client(network) as connection:
        await reads(connection, range(count))
    assert len(set(server.streams)) == count


async def test_calls_that_are_cancelled_before_they_get_a_stream(autojump_clock: MockClock) -> None:
    """A stream that is reset while the peer's limit blocks it would kill the connection."""
    network = Network()
    let_go = trio.Event()

    async def held(call: calls.GetCheckpoint) -> calls.Answer:
        await let_go.wait()
        return echo(call)

    async with (
        scripted(network, held, limits=Limits(streams=4)) as server,
        raw_client(network) as connection,
    ):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reads, connection, range(4))
            await trio.sleep(0.1)
            with trio.move_on_after(0.1):
                await reads(connection, range(100, 120))
            await trio.sleep(0.1)
            let_go.set()
        await reads(connection, range(20))
        assert connection.lost is None
    assert len(server.calls) == 24


async def test_a_call_that_waits_for_a_stream_has_its_deadline(autojump_clock: MockClock) -> None:
    network = Network()
    async with (
        scripted(network, never, limits=Limits(streams=1)),
        raw_client(network) as connection,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(reads, connection, range(1))
        await trio.sleep(0.1)
        with pytest.raises(CallTimeout) as late:
            await ask(connection, read("gated"), seconds=2)
        assert not late.value.sent
        nursery.cancel_scope.cancel()


async def test_a_cancel_at_any_moment_of_a_call(autojump_clock: MockClock) -> None:
    network = Network()
    async with scripted(network, after(0.002)) as server, raw_client(network) as connection:
        answered = 0
        for step in range(100):
            with trio.move_on_after(step * 0.0001):
                await ask(connection, read(step))
                answered += 1
        assert 0 < answered < 100
        await reads(connection, range(5))
        assert not calls_of(connection)
        await trio.sleep(1)
        assert len(streams_of(connection)) == 0
        assert len(streams_of(server.clients[0])) == 0


async def test_the_reply_of_a_cancelled_call_can_be_kept(autojump_clock: MockClock) -> None:
    network = Network()
    kept: list[bytes] = []
    async with scripted(network, after(0.5)), raw_client(network) as connection:
        from runtara_trio.wire import mapping

        frame = frames.encode(frames.REQUEST, mapping.encode_call(read("kept")))
        with trio.move_on_after(0.1):
            await connection.call(frame, trio.current_time() + 10, kept.append)
        assert kept == []
        await trio.sleep(1)
        (payload,) = kept
        assert mapping.decode_answer(payload) == echo(read("kept"))


async def test_a_deadline_ends_a_call_and_not_the_connection(autojump_clock: MockClock) -> None:
    network = Network()
    async with scripted(network, never) as server, raw_client(network) as connection:
        start = trio.current_time()
        with pytest.raises(CallTimeout) as late:
            await ask(connection, read("late"), seconds=5)
        assert late.value.sent
        assert trio.current_time() - start == pytest.approx(5, abs=0.01)
        server.script = echo
        await reads(connection, range(3))


async def test_a_close_is_heard_at_once_on_both_sides(autojump_clock: MockClock) -> None:
    network = Network()
    async with scripted(network, never) as server, raw_client(network) as connection:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_expect_lost, connection)
            await trio.sleep(0.1)
            closed = trio.current_time()
            server.clients[0].close()
        assert trio.current_time() - closed < 0.01
    async with scripted(network, echo) as server:
        async with raw_client(network) as connection:
            await reads(connection, range(1))
        await trio.sleep(0.01)
        assert server.clients[0].gone


async def _expect_lost(connection) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ConnectionLost) as lost:
        await ask(connection, read("lost"))
    assert lost.value.sent


@pytest.mark.parametrize("refuses", [True, False], ids=["dead port", "silence"])
async def test_a_server_that_is_gone(autojump_clock: MockClock, refuses: bool) -> None:
    network = Network()
    network.refuses = refuses
    async with scripted(network, never), raw_client(network) as connection:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_expect_lost, connection)
            await trio.sleep(1)
            network.links["127.0.0.1", 8001].close()
            gone = trio.current_time()
            nursery.start_soon(_expect_lost, connection)
        assert trio.current_time() - gone < (0.1 if refuses else 1)
        assert ("port is closed" if refuses else "probes") in (connection.lost or "")
        with pytest.raises(ConnectionLost) as later:
            await ask(connection, read("later"))
        assert not later.value.sent


async def test_a_stateless_reset_is_recognised(autojump_clock: MockClock) -> None:
    network = Network()
    async with scripted(network, never), raw_client(network) as connection:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_expect_lost, connection)
            await trio.sleep(0.1)
            token = connection.quic._peer_cid.stateless_reset_token
            assert token is not None
            link = network.links[next(address for address in network.links if address[1] != 8001)]
            link.put(0, -1, bytes([0x41]) + os.urandom(30) + token, ("127.0.0.1", 8001))
        assert "restarted" in (connection.lost or "")


async def test_idle_connections_end_and_pinged_ones_do_not(autojump_clock: MockClock) -> None:
    network = Network()
    async with scripted(network, echo), raw_client(network) as idle, raw_client(network) as pinged:
        for _ in range(20):
            await trio.sleep(10)
            pinged.ping()
        assert idle.lost == "Idle timeout"
        await reads(pinged, range(3))


async def test_a_large_call_needs_windows_that_open_again_and_again(
    autojump_clock: MockClock,
) -> None:
    """What opens a window comes in packets that hold nothing else: they must be answered."""
    network = Network()
    state = random.Random(7).randbytes(8_000_000)
    stored: list[bytes] = []

    def store(call: calls.Checkpoint) -> calls.Answer:
        stored.append(call.state)
        return calls.CheckpointAnswer(True, call.state)

    async with scripted(network, store), raw_client(network) as connection:
        start = trio.current_time()
        answer = await ask(connection, calls.Checkpoint("i", "large", state))
    assert stored == [state] == [answer.state]
    assert trio.current_time() - start < 5  # of the mocked clock; no wait for a timer


async def test_what_a_full_window_holds_back_goes_first_when_it_opens(
    autojump_clock: MockClock,
) -> None:
    """Else a reply would wait for ever behind those that were asked later."""
    network = Network()

    async def answer(call: calls.GetCheckpoint) -> calls.Answer:
        if call.checkpoint_id == "idle":
            await trio.sleep_forever()
        return calls.GetCheckpointAnswer(True, bytes(20_000))

    async with (
        scripted(network, answer) as server,
        raw_client(network) as connection,
        trio.open_nursery() as nursery,
    ):
        for _ in range(20):
            nursery.start_soon(ask, connection, read("idle"))
            nursery.start_soon(ask, connection, read("large"))
        seen = 0
        for _ in range(40):
            await trio.sleep(0.0005)
            if server.clients:
                queue = server.clients[0].quic._streams_queue
                held_back = [not stream.sender.buffer_is_empty for stream in queue]
                seen += any(held_back) and not all(held_back)
                assert held_back == sorted(held_back, reverse=True)
        assert seen
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("seed", range(10))
async def test_loss_and_disorder(autojump_clock: MockClock, seed: int) -> None:
    network = Network(rough(seed, loss=0.1, reorder=0.2, double=0.1, corrupt=0.02))
    async with scripted(network, echo) as server, raw_client(network) as connection:
        for _ in range(10):
            await reads(connection, range(64))
        assert connection.lost is None
    assert len(server.calls) == 640


async def test_no_false_alarm_at_ten_percent_loss(autojump_clock: MockClock) -> None:
    network = Network(rough(1, loss=0.1))
    async with scripted(network, after(0.02)), raw_client(network) as connection:
        async with trio.open_nursery() as nursery:
            for name in range(8):
                nursery.start_soon(_keep_reading, connection, name, 100)
        assert connection.lost is None


async def _keep_reading(connection, name: int, seconds: float) -> None:  # type: ignore[no-untyped-def]
    until = trio.current_time() + seconds
    while trio.current_time() < until:
        await ask(connection, read(name))


async def test_garbage_on_both_sides_is_ignored(autojump_clock: MockClock) -> None:
    network = Network()
    dice = random.Random(3)
    async with scripted(network, echo), raw_client(network) as connection:
        for n in range(50):
            for address, link in list(network.links.items()):
                other = next(one for one in network.links if one != address)
                for _ in range(20):
                    link.put(
                        0, -1 - dice.randrange(10**9), dice.randbytes(dice.randint(0, 1400)), other
                    )
            await reads(connection, [n])
        assert connection.lost is None


@pytest.mark.parametrize(
    ("reply", "what"),
    [
        (b"\0\0\0\5\0\2ab", "no frame: the stream ended after 8 bytes"),
        (b"\0\0", "no frame: the stream ended after 2 bytes"),
        (b"\7\0\0\0\0\2", "no frame: a frame of 117440512 bytes was announced"),
        (b"\0\0\0\1\0\x09x", "no frame: no frame has the type 9"),
    ],
)
async def test_replies_that_are_none(autojump_clock: MockClock, reply: bytes, what: str) -> None:
    network = Network()
    async with scripted(network, never) as server, raw_client(network) as connection:
        server.raw_reply = reply
        with pytest.raises(BadReply, match=what):
            await ask(connection, read("spoiled"))
        assert connection.lost is None


async def test_a_call_that_ends_without_a_frame(autojump_clock: MockClock) -> None:
    network = Network()
    async with scripted(network, lambda call: None), raw_client(network) as connection:
        assert await ask(connection, calls.SignalAck("i", 0, True)) is None


async def test_a_stopped_process_is_no_late_server(autojump_clock: MockClock) -> None:
    """Time in which the process did not run counts for nobody: the reply may be there."""
    network = Network()
    async with scripted(network, after(3)), raw_client(network) as connection:
        async with trio.open_nursery() as nursery:

            async def stop() -> None:
                await trio.sleep(1)
                autojump_clock.jump(20)

            nursery.start_soon(stop)
            assert (await ask(connection, read("kept"), seconds=10)).found


async def test_a_hundred_thousand_calls_leave_nothing_behind(autojump_clock: MockClock) -> None:
    network = Network()

    async def worker(connection, count: int) -> None:  # type: ignore[no-untyped-def]
        call = read("same")
        for _ in range(count):
            await ask(connection, call)

    async def run(connection, count: int) -> int:  # type: ignore[no-untyped-def]
        async with trio.open_nursery() as nursery:
            for _ in range(100):
                nursery.start_soon(worker, connection, count // 100)
        await trio.sleep(1)
        server.calls.clear()
        server.streams.clear()
        network.sent.clear()
        gc.collect()
        return len(gc.get_objects())

    async with scripted(network, echo) as server, raw_client(network) as connection:
        before = await run(connection, 2_000)
        after_all = await run(connection, 100_000)
        assert after_all - before < 5_000  # a leak of one object a call were 100,000
        assert len(streams_of(connection)) == len(streams_of(server.clients[0])) == 0


async def test_keys_are_changed_long_before_they_wear_out(autojump_clock: MockClock) -> None:
    network = Network()
    async with scripted(network, echo) as server, raw_client(network) as connection:
        connection.quic.packets_a_key = 100
        phases = set()
        for n in range(500):
            await reads(connection, [n])
            for end in (connection.quic, server.clients[0].quic):
                phases.add(end._cryptos[Epoch.ONE_RTT].key_phase)
        assert connection.lost is None
        assert phases == {0, 1}


async def test_what_is_left_out_does_not_widen_the_window(autojump_clock: MockClock) -> None:
    """A peer that sends the end of everything and the beginning of nothing."""
    network = Network()
    async with scripted(network, echo) as server, raw_client(network) as connection:
        await reads(connection, [1])
        quic = server.clients[0].quic
        quic.most_missing = 1 << 20
        stream_id = connection.quic.get_next_available_stream_id()
        connection.quic.send_stream_data(stream_id, bytes(60_000_000))
        streams_of(connection)[stream_id].sender._pending.subtract(0, 1_000)
        connection.touch()
        await trio.sleep(5)
        assert len(streams_of(server.clients[0])[stream_id].receiver._buffer) <= 8 << 20


# ---- aioquic's private parts


def test_the_shim_finds_what_it_needs() -> None:
    assert version("aioquic").startswith("1.7.")
    (bounds,) = [one for one in requires("runtara-trio") or [] if one.startswith("aioquic")]
    assert set(bounds.removeprefix("aioquic").split(",")) == {">=1.7", "<1.8"}
    source = inspect.getsource(QuicConnection)
    mine = inspect.getsource(shim)
    source += inspect.getsource(QuicPacketBuilder)
    names = set(re.findall(r"(?:quic|self|builder)\.(_\w+)", mine)) - OURS
    assert len(names) > 10
    for name in sorted(names):
        assert re.search(rf"self\.{name}\b|def {name}\b", source), name


async def test_the_shim_reads_what_it_says(autojump_clock: MockClock) -> None:
    network = Network(delivered)
    async with scripted(network, echo, limits=Limits(streams=37)), raw_client(network) as one:
        assert shim.stream_limit(one.quic) == 37
        assert shim.close_reason(one.quic) is None
        assert not shim.close_unsent(one.quic)
        assert shim.probe_timeouts(one.quic) == 0
        assert len(shim.certificate_digest(one.quic) or b"") == 32
        await reads(one, range(3))
        assert shim.unsent(one.quic, 0) == 0
        assert (shim.timer_of(one.quic) or 0) > trio.current_time()
        one.quic.close(reason_phrase="done")
        assert shim.close_unsent(one.quic)
        assert shim.close_reason(one.quic) == (0, "done")
