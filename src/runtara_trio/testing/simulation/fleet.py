"""One simulation: workers and a client on one store, what goes wrong, and how it ends."""

from __future__ import annotations

import copy
import random
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import msgspec
import trio

from ...client.client import Client, open_client
from ...clock import check_seconds
from ...config import SdkConfig
from ...engine.outcome import is_trouble
from ...errors import InstanceFailed, SdkError
from ...messages import (
    AnnounceWorker,
    EndsSince,
    GetResults,
    ListSchedules,
    LookForWork,
    Request,
)
from ...opening import open_backend
from ...sdk.durable import run_in_thread
from ...sdk.schedules import Schedule
from ...sdk.starts import Start
from ...sdk.workflow import AnyWorkflow
from ...store.sqlite.tables import SqliteTables
from ...types import Queue
from ...worker.opening import open_worker
from .. import world as worlds
from ..running import WALL, inline
from ..world import World
from .audit import Audit
from .operating import Operating
from .plan import FleetFault, Planned
from .process import Fate, Process
from .store import LEASE, SimulatedClock, open_memory
from .timeline import Timeline

FIRST = 2.0
"""Seconds within which all is started."""

RESTARTED = 3.0
"""Seconds until a worker that has ended is started again, at most."""

_ASKED_AGAIN = (LookForWork, AnnounceWorker, EndsSince, GetResults, ListSchedules)
"""What is sent now and then, whatever happens: no fault is planned at these."""

TENANT = "simulated"


class Scenario(msgspec.Struct, frozen=True, kw_only=True):
    """What is simulated, the same with every seed."""

    workflows: tuple[AnyWorkflow, ...]
    starts: tuple[tuple[AnyWorkflow, Start[Any]], ...]
    workers: int
    slots: int
    max_loaded: int
    queues: tuple[Queue, ...]
    schedules: tuple[Schedule, ...]
    signals: Mapping[str, bytes]
    """What an operator sends to who waits for it, by a signal's id or a message's name."""


class Fleet:
    """One simulation under way. The network of its processes."""

    nursery: trio.Nursery

    def __init__(self, scenario: Scenario, seed: int, planned: Sequence[Planned]) -> None:
        self.scenario = scenario
        self.random = random.Random(f"network {seed}")
        self.clock = SimulatedClock(WALL)
        self.file = open_memory()
        self.timeline = Timeline()
        self.audit = Audit(self.file.db, self.say)
        self.processes: dict[str, Process] = {}
        self.away_until = 0.0
        self.messages = 0
        """So many, but for those that are sent now and then."""
        self.calm = False
        """No fault comes any more."""
        self.effects = World()
        self.asked: dict[str, None] = dict.fromkeys(str(one.id) for _, one in scenario.starts)
        """The instances that the client starts."""
        self.told: dict[str, None] = {}
        """The instances whose ends the client was told of."""
        self.workers: dict[Process, Any] = {}
        """Each process's worker, while it lives."""
        self._due: dict[int, list[Planned]] = defaultdict(list)
        for one in planned:
            self._due[one.at].append(one)
        self._news_fault: FleetFault | None = None
        self._versions = [0] * scenario.workers
        """By how much newer than given the workflows of each worker are."""
        self.operating = Operating(self)

    # ---- its life

    async def run(self, until_over: Callable[[Fleet], Any]) -> None:
        """Run the fleet until ``until_over`` returns."""
        run_in_thread.set(inline)
        try:
            async with trio.open_nursery() as self.nursery:
                operator = Process(self, "operator", is_operator=True)
                self.operating.begin(operator)
                self.nursery.start_soon(self._run_client)
                for slot in range(self.scenario.workers):
                    self.nursery.start_soon(self._keep_worker, slot)
                await until_over(self)
                for process in list(self.processes.values()):
                    process.die(seen=True)
                self.nursery.cancel_scope.cancel()
        finally:
            self.file.db.close()

    def _new_process(self, name: str, *, is_worker: bool = False) -> Process:
        count = sum(one.partition(".")[0] == name for one in self.processes)
        process = Process(self, f"{name}.{count + 1}" if is_worker else name, is_worker=is_worker)
        self.processes[process.name] = process
        return process

    async def _keep_worker(self, slot: int) -> None:
        while True:
            process = self._new_process(f"worker-{slot + 1}", is_worker=True)
            self.say(process.name, "begins")
            await self._work(process, slot)
            self.say(process.name, "is dead" if process.dead else "has ended")
            await trio.sleep(RESTARTED * self.random.random())

    async def _work(self, process: Process, slot: int) -> None:
        world = worlds.OfProcess(self.effects)
        worlds.enter(world)
        process.world = world
        newer = self._versions[slot]
        workflows = [_newer(one, newer) for one in self.scenario.workflows]
        older = {one.name: tuple(range(one.version - newer, one.version)) for one in workflows}
        try:
            with process.scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(process.keep_leases)
                    async with (
                        open_backend(process, config=self._config()) as shared,
                        open_worker(
                            shared,
                            workflows,
                            queues=self._queues(),
                            schedules=self.scenario.schedules,
                            slots=self.scenario.slots,
                            max_loaded=self.scenario.max_loaded,
                            versions=older if newer else None,
                            name=process.name,
                            stop_signals=(),
                        ) as worker,
                    ):
                        self.workers[process] = worker
                        await worker.wait_ended()
                    nursery.cancel_scope.cancel()
        except KeyboardInterrupt:
            raise
        except BaseException as exc:
            if not process.dead and not is_trouble(exc):
                raise
        finally:
            self.workers.pop(process, None)
            if not process.dead:
                process.leave()

    def _queues(self) -> list[str | Queue]:
        named = {one.queue for one in self.scenario.workflows}
        named |= {start.queue for _, start in self.scenario.starts if start.queue is not None}
        declared = {one.name for one in self.scenario.queues}
        return [*self.scenario.queues, *sorted((named | {"default"}) - declared)]

    def _config(self) -> SdkConfig:
        return SdkConfig(heartbeat_interval_ms=0, clock=self.clock)

    # ---- the client

    async def _run_client(self) -> None:
        process = self._new_process("client")
        async with (
            open_backend(process, config=self._config()) as shared,
            open_client(shared, tenant_id=TENANT) as client,
            trio.open_nursery() as nursery,
        ):
            for workflow, start in self.scenario.starts:
                nursery.start_soon(self._start, client, workflow, start)

    async def _start(self, client: Client, workflow: AnyWorkflow, start: Start[Any]) -> None:
        await trio.sleep(FIRST * self.random.random())
        while True:
            try:
                handle = await client.start(workflow, *start.args, **_options(start))
                with suppress(InstanceFailed):
                    await handle.result()
                self.told[handle.id] = None
                return
            except SdkError as exc:  # a start that is sent again finds its own
                if not is_trouble(exc):
                    raise
            await trio.sleep(1.0)

    # ---- the network of its processes

    def is_seen_dead(self, owner: str) -> bool:
        process = self.processes.get(owner)
        return process is None or process.ended or (process.dead and process.seen_dead)

    async def disturb(self, process: Process, message: Request[Any]) -> Fate:
        fate = Fate()
        if self.calm or process.is_operator or isinstance(message, _ASKED_AGAIN):
            return fate
        self.messages += 1
        for planned in self._due.pop(self.messages, ()):
            self.say("fault", f"{planned} of {process.name}: {type(message).__name__}")
            self._do(planned, process, fate)
        return fate

    def committed(self, process: Process, tx: SqliteTables) -> None:
        if not (tx.runs_changed or tx.signals_changed):
            return
        fault, self._news_fault = self._news_fault, None
        if fault is FleetFault.NEWS_LOST:
            return
        for other in self.processes.values():
            if other is process or other.dead or other.ended:
                continue
            for _ in range(2 if fault is FleetFault.NEWS_TWICE else 1):
                self.nursery.start_soon(
                    other.hear, self._delay(fault), tx.runs_changed, tx.signals_changed
                )

    def note(self, process: Process, message: Request[Any], reply: Any) -> None:
        self.timeline.message(trio.current_time(), process.name, message, reply)
        if not isinstance(reply, BaseException):
            self.audit.note(process, message, reply, self.clock.now())
            self.operating.hear(message, reply)

    def say(self, who: str, text: str) -> None:
        self.timeline.say(trio.current_time(), who, text)

    def _delay(self, fault: FleetFault | None) -> float:
        draw = self.random.random()
        return 20 * draw if fault is FleetFault.NEWS_LATE else 0.02 * draw

    # ---- faults

    def _do(self, planned: Planned, process: Process, fate: Fate) -> None:
        """What a fault does to the message of a process, and to all."""
        draw = planned.draw
        worker = process if process.is_worker else self._some_worker(draw)
        match planned.fault:
            case FleetFault.WORKER_DIES if worker is not None:
                if worker is process and draw < 0.5:
                    fate.dies = True
                else:
                    fate.is_dropped = worker is process
                    worker.die(seen=int(draw * 1000) % 2 == 0)
            case FleetFault.WORKER_STOPS if worker is not None:
                seconds = 3 * LEASE * draw
                if worker is process and int(draw * 1000) % 2:
                    fate.stops = seconds
                else:
                    worker.stop(seconds)
            case FleetFault.WORKER_DRAINS | FleetFault.NEXT_VERSION if worker in self.workers:
                if planned.fault is FleetFault.NEXT_VERSION:
                    self._versions[int(worker.name.partition(".")[0][-1]) - 1] += 1
                self.workers[worker].drain()
            case FleetFault.ANSWER_LOST:
                fate.loses_answer = True
            case FleetFault.STORE_AWAY:
                self.away_until = trio.current_time() + 2 * LEASE * draw * draw
            case FleetFault.NEWS_LOST | FleetFault.NEWS_LATE | FleetFault.NEWS_TWICE:
                self._news_fault = planned.fault
            case FleetFault.CLOCK_JUMPS:
                self.clock.jump(random.Random(draw).choice([-3600, -60, -2, 2, 60, 3600]))
            case FleetFault.CANCEL | FleetFault.PAUSE | FleetFault.RERUN | FleetFault.QUEUE:
                self.operating.act(planned)
            case _:
                pass  # there is no worker just now

    def _some_worker(self, draw: float) -> Process | None:
        living = [one for one in self.workers if not one.dead]
        return living[int(draw * len(living))] if living else None

    def every(self) -> dict[str, int]:
        return {
            one.name: int(check_seconds("every", one.every))
            for one in self.scenario.schedules
            if one.every is not None and one.overlap == "allow"
        }

    def calm_down(self) -> None:
        """No more faults; what is stopped goes on, and the store is there."""
        self.calm = True
        self.away_until = 0.0
        self.say("fault", "no more faults come")
        for process in self.processes.values():
            process.go_on()


def _newer(workflow: AnyWorkflow, by: int) -> AnyWorkflow:
    newer = copy.copy(workflow)
    newer.version += by
    return newer


def _options(start: Start[Any]) -> Any:
    names = ("id", "queue", "priority", "delay", "at", "key", "attributes")
    return {name: getattr(start, name) for name in names}
