"""The client over HTTP against a server that does as it is told, on a real socket."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import h11
import msgspec
import pytest
import trio

from runtara_trio import (
    ConfigError,
    NotSupported,
    SdkConfig,
    ServerError,
    SharedBackend,
    Unreachable,
    open_backend,
    open_client,
)
from runtara_trio.errors import RegistrationError, RequestTimeout
from runtara_trio.ids import signal_id
from runtara_trio.messages import Checkpoint, GetCheckpoint, GetStatus, RecordEvent, RecordOutcome
from runtara_trio.types import EventType, InstanceStatus, Outcome

from ..helpers.support import block, start_args


class Asked(NamedTuple):
    """A request that the server has got."""

    method: str
    path: str
    body: Any

    @property
    def what(self) -> str:
        return self.path.removeprefix("/api/v1/instances/i")


Answer = Callable[[Asked], Awaitable[bytes | None]]
"""The bytes of an answer; None: the connection is closed instead."""


def json(value: object, status: int = 200, *, more: str = "") -> bytes:
    body = msgspec.json.encode(value)
    return f"HTTP/1.1 {status} X\r\n{more}content-length: {len(body)}\r\n\r\n".encode() + body


class Server:
    """Answers as a core that has one instance ``i``, but where a test says otherwise."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.connections = 0
        self.states: dict[str, bytes] = {}
        self.status = "unknown"
        self.before: Answer | None = None
        """Asked first; ``b""``: it has nothing to say."""

    async def serve(self, stream: trio.SocketStream) -> None:
        self.connections += 1
        reader = h11.Connection(h11.SERVER)
        async with stream:
            while (asked := await self._next(reader, stream)) is not None:
                self.asked.append(asked)
                answer = b"" if self.before is None else await self.before(asked)
                if answer is None:
                    return
                await stream.send_all(answer or self._answer(asked))
                reader = h11.Connection(h11.SERVER)

    async def _next(self, reader: h11.Connection, stream: trio.SocketStream) -> Asked | None:
        method = path = ""
        body = b""
        while True:
            event = reader.next_event()
            if event is h11.NEED_DATA:
                try:
                    data = await stream.receive_some()
                except trio.BrokenResourceError:
                    return None
                if not data:
                    return None
                reader.receive_data(data)
            elif isinstance(event, h11.Request):
                method, path = event.method.decode(), event.target.decode()
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                return Asked(method, path, msgspec.json.decode(body) if body else None)

    def _answer(self, asked: Asked) -> bytes:
        match asked.method, asked.what:
            case "GET", "/status":
                return json({"found": self.status != "unknown", "status": self.status})
            case "GET", _:
                return json({})
            case "POST", "/register":
                self.status = "running"
            case "POST", "/checkpoint":
                name, state = asked.body["checkpoint_id"], asked.body["state"]
                if name in self.states:
                    return json({"found": True, "state": self.states[name]})
                if state:
                    self.states[name] = state
                return json({"found": False})
            case "POST", "/sleep":
                self.states[asked.body["checkpoint_id"]] = asked.body["state"]
            case "POST", "/events" if asked.body["event_type"] != "custom":
                self.status = asked.body["event_type"]
        return json({"success": True})

    def of(self, what: str) -> list[Asked]:
        return [one for one in self.asked if one.what == what]

    def saves_of(self, name: str) -> list[Asked]:
        return [one for one in self.of("/checkpoint") if one.body["checkpoint_id"] == name]


@asynccontextmanager
async def running(
    server: Server, **config: Any
) -> AsyncIterator[tuple[SharedBackend, list[trio.SocketListener]]]:
    """A client of a server."""
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    settings = SdkConfig(
        store=f"http://127.0.0.1:{port}", **{"signal_poll_interval_ms": 60_000, **config}
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, server.serve, listeners)
        async with open_backend(settings) as backend:
            yield backend, listeners
        nursery.cancel_scope.cancel()


def once(what: str, *answers: bytes | None, then: Callable[[], object] = lambda: None) -> Answer:
    """The first answers to requests of this kind."""
    left = list(answers)

    async def before(asked: Asked) -> bytes | None:
        if asked.what == what and left:
            if len(left) == 1:
                then()
            return left.pop(0)
        return b""

    return before


def save(name: str = "a", state: bytes = b"mine") -> Checkpoint:
    return Checkpoint(instance_id="i", lease=0, checkpoint_id=name, state=state)


STATUS = GetStatus(instance_id="i")
LOCKED = json({"code": "CHECKPOINT_ERROR", "error": "(code: 517) database is locked"}, 500)
EVENT = RecordEvent(instance_id="i", lease=0, type=EventType.CUSTOM, subtype="x", payload=b"y")


async def test_a_block_on_few_connections() -> None:
    server = Server()
    async with running(server) as (backend, _):
        async with block(backend) as sdk:
            for number in range(50):
                await sdk.checkpoint(f"{number}", number)
            await sdk.checkpoint("nothing")
            assert await sdk.get_checkpoint("nothing") == b""
            assert await sdk.get_checkpoint("7", int) == 7
        assert server.status == "completed"
        assert server.connections <= 3


async def test_a_connection_that_was_closed_meanwhile() -> None:
    server = Server()
    async with running(server) as (backend, _):
        for _ in range(3):
            server.before = once(
                "/status", json({"found": True, "status": "running"}, more="connection: close\r\n")
            )
            assert (await backend.request(STATUS)).status is InstanceStatus.RUNNING
        assert server.connections == 3


async def test_a_lost_answer_is_asked_for_again_where_that_is_safe() -> None:
    server = Server()
    async with running(server) as (backend, _):
        server.before = once("/checkpoint", None, then=lambda: server.states.update(a="bWluZQ=="))
        reply = await backend.request(save())
        assert not reply.found  # what stands there are its own bytes
        assert len(server.saves_of("a")) == 2
        server.before = once("/events", None)
        with pytest.raises(Unreachable, match="may have been carried out"):
            await backend.request(EVENT)
        assert len(server.of("/events")) == 1


async def test_a_checkpoint_refused_by_a_lock_was_stored() -> None:
    server = Server()
    async with running(server) as (backend, _):
        server.before = once(
            "/checkpoint", LOCKED, LOCKED, then=lambda: server.states.update(a="bWluZQ==")
        )
        assert not (await backend.request(save())).found
        server.before = once("/checkpoint", LOCKED)
        assert (await backend.request(save(state=b"other"))).state == b"mine"
        assert len(server.saves_of("a")) == 5


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\ncontent-length: 999999999999\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: " + b"x" * 70_000,
        json({"found": True, "status": 3}),
        json([1]),
        b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n{{}",
    ],
)
async def test_an_answer_that_is_none(answer: bytes) -> None:
    """It is an error, and what comes behind it is not taken for the next one's."""
    server = Server()
    async with running(server) as (backend, _):
        server.before = once("/status", answer)
        with pytest.raises(ServerError) as caught:
            await backend.request(STATUS)
        assert caught.value.code == "BAD_REPLY"
        assert (await backend.request(STATUS)).status is InstanceStatus.UNKNOWN


async def test_an_interim_answer_and_a_split_one() -> None:
    server = Server()
    async with running(server) as (backend, _):
        server.before = once(
            "/status", b"HTTP/1.1 100 Continue\r\n\r\n" + json({"found": True, "status": "failed"})
        )
        assert (await backend.request(STATUS)).status is InstanceStatus.FAILED


async def test_silence_ends_with_the_time_of_a_request() -> None:
    server = Server()

    async def never(asked: Asked) -> bytes | None:
        await trio.sleep_forever()
        return None

    async with running(server, request_timeout_ms=200) as (backend, _):
        server.before = never
        with pytest.raises(RequestTimeout, match="got no answer in time; it may have been carried"):
            await backend.request(STATUS)


async def test_nobody_listens() -> None:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    await listeners[0].aclose()
    async with open_backend(f"http://127.0.0.1:{port}") as backend:
        with pytest.raises(Unreachable, match=f"http://127.0.0.1:{port} cannot be reached"):
            await backend.request(STATUS)


async def test_the_answer_of_a_cancelled_call_is_read_to_its_end() -> None:
    """A signal that comes with it is gone from the server: it is kept."""
    server, arrived, go = Server(), trio.Event(), trio.Event()

    async def slow(asked: Asked) -> bytes | None:
        if asked.what == "/checkpoint" and asked.body["checkpoint_id"] == "a":
            arrived.set()
            await go.wait()
            signal = {"checkpoint_id": "a", "payload": "Z28="}
            return json({"found": False, "custom_signal": signal})
        return b""

    async with running(server) as (backend, _):
        server.before = slow
        async with trio.open_nursery() as nursery:
            nursery.start_soon(backend.request, save())
            await arrived.wait()
            nursery.cancel_scope.cancel()
            go.set()
        server.before = None
        with trio.fail_after(10):
            while signal_id("a") not in server.states:
                await trio.sleep(0.001)
        assert server.states[signal_id("a")] == "AWdv"  # byte 1, and the payload


async def test_a_signal_that_a_question_takes_is_kept() -> None:
    server = Server()
    signal = {"checkpoint_id": "a", "payload": "Z28="}
    async with running(server) as (backend, _):
        server.before = once("/checkpoint", json({"found": False, "custom_signal": signal}))
        found = await backend.request(GetCheckpoint(instance_id="i", checkpoint_id="a"))
        assert not found.found
        assert server.states[signal_id("a")] == "AWdv"


async def test_an_end_is_believed_once_the_status_tells_it() -> None:
    """A server answers 200 to an end of what does not run, and forgets it."""
    server = Server()
    end = RecordOutcome(
        instance_id="i",
        lease=0,
        status=InstanceStatus.COMPLETED,
        payload=b"1",
        signal=None,
        unless_cancelled=False,
        next=None,
        children=False,
    )
    async with running(server) as (backend, _):
        server.status = "suspended"
        server.before = once("/events", json({"success": True}))
        await backend.request(end)
        assert server.status == "completed"
        assert [one.what for one in server.asked] == [
            *("/events", "/status", "/register", "/events", "/status")
        ]
        server.status = "cancelled"
        server.before = once("/events", *[json({"success": True})] * 9)
        with pytest.raises(ServerError, match="'i' is cancelled, not completed"):
            await backend.request(end)


async def test_an_end_whose_status_was_lost() -> None:
    """A question may always be asked again, and the end is sent once."""
    server = Server()
    async with running(server) as (backend, _):
        async with block(backend):
            server.before = once("/status", None)
        assert server.status == "completed"
        assert len(server.of("/events")) == 1


async def test_a_cancel_comes_while_a_signal_is_waited_for() -> None:
    """Who asks for the one is not told of the other."""
    server = Server()

    async def cancelled(asked: Asked) -> bytes | None:
        asks_for_one = len(server.of("/signals/go")) > 3
        if asked.what == "/signals" and asks_for_one:
            return json({"signal": {"signal_type": "cancel"}})
        if asked.what == "/signals/ack":
            server.status = "cancelled"
        return b""

    async with running(server, signal_poll_interval_ms=5) as (backend, _):
        server.before = cancelled
        with trio.fail_after(10):
            async with block(backend) as sdk:
                await sdk.wait_for_signal("go")
        assert sdk.outcome is Outcome.CANCELLED


async def test_what_is_refused() -> None:
    server = Server()
    async with running(server) as (backend, _):
        server.before = once(
            "/register", json({"success": False, "error": "no such checkpoint"}, 400)
        )
        with pytest.raises(RegistrationError, match="no such checkpoint"):
            async with block(backend):
                raise AssertionError("it does not run")
        server.before = once("/checkpoint", b"HTTP/1.1 413 X\r\ncontent-length: 3\r\n\r\nbig")
        with pytest.raises(ServerError, match="states of up to 48 MiB"):
            await backend.request(save())
        server.before = once("/checkpoint", b"HTTP/1.1 422 X\r\ncontent-length: 8\r\n\r\nbad json")
        with pytest.raises(ServerError, match="bad json"):
            await backend.request(save())
        with pytest.raises(NotSupported, match="choose another id"):
            await backend.request(save("", b""))


async def test_many_calls_take_turns() -> None:
    server = Server()
    async with running(server) as (backend, _):
        async with trio.open_nursery() as nursery:
            for number in range(300):
                nursery.start_soon(backend.request, save(f"{number}"))
        assert len(server.states) == 300
        assert server.connections <= 64


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://", "names no server"),
        ("http://host:0", "names no server"),
        ("http://host:x", "names no server"),
        ("http://u:p@host:1", "names no server"),
        ("http://host:1/path", "names no server"),
        ("http://host:1?verify=no", "has no parameters"),
    ],
)
async def test_invalid_urls(url: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        async with open_backend(url):
            raise AssertionError("it does not open")


async def test_clients_and_workers_need_the_store() -> None:
    with pytest.raises(NotSupported, match="needs the store itself"):
        async with open_client("http://127.0.0.1:1", tenant_id="t"):
            raise AssertionError("it does not open")


def test_the_environment() -> None:
    both = {"RUNTARA_HTTP_URL": "http://a:1/", "RUNTARA_SERVER_ADDR": "b:2"}
    ids = {"RUNTARA_INSTANCE_ID": "i", "RUNTARA_TENANT_ID": "t"}
    assert SdkConfig.from_env({**ids, **both}).url == "http://a:1/"
    del both["RUNTARA_HTTP_URL"]
    assert SdkConfig.from_env({**ids, **both}).url == "quic://b:2"


async def test_ctrl_c_in_the_middle_of_a_call_ends_the_program(tmp_path: Path) -> None:
    """The answer is read by somebody else."""
    server = Server()
    asked = trio.Event()

    async def slow(what: Asked) -> bytes | None:
        if what.what == "/status" and server.status == "running":
            asked.set()
            await trio.sleep(1)
        return b""

    server.before = slow
    program = tmp_path / "program.py"
    program.write_text(
        "import sys, trio\n"
        "from runtara_trio import open_runtara\n"
        "async def main():\n"
        "    async with open_runtara(sys.argv[1], instance_id='i', tenant_id='t') as sdk:\n"
        "        print('begun', flush=True)\n"
        "        await sdk.get_instance_status('i')\n"
        "        print('still on', flush=True)\n"
        "trio.run(main)\n"
    )
    async with running(server) as (_, listeners):
        port = listeners[0].socket.getsockname()[1]
        async with start_args(str(program), f"http://127.0.0.1:{port}") as process:
            await process.line("begun")
            await asked.wait()
            process.send(signal.SIGINT)
            assert await process.wait() != 0
            assert "still on" not in process.lines
            assert "KeyboardInterrupt" in process.lines[-1]
