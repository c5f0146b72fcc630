"""The port on PostgreSQL: one transaction of one message, or of many outcomes.

Times are the server's.
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
from ...types import InstanceInfo
from ..core import termination_of
from ..structs import ChildEnd, Details, End, Holder, Kind, Listed, Row
from ..tables import Doubtful
from . import lists, outcomes, reading, rows, upkeep
from .connection import Connection
from .liveness import ALIVE, LIVING, LOCKED, Liveness
from .owner import Owner
from .people import PostgresPeople
from .schema import NEXT_EPOCH, from_ms
from .watch import CHANNEL, NEWS


class PostgresTables(PostgresPeople):
    """A transaction; see :class:`runtara_trio.store.tables.Tables`."""

    def __init__(
        self,
        connection: Connection,
        owner: Owner,
        liveness: Liveness,
        *,
        losses: int,
        version: int,
        again: bool,
        runs: bool,
        tracks_ends: bool,
    ) -> None:
        """Of one connection.

        Args:
          losses: how many connections the store has lost so far.
          runs: the tables of workflows are there.
          tracks_ends: instances have columns that say why they ended.
        """
        self.version = version
        self.again = again
        self.announces = False
        """Whether those who listen for signals are to be told."""
        self.runs_changed = False
        self.child_ends: list[ChildEnd] = []
        self.turns_freed: list[str] = []
        self._has_runs = runs
        self._tracks_ends = tracks_ends
        self.leased: list[tuple[str, int | None]] = []
        """Leases taken, and given up (None), once it has committed."""
        self._connection = connection
        self._owner = owner
        self._liveness = liveness
        self._losses = losses
        self._locked: dict[str, Row | None] = {}
        self._read: dict[tuple[str, str], bytes | None] = {}
        self._ends: list[End] = []

    @property
    def channels(self) -> list[str]:
        """On which to tell that it has committed."""
        announced = ((CHANNEL, self.announces), (NEWS, self.runs_changed))
        return [channel for channel, changed in announced if changed]

    # ---- a transaction of many messages

    async def lock_ahead(self, instance_ids: Iterable[str]) -> None:
        """Lock and read many instances at once, for the answers to come."""
        self._locked = await rows.lock(self._connection, instance_ids, runs=self._has_runs)

    async def read_ahead(self, ids: Sequence[tuple[str, str]]) -> None:
        """Read what is stored under ids of instances at once, for the answers to come."""
        if ids:
            found = await self._run(
                "SELECT t.instance_id, t.checkpoint_id, c.state"
                " FROM unnest($1::text[], $2::text[]) AS t (instance_id, checkpoint_id)"
                " LEFT JOIN checkpoints c ON c.instance_id = t.instance_id"
                " AND c.checkpoint_id = t.checkpoint_id",
                [instance for instance, _ in ids],
                [checkpoint_id for _, checkpoint_id in ids],
            )
            self._read = {(instance, name): state for instance, name, state in found}

    async def flush(self) -> None:
        """Write the outcomes that were recorded. They are one statement, however many."""
        if self._ends:
            if self.child_ends or any(end.has_children for end in self._ends):
                parents = [end.parent_id for end in self.child_ends]
                await self.lock_runs([*(end.instance_id for end in self._ends), *parents])
            outcomes.record(self._connection, self._ends)
            self._note_terminations([(end.instance_id, *termination_of(end)) for end in self._ends])
            await self.place_runs(
                [(end.instance_id, end.run) for end in self._ends if end.run is not None]
            )
            self.leased += [(end.instance_id, None) for end in self._ends]
            self._ends.clear()

    # ---- instances

    async def lock(self, instance_id: str) -> Row | None:
        if instance_id not in self._locked:
            await self.lock_ahead([instance_id])
        return self._locked.pop(instance_id)

    async def exists(self, instance_id: str) -> bool:
        return bool(await self._run("SELECT 1 FROM instances WHERE instance_id = $1", instance_id))

    async def insert(self, instance_id: str, tenant_id: str) -> bool:
        inserted = await self._run(
            "INSERT INTO instances (instance_id, tenant_id, status) VALUES ($1, $2, 'running')"
            " ON CONFLICT DO NOTHING RETURNING 1",
            instance_id,
            tenant_id,
        )
        return bool(inserted)

    async def set_running(
        self, instance_id: str, checkpoint_id: str | None, *, wakes: bool
    ) -> None:
        self._later(
            "WITH started AS (UPDATE instances SET status = 'running', started_at = now(),"
            " sleep_until = CASE WHEN $3::bigint = 1 THEN NULL ELSE sleep_until END"
            " WHERE instance_id = $1 RETURNING instance_id, started_at),"
            " event AS (INSERT INTO instance_events (instance_id, event_type, checkpoint_id)"
            " VALUES ($1, 'started', $2))"
            " INSERT INTO runtara_trio_starts (instance_id, started_at) SELECT * FROM started"
            " ON CONFLICT (instance_id) DO UPDATE SET started_at = excluded.started_at",
            instance_id,
            checkpoint_id,
            int(wakes),
        )

    async def set_suspended(self, instance_id: str) -> None:
        self._later("UPDATE instances SET status = 'suspended' WHERE instance_id = $1", instance_id)
        self._note_terminations([(instance_id, "paused", None)])

    async def set_cancelled(self, instance_id: str) -> None:
        self._later(
            "UPDATE instances SET status = 'cancelled', finished_at = now(), sleep_until = NULL"
            " WHERE instance_id = $1",
            instance_id,
        )
        self._note_terminations([(instance_id, "cancelled", None)])

    async def set_sleep(self, instance_id: str, checkpoint_id: str, wake_at_ms: int) -> None:
        self._later(
            "UPDATE instances SET checkpoint_id = $2, sleep_until = $3::text::timestamptz"
            " WHERE instance_id = $1",
            instance_id,
            checkpoint_id,
            from_ms(wake_at_ms),
        )

    async def record_end(self, end: End) -> None:
        self._ends.append(end)

    async def clear_end(self, instance_id: str) -> None:
        self._later(
            "WITH signal AS (DELETE FROM pending_signals WHERE instance_id = $1)"
            " UPDATE instances SET finished_at = NULL, output = NULL, error = NULL"
            " WHERE instance_id = $1",
            instance_id,
        )

    # ---- leases

    async def holder(self, owner: str) -> Holder:
        return (await self._read_owner(owner))[0]

    async def settled_holder(self, owner: str) -> Holder:
        holder, locked = await self._read_owner(owner)
        if locked:
            self._liveness.is_locked(owner)
        elif holder.alive and not self._liveness.is_dead(owner, losses=self._losses):
            raise Doubtful(owner)
        elif holder.alive:
            return Holder(owner, holder.who, False, holder.until)
        return holder

    async def _read_owner(self, owner: str) -> tuple[Holder, bool]:
        """An owner, alive as far as one reading can tell, and whether that is certain."""
        if owner == self._owner.name:
            return Holder(owner, self._owner.who, True, None), True
        found = await self._run(
            f"SELECT holder, renewed_at + lease_ms * interval '1 ms', {ALIVE}, {LOCKED}"
            " FROM runtara_trio_owners o WHERE owner = $1",
            owner,
        )
        if not found:
            return Holder(owner, "an owner that ended", False, None), False
        ((who, until, alive, locked),) = found
        return Holder(owner, who, alive, until), alive and locked

    async def take_lease(self, instance_id: str, dead: Holder | None) -> int:
        ((epoch,),) = await self._run(
            "INSERT INTO runtara_trio_leases (instance_id, owner, epoch)"
            f" VALUES ($1, $2, {NEXT_EPOCH}) ON CONFLICT (instance_id) DO UPDATE"
            " SET owner = excluded.owner, epoch = excluded.epoch RETURNING epoch",
            instance_id,
            self._owner.name,
        )
        self.leased.append((instance_id, epoch))
        return int(epoch)

    async def free_lease(self, instance_id: str, lease: int) -> None:
        found = await self._run(
            "UPDATE runtara_trio_leases SET owner = '' WHERE instance_id = $1 AND epoch = $2"
            " RETURNING 1",
            instance_id,
            lease,
        )
        if found:
            self.leased.append((instance_id, None))

    async def drop_lease(self, instance_id: str) -> None:
        self._later("DELETE FROM runtara_trio_leases WHERE instance_id = $1", instance_id)

    async def claim_start(self, instance_id: str) -> None:
        self._later(
            "INSERT INTO runtara_trio_starts (instance_id, started_at)"
            " SELECT instance_id, COALESCE(started_at, now()) FROM instances"
            " WHERE instance_id = $1 ON CONFLICT (instance_id) DO UPDATE"
            " SET started_at = excluded.started_at",
            instance_id,
        )

    def has_unheard(self, instance_id: str, row: Row) -> bool:
        return (
            self.again
            and row.owner == self._owner.name
            and self._owner.leased.get(instance_id) != row.epoch
        )

    # ---- checkpoints

    async def stored(self, instance_id: str, checkpoint_id: str) -> bytes | None:
        if (instance_id, checkpoint_id) in self._read:
            return self._read.pop((instance_id, checkpoint_id))
        found = await self._run(
            "SELECT state FROM checkpoints WHERE instance_id = $1 AND checkpoint_id = $2",
            instance_id,
            checkpoint_id,
        )
        return found[0][0] if found else None

    async def save(self, instance_id: str, *states: tuple[str, bytes]) -> None:
        self._later(
            "INSERT INTO checkpoints (instance_id, checkpoint_id, state)"
            " SELECT $1, * FROM unnest($2::text[], $3::bytea[]) ON CONFLICT DO NOTHING",
            instance_id,
            [checkpoint_id for checkpoint_id, _ in states],
            [state for _, state in states],
        )

    async def save_attempt(
        self, instance_id: str, checkpoint_id: str, attempt: int, error: str | None
    ) -> None:
        self._later(
            "INSERT INTO checkpoints (instance_id, checkpoint_id, state, is_retry_attempt,"
            " attempt_number, error_message) VALUES ($1, $2, $3, true, $4::bigint, $5)"
            " ON CONFLICT (instance_id, checkpoint_id) DO NOTHING",
            instance_id,
            retry_id(checkpoint_id, attempt),
            (error or "").encode(),
            attempt - 2**32 if attempt >= 2**31 else attempt,  # as a core stores it
            error,
        )

    async def ids_with(self, instance_id: str, *texts: str) -> list[str]:
        found = await self._run(
            "SELECT checkpoint_id FROM checkpoints WHERE instance_id = $1 AND EXISTS"
            " (SELECT 1 FROM unnest($2::text[]) AS t (part) WHERE strpos(checkpoint_id, part) > 0)",
            instance_id,
            list(texts),
        )
        return [checkpoint_id for (checkpoint_id,) in found]

    async def remove(self, instance_id: str, checkpoint_ids: Iterable[str]) -> None:
        self._later(
            "DELETE FROM checkpoints WHERE instance_id = $1 AND checkpoint_id = ANY ($2::text[])",
            instance_id,
            list(checkpoint_ids),
        )

    async def rewrite(self, instance_id: str, states: Sequence[tuple[str, bytes]]) -> None:
        self._later(
            "UPDATE checkpoints c SET state = t.state, error_message = CASE WHEN c.is_retry_attempt"
            " AND c.error_message IS NOT NULL THEN convert_from(t.state, 'UTF8') END"
            " FROM unnest($2::text[], $3::bytea[]) AS t (checkpoint_id, state)"
            " WHERE c.instance_id = $1 AND c.checkpoint_id = t.checkpoint_id",
            instance_id,
            [checkpoint_id for checkpoint_id, _ in states],
            [state for _, state in states],
        )

    async def read_checkpoints(self, message: ReadCheckpoints) -> CheckpointPage:
        return await reading.checkpoints(self._connection, message)

    # ---- history and lists

    async def add_event(
        self, instance_id: str, kind: str, payload: bytes = b"", subtype: str | None = None
    ) -> None:
        self._later(
            "INSERT INTO instance_events (instance_id, event_type, payload, subtype)"
            " VALUES ($1, $2::text::instance_event_type, $3, $4)",
            instance_id,
            kind,
            payload or None,
            subtype,
        )

    async def read_events(self, message: ListEvents) -> EventPage:
        return await reading.events(self._connection, message)

    async def info(self, instance_id: str) -> InstanceInfo | None:
        return await reading.info(self._connection, instance_id)

    async def list_instances(
        self, message: ListInstances, kinds: Sequence[Kind] | None
    ) -> tuple[list[Listed], str | None]:
        return await lists.page(self._connection, message, kinds, runs=self._has_runs)

    async def count_instances(self, message: CountInstances, kinds: Sequence[Kind] | None) -> int:
        return await lists.count(self._connection, message, kinds, runs=self._has_runs)

    async def listed(self, instance_id: str) -> Listed | None:
        return await reading.listed(self._connection, instance_id, runs=self._has_runs)

    async def details(self, instance_id: str) -> Details:
        return await reading.details(self._connection, instance_id, tracks_ends=self._tracks_ends)

    async def unread(self, instance_id: str, limit: int) -> list[str]:
        return await reading.unread(self._connection, instance_id, limit)

    async def living(self) -> set[str]:
        return {owner for (owner,) in await self._run(LIVING)}

    # ---- upkeep

    async def heartbeat(self, instance_ids: tuple[str, ...]) -> None:
        await upkeep.heartbeat(self._connection, self._owner.name, instance_ids)

    async def prune(
        self, before_ms: int, limit: int, instance_ids: Sequence[str] | None = None
    ) -> int:
        return await upkeep.prune(
            self._connection, before_ms, limit, instance_ids, runs=self._has_runs
        )

    async def size(self) -> int:
        return await upkeep.size(self._connection)

    async def vacuum(self) -> None:
        await upkeep.vacuum(self._connection)
