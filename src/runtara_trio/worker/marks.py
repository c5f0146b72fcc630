"""Which runs wait, as the store is told: a death of their worker does not count for them.

The messages go one after the other: two that cross would leave a run that works marked.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable
from typing import Protocol

import trio

from .. import logs
from ..engine.services import SharedBackend
from ..errors import SdkError
from ..messages import MarkRuns


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

    def __init__(self, shared: SharedBackend) -> None:
        self._shared = shared
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

    async def remove(self, run: Marked) -> None:
        """Tell the store that a run works again. Those that queue up go in one message."""
        self._again.append(run)
        async with self._sending:
            runs, self._again = self._again, []
            for one in runs:
                one.mark = Mark.UNTOLD
            try:
                if runs:
                    ids = tuple(one.instance_id for one in runs)
                    await self._shared.request(MarkRuns(working=ids))
            except SdkError as exc:  # the run's next save says what there is to say
                logs.request_failed(task=MarkRuns.__name__, error=str(exc))
