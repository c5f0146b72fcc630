"""The queue of checkpoints, sleeps and outcomes on PostgreSQL: all that waits of a kind goes out at
once.

What was on its way when a connection was lost is sent again. A batch that fails for another
reason is taken apart: each instance by itself, so that one does not hold up the others.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from typing import Any

import outcome
import trio

from ... import measures
from ...messages import (
    Checkpoint,
    CheckpointReply,
    GetCheckpoint,
    RecordOutcome,
    Request,
    Sleep,
)
from ...tasks import RepeatedEvent
from . import limits, saving, settings
from .connection import Connection
from .failures import is_lost, no_answer, translated
from .job import Job
from .pool import Pool


def is_batched(message: Request[Any]) -> bool:
    """Whether a message goes out with others. An outcome that locks the instances of children as
    well goes alone: the locks of many are taken in one order."""
    if isinstance(message, RecordOutcome):
        return not message.concerns_children
    return isinstance(message, (Checkpoint, GetCheckpoint, Sleep))


_IN_TURN = (RecordOutcome, Sleep)
"""What overtakes nothing of its instance, and of which a batch has one of each."""


class Queue:
    """What waits to be saved or read, and the connection that it goes out on.

    Args:
      take: answers a checkpoint for whose id a custom signal is there.
      answer_many: answers many outcomes or sleeps, on the queue's connection.
      holder: who notes steps; None: there is no table for them.
    """

    def __init__(
        self,
        pool: Pool,
        nursery: trio.Nursery,
        name: str,
        versions: Iterator[int],
        take: Callable[[Job, CheckpointReply], Awaitable[None]],
        answer_many: Callable[..., Awaitable[list[outcome.Outcome[Any]]]],
        holder: Callable[[], str | None],
    ) -> None:
        self._pool = pool
        self._nursery = nursery
        self._name = name
        self._versions = versions
        self._take = take
        self._answer_many = answer_many
        self._holder = holder
        self._jobs: list[Job] = []
        self._more = RepeatedEvent()

    def add(self, jobs: Iterable[Job]) -> None:
        self._jobs += jobs
        self._more.set()

    @trio.lowlevel.enable_ki_protection
    async def work_off(self) -> None:
        """Send what is queued, batch by batch. Runs until cancelled."""
        connection: Connection | None = None
        wait = limits.RETRY
        try:
            while True:
                while not self._jobs:
                    await self._more.wait()
                jobs = self._next_batch()
                try:
                    if connection is None or connection.broken:
                        connection = await self._pool.open(settings.QUEUE)
                    with trio.fail_after(limits.ANSWER):
                        await self._send(connection, jobs)
                    wait = limits.RETRY
                except Exception as exc:
                    if is_lost(exc):
                        if connection is not None:
                            connection.close()
                            self._pool.note_loss()
                        self._put_back(jobs, exc)
                        await trio.sleep(wait)
                        wait = min(2 * wait, limits.RETRY_BATCH)
                    else:
                        self._take_apart(jobs)
        finally:
            if connection is not None:
                connection.close()

    def _next_batch(self) -> list[Job]:
        """What is queued, of one kind, each (instance, id) once."""
        kind = type(self._jobs[0].message)
        again = self._jobs[0].again
        batch: list[Job] = []
        rest: list[Job] = []
        seen: set[tuple[str, str | None]] = set()
        behind: set[str] = set()
        room = limits.MOST_BYTES
        for number, job in enumerate(self._jobs):
            if len(batch) == limits.LARGEST_BATCH or room <= 0:
                rest += self._jobs[number:]
                break
            instance = job.message.instance_id
            in_turn = isinstance(job.message, _IN_TURN)
            name = instance, None if in_turn else job.message.checkpoint_id
            fits = type(job.message) is kind and job.again is again
            waits = in_turn and instance in behind
            if fits and name not in seen and not waits:
                seen.add(name)
                batch.append(job)
                room -= _size(job.message)
            else:
                rest.append(job)
                behind.add(instance)
        self._jobs = rest
        return batch

    async def _send(self, connection: Connection, jobs: Sequence[Job]) -> None:
        begun = trio.current_time()
        await self._answer_all(connection, jobs)
        measures.store_batch(len(jobs))
        measures.store_commit(trio.current_time() - begun)

    async def _answer_all(self, connection: Connection, jobs: Sequence[Job]) -> None:
        version = next(self._versions)
        messages: list[Any] = [job.message for job in jobs]
        for job in jobs:
            job.sent = True
        if isinstance(messages[0], GetCheckpoint):
            found = await saving.get(connection, messages, limits.MOST_BYTES)
            for job, state in zip(jobs, found, strict=True):
                self._answer(job, state)
            return
        if isinstance(messages[0], _IN_TURN):
            answers = await self._answer_many(connection, messages, again=jobs[0].again)
            for job, answer in zip(jobs, answers, strict=True):
                job.answer(answer)
            return
        saved = await saving.save(
            connection, messages, version, again=jobs[0].again, holder=self._holder()
        )
        for job, (reply, custom) in zip(jobs, saved, strict=True):
            if custom and isinstance(reply, CheckpointReply):
                self._nursery.start_soon(self._take, job, reply)
            else:
                self._answer(job, reply)

    def _answer(self, job: Job, reply: object) -> None:
        if isinstance(reply, BaseException):
            job.fail(reply)
        elif reply is not None:
            job.answer(outcome.Value(reply))
        else:  # it is to be asked once more
            job.sent = False
            self.add([job])

    def _put_back(self, jobs: Sequence[Job], exc: Exception) -> None:
        """They are sent again, unless the server has been away for too long."""
        late = [job for job in jobs if job.until <= trio.current_time()]
        for job in late:
            job.fail(translated(exc, self._name))
        for job in jobs:
            job.failure = exc
            job.again = job.again or job.sent
        self._jobs[:0] = [job for job in jobs if job not in late]

    def _take_apart(self, jobs: Sequence[Job]) -> None:
        of: dict[str, list[Job]] = {}
        for job in jobs:
            of.setdefault(job.message.instance_id, []).append(job)
        for same in of.values():
            self._nursery.start_soon(self._one_by_one, same)

    @trio.lowlevel.enable_ki_protection
    async def _one_by_one(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            with trio.move_on_at(job.until):
                try:
                    async with self._pool.lent() as connection:
                        await self._send(connection, [job])
                except Exception as exc:
                    if is_lost(exc):
                        self._put_back([job], exc)
                        self._more.set()
                    else:
                        job.fail(translated(exc, self._name))
                continue
            job.fail(no_answer(self._name, job.failure))


def _size(message: Any) -> int:
    """Bytes that a message carries, at least."""
    return len(getattr(message, "state", b"")) + len(getattr(message, "payload", b""))
