"""What people do to a simulated fleet: cancel, pause, run again, change queues, answer."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Protocol

import msgspec
import trio

from ...errors import SdkError
from ...messages import Request, TakeMessage, TakeSignal
from ...sdk.operator import Operator
from ...store.sqlite.file import StoreFile
from ...types import Queue
from .plan import FleetFault, Planned
from .process import Process

AWHILE = 60.0
"""Seconds until something is taken back, at most."""

ANSWERED = 5.0
"""Seconds until somebody answers who waits, at most."""


class OfScenario(Protocol):
    @property
    def queues(self) -> tuple[Queue, ...]: ...
    @property
    def signals(self) -> Mapping[str, bytes]: ...


class Operated(Protocol):
    """The fleet."""

    nursery: trio.Nursery
    random: random.Random
    file: StoreFile

    @property
    def scenario(self) -> OfScenario: ...

    def say(self, who: str, text: str) -> None: ...


class Operating:
    """The operators of one simulation."""

    def __init__(self, fleet: Operated) -> None:
        self._fleet = fleet
        self._operator: Operator
        self._answered: set[tuple[str, str]] = set()

    def begin(self, process: Process) -> None:
        """They use this process, which nothing disturbs."""
        self._operator = Operator(process)

    def act(self, planned: Planned) -> None:
        """Do what a fault says, from now on."""
        self._fleet.nursery.start_soon(self._act, planned)

    def hear(self, message: Request[Any], reply: Any) -> None:
        """Somebody may wait for a signal or a message that is to come."""
        if not isinstance(message, (TakeMessage, TakeSignal)):
            return
        name = message.name if isinstance(message, TakeMessage) else message.checkpoint_id
        key = message.instance_id, message.checkpoint_id
        payload = self._fleet.scenario.signals.get(name)
        if payload is not None and reply.payload is None and key not in self._answered:
            self._answered.add(key)
            self._fleet.nursery.start_soon(self._answer, message, name, payload)

    async def _answer(self, asked: TakeMessage | TakeSignal, name: str, payload: bytes) -> None:
        await trio.sleep(ANSWERED * self._fleet.random.random())
        with suppress(SdkError):  # it has ended
            if isinstance(asked, TakeMessage):
                await self._operator.send_message(asked.instance_id, name, payload)
            else:
                await self._operator.send_signal(asked.instance_id, name, payload)

    async def resume_all(self) -> None:
        """Nothing stays paused, or parked."""
        for queue in await self._operator.list_queues():
            if queue.paused:
                await self._operator.resume_queue(queue.queue.name)
        for instance in self._instances("r.state IN ('paused', 'parked')"):
            with suppress(SdkError):
                await self._operator.resume(instance)

    async def _act(self, planned: Planned) -> None:
        draw = random.Random(planned.draw)
        with suppress(SdkError):  # refused, as people are
            match planned.fault:
                case FleetFault.CANCEL:
                    if instance := self._some(draw, "i.status NOT IN ('completed', 'failed')"):
                        await self._operator.cancel(instance)
                case FleetFault.PAUSE:
                    if instance := self._some(draw, "i.status IN ('running', 'pending')"):
                        await self._operator.pause(instance)
                        await trio.sleep(AWHILE * draw.random())
                        await self._operator.resume(instance)
                case FleetFault.RERUN:
                    await trio.sleep(AWHILE * draw.random())
                    if instance := self._some(draw, "i.status IN ('failed', 'cancelled')"):
                        await self._operator.rerun(instance)
                case FleetFault.QUEUE:
                    await self._change_queue(draw)
                case _:
                    raise AssertionError(planned)

    async def _change_queue(self, draw: random.Random) -> None:
        declared = self._fleet.scenario.queues
        queue = draw.choice(declared) if declared else Queue("default")
        if draw.random() < 0.5:
            await self._operator.pause_queue(queue.name)
            await trio.sleep(AWHILE * draw.random())
            await self._operator.resume_queue(queue.name)
        else:
            limit = draw.randint(1, 3)
            await self._operator.set_queue(msgspec.structs.replace(queue, limit=limit))

    def _some(self, draw: random.Random, which: str) -> str | None:
        found = self._instances(which)
        return draw.choice(found) if found else None

    def _instances(self, which: str) -> list[str]:
        db: sqlite3.Connection = self._fleet.file.db
        with suppress(sqlite3.OperationalError):  # there are no tables yet
            return [
                instance
                for (instance,) in db.execute(
                    "SELECT i.instance_id FROM instances i"
                    " JOIN runtara_trio_runs r ON r.instance_id = i.instance_id"
                    f" WHERE {which} ORDER BY i.instance_id"
                )
            ]
        return []
