"""What a server reads: JSON in which bytes are standard base64, padded and canonical."""

from __future__ import annotations

import binascii
from typing import Annotated, TypeVar

import msgspec

from .messages import Refused, json, text

T = TypeVar("T")


class Register(msgspec.Struct, frozen=True, kw_only=True):
    tenant_id: str
    checkpoint_id: str | None = None


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    checkpoint_id: str
    state: str


class Ack(msgspec.Struct, frozen=True, kw_only=True):
    signal_type: str


class Event(msgspec.Struct, frozen=True, kw_only=True):
    event_type: str
    checkpoint_id: str | None = None
    payload: str | None = None
    subtype: str | None = None


class Sleep(msgspec.Struct, frozen=True, kw_only=True):
    duration_ms: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
    checkpoint_id: str
    state: str


class Retry(msgspec.Struct, frozen=True, kw_only=True):
    checkpoint_id: str
    attempt: Annotated[int, msgspec.Meta(ge=0, lt=2**32)]
    error_message: str | None = None


class Wake(msgspec.Struct, frozen=True, kw_only=True):
    """The payload of a ``suspended`` that is to be woken."""

    wake_at_ms: int
    state: str


def read(body: bytes | bytearray, kind: type[T]) -> T:
    """What a request says. Raises Refused."""
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as exc:
        raise Refused(text(422, str(exc))) from exc
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise Refused(text(400, str(exc))) from exc


def decoded(data: str, what: str) -> bytes:
    """The bytes of a field. Raises Refused."""
    try:
        found = binascii.a2b_base64(data, strict_mode=True)
    except ValueError as exc:
        raise _invalid(what, str(exc)) from exc
    over = len(found) % 3
    # Bits that the padding leaves over say nothing, and must be 0.
    if over and binascii.b2a_base64(found[-over:], newline=False) != data[-4:].encode():
        raise _invalid(what, "it is not canonical")
    return found


def _invalid(what: str, why: str) -> Refused:
    error = f"{what} is no standard base64: {why}"
    return Refused(json({"code": f"INVALID_{what.upper()}", "error": error}, 400))
