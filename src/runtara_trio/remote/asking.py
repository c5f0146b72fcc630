"""One call of the protocol, repeated until its answer can be trusted; whatever carries it.

A stock runtara-core on SQLite refuses calls with "database is locked" under any
concurrency, though a checkpoint *was* stored in every such case; and two first registers
of one id may meet, on either database. Both pass, so the call is made again, within its one
deadline.
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Container
from typing import Any, TypeVar, cast

import trio

from ..errors import LeaseLost, NotSupported, ServerError
from ..messages import Request
from ..wire import calls
from ..wire.calls import Answer, Call
from ..wire.mapping import CALL_NAMES
from .names import LEASE_LOST

AnswerT = TypeVar("AnswerT", bound=Answer)

Orphaned = Callable[[Answer], object]
"""Given the answer of a call that nobody waits for any more."""

PASSING = ("database is locked", "unique constraint")
"""What is in the text of a refusal that passes; SQLite writes the second in capitals."""

FIRST_PAUSE, LONGEST_PAUSE = 0.002, 0.1
"""Seconds before a call that was refused so is made again; doubled each time."""


class Asking(ABC):
    """Makes calls to one server."""

    acks_suspend = False
    """Acknowledging a pause suspends the instance at once, whatever it does."""
    wakes = False
    """A suspended instance may be told when to wake."""
    tells_all = True
    """Who asks for the signal of a checkpoint is told of that of the instance, too."""

    def __init__(self, name: str, timeout: float) -> None:
        """``name``: what errors call the server; ``timeout``: seconds for a call."""
        self.name = name
        self._timeout = timeout
        self.kept: Callable[[str, str], object] = lambda instance, checkpoint_id: None
        """Told of a signal that came along with something else, and is saved."""
        self.held: Container[str] = ()
        """Instances that are suspended, and whose programs wait to go on."""

    @abstractmethod
    def trouble(self) -> str | None:
        """What keeps the server from answering, if anything is known."""

    @abstractmethod
    async def answer(
        self, call: Call, deadline: float, *, resend: bool, orphaned: Orphaned | None
    ) -> tuple[Answer, bool]:
        """What a server answers, and whether the call was sent more than once.

        Raises:
          ServerError: it is no answer. RequestTimeout, Unreachable: there is none.
        """

    @abstractmethod
    async def carry(self, call: Call, deadline: float, *, resend: bool) -> None:
        """Make a call that has no answer, and wait until the server has ended it."""

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
          Unreachable: nobody knows whether it was carried out, or there is no server.
        """
        name = CALL_NAMES[type(call)]
        deadline = trio.current_time() + self._timeout
        again = False
        pause = FIRST_PAUSE
        while True:
            answer, resent = await self.answer(call, deadline, resend=resend, orphaned=orphaned)
            again = again or resent
            if not _passes(answer) or trio.current_time() + pause > deadline:
                return _checked(name, call, answer, wanted), again
            await trio.sleep(pause * random.uniform(0.5, 1))
            pause = min(2 * pause, LONGEST_PAUSE)
            again = True

    async def input(self, instance_id: str) -> bytes | None:
        """What an instance was started with; None: nothing.

        Raises:
          NotSupported: what carries calls here has none for it.
        """
        raise NotSupported(
            f"the input of an instance cannot be asked for at {self.name}: the protocol over QUIC "
            "has no call for it; give the URL of the server's database, or of a core over HTTP"
        )

    async def operate(self, message: Request[Any]) -> Any:
        """What an operator asks.

        Raises:
          NotSupported: what carries calls here has none for it.
        """
        raise NotSupported(
            f"{type(message).__name__} is no call of the instance protocol: {self.name} does "
            "not answer it; give the URL of the server's database as the store"
        )

    async def tell(self, call: Call, *, resend: bool = True) -> None:
        """Make a call that has no answer, and wait until the server has ended it."""
        await self.carry(call, trio.current_time() + self._timeout, resend=resend)


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
