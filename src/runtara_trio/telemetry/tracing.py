"""The traces of one backend: where the contexts of runs are kept, and which runs wait for long."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

import trio
from opentelemetry.trace import Tracer

from .. import logs
from ..errors import SdkError
from ..messages import ListTraces, NoteTraces, Request, Trace
from ..tasks import RepeatedEvent
from .spans import RunSpans

LONG = 60.0
"""Seconds of waiting after which no span is open."""

CHECK = 5.0
"""Seconds between two looks for that."""


class Tracing:
    """Begins the spans of runs."""

    def __init__(
        self, tracer: Tracer, request: Callable[[Request[Any]], Awaitable[Any]], *, kept: bool
    ) -> None:
        """``kept``: the backend keeps contexts; else runs are not linked."""
        self._tracer = tracer
        self._request = request
        self._kept = kept
        self._unsaid: list[tuple[str, int, str]] = []
        self._begun = RepeatedEvent()
        self._waiting: dict[RunSpans, None] = {}
        self._more = RepeatedEvent()

    async def known(self, instance_ids: Iterable[str]) -> Mapping[str, Trace]:
        """What the store knows of the traces of instances."""
        ids = tuple(instance_ids)
        if not (self._kept and ids):
            return {}
        try:
            found: Mapping[str, Trace] = (await self._request(ListTraces(instance_ids=ids))).traces
        except SdkError as exc:  # a link is missing, and no more
            logs.request_failed(task=ListTraces.__name__, error=str(exc))
            return {}
        return found

    def begin(
        self,
        name: str,
        instance_id: str,
        lease: int,
        known: Trace | None,
        *,
        claimed: bool,
        all_wait: Callable[[], bool],
        is_held: Callable[[], bool],
        **attributes: Any,
    ) -> RunSpans:
        """A run begins; see :class:`RunSpans`."""
        run = RunSpans(
            self._tracer,
            name,
            known or Trace(),
            claimed=claimed,
            all_wait=all_wait,
            is_held=is_held,
            instance_id=instance_id,
            lease=lease,
            **attributes,
        )
        run.on_wait = lambda: self._waits(run)
        if self._kept and (text := run.text):
            self._unsaid.append((instance_id, lease, text))
            self._begun.set()
        return run

    def _waits(self, run: RunSpans) -> None:
        self._waiting[run] = None
        self._more.set()

    async def note(self) -> None:
        """Keep the contexts of runs, for those after them. Runs until cancelled."""
        while True:
            while not self._unsaid:
                await self._begun.wait()
            unsaid, self._unsaid = self._unsaid, []
            try:
                await self._request(NoteTraces(runs=tuple(unsaid)))
            except SdkError:
                self._unsaid[:0] = unsaid
                raise

    async def watch_waits(self) -> None:
        """End the spans of what waits for long. Runs until cancelled."""
        while True:
            while not self._waiting:
                await self._more.wait()
            await trio.sleep(CHECK)
            before = trio.current_time() - LONG
            for run in [*self._waiting]:
                if run.put_away(before):
                    del self._waiting[run]
