"""The PostgreSQL store as a backend.

Checkpoints and their reads are queued; every other message is a transaction of its own on
one of a few connections. What was on its way when a connection was lost is sent again where
that is safe.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import msgspec
import outcome
import psycopg
import trio

from ..backend import Patience, SignalBatch, dispatch_async
from ..config import SdkConfig
from ..errors import ConfigError, StoreError
from ..messages import (
    Checkpoint,
    CheckpointReply,
    Done,
    FreeLease,
    Hold,
    Prune,
    RecordEvent,
    RecordOutcome,
    Register,
    ReplyT,
    Request,
    SendSignal,
    StopWaiting,
    TakeLease,
    TakeSignal,
    Vacuum,
)
from ..tasks import GRACE
from ..threads import in_thread
from ..types import CustomSignal, SignalType
from . import pg_operating, pg_schema, pg_verbs
from .location import without_password
from .pg_connection import Connection
from .pg_failures import is_lost, may_pass, no_answer, translated
from .pg_hosts import Hosts
from .pg_liveness import Liveness
from .pg_owner import Owner
from .pg_pool import Pool
from .pg_queue import AGAIN, ANSWER, BATCHED, PATIENCE, Job, Queue
from .pg_verbs import Doubtful, Work
from .pg_watch import CHANNEL, LONGEST_WAIT, Watch

_HANDLERS = {**pg_verbs.HANDLERS, **pg_operating.HANDLERS}

_AFTER_CHECKPOINTS = (RecordOutcome, Hold, FreeLease)
"""What must not overtake the checkpoints of its instance: after it nothing can be written."""

LOOK_AGAIN = 0.25
"""Seconds between two looks at an owner that may be dead."""


class _Unsure(Exception):
    """The connection was lost after a commit was sent: nobody knows whether it was made."""


class PostgresStore:
    """A backend on a PostgreSQL server; open it with :func:`open_postgres`."""

    def __init__(
        self,
        url: str,
        name: str,
        nursery: trio.Nursery,
        *,
        config: SdkConfig,
        patience: Patience,
        create: bool,
    ) -> None:
        self._nursery = nursery
        self._name = name
        self._create = create
        self._patience = patience
        self._connect_within = config.connect_timeout_ms / 1000
        self._token = trio.lowlevel.current_trio_token()
        hosts = Hosts(url)
        self._owner = Owner(hosts, config.lease_ms, self._lost)
        self._liveness = Liveness()
        self._owned = trio.Event()
        self._ready = False
        self._preparing = trio.Lock()
        self._looks = itertools.count(1)
        self._pool = Pool(hosts, name)
        self._queue = Queue(self._pool, nursery, name, self._looks, self._add_signal, self._ended)
        self._watch = Watch(self._pool, self._owner, self._owned, self._looks)
        self._open: set[Job] = set()
        self._saves: Counter[str] = Counter()
        """How many checkpoints of an instance are on their way."""
        self._saved: dict[str, trio.Event] = {}
        self._all_answered = trio.Event()
        self._closed = False

    # ---- requests

    async def request(self, message: Request[ReplyT], /) -> ReplyT:
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._closed:
            raise StoreError(f"{self._name}: the store was closed")
        if isinstance(message, StopWaiting):  # the rows are the hints: nobody keeps a list
            return cast(ReplyT, Done())
        job = Job(message, self._answered)
        self._open.add(job)
        if isinstance(message, Checkpoint):
            self._saves[message.instance_id] += 1
        waits = isinstance(message, _AFTER_CHECKPOINTS) and message.instance_id in self._saves
        if isinstance(message, BATCHED) and self._ready and not waits:
            self._queue.add([job])
        else:
            self._nursery.start_soon(self._carry_out, job)
        reply: ReplyT = await job.wait(grace=GRACE if message.saves else 0.0)
        return reply

    @property
    def trouble(self) -> str | None:
        """What keeps it from answering, if anything is known."""
        failure = self._pool.trouble
        return None if failure is None else str(translated(failure, self._name))

    def _answered(self, job: Job) -> None:
        if job not in self._open:
            return
        self._open.remove(job)
        if isinstance(job.message, Checkpoint):
            instance = job.message.instance_id
            self._saves[instance] -= 1
            if not self._saves[instance]:
                del self._saves[instance]
                self._saved.pop(instance, trio.Event()).set()
        if not self._open:
            self._all_answered.set()

    def _ended(self, instance_id: str) -> None:
        self._owner.held.pop(instance_id, None)

    @trio.lowlevel.enable_ki_protection
    async def _carry_out(self, job: Job) -> None:
        """Answer one message, within the patience that there is for a server."""
        limit = PATIENCE if self._ready else self._connect_within
        with trio.move_on_after(limit) as patience:
            try:
                await self._prepared(job, patience)
                if isinstance(job.message, _AFTER_CHECKPOINTS):
                    await self._until_saved(job.message.instance_id)
                if isinstance(job.message, BATCHED):
                    self._queue.add([job])
                    return
                if isinstance(job.message, Vacuum):
                    patience.deadline = math.inf
                    async with self._pool.lent() as connection:
                        job.answer(outcome.Value(await pg_operating.vacuum(connection)))
                    return
                job.answer(outcome.Value(await self._asked(job, job.message, patience)))
            except Exception as exc:
                job.fail(translated(exc, self._name))
            return
        job.fail(no_answer(self._name, job.failure))

    async def _until_saved(self, instance_id: str) -> None:
        """Wait for the checkpoints that were sent before, also those whose wait was cancelled."""
        while instance_id in self._saves:
            await self._saved.setdefault(instance_id, trio.Event()).wait()

    async def _asked(self, job: Job, message: Request[Any], patience: trio.CancelScope) -> Any:
        again = False
        while True:
            try:
                return await self._in_transaction(message, again=again)
            except Doubtful:
                patience.deadline = trio.current_time() + PATIENCE  # the server answers
                await trio.sleep(LOOK_AGAIN)
                continue
            except _Unsure as exc:
                if _counts_twice(message):
                    raise StoreError(
                        f"{self._name}: the connection was lost while {type(message).__name__} was "
                        f"on its way; nobody knows whether it was carried out: {exc.__cause__}"
                    ) from exc
                again = True
                job.failure = exc.__cause__
            except Exception as exc:
                if not is_lost(exc):
                    raise
                job.failure = exc
            await trio.sleep(AGAIN)

    async def _in_transaction(self, message: Request[Any], *, again: bool) -> Any:
        async with self._pool.lent() as connection:
            work = Work(
                connection=connection,
                owner=self._owner,
                liveness=self._liveness,
                losses=self._pool.losses,
                look=next(self._looks),
                again=again,
            )
            try:
                with trio.fail_after(ANSWER):
                    await connection.run("BEGIN")
                    reply = await dispatch_async(_HANDLERS, work, message)
            except BaseException:
                if not connection.broken:
                    with trio.CancelScope(shield=True), trio.move_on_after(AGAIN):
                        await connection.run("ROLLBACK")
                raise
            try:
                # A commit is not left half-way.
                with trio.CancelScope(shield=True), trio.fail_after(ANSWER):
                    await connection.run("COMMIT")
            except Exception as exc:
                if is_lost(exc):
                    raise _Unsure from exc
                raise
            for instance, epoch in work.held:
                if epoch is None:
                    self._owner.held.pop(instance, None)
                else:
                    self._owner.held[instance] = epoch
            if work.announce:
                await self._announce(connection)
            return reply

    async def _announce(self, connection: Connection) -> None:
        """Tell those who listen. A server whose queue is full refuses that; what was committed
        is found by their poll."""
        with contextlib.suppress(psycopg.Error), trio.move_on_after(AGAIN, shield=True):
            await connection.run(f"SELECT pg_notify('{CHANNEL}', '')")

    async def _prepared(self, job: Job, patience: trio.CancelScope) -> None:
        """The tables are there, and for a lease this process is an owner. A server that is not
        up yet is waited for, but not what does not pass by itself."""
        takes = isinstance(job.message, (Register, TakeLease))
        wait = AGAIN
        while not (self._ready and (self._owned.is_set() or not takes)):
            try:
                async with self._preparing:
                    await self._prepare(takes=takes)
            except Exception as exc:
                if not may_pass(exc):
                    raise
                job.failure = exc
                await trio.sleep(wait)
                wait = min(2 * wait, LONGEST_WAIT)
            else:
                patience.deadline = trio.current_time() + PATIENCE

    async def _prepare(self, *, takes: bool) -> None:
        if not self._ready:
            async with self._pool.lent() as connection:
                await self._find_tables(connection, make=takes or self._create)
            self._ready = True
        if takes and not self._owned.is_set():
            await in_thread(self._owner.start, abandon_on_cancel=True)
            self._owned.set()

    async def _find_tables(self, connection: Connection, *, make: bool) -> None:
        if await pg_schema.is_ready(connection, self._name):
            return
        if not make:
            raise StoreError(
                f"{self._name} has no tables of runtara yet; the first instance that registers "
                "makes them"
            )
        await pg_schema.create(connection, self._name)

    @trio.lowlevel.enable_ki_protection
    async def _add_signal(self, job: Job, reply: CheckpointReply) -> None:
        """The custom signal for a checkpoint's id; taken and saved before it is answered."""
        message = job.message
        take = TakeSignal(
            instance_id=message.instance_id,
            lease=message.lease,
            checkpoint_id=message.checkpoint_id,
        )
        with trio.move_on_after(PATIENCE) as patience:
            try:
                payload = (await self._asked(job, take, patience)).payload
            except Exception as exc:
                job.fail(translated(exc, self._name))
                return
            signal = None if payload is None else CustomSignal(message.checkpoint_id, payload)
            job.answer(outcome.Value(msgspec.structs.replace(reply, custom_signal=signal)))
            return
        job.fail(no_answer(self._name, job.failure))

    # ---- signals

    def signals(self) -> AsyncIterator[SignalBatch]:
        return self._watch.signals()

    def _lost(self, leases: list[tuple[str, int]]) -> None:
        """From the owner's thread."""
        self._token.run_sync_soon(self._tell_of_loss, leases)

    def _tell_of_loss(self, leases: list[tuple[str, int]]) -> None:
        for instance, epoch in leases:
            if self._owner.held.get(instance) == epoch:
                del self._owner.held[instance]
        self._watch.publish(SignalBatch(lost=tuple(leases)))

    # ---- the end

    def start(self) -> None:
        self._nursery.start_soon(self._queue.work_off)
        self._nursery.start_soon(self._watch.run)

    async def close(self) -> None:
        """Answer what is on its way, then give up what is held: it is free at once."""
        self._closed = True
        with trio.move_on_after(min(PATIENCE, self._patience.left())):
            while self._open:
                self._all_answered = trio.Event()
                await self._all_answered.wait()
        self._nursery.cancel_scope.cancel()
        for job in list(self._open):
            job.fail(StoreError(f"{self._name}: the store was closed"))
        self._pool.close()
        await in_thread(self._owner.stop, self._patience.left())


def _counts_twice(message: Request[Any]) -> bool:
    """Whether a second sending is told from the first by nothing."""
    if isinstance(message, SendSignal):
        return message.type is not SignalType.CANCEL
    return isinstance(message, (RecordEvent, Prune))


@asynccontextmanager
async def open_postgres(
    url: str, name: str, *, config: SdkConfig, patience: Patience, create: bool = False
) -> AsyncIterator[PostgresStore]:
    """Open a store. The server is asked by the first request, its tables are made by the
    first register; with ``create`` by the first request."""
    async with trio.open_nursery() as outer:
        nursery = await outer.start(_shielded)
        store = PostgresStore(url, name, nursery, config=config, patience=patience, create=create)
        try:
            store.start()
            yield store
        finally:
            with trio.CancelScope(shield=True):
                await store.close()


@trio.lowlevel.enable_ki_protection
async def _shielded(task_status: trio.TaskStatus[trio.Nursery]) -> None:
    """A nursery whose tasks answer what is on its way while the store is being closed."""
    with trio.CancelScope(shield=True):
        async with trio.open_nursery() as nursery:
            task_status.started(nursery)
            await trio.sleep_forever()


def named(url: str) -> str:
    """What errors call a server: without the password, which may be in the URL.

    Raises:
      ConfigError: it is no URL of a PostgreSQL.
    """
    try:
        found = psycopg.conninfo.conninfo_to_dict(url)
    except psycopg.Error as exc:
        text = without_password(str(exc).strip())
        remedy = ""
        if "=" in url.partition("options=")[2].partition("&")[0]:
            remedy = "; in options= of a URL write %3D for =, as options=-csearch_path%3Dshop"
        raise ConfigError(f"cannot read the URL of a PostgreSQL: {text}{remedy}") from None
    host = found.get("host") or "the local socket"
    port = f":{found['port']}" if found.get("port") else ""
    return f"PostgreSQL {found.get('dbname') or 'database'} on {host}{port}"
