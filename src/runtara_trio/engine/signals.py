"""Where a cancel signal becomes a cancelled scope, and a pause two phases.

The body of a block runs inside one cancel scope. Everything that ends it from outside
goes through here: an operator's cancel or pause, a lost lease, a stop of the process.
What cancelled the scope first is kept, because a pause that only was asked is not a pause
that stopped the body.
"""

from __future__ import annotations

import enum
from collections.abc import Callable

import trio

from .. import logs
from ..types import Signal, SignalType
from .boundary import Boundary


class Cause(enum.Enum):
    """What cancelled a body's scope."""

    CANCEL = "cancel"
    PAUSE = "pause"
    STOP = "stop"
    LOST = "lost"
    DRAIN = "drain"
    UNLOAD = "unload"
    SLEEP = "sleep"


class SignalScope:
    """The scope of one body, and what reached it."""

    def __init__(
        self,
        instance_id: str,
        grace: float,
        final_timeout: float,
        hold: Callable[[], None] | None = None,
    ) -> None:
        self._instance_id = instance_id
        self.final_timeout = final_timeout
        self.saves: set[trio.CancelScope] = set()
        """The shields of saves that are on their way."""
        self.scope = trio.CancelScope()
        self.boundary = Boundary(instance_id, self.scope, grace, hold)
        self.cancel: Signal | None = None
        """The cancel that reached the scope, even one already cancelled. It is sticky."""
        self.pause: Signal | None = None
        """The pause that was asked and not withdrawn."""
        self.resumed = False
        """A resume came too late to withdraw the pause that ends the body."""
        self._cause: Cause | None = None
        self._draining = False

    @property
    def cancel_requested(self) -> bool:
        """Whether a cancel has reached the scope."""
        return self.cancel is not None

    def deliver(self, signal: Signal) -> Signal | None:
        """Take a signal, as often as it comes. Returns a resume: it is to be acknowledged."""
        match signal.type:
            case SignalType.CANCEL:
                self.cancel = self.cancel or signal
                self.end(Cause.CANCEL)
            case SignalType.PAUSE:
                if not self.scope.cancel_called:
                    self.pause = signal
                    self.boundary.ask()
            case SignalType.RESUME:
                if self._draining:  # it takes the pause back, not the drain
                    self.pause = None if not self.scope.cancel_called else self.pause
                elif self.boundary.withdraw():
                    self.pause = None
                else:
                    self.resumed = self.paused
                return signal
        return None

    def drain(self, grace: float) -> None:
        """The worker ends: stop at the next boundary, as for a pause, within ``grace`` seconds."""
        self._draining = True
        if not self.scope.cancel_called:
            self.boundary.ask(grace)

    def end(self, cause: Cause) -> None:
        """Cancel the scope, and let go what is parked inside shields."""
        first = not self.scope.cancel_called
        if first:
            self._cause = cause
            latest = trio.current_time() + self.final_timeout
            for save in self.saves:
                save.deadline = min(save.deadline, latest)
        self.scope.cancel()
        self.boundary.release()
        if first:
            logs.scope_cancelled(instance_id=self._instance_id, cause=cause.value)

    def patience(self, timeout: float) -> float:
        """Seconds that a save waits for its answer: no longer than for the outcome, once the
        body is to end."""
        return min(timeout, self.final_timeout) if self.scope.cancel_called else timeout

    @property
    def cause(self) -> Cause | None:
        """What cancelled the scope first; None: it is not cancelled.

        A pause that settles, or whose grace is over, cancels it by itself: the grace is the
        scope's own deadline, which tells nobody.
        """
        if self._cause is None and self.scope.cancel_called:
            return Cause.PAUSE if self.pause is not None or not self._draining else Cause.DRAIN
        return self._cause

    @property
    def paused(self) -> bool:
        """Whether a pause is what cancelled the scope: settled, or its grace was over."""
        return self.pause is not None and self.cause is Cause.PAUSE
