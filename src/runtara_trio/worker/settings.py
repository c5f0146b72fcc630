"""What a worker is given, and what it tells of itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import msgspec

from ..codec import Codec
from ..sdk.schedules import Schedule
from ..sdk.workflow import AnyWorkflow
from ..types import Queue


class WorkerHealth(msgspec.Struct, frozen=True, kw_only=True):
    """How a worker is. Times are aware, in UTC."""

    last_look: datetime
    """When the store last answered what there is to do."""
    last_turn: datetime
    """When it last asked; on a store of its own process it asks only at news."""
    oldest_boundary: datetime | None
    """Since when its oldest run has not reached a boundary; None: nothing works."""
    loaded: int
    """Runs in memory, those that wait among them."""
    slots: int
    """How many may work at once."""
    working: int
    """How many do."""
    draining: bool


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The arguments of ``open_worker``, checked."""

    workflows: Mapping[tuple[str, int], AnyWorkflow]
    """By name and version."""
    queues: tuple[str, ...]
    declared: tuple[Queue, ...]
    """Those whose limits it stores."""
    schedules: tuple[Schedule, ...]
    """Those that it declares."""
    slots: int
    max_loaded: int
    name: str
    tenant_ids: tuple[str, ...] | None
    drain_timeout: float
    max_recoveries: int
    stop_signals: tuple[int, ...]
    codec: Codec


def time_of(seconds: float) -> datetime:
    """A wall time, in UTC."""
    return datetime.fromtimestamp(seconds, UTC)


def workflows_of(
    workflows: Sequence[AnyWorkflow], versions: Mapping[str, Sequence[int]]
) -> dict[tuple[str, int], AnyWorkflow]:
    """By name and version, older versions that a function still runs among them."""
    found: dict[tuple[str, int], AnyWorkflow] = {}
    for one in workflows:
        for version in (one.version, *versions.get(one.name, ())):
            found.setdefault((one.name, version), one)
    return found
