"""The client's side of one connection: calls, each on a stream of its own.

A call waits until the peer allows one more stream, takes the next stream id and writes its
frame without an await between, then parks until its reply is whole. aioquic would queue a
stream that is over the limit, but to give such a stream up kills the connection: so the
gate stands before the id.

A server that is gone is noticed by the first of: its close, two refusals without a reply
between, a stateless reset, and so many probes that nothing answered. All calls then fail
with :class:`ConnectionLost`, which knows whether they had been sent.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import outcome
import trio
from aioquic.quic import events

from ...tasks import Answer
from ...wire.frames import FrameError, FrameReader
from ..transport import shim
from ..transport.driver import Connection, Driver
from ..transport.link import Address
from ..transport.shim import Quic

PROBES_SUSPECT, PROBES_LOST = 4, 5
SILENCE, LAST_PROBE = 0.85, 0.25
"""Probes in a row without an answer that mean a dead server: five, or four when nothing was
heard for so many seconds, of which the last probe had its share. That is under a second on
a fast network; at 10 % loss both ways nothing comes near it."""

REFUSALS_LOST = 2
"""Refusals without a reply between that mean a dead port."""

STOPPED, AFTER_STOP = 1.0, 5.0
"""Seconds that a timer may be late before it means that the process was stopped, and that
calls then get, whose replies may wait in the socket."""

GIVEN_UP = 0x10
"""The error code of a stream that its caller gave up."""


class ConnectionLost(Exception):
    """The connection is gone. ``sent``: the call may have been carried out."""

    def __init__(self, reason: str, *, sent: bool = True) -> None:
        super().__init__(reason)
        self.sent = sent


class CallTimeout(Exception):
    """No reply in time. ``sent``: the call may have been carried out."""

    def __init__(self, *, sent: bool) -> None:
        super().__init__("no reply in time")
        self.sent = sent


class BadReply(Exception):
    """The server answered with something that is no answer, or gave the stream up."""


Orphaned = Callable[[bytes], None]
"""Takes the reply of a call whose caller was cancelled."""


class _Call:
    """One call on its way."""

    __slots__ = ("answer", "deadline", "orphaned", "reader", "stream_id")

    def __init__(self, stream_id: int, deadline: float) -> None:
        self.stream_id = stream_id
        self.deadline = deadline
        self.reader = FrameReader()
        self.orphaned: Orphaned | None = None
        self.answer = Answer()


class CallingConnection(Connection):
    """Calls over one QUIC connection."""

    def __init__(
        self, quic: Quic, driver: Driver, check_peer: Callable[[Quic], str | None]
    ) -> None:
        """``check_peer`` says what is wrong with the peer's certificate, if anything."""
        super().__init__(quic, driver)
        self._check_peer = check_peer
        self._calls: dict[int, _Call] = {}
        self._opened = 0
        self._gate = trio.lowlevel.ParkingLot()
        self._first_deadline = math.inf
        self._refusals = 0
        self._ping_out = False
        self._pings = 0
        self._heard = trio.current_time()
        self._dead_at = math.inf
        self.ready = trio.Event()
        """The handshake is through, or the connection lost."""
        self.over = trio.Event()
        self.lost: str | None = None
        """Why the connection is gone."""
        self.close_code = 0
        """The code that it was closed with, where it was."""
        self.distrusted = False
        """The peer's certificate was not the one that was asked for."""

    # ---- calls

    async def call(
        self,
        frame: bytes,
        deadline: float,
        orphaned: Orphaned | None = None,
        *,
        grace: float = 0.0,
    ) -> bytes | None:
        """Send a frame on a stream of its own.

        Args:
          frame: a whole one, as :func:`runtara_trio.wire.frames.encode` makes it.
          deadline: by Trio's clock.
          orphaned: given the reply, where the caller is cancelled before it comes. None: the
            server is then told that nobody waits for it.
          grace: seconds for which a cancelled caller waits for the reply.

        Returns the payload of the reply; None where the server ended without one.

        Raises:
          ConnectionLost: it is gone, or went meanwhile.
          CallTimeout: the deadline passed.
          BadReply: what came is no reply.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        while self.lost is None and self._opened >= shim.stream_limit(self.quic):
            with trio.move_on_at(deadline) as waiting:
                await self._gate.park()
            if waiting.cancelled_caught:
                raise CallTimeout(sent=False)
        if self.lost is not None:
            raise ConnectionLost(self.lost, sent=False)
        stream_id = self.quic.get_next_available_stream_id()  # no await until it is used
        call = _Call(stream_id, deadline)
        self.quic.send_stream_data(stream_id, frame, end_stream=True)
        self._opened = stream_id // 4 + 1
        self._calls[stream_id] = call
        self._first_deadline = min(self._first_deadline, deadline)
        self.touch()

        def leaves() -> None:
            call.orphaned = orphaned
            if orphaned is None:
                self._give_up(call)

        payload: bytes | None = await call.answer.wait(grace=grace, leaves=leaves)
        return payload

    def _give_up(self, call: _Call) -> None:
        """Nobody waits for a call any more: tell the server."""
        if self._calls.pop(call.stream_id, None) is not None and self.lost is None:
            self._abandon_stream(call)

    def _abandon_stream(self, call: _Call) -> None:
        self.quic.stop_stream(call.stream_id, GIVEN_UP)
        self.quic.reset_stream(call.stream_id, GIVEN_UP)
        self.touch()

    def _finish(self, call: _Call, result: outcome.Outcome[bytes | None]) -> None:
        self._calls.pop(call.stream_id, None)
        if call.answer.is_awaited:
            call.answer.give(result)
        elif call.orphaned is not None and isinstance(result, outcome.Value) and result.value:
            call.orphaned(result.value)

    @property
    def expects_more(self) -> bool:
        return len(self._calls) > 1

    # ---- what comes

    def receive(self, datagram: bytes, address: Address, now: float) -> None:
        if shim.is_stateless_reset(self.quic, datagram):
            self.lose("the server does not know the connection any more: it was restarted")
        else:
            self._heard, self._dead_at = now, math.inf
            self.quic.receive_datagram(datagram, address, now)

    def handle_events(self) -> None:
        while (event := self.quic.next_event()) is not None:
            match event:
                case events.StreamDataReceived():
                    self._data(event)
                case events.StreamReset():
                    self._reset(event)
                case events.HandshakeCompleted():
                    self._handshake_completed()
                case events.PingAcknowledged():
                    self._ping_out = False
                    self._refusals = 0
        closing = shim.close_reason(self.quic)
        if closing is not None and self.lost is None:
            self.close_code, reason = closing
            self.lose(reason or f"the server closed the connection (code {closing[0]})")
        if self._gate:
            free = shim.stream_limit(self.quic) - self._opened
            if free > 0:
                self._gate.unpark(count=free)

    def _data(self, event: events.StreamDataReceived) -> None:
        self._refusals = 0
        call = self._calls.get(event.stream_id)
        if call is None:
            return  # given up, or answered already
        reader = call.reader
        try:
            if event.data:
                reader.feed(event.data)
            if event.end_stream:
                payload = reader.payload() if reader.size else None
                self._finish(call, outcome.Value(payload))
        except FrameError as exc:
            if not event.end_stream:
                self._abandon_stream(call)
            self._finish(call, outcome.Error(BadReply(f"the server's reply is no frame: {exc}")))

    def _reset(self, event: events.StreamReset) -> None:
        call = self._calls.get(event.stream_id)
        if call is not None:
            text = f"the server gave the call's stream up (code {event.error_code})"
            self._finish(call, outcome.Error(BadReply(text)))

    def _handshake_completed(self) -> None:
        wrong = self._check_peer(self.quic)
        if wrong is None:
            self.ready.set()
        else:
            self.distrusted = True
            self.quic.close(reason_phrase="certificate refused")
            self.lose(wrong)

    # ---- time

    def ping(self) -> None:
        """Keep the connection alive, and see whether it is."""
        self._pings += 1
        self._ping_out = True
        self.quic.send_ping(self._pings)
        self.touch()

    def next_timer(self) -> float:
        return min(super().next_timer(), self._first_deadline, self._dead_at)

    def handle_timer(self, now: float) -> None:
        if now - self.due > STOPPED:
            self._put_off_deadlines(now + AFTER_STOP)
        super().handle_timer(now)
        self._doubt(now)
        if now >= self._first_deadline:
            self._fail_late(now)

    def _doubt(self, now: float) -> None:
        """Whether the server is dead, by the probes that it did not answer."""
        probes = shim.probe_timeouts(self.quic)
        waiting = (self._calls or self._ping_out) and shim.is_confirmed(self.quic)
        if not waiting or probes < PROBES_SUSPECT:
            self._dead_at = math.inf
        elif probes >= PROBES_LOST or now >= self._dead_at:
            self.lose(f"nothing answered {probes} probes")
            return
        elif self._dead_at == math.inf:
            self._dead_at = max(self._heard + SILENCE, now + LAST_PROBE)
        if waiting and probes > 1:  # in two packets: a lossy network loses both less often
            self.driver.flush(self)
            self.ping()

    def _fail_late(self, now: float) -> None:
        for call in [call for call in self._calls.values() if call.deadline <= now]:
            self._give_up(call)
            self._finish(call, outcome.Error(CallTimeout(sent=True)))
        self._find_first_deadline()

    def _put_off_deadlines(self, until: float) -> None:
        """Time in which this process did not run is not the server's."""
        for call in self._calls.values():
            call.deadline = max(call.deadline, until)
        self._find_first_deadline()

    def _find_first_deadline(self) -> None:
        deadlines = (call.deadline for call in self._calls.values())
        self._first_deadline = min(deadlines, default=math.inf)

    # ---- the end

    def refused(self) -> None:
        self._refusals += 1
        if self._refusals >= REFUSALS_LOST:
            self.lose("its port is closed")

    def broken(self) -> None:
        self.lose("its QUIC connection failed; the log says of what")

    def lose(self, reason: str) -> None:
        """The connection is gone: everybody is told."""
        if self.lost is not None:
            return
        self.lost = reason
        self.ready.set()
        self.over.set()
        self._gate.unpark_all()
        for call in list(self._calls.values()):
            self._finish(call, outcome.Error(ConnectionLost(reason)))

    def close(self) -> None:
        """End it, and tell the server at once."""
        if self.lost is None or shim.close_unsent(self.quic):
            if shim.close_reason(self.quic) is None:
                self.quic.close(error_code=0)
            self.driver.flush(self)
        self.lose("closed by this side")
