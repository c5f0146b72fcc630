"""Which runs wait, as the store is told: a death of their worker does not count for them, and they
hold no place of their queue.

The messages go one after the other: two that cross would leave a run that works marked.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Protocol

import trio

from .. import logs
from ..engine.outcome import is_trouble
from ..engine.services import SharedBackend
from ..errors import SdkError
from ..messages import MarkRuns

AGAIN = 1.0
"""Seconds between two tries while the store is away."""


class Mark(enum.Enum):
    """What the store knows of a run's wait."""

    UNTOLD = "it was not told"
    SENT = "it may have been told"
    TOLD = "it was told"


class Marked(Protocol):
    """A run that is marked or not."""

    mark: Mark

    @property
    def instance_id(self) -> str:
        """The id of its instance."""


class Marks:
    """The marks of one worker's runs."""

    def __init__(self, shared: SharedBackend, held: Callable[[], Mapping[str, int]]) -> None:
        """``held``: by queue, how many places the worker's runs hold."""
        self._shared = shared
        self._held = held
        self._trouble = logs.Outage(logs.claim_failed, "the end of a wait")
        self._sending = trio.Lock()
        self._again: list[Marked] = []

    async def add(self, waiting: Callable[[], Iterable[Marked]]) -> None:
        """Tell the store which runs wait. Raises what it raises: then they are told again.

        ``waiting``: asked once nothing else is on its way.
        """
        async with self._sending:
            runs = [run for run in waiting() if run.mark is not Mark.TOLD]
            for run in runs:
                run.mark = Mark.SENT
            if runs:
                ids = tuple(run.instance_id for run in runs)
                await self._shared.request(MarkRuns(waiting=ids))
            for run in runs:
                run.mark = Mark.TOLD

    async def remove(self, run: Marked) -> bool:
        """Tell the store that a run is to work again. Those that queue up go in one message.
        Whether it may: else its queue has no place for it yet."""
        self._again.append(run)
        async with self._sending:
            while self._again:
                runs, self._again = self._again, []
                refused = await self._send_working(runs)
                for one in runs:
                    if one.instance_id not in refused:
                        one.mark = Mark.UNTOLD
        return run.mark is Mark.UNTOLD

    async def _send_working(self, runs: list[Marked]) -> Collection[str]:
        """The ids of those that may not work yet."""
        message = MarkRuns(working=tuple(one.instance_id for one in runs), held=self._held())
        while True:
            try:
                refused = (await self._shared.request(message)).refused
            except SdkError as exc:
                if not is_trouble(exc):  # the run's next save says what there is to say
                    logs.request_failed(task=MarkRuns.__name__, error=str(exc))
                    return ()
                self._trouble.goes_on(str(exc))
                await trio.sleep(AGAIN)
            else:
                self._trouble.over()
                return refused
