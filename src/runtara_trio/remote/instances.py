"""What a client knows of its instances, and the pieces that its verbs are made of.

An instance that is registered is looked after: its signals are polled for where nothing
else brings them along, and told apart from those that it has acknowledged. What the server
has handed out is saved, whatever becomes of who asked for it.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Awaitable, Callable
from typing import Any

import outcome
import trio

from ..backend import SignalBatch
from ..clock import Clock
from ..config import SdkConfig
from ..errors import SdkError, Unreachable
from ..ids import signal_id, signal_payload, signal_record
from ..messages import Checkpoint, PendingSignal
from ..tasks import GRACE, Answer
from ..types import InstanceStatus, Signal, SignalType
from ..wire import calls
from .acknowledged import Acknowledged
from .asking import Asking
from .names import signal_of, status_of
from .polling import Polls, Wait


class Instances:
    """The instances that are registered through one client."""

    def __init__(
        self, asking: Asking, config: SdkConfig, clock: Clock, nursery: trio.Nursery
    ) -> None:
        self.server = asking.name
        self.trouble = asking.trouble
        self.acks_suspend = asking.acks_suspend
        self.tells_all = asking.tells_all
        self.wakes = asking.wakes
        asking.kept = self._note_kept
        self.ask = asking.ask
        self.tell = asking.tell
        self.input = asking.input
        self.operate = asking.operate
        self.now_ms: Callable[[], int] = lambda: int(clock.now() * 1000)
        self.next_version = itertools.count(1).__next__
        self.polls = Polls(config.signal_poll_interval_ms / 1000)
        self._nursery = nursery
        self._acknowledged: dict[str, Acknowledged] = {}
        self.sent: dict[str, InstanceStatus] = {}
        """Outcomes that were sent, and may have arrived."""
        self.taken: dict[str, set[str]] = {}
        """Signals by instance that this run has taken: who else waits for one reads it."""
        self.held: set[str] = set()
        """Suspended, and waiting to go on: a cancel may show in their status alone."""
        asking.held = self.held
        self._news, self.batches = trio.open_memory_channel[SignalBatch](1000)

    # ---- what an instance has here

    def enter(self, instance_id: str, *, resumed: bool) -> None:
        """It was registered: its signals are polled for from now on."""
        self._acknowledged[instance_id] = Acknowledged(instance_id, self, resumed=resumed)
        self.sent.pop(instance_id, None)
        self.polls.add((instance_id, None))

    def leave(self, instance_id: str) -> None:
        """It has ended, or is another's."""
        self._acknowledged.pop(instance_id, None)
        self.sent.pop(instance_id, None)
        self.held.discard(instance_id)
        self.taken.pop(instance_id, None)
        self.polls.remove((instance_id, None))

    def acknowledged(self, instance_id: str) -> Acknowledged:
        known = self._acknowledged.get(instance_id)
        return Acknowledged(instance_id, self) if known is None else known

    async def fresh(
        self, instance_id: str, found: calls.Signal | None, version: int
    ) -> Signal | None:
        """What a look found, if it is news."""
        self.polls.answered((instance_id, None))
        return await self.acknowledged(instance_id).fresh(signal_of(found), version)

    def _note_kept(self, instance_id: str, checkpoint_id: str) -> None:
        self.taken.setdefault(instance_id, set()).add(checkpoint_id)
        if (instance_id, checkpoint_id) in self.polls:  # somebody waits for it
            hint = SignalBatch(hints=((instance_id, checkpoint_id),))
            self._nursery.start_soon(self.publish, hint)

    # ---- pieces of answers

    async def read(self, instance_id: str, checkpoint_id: str, /) -> bytes | None:
        """What is stored under an id."""
        call = calls.GetCheckpoint(instance_id, checkpoint_id)
        answer, _ = await self.ask(call, calls.GetCheckpointAnswer)
        return answer.state if answer.found else None

    async def save(self, instance_id: str, checkpoint_id: str, state: bytes, /) -> bytes:
        """Store a state, or get the one that is there."""
        call = calls.Checkpoint(instance_id, checkpoint_id, state)
        answer, _ = await self.ask(call, calls.CheckpointAnswer)
        return answer.state if answer.found else state

    async def status(self, instance_id: str) -> calls.GetInstanceStatusAnswer:
        call = calls.GetInstanceStatus(instance_id)
        return (await self.ask(call, calls.GetInstanceStatusAnswer))[0]

    async def poll(self, instance_id: str) -> PendingSignal:
        version = self.next_version()
        answer, _ = await self.ask(calls.PollSignals(instance_id), calls.PollSignalsAnswer)
        return PendingSignal(
            signal=await self.fresh(instance_id, answer.signal, version), version=version
        )

    async def keep(self, instance_id: str, checkpoint_id: str, payload: bytes) -> bytes | None:
        """Save a custom signal that was handed out: the server has deleted it. What stands."""
        record = signal_record(payload)
        return signal_payload(await self.save(instance_id, signal_id(checkpoint_id), record))

    async def carried_through(self, function: Callable[..., Awaitable[Any]], *args: object) -> Any:
        """Run a function to its end, also where its caller is cancelled meanwhile; who is
        waits for a moment."""
        answer = Answer()

        async def run() -> None:
            closed = Unreachable(f"the client of {self.server} was closed meanwhile")
            result: outcome.Outcome[Any] = outcome.Error(closed)
            try:
                result = outcome.Value(await function(*args))
            except Exception as exc:
                result = outcome.Error(exc)
            finally:
                answer.give(result)

        self._nursery.start_soon(run)
        return await answer.wait(grace=GRACE)

    def rescue(self, message: Checkpoint, answer: calls.Answer) -> None:
        """The answer to a checkpoint whose caller was cancelled: a signal in it must be kept."""
        match answer:
            case calls.CheckpointAnswer(custom_signal=calls.CustomSignal() as signal):
                self._nursery.start_soon(
                    self._keep_quietly, message.instance_id, signal.checkpoint_id, signal.payload
                )

    async def _keep_quietly(self, *what: Any) -> None:
        with contextlib.suppress(SdkError):
            await self.keep(*what)

    # ---- the watch

    async def watch(self) -> None:
        """Poll for signals. Runs until cancelled."""
        await self.polls.run(self._look)

    async def _look(self, wait: Wait) -> None:
        instance, checkpoint_id = wait
        if checkpoint_id is not None:  # the one who waits takes it
            await self.publish(SignalBatch(hints=((instance, checkpoint_id),)))
            return
        try:
            found = await self.poll(instance)
            signal = found.signal
            if signal is None and instance in self.held:
                status = status_of((await self.status(instance)).status)
                if status is InstanceStatus.CANCELLED:
                    signal = Signal(SignalType.CANCEL)
        except SdkError:
            return  # the next one is due soon enough, and a lost lease is told to who writes
        await self.publish_signal(instance, signal, found.version)

    async def publish_signal(self, instance: str, signal: Signal | None, version: int) -> None:
        if signal is not None:
            await self.publish(SignalBatch(signals=((instance, signal),), version=version))

    async def publish(self, batch: SignalBatch) -> None:
        await self._news.send(batch)
