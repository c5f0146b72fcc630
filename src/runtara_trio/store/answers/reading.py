"""What questions are answered: an instance's status, its checkpoints, its history; lists."""

from __future__ import annotations

from ...backend import Handlers
from ...messages import (
    CheckpointPage,
    Counted,
    CountInstances,
    EventPage,
    GetInput,
    GetStatus,
    InstancePage,
    ListEvents,
    ListInstances,
    ReadCheckpoints,
    ShowInstance,
    StoredInput,
)
from ...types import InstanceDetails, InstanceInfo, InstanceStatus, InstanceSummary
from ..structs import Kind, Listed
from ..tables import Tables
from . import rules
from .checks import check_known

UNREAD = 100
"""Ids of unread signals that are shown at most."""

OPEN = 100
"""Steps that run, of those that are shown."""


async def get_status(tx: Tables, message: GetStatus) -> InstanceInfo:
    return await tx.info(message.instance_id) or InstanceInfo(
        instance_id=message.instance_id,
        status=InstanceStatus.UNKNOWN,
        error="Instance not found",
    )


async def get_input(tx: Tables, message: GetInput) -> StoredInput:
    await check_known(tx, message.asked, message.instance_id)
    return StoredInput(input=(await tx.details(message.instance_id)).input)


async def read_checkpoints(tx: Tables, message: ReadCheckpoints) -> CheckpointPage:
    page = await tx.read_checkpoints(message)
    if not page.checkpoints:
        await check_known(tx, message.asked, message.instance_id)
    return page


async def list_events(tx: Tables, message: ListEvents) -> EventPage:
    page = await tx.read_events(message)
    if not page.events:
        await check_known(tx, message.asked, message.instance_id)
    return page


async def list_instances(tx: Tables, message: ListInstances) -> InstancePage:
    living = await tx.living()
    kinds = await _unserved(tx, living) if message.filter.no_live_worker else None
    rows, following = await tx.list_instances(message, kinds)
    return InstancePage(instances=tuple(_summary(row, living) for row in rows), next=following)


async def count_instances(tx: Tables, message: CountInstances) -> Counted:
    kinds = await _unserved(tx, await tx.living()) if message.filter.no_live_worker else None
    return Counted(count=await tx.count_instances(message, kinds))


async def _unserved(tx: Tables, living: set[str]) -> list[Kind]:
    """The kinds of ready runs that no living worker takes, or takes only of some tenants."""
    served: dict[Kind, set[str] | None] = {}
    for one in await tx.workers():
        if one.owner not in living or one.draining:
            continue
        for kind in (Kind(queue, *which) for queue in one.queues for which in one.workflows):
            tenants = served.setdefault(kind, set())
            if one.tenant_ids is None or tenants is None:
                served[kind] = None
            else:
                tenants.update(one.tenant_ids)
    return [
        Kind(kind.queue, kind.workflow, kind.version, tuple(sorted(tenants)))
        for kind in await tx.ready_kinds()
        if (tenants := served.get(kind, set())) is not None
    ]


async def show_instance(tx: Tables, message: ShowInstance) -> InstanceDetails:
    instance = message.instance_id
    row = await tx.listed(instance)
    if row is None:
        raise rules.unknown(message.asked, instance)
    details = await tx.details(instance)
    summary = _summary(row, await tx.living())
    who = None
    if summary.held and row.owner is not None:
        who = (await tx.holder(row.owner)).who
    runs = summary.status in (InstanceStatus.PENDING, InstanceStatus.RUNNING)
    return InstanceDetails(
        summary=summary,
        holder=who,
        input=details.input,
        output=details.output,
        error=details.error,
        checkpoints=details.checkpoints,
        events=details.events,
        termination_reason=None if runs else details.termination_reason,  # of the run before
        exit_code=None if runs else details.exit_code,
        unread_signals=tuple(await tx.unread(instance, UNREAD)),
        open_steps=(await tx.open_steps(instance, OPEN)).steps,
    )


def _summary(row: Listed, living: set[str]) -> InstanceSummary:
    started, finished = row.started_at, row.finished_at
    if started is not None and finished is not None:
        finished = max(started, finished)  # SQLite has it in whole seconds
    return InstanceSummary(
        instance_id=row.instance_id,
        tenant_id=row.tenant_id,
        status=row.status,
        held=row.owner in living,
        ours=row.ours,
        checkpoint_id=row.checkpoint_id,
        created_at=row.created_at,
        started_at=started,
        finished_at=finished,
        sleep_until=row.sleep_until,
        signal=row.signal,
        run=row.run,
    )


ANSWERS: Handlers[Tables] = {
    GetStatus: get_status,
    GetInput: get_input,
    ReadCheckpoints: read_checkpoints,
    ListEvents: list_events,
    ListInstances: list_instances,
    CountInstances: count_instances,
    ShowInstance: show_instance,
}
