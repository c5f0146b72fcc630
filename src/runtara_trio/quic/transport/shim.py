"""aioquic's private parts, all in one place.

aioquic 1.7 is a sans-IO QUIC that was written for its own asyncio layer; what a driver of
another kind needs, it keeps private. Everything here was measured to be needed, and a test
checks that each name still exists: hence ``aioquic>=1.7,<1.8``.
"""

from __future__ import annotations

import hashlib
from typing import Any

from aioquic.quic.connection import QuicConnection, QuicNetworkPath
from aioquic.quic.packet import QuicErrorCode
from aioquic.quic.packet_builder import QuicPacketBuilder, QuicPacketBuilderStop
from aioquic.quic.stream import QuicStream
from aioquic.tls import Epoch
from cryptography.hazmat.primitives.serialization import Encoding

NO_ERROR = int(QuicErrorCode.NO_ERROR)


ACK_DELAY = 0.005
"""Seconds that an acknowledgement may wait for something to go out with: a reply that takes
a commit, or the next request. (Peers are told of up to 25 ms.)"""


KEY_UPDATE_AFTER = 1 << 20
"""Packets under one key. AES-GCM is good for 2^23 (RFC 9001, section 6.6), and aioquic never
changes keys by itself."""

MOST_MISSING = 64 << 20
"""Bytes of a connection that its peer may leave out of what it has sent. aioquic widens its
windows by how far the peer has gone, and keeps room for all that is missing before."""

AT_ONCE = 32
"""Streams with data that take turns in a connection's packets; the next come when these are
through. aioquic walks all that take turns for every packet."""


class Quic(QuicConnection):
    """A QuicConnection that says what it has to say in fewer packets, and with less work.

    aioquic walks all of its streams for every packet that it builds: with 64 calls waiting
    for their replies that is a quarter of a call's CPU, with 256 almost half. Here only
    those that have something to do are walked. And aioquic sends an acknowledgement that is
    not due yet in a packet of its own, later: here it goes out with what is sent.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._ack_delay = ACK_DELAY
        self._keys_from = 0
        self.packets_a_key = KEY_UPDATE_AFTER
        self.most_missing = MOST_MISSING
        self._all_streams = self._streams

    def datagrams_to_send(self, now: float) -> list[tuple[bytes, Any]]:
        sent = self._packet_number - self._keys_from
        if sent >= self.packets_a_key and self._handshake_confirmed:
            self._keys_from = self._packet_number
            self.request_key_update()
        return super().datagrams_to_send(now)

    def _write_connection_limits(self, builder: QuicPacketBuilder, space: Any) -> None:
        limit = self._local_max_data
        if limit.used * 2 > limit.value and self._missing() > self.most_missing:
            return
        super()._write_connection_limits(builder=builder, space=space)

    def _missing(self) -> int:
        receivers = [stream.receiver for stream in self._all_streams.values()]
        return sum(one.highest_offset - one.starting_offset() for one in receivers)

    def _write_application(
        self, builder: QuicPacketBuilder, network_path: QuicNetworkPath, now: float
    ) -> None:
        streams, queue = self._streams, self._streams_queue
        busy = [stream for stream in queue if _has_work(stream)]
        if busy and self._handshake_confirmed:
            acknowledge_now(self, now)
        self._all_streams = streams
        served: list[QuicStream] = []
        waiting = busy
        try:
            while True:
                some, waiting = waiting[:AT_ONCE], waiting[AT_ONCE:]
                active: dict[Any, QuicStream] = {stream.stream_id: stream for stream in some}
                self._streams, self._streams_queue = dict(active), some
                try:
                    self._write_packets(builder, network_path, now)
                finally:
                    for ended in active.keys() - self._streams.keys():
                        del streams[ended]
                    served += self._streams_queue
                if not waiting or self._pacing_at is not None:
                    break
        finally:
            taken = {stream.stream_id for stream in busy}
            idle = [stream for stream in queue if stream.stream_id not in taken]
            # What was held back by a full window stays before what comes later.
            self._streams_queue = served + waiting + idle
            self._streams = streams

    def _write_packets(
        self, builder: QuicPacketBuilder, network_path: QuicNetworkPath, now: float
    ) -> None:
        """aioquic ends a flush where a frame finds its packet full: a STOP_SENDING behind data,
        say. Whatever else there is to send would wait for the next one."""
        while True:
            try:
                super()._write_application(builder, network_path, now)
                return
            except QuicPacketBuilderStop:
                if builder._packet is None or builder.packet_is_empty:
                    raise  # no room for another packet


def _has_work(stream: QuicStream) -> bool:
    """Whether a packet may have to say something of this stream, or end it."""
    sender, receiver = stream.sender, stream.receiver
    return (
        not sender.buffer_is_empty
        or (sender.is_finished and receiver.is_finished)
        or sender.reset_pending
        or receiver.stop_pending
        or receiver.highest_offset * 2 > stream.max_stream_data_local
        or stream.max_stream_data_local_sent != stream.max_stream_data_local
    )


def is_urgent(quic: QuicConnection) -> bool:
    """Whether what has come must be answered in this pass: a handshake, a window that has
    opened for what waits to be sent. All else can wait for something to go out with."""
    return (
        not quic._handshake_confirmed
        or quic._close_pending
        or any(not stream.sender.buffer_is_empty for stream in quic._streams_queue)
    )


def acknowledge_now(quic: QuicConnection, now: float) -> None:
    """Let an acknowledgement that is owed wait no longer."""
    space = quic._spaces.get(Epoch.ONE_RTT)
    if space is not None and space.ack_at is not None:
        space.ack_at = now


def stream_limit(quic: QuicConnection) -> int:
    """How many streams of ours the peer allows so far, all in all."""
    return quic._remote_max_streams_bidi


def allow_streams(quic: QuicConnection, count: int) -> None:
    """How many streams the peer may have open at once. Before the handshake."""
    quic._local_max_streams_bidi.value = count
    quic._local_max_streams_bidi.sent = count


def close_reason(quic: QuicConnection) -> tuple[int, str] | None:
    """Why the connection is closing, as soon as it is known.

    The event that says so comes three probe timeouts later.
    """
    event = quic._close_event
    return None if event is None else (event.error_code, event.reason_phrase)


def close_unsent(quic: QuicConnection) -> bool:
    """Whether the peer is still to be told."""
    return quic._close_pending


def timer_of(quic: QuicConnection) -> float | None:
    """When the timer is due; None before a connection has one, and after it has ended."""
    return None if quic._close_at is None else quic.get_timer()


def is_confirmed(quic: QuicConnection) -> bool:
    """Whether the handshake is confirmed: before, unanswered probes are counted otherwise,
    and what was answered meanwhile does not start the count anew."""
    return quic._handshake_confirmed


def probe_timeouts(quic: QuicConnection) -> int:
    """Probes in a row that nothing answered."""
    return quic._loss._pto_count


def is_stateless_reset(quic: QuicConnection, datagram: bytes) -> bool:
    """Whether a datagram is the peer's word that it knows nothing of this connection.

    aioquic stores the token and never looks for it (RFC 9000, section 10.3.1).
    """
    token = quic._peer_cid.stateless_reset_token
    return (
        token is not None
        and len(datagram) >= 21
        and not datagram[0] & 0x80
        and datagram[-16:] == token
    )


def certificate_digest(quic: QuicConnection) -> bytes | None:
    """SHA-256 of the peer's certificate (DER), once the handshake has shown it."""
    certificate: Any = quic.tls._peer_certificate
    if certificate is None:
        return None
    return hashlib.sha256(certificate.public_bytes(Encoding.DER)).digest()


def unsent(quic: QuicConnection, stream_id: int) -> int:
    """Bytes of a stream that the peer has not acknowledged."""
    stream = quic._streams.get(stream_id)
    return 0 if stream is None else len(stream.sender._buffer)
