"""Instances that belong together: what the end of one sets off in its parent and its children.

Locks are taken in one order, or two transactions would wait for each other: first instances, in
the order of their ids; then the rows that say where runs stand. Who ends a child has its instance,
and then changes where its parent's run stands; who ends a parent has the instances of all its
descendants first.
"""

from __future__ import annotations

from ...backend import Handlers
from ...errors import SdkError
from ...ids import FAILURES, RETRY, WORKFLOW_TIMEOUT, deadline_id, is_attempt, is_failure
from ...messages import CancelChildren, Done, Started, StartRuns
from ...types import InstanceStatus, RunState, SignalType
from ..structs import Awaited, ChildEnd, Holder, Parent, Placing, Run
from ..tables import Tables
from . import rules
from .checks import running

DEEPEST = 32
"""Generations below an instance that has no parent."""

MOST_CHILDREN = 100_000


async def start(tx: Tables, message: StartRuns) -> Started:
    """What a running instance starts. An earlier run of it may have started the same."""
    by = message.by
    assert by is not None
    await running(tx, message.asked, by.instance_id, by.lease)
    if by.block is None:
        assert by.saved_as is not None
        before = await tx.stored(by.instance_id, by.saved_as)
        if before is not None:
            ids = tuple(before.decode().split("\n"))
            return Started(existing=(None,) * len(message.runs), before=ids)
        existing = await tx.insert_runs(message.tenant_id, message.runs)
        if all(
            found is None or rules.is_same(found, message.tenant_id, run)
            for found, run in zip(existing, message.runs, strict=True)
        ):  # else it is refused, in this run and in the next
            made = "\n".join(run.instance_id for run in message.runs)
            await tx.save(by.instance_id, (by.saved_as, made.encode()))
        return Started(existing=tuple(existing))
    depth, had = await tx.depth_of(by.instance_id)
    if depth >= DEEPEST:
        raise SdkError(
            f"instance {by.instance_id!r} is {depth} generations below its first ancestor; at "
            f"most {DEEPEST} are run: start it with sdk.start, as an instance of its own right"
        )
    if had + len(message.runs) > MOST_CHILDREN and had + await _new(tx, message) > MOST_CHILDREN:
        raise SdkError(
            f"instance {by.instance_id!r} has {had} children, and at most {MOST_CHILDREN} are run; "
            "have children of its own start the others"
        )
    parent = Parent(instance_id=by.instance_id, block=by.block, depth=depth + 1)
    return Started(existing=tuple(await tx.insert_runs(message.tenant_id, message.runs, parent)))


async def _new(tx: Tables, message: StartRuns) -> int:
    there = await tx.results([run.instance_id for run in message.runs])
    return len(message.runs) - len(there)


async def cancel_children(tx: Tables, message: CancelChildren) -> Done:
    await running(tx, message.asked, message.instance_id, message.lease)
    await cascade(tx, message.instance_id, message.block)
    return Done()


async def cascade(tx: Tables, instance_id: str, block: str | None = None) -> None:
    """Cancel the descendants that have not ended; ``block``: only the children in it, and theirs.

    Those that run are told; the others are cancelled at once.
    """
    ids = await tx.unended_below(instance_id, block)
    if not ids:
        return
    rows = await tx.lock_many(ids)
    if block is not None:
        await tx.mark_by_parent(instance_id, block)
    holders: dict[str, Holder] = {}
    told: list[str] = []
    ended: list[str] = []
    for one, row in rows.items():
        if row.status.finished:
            continue
        if row.owner is not None and row.owner not in holders:
            holders[row.owner] = await tx.holder(row.owner)
        alive = row.ours and row.owner is not None and holders[row.owner].alive
        stands = rules.standing(row.status, alive=alive, ours=row.ours, run=row.run)
        action, _ = rules.SIGNALS[SignalType.CANCEL, stands]
        if action in (rules.Action.CARRY_OUT, rules.Action.MARK):
            ended.append(one)
        elif row.signal is None or row.signal.type is not SignalType.CANCEL:
            told.append(one)
    await tx.cancel_many(told, ended)
    await tx.lose_steps(ended)
    tx.turns_freed += [one for one in ended if (run := rows[one].run) and run.keyed]
    within = {*ids, instance_id}  # these end, or cancel their children themselves
    for one in ended:
        run = rows[one].run
        if run is not None and run.parent_id not in within:
            note_end(tx, one, run, InstanceStatus.CANCELLED)


def note_end(tx: Tables, instance_id: str, run: Run | None, status: InstanceStatus) -> None:
    """An instance ends: its parent, if it has one, may wait for that."""
    if run is not None and run.parent_id is not None and status.finished:
        tx.child_ends.append(
            ChildEnd(
                instance_id=instance_id,
                parent_id=run.parent_id,
                block=run.block or "",
                failed=status is not InstanceStatus.COMPLETED and not run.by_parent,
            )
        )


async def tell_parents(tx: Tables) -> None:
    """Make ready the parents that wait for what has ended in this transaction."""
    ends, tx.child_ends = tx.child_ends, []
    if not ends:
        return
    parents = dict.fromkeys(end.parent_id for end in ends)
    await tx.lock_runs(parents)
    for parent_id, awaited in (await tx.awaited_by(parents)).items():
        if await _wakes(tx, awaited, [end for end in ends if end.parent_id == parent_id]):
            await tx.place_run(parent_id, Placing(state=RunState.READY))


async def _wakes(tx: Tables, awaited: Awaited, ends: list[ChildEnd]) -> bool:
    if any(end.instance_id in awaited.children for end in ends):
        return True
    if any(end.failed and end.block in awaited.failing for end in ends):
        return True
    blocks = {end.block for end in ends if end.block in awaited.blocks}
    return bool(blocks) and await tx.is_there(
        ends[0].parent_id, Awaited(blocks=tuple(sorted(blocks)))
    )


async def run_again(tx: Tables, instance_ids: list[str]) -> None:
    """Make finished instances pending, to go on from their checkpoints: attempts, deaths of their
    workers and the timeout begin anew, and saved failures are forgotten."""
    for one in instance_ids:
        await forget_failures(tx, one, timeout=True)
    await tx.run_again(instance_ids)


async def run_children_again(tx: Tables, instance_id: str) -> None:
    """The failed and cancelled children of an instance, and theirs, are tried again with it."""
    ids = await tx.failed_below(instance_id)
    if ids:
        rows = await tx.lock_many(ids)
        await run_again(tx, [one for one in ids if one in rows and rows[one].status.finished])


async def forget_failures(tx: Tables, instance_id: str, *, timeout: bool = False) -> None:
    """Remove recorded attempts and saved failures: the next run makes them anew; with ``timeout``
    the deadline of the whole workflow as well."""
    found = await tx.ids_with(instance_id, RETRY, FAILURES)
    gone = [one for one in found if is_attempt(one) or is_failure(one)]
    await tx.remove(instance_id, [*gone, *([deadline_id(WORKFLOW_TIMEOUT)] if timeout else [])])


ANSWERS: Handlers[Tables] = {CancelChildren: cancel_children}
