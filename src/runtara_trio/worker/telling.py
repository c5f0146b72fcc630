"""What a worker tells by itself: the store, which of its runs wait; everybody, how it is."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Protocol

import trio

from .. import logs, measures
from ..engine.services import SharedBackend
from ..errors import SdkError
from ..messages import AnnounceWorker, ListQueues
from ..tasks import RepeatedEvent
from ..types import WorkerInfo
from .marks import Mark, Marks
from .run import Run
from .settings import Settings, WorkerHealth

MARK = 1.0
"""Seconds that a run waits before the store is told so."""

ANNOUNCE = 5.0
"""Seconds between two lines in the table of workers."""

LOOK = 1.0
"""Seconds between two looks at whether a line is due."""

SAMPLE = 5.0
"""Seconds between two looks for those who measure."""


class Teller(Protocol):
    """The worker."""

    shared: SharedBackend
    settings: Settings
    marks: Marks
    blind: logs.Outage
    draining: bool

    @property
    def loaded(self) -> Iterable[Run]:
        """The runs in its memory."""

    def health(self) -> WorkerHealth:
        """How it is now."""


class Telling:
    """Services of one worker."""

    def __init__(self, worker: Teller) -> None:
        self._worker = worker
        self._waits = RepeatedEvent()

    def hear_of_wait(self) -> None:
        """A run may wait now."""
        self._waits.set()

    async def mark_runs(self) -> None:
        """Say which runs wait. Runs until cancelled."""
        worker = self._worker
        while True:
            while untold := [one for one in worker.loaded if self._is_untold(one)]:
                await trio.sleep_until(min(one.waits_since for one in untold) + MARK)
                try:
                    await worker.marks.add(self._waiting)
                except SdkError as exc:
                    worker.blind.goes_on(str(exc))
                    await trio.sleep(MARK)
            await self._waits.wait()

    def _is_untold(self, run: Run) -> bool:
        """Whether the store does not know yet that a run waits."""
        return run.waits_since < math.inf and run.mark is not Mark.TOLD

    def _waiting(self) -> list[Run]:
        """The runs that have waited for a while."""
        now = trio.current_time()  # compared as it was slept for: a sum may be rounded
        return [one for one in self._worker.loaded if one.waits_since + MARK <= now]

    async def announce_again(self) -> None:
        """Say how the worker is, now and then. Runs until cancelled."""
        worker = self._worker
        every = worker.shared.every(ANNOUNCE)
        next_line = trio.current_time() + every
        said_draining = False
        while True:
            await trio.sleep(worker.shared.every(LOOK))
            try:
                if trio.current_time() >= next_line or worker.draining is not said_draining:
                    next_line = trio.current_time() + every
                    said_draining = worker.draining
                    await self.announce()
            except SdkError as exc:
                worker.blind.goes_on(str(exc))

    async def announce(self, *, leaves: bool = False) -> None:
        """Write its line in the table of workers, or remove it. Raises what the store raises."""
        health, settings = self._worker.health(), self._worker.settings
        await self._worker.shared.request(
            AnnounceWorker(
                leaves=leaves,
                info=WorkerInfo(
                    owner="",
                    holder="",
                    name=settings.name,
                    workflows=tuple(settings.workflows),
                    queues=settings.queues,
                    tenant_ids=settings.tenant_ids,
                    slots=health.slots,
                    working=health.working,
                    loaded=health.loaded,
                    last_look=health.last_look,
                    oldest_boundary=health.oldest_boundary,
                    draining=self._worker.draining,
                    schedules=tuple(one.name for one in settings.schedules),
                ),
            )
        )

    async def sample(self) -> None:
        """Measure the slots and the queues again and again. Runs until cancelled."""
        worker = self._worker
        while True:
            health = worker.health()
            name = worker.settings.name
            measures.slots_total(health.slots, worker=name)
            measures.slots_used(health.working, worker=name)
            measures.runs_loaded(health.loaded, worker=name)
            try:
                await self._sample_queues()
            except SdkError as exc:
                worker.blind.goes_on(str(exc))
            await trio.sleep(SAMPLE)

    async def _sample_queues(self) -> None:
        shared = self._worker.shared
        found = {one.queue.name: one for one in (await shared.request(ListQueues())).queues}
        now = shared.clock.now()
        for name in self._worker.settings.queues:
            one = found.get(name)
            since = None if one is None else one.ready_since
            age = 0.0 if since is None else max(0.0, now - since.timestamp())
            measures.queue_depth(0 if one is None else one.ready, queue=name)
            measures.queue_oldest(age, queue=name)
