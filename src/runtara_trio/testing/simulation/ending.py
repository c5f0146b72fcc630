"""When a simulation is over, and whether what has not ended waits for something with a name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import trio

from ...engine.waits import Wait
from ...ids import waited_for
from ...store.sqlite.file import StoreFile
from ...store.values import awaited_of, waiting_of
from ...types import InstanceStatus, RunState
from .audit import Audit
from .operating import Operating
from .process import Process
from .store import ENDED, SimulatedClock

STEP = 10.0
"""Seconds between two looks at whether it is over."""

QUIET = 200.0
"""Seconds without anything new, after which nothing new comes by itself."""

LONGEST = 400 * 86400.0
"""Simulated seconds, after which it does not end."""


class Ending(Protocol):
    """The fleet."""

    calm: bool
    clock: SimulatedClock
    file: StoreFile
    audit: Audit
    operating: Operating
    workers: dict[Process, Any]
    asked: dict[str, None]
    told: dict[str, None]

    def calm_down(self) -> None: ...

    def every(self) -> Mapping[str, int]:
        """Seconds between slots, by the name of a schedule."""


class Standing:
    """Where one run stands that has not ended."""

    def __init__(self, row: tuple[Any, ...]) -> None:
        self.instance_id, status, state, self.due_ms, waiting, children = row
        self.status = InstanceStatus(status)
        self.state = RunState(state)
        self.waiting_for: str | None = waiting
        self.waits_children: str | None = children


async def until_over(fleet: Ending) -> None:
    """Return when all that was started has ended, or does not go on. What is wrong is a finding."""
    changes = Changes()
    while trio.current_time() < LONGEST:
        await trio.sleep(STEP)
        if fleet.audit.findings:
            return
        standing = _standing(fleet)
        idle = changes.unchanged(fleet, standing)
        left = [one for one in standing if one.instance_id not in fleet.audit.of_schedules]
        if not left and _all_started(fleet):
            return await _check_end(fleet)
        if not left or not {one.instance_id for one in left} <= idle.keys():
            continue
        if (wake := _next_wake(fleet, left)) is not None:
            await trio.sleep(wake)
        elif not fleet.calm:
            fleet.calm_down()
            await fleet.operating.resume_all()
            changes.forget()
        else:
            _check_waits(fleet, list(idle.values()))
            return await _check_end(fleet)
    fleet.audit.finding("every run ends", f"{LONGEST:g} s were not enough")


class Changes:
    """Since when each run is as it is."""

    def __init__(self) -> None:
        self._since: dict[str, tuple[object, float]] = {}

    def unchanged(self, fleet: Ending, standing: list[Standing]) -> dict[str, Standing]:
        """Those to which nothing has happened for a while, by id."""
        now = trio.current_time()
        before, self._since = self._since, {}
        found: dict[str, Standing] = {}
        for one in standing:
            mark = one.state, fleet.audit.touched[one.instance_id]
            known, since = before.get(one.instance_id, (None, now))
            since = since if known == mark else now
            self._since[one.instance_id] = mark, since
            if now - since >= QUIET:
                found[one.instance_id] = one
        return found

    def forget(self) -> None:
        """Something has been done to all."""
        self._since.clear()


async def _check_end(fleet: Ending) -> None:
    if not fleet.calm:
        fleet.calm_down()
    for _ in range(int(QUIET)):
        if not _untold(fleet):
            break
        await trio.sleep(1.0)
    for instance in _untold(fleet):
        fleet.audit.finding(
            "who waits is told", f"{instance!r} has ended, and its client waits on", instance
        )
    fleet.audit.check_stored()
    if not fleet.clock.has_jumped:  # else it is told by another time which slots there were
        fleet.audit.check_slots(fleet.every())


def _all_started(fleet: Ending) -> bool:
    return fleet.asked.keys() <= fleet.audit.started.keys()


def _standing(fleet: Ending) -> list[Standing]:
    """The runs that have not ended."""
    if not fleet.audit.started:
        return []  # there are no tables yet
    rows = fleet.file.db.execute(
        "SELECT i.instance_id, i.status, r.state, r.due_ms, r.waiting_for, r.waits_children"
        " FROM instances i JOIN runtara_trio_runs r ON r.instance_id = i.instance_id"
        f" WHERE i.status NOT IN {ENDED} ORDER BY i.instance_id"
    )
    return [Standing(row) for row in rows.fetchall()]


def _loaded(fleet: Ending) -> dict[str, Any]:
    """Runs by id, of the workers that live."""
    return {run.instance_id: run for worker in fleet.workers.values() for run in worker.loaded}


def _next_wake(fleet: Ending, left: list[Standing]) -> float | None:
    """Seconds until the first of them goes on by its time; None: none does."""
    now_ms = fleet.clock.now() * 1000
    loaded = _loaded(fleet)
    times: list[float] = []
    for one in left:
        if one.state is RunState.TIMED and one.due_ms is not None:
            times.append(one.due_ms)
        elif one.instance_id in loaded:
            waits = loaded[one.instance_id].block.waits.all() or []
            times += [wait.until_ms for wait in waits if wait.until_ms is not None]
    ahead = [time for time in times if time > now_ms]
    return None if not ahead else (min(ahead) - now_ms) / 1000 + 1


def _check_waits(fleet: Ending, left: list[Standing]) -> None:
    loaded = _loaded(fleet)
    names = {one.instance_id for one in left}
    for one in left:
        problem = _problem(fleet, one, loaded.get(one.instance_id), names)
        if problem:
            fleet.audit.finding(
                "every run goes on", f"{one.instance_id!r} {problem}", one.instance_id
            )


def _problem(fleet: Ending, one: Standing, run: Any, unended: set[str]) -> str | None:
    """What is wrong with a run that does not go on; None: it waits for what is not there."""
    if one.state is RunState.RUNNING:
        if run is None:
            return "is running, and no worker has it"
        if run.block.boundary.pause_requested:
            return "was asked to pause, and does not"
        waits: list[Wait] | None = run.block.waits.all()
        if run.wants or run._taking.locked():
            return "wants a place or a slot, and gets none"
        if waits is None:
            return "works, and does not end"
        for wait in waits:
            if wait.signal is not None and _has_signal(fleet, one.instance_id, wait.signal):
                return f"waits for the signal {wait.signal!r}, which is there"
            if wait.child is not None and wait.child not in unended:
                return f"waits for its child {wait.child!r}, which has ended"
            if wait.block is not None and not _has_children(fleet, one.instance_id, wait.block):
                return f"waits for the block {wait.block!r}, whose children have all ended"
        return None
    if one.state is RunState.WAITING:
        for signal in waiting_of(one.waiting_for):
            if _has_signal(fleet, one.instance_id, signal):
                return f"is unloaded until the signal {signal!r}, which is there"
        return _problem_of_children(fleet, one, unended)
    if one.state in (RunState.READY, RunState.SUSPECT, RunState.BEHIND, RunState.TIMED):
        return f"is {one.state}, and no worker takes it"
    return f"is {one.state}, though it was resumed"


def _problem_of_children(fleet: Ending, one: Standing, unended: set[str]) -> str | None:
    awaited = awaited_of(one.waits_children)
    if awaited is None:
        return None
    for child in awaited.children:
        if child not in unended:
            return f"is unloaded until its child {child!r} ends, which has ended"
    for block in awaited.blocks:
        if not _has_children(fleet, one.instance_id, block):
            return f"is unloaded until the block {block!r} ends, whose children have all ended"
    return None


def _has_signal(fleet: Ending, instance: str, checkpoint_id: str) -> bool:
    found = fleet.file.db.execute(
        "SELECT checkpoint_id FROM pending_custom_signals WHERE instance_id = ?", (instance,)
    )
    return checkpoint_id in {waited_for(there) for (there,) in found}


def _has_children(fleet: Ending, instance: str, block: str) -> bool:
    return bool(
        fleet.file.db.execute(
            "SELECT 1 FROM runtara_trio_runs r JOIN instances i ON i.instance_id = r.instance_id"
            " WHERE r.parent_id = ? AND r.block = ?"
            f" AND i.status NOT IN {ENDED}",
            (instance, block),
        ).fetchone()
    )


def _untold(fleet: Ending) -> list[str]:
    """Instances that have ended, and whose client was not told of it."""
    return [
        instance
        for instance in fleet.audit.ended()
        if instance not in fleet.told and instance in fleet.asked
    ]
