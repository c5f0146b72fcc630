"""When which instance is asked for its signals.

The protocol has no news and no batch: each instance is polled by itself, but only when
nothing else has brought its signals along within the interval, and all together under one
rate. With many idle instances the delay grows, not the load.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

from ..tasks import RepeatedEvent

RATE = 200
"""Polls a second, of all instances of a client."""

Wait = tuple[str, str | None]
"""An instance, and a checkpoint id of its that somebody waits at for a custom signal."""


class Polls:
    """Who is to be polled, the longest unasked first."""

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self._asked: dict[Wait, float] = {}
        self._asking: set[Wait] = set()
        self._more = RepeatedEvent()

    def add(self, wait: Wait) -> None:
        """Poll it once an interval, from one interval on."""
        self._asked.setdefault(wait, trio.current_time())
        self._more.set()

    def remove(self, wait: Wait) -> None:
        """Not any more; what is not polled is fine."""
        self._asked.pop(wait, None)

    def answered(self, wait: Wait) -> None:
        """Something else has just brought an answer."""
        if self._asked.pop(wait, None) is not None:
            self._asked[wait] = trio.current_time()

    def __contains__(self, wait: Wait) -> bool:
        return wait in self._asked

    async def run(self, poll: Callable[[Wait], Awaitable[None]]) -> None:
        """Poll what is due. Runs until cancelled."""
        async with trio.open_nursery() as nursery:
            while True:
                while not self._asked:
                    await self._more.wait()
                wait, asked = next(iter(self._asked.items()))
                due = asked + self._interval
                if due > trio.current_time():
                    await trio.sleep_until(due)
                    continue  # it may have been answered meanwhile
                self.answered(wait)  # to the end of the queue
                if wait not in self._asking:
                    self._asking.add(wait)
                    nursery.start_soon(self._poll, poll, wait)
                    await trio.sleep(1 / RATE)

    async def _poll(self, poll: Callable[[Wait], Awaitable[None]], wait: Wait) -> None:
        try:
            await poll(wait)
        finally:
            self._asking.discard(wait)
