"""What comes to a block from outside: signals, hints, and what is done with them."""

from __future__ import annotations

from .. import logs
from ..errors import LeaseLost
from ..messages import AcknowledgeSignal, StopWaiting
from ..tasks import InFlight
from ..types import Signal, SignalType
from .hints import Hints
from .holding import Holds
from .services import SharedBackend
from .state import State


class Inbox:
    """What reached one block."""

    __slots__ = ("_first_version", "_last_version", "_shared", "_state", "hints", "holds", "seen")

    def __init__(
        self, state: State, shared: SharedBackend, under_way: InFlight, timeout: float
    ) -> None:
        """``timeout``: seconds that the end of a hold waits for the backend."""
        self._state = state
        self._shared = shared
        self._first_version = self._last_version = 0
        self.holds = Holds(state, shared, under_way, timeout, self.take)
        self.hints = Hints()
        self.seen: Signal | None = None
        """The signal that was seen last."""

    def begins(self, version: int) -> None:
        """The instance is registered; what was seen before that was for the block before."""
        self._first_version = version

    def deliver(self, signal: Signal | None, version: int) -> None:
        """Take a signal that a poll or a reply has brought, as often as it comes.

        A signal of an older version than the last one is stale: it might ask again for a
        pause that a resume has withdrawn. A cancel is never stale: nothing takes it back.
        """
        overtaken = 0 < version < self._last_version  # 0: the backend has no versions
        self._last_version = max(version, self._last_version)
        if signal is None or 0 < version < self._first_version:
            return
        if overtaken and signal.type is not SignalType.CANCEL:
            return
        if signal != self.seen:
            logs.signal(instance_id=self._state.instance_id, signal=signal.type.value)
        self.seen = signal
        if self._state.manual:
            return
        if not self.holds.is_on:
            self.take(signal)
        elif self.holds.deliver(signal):  # a second pause: it is paused
            self._shared.start_soon(self.acknowledge, signal)

    def take(self, signal: Signal) -> None:
        """Have a signal reach the body's scope."""
        boundary = self._state.signals.boundary
        asked_before = boundary.pause_requested
        resume = self._state.signals.deliver(signal)
        if resume is not None:
            self._shared.start_soon(self.acknowledge, resume)
        if boundary.pause_requested and not asked_before:
            self._shared.start_soon(boundary.check_steps)

    async def acknowledge(self, signal: Signal) -> None:
        """Take a pause or a resume off the instance."""
        state = self._state
        try:
            await self._shared.request(
                AcknowledgeSignal(instance_id=state.instance_id, lease=state.lease, signal=signal)
            )
        except LeaseLost:  # with the outcome, or to another owner: those who write learn it
            logs.not_acknowledged(instance_id=state.instance_id, signal=signal.type.value)

    def stop_waiting(self, checkpoint_id: str) -> None:
        """Somebody waits no more; after the last of them the backend stops polling."""
        if self.hints.last_has_gone(checkpoint_id):
            self._shared.start_soon(
                self._shared.request,
                StopWaiting(instance_id=self._state.instance_id, checkpoint_id=checkpoint_id),
            )
