"""What is asked of schedules: storing them, and running their slots."""

from __future__ import annotations

from typing import ClassVar

import msgspec

from ..types import ScheduleInfo
from .base import Action, Done, Request
from .runs import NewRun


class SetSchedules(Action[Done], frozen=True, kw_only=True):
    """Store schedules. Where the line of one has not changed, its next slot stays."""

    verb: ClassVar[str] = "set_schedule"
    makes: ClassVar[bool] = True
    schedules: tuple[ScheduleInfo, ...]


class Fired(msgspec.Struct, frozen=True, kw_only=True):
    done: bool
    """False: somebody else has run these slots, or the schedule has changed."""
    started: tuple[str, ...] = ()
    skipped: int = 0
    """Slots that were not run for the overlap."""
    taken: tuple[str, ...] = ()
    """Ids that another workflow's instance has."""


class FireSchedule(Request[Fired], frozen=True, kw_only=True):
    """Run slots of a schedule, whoever comes first."""

    verb: ClassVar[str] = "fire"
    makes: ClassVar[bool] = True
    name: str
    due_ms: int
    """The slot that was next when this was sent."""
    next_ms: int
    """The one that is next from then on."""
    runs: tuple[NewRun, ...]
    """The oldest first."""
    skipped: int
    """Slots that were missed for too long."""


class PauseSchedule(Action[Done], frozen=True, kw_only=True):
    """Run no slots any more, or those from ``next_ms`` on. Refused with SdkError."""

    verb: ClassVar[str] = "pause_schedule"
    name: str
    paused: bool
    next_ms: int | None = None


class RemoveSchedule(Action[Done], frozen=True, kw_only=True):
    """Refused with SdkError."""

    verb: ClassVar[str] = "remove_schedule"
    name: str


class Schedules(msgspec.Struct, frozen=True, kw_only=True):
    schedules: tuple[ScheduleInfo, ...]
    """By name."""


class ListSchedules(Request[Schedules], frozen=True, kw_only=True):
    verb: ClassVar[str] = "schedules"
    writes: ClassVar[bool] = False
