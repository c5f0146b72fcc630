"""Our server over HTTP: whose instance it is, who may ask, and clients that mean no good."""

from __future__ import annotations

import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from runtara_trio import (
    InstanceStatus,
    LeaseLost,
    Operator,
    Outcome,
    SdkConfig,
    SharedBackend,
    open_backend,
)
from runtara_trio.http.server.connection import Limits
from runtara_trio.http.server.guard import Guard
from runtara_trio.http.server.instances import InstanceAnswers
from runtara_trio.http.server.server import HttpServer, listen, open_http_server
from runtara_trio.messages import Checkpoint, GetCheckpoint, GetStatus
from runtara_trio.serving.leases import open_leases
from runtara_trio.tokens import Role, TokenFile

from ..helpers.http import Raw, b64, connected, request
from ..helpers.places import free_tcp_port
from ..helpers.restarting import goes_on_over_a_restart
from ..helpers.support import block, start_args

BASE = "/api/v1/instances/i"
SAVE = {"checkpoint_id": "a", "state": "YQ=="}


@asynccontextmanager
async def serving(
    store: SharedBackend,
    *,
    guard: Guard | None = None,
    drain_timeout: float = 10,
    **limits: Any,
) -> AsyncIterator[tuple[HttpServer, str]]:
    """A server and its URL."""
    async with (
        open_leases(store) as leases,
        open_http_server(
            await listen("127.0.0.1", 0, "--http-port"),
            InstanceAnswers(store, leases, guard or Guard(role=Role.PROGRAM)),
            limits=Limits(**limits),
            drain_timeout=drain_timeout,
        ) as server,
    ):
        yield server, f"http://127.0.0.1:{server.address[1]}"


async def register(raw: Raw, instance: str = "i", **headers: str) -> None:
    path = f"/api/v1/instances/{instance}/register"
    assert (await raw.ask("POST", path, {"tenant_id": "t"}, headers)).status == 200


async def until(condition: Any) -> None:
    with trio.fail_after(20):
        while not condition():
            await trio.sleep(0.005)


# ---- whose instance it is


async def test_a_register_takes_the_instance_from_an_earlier_client(memory: SharedBackend) -> None:
    async with (
        serving(memory) as (_, url),
        open_backend(url) as one,
        open_backend(url) as other,
        block(one) as first,
    ):
        await first.checkpoint("a")
        async with block(other) as second:
            await second.checkpoint("b")
            save = Checkpoint(instance_id="i", lease=0, checkpoint_id="c", state=b"x")
            with pytest.raises(LeaseLost):
                await one.request(save)
        assert (await memory.request(GetStatus(instance_id="i"))).status is InstanceStatus.COMPLETED


async def test_to_read_is_free_and_takes_nothing(memory: SharedBackend) -> None:
    async with serving(memory) as (_, url), open_backend(url) as one, open_backend(url) as other:
        async with block(one) as sdk:
            await sdk.checkpoint("a", b"mine")
            message = GetCheckpoint(instance_id="i", checkpoint_id="a")
            assert (await other.request(message)).state == b"mine"
            async with serving(memory) as (_, second), open_backend(second) as third:
                assert (await third.request(message)).state == b"mine"  # leased elsewhere
            await sdk.checkpoint("b")
        assert sdk.outcome is Outcome.COMPLETED


async def test_a_living_process_of_the_store_keeps_its_instance(memory: SharedBackend) -> None:
    async with serving(memory) as (_, url), connected(url) as raw, block(memory) as sdk:
        refused = await raw.ask("POST", f"{BASE}/register", {"tenant_id": "t"})
        assert refused.status == 400
        assert refused.json["error"].startswith("InstanceBusy: process ")
        lost = await raw.ask("POST", f"{BASE}/checkpoint", SAVE)
        assert (lost.status, lost.json["code"]) == (409, "LEASE_LOST")
        await sdk.checkpoint("mine")


async def test_stock_clients_share_what_nobody_named_himself_for(memory: SharedBackend) -> None:
    """Calls of one instance come on any connection; a program of ours is told from them."""
    async with serving(memory) as (_, url), connected(url) as one, connected(url) as other:
        await register(one)
        assert (await other.ask("POST", f"{BASE}/checkpoint", SAVE)).json == {"found": False}
        await register(one, "j", **{"runtara-client": "x"})
        path = "/api/v1/instances/j/checkpoint"
        assert (await other.ask("POST", path, SAVE)).status == 409
        assert (await other.ask("POST", path, SAVE, {"runtara-client": "x"})).status == 200


async def test_a_lease_that_is_not_used_becomes_free(
    memory: SharedBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runtara_trio.http.server.instances.QUIET", 0.2)
    operator = Operator(memory)
    async with serving(memory) as (_, url), connected(url) as raw:
        await register(raw)
        for _ in range(10):  # longer than that, but never quiet
            await trio.sleep(0.05)
            await raw.ask("GET", f"{BASE}/signals")
        assert (await operator.show("i")).summary.held
        with trio.fail_after(20):
            while (await operator.show("i")).summary.held:
                await trio.sleep(0.05)
        assert (await raw.ask("POST", f"{BASE}/checkpoint", SAVE)).json == {"found": False}
        assert (await operator.show("i")).summary.held


async def test_a_sleep_that_is_repeated_waits_for_what_is_left(memory: SharedBackend) -> None:
    async with serving(memory) as (server, url):
        sleep = {"duration_ms": 3_600_000, "checkpoint_id": "nap", "state": "YQ=="}
        async with connected(url) as raw:
            await register(raw)
            await raw.stream.send_all(request("POST", f"{BASE}/sleep", sleep))
            with trio.fail_after(20):
                while not (await Operator(memory).checkpoints("i")).checkpoints:
                    await trio.sleep(0.005)
        await until(lambda: server.connections == 0)  # it ends with its connection
        async with connected(url) as raw:
            short = {**sleep, "duration_ms": 1}
            assert (await raw.ask("POST", f"{BASE}/sleep", short)).json == {"success": True}
        (wake,) = [
            one
            for one in (await Operator(memory).checkpoints("i")).checkpoints
            if "wake" in one.checkpoint_id
        ]
        summary = (await Operator(memory).show("i")).summary
        assert summary.sleep_until is not None
        left = summary.sleep_until.timestamp() - wake.created_at.timestamp()  # type: ignore[union-attr]
        assert left == pytest.approx(3600, abs=60)  # the first one stands


async def test_a_program_that_ends_asleep_says_when_to_wake_it(memory: SharedBackend) -> None:
    async with serving(memory) as (_, url), open_backend(url) as backend:
        async with block(backend, on_sleep="exit") as sdk:
            await sdk.sleep(3600, "nap")
        assert sdk.outcome is Outcome.STOPPED
        summary = (await Operator(memory).show("i")).summary
        assert summary.status is InstanceStatus.SUSPENDED
        assert summary.sleep_until is not None
        left = summary.sleep_until.timestamp() - time.time()
        assert left == pytest.approx(3600, abs=120)
        async with block(backend) as sdk:  # somebody starts it all the same
            assert sdk.outcome is None
            with trio.move_on_after(0.1):
                await sdk.sleep(3600, "nap")


async def test_who_waits_in_a_sleep_keeps_his_lease(
    memory: SharedBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runtara_trio.http.server.instances.QUIET", 0.2)
    monkeypatch.setattr("runtara_trio.http.server.connection.STILL_THERE", 0.05)
    operator = Operator(memory)
    async with serving(memory) as (_, url), connected(url) as raw:
        await register(raw)
        sleep = {"duration_ms": 1000, "checkpoint_id": "nap", "state": "YQ=="}
        await raw.stream.send_all(request("POST", f"{BASE}/sleep", sleep))
        async with trio.open_nursery() as nursery:

            async def look() -> None:
                while True:
                    if (await operator.checkpoints("i")).checkpoints:
                        assert (await operator.show("i")).summary.held
                    await trio.sleep(0.02)

            nursery.start_soon(look)
            assert (await raw.answer()).json == {"success": True}
            nursery.cancel_scope.cancel()


async def test_a_write_is_carried_through_without_its_client(memory: SharedBackend) -> None:
    async with serving(memory) as (server, url):
        async with connected(url) as raw:
            await register(raw)
            await raw.stream.send_all(request("POST", f"{BASE}/checkpoint", SAVE))
        await until(lambda: server.connections == 0)
        found = (await Operator(memory).checkpoints("i")).checkpoints
        assert [one.checkpoint_id for one in found] == ["a"]


# ---- who may ask


async def test_pages_of_a_browser_may_not(memory: SharedBackend) -> None:
    async with serving(memory) as (_, url), connected(url) as raw:
        for headers in (
            {"Origin": "https://evil.example"},
            {"Origin": "null"},
            {"Sec-Fetch-Site": "cross-site"},  # a picture's, which has no Origin
            {"Referer": "http://192.168.1.5/"},
            {"User-Agent": "Mozilla/5.0 (X11; Linux x86_64)"},  # all that some pictures show
            {"Host": "evil.example"},
            {"Host": "evil.example:80"},
            {"Host": "localhost.evil.example"},
            {"Host": "127.0.0.1.evil.example"},
        ):
            refused = await raw.ask("GET", "/health", None, headers)
            assert refused.status == 403, headers
        for host in ("127.0.0.1:8003", "[::1]:8003", "LOCALHOST", "10.1.2.3"):
            assert (await raw.ask("GET", "/health", None, {"Host": host})).status == 200
        assert (await memory.request(GetStatus(instance_id="i"))).status is InstanceStatus.UNKNOWN


async def test_a_name_that_is_allowed(memory: SharedBackend) -> None:
    guard = Guard(role=Role.PROGRAM, hosts=("Runtara.internal",))
    async with serving(memory, guard=guard) as (_, url), connected(url) as raw:
        answer = await raw.ask("GET", "/health", None, {"Host": "runtara.INTERNAL:8003"})
        assert answer.status == 200


async def test_tokens(memory: SharedBackend) -> None:
    tokens = TokenFile("program shop 0123456789abcdef\noperator ann fedcba9876543210\n")
    guard = Guard(role=Role.PROGRAM, tokens=tokens)
    async with serving(memory, guard=guard) as (_, url), connected(url) as raw:
        for token, status in (
            (None, 401),
            ("Bearer 0123456789abcdeX", 401),
            ("Basic 0123456789abcdef", 401),
            ("Bearer fedcba9876543210", 403),
            ("bearer 0123456789abcdef", 200),
        ):
            headers = {} if token is None else {"Authorization": token}
            answer = await raw.ask("GET", f"{BASE}/status", None, headers)
            assert answer.status == status, token
            if status == 401:
                assert answer.headers["www-authenticate"] == "bearer"
        config = SdkConfig(store=url, token="0123456789abcdef")
        async with open_backend(config) as backend, block(backend) as sdk:
            await sdk.checkpoint("a")


# ---- requests that are none


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"POST %s HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"POST %s HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n", 400),
        (b"POST %s HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n", 400),
        (b"POST %s HTTP/1.1\r\nContent-Length: -3\r\n\r\n", 400),
        (b"POST %s HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 400),
        (b"GET %s HTTP/1.1\r\nHost: localhost\r\nHost: evil\r\n\r\n", 400),
        (b"GET %s HTTP/1.1\r\nHost : localhost\r\n\r\n", 400),
        (b"GET %s HTTP/1.1\nHost: localhost\n\n", 400),
        (b"GET %s HTTP/1.1\r\nA: b\r\n c\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n%s", 400),
        (b"\x16\x03\x01\x02\x00%s", 400),
        (b"GET %s HTTP/1.1\r\n" + b"a: b\r\n" * 101 + b"\r\n", 431),
        (b"GET %s HTTP/1.1\r\na: " + b"b" * 600_000, 431),
        (b"GET /%s" + b"x" * 70_000 + b" HTTP/1.1\r\n\r\n", 414),
        (
            b"POST %s HTTP/1.1\r\nContent-Type: application/json\r\n"
            b"Content-Length: 67108865\r\n\r\n",
            413,
        ),
    ],
    ids=lambda value: None if isinstance(value, int) else repr(value[:50]),
)
async def test_what_is_no_request_is_answered_and_closed(
    memory: SharedBackend, data: bytes, status: int
) -> None:
    async with serving(memory) as (server, url):
        async with connected(url) as raw:
            await raw.stream.send_all(data.replace(b"%s", f"{BASE}/checkpoint".encode()))
            answer = await raw.answer()
            assert answer.status == status, answer
            assert answer.headers["connection"] == "close"
            assert await raw.is_closed()
        await until(lambda: server.held == 0)


async def test_what_was_whole_before_is_answered(memory: SharedBackend) -> None:
    async with serving(memory) as (_, url), connected(url) as raw:
        await raw.stream.send_all(request("GET", "/health") + b"garbage\r\n\r\n")
        assert (await raw.answer()).status == 200
        assert (await raw.answer()).status == 400


async def test_a_refused_request_with_a_large_body_can_read_why(memory: SharedBackend) -> None:
    async with serving(memory) as (_, url), connected(url) as raw:
        body = request("POST", "/nothing", bytes(10_000_000))
        async with trio.open_nursery() as nursery:

            async def send() -> None:
                with pytest.raises(trio.BrokenResourceError):
                    await raw.stream.send_all(body)
                    await raw.stream.send_all(body)

            nursery.start_soon(send)
            assert (await raw.answer()).status == 404
            nursery.cancel_scope.cancel()


async def test_who_asks_whether_to_send_is_told_at_once_why_not(memory: SharedBackend) -> None:
    async with serving(memory) as (_, url), connected(url) as raw:
        expects = {"Expect": "100-continue", "Content-Length": "10", "Host": "evil.example"}
        await raw.stream.send_all(request("POST", f"{BASE}/register", b"", expects))
        assert (await raw.answer()).status == 403
        assert await raw.is_closed()


async def test_trailers_without_an_end(memory: SharedBackend) -> None:
    async with serving(memory) as (server, url), connected(url) as raw:
        chunked = {"Transfer-Encoding": "chunked", "Host": "evil.example"}
        await raw.stream.send_all(request("POST", f"{BASE}/register", b"0\r\nx: ", chunked))
        with trio.move_on_after(20):
            async with trio.open_nursery() as nursery:

                async def flood() -> None:
                    with pytest.raises(trio.BrokenResourceError):
                        while True:
                            await raw.stream.send_all(b"a" * 65536)

                nursery.start_soon(flood)
                assert (await raw.answer()).status == 431
                nursery.cancel_scope.cancel()
        await until(lambda: server.held == 0)


async def test_trailers_are_no_headers(memory: SharedBackend) -> None:
    async with serving(memory) as (_, url), connected(url) as raw:
        await register(raw, **{"runtara-client": "x"})
        chunked = {"Transfer-Encoding": "chunked"}
        body = msgspec.json.encode(SAVE)
        data = b"%x\r\n%s\r\n0\r\nruntara-client: x\r\n\r\n" % (len(body), body)
        refused = await raw.ask("POST", f"{BASE}/checkpoint", data, chunked)
        assert refused.status == 409


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/register", b'{"tenant_id":' + b"[" * 5000),
        ("/completed", b'{"x":' * 5000),
        ("/sleep", b'{"duration_ms":1' + b"0" * 400 + b',"checkpoint_id":"z","state":""}'),
        ("/signals/%00", None),
    ],
)
async def test_odd_input_is_the_askers_mistake(
    memory: SharedBackend, path: str, body: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(memory) as (_, url), connected(url) as raw:
        await register(raw)
        method = "GET" if body is None else "POST"
        assert (await raw.ask(method, f"{BASE}{path}", body)).status in (400, 422)
    assert "call_failed" not in {record.__dict__.get("event") for record in caplog.records}


async def test_a_url_that_is_none(memory: SharedBackend) -> None:
    async with serving(memory) as (_, url), connected(url) as raw:
        assert (await raw.ask("GET", "http://[foo/status")).status == 400
        assert (await raw.ask("GET", "http://localhost/health")).status == 200


@pytest.mark.parametrize("wake_at_ms", [-1, 0, 2**63, 2**64, 2**70])
async def test_a_time_to_wake_that_is_out_of_range(memory: SharedBackend, wake_at_ms: int) -> None:
    async with serving(memory) as (_, url), connected(url) as raw:
        await register(raw)
        payload = msgspec.json.encode({"wake_at_ms": 1, "state": ""})
        payload = payload.replace(b":1,", b":%d," % wake_at_ms)
        event = {"event_type": "suspended", "checkpoint_id": "c", "payload": b64(payload)}
        assert (await raw.ask("POST", f"{BASE}/events", event)).status == 200
        info = await memory.request(GetStatus(instance_id="i"))
        assert info.status is InstanceStatus.SUSPENDED


async def test_failures_and_attempts_that_a_database_would_not_take(
    backend: SharedBackend,
) -> None:
    async with serving(backend) as (_, url), connected(url) as raw:
        async with block(backend, "first"):  # makes the tables
            pass
        await register(raw)
        retry = {"checkpoint_id": "a", "attempt": 2**32 - 1, "error_message": "x"}
        assert (await raw.ask("POST", f"{BASE}/retry", retry)).status == 200
        failed = {"event_type": "failed", "payload": b64(b"a\0b\xff")}
        assert (await raw.ask("POST", f"{BASE}/events", failed)).status == 200
        status = (await raw.ask("GET", f"{BASE}/status")).json
        assert (status["status"], status["error"]) == ("failed", "a\\x00b\ufffd")


async def test_an_upgrade_is_ignored(memory: SharedBackend) -> None:
    async with serving(memory) as (_, url), connected(url) as raw:
        headers = {"Connection": "upgrade, http2-settings", "Upgrade": "h2c"}
        assert (await raw.ask("GET", "/health", None, headers)).status == 200


# ---- clients that mean no good


async def test_half_requests_and_idle_connections_are_ended(memory: SharedBackend) -> None:
    half = request("POST", f"{BASE}/checkpoint", SAVE)
    async with serving(memory, idle_timeout=0.2, call_timeout=0.3) as (server, url):
        async with connected(url) as silent, connected(url) as slow, connected(url) as slower:
            await slow.stream.send_all(half[:10])
            await slower.stream.send_all(half[:-3])
            assert await silent.is_closed()
            for one in (slow, slower):
                assert (await one.answer()).status == 408
                assert await one.is_closed()
        await until(lambda: server.connections == 0)
        assert server.held == 0


async def test_a_reader_that_does_not_read_is_ended(memory: SharedBackend) -> None:
    async with block(memory) as sdk:
        await sdk.checkpoint("large", bytes(20_000_000))
        async with serving(memory, call_timeout=0.5) as (server, url), connected(url) as raw:
            await raw.stream.send_all(request("GET", f"{BASE}/status") * 3)
            await register(raw, "j")
        await until(lambda: server.connections == 0)
    async with serving(memory, call_timeout=0.5) as (server, url), connected(url) as raw:
        await register(raw)
        probe = {"checkpoint_id": "large", "state": ""}
        await raw.stream.send_all(request("POST", f"{BASE}/checkpoint", probe))
        await until(lambda: server.held > 20_000_000)
        await until(lambda: server.connections == 0)
        assert server.held == 0


async def test_no_more_memory_than_allowed(memory: SharedBackend) -> None:
    async with serving(memory, memory=4_000_000) as (server, url):
        async with connected(url) as raw, connected(url) as other:
            await register(other)
            large = {"checkpoint_id": "a", "state": "YWJj" * 400_000}
            await raw.stream.send_all(request("POST", f"{BASE}/checkpoint", large))
            assert (await raw.answer()).status == 503
            assert (await other.ask("POST", f"{BASE}/checkpoint", SAVE)).status == 200
        await until(lambda: server.held == 0)


async def test_heads_are_counted(memory: SharedBackend) -> None:
    async with serving(memory, memory=400_000) as (server, url):
        async with connected(url) as one, connected(url) as two, connected(url) as three:
            for raw in (one, two):
                await raw.stream.send_all(b"GET / HTTP/1.1\r\na: " + b"b" * 90_000)
            await until(lambda: server.held > 180_000)
            await three.stream.send_all(b"GET / HTTP/1.1\r\na: " + b"b" * 90_000)
            assert (await three.answer()).status == 503
        await until(lambda: server.held == 0)


async def test_answers_that_nobody_reads_leave_room_for_the_requests_of_others(
    memory: SharedBackend,
) -> None:
    async with block(memory) as sdk:
        await sdk.checkpoint("large", bytes(3_000_000))
        await sdk.suspended()
    probe = request("POST", f"{BASE}/checkpoint", {"checkpoint_id": "large", "state": ""})
    async with serving(memory, memory=20_000_000, call_timeout=30) as (server, url):
        async with connected(url) as one, connected(url) as two, connected(url) as three:
            await register(one)
            for raw in (one, two):
                await raw.stream.send_all(probe)
            await until(lambda: server.held > 7_900_000)
            await three.stream.send_all(probe)
            assert (await three.answer()).status == 503
            async with connected(url) as other:
                await register(other, "j")
                path = "/api/v1/instances/j/checkpoint"
                assert (await other.ask("POST", path, SAVE)).json == {"found": False}
        await until(lambda: server.held == 0)


async def test_no_more_connections_than_allowed(memory: SharedBackend) -> None:
    async with serving(memory, connections=2) as (server, url):
        async with connected(url) as third:
            async with connected(url) as one, connected(url) as two:
                for raw in (third, one):
                    assert (await raw.ask("GET", "/health")).status == 200
                await two.stream.send_all(request("GET", "/health"))
                assert server.connections == 2
            assert (await third.ask("GET", "/health")).status == 200
        await until(lambda: server.connections == 0)


async def test_connections_that_came_and_went_leave_nothing(memory: SharedBackend) -> None:
    async with (
        open_leases(memory) as leases,
        open_http_server(
            await listen("127.0.0.1", 0, "--http-port"),
            InstanceAnswers(memory, leases, Guard(role=Role.PROGRAM)),
        ) as server,
    ):
        for number in range(50):
            async with connected(f"http://127.0.0.1:{server.address[1]}") as raw:
                await register(raw, f"i{number}", **{"runtara-client": str(number)})
                path = f"/api/v1/instances/i{number}/completed"
                await raw.ask("POST", path, {}, {"runtara-client": str(number)})
        await until(lambda: server.connections == 0)
        assert server.held == 0
        assert len(leases) == 0
        assert not leases._by_client


async def test_a_mistake_of_ours_is_answered_and_ends_nothing(
    memory: SharedBackend, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(*_: object) -> None:
        raise AssertionError("a mistake")

    monkeypatch.setattr(InstanceAnswers, "answer", fail)
    async with serving(memory) as (_, url), connected(url) as raw:
        assert (await raw.ask("GET", "/health")).status == 500
        assert (await raw.ask("GET", "/health")).status == 500
    assert "call_failed" in {record.__dict__.get("event") for record in caplog.records}


# ---- the end


async def test_a_drain_answers_what_was_asked_and_closes(memory: SharedBackend) -> None:
    async with trio.open_nursery() as nursery:
        async with serving(memory) as (_, url):
            idle = await nursery.start(_opened, url)
            half = await nursery.start(_opened, url)
            sleeping = await nursery.start(_opened, url)
            await register(sleeping)
            sleep = {"duration_ms": 3_600_000, "checkpoint_id": "nap", "state": "YQ=="}
            await sleeping.stream.send_all(request("POST", f"{BASE}/sleep", sleep))
            with trio.fail_after(20):
                while not (await Operator(memory).checkpoints("i")).checkpoints:
                    await trio.sleep(0.005)
            save = request("POST", f"{BASE}/checkpoint", SAVE)
            await half.stream.send_all(save[:-3])

            async def when_it_drains() -> None:
                assert await idle.is_closed()
                assert await sleeping.is_closed()
                await half.stream.send_all(save[-3:])

            nursery.start_soon(when_it_drains)
        answer = await half.answer()
        assert answer.json == {"found": False}
        assert answer.headers["connection"] == "close"
        assert await half.is_closed()
        nursery.cancel_scope.cancel()


async def _opened(url: str, task_status: trio.TaskStatus[Raw]) -> None:
    async with connected(url) as raw:
        task_status.started(raw)
        await trio.sleep_forever()


# ---- the command


async def test_serve_from_the_command_line(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path}/served.db"
    options = ("--store", store, "--no-quic", "--http-port", "0")
    async with start_args("-m", "runtara_trio", "serve", *options) as server:
        url = (await server.line("serving")).rpartition(" ")[2]
        assert url.startswith("http://127.0.0.1:")
        async with block(url) as sdk:
            await sdk.checkpoint("a", b"kept")
            await sdk.suspended()
        server.send(signal.SIGTERM)
        assert await server.wait() == 0
        assert "SIGTERM: draining" in server.lines[-1]
    async with block(store) as sdk:
        assert await sdk.get_checkpoint("a") == b"kept"


async def test_serve_beside_quic(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path}/served.db"
    options = ("--store", store, "--port", "0", "--http-port", "0")
    async with start_args("-m", "runtara_trio", "serve", *options) as server:
        quic = (await server.line("serving")).rpartition(" ")[2]
        http = (await server.line("serving")).rpartition(" ")[2]
        with pytest.raises(LeaseLost):
            async with block(quic) as sdk:
                await sdk.checkpoint("a", b"over quic")
                async with block(http) as taken:  # one server, one table of leases
                    assert await taken.get_checkpoint("a") == b"over quic"
                    await sdk.checkpoint("b")


async def test_all_ports_are_drained_at_once() -> None:
    options = ("--store", ":memory:", "--no-quic", "--http-port", "0", "--operators-port", "0")
    timeout = ("--drain-timeout", "600")
    async with start_args("-m", "runtara_trio", "serve", *options, *timeout) as server:
        url = (await server.line("serving")).rpartition(" ")[2]
        operators = (await server.line("operators of")).rpartition(" ")[2]
        async with connected(url) as idle, connected(operators) as half:
            await half.stream.send_all(b"GET /api/v1/health HTTP/1.1\r\n")
            server.send(signal.SIGTERM)
            assert await idle.is_closed()  # though the other port is not through
            with pytest.raises(OSError, match="attempts to connect"):
                async with connected(url):
                    pass
            await half.stream.send_all(b"Host: localhost\r\n\r\n")
            assert (await half.answer()).status == 200
            assert await server.wait() == 0


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
async def test_a_program_goes_on_over_a_restarted_server(
    end: signal.Signals, tmp_path: Path
) -> None:
    port = free_tcp_port()
    options = ("--no-quic", "--http-port", str(port))
    await goes_on_over_a_restart(f"http://127.0.0.1:{port}", options, end, tmp_path)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--no-quic",), "--no-quic needs --http-port"),
        (("--http-port", "0", "--host", "0.0.0.0"), "give --token-file, or --allow-anonymous"),
        (("--http-port", "0", "--token-file", "nowhere"), "cannot read the token file nowhere"),
    ],
)
async def test_options_that_do_not_go_together(options: tuple[str, ...], said: str) -> None:
    async with start_args("-m", "runtara_trio", "serve", "--store", ":memory:", *options) as server:
        assert await server.wait() == 2
        assert said in " ".join(" ".join(server.lines).split())


async def test_a_taken_port_is_refused() -> None:
    (listener,) = await listen("127.0.0.1", 0, "--http-port")
    async with listener:
        port = str(listener.socket.getsockname()[1])
        options = ("--store", ":memory:", "--no-quic", "--http-port", port)
        async with start_args("-m", "runtara_trio", "serve", *options) as server:
            assert await server.wait() == 2
            assert f"TCP port {port} of 127.0.0.1 is taken" in " ".join(server.lines)
