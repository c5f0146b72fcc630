"""One call of the protocol, repeated until its answer can be trusted.

A stock runtara-core on SQLite refuses calls with "database is locked" under any
concurrency, though a checkpoint *was* stored in every such case; and two first registers
of one id may meet, on either database. Both pass, so the call is made again, within its one
deadline.
"""

from __future__ import annotations

import random
from typing import TypeVar, cast

import trio

from ...errors import LeaseLost, ServerError
from ...wire import calls, frames, mapping
from ...wire.calls import Answer, Call
from ..names import LEASE_LOST
from .connection import Orphaned
from .session import Session

AnswerT = TypeVar("AnswerT", bound=Answer)

PASSING = ("database is locked", "unique constraint")
"""What is in the text of a refusal that passes; SQLite writes the second in capitals."""
FIRST_PAUSE, LONGEST_PAUSE = 0.002, 0.1
"""Seconds before a call that was refused so is made again; doubled each time."""


class Asking:
    """Makes calls through a session."""

    def __init__(self, session: Session, timeout: float) -> None:
        self._session = session
        self._timeout = timeout

    async def ask(
        self,
        call: Call,
        wanted: type[AnswerT],
        *,
        resend: bool = True,
        orphaned: Orphaned | None = None,
    ) -> tuple[AnswerT, bool]:
        """The answer to a call, and whether it was sent more than once.

        Args:
          resend: whether it may be, where nobody knows if it was carried out.

        Raises:
          ServerError: the server refused it.
          LeaseLost: another owner has the instance.
          Unreachable: see :meth:`Session.call`.
        """
        name = mapping.CALL_NAMES[type(call)]
        frame = frames.encode(frames.REQUEST, mapping.encode_call(call))
        deadline = trio.current_time() + self._timeout
        again = False
        pause = FIRST_PAUSE
        while True:
            reply = await self._session.call(
                name, frame, deadline, resend=resend, orphaned=orphaned
            )
            again = again or reply.resent
            if reply.payload is None:
                raise ServerError(name, "NO_ANSWER", "the server ended the call without an answer")
            answer = read_answer(name, reply.payload)
            if not _passes(answer) or trio.current_time() + pause > deadline:
                return _checked(name, call, answer, wanted), again
            await trio.sleep(pause * random.uniform(0.5, 1))
            pause = min(2 * pause, LONGEST_PAUSE)
            again = True

    async def tell(self, call: Call, *, resend: bool = True) -> None:
        """Make a call that has no answer, and wait until the server has ended it."""
        name = mapping.CALL_NAMES[type(call)]
        frame = frames.encode(frames.REQUEST, mapping.encode_call(call))
        deadline = trio.current_time() + self._timeout
        await self._session.call(name, frame, deadline, resend=resend)


def read_answer(name: str, payload: bytes) -> Answer:
    """What an answer says. Raises ServerError where it is invalid."""
    try:
        return mapping.decode_answer(payload)
    except mapping.WireError as exc:
        raise ServerError(name, "BAD_REPLY", str(exc)) from exc


def _passes(answer: Answer) -> bool:
    """Whether this refusal passes by itself."""
    match answer:
        case calls.RpcError(message=text) | calls.RegisterInstanceAnswer(success=False, error=text):
            return any(one in text.lower() for one in PASSING)
    return False


def _checked(name: str, call: Call, answer: Answer, wanted: type[AnswerT]) -> AnswerT:
    if isinstance(answer, wanted):
        return answer
    if isinstance(answer, calls.RpcError):
        if answer.code == LEASE_LOST:
            raise LeaseLost(cast(str, getattr(call, "instance_id", "")))
        raise ServerError(name, answer.code, answer.message)
    raise ServerError(name, "BAD_REPLY", f"the server answered with a {type(answer).__name__}")
