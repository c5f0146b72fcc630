"""``on_pause="hold"``: what is parked stays parked, until a resume lets it go on.

A hold begins when a pause has settled: the instance is recorded as suspended and keeps its
lease. Whatever ends it (a resume, a cancel, a stop, the end of the body) sets it running
again first, so that the program, or its clean-up, may write.
"""

from __future__ import annotations

import trio

from .. import logs
from ..errors import InstanceBusy, InstanceFinished, LeaseLost, RegistrationError, SdkError
from ..messages import GoOn, ReplyT, Request
from ..messages import Hold as HoldMessage
from ..types import InstanceStatus, Signal, SignalType
from .services import SharedBackend

AGAIN = 1.0
"""Seconds before a backend that failed is asked again."""


class Hold:
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
            HoldMessage(
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
                if isinstance(message, HoldMessage) and self._over.is_set():
                    return  # suspended or not, it runs again now
                logs.request_failed(task=type(message).__name__, error=str(exc))
                await trio.sleep(AGAIN)
            else:
                return
