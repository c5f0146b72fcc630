"""The demo: workers are killed, drained and replaced by a next version; then comes the count.

Nothing is played. The workers are those of ``runtara-trio worker`` and know of no demo; the kill
is SIGKILL, the drain SIGTERM; a pause goes through the store, like that of the command line; and
the count is made from the ledger, the file of orders and the store as they are on the disk.
"""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import msgspec
import trio

from runtara_trio import Client, InstanceHandle, InstanceStatus, Start, open_client

from . import orders, orders_2
from .file import FILE, Order, read_orders
from .ledger import Entry, read_ledger
from .orders import Shop

TENANT = "shop"
SLOTS = 4
"""Orders that a worker works on at once."""

LOOK = 0.02
"""Seconds between two looks at the ledger and the workers."""

THIS = (orders.__name__,)
NEXT = (orders_2.__name__, "--also", "order=1")
"""What ``runtara-trio worker`` is told of the two versions of the program."""

UNFINISHED = (InstanceStatus.PENDING, InstanceStatus.RUNNING, InstanceStatus.SUSPENDED)

Tell = Callable[[str], None]
Progress = Callable[[int, int], None]


class DemoFailed(Exception):
    """A worker did what it should not; the text has its last lines."""


class Count(msgspec.Struct, frozen=True, kw_only=True):
    """What the ledger, the orders and the store hold in the end."""

    orders: int
    charged: int
    shipped: int
    again: int
    """Attempts with a key that had been applied: a kill fell between effect and checkpoint."""
    twice: int
    """Effects that were applied more than once to an order."""
    missing: int
    """Effects that an order should have, and has not."""
    completed: int
    """Orders that are completed, by the store."""

    @property
    def proved(self) -> bool:
        """Whether every effect was applied once, and the store says so."""
        return self.completed == self.orders and not self.twice and not self.missing


class Demo:
    """One run of the story, in a folder of its own.

    Args:
      folder: where the store, the ledger and the workers' logs are made; they stay there.
      kills: how often a worker is killed before the next version comes.
      tell: called with each line of the story.
      progress: called with (orders shipped, orders in all).
      found: the orders; the last quarter comes later. None: those of the file.
      shop: None: one with its ledger in the folder.
    """

    def __init__(
        self,
        folder: Path,
        kills: int,
        tell: Tell,
        progress: Progress,
        *,
        found: list[Order] | None = None,
        shop: Shop | None = None,
    ) -> None:
        self.folder = folder
        self.store = f"sqlite:///{folder}/orders.db"
        self.ledger = folder / "ledger.jsonl"
        self.orders = read_orders(FILE.read_bytes())[0] if found is None else found
        pace = min(1.0, max(0.1, kills * 0.04))  # many kills take their time
        self._shop = Shop(str(self.ledger), pace) if shop is None else shop
        self._kills = kills
        self._tell = tell
        self._progress = progress
        self._draw = random.Random()
        self._workers: list[_Worker] = []
        self._entries: list[Entry] = []
        later = max(1, len(self.orders) // 4)
        self._early, self._late = self.orders[:-later], self.orders[-later:]

    async def run(self) -> Count:
        """Tell the story, and count.

        Raises:
          DemoFailed: a worker ended otherwise than it should.
        """
        try:
            async with open_client(self.store, tenant_id=TENANT) as client:
                *_, paused = await self._start_orders(client)
                while len(self._working) < 2:
                    await self._begin_worker(client, THIS)
                for left in range(self._kills, 0, -1):
                    await self._kill_one(client, left)
                await self._bring_the_next_version(client)
                await self._finish(client, paused)
                return await self.count(client)
        finally:
            for worker in self._working:
                worker.process.kill()
                with trio.CancelScope(shield=True):
                    await worker.process.wait()

    # ---- the chapters

    async def _start_orders(self, client: Client) -> list[InstanceHandle[str]]:
        handles = await client.start_many(orders.order, self._starts(self._early))
        self._tell(f"started {len(handles)} orders, each a run of the workflow order 1")
        answer = await handles[-1].pause()
        self._tell(f"paused {handles[-1].id}: {answer.text}")
        return handles

    async def _kill_one(self, client: Client, left: int) -> None:
        while len(self._working) < 2:
            await self._begin_worker(client, THIS)
        victim = self._working[0]
        most = len(self._early) - 1  # one is paused
        even = max(0, most // 2 - len(self._done("ship"))) // left
        wanted = len(self._done("ship")) + self._draw.randint(even // 2, even)
        while len(self._done("ship")) < wanted or not (
            self._begun_by(victim) or len(self._done("ship")) >= most
        ):
            await self._look()
        await trio.sleep(self._draw.uniform(0, self._shop.pace))
        await self._end(client, "killed", victim, signal.SIGKILL, -signal.SIGKILL)

    async def _bring_the_next_version(self, client: Client) -> None:
        most = len(self._early) - 1
        while len(self._done("ship")) < most * 2 // 3:
            await self._look()
        await client.start_many(orders_2.order, self._starts(self._late))
        self._tell(
            f"started {len(self._late)} orders of order 2; they wait for a worker that knows it"
        )
        old = self._working
        await self._begin_worker(client, NEXT)
        for worker in old:
            await self._end(client, "drained", worker, signal.SIGTERM, 128 + signal.SIGTERM)

    async def _end(
        self, client: Client, what: str, worker: _Worker, number: signal.Signals, code: int
    ) -> None:
        """End a worker, and see that others go on with its orders."""
        await worker.ends_by(number, code)
        self._read()
        begun = self._begun_by(worker)
        self._tell(f"{what} {worker.name} ({number.name}), {self._so_far}")
        if not begun:
            return
        self._tell(f"  it had charged {len(begun)} orders that are not shipped")
        while begun & await self._unfinished(client):
            await self._look()
        names = {one.process.pid: one.name for one in self._workers}
        heirs = {
            names.get(one.pid, f"process {one.pid}")
            for one in self._entries
            if one.effect == "ship" and one.order_id in begun
        }
        if heirs:
            self._tell(f"  shipped now, by {' and '.join(sorted(heirs))}")

    async def _finish(self, client: Client, paused: InstanceHandle[str]) -> None:
        while await self._unfinished(client) - {paused.id}:
            await self._look()
        if await self._unfinished(client):
            self._tell(f"all is done but {paused.id}")
            self._tell(f"resumed {paused.id}: {(await paused.resume()).text}")
        while await self._unfinished(client):
            await self._look()
        for worker in self._working:
            await worker.ends_by(signal.SIGTERM, 128 + signal.SIGTERM)
        self._read()
        self._tell(f"all is done, {self._so_far}")

    async def count(self, client: Client) -> Count:
        entries = read_ledger(self.ledger)
        applied = Counter((one.effect, one.order_id) for one in entries if one.applied)
        wanted = {(effect, one.order_id) for one in self.orders for effect in ("charge", "ship")}
        wanted |= {("thank", one.order_id) for one in self._late}
        page = await client.list(statuses=[InstanceStatus.COMPLETED], limit=len(self.orders) + 1)
        return Count(
            orders=len(self.orders),
            charged=sum(effect == "charge" for effect, _ in applied),
            shipped=sum(effect == "ship" for effect, _ in applied),
            again=sum(not one.applied for one in entries),
            twice=sum(times > 1 for times in applied.values()),
            missing=len(wanted - set(applied)),
            completed=len(page.instances),
        )

    # ---- what there is

    def _starts(self, some: list[Order]) -> list[Start[Order, Shop]]:
        return [Start(args=(one, self._shop), id=one.order_id) for one in some]

    async def _unfinished(self, client: Client) -> set[str]:
        page = await client.list(statuses=UNFINISHED, limit=len(self.orders))
        return {one.instance_id for one in page.instances}

    async def _look(self) -> None:
        """Wait a moment. Raises DemoFailed: a worker has ended."""
        await trio.sleep(LOOK)
        self._read()
        for worker in self._working:
            if worker.process.poll() is not None:
                raise worker.failed("it ended too early")

    def _read(self) -> None:
        self._entries = read_ledger(self.ledger)
        self._progress(len(self._done("ship")), len(self.orders))

    def _done(self, effect: str) -> set[str]:
        """The orders that have an effect, by the ledger."""
        return {one.order_id for one in self._entries if one.effect == effect}

    def _begun_by(self, worker: _Worker) -> set[str]:
        """The orders that it has charged, and nobody has shipped."""
        pid = worker.process.pid
        mine = {e.order_id for e in self._entries if e.effect == "charge" and e.pid == pid}
        return mine - self._done("ship")

    @property
    def _so_far(self) -> str:
        return f"{len(self._done('ship'))} of {len(self.orders)} orders shipped"

    # ---- the workers

    @property
    def _working(self) -> list[_Worker]:
        return [one for one in self._workers if not one.ended]

    async def _begin_worker(self, client: Client, program: tuple[str, ...]) -> None:
        name = f"worker-{len(self._workers) + 1}"
        log = self.folder / f"{name}.log"
        with log.open("wb") as output:
            process = await trio.lowlevel.open_process(
                [
                    *(sys.executable, "-m", "runtara_trio", "worker", *program),
                    *("--store", self.store, "--name", name, "--slots", str(SLOTS)),
                ],
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        self._workers.append(_Worker(name, process, log))
        while name not in {one.name for one in await client.list_workers()}:
            await self._look()
        self._tell(f"{name} is process {process.pid}: runtara-trio worker {' '.join(program)}")


class _Worker:
    """A worker in a process of its own."""

    def __init__(self, name: str, process: trio.Process, log: Path) -> None:
        self.name = name
        self.process = process
        self.ended = False
        self._log = log

    async def ends_by(self, number: signal.Signals, code: int) -> None:
        """End it. Raises DemoFailed: with another exit code."""
        self.process.send_signal(number)
        ended_with = await self.process.wait()
        self.ended = True
        if ended_with != code:
            raise self.failed(f"it ended with {ended_with}")

    def failed(self, what: str) -> DemoFailed:
        last = "\n".join(self._log.read_text(errors="replace").splitlines()[-20:])
        return DemoFailed(f"{self.name}: {what}; it said last:\n{last}")
