"""What goes wrong in one simulation, and when: drawn from a seed, or given."""

from __future__ import annotations

import enum
import random
from collections.abc import Iterable

import msgspec

from ...errors import ConfigError


class FleetFault(enum.StrEnum):
    """What happens to a fleet, at a message or between two."""

    WORKER_DIES = "a worker dies"
    """Before the message is carried out or after; its lease stays, or its death is seen."""
    WORKER_STOPS = "a worker is stopped"
    """And goes on after a while, which may be longer than its lease."""
    WORKER_DRAINS = "a worker drains"
    NEXT_VERSION = "a worker is replaced by the next version"
    ANSWER_LOST = "the answer to a commit is lost"
    STORE_AWAY = "the store is away"
    NEWS_LOST = "a notification is lost"
    NEWS_LATE = "a notification is late"
    NEWS_TWICE = "a notification comes twice"
    CLOCK_JUMPS = "the wall clock jumps"
    CANCEL = "an operator cancels"
    PAUSE = "an operator pauses, and resumes"
    RERUN = "an operator runs again what has ended"
    QUEUE = "an operator changes a queue"
    """Its limit; or it is paused for a while."""


class Planned(msgspec.Struct, frozen=True):
    """One fault at one message. ``draw``, from 0 to 1, decides what it leaves open."""

    at: int
    fault: FleetFault
    draw: float

    def __str__(self) -> str:
        return f"at message {self.at} {self.fault} ({self.draw:.3f})"


COUNTS = (0, 1, 1, 2, 2, 3, 4, 6, 9)
"""How many faults a simulation has."""

BEYOND = 1.3
"""Faults make more messages than there are undisturbed: so much further they may come."""


def checked_faults(faults: Iterable[FleetFault | str] | None) -> tuple[FleetFault, ...]:
    """Raises ConfigError: an unknown fault."""
    if faults is None:
        return tuple(FleetFault)
    try:
        return tuple(dict.fromkeys(FleetFault(one) for one in faults))
    except (TypeError, ValueError) as exc:
        raise ConfigError(
            f"faults must be some of {', '.join(FleetFault)}, not {faults!r}"
        ) from exc


def drawn(seed: int, faults: tuple[FleetFault, ...], messages: int) -> tuple[Planned, ...]:
    """The faults of a seed.

    Args:
      seed: the same one draws the same.
      faults: the kinds that may come.
      messages: how many a simulation without faults has.
    """
    random_ = random.Random(f"faults {seed}")
    count = random_.choice(COUNTS) if faults else 0
    last = max(1, int(messages * BEYOND))
    planned = [
        Planned(random_.randint(1, last), random_.choice(faults), round(random_.random(), 6))
        for _ in range(count)
    ]
    return tuple(sorted(planned, key=lambda one: one.at))
