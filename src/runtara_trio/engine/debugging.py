"""The steps of a run as pairs of custom events, for Runtara's own tools: ``history="core"``.

``step_debug_start`` and ``step_debug_end`` are what programs of a runtara-environment write, and
what its lists of steps are made of. They go out one after the other beside the steps, which do not
wait for them; the last ones before the run's outcome.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import msgspec
import trio

from .. import logs
from ..errors import LeaseLost, SdkError
from ..ids import STEP_BEGINS
from ..messages import RecordEvent
from ..types import EventType, StepKind
from .services import SharedBackend
from .state import State

MOST = 2000
"""Events that wait to be sent: where steps come faster than they are written, some are left out."""


class DebugEvents:
    """Those of one run."""

    __slots__ = ("_left_out", "_queued", "_sending", "_shared", "_state")

    def __init__(self, state: State, shared: SharedBackend) -> None:
        self._state = state
        self._shared = shared
        self._queued: deque[RecordEvent] = deque()
        self._sending = trio.Lock()
        self._left_out = 0

    def add(
        self,
        subtype: str,
        id: str,
        kind: StepKind,
        name: str,
        scopes: tuple[str | None, str | None],
        **more: Any,
    ) -> None:
        """A step begins or ends; ``scopes``: what is around it, and around that."""
        if not self._state.is_writable:
            return
        if len(self._queued) >= MOST:
            self._left_out += 1
            return
        payload = {
            "step_id": id,
            "step_name": name or id,
            "step_type": kind.value,
            "scope_id": scopes[0],
            "parent_scope_id": scopes[1],
            **more,
        }
        self._queued.append(
            RecordEvent(
                instance_id=self._state.instance_id,
                lease=self._state.lease,
                type=EventType.CUSTOM,
                subtype=subtype,
                payload=msgspec.json.encode(payload),
            )
        )
        if not self._sending.locked():
            self._shared.start_soon(self.send)

    async def send(self) -> None:
        """Send what is queued. One that is refused is left out: people miss a line."""
        async with self._sending:
            while self._queued:
                try:
                    await self._shared.request(self._queued.popleft())
                except LeaseLost:
                    self._queued.clear()
                except SdkError as exc:
                    logs.request_failed(task=STEP_BEGINS, error=str(exc))

    async def close(self, timeout: float) -> None:
        """Send what is left, before the outcome; within ``timeout`` seconds."""
        with trio.move_on_after(timeout):
            await self.send()
        left_out, self._left_out = self._left_out + len(self._queued), 0
        self._queued.clear()
        if left_out:
            logs.request_failed(task=STEP_BEGINS, error=f"{left_out} events of steps were left out")
