"""The messages of the instance protocol, as plain structs.

They say what is on the wire and no more: what a call means to an instance is decided in
``quic``. Names and fields are the protocol's. ``None`` in an optional field means that it
is not there, which is not the same as empty. Times are Unix milliseconds.
"""

from __future__ import annotations

import enum

import msgspec


class InstanceEventType(enum.IntEnum):
    HEARTBEAT = 0
    COMPLETED = 2
    FAILED = 3
    SUSPENDED = 4
    CUSTOM = 5


class SignalType(enum.IntEnum):
    CANCEL = 0
    PAUSE = 1
    RESUME = 2


class InstanceStatus(enum.IntEnum):
    UNKNOWN = 0
    PENDING = 1
    RUNNING = 2
    SUSPENDED = 3
    COMPLETED = 4
    FAILED = 5
    CANCELLED = 6


class Call(msgspec.Struct, frozen=True):
    """What a client sends."""


class Answer(msgspec.Struct, frozen=True):
    """What a server sends back."""


class RpcError(Answer, frozen=True):
    code: str = ""
    message: str = ""


class RegisterInstance(Call, frozen=True):
    instance_id: str = ""
    tenant_id: str = ""
    checkpoint_id: str | None = None


class RegisterInstanceAnswer(Answer, frozen=True):
    success: bool = False
    error: str = ""


class Signal(msgspec.Struct, frozen=True):
    instance_id: str = ""
    signal_type: int = 0
    payload: bytes = b""


class CustomSignal(msgspec.Struct, frozen=True):
    checkpoint_id: str = ""
    payload: bytes = b""


class Checkpoint(Call, frozen=True):
    instance_id: str = ""
    checkpoint_id: str = ""
    state: bytes = b""


class CheckpointAnswer(Answer, frozen=True):
    found: bool = False
    state: bytes = b""
    pending_signal: Signal | None = None
    custom_signal: CustomSignal | None = None


class GetCheckpoint(Call, frozen=True):
    instance_id: str = ""
    checkpoint_id: str = ""


class GetCheckpointAnswer(Answer, frozen=True):
    found: bool = False
    state: bytes = b""


class Sleep(Call, frozen=True):
    instance_id: str = ""
    duration_ms: int = 0
    checkpoint_id: str = ""
    state: bytes = b""


class SleepAnswer(Answer, frozen=True):
    pass


class InstanceEvent(Call, frozen=True):
    instance_id: str = ""
    event_type: int = 0
    checkpoint_id: str | None = None
    payload: bytes = b""
    timestamp_ms: int = 0
    subtype: str | None = None


class InstanceEventAnswer(Answer, frozen=True):
    success: bool = False
    error: str | None = None


class InstanceEventBatch(Call, frozen=True):
    events: tuple[InstanceEvent, ...] = ()


class RetryAttempt(Call, frozen=True):
    instance_id: str = ""
    checkpoint_id: str = ""
    attempt_number: int = 0
    timestamp_ms: int = 0
    error_message: str | None = None


class SignalAck(Call, frozen=True):
    instance_id: str = ""
    signal_type: int = 0
    acknowledged: bool = False


class PollSignals(Call, frozen=True):
    instance_id: str = ""
    checkpoint_id: str | None = None


class PollSignalsAnswer(Answer, frozen=True):
    signal: Signal | None = None
    custom_signal: CustomSignal | None = None


class GetInstanceStatus(Call, frozen=True):
    instance_id: str = ""


class GetInstanceStatusAnswer(Answer, frozen=True):
    instance_id: str = ""
    status: int = 0
    checkpoint_id: str | None = None
    started_at_ms: int = 0
    finished_at_ms: int | None = None
    output: bytes | None = None
    error: str | None = None


UNANSWERED = (InstanceEventBatch, RetryAttempt, SignalAck)
"""Calls that the server ends without an answer."""
