"""What must be there before a message is answered: tables, and for a lease an owner."""

from __future__ import annotations

import contextlib

import psycopg
import trio

from ...errors import StoreError
from ...messages import Request
from ...threads import in_thread
from . import limits, schema
from .connection import Connection
from .failures import may_pass
from .job import Job
from .owner import Owner
from .pool import Pool
from .run_schema import RUNS_VERSION


class Preparing:
    """Makes a store ready, once."""

    def __init__(
        self, pool: Pool, owner: Owner, name: str, *, create: bool, core: str = "1.4.1"
    ) -> None:
        """
        Args:
          create: any message makes the tables, not only the first register.
          core: whose tables new ones are.
        """
        self._pool = pool
        self._owner = owner
        self._name = name
        self._create = create
        self._core = core
        self._lock = trio.Lock()
        self.is_ready = False
        """The tables are there."""
        self.owned = trio.Event()
        """This process is an owner."""
        self.listens = trio.Event()
        """It wants to hear of signals, or of changes to runs."""
        self.has_runs = False
        """The tables of workflows are there."""
        self.tracks_ends = False
        """Instances have columns that say why they ended."""

    async def prepare_for(self, job: Job, patience: trio.CancelScope) -> None:
        """See that a message can be answered. A server that is not up yet is waited for, but
        not what does not pass by itself; ``patience`` is renewed once it is up."""
        message: Request[object] = job.message
        if message.listens:
            self.listens.set()
        wait = limits.RETRY
        while not (self.is_ready and (self.owned.is_set() or not message.takes)):
            try:
                async with self._lock:
                    await self._prepare(makes=message.makes, takes=message.takes)
            except Exception as exc:
                if not may_pass(exc):
                    raise
                job.failure = exc
                await trio.sleep(wait)
                wait = min(2 * wait, limits.RETRY_SERVER)
            else:
                patience.deadline = trio.current_time() + limits.AWAY

    async def _prepare(self, *, makes: bool, takes: bool) -> None:
        if not self.is_ready:
            await self._find_tables(make=makes or self._create)
            self.is_ready = True
        if takes and not self.owned.is_set():
            await in_thread(self._owner.start, abandon_on_cancel=True)
            self.owned.set()
            self.listens.set()

    async def _find_tables(self, *, make: bool) -> None:
        async with self._pool.lent() as connection:
            if not await schema.is_ready(connection, self._name):
                if not make:
                    raise StoreError(
                        f"{self._name} has no tables of runtara yet; the first instance that "
                        "registers makes them"
                    )
                await schema.create(connection, self._name, self._core)
            self.tracks_ends = await schema.tracks_ends(connection)
            await self.find_runs(connection, make=make)

    async def find_runs(self, connection: Connection, *, make: bool) -> None:
        """Look for the tables of workflows; a store of 0.1 gets them now, where this role may."""
        version = await schema.runs_version(connection, self._name)
        self.has_runs = version == RUNS_VERSION
        if (make or version > 0) and not self.has_runs:
            with contextlib.suppress(psycopg.errors.InsufficientPrivilege):
                await schema.create_runs(connection, self._name)
                self.has_runs = True
