"""The demo: a worker is killed, started again, paused, resumed; then the ledger is counted.

Nothing is played. The worker is a process of its own that knows of no demo; the kill is
SIGKILL; the pause goes through the store, like that of the command line; and the count is
made from the ledger, the file of orders and the store as they are on the disk.
"""

from __future__ import annotations

import random
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import trio

from runtara_trio import InstanceStatus, Operator, open_backend

from .orders import FILE, INSTANCE, read_entries, read_orders

PACE = 0.01
"""Seconds that the worker spends on a charge."""

Tell = Callable[[str], None]
Progress = Callable[[int, int], None]


class DemoFailed(Exception):
    """The worker did what it should not; the text has its last lines."""


class Count(msgspec.Struct, frozen=True, kw_only=True):
    """What the ledger, the orders and the store hold in the end."""

    orders: int
    charged: int
    again: int
    """Attempts with a key that had been applied: a kill fell between charge and checkpoint."""
    twice: int
    """Orders that were applied more than once."""
    missing: int
    """Valid orders that were not applied."""
    saved: int
    """Orders whose checkpoint is in the store."""
    status: InstanceStatus

    @property
    def proved(self) -> bool:
        """Whether every order was charged once, and the store says so."""
        done = self.status is InstanceStatus.COMPLETED and self.saved == self.orders
        return done and not self.twice and not self.missing


class Demo:
    """One run of the story, in a folder of its own.

    Args:
      folder: where the store and the ledger are made; they stay there.
      kills: how often the worker is killed before it is paused.
      tell: called with each line of the story.
      progress: called with (orders done, orders in all).
    """

    def __init__(self, folder: Path, kills: int, tell: Tell, progress: Progress) -> None:
        self.folder = folder
        self.store = f"sqlite:///{folder}/orders.db"
        self.ledger = folder / "ledger.jsonl"
        self._kills = kills
        self._tell = tell
        self._progress = progress
        self._draw = random.Random()
        self._done = 0
        self._orders = len(read_orders(FILE.read_bytes())[0])

    async def run(self) -> Count:
        """Tell the story, and count.

        Raises:
          DemoFailed: the worker ended otherwise than it should.
        """
        for killed in range(self._kills):
            left = self._kills - killed
            # Twice the even share, at random: in the end they are spread over two thirds.
            share = (self._orders * 2 // 3 - self._done) * 2 // (left + 1)
            await self._work_until_killed(self._done + self._draw.randint(0, max(0, share)))
        await self._work_until_paused(max(self._orders * 3 // 4, self._done + 1))
        await self._resume()
        await self._work_to_the_end()
        return await self.count()

    # ---- the chapters

    async def _work_until_killed(self, until: int) -> None:
        async with self._worker() as worker:
            await worker.reach(until if until > self._done else 0)
            await trio.sleep(self._draw.uniform(0, PACE))
            worker.process.kill()
            await worker.process.wait()
        self._tell(f"killed process {worker.process.pid} (SIGKILL) after {self._so_far}")

    async def _work_until_paused(self, until: int) -> None:
        async with self._worker() as worker:
            await worker.reach(until)
            async with open_backend(self.store) as backend:
                await Operator(backend).pause(INSTANCE)
            self._tell(f"asked it to pause, after {self._so_far}")
            await worker.ends_with("paused")
        self._tell(f"it finished its step, and stopped after {self._so_far}")

    async def _resume(self) -> None:
        async with open_backend(self.store) as backend:
            answer = await Operator(backend).resume(INSTANCE)
        self._tell(f"asked it to resume: {answer.text}")

    async def _work_to_the_end(self) -> None:
        async with self._worker() as worker:
            await worker.ends_with("completed")
        self._tell(f"completed, after {self._so_far}")

    async def count(self) -> Count:
        orders, _ = read_orders(FILE.read_bytes())
        entries = read_entries(self.ledger.read_bytes())
        applied = Counter(entry.order_id for entry in entries if entry.applied)
        async with open_backend(self.store) as backend:
            operator = Operator(backend)
            page = await operator.checkpoints(INSTANCE, prefix="order/", limit=len(orders) + 1)
            details = await operator.show(INSTANCE)
        saved = {one.checkpoint_id.removeprefix("order/") for one in page.checkpoints}
        wanted = {order.order_id for order in orders}
        return Count(
            orders=len(orders),
            charged=len(applied),
            again=sum(not entry.applied for entry in entries),
            twice=sum(times > 1 for times in applied.values()),
            missing=len(wanted - set(applied)),
            saved=len(saved & wanted),
            status=details.summary.status,
        )

    # ---- the worker

    @asynccontextmanager
    async def _worker(self) -> AsyncIterator[_Worker]:
        process = await trio.lowlevel.open_process(
            [
                *(sys.executable, "-u", "-m", "runtara_trio.demo.orders"),
                *("--folder", str(self.folder), "--pace", str(PACE)),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        what = "starts" if self._done == 0 else f"goes on with order {self._done + 1}"
        self._tell(f"process {process.pid} {what}")
        try:
            yield _Worker(process, self._note)
        finally:
            if process.poll() is None:
                process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()
                assert process.stdout is not None
                await process.stdout.aclose()

    @property
    def _so_far(self) -> str:
        return f"{self._done} of {self._orders} orders"

    def _note(self, done: int) -> None:
        self._done = max(done, self._done)
        self._progress(self._done, self._orders)


class _Worker:
    """A running worker and what it prints."""

    def __init__(self, process: trio.Process, note: Callable[[int], None]) -> None:
        self.process = process
        self._note = note
        self._lines: list[str] = []
        self._done = 0
        self._rest = b""

    async def reach(self, wanted: int) -> None:
        """Read until it has done so many orders, or at least begun to work."""
        while self._done < wanted or not self._lines:
            if not await self._read():
                raise self._failed("it ended too early")

    async def ends_with(self, last: str) -> None:
        """Read to its end, which must be a good one."""
        while await self._read():
            pass
        if await self.process.wait() != 0 or last not in self._lines[-2:]:
            raise self._failed(f"it ended with {self.process.returncode}")

    async def _read(self) -> bool:
        """Take what it has printed. False at the end."""
        assert self.process.stdout is not None
        more = await self.process.stdout.receive_some()
        *lines, self._rest = (self._rest + more).split(b"\n")
        for line in lines:
            text = line.decode(errors="replace")
            self._lines.append(text)
            if text.startswith("["):
                self._done = int(text[1:].partition("/")[0])
                self._note(self._done)
        return bool(more)

    def _failed(self, what: str) -> DemoFailed:
        last = "\n".join(self._lines[-20:])
        return DemoFailed(f"process {self.process.pid}: {what}; it said last:\n{last}")
