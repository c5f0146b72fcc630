"""Which runs wait, as the store is told: a death of their worker does not count for them, and they
hold no place of their queue.

The messages go one after the other: two that cross would leave a run that works marked.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Mapping
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

    @property
    def limited(self) -> bool:
        """Whether its queue had a limit when it was claimed."""


class Marks:
    """The marks of one worker's runs."""

    def __init__(self, shared: SharedBackend, held: Callable[[], Mapping[str, int]]) -> None:
        """``held``: by queue, how many places the worker's runs hold."""
        self._shared = shared
        self._held = held
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
                frees = any(run.limited for run in runs)
                await self._shared.request(MarkRuns(waiting=ids, frees=frees))
            for run in runs:
                run.mark = Mark.TOLD

    async def remove(self, run: Marked) -> bool:
        """Tell the store that a run is to work again. Those that queue up go in one message.
        Whether it may: else its queue has no place for it yet."""
        self._again.append(run)
        async with self._sending:
            runs, self._again = self._again, []
            if runs:
                ids = tuple(one.instance_id for one in runs)
                try:
                    message = MarkRuns(working=ids, held=self._held())
                    refused = (await self._shared.request(message)).refused
                except SdkError as exc:  # the run's next save says what there is to say
                    logs.request_failed(task=MarkRuns.__name__, error=str(exc))
                    refused = tuple(one.instance_id for one in runs if one.limited)
                for one in runs:
                    if one.instance_id not in refused:
                        one.mark = Mark.UNTOLD
        return run.mark is Mark.UNTOLD
