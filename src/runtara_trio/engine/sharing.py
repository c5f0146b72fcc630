"""Two tasks that call one durable function with one key share one run of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any

import trio

from ..errors import SdkError
from .boundary import Boundary


class Run:
    """A call that is being made."""

    __slots__ = ("checkpoint_id", "done", "error", "made", "value", "waits_for")

    def __init__(self, checkpoint_id: str) -> None:
        self.checkpoint_id = checkpoint_id
        self.done = trio.Event()
        self.made = False
        """False at its end: it was cancelled, and somebody else has to make it."""
        self.value: Any = None
        self.error: Exception | None = None
        self.waits_for: list[Run] = []
        """What tasks inside it wait for."""


_inside: ContextVar[tuple[Run, ...]] = ContextVar("runtara_trio_runs", default=())


class Runs:
    """The calls that one block is making, by checkpoint id."""

    __slots__ = ("_boundary", "_running")

    def __init__(self, boundary: Boundary) -> None:
        self._boundary = boundary
        self._running: dict[str, Run] = {}

    async def share(self, checkpoint_id: str, call: Callable[[], Awaitable[Any]]) -> Any:
        """Make the call, or wait for the one who makes it.

        Raises:
          SdkError: the call would wait for itself.
        """
        while (run := self._running.get(checkpoint_id)) is not None:
            await self._wait(run)
            if run.error is not None:
                raise run.error
            if run.made:
                return run.value
        run = self._running[checkpoint_id] = Run(checkpoint_id)
        inside = _inside.get()
        _inside.set((*inside, run))
        try:
            run.value = await call()
            run.made = True
            return run.value
        except Exception as exc:
            run.error = exc
            raise
        finally:
            _inside.set(inside)
            del self._running[checkpoint_id]
            run.done.set()

    async def _wait(self, run: Run) -> None:
        around = [one for one in _inside.get() if not one.done.is_set()]
        if _leads_to(run, around):
            raise SdkError(
                f"the durable call {run.checkpoint_id!r} waits for itself: it was called again, "
                "with the same key, from inside its own run"
            )
        for one in around:
            one.waits_for.append(run)
        try:
            with self._boundary.waiting(), self._boundary.collecting():
                await run.done.wait()
        finally:
            for one in around:
                one.waits_for.remove(run)


def _leads_to(run: Run, wanted: list[Run]) -> bool:
    """Whether a run is one of these, or waits for one."""
    return run in wanted or any(_leads_to(one, wanted) for one in run.waits_for)
