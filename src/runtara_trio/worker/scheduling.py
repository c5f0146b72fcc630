"""The slots of schedules: run by whichever worker comes first."""

from __future__ import annotations

import math
from typing import Protocol

import trio

from .. import logs
from ..clock import is_steady
from ..engine.services import SharedBackend
from ..errors import CodecError, SdkError
from ..messages import FireSchedule, ListSchedules
from ..sdk.schedules import slot_run
from ..sdk.slots import next_slot, slots
from ..sdk.waiting import CHECK_CLOCK
from ..types import ScheduleInfo
from .settings import Settings

LOOK = 5.0
"""Seconds between two looks at the schedules, which another process may have changed."""

AT_ONCE = 100
"""Slots that are run in one commit."""

ON_TIME = 10.0
"""Seconds after which a slot is missed, and ``catch_up`` says whether it is run. A worker may be
busy, and looks every ``LOOK`` seconds."""

PAUSE_EVERY = 1000
"""Slots that are counted before others have their turn."""


class Scheduler(Protocol):
    """The worker."""

    shared: SharedBackend
    settings: Settings
    blind: logs.Outage
    draining: bool


class Scheduling:
    """The service of one worker that runs slots."""

    def __init__(self, worker: Scheduler) -> None:
        self._worker = worker
        self._said: dict[str, str] = {}
        """What was logged of schedules that cannot be run."""

    async def run(self) -> None:
        """Run what is due, until cancelled."""
        worker = self._worker
        while True:
            due_ms: float = math.inf
            wait = worker.shared.every(LOOK)
            seen = worker.shared.schedule_changes
            try:
                due_ms = await self._run_due()
            except SdkError as exc:
                worker.blind.goes_on(str(exc))
                wait = LOOK
            left = due_ms / 1000 - worker.shared.clock.now()
            if not is_steady(worker.shared.clock):
                wait = min(wait, CHECK_CLOCK)
            with trio.move_on_after(max(0.0, min(left, wait))):
                while worker.shared.schedule_changes == seen:
                    await worker.shared.schedules_changed.wait()

    async def _run_due(self) -> float:
        """Run the slots that are due. When the next one is, Unix ms."""
        worker = self._worker
        found = (await worker.shared.request(ListSchedules())).schedules
        due_ms = math.inf
        for schedule in found:
            if worker.draining or schedule.paused or not self._is_mine(schedule):
                continue
            next_ms = schedule.next_ms
            if next_ms <= self._now_ms():
                try:
                    next_ms = await self._fire(schedule)
                except CodecError as exc:
                    self._say_once(schedule.name, exc)
                    continue
                except SdkError:
                    raise
                except Exception as exc:  # it cannot be read here; the others can
                    self._say_once(schedule.name, exc)
                    continue
            due_ms = min(due_ms, next_ms)
        return due_ms

    def _is_mine(self, schedule: ScheduleInfo) -> bool:
        """Whether this worker runs its workflow."""
        settings = self._worker.settings
        knows = (schedule.workflow, schedule.version) in settings.workflows
        return knows and (settings.tenant_ids is None or schedule.tenant_id in settings.tenant_ids)

    async def _fire(self, schedule: ScheduleInfo) -> int:
        """Run the slots of one schedule that are due, up to a batch. The next slot, Unix ms."""
        worker, now_ms = self._worker, self._now_ms()
        oldest_ms = now_ms - int(max(schedule.catch_up, ON_TIME) * 1000)
        skipped = await self._count(schedule, oldest_ms)
        due: list[int] = []
        for slot in slots(schedule, max(schedule.next_ms, oldest_ms) - 1):
            if slot > now_ms or len(due) == AT_ONCE:
                break
            due.append(slot)
        next_ms = next_slot(schedule, due[-1] if due else now_ms)
        fired = await worker.shared.request(
            FireSchedule(
                name=schedule.name,
                due_ms=schedule.next_ms,
                next_ms=next_ms,
                runs=tuple(slot_run(schedule, slot, worker.settings.codec) for slot in due),
                skipped=skipped,
            )
        )
        if not fired.done:
            return now_ms  # somebody else has run them, or changed it: look again
        for instance in fired.taken:
            logs.slot_taken(schedule=schedule.name, instance_id=instance)
        logs.slots_run(
            schedule=schedule.name, count=len(fired.started), skipped=skipped + fired.skipped
        )
        return next_ms

    async def _count(self, schedule: ScheduleInfo, until_ms: int) -> int:
        """How many slots are too old to be run."""
        if schedule.next_ms >= until_ms:
            return 0
        if schedule.every is not None:
            return -((schedule.next_ms - until_ms) // (schedule.every * 1000))
        count = 0
        for slot in slots(schedule, schedule.next_ms - 1):
            if slot >= until_ms:
                break
            count += 1
            if count % PAUSE_EVERY == 0:
                await trio.lowlevel.checkpoint()
        return count

    def _say_once(self, name: str, error: Exception) -> None:
        if self._said.get(name) != str(error):
            self._said[name] = str(error)
            logs.service_failed(exc_info=error, task=f"schedule {name}", error=str(error))

    def _now_ms(self) -> int:
        return int(self._worker.shared.clock.now() * 1000)
