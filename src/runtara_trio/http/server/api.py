"""An application of calls behind a guard."""

from __future__ import annotations

from .guard import Guard
from .messages import Head, Refused, Reply
from .routes import HandlerT, Routes


class Api:
    """What the applications of this package share: their heads are looked at in one way."""

    def __init__(self, guard: Guard, routes: Routes[HandlerT]) -> None:
        self._guard = guard
        self._routes = routes

    def refuses(self, head: Head) -> Reply | None:
        """What answers a request by its head alone, if anything does."""
        refusal = self._guard.refuses(head)
        if refusal is not None:
            return refusal
        try:
            head.found = self._routes.find(head)
        except Refused as exc:
            return exc.reply
        return None

    def kept_waiting(self, head: Head) -> None:
        """Nothing is kept for who waits."""
