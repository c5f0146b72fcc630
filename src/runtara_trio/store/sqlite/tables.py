"""The port on SQLite: one batch, and the message of it that is being answered.

Nothing here suspends: the database's thread drives an answer in one go, see :func:`drive`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ...ids import retry_id
from ...messages import (
    CheckpointPage,
    CountInstances,
    EventPage,
    ListEvents,
    ListInstances,
    ReadCheckpoints,
)
from ...types import FINISHED, InstanceInfo, InstanceStatus
from ..core import termination_of
from ..structs import ChildEnd, Details, End, Holder, Kind, Listed, Row
from ..values import row_of
from . import lists, reading, rows
from .claims import LOCK, OF_INSTANCE
from .file import StoreFile
from .leases import Leases
from .people import SqlitePeople
from .runs import as_json
from .schema import started_text, time_text


class SqliteTables(SqlitePeople):
    """A batch's view of the store; see :class:`runtara_trio.store.tables.Tables`."""

    again = False
    """No answer is lost between a thread and its loop."""

    def __init__(self, file: StoreFile, leases: Leases) -> None:
        self.db = file.db
        self.leases = leases
        self.now = 0.0
        """When the message that is being answered was sent, Unix seconds."""
        self.version = 0
        self.leased: list[tuple[str, int | None]] = []
        """Leases taken, and given up (None), in this order, once it has committed."""
        self.dead_files: list[str] = []
        """Side files to be removed then."""
        self.child_ends: list[ChildEnd] = []
        self.turns_freed: list[str] = []
        self.signals_changed = False
        self.signals_taken = False
        self.runs_changed = False
        self._file = file

    @property
    def now_text(self) -> str:
        return time_text(int(self.now))

    # ---- instances

    async def lock(self, instance_id: str) -> Row | None:
        found = self.db.execute(
            f"{LOCK}{OF_INSTANCE} WHERE i.instance_id = ?", (instance_id,)
        ).fetchone()
        return None if found is None else row_of(*found)

    async def exists(self, instance_id: str) -> bool:
        found = self.db.execute("SELECT 1 FROM instances WHERE instance_id = ?", (instance_id,))
        return found.fetchone() is not None

    async def insert(self, instance_id: str, tenant_id: str) -> bool:
        self.db.execute(
            "INSERT INTO instances (instance_id, tenant_id, status, created_at)"
            " VALUES (?, ?, 'running', ?)",
            (instance_id, tenant_id, self.now_text),
        )
        return True

    async def set_running(
        self, instance_id: str, checkpoint_id: str | None, *, wakes: bool
    ) -> None:
        started = started_text(self.now)
        self.db.execute(
            "UPDATE instances SET status = 'running', started_at = ?,"
            " sleep_until = CASE WHEN ? THEN NULL ELSE sleep_until END WHERE instance_id = ?",
            (started, wakes, instance_id),
        )
        self._note_start(instance_id, started)
        self._add_event(instance_id, "started", checkpoint_id=checkpoint_id)

    async def set_suspended(self, instance_id: str) -> None:
        self.db.execute(
            "UPDATE instances SET status = 'suspended' WHERE instance_id = ?", (instance_id,)
        )
        self._note_termination([instance_id], "paused")

    async def set_cancelled(self, instance_id: str) -> None:
        self.db.execute(
            "UPDATE instances SET status = 'cancelled', finished_at = ?, sleep_until = NULL"
            " WHERE instance_id = ?",
            (self.now_text, instance_id),
        )
        self._note_termination([instance_id], "cancelled")

    async def set_sleep(self, instance_id: str, checkpoint_id: str, wake_at_ms: int) -> None:
        last = 253402300799  # 9999-12-31 23:59:59, the last time that a text can show
        self.db.execute(
            "UPDATE instances SET checkpoint_id = ?, sleep_until = ? WHERE instance_id = ?",
            (checkpoint_id, time_text(min(-(-wake_at_ms // 1000), last)), instance_id),
        )

    async def record_end(self, end: End) -> None:
        instance, finished = end.instance_id, end.status.finished
        self.db.execute(
            "UPDATE instances SET status = ?, finished_at = ?, output = ?, error = ?,"
            " sleep_until = CASE WHEN ? THEN NULL ELSE sleep_until END WHERE instance_id = ?",
            (
                end.status.value,
                self.now_text if finished else None,
                end.output,
                end.error,
                finished,
                instance,
            ),
        )
        self._note_termination([instance], *termination_of(end))
        if end.status is not InstanceStatus.CANCELLED:  # core's history has no row for it
            self._add_event(instance, end.status.value, end.payload)
        if end.signal is not None:
            await self.drop_signal(instance, end.signal)
        if end.run is not None:
            await self.place_run(instance, end.run)
        await self.drop_lease(instance)
        self.leased.append((instance, None))

    async def clear_end(self, instance_id: str) -> None:
        self.db.execute(
            "UPDATE instances SET finished_at = NULL, output = NULL, error = NULL"
            " WHERE instance_id = ?",
            (instance_id,),
        )
        await self.drop_signal(instance_id)

    # ---- leases

    async def holder(self, owner: str) -> Holder:
        return self.leases.holder(self.db, owner, self.now)

    settled_holder = holder  # a lock file tells at once

    async def take_lease(self, instance_id: str, dead: Holder | None) -> int:
        epoch = self.leases.take(self.db, instance_id)
        if dead is not None:
            dead_file = self.leases.bury(self.db, dead.owner)
            if dead_file is not None:
                self.dead_files.append(dead_file)
        self.leased.append((instance_id, epoch))
        return epoch

    async def free_lease(self, instance_id: str, lease: int) -> None:
        if self.leases.let_go(self.db, instance_id, lease):
            self.leased.append((instance_id, None))

    async def drop_lease(self, instance_id: str) -> None:
        self.db.execute("DELETE FROM runtara_trio_leases WHERE instance_id = ?", (instance_id,))

    async def claim_start(self, instance_id: str) -> None:
        self.db.execute(
            "UPDATE instances SET started_at = COALESCE(started_at, ?) WHERE instance_id = ?",
            (started_text(self.now), instance_id),
        )
        (started,) = self.db.execute(
            "SELECT started_at FROM instances WHERE instance_id = ?", (instance_id,)
        ).fetchone()
        self._note_start(instance_id, started)

    def has_unheard(self, instance_id: str, row: Row) -> bool:
        return False

    def _note_start(self, instance_id: str, started: str) -> None:
        """Keep when a start of ours was: one that differs is a runtara-core's."""
        self.db.execute(
            "INSERT OR REPLACE INTO runtara_trio_starts (instance_id, started_at) VALUES (?, ?)",
            (instance_id, started),
        )

    # ---- checkpoints

    async def stored(self, instance_id: str, checkpoint_id: str) -> bytes | None:
        return rows.stored(self.db, instance_id, checkpoint_id)

    async def save(self, instance_id: str, *states: tuple[str, bytes]) -> None:
        for checkpoint_id, state in states:
            rows.save(self.db, instance_id, checkpoint_id, state, self.now_text)

    async def save_attempt(
        self, instance_id: str, checkpoint_id: str, attempt: int, error: str | None
    ) -> None:
        await self.save(instance_id, (retry_id(checkpoint_id, attempt), (error or "").encode()))

    async def ids_with(self, instance_id: str, *texts: str) -> list[str]:
        holds = " OR ".join("instr(checkpoint_id, ?)" for _ in texts)
        found = self.db.execute(
            f"SELECT checkpoint_id FROM checkpoints WHERE instance_id = ? AND ({holds})",
            (instance_id, *texts),
        )
        return [checkpoint_id for (checkpoint_id,) in found.fetchall()]

    async def remove(self, instance_id: str, checkpoint_ids: Iterable[str]) -> None:
        self.db.executemany(
            "DELETE FROM checkpoints WHERE instance_id = ? AND checkpoint_id = ?",
            [(instance_id, checkpoint_id) for checkpoint_id in checkpoint_ids],
        )

    async def rewrite(self, instance_id: str, states: Sequence[tuple[str, bytes]]) -> None:
        self.db.executemany(
            "UPDATE checkpoints SET state = ? WHERE instance_id = ? AND checkpoint_id = ?",
            [(state, instance_id, checkpoint_id) for checkpoint_id, state in states],
        )

    async def read_checkpoints(self, message: ReadCheckpoints) -> CheckpointPage:
        return reading.checkpoints(self.db, message)

    # ---- history and lists

    async def add_event(
        self, instance_id: str, kind: str, payload: bytes = b"", subtype: str | None = None
    ) -> None:
        self._add_event(instance_id, kind, payload, subtype)

    def _add_event(
        self,
        instance_id: str,
        kind: str,
        payload: bytes = b"",
        subtype: str | None = None,
        checkpoint_id: str | None = None,
    ) -> None:
        self.db.execute(
            "INSERT INTO instance_events (instance_id, event_type, checkpoint_id, payload,"
            " created_at, subtype) VALUES (?, ?, ?, ?, ?, ?)",
            (instance_id, kind, checkpoint_id, payload or None, self.now_text, subtype),
        )

    async def read_events(self, message: ListEvents) -> EventPage:
        return reading.events(self.db, message)

    async def info(self, instance_id: str) -> InstanceInfo | None:
        return reading.info(self.db, instance_id)

    async def list_instances(
        self, message: ListInstances, kinds: Sequence[Kind] | None
    ) -> tuple[list[Listed], str | None]:
        return lists.page(self.db, message, kinds)

    async def count_instances(self, message: CountInstances, kinds: Sequence[Kind] | None) -> int:
        return lists.count(self.db, message, kinds)

    async def listed(self, instance_id: str) -> Listed | None:
        return reading.listed(self.db, instance_id)

    async def details(self, instance_id: str) -> Details:
        return reading.details(self.db, instance_id, tracks_ends=self._file.tracks_ends)

    async def unread(self, instance_id: str, limit: int) -> list[str]:
        return reading.unread(self.db, instance_id, limit)

    async def living(self) -> set[str]:
        return self.leases.living(self.db)

    # ---- upkeep

    async def heartbeat(self, instance_ids: tuple[str, ...]) -> None:
        # One row an owner and no event: on SQLite nobody counts them. It says that the Trio
        # loop lives; that the process does, its lease says.
        self.db.execute(
            "UPDATE runtara_trio_owners SET heartbeat_at = ? WHERE owner = ?",
            (self.now_text, self.leases.owner),
        )

    async def prune(
        self, before_ms: int, limit: int, instance_ids: Sequence[str] | None = None
    ) -> int:
        finished = ", ".join(f"'{status.value}'" for status in sorted(FINISHED))
        of_these = ""
        these: tuple[str, ...] = ()
        if instance_ids is not None:
            of_these = " AND i.instance_id IN (SELECT value FROM json_each(?))"
            these = (as_json(instance_ids),)
        return self.db.execute(
            "DELETE FROM instances WHERE instance_id IN (SELECT i.instance_id FROM instances i"
            f" WHERE i.status IN ({finished}) AND CAST(strftime('%s',"
            # a core leaves finished_at empty where it cancels
            " COALESCE(i.finished_at, i.started_at, i.created_at)) AS INTEGER) * 1000 < ?"
            # a replay of its parent needs it
            " AND NOT EXISTS (SELECT 1 FROM runtara_trio_runs r JOIN instances p"
            " ON p.instance_id = r.parent_id WHERE r.instance_id = i.instance_id"
            f" AND p.status NOT IN ({finished})){of_these} LIMIT ?)",
            (before_ms, *these, limit),
        ).rowcount

    async def size(self) -> int:
        return self._file.size()

    async def vacuum(self) -> None:
        self._file.vacuum()
