"""Instances that are run again, or copied; and signals to many."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from contextlib import suppress

from ...backend import Handlers
from ...codec.marks import ENCRYPTED, written_by
from ...errors import CodecError, SdkError, SignalRefused
from ...ids import FORK_OF, FORKED, RERUN
from ...messages import Acted, Done, Fork, ReadCheckpoints, Rerun, SignalMany
from ..structs import Row
from ..tables import Tables
from . import children, rules, signals

PAGE_BYTES = 1 << 20
"""Of checkpoints that are rewritten at once."""


async def rerun(tx: Tables, message: Rerun) -> Acted:
    done: list[str] = []
    below = {one: await tx.failed_below(one) for one in message.instance_ids}
    # At once, in the order in which everybody locks instances.
    rows = await tx.lock_many(sorted({*below, *itertools.chain(*below.values())}))
    for instance in below:
        row = rows.get(instance)
        if row is None:
            continue
        try:
            await _check_rerun(tx, instance, row)
        except SdkError:
            if message.each:
                continue
            raise
        await tx.add_event(instance, "custom", row.status.value.encode(), RERUN)
        again = [one for one in below[instance] if one in rows and rows[one].status.finished]
        await children.run_again(tx, [*again, instance])
        done.append(instance)
    if not done and not message.each:
        raise rules.unknown(message.asked, message.instance_ids[0])
    return Acted(count=len(done), instance_ids=tuple(done))


async def _check_rerun(tx: Tables, instance: str, row: Row) -> None:
    if row.run is None:
        raise SdkError(
            f"instance {instance!r} is no workflow's, and no worker could run it again; start its "
            "program with revive=True"
        )
    if not row.status.finished:
        raise SdkError(f"instance {instance!r} is {row.status}: only one that has ended is rerun")
    if row.run.parent_id is not None:
        parent = await tx.info(row.run.parent_id)
        if parent is not None and not parent.status.finished:
            raise SdkError(
                f"instance {instance!r} is a child of {row.run.parent_id!r}, which is "
                f"{parent.status} and may have its result already; rerun the parent"
            )


async def fork(tx: Tables, message: Fork) -> Done:
    instance, new = message.instance_id, message.new_id
    row = await tx.lock(instance)
    if row is None:
        raise rules.unknown(message.asked, instance)
    if row.run is None:
        raise SdkError(f"instance {instance!r} is no workflow's: no worker could run its copy")
    if await tx.exists(new):
        if tx.again:  # the answer to it was lost
            return Done()
        raise SdkError(f"instance {new!r} exists; choose another id")
    input, given = message.input, (await tx.details(instance)).input or b""
    if message.copied is None and given.startswith(ENCRYPTED):
        raise CodecError(
            f"instance {instance!r} is {written_by(given)}; what it has saved is bound to it, and "
            "its copy could not read it"
        )
    if input is None and message.copied is not None:
        input = message.copied(None, given)
    if not await tx.copy(instance, new, message.until, input):
        raise SdkError(
            f"instance {instance!r} has no checkpoint {message.until!r}; 'checkpoints' shows those "
            "that it has"
        )
    if message.copied is not None:
        await _rewrite(tx, new, message.copied)
    await tx.add_event(instance, "custom", new.encode(), FORKED)
    await tx.add_event(new, "custom", instance.encode(), FORK_OF)
    return Done()


async def _rewrite(tx: Tables, instance: str, copied: Callable[[str, bytes], bytes]) -> None:
    """Replace what could not be copied as it is."""
    after, more = None, True
    while more:
        page = await tx.read_checkpoints(
            ReadCheckpoints(instance_id=instance, after=after, most_bytes=PAGE_BYTES)
        )
        found = [(one.checkpoint_id, one.state) for one in page.checkpoints]
        await tx.rewrite(instance, [(name, copied(name, state)) for name, state in found])
        after, more = (found[-1][0] if found else None), page.more


async def signal_many(tx: Tables, message: SignalMany) -> Acted:
    done: list[str] = []
    for instance, row in (await tx.lock_many(message.instance_ids)).items():
        with suppress(SignalRefused):
            await signals.signalled(tx, instance, message.type, message.payload, row)
            done.append(instance)
    return Acted(count=len(done), instance_ids=tuple(done))


ANSWERS: Handlers[Tables] = {Rerun: rerun, Fork: fork, SignalMany: signal_many}
