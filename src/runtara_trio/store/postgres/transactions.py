"""Messages in transactions: each in one of its own, or many outcomes in one.

What was on its way when a connection was lost is sent again where that is safe.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import outcome
import trio

from ... import measures
from ...backend import dispatch
from ...errors import SdkError, StoreError
from ...ids import wake_id
from ...messages import (
    EndsSince,
    GetResults,
    LookForWork,
    RecordOutcome,
    Request,
    Sleep,
)
from ..answers import ANSWERS, set_off
from ..tables import Doubtful
from . import limits
from .connection import Connection
from .failures import is_lost, is_unsure
from .job import Job
from .liveness import Liveness
from .owner import Owner
from .pool import Pool
from .preparing import Preparing
from .tables import PostgresTables

OF_ONE_STATEMENT = (EndsSince, GetResults, LookForWork)
"""Questions that are asked all the time, each of one statement."""


class _Unsure(Exception):
    """The connection was lost after a commit was sent: nobody knows whether it was made."""


class Transactions:
    """Answers messages on connections that are lent."""

    def __init__(
        self,
        pool: Pool,
        owner: Owner,
        preparing: Preparing,
        name: str,
        versions: Iterator[int],
        announced: Callable[[Sequence[str]], object],
    ) -> None:
        """``announced``: told of the channels that a commit has told."""
        self._pool = pool
        self._owner = owner
        self._preparing = preparing
        self._name = name
        self._versions = versions
        self._announced = announced
        self._liveness = Liveness()

    async def answer(self, job: Job, message: Request[Any], patience: trio.CancelScope) -> Any:
        """The answer to a message; ``patience`` is renewed where the server only needs time.

        Raises:
          StoreError: nobody knows whether it was carried out, and twice would be wrong.
        """
        again = False
        while True:
            try:
                if isinstance(message, OF_ONE_STATEMENT):
                    return await self._by_itself(message)
                return await self._in_transaction(message, again=again)
            except Doubtful:
                patience.deadline = trio.current_time() + limits.AWAY  # the server answers
                await trio.sleep(limits.DOUBT)
                continue
            except _Unsure as exc:
                if message.counts_twice:
                    raise StoreError(
                        f"{self._name}: the connection was lost while {message.asked} was on its "
                        f"way; nobody knows whether it was carried out: {exc.__cause__}"
                    ) from exc
                again = True
                job.failure = exc.__cause__
            except Exception as exc:
                if not is_lost(exc):
                    raise
                job.failure = exc
            await trio.sleep(limits.RETRY)

    async def alone(self, message: Request[Any]) -> Any:
        """The answer to a message that is no part of a transaction."""
        async with self._pool.lent() as connection:
            return await dispatch(ANSWERS, self._tables(connection), message)

    async def _by_itself(self, message: Request[Any]) -> Any:
        """The answer to a question of one statement, which needs no transaction around it."""
        async with self._pool.lent() as connection:
            with trio.fail_after(limits.ANSWER):
                return await dispatch(ANSWERS, self._tables(connection), message)

    async def answer_many(
        self, connection: Connection, messages: Sequence[RecordOutcome | Sleep], *, again: bool
    ) -> list[outcome.Outcome[Any]]:
        """Answer many messages of one kind, of each instance one, in one transaction: what an end
        costs must not depend on how many blocks a program that is stopped ends at once.

        ``again``: they may have been carried out before, by a transaction whose answer was lost.
        """
        if not self._preparing.has_runs:
            await self._preparing.find_runs(connection, make=False)
        tx = self._tables(connection, again=again)
        connection.begin()
        try:
            await tx.lock_ahead(message.instance_id for message in messages)
            await tx.read_ahead(
                [
                    (message.instance_id, wake_id(message.checkpoint_id))
                    for message in messages
                    if isinstance(message, Sleep)
                ]
            )
            answers = [await _captured(tx, message) for message in messages]
            await tx.flush()
            await set_off(tx)
        except BaseException:
            await connection.roll_back()
            raise
        await connection.commit(*tx.channels)
        self._committed(tx)
        return answers

    async def _in_transaction(self, message: Request[Any], *, again: bool) -> Any:
        async with self._pool.lent() as connection:
            if not self._preparing.has_runs:  # somebody may have made them since
                await self._preparing.find_runs(connection, make=message.makes)
            tx = self._tables(connection, again=again)
            begun = trio.current_time()
            try:
                with trio.fail_after(limits.ANSWER):
                    connection.begin()
                    if not message.durable:
                        connection.later("SET LOCAL synchronous_commit = off")
                    reply = await dispatch(ANSWERS, tx, message)
                    await tx.flush()
                    await set_off(tx)
            except BaseException:
                with trio.CancelScope(shield=True), trio.move_on_after(limits.RETRY):
                    await connection.roll_back()
                raise
            try:
                # A commit is not left half-way.
                with trio.CancelScope(shield=True), trio.fail_after(limits.ANSWER):
                    await connection.commit(*tx.channels)
            except Exception as exc:
                if is_unsure(exc):
                    raise _Unsure from exc
                raise
            self._committed(tx)
            measures.store_batch()
            measures.store_commit(trio.current_time() - begun)
            return reply

    def _tables(self, connection: Connection, *, again: bool = False) -> PostgresTables:
        return PostgresTables(
            connection,
            self._owner,
            self._liveness,
            losses=self._pool.losses,
            version=next(self._versions),
            again=again,
            runs=self._preparing.has_runs,
            tracks_ends=self._preparing.tracks_ends,
        )

    def _committed(self, tx: PostgresTables) -> None:
        self._announced(tx.channels)
        for instance, epoch in tx.leased:
            if epoch is None:
                self._owner.leased.pop(instance, None)
            else:
                self._owner.leased[instance] = epoch


async def _captured(tx: PostgresTables, message: Request[Any]) -> outcome.Outcome[Any]:
    """The answer to one of many; what is refused must not stop the others."""
    try:
        return outcome.Value(await dispatch(ANSWERS, tx, message))
    except SdkError as exc:
        return outcome.Error(exc)
