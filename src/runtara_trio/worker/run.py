"""One run of a workflow in a worker: its body, its slot, and what becomes of it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Protocol

import trio

from .. import logs, measures
from ..codec import Codec
from ..engine.block import Block
from ..engine.outcome import contains, is_trouble, leaves_of
from ..engine.services import SharedBackend
from ..engine.signals import Cause
from ..engine.waits import Wait
from ..errors import InstanceFailed, LeaseLost, OutcomeNotRecorded, SdkError
from ..ids import WORKFLOW_TIMEOUT
from ..messages import ClaimedRun, Next, RecordOutcome, Registered, Trace
from ..sdk.current import make_current
from ..sdk.retry import RetryPolicy
from ..sdk.runtara_sdk import RuntaraSdk
from ..sdk.waiting import deadline
from ..sdk.workflow import AnyWorkflow, run_workflow
from ..types import InstanceStatus, RunState
from .marks import Mark, Marks
from .slots import Slots

AGAIN_MS = 1000
"""Milliseconds after which a run is tried again that a store's trouble has ended."""

LONGEST_DELAY = 3600.0
"""Seconds between two attempts at most."""


class TimedOut(Exception):
    """The deadline of a whole workflow has passed."""


class Host(Protocol):
    """What a run needs of its worker."""

    @property
    def name(self) -> str:
        """What it is called."""

    shared: SharedBackend
    codec: Codec
    slots: Slots
    marks: Marks
    pause_grace: float
    final_timeout: float

    def freed(self) -> None:
        """A slot may be free, or a run has ended."""

    heard: int
    """How often there was news."""

    async def until_news(self, heard: int) -> None:
        """Until a place of a queue may be free: there is news that was not heard before."""

    def end_with(self, error: BaseException) -> None:
        """A run raised what ends the process: drain."""


class Run:
    """One claimed run."""

    def __init__(
        self, host: Host, claimed: ClaimedRun, workflow: AnyWorkflow, trace: Trace | None
    ) -> None:
        self._host = host
        self._trace = trace
        self._claimed = claimed
        self._workflow = workflow
        self._how = RetryPolicy(
            max_retries=workflow.max_attempts - 1,
            delay=workflow.retry_delay,
            max_delay=LONGEST_DELAY,
            jitter=False,
            retry_on=_may_pass,
            timeout=None,
            on_retry=None,
        )
        self._taking = trio.Lock()
        self.mark = Mark.UNTOLD
        """Whether the store was told that it waits."""
        self.has_slot = True
        self.waits_since = math.inf
        """Since when it holds no slot, by Trio's clock."""
        self.wants = False
        """It wants a place of its queue."""
        self.block = Block(
            host.shared,
            claimed.instance_id,
            claimed.tenant_id,
            manual=False,
            pause_grace=host.pause_grace,
            final_timeout=host.final_timeout,
            codec=host.codec,
        )
        self.block.boundary.reached_at = trio.current_time()
        self.block.history.worker = host.name
        self.block.state.workflow = workflow.name
        self._sdk = RuntaraSdk(self.block, host.codec, None)

    @property
    def instance_id(self) -> str:
        return self._claimed.instance_id

    @property
    def queue(self) -> str:
        return self._claimed.queue

    @property
    def limited(self) -> bool:
        return self._claimed.limited

    @property
    def has_place(self) -> bool:
        """Whether it counts for the limits of its queue."""
        return self.mark is not Mark.TOLD

    # ---- its waits

    def waits(self) -> None:
        """Give the slot back if all tasks wait."""
        if self.has_slot and self.block.waits.all() is not None:
            self.has_slot = False
            self.waits_since = trio.current_time()
            self._host.slots.give()
            self._host.freed()

    def goes_on(self) -> bool:
        """Take a slot again where one is free, and the store need not be asked."""
        if self.has_slot or self._taking.locked() or self.mark is not Mark.UNTOLD:
            return self.has_slot
        self.has_slot = self._host.slots.take_nowait()
        if self.has_slot:
            self.waits_since = math.inf
            measures.slot_wait(0)
        return self.has_slot

    async def go_on(self) -> None:
        """Take a place of its queue and a slot again, unless another task of this run has."""
        async with self._taking:
            if self.has_slot:
                return
            self.wants = True
            try:
                while self.mark is not Mark.UNTOLD:
                    heard = self._host.heard
                    if not await self._host.marks.remove(self):
                        await self._host.until_news(heard)
            finally:
                self.wants = False
            self.waits_since = math.inf
            asked = trio.current_time()
            await self._host.slots.take()
            measures.slot_wait(trio.current_time() - asked)
            self.has_slot = True

    # ---- what ends it from outside

    def drain(self, grace: float) -> None:
        """Stop at the next boundary, within ``grace`` seconds."""
        signals = self.block.signals
        signals.drain(grace)
        self._host.shared.start_soon(signals.boundary.check_steps)

    def stop(self, reason: str) -> None:
        """Stop now."""
        self.block.stop(reason)

    @property
    def unwinds(self) -> bool:
        """Whether its body is told to end."""
        return self.block.scope.cancel_called

    def unloadable(self) -> list[Wait] | None:
        """What it waits for, where it may be unloaded."""
        if self.has_slot or self._taking.locked():
            return None
        return self.block.unloadable()

    def unload(self, waits: list[Wait]) -> None:
        """Have the body unwind; the run is ready again when something of this is there."""
        due = min((one.until_ms for one in waits if one.until_ms is not None), default=None)
        state = RunState.WAITING if due is None else RunState.TIMED
        place = Next(
            state=state,
            due_ms=due,
            waiting_for=_all(one.signal for one in waits),
            children=_all(one.child for one in waits),
            blocks=_all(one.block for one in waits),
            failing=_all(one.failing for one in waits),
        )
        self.block.unload(place, Cause.UNLOAD)

    # ---- running it

    async def run(self) -> None:
        """Run the body, and record what became of it. Raises nothing of the body's."""
        claimed, block = self._claimed, self.block
        block.waits.begin(self)
        block.begin(
            Registered(
                lease=claimed.lease,
                signal=claimed.signal,
                version=0,
                resumed=claimed.resumed,
                taken_from=claimed.taken_from,
            ),
            trace=self._trace,
            attempt=claimed.attempt,
            recoveries=claimed.recoveries,
            version=claimed.version,
            queue=claimed.queue,
        )
        block.state.parent_id = claimed.parent_id
        block.state.has_children = claimed.children
        make_current(self._sdk)
        self._sdk._root.mine()  # made in the task that has claimed it
        raised: BaseException | None = None
        try:
            with block.current_span(), block.scope:
                try:
                    block.ending.output = await self._body()
                except BaseException as exc:
                    raised = exc
                    raise
        except BaseException as exc:
            raised = exc if raised is None or contains(raised, trio.Cancelled) else raised
            if not isinstance(raised, Exception) and _ends_the_process(raised):
                self._host.end_with(raised)
        around_cancelled = trio.current_effective_deadline() == -math.inf  # its worker has failed
        block.waits.turns = None
        if isinstance(raised, (Exception, BaseExceptionGroup)) and not around_cancelled:
            block.ending.again = self._again(raised)
            self._tell(raised)
        try:
            await block.ending.finish(raised, around_cancelled=around_cancelled)
        except (LeaseLost, OutcomeNotRecorded):
            pass  # logged; who has it now goes on, or its next worker
        finally:
            if self.has_slot:
                self.has_slot = False
                self._host.slots.give()

    @trio.lowlevel.disable_ki_protection
    async def _body(self) -> bytes:
        run = run_workflow(self._workflow, self._sdk, self._host.codec, self._claimed.input)
        if self._workflow.timeout is None:
            return await run
        try:
            async with deadline(self.block, WORKFLOW_TIMEOUT, self._workflow.timeout):
                return await run
        finally:
            run.close()
        raise TimedOut("timed out")

    def _again(self, error: BaseException) -> Next | None:
        """What becomes of a run whose body raised; None: it has failed."""
        if self.block.scope.cancel_called:
            return None  # what has cancelled it decides
        leaves = leaves_of(error)
        if is_trouble(error):
            return Next(state=RunState.TIMED, due_ms=self._in_ms(AGAIN_MS))
        how, attempt = self._how, self._claimed.attempt
        if not isinstance(error, Exception) or how.is_last(attempt - 1) or not how.retries(error):
            return None
        if any(isinstance(leaf, TimedOut) for leaf in leaves):
            return None
        return Next(state=RunState.TIMED, due_ms=self._in_ms(how.wait(attempt) * 1000), counts=True)

    def _in_ms(self, ms: float) -> int:
        return int(self._host.shared.clock.now() * 1000 + ms)

    def _tell(self, error: BaseException) -> None:
        if not contains(error, trio.Cancelled) and not contains(error, LeaseLost):
            logs.run_failed(
                exc_info=error,
                instance_id=self.instance_id,
                workflow=self._workflow.name,
                attempt=self._claimed.attempt,
                error=type(error).__name__,
            )


def _may_pass(error: Exception) -> bool:
    """Whether another attempt may go better: its failed children are tried again with it."""
    return not any(
        isinstance(leaf, SdkError) and not isinstance(leaf, InstanceFailed)
        for leaf in leaves_of(error)
    )


def _all(names: Iterable[str | None]) -> tuple[str, ...]:
    return tuple(sorted({one for one in names if one is not None}))


def _ends_the_process(error: BaseException) -> bool:
    return contains(error, KeyboardInterrupt) or contains(error, SystemExit)


def given_back(claimed: ClaimedRun) -> RecordOutcome:
    """What makes a run ready again that nobody has begun."""
    return RecordOutcome(
        instance_id=claimed.instance_id,
        lease=claimed.lease,
        status=InstanceStatus.SUSPENDED,
        payload=b"given back: its worker drains",
        next=Next(state=RunState.READY),
    )
