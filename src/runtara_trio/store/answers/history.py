"""What is noted of an instance's steps, and read of them."""

from __future__ import annotations

from ...backend import Handlers
from ...messages import (
    Done,
    ListOpenSteps,
    ListSteps,
    ListTraces,
    ListWaits,
    NoteSteps,
    NoteTraces,
    OpenSteps,
    Steps,
    Traces,
    Waits,
)
from ..tables import Tables
from .checks import check_known


async def note_steps(tx: Tables, message: NoteSteps) -> Done:
    for run in message.runs:
        await tx.write_steps(run.instance_id, run.lease, run.steps)
    return Done()


async def list_steps(tx: Tables, message: ListSteps) -> Steps:
    found = await tx.read_steps(message)
    if not found.steps:
        await check_known(tx, message.asked, message.instance_id)
    return found


async def list_open_steps(tx: Tables, message: ListOpenSteps) -> OpenSteps:
    return await tx.open_steps_of(message)


async def list_waits(tx: Tables, message: ListWaits) -> Waits:
    return await tx.read_waits(message)


async def note_traces(tx: Tables, message: NoteTraces) -> Done:
    await tx.write_traces(message.runs)
    return Done()


async def list_traces(tx: Tables, message: ListTraces) -> Traces:
    return Traces(traces=await tx.traces(message.instance_ids))


ANSWERS: Handlers[Tables] = {
    NoteSteps: note_steps,
    ListSteps: list_steps,
    ListOpenSteps: list_open_steps,
    ListWaits: list_waits,
    NoteTraces: note_traces,
    ListTraces: list_traces,
}
