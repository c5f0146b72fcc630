"""What rows say, whichever database they are in."""

from __future__ import annotations

from ..errors import ConfigError
from ..types import EventType, InstanceStatus, Signal, SignalType


def is_ours(status: InstanceStatus, same_start: object, *, leased: bool) -> bool:
    """Whether a register of ours started an instance last, not a runtara-core.

    Args:
      same_start: the row's started_at is the one that our register wrote.
      leased: it has a lease; a running one without is core's.
    """
    return bool(same_start) and (leased or status is not InstanceStatus.RUNNING)


def status_of(text: str) -> InstanceStatus:
    try:
        return InstanceStatus(text)
    except ValueError:
        return InstanceStatus.UNKNOWN


def event_type(text: str) -> EventType | str:
    try:
        return EventType(text)
    except ValueError:
        return text  # of a later runtara


def as_bytes(value: object) -> bytes:
    """A BLOB column: NULL is nothing, and a text or a number is what somebody wrote by hand."""
    if isinstance(value, bytes):
        return value
    return b"" if value is None else str(value).encode()


def signal_of(kind: str | None, payload: bytes | str | None) -> Signal | None:
    """A row of pending_signals; a type that runtara-core does not know either is nothing."""
    try:
        return None if kind is None else Signal(SignalType(kind), as_bytes(payload))
    except ValueError:
        return None


def invalid_cursor(cursor: str) -> ConfigError:
    """The error of a page whose ``before`` no earlier page has given."""
    return ConfigError(f"before must be the next of an earlier page, not {cursor!r}")
