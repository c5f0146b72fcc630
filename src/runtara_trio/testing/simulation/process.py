"""One simulated process: its store, over a network that is slow and loses things.

A message takes a while to the database and back, and what was sent is carried out whatever becomes
of its sender. A process that is dead sends nothing more; one that is stopped sends and hears
nothing until it goes on.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from typing import Any, Protocol, cast

import msgspec
import outcome
import trio

from ...backend import SignalBatch
from ...errors import StoreError
from ...messages import ReplyT, Request
from ...store.answers import at_once
from ...store.sqlite.database import Job
from ...store.sqlite.file import StoreFile
from ...store.sqlite.tables import SqliteTables
from ...tasks import GRACE, Answer, RepeatedEvent
from ..faults import of_the_dead
from ..world import World
from .store import LEASE, Batches, SimulatedClock, SimulatedDatabase, SimulatedLeases

PACE = 60.0
"""How much slower than in life a process looks at what nobody has told it of: else a simulated
day is made of looks."""

QUICK, SLOW, SOME = 0.002, 4.0, 0.015
"""Seconds that a message takes, one way, at most; and those of them that are slow."""


class Fate(msgspec.Struct):
    """What becomes of one message."""

    is_dropped: bool = False
    """Its sender has died before it was sent."""
    loses_answer: bool = False
    dies: bool = False
    """Its sender dies once it is carried out."""
    stops: float = 0.0
    """So many seconds its sender is stopped, once it is carried out."""


class Network(Protocol):
    """What a process needs of the fleet."""

    nursery: trio.Nursery
    random: random.Random
    clock: SimulatedClock
    file: StoreFile
    away_until: float

    def is_seen_dead(self, owner: str) -> bool: ...

    async def disturb(self, process: Process, message: Request[Any]) -> Fate:
        """What is planned for this message happens."""

    def committed(self, process: Process, tx: SqliteTables) -> None:
        """Others hear of it."""

    def note(self, process: Process, message: Request[Any], reply: Any) -> None:
        """Something was carried out, or refused: then ``reply`` is the exception."""


class Process:
    """A backend, as one process has it."""

    alone = False
    pace = PACE

    def __init__(
        self, network: Network, name: str, *, is_worker: bool = False, is_operator: bool = False
    ) -> None:
        self._network = network
        self.name = name
        self.is_worker = is_worker
        self.is_operator = is_operator
        """Nothing disturbs it: people try again."""
        self.dead = False
        self.seen_dead = False
        """Its death is seen before its lease is over."""
        self.ended = False
        self.scope = trio.CancelScope()
        """Around all that runs in it."""
        self._stopped_until = 0.0
        self._goes_on = RepeatedEvent()
        self._asked: dict[Answer, Request[Any]] = {}
        self._batches = Batches()
        self.world: World | None = None
        """The world as what runs in it sees it."""
        self.renewed_at = trio.current_time()
        """When it last renewed its leases, by Trio's clock."""
        self.database = SimulatedDatabase(
            network.file,
            SimulatedLeases(name, network.is_seen_dead),
            self._batches.put,
            lambda tx: network.committed(self, tx),
        )

    # ---- as a backend

    async def request(self, message: Request[ReplyT], /) -> ReplyT:
        if self.dead:
            return of_the_dead(message)
        await trio.lowlevel.checkpoint_if_cancelled()
        if (done := at_once(message)) is not None:
            await trio.lowlevel.cancel_shielded_checkpoint()
            return cast(ReplyT, done)
        answer = Answer()
        self._asked[answer] = message
        self._network.nursery.start_soon(self._carry, message, answer)
        try:
            return cast(ReplyT, await answer.wait(grace=GRACE if message.saves else 0.0))
        finally:
            self._asked.pop(answer, None)

    def signals(self) -> AsyncIterator[SignalBatch]:
        return self._batches.all()

    # ---- its life

    @property
    def holds_leases(self) -> bool:
        """Whether what it has leased is its own still."""
        if self.ended or (self.dead and self.seen_dead):
            return False
        return trio.current_time() <= self.renewed_at + LEASE

    def die(self, *, seen: bool) -> None:
        """Like ``kill -9``. ``seen``: the others know at once, else when its lease is over."""
        if self.dead or self.ended:
            return
        self.dead, self.seen_dead = True, seen
        for answer, message in list(self._asked.items()):
            answer.give(outcome.capture(of_the_dead, message))
        if self.world is not None:
            self.world.alive = False
        self.scope.cancel()

    def stop(self, seconds: float) -> None:
        """Like SIGSTOP, and SIGCONT so much later."""
        self._stopped_until = max(self._stopped_until, trio.current_time() + seconds)

    def go_on(self) -> None:
        """It is stopped no more."""
        self._stopped_until = 0.0
        self._goes_on.set()

    async def until_running(self) -> None:
        """Wait for as long as it is stopped."""
        while self._stopped_until > trio.current_time():
            with trio.move_on_at(self._stopped_until):
                await self._goes_on.wait()

    async def keep_leases(self) -> None:
        """Renew, and look for signals that nobody has told of. Until cancelled."""
        while True:
            await trio.sleep(LEASE / 3)
            await self.until_running()
            if self._network.away_until > trio.current_time() or self.database.leases.owner is None:
                continue
            self.database.renew()
            self.renewed_at = trio.current_time()
            self.database.publish_pending()

    def leave(self) -> None:
        """It has ended in order: what it still had is free at once."""
        self.ended = True
        if self.database.leases.owner is not None:
            self.database.leases.leave(self._network.file.db)

    async def hear(self, delay: float, runs: bool, signals: bool) -> None:
        """Another process has committed something."""
        await trio.sleep(delay)
        await self.until_running()
        if self.dead or self.ended:
            return
        if signals and self.database.leases.owner is not None:
            self.database.publish_pending()
        if runs and self.database.listens:
            self._batches.put(SignalBatch(news=True))

    # ---- the network

    async def _carry(self, message: Request[Any], answer: Answer) -> None:
        network = self._network
        await self._travel()
        await self.until_running()
        fate = await network.disturb(self, message)
        if fate.is_dropped:
            return
        await self.until_running()
        if network.away_until > trio.current_time() and not self.is_operator:
            result: outcome.Outcome[Any] = outcome.Error(_away())
        else:
            result = self.commit(message, loses_answer=fate.loses_answer)
            if fate.loses_answer:
                result = await self._lose(message, result)
        if fate.dies:
            self.die(seen=network.random.random() < 0.5)
        if fate.stops:
            self.stop(fate.stops)
        await self._travel()
        await self.until_running()
        if not self.dead:
            answer.give(result)

    async def _travel(self) -> None:
        draw = self._network.random.random()
        slow = draw < SOME and not self.is_operator
        await trio.sleep(SLOW * draw / SOME if slow else QUICK * draw)

    def commit(
        self, message: Request[Any], *, loses_answer: bool = False, again: bool = False
    ) -> outcome.Outcome[Any]:
        """What the database answers; everything of it happens now."""
        database = self.database
        job = Job(message, self._network.clock.now())
        database.again, database.loses_answer = again, loses_answer
        database.run([job])
        database.again = database.loses_answer = False
        result = job.result
        reply = result.value if isinstance(result, outcome.Value) else _error(result)
        self._network.note(self, message, reply)
        return result

    async def _lose(
        self, message: Request[Any], result: outcome.Outcome[Any]
    ) -> outcome.Outcome[Any]:
        """The answer was lost with its connection: what the store on PostgreSQL then does."""
        await trio.sleep(1.0)
        if isinstance(result, outcome.Error) or not message.writes:
            return self.commit(message)
        if message.counts_twice:
            return outcome.Error(
                StoreError("the connection was lost; nobody knows whether it was carried out")
            )
        if self._network.random.random() < 0.3:  # and the server does not come back in time
            return outcome.Error(_away())
        again = self.commit(message, again=True)
        own = getattr(message, "state", None)
        reply = again.value if isinstance(again, outcome.Value) else None
        if own is not None and getattr(reply, "found", False):
            assert reply is not None
            return result if reply.state == own else again  # its own state is not found
        return again


def _error(result: outcome.Outcome[Any]) -> BaseException:
    assert isinstance(result, outcome.Error)
    return result.error


def _away() -> StoreError:
    return StoreError("the simulated store is away", transient=True)
