"""The PostgreSQL store as a backend.

Checkpoints and their reads are queued: one connection sends all that waits as one
statement. Every other message is a transaction of its own on one of a few connections. A
connection listens for signals, with a slow poll behind it for those who do not announce
them. What was on its way when a connection was lost is sent again where that is safe.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import outcome
import psycopg
import trio

from ..backend import SignalBatch, dispatch_async
from ..clock import Clock
from ..errors import ConfigError, InstanceBusy, StoreError
from ..messages import (
    Checkpoint,
    CheckpointReply,
    GetCheckpoint,
    RecordEvent,
    Register,
    ReplyT,
    Request,
    TakeLease,
    TakeSignal,
)
from ..types import CustomSignal, Signal
from . import pg_connection, pg_operating, pg_saving, pg_schema, pg_verbs
from .location import without_password
from .pg_connection import Connection
from .pg_failures import is_lost, translated
from .pg_operating import CHANNEL
from .pg_owner import Owner
from .pg_verbs import Doubtful, Work
from .transaction import signal_of

CONNECT_TIMEOUT = 10.0
PATIENCE = 20.0
"""Seconds that a message waits for a server that went away."""

AGAIN = 0.1
POLL = 1.0
"""Seconds between two looks for signals that nobody announced."""

CONNECTIONS = 4
LARGEST_BATCH = 256
_BATCHED = (Checkpoint, GetCheckpoint)
_HANDLERS = {**pg_verbs.HANDLERS, **pg_operating.HANDLERS}


class _Job:
    """A message on its way, and who waits for its answer. Nobody, once that is cancelled: it
    is carried out all the same."""

    __slots__ = ("again", "message", "task", "until")

    def __init__(self, message: Any) -> None:
        self.message = message
        self.task: trio.lowlevel.Task | None = trio.lowlevel.current_task()
        self.again = False
        self.until = trio.current_time() + PATIENCE

    async def answered(self) -> Any:
        def abort(_: Any) -> trio.lowlevel.Abort:
            self.task = None
            return trio.lowlevel.Abort.SUCCEEDED

        return await trio.lowlevel.wait_task_rescheduled(abort)

    def answer(self, result: outcome.Outcome[Any]) -> None:
        if self.task is not None:
            trio.lowlevel.reschedule(self.task, result)
            self.task = None


class PostgresStore:
    """A backend on a PostgreSQL server; open it with :func:`open_postgres`."""

    def __init__(
        self, url: str, name: str, nursery: trio.Nursery, *, lease_ms: int, create: bool
    ) -> None:
        self._nursery = nursery
        self._url = url
        self._name = name
        self._create = create
        self._token = trio.lowlevel.current_trio_token()
        self._owner = Owner(url, lease_ms, self._lost)
        self._lease_ms = lease_ms
        self._looks = itertools.count(1)
        self._ready = False
        self._owned = trio.Event()
        self._preparing = trio.Lock()
        self._turns = trio.Semaphore(CONNECTIONS)
        self._idle: list[Connection] = []
        self._jobs: list[_Job] = []
        self._more = trio.Event()
        self._news, self._batches = trio.open_memory_channel[SignalBatch](100)

    # ---- requests

    async def request(self, message: Request[ReplyT], /) -> ReplyT:
        await trio.lowlevel.checkpoint_if_cancelled()
        job = _Job(message)
        if isinstance(message, _BATCHED) and self._ready:
            self._jobs.append(job)
            self._more.set()
        else:
            self._nursery.start_soon(self._carry_out, job)
        reply: ReplyT = await job.answered()
        return reply

    async def _carry_out(self, job: _Job) -> None:
        """Answer one message, within the patience that there is for a server."""
        with trio.move_on_after(PATIENCE):
            try:
                await self._prepared(job.message)
                if isinstance(job.message, _BATCHED):
                    self._jobs.append(job)
                    self._more.set()
                    return
                result: Any = outcome.Value(await self._asked(job.message))
            except Exception as exc:
                result = outcome.Error(translated(exc, self._name))
            job.answer(result)
            return
        text = f"{self._name}: no answer within {PATIENCE:g} s; it may have been carried out"
        job.answer(outcome.Error(StoreError(text, transient=True)))

    async def _asked(self, message: Request[Any]) -> Any:
        again = False
        while True:
            try:
                return await self._in_transaction(message, again=again)
            except Doubtful as exc:
                await trio.sleep(AGAIN)
                if patience_is_over():
                    raise InstanceBusy(str(exc), "an owner that may be dead", None) from exc
            except (psycopg.Error, OSError) as exc:
                if not is_lost(exc):
                    raise
                if isinstance(message, RecordEvent):
                    raise StoreError(
                        f"{self._name}: the connection was lost while an event was on its way; "
                        f"nobody knows whether it was added: {exc}"
                    ) from exc
                again = True
                await trio.sleep(AGAIN)

    async def _in_transaction(self, message: Request[Any], *, again: bool) -> Any:
        async with self._connection() as connection:
            work = Work(
                connection=connection, owner=self._owner, look=next(self._looks), again=again
            )
            await connection.run("BEGIN")
            try:
                reply = await dispatch_async(_HANDLERS, work, message)
            except BaseException:
                if not connection.broken:
                    with trio.CancelScope(shield=True), trio.move_on_after(CONNECT_TIMEOUT):
                        await connection.run("ROLLBACK")
                raise
            with trio.CancelScope(shield=True):  # a commit is not left half-way
                await connection.run("COMMIT")
            for instance, epoch in work.held:
                if epoch is None:
                    self._owner.held.pop(instance, None)
                else:
                    self._owner.held[instance] = epoch
            return reply

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Connection]:
        async with self._turns:
            connection = self._idle.pop() if self._idle else await self._connect()
            try:
                yield connection
            finally:
                if connection.broken:
                    connection.close()
                else:
                    self._idle.append(connection)

    async def _connect(self) -> Connection:
        connection = await pg_connection.connect(self._url, timeout=CONNECT_TIMEOUT)
        # Planned anew for each of its parameters, a batch takes three times as long.
        await connection.run("SET plan_cache_mode = force_generic_plan")
        # A process that is stopped inside a transaction would lock others out for good.
        await connection.run(f"SET idle_in_transaction_session_timeout = {self._lease_ms}")
        return connection

    async def _prepared(self, message: Request[Any]) -> None:
        """The tables are there, and for a lease this process is an owner."""
        takes = isinstance(message, (Register, TakeLease))
        if self._ready and (self._owned.is_set() or not takes):
            return
        async with self._preparing:
            if not self._ready:
                async with self._connection() as connection:
                    if not await pg_schema.is_ready(connection, self._name):
                        if not (takes or self._create):
                            raise StoreError(
                                f"{self._name} has no tables of runtara yet; the first instance "
                                "that registers makes them"
                            )
                        await pg_schema.create(connection, self._name)
                self._ready = True
            if takes and not self._owned.is_set():
                await trio.to_thread.run_sync(self._owner.start)
                self._owned.set()

    # ---- the queue

    async def work_off(self) -> None:
        """Send what is queued, batch by batch. Runs until cancelled."""
        connection: Connection | None = None
        while True:
            if not self._jobs:
                self._more = trio.Event()
                await self._more.wait()
            jobs = self._next_batch()
            try:
                if connection is None or connection.broken:
                    connection = await self._connect()
                await self._send(connection, jobs)
            except Exception as exc:
                if connection is not None:
                    connection.close()
                    connection = None
                if is_lost(exc):
                    self._put_back(jobs, exc)
                    await trio.sleep(AGAIN)
                elif len(jobs) > 1:  # one of them: each by itself
                    await self._one_by_one(jobs)
                else:
                    jobs[0].answer(outcome.Error(translated(exc, self._name)))

    def _put_back(self, jobs: Sequence[_Job], exc: Exception) -> None:
        """They are sent again, unless the server has been away for too long."""
        late = [job for job in jobs if job.until <= trio.current_time()]
        for job in late:
            job.answer(outcome.Error(translated(exc, self._name)))
        for job in jobs:
            job.again = True
        self._jobs[:0] = [job for job in jobs if job not in late]

    def _next_batch(self) -> list[_Job]:
        """What is queued, of one kind, each (instance, id) once."""
        kind = type(self._jobs[0].message)
        again = self._jobs[0].again
        batch: list[_Job] = []
        rest: list[_Job] = []
        seen: set[tuple[str, str]] = set()
        for job in self._jobs:
            name = (job.message.instance_id, job.message.checkpoint_id)
            fits = len(batch) < LARGEST_BATCH and type(job.message) is kind and job.again is again
            if fits and name not in seen:
                seen.add(name)
                batch.append(job)
            else:
                rest.append(job)
        self._jobs = rest
        return batch

    async def _one_by_one(self, jobs: Sequence[_Job]) -> None:
        connection = await self._connect()
        try:
            for job in jobs:
                try:
                    await self._send(connection, [job])
                except psycopg.Error as exc:
                    job.answer(outcome.Error(translated(exc, self._name)))
        finally:
            connection.close()

    async def _send(self, connection: Connection, jobs: Sequence[_Job]) -> None:
        look = next(self._looks)
        if isinstance(jobs[0].message, GetCheckpoint):
            found = await pg_saving.get(connection, [job.message for job in jobs])
            for job, state in zip(jobs, found, strict=True):
                job.answer(_outcome(state))
            return
        messages: list[Any] = [job.message for job in jobs]
        answers = await pg_saving.save(connection, messages, look, again=jobs[0].again)
        for job, (answer, custom) in zip(jobs, answers, strict=True):
            if answer is None:
                self._jobs.append(job)
            elif custom and isinstance(answer, CheckpointReply):
                self._nursery.start_soon(self._add_signal, job, answer)
            else:
                job.answer(_outcome(answer))

    async def _add_signal(self, job: _Job, reply: CheckpointReply) -> None:
        """The custom signal for a checkpoint's id; taken and saved before it is answered."""
        message = job.message
        take = TakeSignal(
            instance_id=message.instance_id,
            lease=message.lease,
            checkpoint_id=message.checkpoint_id,
        )
        try:
            payload = (await self._asked(take)).payload
        except Exception as exc:
            job.answer(outcome.Error(translated(exc, self._name)))
            return
        signal = None if payload is None else CustomSignal(message.checkpoint_id, payload)
        job.answer(outcome.Value(msgspec.structs.replace(reply, custom_signal=signal)))

    # ---- signals

    async def signals(self) -> AsyncIterator[SignalBatch]:
        while True:
            yield await self._batches.receive()

    def _lost(self, leases: list[tuple[str, int]]) -> None:
        """From the owner's thread."""
        batch = SignalBatch(lost=tuple(leases))
        for instance, _ in leases:
            self._owner.held.pop(instance, None)
        self._token.run_sync_soon(self._publish, batch)

    def _publish(self, batch: SignalBatch) -> None:
        try:
            self._news.send_nowait(batch)
        except trio.WouldBlock:
            return  # it is looked for again

    async def watch(self) -> None:
        """Look for signals when one is announced, and now and then. Runs until cancelled."""
        connection: Connection | None = None
        last: Any = None
        while True:
            try:
                await self._owned.wait()
                if connection is None or connection.broken:
                    connection = await self._connect()
                    await connection.run(f"LISTEN {CHANNEL}")
                if self._owner.held:
                    last = await self._look(connection, last)
                with trio.move_on_after(POLL):
                    await connection.notified()
            except (psycopg.Error, OSError, trio.TooSlowError):
                if connection is not None:
                    connection.close()
                connection = None
                await trio.sleep(AGAIN)

    async def _look(self, connection: Connection, last: Any) -> Any:
        look = next(self._looks)
        rows = await connection.run(
            "SELECT s.instance_id, s.signal_type::text, s.payload, NULL FROM pending_signals s"
            " JOIN runtara_trio_leases l USING (instance_id)"
            " WHERE l.owner = $1 AND s.acknowledged_at IS NULL UNION ALL"
            " SELECT c.instance_id, NULL, NULL, c.checkpoint_id"
            " FROM pending_checkpoint_signals c"
            " JOIN runtara_trio_leases l USING (instance_id) WHERE l.owner = $1",
            self._owner.name,
        )
        signals: list[tuple[str, Signal]] = []
        hints: list[tuple[str, str]] = []
        for instance, kind, payload, checkpoint_id in rows:
            signal = signal_of(kind, payload)
            if signal is not None:
                signals.append((instance, signal))
            else:
                hints.append((instance, checkpoint_id))
        if (signals or hints) and rows != last:
            await self._news.send(
                SignalBatch(signals=tuple(signals), hints=tuple(hints), look=look)
            )
        return rows

    async def close(self) -> None:
        """Give up what is held: it is free at once."""
        for connection in self._idle:
            connection.close()
        if self._owned.is_set():
            await trio.to_thread.run_sync(self._owner.stop)


def patience_is_over() -> bool:
    return trio.current_effective_deadline() <= trio.current_time() + 2 * AGAIN


def _outcome(answer: Any) -> outcome.Outcome[Any]:
    return outcome.Error(answer) if isinstance(answer, BaseException) else outcome.Value(answer)


@asynccontextmanager
async def open_postgres(
    url: str, name: str, *, lease_ms: int, clock: Clock, create: bool = False
) -> AsyncIterator[PostgresStore]:
    """Open a store. The server is asked by the first request, its tables are made by the
    first register; with ``create`` by the first request."""
    async with trio.open_nursery() as nursery:
        store = PostgresStore(url, name, nursery, lease_ms=lease_ms, create=create)
        try:
            nursery.start_soon(store.work_off)
            nursery.start_soon(store.watch)
            yield store
        finally:
            nursery.cancel_scope.cancel()
            with trio.CancelScope(shield=True):
                await store.close()


def named(url: str) -> str:
    """What errors call a server: without the password, which may be in the URL.

    Raises:
      ConfigError: it is no URL of a PostgreSQL.
    """
    try:
        found = psycopg.conninfo.conninfo_to_dict(url)
    except psycopg.Error as exc:
        text = without_password(str(exc).strip())
        raise ConfigError(f"cannot read the URL of a PostgreSQL: {text}") from None
    host = found.get("host") or "the local socket"
    port = f":{found['port']}" if found.get("port") else ""
    return f"PostgreSQL {found.get('dbname') or 'database'} on {host}{port}"
