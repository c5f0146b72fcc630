"""A message on its way to the server."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import outcome
import trio

from ...tasks import Answer
from . import limits


class Job(Answer):
    """A message on its way, and who waits for its answer. Nobody, once that is cancelled: it
    is carried out all the same."""

    __slots__ = ("_answered", "again", "failure", "message", "sent", "until")

    def __init__(self, message: Any, answered: Callable[[Job], object]) -> None:
        super().__init__()
        self.message = message
        self.sent = False
        self.failure: BaseException | None = None
        """What went wrong last."""
        self.again = False
        """It was sent before, and its answer was lost."""
        self.until = trio.current_time() + limits.AWAY
        self._answered = answered

    def answer(self, result: outcome.Outcome[Any]) -> None:
        """Give the answer; a second one changes nothing."""
        self.give(result)
        self._answered(self)

    def fail(self, exc: BaseException) -> None:
        self.answer(outcome.Error(exc))
