"""The JSON of requests and answers. Bytes are base64 in it; what is absent is left out."""

from __future__ import annotations

import msgspec

CLIENT = b"runtara-client"
"""The header by which our client tells a server of ours who it is; a core does not read it."""


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


class Told(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is answered."""


class Signal(Told, frozen=True):
    signal_type: str
    payload: bytes = b""


class CustomSignal(Told, frozen=True):
    checkpoint_id: str
    payload: bytes = b""


class Done(Told, frozen=True):
    """What says that a call was carried out, or why not."""

    success: bool = False
    error: str = ""


class CheckpointAnswer(Told, frozen=True):
    found: bool
    state: bytes = b""
    signal: Signal | None = None
    custom_signal: CustomSignal | None = None


class Signals(Told, frozen=True):
    signal: Signal | None = None
    custom_signal: CustomSignal | None = None


class Status(Told, frozen=True):
    found: bool
    status: str
    instance_id: str = ""
    checkpoint_id: str | None = None
    output: bytes | None = None
    error: str | None = None


class Input(Told, frozen=True, omit_defaults=False):
    found: bool
    instance_id: str = ""
    input: bytes | None = None


class Refusal(Told, frozen=True, kw_only=True):
    code: str = ""
    error: str
