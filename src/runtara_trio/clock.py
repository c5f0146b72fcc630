"""Wall time, and the check of durations that users give.

Waits are Trio's; what must outlive the process (wake times) is wall time and comes from
a :class:`Clock`. Under ``trio.testing.MockClock`` the default wall clock follows the
mocked time, so that a durable sleep of a week takes no longer than a plain one.
"""

from __future__ import annotations

import math
import sys
import time
from datetime import UTC, datetime, timedelta
from typing import Protocol

import trio

from .errors import ConfigError

Seconds = float | timedelta
"""A duration that a user gives: seconds, or a ``timedelta``."""

_LONGEST = 1e11  # seconds; 3,000 years, so that milliseconds fit eight bytes with room


class Clock(Protocol):
    """Where the SDK reads wall time."""

    def now(self) -> float:
        """Seconds since 1970-01-01 UTC."""


class SystemClock:
    """The computer's wall clock."""

    def now(self) -> float:
        """Seconds since 1970-01-01 UTC."""
        return time.time()


class TrioClock:
    """A wall clock that starts at the real time, or a given one, and then goes as Trio's
    clock goes."""

    def __init__(self, start: float | None = None) -> None:
        self._offset = (time.time() if start is None else start) - trio.current_time()

    def now(self) -> float:
        return self._offset + trio.current_time()


def is_steady(clock: Clock) -> bool:
    """Whether a wall clock goes as Trio's: it does not jump, and mocked time has no lag."""
    return isinstance(clock, TrioClock)


def default_clock() -> Clock:
    """The system's clock, or in a run on a MockClock one that follows it."""
    testing = sys.modules.get("trio.testing")  # not imported: then nobody mocks
    if testing is not None and isinstance(trio.lowlevel.current_clock(), testing.MockClock):
        return TrioClock()
    return SystemClock()


def milliseconds(seconds: float) -> int:
    """Unix or elapsed milliseconds, rounded up: never too early."""
    return math.ceil(seconds * 1000)


def ms_of(moment: datetime | None) -> int | None:
    """A time as Unix ms."""
    return None if moment is None else int(moment.timestamp() * 1000)


def time_of(ms: int | None) -> datetime | None:
    """The time that Unix ms of a server mean, in UTC; None: not set, or 0."""
    return datetime.fromtimestamp(ms / 1000, UTC) if ms else None


def check_seconds(name: str, value: object, *, positive: bool = False) -> float:
    """A duration in seconds: finite, and 0 or more.

    Args:
      name: what the error calls it.
      value: seconds, or a ``timedelta``.
      positive: 0 is invalid too.

    Raises:
      ConfigError: names the argument and what was given.
    """
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        raise ConfigError(f"{name} must be a number of seconds or a timedelta, not {value!r}")
    if not 0 <= seconds <= _LONGEST:  # NaN compares false
        raise ConfigError(f"{name} must be a finite number of seconds, 0 or more, not {value!r}")
    if positive and seconds == 0:
        raise ConfigError(f"{name} must be more than 0 seconds")
    return float(seconds)
