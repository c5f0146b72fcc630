"""One worker: what it claims, and when.

It claims no more than it has free slots, when there is news, when something is due, and once a
second where nobody tells it. It sweeps for the runs of dead owners all the time. What it has
claimed it runs, or gives back.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping

import trio

from .. import logs, measures
from ..engine.services import SharedBackend, keep_running
from ..errors import SdkError
from ..messages import (
    Claimed,
    ClaimedRun,
    ClaimRuns,
    LookForWork,
    RecoverRuns,
    SetQueues,
    SetSchedules,
    Trace,
)
from ..sdk.schedules import stored
from ..tasks import RepeatedEvent
from .marks import AGAIN, Marks
from .run import Run, given_back
from .scheduling import Scheduling
from .settings import Settings, WorkerHealth, time_of
from .slots import Slots
from .telling import Telling

BATCH = 100
"""Runs that one claim takes at most."""

LOOK = 0.9
"""Seconds between two looks where nobody tells of news."""

LOOK_AGAIN, MOST_DOUBTS = 0.3, 20
"""The same while an owner may be dead, for so many looks at most."""

CHECK_SLOTS = 0.05
"""Seconds between two looks at whether runs wait, while no slot is free or one run is alone: Trio
tells nobody when a task ends."""

SOONEST = 5
"""Milliseconds before a claim of what is due, at least: what is due comes in batches."""


class Worker:
    """Claims runs of workflows and runs them; open it with :func:`open_worker`."""

    pause_grace = final_timeout = 30.0
    """Seconds, as of ``open_runtara``."""

    def __init__(self, shared: SharedBackend, settings: Settings) -> None:
        self.shared = shared
        self.codec = settings.codec
        self.slots = Slots(settings.slots)
        self.settings = settings
        self._runs: dict[str, Run] = {}
        self._alone: tuple[Run, int] | None = None
        self._wake = RepeatedEvent()
        self._may_be_ready = True
        self._suspects = False
        self._in_vain = False
        """No suspect could be taken: those that are ready are not held back for one."""
        self._lost_claim = False
        self._turns: Mapping[tuple[str, ...], str] = {}
        self._due_at = math.inf
        self.marks = Marks(shared, lambda: self.held(wanted=False))
        self.heard = 0
        self._news = RepeatedEvent()
        self._telling = Telling(self)
        self._last_look = self._last_turn = shared.clock.now()
        self._trouble = logs.Outage(logs.claim_failed, f"a claim of worker {settings.name}")
        self.blind = logs.Outage(logs.claim_failed, f"the look of worker {settings.name}")
        self._ended = trio.Event()
        self.draining = False
        """It claims nothing more."""
        self.ended_by: BaseException | None = None
        """What a run raised that ends the process."""

    @property
    def name(self) -> str:
        return self.settings.name

    @property
    def loaded(self) -> Iterable[Run]:
        """The runs in its memory."""
        return self._runs.values()

    @property
    def runs(self) -> str:
        """The names and versions of its workflows, as a text."""
        return ", ".join(f"{name} {version}" for name, version in self.settings.workflows)

    def health(self) -> WorkerHealth:
        """How it is now."""
        oldest = min(
            (run.block.boundary.reached_at for run in self._runs.values() if run.has_slot),
            default=None,
        )
        if oldest is not None:
            oldest = self.shared.clock.now() - (trio.current_time() - oldest)
        return WorkerHealth(
            last_look=time_of(self._last_look),
            last_turn=time_of(self._last_turn),
            oldest_boundary=None if oldest is None else time_of(oldest),
            loaded=len(self._runs),
            slots=self.slots.total,
            working=self.slots.held,
            draining=self.draining,
        )

    # ---- its life

    async def begin(self) -> None:
        """Say that it is there; the store's tables are made. Raises what the store raises."""
        if self.settings.declared:
            await self.shared.request(SetQueues(queues=self.settings.declared))
        if self.settings.schedules:
            now = self.shared.clock.now()
            schedules = tuple(stored(one, self.codec, now) for one in self.settings.schedules)
            await self.shared.request(SetSchedules(schedules=schedules))
        await self._telling.announce()
        logs.worker_started(worker=self.name, workflow=self.runs)

    @trio.lowlevel.enable_ki_protection
    async def serve(self) -> None:
        """Claim and run, until it was drained. Not to be cancelled before that."""
        self.shared.on_news[self._hear] = None
        try:
            async with trio.open_nursery() as services:
                services.start_soon(keep_running, self._check_slots)
                services.start_soon(keep_running, self._telling.mark_runs)
                services.start_soon(keep_running, Scheduling(self).run)
                if measures.listened():
                    services.start_soon(keep_running, self._telling.sample)
                if not self.shared.alone:  # else nobody can change anything untold
                    services.start_soon(keep_running, self._look)
                    services.start_soon(keep_running, self._telling.announce_again)
                async with trio.open_nursery() as runs:
                    await self._claim_all(runs)
                services.cancel_scope.cancel()
            with trio.move_on_after(self.final_timeout):
                await self._telling.announce(leaves=True)
        except SdkError as exc:
            self._trouble.goes_on(str(exc))
        finally:
            del self.shared.on_news[self._hear]
            self._ended.set()

    def drain(self, cause: str = "as asked") -> None:
        """Claim nothing more; each run stops at its next boundary, and is another worker's.
        The log has the ``cause``."""
        if self.draining:
            return
        self.draining = True
        logs.worker_drains(worker=self.name, count=len(self._runs), cause=cause)
        for run in list(self._runs.values()):
            run.drain(self.settings.drain_timeout)
        self._wake.set()

    def stop(self) -> None:
        """Cancel what still runs; it is recorded as stopped, and is another worker's."""
        self.drain()
        for run in list(self._runs.values()):
            run.stop("stopped by its worker")

    async def wait_ended(self) -> None:
        """Until nothing runs any more."""
        await self._ended.wait()

    def held(self, *, wanted: bool = True) -> dict[str, int]:
        """By queue, how many of its runs hold a place; or want one."""
        places = Counter(
            one.queue for one in self._runs.values() if one.has_place or (wanted and one.wants)
        )
        return dict(places)

    # ---- what runs tell

    def freed(self) -> None:
        self._wake.set()
        self._telling.hear_of_wait()

    async def until_news(self, heard: int) -> None:
        with trio.move_on_after(self.shared.every(LOOK)):
            while self.heard == heard:
                await self._news.wait()

    def end_with(self, error: BaseException) -> None:
        self.ended_by = self.ended_by or error
        self.drain(f"ended by {type(error).__name__}")

    def _hear(self) -> None:
        """There is news in the store."""
        self._may_be_ready = True
        self._in_vain = False
        self.heard += 1
        self._wake.set()
        self._news.set()

    # ---- claiming

    async def _claim_all(self, runs: trio.Nursery) -> None:
        while not self.draining:
            suspect = self._suspects and not self.slots.held
            held_back = self._suspects and bool(self.slots.held) and not self._in_vain
            if self.slots.free and (suspect or (self._may_be_ready and not held_back)):
                try:
                    # Not left half-way: what was taken must be run.
                    with trio.CancelScope(shield=True):
                        await self._claim(runs, suspect=suspect)
                    self._trouble.over()
                except Exception as exc:
                    if isinstance(exc, SdkError):
                        self._trouble.goes_on(str(exc))
                    else:  # a mistake of ours: what runs must not suffer from it
                        logs.service_failed(exc_info=exc, task="claim", error=str(exc))
                    self._lost_claim = self._may_be_ready = True
                    await self._pause()
            else:
                await self._wait()

    async def _claim(self, runs: trio.Nursery, *, suspect: bool) -> None:
        self._may_be_ready = self._suspects = False
        settings = self.settings
        limit = 1 if suspect else min(self.slots.free, BATCH)
        asked = trio.current_time()
        with self.slots.reserved(limit):  # for what comes: those that go on wait for others
            reply = await self.shared.request(
                ClaimRuns(
                    queues=settings.queues,
                    workflows=tuple(settings.workflows),
                    tenant_ids=settings.tenant_ids,
                    limit=limit,
                    suspect=suspect,
                    lost=self._lost_claim,
                    turns=self._turns,
                    working=self.held(),
                )
            )
            measures.claim_duration(trio.current_time() - asked)
            ids, tracing = (one.instance_id for one in reply.runs), self.shared.tracing
            traces = {} if tracing is None else await tracing.known(ids)
            self._take_over(runs, reply, traces, suspect=suspect)

    def _take_over(
        self, runs: trio.Nursery, reply: Claimed, traces: Mapping[str, Trace], *, suspect: bool
    ) -> None:
        if suspect:
            self._in_vain = not reply.runs
        self._last_look = self.shared.clock.now()
        self._lost_claim = False
        self._turns = reply.turns
        self._due_in(reply.due_in_ms)
        self._may_be_ready = self._may_be_ready or reply.more or suspect
        for claimed in reply.runs:
            if self.draining:
                runs.start_soon(self._give_back, claimed)
            else:
                if claimed.waited_ms is not None:
                    measures.claim_latency(claimed.waited_ms / 1000, queue=claimed.queue)
                trace = traces.get(claimed.instance_id)
                self._begin(runs, claimed, trace, suspect=suspect)

    def _begin(
        self, runs: trio.Nursery, claimed: ClaimedRun, trace: Trace | None, *, suspect: bool
    ) -> None:
        workflow = self.settings.workflows[claimed.workflow, claimed.version]
        run = Run(self, claimed, workflow, trace)
        self._runs[claimed.instance_id] = run
        self.slots.begin(alone=suspect)
        if suspect:
            self._alone = run, run.block.requests.saved
        self._wake.set()  # the slots may be full now
        runs.start_soon(self._run, run, name=f"run {claimed.instance_id}")

    @trio.lowlevel.enable_ki_protection
    async def _run(self, run: Run) -> None:
        try:
            await run.run()
        except Exception as exc:  # a mistake of ours: the others must not suffer from it
            logs.service_failed(exc_info=exc, task=f"run {run.instance_id}", error=str(exc))
        finally:
            if self._runs.get(run.instance_id) is run:
                del self._runs[run.instance_id]
            self._end_alone()
            # Of its queue another one may be taken: a claim before this did not know that.
            self._may_be_ready = self._may_be_ready or run.limited
            self._wake.set()

    @trio.lowlevel.enable_ki_protection
    async def _give_back(self, claimed: ClaimedRun) -> None:
        """A run that came while the worker drains: others take it, at the latest at its end."""
        try:
            await self.shared.request(given_back(claimed))
        except SdkError as exc:
            logs.request_failed(task=f"give back {claimed.instance_id}", error=str(exc))

    def _end_alone(self) -> None:
        """Let others work again, once the run that is alone has come to a checkpoint."""
        if self._alone is None:
            return
        run, saved = self._alone
        going = self._runs.get(run.instance_id) is run and run.has_slot
        if not going or run.block.requests.saved > saved:
            self._alone = None
            self.slots.share()

    def _due_in(self, ms: int | None) -> None:
        """The next run is due then, by the store's clock; it is waited for by Trio's."""
        self._due_at = math.inf if ms is None else trio.current_time() + max(ms, SOONEST) / 1000

    async def _wait(self) -> None:
        """Until something wakes the worker, or something is due."""
        if self.draining:
            return
        with trio.move_on_at(self._due_at if self.slots.free else math.inf):
            await self._wake.wait()
            return
        self._may_be_ready = True

    async def _pause(self) -> None:
        """Wait before another try, whatever is due; not once it drains."""
        with trio.move_on_after(AGAIN):
            while not self.draining:
                await self._wake.wait()

    # ---- services

    async def _look(self) -> None:
        """Look for what nobody told of, and for the runs of dead owners."""
        doubts = 0
        while True:
            await trio.sleep(self.shared.every(LOOK_AGAIN if 0 < doubts < MOST_DOUBTS else LOOK))
            self._last_turn = self.shared.clock.now()
            try:
                doubts = doubts + 1 if await self._look_once() else 0
                self.blind.over()
            except SdkError as exc:
                self.blind.goes_on(str(exc))

    async def _look_once(self) -> bool:
        """True: the owner of some run may be dead, which will be known soon."""
        settings = self.settings
        work = await self.shared.request(
            LookForWork(
                queues=settings.queues,
                workflows=tuple(settings.workflows),
                tenant_ids=settings.tenant_ids,
            )
        )
        self._last_look = self.shared.clock.now()
        ready, recovered = work.ready, False
        if work.dead:
            found = await self.shared.request(
                RecoverRuns(dead=work.dead, max_recoveries=settings.max_recoveries)
            )
            if found.count:
                logs.recovered(count=found.count)
            for instance in found.parked:
                logs.run_parked(instance_id=instance)
            ready = ready or bool(found.count)
            self._in_vain = self._in_vain and not found.count
            recovered = bool(found.count or found.parked)
        self._suspects = work.suspect and not self.draining
        self._due_in(work.due_in_ms)
        self._may_be_ready = self._may_be_ready or ready
        self._wake.set()
        return bool(work.dead) and not recovered

    async def _check_slots(self) -> None:
        """See which runs wait, unload what is too many, and let go what was alone."""
        while True:
            await self._wake.wait()
            while not self.slots.free or len(self._runs) > self.settings.max_loaded:
                for run in list(self._runs.values()):
                    run.waits()
                self._end_alone()
                self._unload()
                await trio.sleep(CHECK_SLOTS)

    def _unload(self) -> None:
        """Unload the runs that will wait longest, where there are too many."""
        unwinding = sum(run.unwinds for run in self._runs.values())
        excess = len(self._runs) - unwinding - self.settings.max_loaded
        if excess <= 0:
            return
        found = [(run, waits) for run in self._runs.values() if (waits := run.unloadable())]
        found.sort(key=lambda one: min(wait.until_ms or math.inf for wait in one[1]), reverse=True)
        for run, waits in found[:excess]:
            run.unload(waits)
