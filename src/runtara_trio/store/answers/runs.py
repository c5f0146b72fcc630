"""What clients and workers are answered: starts, claims, recoveries, ends."""

from __future__ import annotations

from ...backend import Handlers
from ...messages import (
    AnnounceWorker,
    Claimed,
    ClaimedRun,
    ClaimRuns,
    Done,
    Ends,
    EndsSince,
    GetResults,
    ListWorkers,
    LookForWork,
    Recovered,
    RecoverRuns,
    Results,
    Started,
    StartRuns,
    Work,
    Workers,
)
from ...types import RunState
from ..structs import Holder, Lane, Orphan, Placing, Ready
from ..tables import Doubtful, Tables
from . import children, queues, rules, turns

ROUNDS = 5
"""How often one claim looks for others in place of those that their queues have no room for."""

BUSY_AGAIN_MS = 1000
"""Milliseconds after which a run that somebody else has is looked at again."""


async def start_runs(tx: Tables, message: StartRuns) -> Started:
    if message.by is not None:
        return await children.start(tx, message)
    existing = await tx.insert_runs(message.tenant_id, message.runs)
    if tx.again:  # the answer to it was lost: what is the same was made by it
        existing = [
            None if found is not None and rules.is_same(found, message.tenant_id, run) else found
            for found, run in zip(existing, message.runs, strict=True)
        ]
    return Started(existing=tuple(existing))


async def claim_runs(tx: Tables, message: ClaimRuns) -> Claimed:
    if tx.again or message.lost:
        for instance, lease in await tx.strays():
            await tx.free_lease(instance, lease)
            await tx.place_run(instance, Placing(state=RunState.READY))
    due_in_ms = await tx.promote()
    rooms = await queues.rooms(tx, message)
    claimed: list[ClaimedRun] = []
    after, more = message.turns, True
    for _ in range(ROUNDS):
        left = message.limit - len(claimed)
        wanted, after = await _next(tx, message, rooms, after, left)
        ready = await tx.lock_ready(wanted, suspect=message.suspect) if wanted else []
        takeable = await _takeable(tx, ready)
        fitting = await queues.fit(tx, rooms, takeable)
        if fitting:
            claimed += await _take(tx, rooms, fitting)
        more = len(wanted) >= left or len(takeable) < len(wanted)
        # For what has no room others may come: its queue is closed, or its key waits.
        if len(fitting) == len(takeable) or len(claimed) == message.limit:
            break
    else:  # those behind were not come to
        more = True
    return Claimed(
        runs=tuple(claimed),
        turns={
            path: name for path, name in after.items() if len(path) < 2 or path[0] in message.queues
        },
        version=tx.version,
        more=more,
        due_in_ms=min(
            (ms for ms in (due_in_ms, rooms.again_in_ms) if ms is not None), default=None
        ),
    )


async def _take(tx: Tables, rooms: queues.Rooms, taken: list[queues.Takeable]) -> list[ClaimedRun]:
    placed = await queues.begin(tx, rooms, taken)
    leases = await tx.take_runs([(one.instance_id, dead) for one, dead in taken], placed)
    again = [one.instance_id for one, _ in taken if one.resumed]
    if again:
        await tx.lose_steps(again)
    return [
        ClaimedRun(
            instance_id=one.instance_id,
            tenant_id=one.row.tenant_id,
            workflow=one.workflow,
            version=one.version,
            input=one.input,
            lease=leases[one.instance_id],
            signal=one.row.signal,
            resumed=one.resumed,
            taken_from=None if dead is None else dead.who,
            attempt=one.attempt,
            recoveries=one.recoveries,
            parent_id=None if one.row.run is None else one.row.run.parent_id,
            children=one.row.run is not None and one.row.run.children > 0,
            queue=one.lane.queue,
            waited_ms=one.waited_ms if one.begins else None,
            limited=one.instance_id in placed,
        )
        for one, dead in taken
    ]


async def _next(
    tx: Tables, message: ClaimRuns, rooms: queues.Rooms, last: turns.Turns, limit: int
) -> tuple[list[str], turns.Turns]:
    """The ids of the next runs, each lane's share of the limit."""
    names = rooms.open(message.queues)
    if not names:
        return [], last
    if message.suspect:
        return await tx.suspects(names, message.workflows, message.tenant_ids, limit), last
    if message.tenant_ids is None:
        tenants = await tx.sublanes(
            [(Lane(queue), last.get((queue,), "")) for queue in names], message.workflows, limit
        )
    else:
        tenants = [Lane(queue, one) for queue in names for one in message.tenant_ids]
    if not tenants:
        return [], last
    keys = await tx.sublanes(
        [(lane, last.get((lane.queue, lane.tenant_id or ""), "")) for lane in tenants],
        message.workflows,
        turns.share(limit, len(tenants)),
    )
    rows = await tx.ready_in(keys, message.workflows, turns.share(limit, len(keys)))
    return turns.deal(list(zip(keys, rows, strict=True)), last, limit, rooms.most())


async def _takeable(tx: Tables, ready: list[Ready]) -> list[tuple[Ready, Holder | None]]:
    """Which of these may be taken, and from whom. The others are put where they belong."""
    holders: dict[str, Holder | None] = {}
    taken: list[tuple[Ready, Holder | None]] = []
    for one in ready:
        row = one.row
        if row.status.finished:  # ended by a program of 0.1, or by a core
            await tx.place_run(one.instance_id, Placing(state=RunState.ENDED))
            if row.run is not None and row.run.keyed:
                tx.turns_freed.append(one.instance_id)
            children.note_end(tx, one.instance_id, row.run, row.status)
            continue
        dead: Holder | None = None
        if row.owner is not None:
            if row.owner not in holders:
                holders[row.owner] = await _settled(tx, row.owner)
            dead = holders[row.owner]
            if dead is None:
                continue  # nobody can tell yet
            if dead.alive:  # a program of 0.1, which knows no queue
                await tx.place_run(
                    one.instance_id, Placing(state=RunState.TIMED, after_ms=BUSY_AGAIN_MS)
                )
                continue
        taken.append((one, dead))
    return taken


async def _settled(tx: Tables, owner: str) -> Holder | None:
    try:
        return await tx.settled_holder(owner)
    except Doubtful:
        return None


async def recover_runs(tx: Tables, message: RecoverRuns) -> Recovered:
    count = 0
    parked: dict[str, str] = {}
    placed: list[tuple[Orphan, RunState, int]] = []
    for owner in message.dead:
        holder = None if not owner else await _settled(tx, owner)
        if owner and (holder is None or holder.alive):
            continue
        for orphan in await tx.orphans(owner, message.limit - count):
            state, recoveries = rules.after_death(orphan, message.max_recoveries)
            if state is RunState.PARKED:
                parked[orphan.instance_id] = rules.parked_text(recoveries, orphan.checkpoint_id)
            placed.append((orphan, state, recoveries))
            count += 1
    if placed:
        await tx.recover(placed, parked)
        tx.turns_freed += parked
    return Recovered(count=count - len(parked), parked=tuple(parked))


async def look_for_work(tx: Tables, message: LookForWork) -> Work:
    return await tx.look(message)


async def announce_worker(tx: Tables, message: AnnounceWorker) -> Done:
    if message.leaves:
        await tx.retire(message.info.name)
    else:
        await tx.announce(message.info)
    return Done()


async def list_workers(tx: Tables, message: ListWorkers) -> Workers:
    living = await tx.living()
    return Workers(workers=tuple(one for one in await tx.workers() if one.owner in living))


async def ends_since(tx: Tables, message: EndsSince) -> Ends:
    return await tx.ends_since(message)


async def get_results(tx: Tables, message: GetResults) -> Results:
    return Results(results=await tx.results(message.instance_ids))


ANSWERS: Handlers[Tables] = {
    StartRuns: start_runs,
    ClaimRuns: claim_runs,
    RecoverRuns: recover_runs,
    LookForWork: look_for_work,
    AnnounceWorker: announce_worker,
    ListWorkers: list_workers,
    EndsSince: ends_since,
    GetResults: get_results,
}
