"""QUIC ends for tests: a server that answers as it is told, and a client without an engine."""

from __future__ import annotations

import inspect
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import trio
from aioquic.quic.configuration import QuicConfiguration

from runtara_trio import SdkConfig
from runtara_trio.clock import default_clock
from runtara_trio.quic.client.backend import open_quic
from runtara_trio.quic.client.connection import CallingConnection
from runtara_trio.quic.location import server_of_url
from runtara_trio.quic.server.connection import Limits, ServedConnection
from runtara_trio.quic.server.listener import Listener
from runtara_trio.quic.transport.driver import Connection, Driver
from runtara_trio.quic.transport.shim import Quic
from runtara_trio.quic.transport.tls import make_identity
from runtara_trio.remote.backend import RemoteBackend
from runtara_trio.remote.location import ServerLocation as Place
from runtara_trio.wire import calls, frames, mapping

from .network import Network

IDENTITY = make_identity("localhost", "127.0.0.1")
PORT = 8001
PLACE: Place = server_of_url(f"quic://127.0.0.1:{PORT}")
ADDRESS = ("127.0.0.1", PORT)

Script = Callable[[Any], Any]
"""From a call to its answer, or to an awaitable of it; None: ended without one."""


class Scripted:
    """A server of the protocol that answers by a script."""

    def __init__(self, script: Script, nursery: trio.Nursery) -> None:
        self.script = script
        self.calls: list[calls.Call | None] = []
        self.streams: list[int] = []
        self.clients: list[ServedConnection] = []
        self.raw_reply: bytes | None = None
        """Sent instead of answers."""
        self.listener: Listener
        self._nursery = nursery

    def handle(self, client: ServedConnection, stream_id: int, payload: bytes) -> None:
        if client not in self.clients:
            self.clients.append(client)
        self.streams.append(stream_id)
        if self.raw_reply is not None:
            send_raw(client, stream_id, self.raw_reply)
            return
        self.calls.append(mapping.decode_call(payload))
        self._nursery.start_soon(self._answer, client, stream_id, self.calls[-1])

    async def _answer(self, client: ServedConnection, stream_id: int, call: Any) -> None:
        answer = self.script(call)
        if inspect.isawaitable(answer):
            answer = await answer
        client.reply(stream_id, None if answer is None else mapping.encode_answer(answer))

    def of(self, kind: type[calls.Call]) -> list[Any]:
        return [call for call in self.calls if isinstance(call, kind)]


@asynccontextmanager
async def scripted(
    network: Network, script: Script, *, port: int = PORT, limits: Limits | None = None
) -> AsyncIterator[Scripted]:
    """A scripted server until the end of the block, which it leaves as a killed one does."""
    link = network.listen(port)
    try:
        async with trio.open_nursery() as nursery:
            server = Scripted(script, nursery)
            server.listener = Listener(
                link, IDENTITY.configuration(), limits or Limits(), server.handle, lambda _: None
            )
            nursery.start_soon(server.listener.driver.run)
            yield server
            nursery.cancel_scope.cancel()
    finally:
        link.close()


@asynccontextmanager
async def raw_client(network: Network, port: int = PORT) -> AsyncIterator[CallingConnection]:
    """One connection, without what reconnects it or keeps it alive."""
    address = ("127.0.0.1", port)
    link = network.connect(0, address)
    configuration = QuicConfiguration(
        is_client=True, server_name="localhost", verify_mode=ssl.CERT_NONE, idle_timeout=30
    )
    quic = Quic(configuration=configuration)
    connection: CallingConnection
    driver = Driver(link, lambda datagram, source: connection)
    connection = CallingConnection(quic, driver, lambda _: None)
    async with trio.open_nursery() as nursery:
        quic.connect(address, now=trio.current_time())
        nursery.start_soon(driver.run)
        connection.touch()
        await connection.ready.wait()
        yield connection
        connection.close()
        nursery.cancel_scope.cancel()
    link.close()


@asynccontextmanager
async def client_of(network: Network, **settings: Any) -> AsyncIterator[RemoteBackend]:
    """A bare client backend of the server on the network's port."""
    async with open_quic(
        PLACE, config=SdkConfig(**settings), clock=default_clock(), open_link=network.connect
    ) as client:
        yield client


async def ask(connection: CallingConnection, call: calls.Call, seconds: float = 1e6) -> Any:
    """One call on a raw connection."""
    frame = frames.encode(frames.REQUEST, mapping.encode_call(call))
    payload = await connection.call(frame, trio.current_time() + seconds)
    return None if payload is None else mapping.decode_answer(payload)


def echo(call: Any) -> calls.Answer:
    """Answers a read with its own checkpoint id."""
    return calls.GetCheckpointAnswer(True, call.checkpoint_id.encode())


def after(seconds: float, script: Script = echo) -> Callable[[Any], Awaitable[Any]]:
    """A script that takes its time."""

    async def answer(call: Any) -> Any:
        await trio.sleep(seconds)
        return script(call)

    return answer


async def never(call: Any) -> None:
    await trio.sleep_forever()


# ---- private names of the package, each in one place


def send_raw(client: ServedConnection, stream_id: int, data: bytes) -> None:
    """End a stream with these bytes, whatever they are."""
    client._send(stream_id, data)


def begin_call(connection: CallingConnection, data: bytes) -> None:
    """Write to the next stream, and leave its end out."""
    stream_id = connection.quic.get_next_available_stream_id()
    connection.quic.send_stream_data(stream_id, data, end_stream=False)
    connection._opened = stream_id // 4 + 1
    connection.touch()


def calls_of(connection: CallingConnection) -> Any:
    """The calls of a client that are on their way, by stream."""
    return connection._calls


def ignored_by(client: ServedConnection) -> Any:
    """The streams of which a server reads no more."""
    return client._ignored


def streams_of(end: Connection) -> Any:
    """The streams that aioquic keeps for one end of a connection."""
    return end.quic._streams


class Kept(NamedTuple):
    """What a listener keeps of its clients."""

    clients: Any
    connection_ids: Any
    unfinished: Any
    timed: list[Connection | None]
    """The connections that its timers are for."""


def kept_by(listener: Listener) -> Kept:
    """What a listener keeps of its clients just now."""
    timed = [alarm.connection for _, _, alarm in listener.driver._timers]
    return Kept(listener._clients, listener._by_cid, listener._unfinished, timed)
