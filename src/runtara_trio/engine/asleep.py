"""``on_sleep="exit"``: a run that only sleeps ends, and whoever starts it again at the time to wake
has it go on.

Such a one is a runtara-environment: it starts the program of a suspended instance again when its
time has come. A wait for a signal is none of these: nobody would start the program for it.
"""

from __future__ import annotations

import trio

from ..messages import Next
from ..types import RunState
from .block import Block
from .signals import Cause

EXIT_FROM = 10.0
"""Seconds that are left of a sleep from which on its program ends. A shorter one is waited for: an
environment looks every five seconds who is to be started."""

LOOK = 0.25
"""Seconds between two looks at what the tasks of a run wait for."""


async def end_asleep(block: Block) -> None:
    """End the run once all its tasks sleep. Runs until the run has ended."""
    while not (block.state.ended or block.scope.cancel_called):
        due_ms = _sleeps_until(block)
        if due_ms is not None and due_ms / 1000 - block.shared.clock.now() >= EXIT_FROM:
            block.unload(Next(state=RunState.TIMED, due_ms=due_ms), Cause.SLEEP)
            return
        await trio.sleep(LOOK)


def _sleeps_until(block: Block) -> int | None:
    """When the first of its sleeps ends, Unix ms; None: something works, or waits for more than a
    time."""
    waits = block.unloadable() if block.state.registered else None
    if waits is None or not all(wait.is_sleep for wait in waits):
        return None
    return min(wait.until_ms for wait in waits if wait.until_ms is not None)
