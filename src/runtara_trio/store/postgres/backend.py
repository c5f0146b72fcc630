"""The PostgreSQL store as a backend.

Checkpoints, their reads and outcomes are queued; every other message is a transaction of its
own on one of a few connections.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import msgspec
import outcome
import psycopg
import trio

from ...backend import Patience, SignalBatch
from ...config import SdkConfig
from ...errors import ConfigError, StoreError
from ...messages import (
    Checkpoint,
    CheckpointReply,
    FreeLease,
    Hold,
    RecordOutcome,
    ReplyT,
    Request,
    TakeSignal,
    Transact,
    Vacuum,
)
from ...tasks import GRACE, RepeatedEvent, open_service_nursery
from ...threads import in_thread
from ...types import CustomSignal
from ..answers import at_once
from ..location import without_password
from . import limits
from .failures import no_answer, translated
from .hosts import Hosts
from .job import Job
from .owner import Owner
from .pool import Pool
from .pooled import without_pooler
from .preparing import Preparing
from .queue import Queue, is_batched
from .transact import PostgresTransacting
from .transactions import Transactions
from .watch import Watch

_AFTER_CHECKPOINTS = (RecordOutcome, Hold, FreeLease)
"""What must not overtake the checkpoints of its instance: after it nothing can be written."""


class PostgresStore:
    """A backend on a PostgreSQL server; open it with :func:`open_postgres`."""

    keeps_history = True

    def __init__(
        self,
        url: str,
        name: str,
        nursery: trio.Nursery,
        *,
        config: SdkConfig,
        patience: Patience,
        create: bool,
        core: str,
    ) -> None:
        self._nursery = nursery
        self._name = name
        self._patience = patience
        self._connect_within = config.connect_timeout_ms / 1000
        self._token = trio.lowlevel.current_trio_token()
        hosts = self._hosts = Hosts(url)
        versions = itertools.count(1)
        self._owner = Owner(hosts, config.lease_ms, self._lost)
        self._pool = Pool(hosts, name)
        self._preparing = Preparing(self._pool, self._owner, name, create=create, core=core)
        self._watch = Watch(self._pool, self._owner, hosts, self._preparing.listens, versions)
        self._transactions = Transactions(
            *(self._pool, self._owner, self._preparing, name, versions, self._watch.announced)
        )
        self._queue = Queue(
            *(self._pool, nursery, name, versions),
            *(self._add_signal, self._transactions.answer_many, self._holder),
        )
        self._open: set[Job] = set()
        self._saves: Counter[str] = Counter()
        """How many checkpoints of an instance are on their way."""
        self._saved: dict[str, trio.Event] = {}
        self._answers = RepeatedEvent()
        self._closed = False

    def _holder(self) -> str | None:
        """Who notes steps; None: there is no table for them."""
        return self._owner.who if self._preparing.has_runs else None

    # ---- requests

    async def request(self, message: Request[ReplyT], /) -> ReplyT:
        await trio.lowlevel.checkpoint_if_cancelled()
        if (done := at_once(message)) is not None:
            await trio.lowlevel.cancel_shielded_checkpoint()
            return cast(ReplyT, done)
        if self._closed:
            raise StoreError(f"{self._name}: the store was closed")
        if isinstance(message, Transact):
            own = PostgresTransacting(message, self._hosts, self._name, self._holder())
            return cast(ReplyT, await own.carry_out())
        job = Job(message, self._answered)
        self._open.add(job)
        if isinstance(message, Checkpoint):
            self._saves[message.instance_id] += 1
        waits = isinstance(message, _AFTER_CHECKPOINTS) and message.instance_id in self._saves
        if is_batched(message) and self._preparing.is_ready and not waits:
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
            self._answers.set()

    @trio.lowlevel.enable_ki_protection
    async def _carry_out(self, job: Job) -> None:
        """Answer one message, within the patience that there is for a server."""
        limit = limits.AWAY if self._preparing.is_ready else self._connect_within
        with trio.move_on_after(limit) as patience:
            try:
                await self._preparing.prepare_for(job, patience)
                if isinstance(job.message, _AFTER_CHECKPOINTS):
                    await self._until_saved(job.message.instance_id)
                if is_batched(job.message):
                    self._queue.add([job])
                    return
                if isinstance(job.message, Vacuum):
                    patience.deadline = math.inf
                    answer = await self._transactions.alone(job.message)
                else:
                    answer = await self._transactions.answer(job, job.message, patience)
                job.answer(outcome.Value(answer))
            except Exception as exc:
                job.fail(translated(exc, self._name))
            return
        job.fail(no_answer(self._name, job.failure))

    async def _until_saved(self, instance_id: str) -> None:
        """Wait for the checkpoints that were sent before, also those whose wait was cancelled."""
        while instance_id in self._saves:
            await self._saved.setdefault(instance_id, trio.Event()).wait()

    @trio.lowlevel.enable_ki_protection
    async def _add_signal(self, job: Job, reply: CheckpointReply) -> None:
        """The custom signal for a checkpoint's id; taken and saved before it is answered."""
        message = job.message
        take = TakeSignal(
            instance_id=message.instance_id,
            lease=message.lease,
            checkpoint_id=message.checkpoint_id,
        )
        with trio.move_on_after(limits.AWAY) as patience:
            try:
                payload = (await self._transactions.answer(job, take, patience)).payload
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
            if self._owner.leased.get(instance) == epoch:
                del self._owner.leased[instance]
        self._watch.publish(SignalBatch(lost=tuple(leases)))

    # ---- the end

    def start(self) -> None:
        self._nursery.start_soon(self._queue.work_off)
        self._nursery.start_soon(self._watch.run)

    async def close(self) -> None:
        """Answer what is on its way, then give up what is leased: it is free at once."""
        self._closed = True
        with trio.move_on_after(min(limits.AWAY, self._patience.left())):
            while self._open:
                await self._answers.wait()
        self._nursery.cancel_scope.cancel()
        for job in list(self._open):
            job.fail(StoreError(f"{self._name}: the store was closed"))
        self._pool.close()
        await in_thread(self._owner.stop, self._patience.left())


@asynccontextmanager
async def open_postgres(
    url: str,
    name: str,
    *,
    config: SdkConfig,
    patience: Patience,
    create: bool = False,
    core: str = "1.4.1",
) -> AsyncIterator[PostgresStore]:
    """Open a store. The server is asked by the first request, its tables are made by the
    first register; with ``create`` by the first request."""
    async with open_service_nursery() as nursery:
        store = PostgresStore(
            url, name, nursery, config=config, patience=patience, create=create, core=core
        )
        try:
            store.start()
            yield store
        finally:
            with trio.CancelScope(shield=True):
                await store.close()


def named(url: str) -> str:
    """What errors call a server: without the password, which may be in the URL.

    Raises:
      ConfigError: it is not the URL of a PostgreSQL.
    """
    try:
        found = psycopg.conninfo.conninfo_to_dict(without_pooler(url)[0])
    except psycopg.Error as exc:
        text = without_password(str(exc).strip())
        remedy = ""
        if "=" in url.partition("options=")[2].partition("&")[0]:
            remedy = "; in options= of a URL write %3D for =, as options=-csearch_path%3Dshop"
        raise ConfigError(f"cannot read the URL of a PostgreSQL: {text}{remedy}") from None
    host = found.get("host") or "the local socket"
    port = f":{found['port']}" if found.get("port") else ""
    return f"PostgreSQL {found.get('dbname') or 'database'} on {host}{port}"
