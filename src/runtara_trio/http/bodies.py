"""The JSON of requests and answers. Bytes are base64 in it; what is absent is left out."""

from __future__ import annotations

import msgspec


class Body(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is sent."""


class Register(Body, frozen=True, kw_only=True):
    tenant_id: str
    checkpoint_id: str | None = None


class Checkpoint(Body, frozen=True, kw_only=True):
    checkpoint_id: str
    state: bytes


class Sleep(Body, frozen=True, kw_only=True):
    duration_ms: int
    checkpoint_id: str
    state: bytes


class Event(Body, frozen=True, kw_only=True):
    event_type: str
    checkpoint_id: str | None = None
    payload: bytes = b""
    subtype: str | None = None


class Retry(Body, frozen=True, kw_only=True):
    checkpoint_id: str
    attempt: int
    error_message: str | None = None


class Ack(Body, frozen=True, kw_only=True):
    signal_type: str


class Signal(msgspec.Struct, frozen=True):
    signal_type: str
    payload: bytes = b""


class CustomSignal(msgspec.Struct, frozen=True):
    checkpoint_id: str
    payload: bytes = b""


class Done(msgspec.Struct, frozen=True):
    """What says that a call was carried out, or why not."""

    success: bool = False
    error: str = ""


class CheckpointAnswer(msgspec.Struct, frozen=True):
    found: bool
    state: bytes = b""
    signal: Signal | None = None
    custom_signal: CustomSignal | None = None


class Signals(msgspec.Struct, frozen=True):
    signal: Signal | None = None
    custom_signal: CustomSignal | None = None


class Status(msgspec.Struct, frozen=True):
    status: str
    found: bool = True
    checkpoint_id: str | None = None
    output: bytes | None = None
    error: str | None = None


class Input(msgspec.Struct, frozen=True):
    found: bool
    input: bytes | None = None


class Refusal(msgspec.Struct, frozen=True):
    error: str
    code: str = ""
