"""Notes of steps that no commit takes along: one message a second for all blocks of a backend."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import trio

from ..messages import Noted, NoteSteps, StepNote
from ..tasks import RepeatedEvent

LATE = 1.0
"""Seconds after which a step that runs or has ended is noted by itself."""


class Unsaid(Protocol):
    """The steps of one block that are not noted yet."""

    def noted(self) -> Noted | None:
        """What is to be said now; None: nothing can be said any more."""

    @property
    def has_more(self) -> bool:
        """Whether something is to be said later."""

    def put_back(self, notes: tuple[StepNote, ...]) -> None:
        """They did not go out."""


class Noting:
    """Which blocks have something to say that nothing takes along."""

    def __init__(self, request: Callable[[NoteSteps], Awaitable[Any]], *, kept: bool) -> None:
        """``kept``: the backend keeps a history, and it is wanted."""
        self.kept = kept
        self._request = request
        self._waiting: dict[Unsaid, None] = {}
        self._more = RepeatedEvent()

    def add(self, history: Unsaid) -> None:
        """Something began or ended there; it is noted with its next commit, or by :meth:`run`."""
        if not self._waiting:
            self._more.set()
        self._waiting[history] = None

    async def run(self) -> None:
        """Note what is late. Runs until cancelled."""
        while True:
            while not self._waiting:
                await self._more.wait()
            await trio.sleep(LATE)
            late, self._waiting = [*self._waiting], {}
            runs: dict[Unsaid, Noted] = {}
            for history in late:
                noted = history.noted()
                if noted is not None and noted.steps:
                    runs[history] = noted
                if noted is not None and history.has_more:
                    self._waiting[history] = None
            if runs:
                try:
                    await self._request(NoteSteps(runs=tuple(runs.values())))
                except Exception:
                    for history, noted in runs.items():
                        history.put_back(noted.steps)
                    raise
