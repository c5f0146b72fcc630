"""What queues allow: how much a claim may take of each, and who goes on after a wait.

A place of a queue is held by a run that works, and the turn of a key by a run from its first claim
until it has ended or is suspended by a pause or a backoff. Both are columns of the rows that say
where runs stand, so what is counted is what is there, whoever died. Who counts has locked the
queue.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ...backend import Handlers
from ...errors import SdkError
from ...messages import (
    ClaimRuns,
    Done,
    ListQueues,
    Marked,
    MarkRuns,
    PauseQueue,
    Queues,
    SetQueues,
)
from ..structs import Holder, Lane, Ready, Row, Stored
from ..tables import Tables

Takeable = tuple[Ready, Holder | None]


@dataclass(slots=True)
class Room:
    """What a claim may take of one queue."""

    stored: Stored
    runs: int | None = None
    """None: as many as there are."""
    begins: int | None = None
    begins_in_ms: int | None = None
    """Until one more may begin."""

    @property
    def is_closed(self) -> bool:
        return self.stored.paused or (self.runs is not None and self.runs <= 0)


@dataclass(slots=True)
class Rooms:
    """What one claim may take of the queues that are stored."""

    of: dict[str, Room] = field(default_factory=dict)
    closed: set[str] = field(default_factory=set)
    """Queues of which this claim takes nothing more."""
    again_in_ms: int | None = None
    """Until a queue that is closed by its rate is open again."""

    def open(self, queues: Iterable[str]) -> tuple[str, ...]:
        return tuple(queue for queue in queues if queue not in self.closed)

    def most(self) -> dict[str, int]:
        """By queue, how many of its runs may be taken."""
        return {name: room.runs for name, room in self.of.items() if room.runs is not None}

    def close_until(self, queue: str, ms: int | None) -> None:
        self.closed.add(queue)
        known = [one for one in (self.again_in_ms, ms) if one is not None]
        self.again_in_ms = min(known, default=None)


async def rooms(tx: Tables, message: ClaimRuns) -> Rooms:
    """What a claim may take of each queue."""
    found = Rooms()
    stored = await tx.lock_queues(message.queues)
    held = await tx.places([name for name, one in stored.items() if one.queue.limit is not None])
    for name, one in stored.items():
        room = found.of[name] = Room(one)
        queue = one.queue
        left = []
        if queue.limit is not None:
            left.append(queue.limit - sum(held.get(name, (0, 0))))
        if queue.per_worker is not None:
            left.append(queue.per_worker - message.working.get(name, 0))
        room.runs = min(left, default=None)
        if queue.rate is not None and not room.is_closed:
            begun, in_ms = await tx.begun_since(name, queue.rate.per)
            room.begins = queue.rate.count - begun
            room.begins_in_ms = math.ceil(queue.rate.per * 1000) if in_ms is None else in_ms
        if room.is_closed:
            found.closed.add(name)
    return found


async def fit(tx: Tables, rooms: Rooms, takeable: list[Takeable]) -> list[Takeable]:
    """Those of the runs that their queues have room for. Of the others the queue is closed for
    this claim, or the key's runs wait for its turn."""
    if not rooms.of:
        return takeable
    turns = await _turns(tx, rooms, takeable)
    fitting: list[Takeable] = []
    busy: dict[Lane, None] = {}
    for one, dead in takeable:
        room = rooms.of.get(one.lane.queue)
        if room is None:
            fitting.append((one, dead))
            continue
        if room.is_closed:
            rooms.closed.add(one.lane.queue)
            continue
        if one.begins and room.begins is not None and room.begins <= 0:
            rooms.close_until(one.lane.queue, room.begins_in_ms)
            continue
        limit = room.stored.queue.key_limit
        if limit is not None and one.lane.key and not _has_turn(one.row):
            if turns.get(one.lane, 0) >= limit:
                busy[one.lane] = None
                continue
            turns[one.lane] = turns.get(one.lane, 0) + 1
        if room.runs is not None:
            room.runs -= 1
        if one.begins and room.begins is not None:
            room.begins -= 1
        fitting.append((one, dead))
    for lane in busy:
        await tx.put_behind(lane)
    return fitting


def _has_turn(row: Row) -> bool:
    return row.run is not None and row.run.has_turn


async def _turns(tx: Tables, rooms: Rooms, takeable: list[Takeable]) -> dict[Lane, int]:
    lanes = {
        one.lane: None
        for one, _ in takeable
        if one.lane.key
        and one.lane.queue in rooms.of
        and rooms.of[one.lane.queue].stored.queue.key_limit is not None
    }
    return await tx.turns(list(lanes)) if lanes else {}


async def begin(tx: Tables, rooms: Rooms, taken: list[Takeable]) -> set[str]:
    """Runs are taken: those that begin are counted by rates. The ids of those that hold places."""
    begins = [
        one.lane.queue
        for one, _ in taken
        if one.begins
        and one.lane.queue in rooms.of
        and rooms.of[one.lane.queue].stored.queue.rate is not None
    ]
    if begins:
        await tx.note_begins(begins)
    return {one.instance_id for one, _ in taken if is_limited(rooms.of, one.lane.queue)}


def is_limited(rooms: Mapping[str, Room], queue: str) -> bool:
    """Whether a run of a queue must ask before it goes on after a wait."""
    room = rooms.get(queue)
    return room is not None and room.stored.queue.has_places


async def mark_runs(tx: Tables, message: MarkRuns) -> Marked:
    if message.waiting:
        await tx.mark_runs(message.waiting, ())
    if not message.working:
        return Marked()
    await tx.lock_runs(message.working)
    queues = await tx.queues_of(message.working)
    stored = await tx.lock_queues(sorted(set(queues.values()))) if queues else {}
    limited = [name for name, one in stored.items() if one.queue.limit is not None]
    held = await tx.places(limited) if limited else {}
    left: dict[str, int] = {}
    for name, one in stored.items():
        rooms = []
        if one.queue.limit is not None:
            rooms.append(one.queue.limit - held.get(name, (0, 0))[0])
        if one.queue.per_worker is not None:
            rooms.append(one.queue.per_worker - message.held.get(name, 0))
        if rooms:
            left[name] = min(rooms)
    granted: list[str] = []
    refused: list[str] = []
    for instance in message.working:
        queue = queues.get(instance)
        if queue is None or queue not in left:
            granted.append(instance)
        elif left[queue] > 0:
            left[queue] -= 1
            granted.append(instance)
        else:
            refused.append(instance)
    await tx.mark_runs((), granted)
    if refused:
        await tx.want_places(refused)
    return Marked(refused=tuple(refused))


async def advance_keys(tx: Tables) -> None:
    """Runs have given up the turn of their key: the next ones are ready."""
    freed, tx.turns_freed = tx.turns_freed, []
    if not freed:
        return
    lanes = await tx.free_turns(freed)
    if not lanes:
        return
    stored = await tx.lock_queues(sorted({lane.queue for lane in lanes}))
    turns = await tx.turns(lanes)
    for lane in lanes:
        one = stored.get(lane.queue)
        limit = None if one is None else one.queue.key_limit
        count = MOST_AT_ONCE if limit is None else limit - turns.get(lane, 0)
        if count > 0:
            await tx.advance(lane, count)


MOST_AT_ONCE = 1000
"""Runs of one key that are made ready at once."""


async def set_queues(tx: Tables, message: SetQueues) -> Done:
    await tx.set_queues(message.queues)
    return Done()


async def pause_queue(tx: Tables, message: PauseQueue) -> Done:
    if not message.paused and message.name not in await tx.lock_queues([message.name]):
        raise SdkError(f"no queue {message.name!r} is stored; 'queues' shows those there are")
    await tx.pause_queue(message.name, paused=message.paused)
    return Done()


async def list_queues(tx: Tables, message: ListQueues) -> Queues:
    return Queues(queues=tuple(await tx.list_queues()))


ANSWERS: Handlers[Tables] = {
    MarkRuns: mark_runs,
    SetQueues: set_queues,
    PauseQueue: pause_queue,
    ListQueues: list_queues,
}
