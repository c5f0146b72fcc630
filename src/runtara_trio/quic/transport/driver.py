"""Drives QUIC connections over a link: a client has one on it, a server many.

aioquic's machine does no I/O. Three tasks do it for all connections of a link:

- the reader takes up to eight datagrams at a time, then lets every connection they were
  for handle its events;
- the timer sleeps until the earliest deadline of all. It is one scope whose deadline only
  ever moves earlier; one that has moved later meanwhile is found out when it fires;
- the flusher sends what the connections have to say, once a scheduler pass. It lets the
  tasks that a datagram has woken run first: what they ask goes out in the same packets as
  the acknowledgements.

(Measured: a flush in each call costs four times the CPU of one a pass; draining without a
bound gains nothing and makes the two sides take turns.)
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable

import trio

from ... import logs
from ...tasks import RepeatedEvent
from .link import Address, Link
from .shim import Quic, acknowledge_now, is_urgent, timer_of

DRAIN = 8
"""Datagrams that are read before their connections handle them."""

ACKNOWLEDGE_EVERY = 4
"""Datagrams after which the peer is told at once what has come: it may wait for that."""

LAZY = 0.025
"""Seconds that a batch of mere acknowledgements may wait for an answer. It cannot wait for
ever: they may have ended streams, and the peer waits for the limit that allows new ones."""

GRANULARITY = 0.001
"""Seconds between two timers of one connection: a timer that nothing could be done about
must not keep the loop busy."""


class _Alarm:
    """What the timer's heap holds of a connection: not the connection itself, or one that
    has ended would live as long as its last timer."""

    __slots__ = ("connection", "scheduled")

    def __init__(self, connection: Connection) -> None:
        self.connection: Connection | None = connection
        self.scheduled = math.inf
        """When the timer handles it: not later than it is due."""


class Connection:
    """One QUIC connection on a driver."""

    def __init__(self, quic: Quic, driver: Driver) -> None:
        self.quic = quic
        self.driver = driver
        self.dirty = False
        self.unacknowledged = 0
        """Datagrams that have come since something was sent."""
        self.due = math.inf
        """When it wants the timer."""
        self.alarm = _Alarm(self)
        self.handled = -math.inf
        """When its timer was handled last."""

    @property
    def expects_more(self) -> bool:
        """Whether others are likely to have something to send in this very pass."""
        return False

    def touch(self) -> None:
        """Something is to be sent: it goes out at the end of this scheduler pass."""
        if not self.dirty:
            self.dirty = True
            self.driver.wake(self)

    def receive(self, datagram: bytes, address: Address, now: float) -> None:
        """A datagram has come."""
        self.quic.receive_datagram(datagram, address, now)

    def handle_events(self) -> None:
        """Handle the events of what has come."""
        raise NotImplementedError

    def handle_timer(self, now: float) -> None:
        """The time that :meth:`next_timer` named has come."""
        timer = timer_of(self.quic)
        if timer is not None and now >= timer:
            self.quic.handle_timer(now)

    def next_timer(self) -> float:
        """When the timer is wanted next."""
        timer = timer_of(self.quic)
        return math.inf if timer is None else timer

    def refused(self) -> None:
        """Nobody listens where something was sent to."""

    def broken(self) -> None:
        """Its machine has failed: it cannot be used any more."""
        raise NotImplementedError

    def guarded(self, function: Callable[..., None], *args: object) -> None:
        """A mistake in one connection's machine must not end the others."""
        try:
            function(*args)
        except Exception as exc:
            logs.connection_failed(exc_info=exc, error=repr(exc))
            self.broken()


class Driver:
    """The three tasks of a link."""

    def __init__(self, link: Link, route: Callable[[bytes, Address], Connection | None]) -> None:
        """``route`` names the connection that a datagram is for; None: it is nobody's."""
        self.link = link
        self._route = route
        self._dirty: list[Connection] = []
        self._touched = RepeatedEvent()
        self._timers: list[tuple[float, int, _Alarm]] = []
        self._numbers = itertools.count()
        self._timer: trio.CancelScope | None = None

    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        """Runs until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._read)
            nursery.start_soon(self._keep_time)
            nursery.start_soon(self._flush_touched)

    # ---- the reader

    async def _read(self) -> None:
        receive, route = self.link.receive, self._route
        while True:
            await self.link.wait_readable()
            now = trio.current_time()
            touched: dict[Connection, None] = {}
            try:
                for _ in range(DRAIN):
                    datagram, address = receive()
                    connection = route(datagram, address)
                    if connection is not None:
                        connection.unacknowledged += 1
                        connection.guarded(connection.receive, datagram, address, now)
                        touched[connection] = None
            except BlockingIOError:
                pass
            except ConnectionRefusedError:
                connection = route(b"", ())
                if connection is not None:
                    connection.refused()
            for connection in touched:
                connection.guarded(connection.handle_events)
                if connection.unacknowledged >= ACKNOWLEDGE_EVERY:
                    acknowledge_now(connection.quic, now)
                    connection.touch()
                elif is_urgent(connection.quic):
                    connection.touch()
                else:
                    self.see_to_timer(connection, now + LAZY)

    # ---- the flusher

    def wake(self, connection: Connection) -> None:
        self._dirty.append(connection)
        self._touched.set()

    async def _flush_touched(self) -> None:
        while True:
            while not self._dirty:
                await self._touched.wait()
            if any(connection.expects_more for connection in self._dirty):
                await trio.lowlevel.checkpoint()  # whoever was woken with us runs before us
            dirty, self._dirty = self._dirty, []
            for connection in dirty:
                self.flush(connection)

    def flush(self, connection: Connection) -> None:
        """Send at once what a connection has to say, and see to its timer."""
        connection.dirty = False
        connection.unacknowledged = 0
        connection.guarded(self._send, connection)
        self.see_to_timer(connection)

    def _send(self, connection: Connection) -> None:
        send = self.link.send
        try:
            for datagram, address in connection.quic.datagrams_to_send(trio.current_time()):
                send(datagram, address)
        except ConnectionRefusedError:
            connection.refused()

    def forget(self, connection: Connection) -> None:
        """It has ended: nothing of it is kept."""
        connection.alarm.connection = None

    # ---- the timer

    def see_to_timer(self, connection: Connection, by: float = math.inf) -> None:
        """Have the timer handle a connection when it is due, or earlier."""
        connection.due = min(max(connection.next_timer(), connection.handled + GRANULARITY), by)
        self._set_alarm(connection)

    def _set_alarm(self, connection: Connection) -> None:
        due = connection.due
        if due < connection.alarm.scheduled:
            connection.alarm.scheduled = due
            heapq.heappush(self._timers, (due, next(self._numbers), connection.alarm))
            if self._timer is not None and due < self._timer.deadline:
                self._timer.deadline = due

    async def _keep_time(self) -> None:
        while True:
            first = self._timers[0][0] if self._timers else math.inf
            with trio.CancelScope(deadline=first) as self._timer:
                await trio.sleep_forever()
            self._timer = None
            now = trio.current_time()
            for connection in self._whose_time_has_come(now):
                if connection.due <= now:
                    connection.handled = now
                    connection.guarded(connection.handle_timer, now)
                    connection.guarded(connection.handle_events)
                    self.flush(connection)
                else:  # it has moved later meanwhile
                    self._set_alarm(connection)

    def _whose_time_has_come(self, now: float) -> list[Connection]:
        found = []
        while self._timers and self._timers[0][0] <= now:
            scheduled, _, alarm = heapq.heappop(self._timers)
            if scheduled == alarm.scheduled and alarm.connection is not None:
                alarm.scheduled = math.inf
                found.append(alarm.connection)  # else an earlier alarm has come between
        return found
