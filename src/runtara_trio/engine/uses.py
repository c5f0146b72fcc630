"""Ids that are used once in a run: those of sleeps, of waits for a signal and of deadlines.

What is stored under such an id is the end of one wait. A second use would be taken for a
replay of the first and be over at once: a loop that sleeps a thousand times in half a
second. So it is an error. A wait that was cancelled, or refused, has not ended: it may go
on under its id. So may what an attempt of a durable call has used, in the next attempt.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import trio

from ..errors import SdkError
from .outcome import contains

Use = tuple[str, str]
"""What it is, and its checkpoint id."""

_attempts: ContextVar[tuple[set[Use], ...]] = ContextVar("runtara_trio_attempts", default=())


class Uses:
    """The ids that one run has used."""

    __slots__ = ("_used",)

    def __init__(self) -> None:
        self._used: set[Use] = set()

    @contextmanager
    def once(self, what: str, checkpoint_id: str, *, around_body: bool = False) -> Iterator[None]:
        """Around the use of an id.

        Args:
          what: "sleep" and the like; each has ids of its own.
          around_body: an error may be the body's, which then has used the id; else any error
            says that it was not used.

        Raises:
          SdkError: this run has used the id, or uses it now.
        """
        use = (what, checkpoint_id)
        if use in self._used:
            raise SdkError(
                f"{what} {checkpoint_id!r} is used a second time in one run: it would be over at "
                "once, as in a replay; put what differs into the id, such as the item or the "
                f"number of the round: {checkpoint_id + '/1'!r}"
            )
        self._used.add(use)
        for attempt in _attempts.get():
            attempt.add(use)
        try:
            yield
        except BaseException as exc:
            if not around_body or contains(exc, trio.Cancelled) or contains(exc, SdkError):
                self._used.discard(use)
            raise

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """Around an attempt of a durable call: one that fails has used nothing."""
        around = _attempts.get()
        mine: set[Use] = set()
        _attempts.set((*around, mine))
        try:
            yield
        except BaseException:
            self._used -= mine
            raise
        finally:
            _attempts.set(around)
