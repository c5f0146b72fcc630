"""The JSON of operators' calls, as runtara-environment has them.

Times are Unix ms; what is absent is left out.
"""

from __future__ import annotations

from .bodies import Body, Told


class SendSignal(Body, frozen=True, kw_only=True):
    signal_type: str
    payload: str | None = None


class SendCustomSignal(Body, frozen=True, kw_only=True):
    checkpoint_id: str
    payload: str | None = None


class Summary(Told, frozen=True, kw_only=True):
    instance_id: str
    tenant_id: str
    status: str
    created_at_ms: int
    started_at_ms: int | None = None
    finished_at_ms: int | None = None
    has_error: bool


class Instances(Told, frozen=True, kw_only=True, omit_defaults=False):
    instances: list[Summary]
    total_count: int


class Instance(Told, frozen=True, kw_only=True):
    found: bool
    instance_id: str = ""
    status: str | None = None
    tenant_id: str | None = None
    checkpoint_id: str | None = None
    created_at_ms: int | None = None
    started_at_ms: int | None = None
    finished_at_ms: int | None = None
    output: bytes | None = None
    input: bytes | None = None
    error: str | None = None
    termination_reason: str | None = None
    exit_code: int | None = None


class CheckpointSummary(Told, frozen=True, kw_only=True, omit_defaults=False):
    checkpoint_id: str
    instance_id: str
    created_at_ms: int
    data_size_bytes: int


class Checkpoints(Told, frozen=True, kw_only=True, omit_defaults=False):
    checkpoints: list[CheckpointSummary]
    total_count: int
    limit: int
    offset: int


class Checkpoint(Told, frozen=True, kw_only=True):
    found: bool
    checkpoint_id: str
    instance_id: str
    created_at_ms: int = 0
    data: bytes | None = None


class Event(Told, frozen=True, kw_only=True):
    id: int
    instance_id: str
    event_type: str
    created_at_ms: int
    checkpoint_id: str | None = None
    payload: bytes | None = None
    subtype: str | None = None


class Events(Told, frozen=True, kw_only=True, omit_defaults=False):
    events: list[Event]
    total_count: int
    limit: int
    offset: int


class Step(Told, frozen=True, kw_only=True):
    step_id: str
    step_type: str
    status: str
    started_at_ms: int
    step_name: str | None = None
    completed_at_ms: int | None = None
    duration_ms: int | None = None
    inputs: object = None
    outputs: object = None
    error: object = None
    scope_id: str | None = None
    parent_scope_id: str | None = None


class Steps(Told, frozen=True, kw_only=True, omit_defaults=False):
    steps: list[Step]
    total_count: int
    limit: int
    offset: int
