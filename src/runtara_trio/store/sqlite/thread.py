"""Where a store's batches run: on a thread of their own, or inline.

Group commit: while the thread commits one batch, what comes in queues up for the next.
Replies go back to the Trio loop in one call a batch.

A Trio loop that never idles would starve the thread. It gives the GIL away for an instant
in each pass, and takes it back before the thread has woken; the thread then begins its
wait anew, and never gets as far as asking for it. The watchdog mends that: when a batch or
the thread's own timer is 2 ms late, the loop waits, up to 1 ms, on a lock that the thread
releases when it is through. A loop that idles never gets there.
"""

from __future__ import annotations

import contextlib
import math
import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol

import outcome
import trio

from ... import logs, measures
from ...errors import StoreError
from ...tasks import RepeatedEvent
from .database import Job

LARGEST_BATCH = 256
LATE = 0.002
"""Seconds that a batch or the timer may be late before the loop steps aside."""
ASIDE = 0.001
"""Seconds for which it does."""
LATEST = 0.064
"""What it grows to while stepping aside does not help."""
CHECK_TIMER = 0.02
"""Seconds between two checks of the thread's timer while nothing is asked of it."""


class Worker(Protocol):
    """Runs jobs. ``run`` and ``tick`` are the database's."""

    def submit(self, job: Job) -> None:
        """Have a job run; it is answered on the Trio loop."""

    def post(self, function: Callable[..., object], *args: object) -> None:
        """Call ``function`` on the Trio loop, from wherever the database runs."""

    async def watchdog(self) -> None:
        """See that jobs get their turn. Runs until cancelled."""

    async def close(self) -> None:
        """Answer what is queued, then end."""


class InlineWorker:
    """Runs each job where it is asked: for ``:memory:``, deterministic and without timers."""

    def __init__(self, run: Callable[[Sequence[Job]], None], close: Callable[[], None]) -> None:
        self._run = run
        self._close = close

    @trio.lowlevel.enable_ki_protection
    def submit(self, job: Job) -> None:
        self._run([job])
        job.give(job.result)

    def post(self, function: Callable[..., object], *args: object) -> None:
        function(*args)

    async def watchdog(self) -> None:
        await trio.sleep_forever()

    async def close(self) -> None:
        self._close()


class DatabaseThread:
    """Runs what is queued in batches, on one thread."""

    def __init__(
        self,
        name: str,
        run: Callable[[Sequence[Job]], None],
        tick: Callable[[], float | None],
        close: Callable[[], None],
    ) -> None:
        self._run_batch = run
        self._tick = tick
        self._close_database = close
        self._token = trio.lowlevel.current_trio_token()
        self._queue: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._closing = False
        self._waiting = 0
        self._batch_ended = time.monotonic()
        self._stepped_aside = 0.0
        self._timer = math.inf  # when the thread should run its tick
        self._through = threading.Lock()  # released when it has run a batch or a tick
        self._asked = RepeatedEvent()
        self._ended = trio.Event()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    @trio.lowlevel.enable_ki_protection
    def submit(self, job: Job) -> None:
        if self._closing:
            raise StoreError("the store was closed; it must outlive those who use it")
        if self._waiting == 0:
            self._batch_ended = time.monotonic()  # the wait begins now
            self._asked.set()
        self._waiting += 1
        self._queue.put(job)

    async def watchdog(self) -> None:
        """Let the thread have the GIL where the loop would not. Runs until cancelled."""
        patience = LATE
        while True:
            if self._waiting == 0 and self._timer == math.inf:
                await self._asked.wait()
            await trio.sleep(self._until_late(patience))
            if self._until_late(patience) <= 0:
                self._through.acquire(blocking=False)
                # Waiting gives the GIL away. Where that did not help, the thread waits for
                # the disk or for a lock, and the loop is not the one who is in its way.
                helped = self._through.acquire(timeout=ASIDE)
                patience = LATE if helped else min(2 * patience, LATEST)
                self._stepped_aside = time.monotonic()

    def _until_late(self, patience: float) -> float:
        """Seconds until the loop should check whether the thread is late; 0: it is late."""
        now = time.monotonic()
        if self._waiting:
            return max(0.0, max(self._batch_ended, self._stepped_aside) + patience - now)
        if now - max(self._timer, self._stepped_aside) > patience:
            return 0.0
        return LATE if now - self._batch_ended < CHECK_TIMER else CHECK_TIMER

    async def close(self) -> None:
        self._closing = True
        self._queue.put(None)
        with trio.CancelScope(shield=True):
            await self._ended.wait()
        self._thread.join()

    # ---- on the loop

    def _deliver(self, jobs: Sequence[Job]) -> None:
        self._waiting -= len(jobs)
        for job in jobs:
            job.give(job.result)

    # ---- on the thread

    def _work(self) -> None:
        try:
            while self._work_once():
                pass
        finally:
            try:
                self._close_database()
            finally:
                self.post(self._ended.set)

    def _work_once(self) -> bool:
        timeout = self._tick()
        self._timer = math.inf if timeout is None else time.monotonic() + timeout
        self._tell()
        try:
            job = self._queue.get(timeout=timeout)
        except queue.Empty:
            return True
        jobs: list[Job] = []
        while job is not None:
            jobs.append(job)
            if len(jobs) == LARGEST_BATCH or self._queue.empty():
                break
            job = self._queue.get()
        if jobs:
            begun = time.monotonic()
            try:
                self._run_batch(jobs)
            except BaseException as exc:  # a mistake of ours: those who wait must hear of it
                logs.batch_failed(exc_info=exc, count=len(jobs))
                for failed in jobs:
                    failed.result = outcome.Error(exc)
            self._batch_ended = self._timer = time.monotonic()
            measures.store_batch(len(jobs))
            measures.store_commit(self._batch_ended - begun)
            self.post(self._deliver, jobs)
            self._tell()
        return job is not None

    def _tell(self) -> None:
        """Let the loop go on, if it has stepped aside."""
        if self._through.locked():
            self._through.release()

    def post(self, function: Callable[..., object], *args: object) -> None:
        with contextlib.suppress(
            trio.RunFinishedError
        ):  # the loop has gone; so have those who waited
            self._token.run_sync_soon(function, *args)
