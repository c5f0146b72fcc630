"""Mistakes of ours that are planted: a simulation finds each of them.

Each is one that a store or a worker has had somewhere. One that is not found within so many seeds
is a hole in the simulator.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from runtara_trio.engine.ends import EndsOfRuns
from runtara_trio.errors import SdkError
from runtara_trio.messages import LookForWork, Marked, MarkRuns
from runtara_trio.store.answers import ANSWERS, children, instances, queues, rules, runs, schedules
from runtara_trio.store.sqlite import rows
from runtara_trio.store.sqlite.claims import SqliteClaims
from runtara_trio.store.sqlite.database import Database
from runtara_trio.store.sqlite.queues import SqliteQueues
from runtara_trio.store.structs import Holder
from runtara_trio.testing import SimulationFailed, simulate
from runtara_trio.testing.simulation import shrink
from runtara_trio.worker.scheduling import Scheduling
from runtara_trio.worker.worker import Worker

from ..helpers.fleets import MIXED, RATED, SHOP

SEEDS = 2_000
"""Within which a mistake must be found."""

Plant = Callable[[pytest.MonkeyPatch], None]


def claim_without_compare_and_set(patch: pytest.MonkeyPatch) -> None:
    """What is taken is still there to be taken."""
    take = SqliteClaims.take_runs

    async def take_runs(self: Any, taken: Any, placed: Any) -> Any:
        leases = await take(self, taken, placed)
        self.db.executemany(
            "UPDATE runtara_trio_runs SET state = 'ready' WHERE instance_id = ?",
            [(instance,) for instance in leases],
        )
        return leases

    async def takeable(tx: Any, ready: Any) -> Any:
        return [(one, None) for one in ready]

    patch.setattr(SqliteClaims, "take_runs", take_runs)
    patch.setattr(runs, "_takeable", takeable)


def sweep_that_trusts_an_old_read(patch: pytest.MonkeyPatch) -> None:
    """Who was doubtful when the sweep looked is taken for dead when it acts."""

    settle, seen = runs._settled, {}

    async def look(tx: Any, message: Any) -> Any:
        work = await tx.look(message)
        before = seen.get(tx.leases.owner, ())
        seen[tx.leases.owner] = work.dead
        return msgspec.structs.replace(work, dead=before)

    async def settled(tx: Any, owner: str) -> Holder | None:
        known = any(owner in dead for dead in seen.values())
        return Holder(owner, "somebody", False, None) if known else await settle(tx, owner)

    patch.setitem(ANSWERS, LookForWork, look)  # type: ignore[arg-type]
    patch.setattr(runs, "_settled", settled)


def wake_lost_while_unloading(patch: pytest.MonkeyPatch) -> None:
    """What came between the last look and the commit of an unload is not looked for."""

    async def past(tx: Any, end: Any) -> Any:
        return end

    patch.setattr(instances, "_past_what_waits", past)


def limit_counted_before_a_takeover(patch: pytest.MonkeyPatch) -> None:
    """A run that is taken over has no place."""
    begin = queues.begin

    async def begins(tx: Any, found: Any, taken: Any) -> Any:
        placed = await begin(tx, found, taken)
        return placed - {one.instance_id for one, dead in taken if dead is not None}

    patch.setattr(queues, "begin", begins)


def place_given_without_counting(patch: pytest.MonkeyPatch) -> None:
    """Who has waited goes on, whoever has its place by now."""

    async def mark_runs(tx: Any, message: Any) -> Marked:
        await tx.mark_runs(message.waiting, message.working)
        return Marked()

    patch.setitem(ANSWERS, MarkRuns, mark_runs)  # type: ignore[arg-type]


def cascade_outside_the_transaction(patch: pytest.MonkeyPatch) -> None:
    """The children are to be cancelled by whoever comes next."""

    async def cascade(tx: Any, instance_id: str, block: str | None = None) -> None: ...

    patch.setattr(children, "cascade", cascade)


def outcome_without_its_lease(patch: pytest.MonkeyPatch) -> None:
    """Whoever says that a run has ended is believed."""
    decide = rules.decide_outcome

    def decided(message: Any, epoch: int | None, pending: Any) -> Any:
        mine = msgspec.structs.replace(message, lease=epoch or message.lease)
        return decide(mine, epoch, pending)

    patch.setattr(rules, "decide_outcome", decided)


def checkpoint_without_its_lease(patch: pytest.MonkeyPatch) -> None:
    """Who has lost a run saves all the same."""
    patch.setattr(rules, "check_lease", lambda instance, lease, epoch: None)


def save_that_overwrites(patch: pytest.MonkeyPatch) -> None:
    """The last save wins, not the first."""
    save = rows.save

    def saves(db: Any, instance: str, checkpoint_id: str, state: bytes, now: str) -> bool:
        db.execute(
            "DELETE FROM checkpoints WHERE instance_id = ? AND checkpoint_id = ?",
            (instance, checkpoint_id),
        )
        return save(db, instance, checkpoint_id, state, now)

    patch.setattr(rows, "save", saves)


def rate_that_forgets(patch: pytest.MonkeyPatch) -> None:
    """Only what one claim takes is counted."""

    async def note(self: Any, queues: Any) -> None: ...

    patch.setattr(SqliteQueues, "note_begins", note)


def only_the_newest_slot(patch: pytest.MonkeyPatch) -> None:
    """Of the slots that were missed, one is run."""
    fire = Scheduling._fire

    async def fires(self: Any, schedule: Any) -> int:
        now = self._now_ms()
        every = int(schedule.every * 1000)
        newest = now - now % every
        if schedule.next_ms < newest:
            inner = self._worker.shared.request

            async def request(message: Any) -> Any:
                if getattr(message, "runs", None) and hasattr(message, "due_ms"):
                    message = msgspec.structs.replace(message, runs=message.runs[-1:])
                return await inner(message)

            with contextlib.ExitStack() as stack:
                self._worker.shared.request = request
                stack.callback(lambda: self._worker.shared.__dict__.pop("request", None))
                return await fire(self, schedule)
        return await fire(self, schedule)

    patch.setattr(Scheduling, "_fire", fires)


def parent_that_is_not_told(patch: pytest.MonkeyPatch) -> None:
    """A parent that is unloaded hears of no end."""

    async def tell(tx: Any) -> None:
        tx.child_ends = []

    patch.setattr(children, "tell_parents", tell)


def turn_that_is_kept(patch: pytest.MonkeyPatch) -> None:
    """The end of a run gives the turn of its key to nobody."""

    async def advance(tx: Any) -> None:
        tx.turns_freed = []

    patch.setattr(queues, "advance_keys", advance)


def claim_whose_answer_was_lost(patch: pytest.MonkeyPatch) -> None:
    """What it took is nobody's: leased by a worker that does not know."""

    async def strays(self: Any) -> list[tuple[str, int]]:
        return []

    from runtara_trio.testing.simulation.store import SimulatedTables

    patch.setattr(SimulatedTables, "strays", strays)


def look_that_gives_up(patch: pytest.MonkeyPatch) -> None:
    """Where the store was away, who waits for a result is forgotten."""
    ask = EndsOfRuns._ask

    async def asks(self: Any, message: Any) -> Any:
        try:
            return await ask(self, message)
        except SdkError:
            self._waiting.clear()
            raise

    patch.setattr(EndsOfRuns, "_ask", asks)


def nobody_sweeps(patch: pytest.MonkeyPatch) -> None:
    """The runs of the dead are left to them."""

    async def look(self: Any) -> bool:
        return False

    patch.setattr(Worker, "_look_once", look)


def message_that_is_taken_for_told(patch: pytest.MonkeyPatch) -> None:
    """Its number is that of the one before, which has gone."""
    after_commit = Database._after_commit

    def forgets(self: Any, tx: Any) -> None:
        tx.signals_taken = False
        after_commit(self, tx)

    patch.setattr(Database, "_after_commit", forgets)


def turn_that_is_not_counted(patch: pytest.MonkeyPatch) -> None:
    """A key has as many turns as there are workers."""

    async def turns(tx: Any, rooms: Any, takeable: Any) -> dict[Any, int]:
        return {}

    patch.setattr(queues, "_turns", turns)


def last_one_of_a_key_first(patch: pytest.MonkeyPatch) -> None:
    """What is taken of a key is turned round."""
    ready_in = SqliteClaims.ready_in

    async def turned(self: Any, *arguments: Any) -> Any:
        return [found[::-1] for found in await ready_in(self, *arguments)]

    patch.setattr(SqliteClaims, "ready_in", turned)


def slots_that_overlap(patch: pytest.MonkeyPatch) -> None:
    """The run of the slot before is not looked at."""

    async def may_run(tx: Any, schedule: Any, last: Any) -> bool:
        return True

    patch.setattr(schedules, "_may_run", may_run)


LEASE = "an old lease writes nothing"

PLANTED: list[tuple[Plant, dict[str, Any], str, int]] = [
    (claim_without_compare_and_set, SHOP, "a run is in one place", 0),
    (sweep_that_trusts_an_old_read, SHOP, "a run is in one place", 56),
    (wake_lost_while_unloading, SHOP, "every run goes on", 0),
    (limit_counted_before_a_takeover, SHOP, "limits are kept", 14),
    (place_given_without_counting, SHOP, "limits are kept", 0),
    (cascade_outside_the_transaction, SHOP, "a cascade is part of the end", 248),
    (outcome_without_its_lease, SHOP, LEASE, 34),
    (
        checkpoint_without_its_lease,
        SHOP,
        "an old lease writes nothing|what has ended is not run",
        14,
    ),
    (save_that_overwrites, SHOP, "what is saved stays", 147),
    (rate_that_forgets, RATED, "rates are kept", 0),
    (only_the_newest_slot, SHOP, "no slot is left out", 32),
    (parent_that_is_not_told, SHOP, "every run goes on", 0),
    (turn_that_is_kept, SHOP, "every run goes on", 0),
    (claim_whose_answer_was_lost, SHOP, "every run goes on", 143),
    (look_that_gives_up, SHOP, "who waits is told", 2),
    (nobody_sweeps, SHOP, "every run goes on", 7),
    (message_that_is_taken_for_told, MIXED, "every run goes on", 0),
    (turn_that_is_not_counted, SHOP, "turns are kept", 0),
    (last_one_of_a_key_first, SHOP, "turns are kept", 0),
    (slots_that_overlap, MIXED, "slots do not overlap", 0),
]
"""Each mistake, a scenario, and the rule that it breaks: what is found first may be either;
and a seed that has found it, which is tried first."""


@pytest.mark.parametrize(
    ("plant", "scenario", "rule", "seed"), PLANTED, ids=[plant.__name__ for plant, *_ in PLANTED]
)
def test_it_is_found(
    plant: Plant,
    scenario: dict[str, Any],
    rule: str,
    seed: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plant(monkeypatch)
    monkeypatch.setattr(shrink, "MOST_TRIES", 0)  # which faults it needs is not asked
    with pytest.raises(SimulationFailed) as failed:
        simulate(**scenario, seeds=itertools.chain([seed], range(SEEDS)))
    finding = failed.value.simulated.finding
    assert finding is not None
    print(plant.__name__, failed.value.simulated.seed, finding)
    assert finding.rule in rule.split("|")
