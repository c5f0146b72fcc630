"""One instance's run: its scope, and the parts that it is wired of."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import trio

from .. import logs, measures
from ..codec import JSON, Codec, error_text
from ..errors import InstanceFinished, SdkError
from ..ids import waited_for
from ..messages import Next, Register, Registered, Trace
from ..tasks import InFlight
from ..types import Outcome, Signal, StepKind
from .boundary import Boundary
from .counts import Counts
from .ending import Ending
from .history import History
from .inbox import Inbox
from .names import Names
from .past import Past
from .requests import Requests
from .services import SharedBackend, Watched
from .sharing import Runs
from .signals import Cause, SignalScope
from .state import State
from .uses import Uses
from .waits import Wait, Waits


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
        codec: Codec = JSON,
    ) -> None:
        self.shared = shared
        self.instance_id = instance_id
        self.tenant_id = tenant_id
        self.signals = SignalScope(
            instance_id, pause_grace, final_timeout, self._begin_hold if hold else None
        )
        self.state = State(instance_id, tenant_id, self.signals, manual=manual, codec=codec)
        under_way = InFlight()
        self.inbox = Inbox(self.state, shared, under_way, final_timeout)
        self.history = History(self.state, shared)
        self.requests = Requests(self.state, shared, under_way, self.inbox, self.history)
        self.ending = Ending(
            *(self, self.state, shared, under_way, self.inbox),
            *(self.requests.past, self.history, final_timeout),
        )
        self.uses = Uses()
        self.waits = Waits(self.signals)
        self.runs = Runs(self.boundary)
        self.names = Names()
        self.counts = Counts()

    @property
    def scope(self) -> trio.CancelScope:
        """The scope that the body runs in."""
        return self.signals.scope

    @property
    def boundary(self) -> Boundary:
        return self.signals.boundary

    @property
    def past(self) -> Past:
        return self.requests.past

    @property
    def outcome(self) -> Outcome | None:
        """What it ended as; None before its end."""
        return self.ending.outcome

    @asynccontextmanager
    async def noted_step(self, checkpoint_id: str) -> AsyncIterator[None]:
        """A step of the boundary, which is in the history."""
        async with self.boundary.step(checkpoint_id):
            with self.history.step(StepKind.STEP, checkpoint_id):
                yield

    async def register(self, checkpoint_id: str | None, revive: bool) -> None:
        """Take the instance, and deliver what waited for it. Not interrupted half-way."""
        self.state.check_open()
        if self.state.registered:
            raise SdkError(f"instance {self.instance_id!r} is registered already")
        await trio.lowlevel.checkpoint_if_cancelled()
        message = Register(
            instance_id=self.instance_id,
            tenant_id=self.tenant_id,
            checkpoint_id=checkpoint_id,
            revive=revive,
        )
        tracing = self.shared.tracing
        traces = {} if tracing is None else await tracing.known([self.instance_id])
        try:
            reply = await self.shared.uninterrupted(self.shared.in_time, message)
        except InstanceFinished as exc:
            exc.output = self.state.revealed("output", exc.output)
            exc.error = error_text(self.state.codec, self.instance_id, exc.error)
            raise
        self.begin(reply, skips=checkpoint_id is not None, trace=traces.get(self.instance_id))

    def begin(
        self, reply: Registered, *, skips: bool = False, trace: Trace | None = None, **about: Any
    ) -> None:
        """The instance is registered, by this block or by the claim of a worker.

        Args:
          skips: the start named a checkpoint to resume from.
          trace: what is known of the instance's trace.
          about: attributes of the run's span.
        """
        self.state.lease = reply.lease
        self.state.registered = True
        self.state.began_at = trio.current_time()
        self.inbox.begins(reply.version)
        self.shared.attach(self)
        logs.registered(
            instance_id=self.instance_id,
            tenant_id=self.tenant_id,
            lease=reply.lease,
            resumed=reply.resumed,
        )
        measures.run_started(workflow=self.state.workflow)
        if self.shared.tracing is not None:
            if self.waits.root is None:  # where it is a worker's, that has said so
                self.waits.begin(None)
            self.history.trace = self.shared.tracing.begin(
                f"run {self.state.workflow}".strip(),
                self.instance_id,
                reply.lease,
                trace,
                claimed=bool(self.state.workflow),
                all_wait=lambda: self.waits.all() is not None,
                is_held=lambda: self.inbox.holds.is_on,
                tenant_id=self.tenant_id,
                workflow=self.state.workflow,
                worker=self.history.worker,
                resumed=reply.resumed,
                taken_from=reply.taken_from,
                **about,
            )
        if reply.taken_from is not None:
            measures.takeovers()
            logs.taken_over(
                instance_id=self.instance_id, lease=reply.lease, taken_from=reply.taken_from
            )
        self.state.has_children = reply.resumed
        self.past.begins(resumed=reply.resumed, skips=skips, generation=reply.generation)
        self.deliver(reply.signal, reply.version)

    @contextmanager
    def current_span(self) -> Iterator[None]:
        """The span of the run is that of the calling task, where there is one."""
        if self.history.trace is None:
            yield
            return
        with self.history.trace.current():
            yield

    # ---- what the services of the backend call

    def deliver(self, signal: Signal | None, version: int) -> None:
        self.inbox.deliver(signal, version)

    def hint(self, checkpoint_id: str) -> None:
        self.inbox.hints.give(waited_for(checkpoint_id))

    def lose(self, lease: int) -> None:
        self.state.lose(lease)

    # ---- what ends or holds the body

    def stop(self, reason: str, error: BaseException | None = None) -> None:
        """This process wants to end; ``error`` is what says so, where it is one."""
        self.state.stopped = self.state.stopped or reason
        self.state.stopped_by = self.state.stopped_by or error
        if self.inbox.holds.is_on:
            self.inbox.holds.end_soon()  # it runs again first: its clean-up may write
        else:
            self.signals.end(Cause.STOP)

    def unloadable(self) -> list[Wait] | None:
        """What it waits for, where all its tasks wait and its body may unwind, to be run again."""
        if self.scope.cancel_called or self.boundary.pause_requested:
            return None
        waits = self.waits.all()
        return waits if waits and all(wait.can_unload for wait in waits) else None

    def unload(self, place: Next, cause: Cause) -> None:
        """Have the body unwind; ``place``: what becomes of the run."""
        self.ending.after_stop = lambda: place
        self.signals.end(cause)

    def _begin_hold(self) -> None:
        self.inbox.holds.begin()
        if self.history.trace is not None:
            self.history.trace.hold()
