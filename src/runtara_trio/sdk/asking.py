"""What asks a backend, for itself or for somebody."""

from __future__ import annotations

import msgspec

from ..backend import Backend
from ..clock import default_clock
from ..engine.services import SharedBackend
from ..messages import Action, ReplyT, Request


class Asking:
    """Something with a backend."""

    _backend: Backend
    _who: str | None = None
    """Who asks, for the audit; None: a program, of which nothing is noted there."""

    async def _request(self, message: Request[ReplyT]) -> ReplyT:
        if self._who is not None and isinstance(message, Action):
            message = msgspec.structs.replace(message, who=self._who)
        return await self._backend.request(message)

    def _now(self) -> float:
        backend = self._backend
        clock = backend.clock if isinstance(backend, SharedBackend) else default_clock()
        return clock.now()
