"""What an instance did, step by step: what is noted of it, and asked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import msgspec

from ..types import AuditRecord, StepInfo, StepKind, StepOutcome, WaitInfo
from .base import Done, Request


class StepNote(msgspec.Struct, frozen=True, kw_only=True):
    """A step of one run, as it stands. A later note of the same step takes its place."""

    step: str
    kind: StepKind
    started_ms: int
    ended_ms: int | None = None
    """Unix ms; None: it runs."""
    outcome: StepOutcome | None = None
    attempts: tuple[tuple[int, str], ...] = ()
    """When an attempt failed, Unix ms, and how."""
    parent: str | None = None
    """The step that it is inside of."""
    summary: str | None = None
    asks: str | None = None
    """Of a wait for a signal: a JSON schema."""
    worker: str = ""
    """The name of a worker; empty: the store says which process."""


class Noted(msgspec.Struct, frozen=True, kw_only=True):
    """The notes of one run."""

    instance_id: str
    lease: int
    steps: tuple[StepNote, ...]


class NoteSteps(Request[Done], frozen=True, kw_only=True):
    """Note steps that nothing else takes along. It may be lost with the machine's power."""

    verb: ClassVar[str] = "steps"
    durable: ClassVar[bool] = False
    runs: tuple[Noted, ...]


class Trace(msgspec.Struct, frozen=True, kw_only=True):
    """Of which trace an instance is a part. Contexts are texts; the store does not read them."""

    started: str | None = None
    """The context in which it was started."""
    run: str | None = None
    """That of its last run."""


class Traces(msgspec.Struct, frozen=True, kw_only=True):
    traces: Mapping[str, Trace]
    """By instance id; those of which nothing is known are left out."""


class ListTraces(Request[Traces], frozen=True, kw_only=True):
    verb: ClassVar[str] = "traces"
    writes: ClassVar[bool] = False
    makes: ClassVar[bool] = True
    instance_ids: tuple[str, ...]


class NoteTraces(Request[Done], frozen=True, kw_only=True):
    """Note the contexts of runs. It may be lost with the machine's power."""

    verb: ClassVar[str] = "traces"
    durable: ClassVar[bool] = False
    runs: tuple[tuple[str, int, str], ...]
    """Instance, lease and context."""


class Steps(msgspec.Struct, frozen=True, kw_only=True):
    steps: tuple[StepInfo, ...]
    """In the order in which they began."""
    next: tuple[int, str, int] | None
    """The ``after`` of the next page; None where this is the last."""


class ListSteps(Request[Steps], frozen=True, kw_only=True):
    """The steps of an instance; of those that nobody noted, the end."""

    verb: ClassVar[str] = "steps"
    writes: ClassVar[bool] = False
    instance_id: str
    after: tuple[int, str, int] = (-1, "", -1)
    """Unix ms, step and run of the one before."""
    limit: int = 1000


class OpenSteps(msgspec.Struct, frozen=True, kw_only=True):
    steps: tuple[tuple[str, StepInfo], ...]
    """(instance id, step), the oldest first."""


class ListOpenSteps(Request[OpenSteps], frozen=True, kw_only=True):
    """What some instances do and wait for."""

    verb: ClassVar[str] = "steps"
    writes: ClassVar[bool] = False
    instance_ids: tuple[str, ...]
    limit: int = 1000


class Waits(msgspec.Struct, frozen=True, kw_only=True):
    waits: tuple[WaitInfo, ...]
    """The oldest first."""
    next: tuple[int, str, str] | None
    """The ``after`` of the next page; None where this is the last."""


class ListWaits(Request[Waits], frozen=True, kw_only=True):
    """The waits for signals that nobody has answered."""

    verb: ClassVar[str] = "waits"
    writes: ClassVar[bool] = False
    after: tuple[int, str, str] = (-1, "", "")
    """Unix ms, instance and id of the one before."""
    limit: int = 100


class AuditPage(msgspec.Struct, frozen=True, kw_only=True):
    records: tuple[AuditRecord, ...]
    """The newest first."""
    next: int | None
    """The ``before`` of the next page; None where this is the last."""


class ListAudit(Request[AuditPage], frozen=True, kw_only=True):
    """What people have done."""

    verb: ClassVar[str] = "audit"
    writes: ClassVar[bool] = False
    instance_id: str | None = None
    """Only to this one; None: to all."""
    before: int | None = None
    limit: int = 100
