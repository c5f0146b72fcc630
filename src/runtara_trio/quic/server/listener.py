"""Datagrams to connections: a server's socket, and who is behind which connection id.

Clients that only begin cost memory, so unfinished handshakes are limited; from a tenth of
the limit on, a client must first return a token sent to its address (RFC 9000, section
8.1.2). What is no QUIC, or nobody's, is dropped without an answer.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import trio
from aioquic.buffer import Buffer  # type: ignore[attr-defined]
from aioquic.quic import events
from aioquic.quic.configuration import SMALLEST_MAX_DATAGRAM_SIZE, QuicConfiguration
from aioquic.quic.packet import (
    QuicHeader,
    QuicPacketType,
    encode_quic_retry,
    encode_quic_version_negotiation,
    pull_quic_header,
)
from aioquic.quic.retry import QuicRetryTokenHandler

from ... import logs
from ...serving.limits import Memory
from ..transport import shim
from ..transport.driver import Connection, Driver
from ..transport.link import Address, Link
from ..transport.shim import Quic
from .connection import Limits, ServedConnection

Handle = Callable[[ServedConnection, int, bytes], None]
Ended = Callable[[ServedConnection], None]


class _Client(ServedConnection):
    """A served connection, and the ids that its datagrams are addressed to."""

    listener: Listener
    cids: set[bytes]

    def other_event(self, event: events.QuicEvent) -> None:
        match event:
            case events.ConnectionIdIssued():
                self.listener.add(self, event.connection_id)
            case events.ConnectionIdRetired():
                self.listener.remove(self, event.connection_id)
            case events.ConnectionTerminated():
                self.listener.forget(self)

    def broken(self) -> None:
        self.end()
        self.listener.forget(self)

    def end(self) -> None:
        if not self.gone:
            super().end()
            self.listener.has_ended(self)


class Listener:
    """All connections of a server's link."""

    def __init__(
        self,
        link: Link,
        configuration: QuicConfiguration,
        limits: Limits,
        handle: Handle,
        ended: Ended,
    ) -> None:
        self.driver = Driver(link, self._guarded_route)
        self._configuration = configuration
        self._limits = limits
        self._memory = Memory(limits.memory)
        self._handle = handle
        self._ended = ended
        self._by_cid: dict[bytes, _Client] = {}
        self._clients: set[_Client] = set()
        self._unfinished: set[_Client] = set()
        """Those whose handshake is not through, and some whose is."""
        self._retry = QuicRetryTokenHandler()
        self.open = True
        """Whether new connections are taken."""

    @property
    def clients(self) -> list[ServedConnection]:
        """Those that are there."""
        return [client for client in self._clients if not client.gone]

    @property
    def held(self) -> int:
        """Bytes of requests and replies that are held for clients."""
        return self._memory.used

    def add(self, client: _Client, cid: bytes) -> None:
        self._by_cid[cid] = client
        client.cids.add(cid)

    def remove(self, client: _Client, cid: bytes) -> None:
        self._by_cid.pop(cid, None)
        client.cids.discard(cid)

    def has_ended(self, client: _Client) -> None:
        """It is gone; what still comes from it is answered with its close for a while."""
        self._ended(client)

    def forget(self, client: _Client) -> None:
        for cid in list(client.cids):
            self.remove(client, cid)
        self._clients.discard(client)
        self._unfinished.discard(client)
        self.driver.forget(client)

    # ---- datagrams

    def _guarded_route(self, datagram: bytes, address: Address) -> Connection | None:
        """A datagram that nobody can make sense of must not end the server."""
        try:
            return self._route(datagram, address)
        except Exception as exc:
            logs.connection_failed(exc_info=exc, error=repr(exc))
            return None

    def _route(self, datagram: bytes, address: Address) -> Connection | None:
        try:
            header = pull_quic_header(
                Buffer(data=datagram),
                host_cid_length=self._configuration.connection_id_length,
            )
        except ValueError:
            return None
        known = self._by_cid.get(header.destination_cid)
        if known is not None:
            return known
        if header.version is None or header.packet_type is QuicPacketType.VERSION_NEGOTIATION:
            return None
        if len(datagram) < SMALLEST_MAX_DATAGRAM_SIZE or not self.open:
            return None
        if header.version not in self._configuration.supported_versions:
            self._negotiate_version(header, address)
            return None
        if header.packet_type is not QuicPacketType.INITIAL:
            return None
        return self._begin(header, address)

    def _negotiate_version(self, header: QuicHeader, address: Address) -> None:
        answer = encode_quic_version_negotiation(
            source_cid=header.destination_cid,
            destination_cid=header.source_cid,
            supported_versions=self._configuration.supported_versions,
        )
        self.driver.link.send(answer, address)

    def _begin(self, header: QuicHeader, address: Address) -> Connection | None:
        """A new client, if there is room for one."""
        few = max(1, self._limits.handshakes // 10)
        if len(self._unfinished) >= few:
            self._unfinished = {one for one in self._unfinished if not one.established}
        unfinished = len(self._unfinished)
        if len(self._clients) >= self._limits.connections or unfinished >= self._limits.handshakes:
            return None
        original, retried = header.destination_cid, None
        if header.token:
            try:
                original = self._retry.validate_token(
                    address=address[:2],
                    destination_cid=header.destination_cid,
                    token=header.token,
                    now=trio.current_time(),
                )
            except ValueError:
                return None  # another server's, or too old
            retried = header.destination_cid
        elif unfinished >= few:
            self._ask_for_token(header, address)
            return None
        quic = Quic(
            configuration=self._configuration,
            original_destination_connection_id=original,
            retry_source_connection_id=retried,
        )
        shim.allow_streams(quic, self._limits.streams)
        client = _Client(quic, self.driver, self._limits, self._memory, self._handle)
        client.listener, client.cids = self, set()
        self._clients.add(client)
        self._unfinished.add(client)
        self.add(client, header.destination_cid)
        self.add(client, quic.host_cid)
        return client

    def _ask_for_token(self, header: QuicHeader, address: Address) -> None:
        cid = os.urandom(self._configuration.connection_id_length)
        token = self._retry.create_token(
            address=address[:2],
            original_destination_connection_id=header.destination_cid,
            retry_source_connection_id=cid,
            now=trio.current_time(),
        )
        answer = encode_quic_retry(
            version=header.version or 0,
            source_cid=cid,
            destination_cid=header.source_cid,
            original_destination_cid=header.destination_cid,
            retry_token=token,
        )
        self.driver.link.send(answer, address)
