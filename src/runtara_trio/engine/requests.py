"""What leaves a block: its messages, and what they wait for."""

from __future__ import annotations

from typing import Any

import outcome
import trio

from ..errors import LeaseLost
from ..messages import Checkpoint, CheckpointReply, ReplyT, Request
from ..tasks import InFlight
from ..types import StepOutcome
from . import deadlines
from .history import History, Open
from .inbox import Inbox
from .past import Past, leaves_trace
from .services import SharedBackend
from .state import State


class Requests:
    """The messages of one block."""

    __slots__ = ("_history", "_inbox", "_shared", "_state", "_under_way", "past", "saved")

    def __init__(
        self,
        state: State,
        shared: SharedBackend,
        under_way: InFlight,
        inbox: Inbox,
        history: History,
    ) -> None:
        self._state = state
        self._shared = shared
        self._under_way = under_way
        self._inbox = inbox
        self._history = history
        self.saved = 0
        """How many new checkpoints this run has saved."""
        self.past = Past(state.instance_id, self._send)

    async def request(self, message: Request[ReplyT]) -> ReplyT:
        """Ask the backend; a refused lease ends the body."""
        self._state.check_open()
        if message.writes:
            await self._before_writing(message)
        return await self._send(message)

    async def save(self, message: Request[ReplyT]) -> ReplyT:
        """A request that saves work. Inside a step its effect has happened: it is shielded.

        Else it raises Cancelled in a cancelled scope, before it is sent; cancelled once it is
        sent, its answer is waited for for a moment (``tasks.GRACE``).

        Raises:
          RequestTimeout: inside a step, there was no answer within ``request_timeout_ms``, or
            within ``final_timeout`` once the body is to end.
        """
        signals = self._state.signals
        if not signals.boundary.in_step:
            return await self.request(message)
        self._state.check_open()
        with trio.CancelScope(shield=True) as shield:
            await self._before_writing(message)
            timeout = signals.patience(self._shared.request_timeout)
            shield.deadline = trio.current_time() + timeout
            signals.saves.add(shield)
            try:
                return await self._send(message)
            finally:
                signals.saves.discard(shield)
        await trio.lowlevel.checkpoint_if_cancelled()
        raise self._shared.no_answer(message, timeout)

    async def save_after_work(self, message: Request[ReplyT]) -> ReplyT:
        """A request that works for as long as it takes, and then saves. Cancelled, it is waited for
        within ``final_timeout``, and then undone: it raises Cancelled."""
        self._state.check_open()
        await self._before_writing(message)
        sent: outcome.Maybe[ReplyT] | None = None
        try:
            async with trio.open_nursery() as nursery:
                with trio.CancelScope(shield=True) as shield:
                    nursery.start_soon(self._hurry, shield)
                    sent = await outcome.acapture(self._send, message)
                nursery.cancel_scope.cancel()
        except* trio.Cancelled:
            if not isinstance(sent, outcome.Value):
                raise
        # Saved, it is told in this run as in the next: the scope cancels what comes after.
        assert sent is not None
        return sent.unwrap()

    async def _hurry(self, shield: trio.CancelScope) -> None:
        """Once the task around is cancelled, wait no longer than ``final_timeout``."""
        try:
            await trio.sleep_forever()
        finally:
            shield.deadline = trio.current_time() + self._state.signals.final_timeout

    async def checkpoint(
        self,
        checkpoint_id: str,
        state: bytes,
        ends: Open | None = None,
        outcome: StepOutcome = StepOutcome.DONE,
    ) -> CheckpointReply:
        """Save a state, or get the one that is there; signals in the answer are delivered.

        ``ends``: the step that it ends, with this outcome.
        """
        lease = self._state.lease_for_write()
        steps = self._history.take(ends, outcome)
        try:
            reply = await self.save(
                Checkpoint(
                    instance_id=self._state.instance_id,
                    lease=lease,
                    checkpoint_id=checkpoint_id,
                    state=state,
                    steps=steps,
                )
            )
        except BaseException:
            self._history.put_back(steps)
            raise
        self.saved += not reply.found
        self._inbox.deliver(reply.pending_signal, reply.version)
        return reply

    async def find(self, checkpoint_id: str) -> bytes | None:
        """What is stored under an id, by this run or an earlier one; None: nothing."""
        self._state.check_open()
        return await self.past.find(checkpoint_id)

    async def _before_writing(self, message: Request[Any]) -> None:
        """Tell a deadline that is over what is new, and wait for the end of a hold."""
        if deadlines.replaying() and leaves_trace(message):
            await deadlines.note(await self.past.trace(message))
        if self._inbox.holds.is_on:
            await self._inbox.holds.until_running()

    async def _send(self, message: Request[ReplyT]) -> ReplyT:
        if deadlines.replaying():
            with deadlines.asking():
                return await self._sent(message)
        return await self._sent(message)

    async def _sent(self, message: Request[ReplyT]) -> ReplyT:
        if not message.writes:  # a hold need not wait for it
            return await self._shared.request(message)
        self._under_way.begin()
        try:
            return await self._shared.request(message)
        except LeaseLost:
            self._state.lose(self._state.lease)
            raise
        finally:
            self._under_way.end()
