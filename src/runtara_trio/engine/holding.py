"""``on_pause="hold"``: what is parked stays parked, until a resume lets it go on.

A hold begins when a pause has settled: the instance is recorded as suspended and keeps its
lease. Whatever ends it (a resume, a cancel, a stop, the end of the body) sets it running
again first, so that the program, or its clean-up, may write.
"""

from __future__ import annotations

from collections.abc import Callable

import trio

from .. import logs
from ..errors import InstanceBusy, InstanceFinished, LeaseLost, RegistrationError, SdkError
from ..messages import GoOn, Hold, ReplyT, Request
from ..tasks import InFlight
from ..types import InstanceStatus, Signal, SignalType
from .services import SharedBackend
from .signals import Cause
from .state import State

RETRY = 1.0
"""Seconds before a backend that failed is asked again."""


class HeldPause:
    """One pause of one block, from its settling to its end."""

    def __init__(
        self,
        shared: SharedBackend,
        instance_id: str,
        tenant_id: str,
        lease: int,
        pause: Signal,
        timeout: float,
    ) -> None:
        """``timeout``: seconds that what cannot wait for a backend waits for it all the same."""
        self._shared = shared
        self._instance_id = instance_id
        self._tenant_id = tenant_id
        self._lease = lease
        self.pause = pause
        self.signal: Signal | None = None
        """What ended it, if a signal did."""
        self.then: Signal | None = None
        """A pause that came while it was ending: a new one."""
        self._going_on = trio.CancelScope()
        self._timeout = timeout
        self._over = trio.Event()
        self.done = trio.Event()
        """The instance runs again, or is not ours any more."""

    def end(self, signal: Signal | None = None) -> None:
        """Something ends it. A cancel outranks what came before."""
        if self.signal is None or (signal is not None and signal.type is SignalType.CANCEL):
            self.signal = signal or self.signal
        if signal is None or signal.type is SignalType.CANCEL:
            self._going_on.deadline = min(
                self._going_on.deadline, trio.current_time() + self._timeout
            )
        self._over.set()

    @property
    def ending(self) -> bool:
        """Something has ended it, and the instance is on its way to run again."""
        return self._over.is_set()

    async def run(self) -> None:
        """Suspend the instance, wait for the end, and set it running.

        Raises:
          LeaseLost: it is another's now, or was finished by another.
        """
        await self._send(
            Hold(
                instance_id=self._instance_id,
                lease=self._lease,
                signal=self.pause,
                reason=b"held by an operator's pause",
            )
        )
        logs.held(instance_id=self._instance_id)
        await self._over.wait()
        message = GoOn(instance_id=self._instance_id, tenant_id=self._tenant_id, lease=self._lease)
        try:
            with self._going_on:
                await self._send(message)
        except InstanceFinished as exc:
            if exc.status != InstanceStatus.CANCELLED:
                raise LeaseLost(self._instance_id) from exc
            self.end(Signal(SignalType.CANCEL))  # carried out while nobody ran: it stands
        except (InstanceBusy, RegistrationError) as exc:
            raise LeaseLost(self._instance_id) from exc
        logs.hold_ended(instance_id=self._instance_id)

    async def _send(self, message: Request[ReplyT]) -> None:
        """Send a message until it is answered; a backend that fails may come back."""
        while True:
            try:
                await self._shared.in_time(message)
            except (LeaseLost, RegistrationError):
                raise
            except SdkError as exc:
                if isinstance(message, Hold) and self._over.is_set():
                    return  # suspended or not, it runs again now
                logs.request_failed(task=type(message).__name__, error=str(exc))
                await trio.sleep(RETRY)
            else:
                return


class Holds:
    """The pauses of one block that hold."""

    __slots__ = ("_hold", "_shared", "_state", "_take", "_timeout", "_under_way")

    def __init__(
        self,
        state: State,
        shared: SharedBackend,
        under_way: InFlight,
        timeout: float,
        take: Callable[[Signal], None],
    ) -> None:
        """Of one block.

        Args:
          under_way: its messages that write.
          timeout: seconds that what cannot wait for a backend waits for it all the same.
          take: has a signal reach the body, once a hold has ended.
        """
        self._state = state
        self._shared = shared
        self._timeout = timeout
        self._under_way = under_way
        self._take = take
        self._hold: HeldPause | None = None

    @property
    def is_on(self) -> bool:
        """Whether the instance is held, or on its way into or out of that."""
        return self._hold is not None

    def begin(self) -> None:
        """A pause has settled."""
        state = self._state
        assert state.signals.pause is not None
        self._hold = HeldPause(
            self._shared,
            state.instance_id,
            state.tenant_id,
            state.lease,
            state.signals.pause,
            self._timeout,
        )
        self._shared.start_soon(self._run, self._hold)

    def deliver(self, signal: Signal) -> bool:
        """A signal has come while the instance is held. True: there is nothing to be done but
        to acknowledge it."""
        hold = self._hold
        assert hold is not None
        if signal.type is not SignalType.PAUSE:
            hold.end(signal)
        elif signal != hold.pause:
            if not hold.ending:
                return True
            hold.then = signal
        return False

    async def until_running(self) -> None:
        """Park while the instance is held. Where nothing parks any more, end the hold."""
        if self._hold is not None:
            await self._state.signals.boundary.reach()
            await self.end()

    async def end(self) -> None:
        """End a hold, and wait until the instance runs again."""
        if self._hold is not None:
            self._hold.end()
            await self._hold.done.wait()

    def end_soon(self) -> None:
        """The same, without waiting for it."""
        if self._hold is not None:
            self._hold.end()

    async def _run(self, hold: HeldPause) -> None:
        state = self._state
        try:
            await self._under_way.until_none()  # what was sent before must not come after
            if state.said is None:  # else it ended beside the pause
                await hold.run()
        except LeaseLost:
            state.mark_lost()
        finally:
            self._hold = None
            hold.done.set()
        if state.stopped is not None:
            state.signals.end(Cause.STOP)
        for signal in (hold.signal, hold.then):
            if signal is not None:
                self._take(signal)
