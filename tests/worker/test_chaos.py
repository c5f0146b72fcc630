"""Real processes on real stores, killed, stopped, drained and cut off at random, for a while.

What a simulation cannot show lies below it: locks, files, connections, the kernel. In the suite it
is short; ``nox -s chaos -- SECONDS SEED`` takes as long as is wanted.
"""

from __future__ import annotations

import os
import random
import signal
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import trio

from runtara_trio import (
    Client,
    InstanceHandle,
    InstanceStatus,
    Operator,
    Queue,
    RunState,
    SdkError,
    SignalType,
    open_backend,
    open_client,
)

from ..helpers.fleet import Fleet, Ledger, open_fleet
from ..helpers.places import Shared, cut_off
from ..helpers.support import Program

SECONDS = float(os.environ.get("CHAOS_SECONDS", "6"))
SEED = int(os.environ.get("CHAOS_SEED", "18"))
WORKERS = 4
LEASE_MS = 1500
LONG = 120.0
UNFINISHED = [InstanceStatus.PENDING, InstanceStatus.RUNNING, InstanceStatus.SUSPENDED]
"""Seconds in which all must have ended when nothing goes wrong any more."""


class Chaos:
    """What goes wrong, and what people do meanwhile."""

    def __init__(self, shared: Shared, fleet: Fleet, client: Client, operator: Operator) -> None:
        self._shared = shared
        self._fleet = fleet
        self._client = client
        self._operator = operator
        self._draw = random.Random(SEED)
        self._workers: list[Program] = []
        self.handles: list[InstanceHandle[Any]] = []
        self.stopped: set[int] = set()
        self.done: Counter[str] = Counter()

    async def go_on(self, seconds: float) -> None:
        """Until the time is up. All workers work then."""
        for _ in range(WORKERS):
            self._workers.append(await self._start_worker())
        of_processes = [self.kill, self.stop, self.drain, self.cut_off]
        of_people = [*(self.start_runs,) * 4, self.cancel, self.pause, self.rerun]
        with trio.move_on_after(seconds):
            async with trio.open_nursery() as nursery:
                for faults in (of_processes, of_people, [self.change_queue]):
                    nursery.start_soon(self._do, faults)

    async def _do(self, faults: Sequence[Callable[[], Awaitable[object]]]) -> None:
        """One after the other. Until cancelled, and then to its end."""
        while True:
            fault = self._draw.choice(faults)
            with trio.CancelScope(shield=True):
                await try_again(fault)
            self.done[fault.__name__] += 1
            await trio.sleep(0.5 * self._draw.random())

    async def _start_worker(self) -> Program:
        return await self._fleet.start(
            slots=10, max_loaded=20, lease_ms=LEASE_MS, max_recoveries=1000
        )

    async def start_runs(self) -> None:
        """Some of each kind."""
        for name, args in (("steps", (4, 0.02)), ("tree", (1, 3, 0.02)), ("asks", (["a", "b"],))):
            id = f"{name}-{len(self.handles)}"
            self.handles.append(await self._client.start(name, *args, id=id))
        for question in ("a", "b"):
            await self.handles[-1].signal(question, b"answer")

    async def kill(self) -> None:
        await self._fleet.kill(self._take())
        self._workers.append(await self._start_worker())

    async def drain(self) -> None:
        await self._fleet.drain(self._take())
        self._workers.append(await self._start_worker())

    async def stop(self) -> None:
        """For longer than its lease; others go on."""
        program = self._take()
        self._workers.append(program)
        self._fleet.ledger.note("stop", program)
        self.stopped.add(program.pid)
        self._shared.stop(program)
        await trio.sleep(LEASE_MS / 1000 * (0.5 + 2 * self._draw.random()))
        program.send(signal.SIGCONT)

    async def cut_off(self) -> None:
        await cut_off(self._shared)

    async def cancel(self) -> None:
        await self._some().cancel()

    async def pause(self) -> None:
        handle = self._some()
        await handle.pause()
        await trio.sleep(self._draw.random())
        await handle.resume()

    async def rerun(self) -> None:
        await self._operator.rerun(self._some().id)

    async def change_queue(self) -> None:
        if self._draw.random() < 0.5:
            limit = self._draw.choice([None, 2, 5])
            await self._client.set_queue(Queue("default", limit=limit))
        else:
            await self._client.pause_queue("default")
            await trio.sleep(self._draw.random())
            await self._client.resume_queue("default")

    def _take(self) -> Program:
        return self._workers.pop(self._draw.randrange(len(self._workers)))

    def _some(self) -> InstanceHandle[Any]:
        if not self.handles:
            raise SdkError("there are no instances yet")
        return self._draw.choice(self.handles[-9:])

    async def calm_down(self) -> None:
        """Nothing stays paused, nothing is limited, and every question is answered, also where a
        connection that was cut off has kept one of these from being said before."""
        await try_again(lambda: self._client.resume_queue("default"))
        await try_again(lambda: self._client.set_queue(Queue("default")))
        page = await self._operator.list(statuses=UNFINISHED, limit=1000)
        for one in page.instances:
            put_aside = one.run is not None and one.run.state in (RunState.PAUSED, RunState.PARKED)
            if put_aside or one.signal is SignalType.PAUSE:
                await try_again(lambda id=one.instance_id: self._operator.resume(id))
            if one.instance_id.startswith("asks"):
                for question in ("a", "b"):
                    await try_again(
                        lambda id=one.instance_id, question=question: self._operator.send_signal(
                            id, question, b"answer"
                        )
                    )


async def try_again(act: Callable[[], Awaitable[object]]) -> None:
    """Do it; what is refused is left."""
    try:
        await act()
    except SdkError:
        await trio.sleep(0.01)


async def until_all_ended(operator: Operator, fleet: Fleet) -> None:
    with trio.move_on_after(LONG):
        while await operator.count(statuses=UNFINISHED):
            await trio.sleep(0.1)
        return
    left = (await operator.list(statuses=UNFINISHED)).instances
    raise AssertionError(left)


def check_ledger(ledger: Ledger, results: dict[str, list[str]], stopped: set[int]) -> None:
    """No saved step was run again, but in a process that was stopped past its lease."""
    saved: dict[tuple[str, str], str] = {}
    for line in ledger.lines():
        step = line.instance, line.step
        if line.what == "saved":
            assert saved.setdefault(step, line.token) == line.token, line
        elif line.what == "begin":
            assert step not in saved or line.pid in stopped, line
    for instance, tokens in results.items():
        for number, token in enumerate(tokens):
            assert saved.get((instance, str(number)), token) == token, (instance, number)


async def test_whatever_goes_wrong(shared: Shared, tmp_path: Path) -> None:
    async with (
        open_backend(shared.url, create=True) as backend,
        open_client(backend, tenant_id="t") as client,
        open_fleet(shared, tmp_path) as fleet,
    ):
        operator = Operator(backend)
        chaos = Chaos(shared, fleet, client, operator)
        await chaos.start_runs()
        await chaos.go_on(SECONDS)
        await chaos.calm_down()
        await until_all_ended(operator, fleet)
        ended = Counter[InstanceStatus]()
        results: dict[str, list[str]] = {}
        for handle in chaos.handles:
            status = await handle.status()
            ended[status] += 1
            if status is InstanceStatus.COMPLETED and not handle.id.startswith("asks"):
                results[handle.id] = await handle.result(list[str])
        print(dict(chaos.done), {status.value: count for status, count in ended.items()})
        assert ended[InstanceStatus.FAILED] <= chaos.done["cancel"]  # whose child was cancelled
        assert ended[InstanceStatus.COMPLETED]
    check_ledger(fleet.ledger, results, chaos.stopped)
