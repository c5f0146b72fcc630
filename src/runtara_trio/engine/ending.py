"""How a block ends: what the body says itself, and what its end is recorded as."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

from .. import logs, measures
from ..errors import LeaseLost, OutcomeNotRecorded
from ..messages import Next, RecordOutcome
from ..tasks import InFlight
from ..types import InstanceStatus, Outcome, RunState, Signal, SignalType
from . import deadlines
from .history import History
from .inbox import Inbox
from .outcome import Facts, Verdict, decide, local_stop, manual_signal
from .past import Past
from .recording import Recorder
from .services import SharedBackend, Watched
from .signals import Cause
from .state import State

_SAID = {
    InstanceStatus.COMPLETED: Outcome.COMPLETED,
    InstanceStatus.FAILED: Outcome.FAILED,
    InstanceStatus.SUSPENDED: Outcome.PAUSED,
    InstanceStatus.CANCELLED: Outcome.CANCELLED,
}

_CARRIED_OUT_BY = {Outcome.CANCELLED: SignalType.CANCEL, Outcome.PAUSED: SignalType.PAUSE}
"""Which signal an outcome carries out."""


_LOCAL = {
    Cause.DRAIN: "drained by its worker",
    Cause.UNLOAD: "unloaded while it waits",
    Cause.SLEEP: "ended while it sleeps",
}
"""Why a run is ended from here, by what cancelled its scope."""


class Ending:
    """The end of one block."""

    def __init__(
        self,
        block: Watched,
        state: State,
        shared: SharedBackend,
        under_way: InFlight,
        inbox: Inbox,
        past: Past,
        history: History,
        timeout: float,
    ) -> None:
        """``timeout``: seconds to record the outcome."""
        self._block = block
        self._state = state
        self._shared = shared
        self._under_way = under_way
        self._inbox = inbox
        self._past = past
        self._history = history
        self._timeout = timeout
        self._recorder = Recorder(state, shared, timeout)
        self.outcome: Outcome | None = None
        self.first: list[Callable[[], Awaitable[None]]] = []
        """What ends after the body, and before the outcome is recorded."""
        self.on_end: Callable[[], object] = lambda: None
        """Told that the body has ended."""
        self.output = b""
        """What is recorded of a body that returned."""
        self.again: Next | None = None
        """What becomes of a run whose body raised, where it is run again."""
        self.after_stop: Callable[[], Next] = lambda: Next(state=RunState.READY)
        """What becomes of a run that was stopped."""

    # ---- what the body says

    async def acknowledge(self, wanted: SignalType, pending: Signal | None) -> None:
        """Acknowledge a signal; a cancel is recorded at this moment."""
        if wanted is SignalType.CANCEL:
            await self.say(InstanceStatus.CANCELLED, b"", pending)
        elif pending is not None:
            await self._inbox.acknowledge(pending)
            if wanted is SignalType.PAUSE:
                self._state.pause_acknowledged = True

    async def say(
        self, status: InstanceStatus, payload: bytes, signal: Signal | None = None
    ) -> None:
        """Record what the body says it ends as, at this moment.

        Raises:
          OutcomeNotRecorded: not within ``final_timeout``.
        """
        state = self._state
        state.check_writable()
        await self._inbox.holds.until_running()
        await deadlines.new_work()
        await trio.lowlevel.checkpoint_if_cancelled()
        await self._history.close(self._timeout)
        message = RecordOutcome(
            instance_id=state.instance_id,
            lease=state.lease_for_write(),
            status=status,
            payload=payload,
            signal=signal or state.signals.pause,
            children=state.has_children,
            steps=self._history.last(),
        )
        state.saying = status
        try:
            with self._under_way.one():
                await self._shared.uninterrupted(self._record_said, message)
        except LeaseLost:
            state.mark_lost()
            raise
        finally:
            state.saying = None

    async def _record_said(self, message: RecordOutcome) -> None:
        """Record what the body says; kept here, where no Ctrl-C can come between."""
        try:
            await self._recorder.record(message)
        except LeaseLost:
            if await self._recorder.carried_out() is not message.status:
                raise
        self._state.said = _SAID[message.status]
        self._shared.detach(self._block)
        # What the body still does is clean-up: no pause ends it.
        self._state.signals.boundary.close()

    # ---- what becomes of the block

    async def finish(self, error: BaseException | None, *, around_cancelled: bool) -> None:
        """Decide what the block ended as, and record it.

        Args:
          error: what the body raised.
          around_cancelled: a scope around the block is cancelled.

        Raises:
          OutcomeNotRecorded: not within ``final_timeout``.
        """
        state, boundary = self._state, self._state.signals.boundary
        state.ended = True
        self.on_end()
        if self._inbox.holds.is_on:
            await self._shared.uninterrupted(self._end_hold)
        boundary.close()
        try:
            for close in self.first:
                await self._shared.uninterrupted(close)
            await self._history.close(self._timeout)
            self._inbox.hints.give_all()
            if state.signals.paused and not boundary.settled:
                logs.grace_over(instance_id=state.instance_id)
            if state.registered:
                self.outcome = await self._recorded(error, around_cancelled)
                logs.ended(instance_id=state.instance_id, outcome=self.outcome.value)
        except OutcomeNotRecorded as exc:
            # The body's own exception may hide it.
            logs.not_recorded(instance_id=state.instance_id, error=str(exc))
            raise
        finally:
            self._shared.detach(self._block)
            self._tell(error)
        hurried = around_cancelled or state.stopped is not None or self._shared.closed
        if self.outcome is Outcome.COMPLETED and self._past.tells_unvisited and not hurried:
            await self._shared.uninterrupted(self._past.tell_unvisited)

    def _tell(self, error: BaseException | None) -> None:
        """Say how it ended, or that it is not known, to whom measures and traces."""
        outcome = "unknown" if self.outcome is None else self.outcome.value
        state = self._state
        if state.registered:
            measures.run_finished(workflow=state.workflow, outcome=outcome)
            taken = trio.current_time() - state.began_at
            measures.run_duration(taken, workflow=state.workflow, outcome=outcome)
        if self._history.trace is not None:
            failed = self.outcome is Outcome.FAILED or self.again is not None
            raised = error if failed and isinstance(error, Exception) else None
            self._history.trace.end(raised, outcome=outcome)

    async def _end_hold(self) -> None:
        with trio.move_on_after(self._timeout):
            await self._inbox.holds.end()

    async def _recorded(self, error: BaseException | None, around_cancelled: bool) -> Outcome:
        state, steps = self._state, self._history.last()
        while True:
            verdict = decide(self._facts(error, around_cancelled))
            if verdict.recorded is None:
                return verdict.outcome
            message = RecordOutcome(
                instance_id=state.instance_id,
                lease=state.lease,
                status=verdict.recorded,
                payload=self._sealed(verdict),
                signal=self._carried_out_by(verdict.outcome),
                unless_cancelled=verdict.outcome is not Outcome.CANCELLED and not state.manual,
                next=self._next(verdict),
                children=state.has_children,
                steps=steps,
            )
            state.recording = True
            try:
                reply = await self._shared.uninterrupted(self._recorder.record, message)
            except LeaseLost:
                status = await self._shared.uninterrupted(self._recorder.carried_out)
                if status is verdict.recorded:
                    return verdict.outcome
                if status is not None:
                    return _SAID[status]
                state.mark_lost()
                continue
            except OutcomeNotRecorded as exc:
                self._recorder.later(message, exc)
                raise
            if reply.cancel is None:
                return verdict.outcome
            state.signals.deliver(reply.cancel)  # it came while the body ended: it stands

    def _sealed(self, verdict: Verdict) -> bytes:
        if not verdict.of_error:
            return verdict.payload
        return self._state.seal("error", "", verdict.payload.decode()).encode()

    def _next(self, verdict: Verdict) -> Next | None:
        """What becomes of a workflow's run; a pause waits for a resume."""
        if verdict.outcome is Outcome.PAUSED and self._state.signals.resumed:
            return Next(state=RunState.READY)
        if verdict.outcome is not Outcome.STOPPED:
            return None
        if self._state.stopped is None and self.again is not None:
            return self.again
        return self.after_stop()

    def _facts(self, error: BaseException | None, around_cancelled: bool) -> Facts:
        state, signals = self._state, self._state.signals
        cancelled, paused = manual_signal(error) if state.manual else (False, False)
        stopped = state.stopped or local_stop(error)
        if stopped is None and signals.cause in _LOCAL:
            stopped = _LOCAL[signals.cause]
        if stopped is None and around_cancelled:
            stopped = "stopped by a cancelled scope around the block"
        return Facts(
            lease_lost=state.lost,
            said=state.said,
            cancelled=cancelled or signals.cancel is not None,
            paused=paused or state.pause_acknowledged or signals.paused,
            stopped=stopped,
            error=error,
            tried_again=self.again is not None,
            output=self.output,
        )

    def _carried_out_by(self, outcome: Outcome) -> Signal | None:
        """The signal that an outcome carries out."""
        for signal in (self._state.signals.cancel, self._state.signals.pause, self._inbox.seen):
            if signal is not None and signal.type is _CARRIED_OUT_BY.get(outcome):
                return signal
        return None
