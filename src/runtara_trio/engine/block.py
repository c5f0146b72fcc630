"""One instance's run: its scope, what is known of it, its requests and its end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import sniffio
import trio

from .. import logs
from ..errors import LeaseLost, OutcomeNotRecorded, SdkError
from ..messages import (
    AcknowledgeSignal,
    Checkpoint,
    CheckpointReply,
    RecordOutcome,
    Register,
    Registered,
    ReplyT,
    Request,
    StopWaiting,
)
from ..types import InstanceStatus, Outcome, Signal, SignalType
from . import deadlines
from .boundary import Boundary
from .hints import Hints
from .holding import Hold
from .names import Names
from .outcome import Facts, decide, local_stop, manual_signal
from .past import Past, leaves_trace
from .recording import Recorder
from .services import SharedBackend, Watched
from .sharing import Runs
from .signals import Cause, SignalScope
from .uses import Uses


class Block(Watched):
    """What an ``open_runtara`` block is made of; the SDK is its face to the user."""

    def __init__(
        self,
        shared: SharedBackend,
        instance_id: str,
        tenant_id: str,
        *,
        manual: bool,
        hold: bool = False,
        pause_grace: float,
        final_timeout: float,
    ) -> None:
        self.shared = shared
        self.instance_id = instance_id
        self.tenant_id = tenant_id
        self.manual = manual
        self.outcome: Outcome | None = None
        self.registered = False
        self._signals = SignalScope(
            instance_id, pause_grace, final_timeout, self._begin_hold if hold else None
        )
        self._hold: Hold | None = None
        self._under_way = 0
        self._quiet: trio.Event | None = None
        self._lease = 0
        self._lost = False
        self._said: Outcome | None = None
        self._saying: InstanceStatus | None = None
        self._recorder = Recorder(shared, instance_id, final_timeout)
        self._pause_acknowledged = False
        self._seen: Signal | None = None
        self._first_look = self._last_look = 0
        self._stopped: str | None = None
        self.stopped_by: BaseException | None = None
        self.ended = False
        self.hints = Hints()
        self.past = Past(instance_id, self._ask)
        self.uses = Uses()
        self.runs = Runs(self.boundary)
        self.names = Names()
        self.at_end: list[Callable[[], Awaitable[None]]] = []
        """What ends after the body, and before the outcome is recorded."""
        self.on_end: Callable[[], object] = lambda: None
        """Told that the body has ended."""

    @property
    def scope(self) -> trio.CancelScope:
        """The scope that the body runs in."""
        return self._signals.scope

    @property
    def cancel_requested(self) -> bool:
        return self._signals.cancel is not None

    @property
    def boundary(self) -> Boundary:
        return self._signals.boundary

    # ---- requests

    def check_open(self) -> None:
        """Raises SdkError after the block's end, and in code that does not run on Trio."""
        if sniffio.thread_local.name != "trio":
            raise SdkError(
                f"the SDK of instance {self.instance_id!r} is called from code that does not run "
                "on Trio; return to the Trio function around it, and call it there"
            )
        if self.ended:
            raise SdkError(
                f"the block of instance {self.instance_id!r} has ended; a task that outlived it "
                "cannot use its SDK"
            )

    @property
    def writable(self) -> bool:
        """Registered, and nothing said of its end."""
        return self.registered and not self.ended and self._said is None and self._saying is None

    def writing(self) -> int:
        """The lease, for a message that writes. Raises SdkError where nothing may be written."""
        self.check_open()
        if not self.registered:
            raise SdkError(
                f"instance {self.instance_id!r} is not registered: "
                "call sdk.register(), or open the block with register=True"
            )
        if self._said is not None or self._saying is not None:
            raise SdkError(
                f"instance {self.instance_id!r} has ended "
                f"({self._said or self._saying}): nothing more can be written"
            )
        return self._lease

    async def request(self, message: Request[ReplyT]) -> ReplyT:
        """Ask the backend; a refused lease ends the body."""
        self.check_open()
        if message.writes:
            await self._before_writing(message)
        return await self._send(self.shared.request, message)

    async def save(self, message: Request[ReplyT]) -> ReplyT:
        """A request that saves work. Inside a step its effect has happened: it is shielded.

        Else it raises Cancelled in a cancelled scope, before it is sent; cancelled once it is
        sent, its answer is waited for for a moment (``tasks.GRACE``).

        Raises:
          RequestTimeout: inside a step, there was no answer within ``request_timeout_ms``, or
            within ``final_timeout`` once the body is to end.
        """
        if not self.boundary.in_step:
            return await self.request(message)
        self.check_open()
        with trio.CancelScope(shield=True) as shield:
            await self._before_writing(message)
            timeout = self._signals.patience(self.shared.request_timeout)
            shield.deadline = trio.current_time() + timeout
            self._signals.saves.add(shield)
            try:
                return await self._send(self.shared.request, message)
            finally:
                self._signals.saves.discard(shield)
        await trio.lowlevel.checkpoint_if_cancelled()
        raise self.shared.no_answer(message, timeout)

    async def checkpoint(self, checkpoint_id: str, state: bytes) -> CheckpointReply:
        """Save a state, or get the one that is there; signals in the answer are delivered."""
        reply = await self.save(
            Checkpoint(
                instance_id=self.instance_id,
                lease=self.writing(),
                checkpoint_id=checkpoint_id,
                state=state,
            )
        )
        self.deliver(reply.pending_signal, reply.look)
        return reply

    async def _send(
        self, send: Callable[[Request[ReplyT]], Awaitable[ReplyT]], message: Request[ReplyT]
    ) -> ReplyT:
        if deadlines.replaying():
            with deadlines.asking():
                return await self._sent(send, message)
        return await self._sent(send, message)

    async def _ask(self, message: Request[ReplyT]) -> ReplyT:
        """Ask for what is stored."""
        return await self._send(self.shared.request, message)

    async def _sent(
        self, send: Callable[[Request[ReplyT]], Awaitable[ReplyT]], message: Request[ReplyT]
    ) -> ReplyT:
        if not message.writes:  # a hold need not wait for it
            return await send(message)
        self._under_way += 1
        try:
            return await send(message)
        except LeaseLost:
            self.lose(self._lease)
            raise
        finally:
            self._went()

    def _went(self) -> None:
        """Something that writes has been answered."""
        self._under_way -= 1
        if self._quiet is not None and not self._under_way:
            self._quiet.set()

    async def _before_writing(self, message: Request[Any]) -> None:
        """Tell a deadline that is over what is new, and wait for the end of a hold."""
        if deadlines.replaying() and leaves_trace(message):
            await deadlines.note(await self.past.trace(message))
        if self._hold is not None:
            await self._until_running()

    async def find(self, checkpoint_id: str) -> bytes | None:
        """What is stored under an id, by this run or an earlier one; None: nothing."""
        self.check_open()
        return await self.past.find(checkpoint_id)

    async def register(self, checkpoint_id: str | None, revive: bool) -> None:
        """Take the instance, and deliver what waited for it. Not interrupted half-way."""
        self.check_open()
        if self.registered:
            raise SdkError(f"instance {self.instance_id!r} is registered already")
        await trio.lowlevel.checkpoint_if_cancelled()
        message = Register(
            instance_id=self.instance_id,
            tenant_id=self.tenant_id,
            checkpoint_id=checkpoint_id,
            revive=revive,
        )
        reply: Registered = await self.shared.uninterrupted(self.shared.in_time, message)
        self._lease = reply.lease
        self._first_look = reply.look
        self.registered = True
        self.shared.attach(self)
        logs.registered(
            instance_id=self.instance_id,
            tenant_id=self.tenant_id,
            lease=reply.lease,
            resumed=reply.resumed,
        )
        if reply.taken_from is not None:
            logs.taken_over(
                instance_id=self.instance_id, lease=reply.lease, taken_from=reply.taken_from
            )
        self.past.begins(
            resumed=reply.resumed, skips=checkpoint_id is not None, generation=reply.generation
        )
        self.deliver(reply.signal, reply.look)

    # ---- what comes from outside

    def deliver(self, signal: Signal | None, look: int) -> None:
        """What a look found, however it came and however often.

        One that is overtaken by a later look does nothing, or it would ask again for a
        pause that a resume has withdrawn. A cancel is never stale: nothing takes it back. What
        was seen before this block registered was for the one before it.
        """
        overtaken = 0 < look < self._last_look  # 0: of a backend that numbers none
        self._last_look = max(look, self._last_look)
        if signal is None or 0 < look < self._first_look:
            return
        if overtaken and signal.type is not SignalType.CANCEL:
            return
        if signal != self._seen:
            logs.signal(instance_id=self.instance_id, signal=signal.type.value)
        self._seen = signal
        if self.manual:
            return
        if self._hold is None:
            self._take(signal)
        elif signal.type is not SignalType.PAUSE:
            self._hold.end(signal)
        elif signal == self._hold.pause:
            pass
        elif self._hold.ending:
            self._hold.then = signal
        else:  # a second one: it is paused
            self.shared.start_soon(self._acknowledge, signal)

    def _take(self, signal: Signal) -> None:
        asked_before = self.boundary.pause_requested
        resume = self._signals.deliver(signal)
        if resume is not None:
            self.shared.start_soon(self._acknowledge, resume)
        if self.boundary.pause_requested and not asked_before:
            self.shared.start_soon(self.boundary.look_again)

    def hint(self, checkpoint_id: str) -> None:
        self.hints.give(checkpoint_id)

    def stop_waiting(self, checkpoint_id: str) -> None:
        """Somebody waits no more; after the last the backend need not look."""
        if self.hints.last_has_gone(checkpoint_id):
            self.shared.start_soon(
                self.shared.request,
                StopWaiting(instance_id=self.instance_id, checkpoint_id=checkpoint_id),
            )

    def lose(self, lease: int) -> None:
        """Another owner has the lease; unless it went with what the body said itself."""
        perhaps_said = self._saying is not None or self._recorder.tried
        if lease == self._lease and self._said is None and not perhaps_said:
            self._mark_lost()

    # ---- a pause that holds

    def _begin_hold(self) -> None:
        assert self._signals.pause is not None
        self._hold = Hold(
            self.shared,
            self.instance_id,
            self.tenant_id,
            self._lease,
            self._signals.pause,
            self._recorder.timeout,
        )
        self.shared.start_soon(self._be_held, self._hold)

    async def _be_held(self, hold: Hold) -> None:
        try:
            while self._under_way:  # what was sent before must not come after
                self._quiet = trio.Event()
                await self._quiet.wait()
            if self._said is None:  # else it ended beside the pause
                await hold.run()
        except LeaseLost:
            self._mark_lost()
        finally:
            self._hold = None
            hold.done.set()
        if self._stopped is not None:
            self._signals.end(Cause.STOP)
        if hold.signal is not None:
            self._take(hold.signal)
        if hold.then is not None:
            self._take(hold.then)

    async def _until_running(self) -> None:
        """Park while the instance is held. Where nothing parks any more, end the hold."""
        await self.boundary.reach()
        if self._hold is not None:
            self._hold.end()
            await self._hold.done.wait()

    def _mark_lost(self) -> None:
        if not self._lost:
            self._lost = True
            self._signals.end(Cause.LOST)
            logs.lease_lost(instance_id=self.instance_id, lease=self._lease)

    def stop(self, reason: str, error: BaseException | None = None) -> None:
        """This process wants to end; ``error`` is what says so, where it is one."""
        self._stopped = self._stopped or reason
        self.stopped_by = self.stopped_by or error
        if self._hold is None:
            self._signals.end(Cause.STOP)
        else:  # it runs again first: its clean-up may write
            self._hold.end()

    # ---- signals that the program handles itself

    async def acknowledge(self, wanted: SignalType, pending: Signal | None) -> None:
        """Acknowledge a signal; a cancel is recorded at this moment."""
        if wanted is SignalType.CANCEL:
            await self.say(InstanceStatus.CANCELLED, b"", pending)
        elif pending is not None:
            await self._acknowledge(pending)
            if wanted is SignalType.PAUSE:
                self._pause_acknowledged = True

    async def _acknowledge(self, signal: Signal) -> None:
        try:
            await self.shared.request(
                AcknowledgeSignal(instance_id=self.instance_id, lease=self._lease, signal=signal)
            )
        except LeaseLost:  # with the outcome, or to another owner: those who write learn it
            logs.not_acknowledged(instance_id=self.instance_id, signal=signal.type.value)

    # ---- the end

    async def say(
        self, status: InstanceStatus, payload: bytes, signal: Signal | None = None
    ) -> None:
        """Record what the body says it ends as, at this moment.

        Raises:
          OutcomeNotRecorded: not within ``final_timeout``.
        """
        self.writing()
        if self._hold is not None:
            await self._until_running()
        await deadlines.new_work()
        await trio.lowlevel.checkpoint_if_cancelled()
        lease = self.writing()
        message = RecordOutcome(
            instance_id=self.instance_id,
            lease=lease,
            status=status,
            payload=payload,
            signal=signal or self._signals.pause,
        )
        self._saying = status
        self._under_way += 1
        try:
            await self.shared.uninterrupted(self._record_said, message)
        except LeaseLost:
            self._mark_lost()
            raise
        finally:
            self._saying = None
            self._went()

    async def _record_said(self, message: RecordOutcome) -> None:
        """Record what the body says; kept here, where no Ctrl-C can come between."""
        try:
            await self._recorder.record(message)
        except LeaseLost:
            if await self._recorder.carried_out() is not message.status:
                raise
        self._said = _SAID[message.status]
        self.shared.detach(self)
        self.boundary.close()  # what the body still does is clean-up: no pause ends it

    async def finish(self, error: BaseException | None, *, around_cancelled: bool) -> None:
        """Decide what the block ended as, and record it.

        Args:
          error: what the body raised.
          around_cancelled: a scope around the block is cancelled.

        Raises:
          OutcomeNotRecorded: not within ``final_timeout``.
        """
        self.ended = True
        self.on_end()
        if self._hold is not None:
            self._hold.end()
            await self.shared.uninterrupted(self._recorder.within_timeout, self._hold.done.wait)
        self.boundary.close()
        for close in self.at_end:
            await self.shared.uninterrupted(close)
        self.hints.give_all()
        if self._signals.paused and not self.boundary.settled:
            logs.grace_over(instance_id=self.instance_id)
        try:
            if self.registered:
                self.outcome = await self._recorded(error, around_cancelled)
                logs.ended(instance_id=self.instance_id, outcome=self.outcome.value)
        except OutcomeNotRecorded as exc:
            # The body's own exception may hide it.
            logs.not_recorded(instance_id=self.instance_id, error=str(exc))
            raise
        finally:
            self.shared.detach(self)
        hurried = around_cancelled or self._stopped is not None or self.shared.closed
        if self.outcome is Outcome.COMPLETED and self.past.tells_unvisited and not hurried:
            await self.shared.uninterrupted(self.past.tell_unvisited)

    async def _recorded(self, error: BaseException | None, around_cancelled: bool) -> Outcome:
        while True:
            verdict = decide(self._facts(error, around_cancelled))
            if verdict.recorded is None:
                return verdict.outcome
            message = RecordOutcome(
                instance_id=self.instance_id,
                lease=self._lease,
                status=verdict.recorded,
                payload=verdict.payload,
                signal=self._acknowledged_by(verdict.outcome),
                unless_cancelled=verdict.outcome is not Outcome.CANCELLED and not self.manual,
            )
            try:
                reply = await self.shared.uninterrupted(self._recorder.record, message)
            except LeaseLost:
                status = await self.shared.uninterrupted(self._recorder.carried_out)
                if status is verdict.recorded:
                    return verdict.outcome
                if status is not None:
                    return _SAID[status]
                self._mark_lost()
                continue
            except OutcomeNotRecorded as exc:
                self._recorder.later(message, exc)
                raise
            if reply.cancel is None:
                return verdict.outcome
            self._signals.deliver(reply.cancel)  # it came while the body ended: it stands

    def _facts(self, error: BaseException | None, around_cancelled: bool) -> Facts:
        cancelled, paused = manual_signal(error) if self.manual else (False, False)
        stopped = self._stopped or local_stop(error)
        if stopped is None and around_cancelled:
            stopped = "stopped by a cancelled scope around the block"
        return Facts(
            lease_lost=self._lost,
            said=self._said,
            cancelled=cancelled or self._signals.cancel is not None,
            paused=paused or self._pause_acknowledged or self._signals.paused,
            stopped=stopped,
            error=error,
        )

    def _acknowledged_by(self, outcome: Outcome) -> Signal | None:
        """The signal that an outcome carries out."""
        wanted = {Outcome.CANCELLED: SignalType.CANCEL, Outcome.PAUSED: SignalType.PAUSE}
        for signal in (self._signals.cancel, self._signals.pause, self._seen):
            if signal is not None and signal.type is wanted.get(outcome):
                return signal
        return None


_SAID = {
    InstanceStatus.COMPLETED: Outcome.COMPLETED,
    InstanceStatus.FAILED: Outcome.FAILED,
    InstanceStatus.SUSPENDED: Outcome.PAUSED,
    InstanceStatus.CANCELLED: Outcome.CANCELLED,
}
