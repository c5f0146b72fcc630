"""Where a store's batches run: on a thread of their own, or inline.

Group commit: while the thread commits one batch, what comes in queues up for the next.
Replies go back to the Trio loop in one call a batch.

A Trio loop that never idles would starve the thread: each time it wants the GIL back
after a call into SQLite it waits for the interpreter's switch interval, and a checkpoint
has a dozen such calls. The watchdog mends that: when requests wait and no batch has
ended for 2 ms, the loop itself waits, up to 1 ms, on a lock that the thread releases at
the end of a batch. Waiting gives the GIL away. A loop that idles never gets there.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import outcome
import trio

from .database import Job

logger = logging.getLogger("runtara_trio.store")

LARGEST_BATCH = 256
PATIENCE = 0.002
"""Seconds without the end of a batch after which the loop steps aside."""
ASIDE = 0.001
"""Seconds for which it does."""


class Worker(Protocol):
    """Runs jobs. ``run`` and ``tick`` are the database's."""

    async def submit(self, job: Job) -> Any:
        """The reply to ``job``, or its error."""

    async def watchdog(self) -> None:
        """See that jobs get their turn. Runs until cancelled."""

    async def close(self) -> None:
        """Answer what is queued, then end."""


class InlineWorker:
    """Runs each job where it is asked: for ``:memory:``, deterministic and without timers."""

    def __init__(self, run: Callable[[Sequence[Job]], None], close: Callable[[], None]) -> None:
        self._run = run
        self._close = close

    async def submit(self, job: Job) -> Any:
        self._run([job])
        await trio.lowlevel.cancel_shielded_checkpoint()
        return job.result.unwrap()

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
        self._waiting = 0
        self._batch_ended = time.monotonic()
        self._aside = threading.Lock()
        self._aside.acquire()
        self._asked = trio.Event()
        self._ended = trio.Event()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    async def submit(self, job: Job) -> Any:
        if self._ended.is_set():
            job.result.unwrap()
        job.waiter = trio.lowlevel.current_task()
        if self._waiting == 0:
            self._batch_ended = time.monotonic()  # the wait begins now
            self._asked.set()
        self._waiting += 1
        self._queue.put(job)

        def abort(_: trio.lowlevel.RaiseCancelT) -> trio.lowlevel.Abort:
            job.waiter = None  # the write goes on; nobody waits for it
            return trio.lowlevel.Abort.SUCCEEDED

        return await trio.lowlevel.wait_task_rescheduled(abort)

    async def watchdog(self) -> None:
        """Let the thread have the GIL where the loop would not. Runs until cancelled."""
        while True:
            if self._waiting == 0:
                self._asked = trio.Event()
                await self._asked.wait()
            await trio.sleep(PATIENCE)
            if self._waiting and time.monotonic() - self._batch_ended > PATIENCE:
                self._aside.acquire(timeout=ASIDE)

    async def close(self) -> None:
        self._queue.put(None)
        with trio.CancelScope(shield=True):
            await self._ended.wait()
        self._thread.join()

    # ---- on the loop

    def _deliver(self, jobs: Sequence[Job]) -> None:
        self._waiting -= len(jobs)
        for job in jobs:
            if job.waiter is not None:
                trio.lowlevel.reschedule(job.waiter, job.result)

    # ---- on the thread

    def _work(self) -> None:
        try:
            while self._work_once():
                pass
        finally:
            self._close_database()
            self._post(self._ended.set)

    def _work_once(self) -> bool:
        try:
            first = self._queue.get(timeout=self._tick())
        except queue.Empty:
            return True
        jobs: list[Job] = []
        job: Job | None = first
        while job is not None:
            jobs.append(job)
            if len(jobs) == LARGEST_BATCH or self._queue.empty():
                break
            job = self._queue.get()
        if jobs:
            try:
                self._run_batch(jobs)
            except BaseException as exc:  # a mistake of ours: those who wait must hear of it
                logger.exception("a batch of %d requests failed", len(jobs))
                for failed in jobs:
                    failed.result = outcome.Error(exc)
            self._batch_ended = time.monotonic()
            self._post(self._deliver, jobs)
            if self._aside.locked():
                self._aside.release()
        return job is not None

    def _post(self, function: Callable[..., object], *args: object) -> None:
        with contextlib.suppress(
            trio.RunFinishedError
        ):  # the loop has gone; so have those who waited
            self._token.run_sync_soon(function, *args)
