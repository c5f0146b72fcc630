"""The server's side of one connection: frames in, frames out.

A request is handled as soon as its frame is whole; what follows on its stream is ignored.
Every error of the protocol is answered as runtara-core answers it, by ending the stream
without a frame: the connection goes on. What a client may occupy is limited, and whoever
wants more loses its connection.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable

import msgspec
import trio
from aioquic.quic import events

from ...serving.limits import Memory
from ...wire import frames
from ...wire.frames import FrameError, FrameReader
from ..transport import shim
from ..transport.driver import Connection, Driver
from ..transport.shim import Quic


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What a server lets its clients have."""

    connections: int = 10_000
    """At once."""
    handshakes: int = 1_000
    """Unfinished ones at once. From a tenth of it on, clients must first show that their
    address is theirs."""
    handshake_timeout: float = 10.0
    """Seconds for one."""
    streams: int = 1_000
    """Calls of a connection at once, as runtara-core's."""
    stream_timeout: float = 300.0
    """Seconds until a request must be whole, and a large reply be read."""
    memory: int = 1 << 30
    """Bytes of requests and replies that are held for all clients. A quarter of it for one."""
    idle_timeout: float = 120.0
    """Seconds without a word after which a connection is given up."""


SMALL = 16 * 1024
"""Bytes of a reply that is not counted: a thousand of them are 16 MiB."""

TOO_MUCH = 1
"""The error code of a connection that wanted more than its share."""


class ServedConnection(Connection):
    """One client."""

    def __init__(
        self,
        quic: Quic,
        driver: Driver,
        limits: Limits,
        memory: Memory,
        handle: Callable[[ServedConnection, int, bytes], None],
    ) -> None:
        """``handle`` starts to answer the request of a stream; :meth:`reply` ends that."""
        super().__init__(quic, driver)
        self._limits = limits
        self._memory = Memory(limits.memory // 4, memory)
        self._handle = handle
        self._handshake_by = trio.current_time() + limits.handshake_timeout
        self._look_at = math.inf  # no stream is late before
        self._reading: dict[int, tuple[FrameReader, float]] = {}
        self._answering: dict[int, int] = {}
        self._unread: dict[int, tuple[int, float]] = {}
        self._ignored: set[int] = set()
        self.patience: dict[int, trio.CancelScope] = {}
        """Of requests that are being answered: cancelled, when nobody waits for them."""
        self.established = False
        self.gone = False
        """The client is gone, or as good as that."""

    # ---- requests

    def handle_events(self) -> None:
        while (event := self.quic.next_event()) is not None:
            match event:
                case events.StreamDataReceived():
                    self._data(event.stream_id, event.data, event.end_stream)
                case events.StreamReset():
                    self._ignored.discard(event.stream_id)
                    self._forget(event.stream_id)
                case events.StopSendingReceived():
                    self._forget(event.stream_id)
                case events.HandshakeCompleted():
                    self.established = True
                case _:
                    self.other_event(event)
        if self._unread:
            self._count_unread()
        if shim.close_reason(self.quic) is not None:
            self.end()

    def other_event(self, event: events.QuicEvent) -> None:
        """What concerns the connection itself."""

    def _data(self, stream_id: int, data: bytes, ended: bool) -> None:
        if stream_id % 4:  # not a stream of calls
            self.quic.stop_stream(stream_id, shim.NO_ERROR)
            return
        if stream_id in self._ignored:
            if ended:
                self._ignored.discard(stream_id)
            return
        partial = self._reading.get(stream_id)
        reader = FrameReader() if partial is None else partial[0]
        try:
            whole = reader.feed(data)
            if not whole and ended:
                reader.payload()  # says what is missing
        except FrameError:
            self._refuse(stream_id, ended)
            return
        if not self._memory.take(len(data)):
            self._close_greedy()
        elif whole:
            self._reading.pop(stream_id, None)
            self._answering[stream_id] = reader.size
            if not ended:
                self._ignored.add(stream_id)
            self._handle(self, stream_id, reader.payload())
        elif partial is None:
            now = trio.current_time()
            self._reading[stream_id] = reader, now
            self._look_at = min(self._look_at, now + self._limits.stream_timeout)

    def _refuse(self, stream_id: int, ended: bool) -> None:
        """What came is no request: the stream is ended, without a frame."""
        self._forget(stream_id)
        if not ended:
            self._ignore(stream_id)
        self._send(stream_id, b"")

    def _ignore(self, stream_id: int) -> None:
        self._ignored.add(stream_id)
        with contextlib.suppress(ValueError):  # a stream that has ended by now
            self.quic.stop_stream(stream_id, shim.NO_ERROR)

    def _forget(self, stream_id: int) -> None:
        """Nothing more comes on this stream, or is wanted on it."""
        partial = self._reading.pop(stream_id, None)
        if partial is not None:
            self._memory.take(-partial[0].size)
        unread = self._unread.pop(stream_id, None)
        if unread is not None:
            self._memory.take(-unread[0])
        patience = self.patience.get(stream_id)
        if patience is not None:
            patience.cancel()

    # ---- replies

    def reply(self, stream_id: int, payload: bytes | None) -> None:
        """End a request. ``payload`` None: without an answer."""
        self.patience.pop(stream_id, None)
        self._memory.take(-self._answering.pop(stream_id, 0))
        if self.gone:
            return
        if stream_id in self._ignored:  # its end has not come by itself
            self._ignore(stream_id)
        frame = b"" if payload is None else frames.encode(frames.RESPONSE, payload)
        if self._send(stream_id, frame) and len(frame) > SMALL:
            now = trio.current_time()
            self._unread[stream_id] = len(frame), now
            self._look_at = min(self._look_at, now + self._limits.stream_timeout)
            if not self._memory.take(len(frame)):
                self._count_unread()
                if self._memory.used > self._memory.limit:
                    self._close_greedy()

    def _send(self, stream_id: int, data: bytes) -> bool:
        try:
            self.quic.send_stream_data(stream_id, data, end_stream=True)
        except (ValueError, RuntimeError):
            return False  # the client has given the call up
        self.touch()
        return True

    def _count_unread(self) -> None:
        for stream_id in [one for one in self._unread if not shim.unsent(self.quic, one)]:
            self._forget(stream_id)

    # ---- time

    def next_timer(self) -> float:
        mine = self._look_at if self.established else self._handshake_by
        return min(super().next_timer(), math.inf if self.gone else mine)

    def handle_timer(self, now: float) -> None:
        super().handle_timer(now)
        if not self.established:
            if now >= self._handshake_by:
                self.close(TOO_MUCH, "the handshake took too long")
        elif now >= self._look_at:
            self._end_late(now - self._limits.stream_timeout)

    def _end_late(self, since: float) -> None:
        """Requests that never become whole are ended; a reply that is not read ends all."""
        if any(started <= since for _, started in self._unread.values()):
            self._close_greedy()
            return
        for stream_id in [one for one, (_, started) in self._reading.items() if started <= since]:
            self._refuse(stream_id, ended=False)
        starts = [started for _, started in (*self._reading.values(), *self._unread.values())]
        self._look_at = min(starts, default=math.inf) + self._limits.stream_timeout

    # ---- the end

    def _close_greedy(self) -> None:
        self.close(TOO_MUCH, "more requests or unread replies than this server holds for one")

    def close(self, code: int = shim.NO_ERROR, reason: str = "") -> None:
        """End the connection, and tell the client at once."""
        if shim.close_reason(self.quic) is None:
            self.quic.close(error_code=code, reason_phrase=reason)
            self.driver.flush(self)
        self.end()

    def end(self) -> None:
        """The client is gone: what was held for it is free."""
        if self.gone:
            return
        self.gone = True
        for stream_id in (*self._reading, *self._unread, *self.patience):
            self._forget(stream_id)
