"""What rows say, whichever database they are in."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from ..errors import ConfigError
from ..types import EventType, InstanceStatus, Signal, SignalType
from .tables import Listed, Row


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


def row_of(
    tenant_id: str,
    status: str,
    epoch: int | None,
    owner: str | None,
    same_start: object,
    signal_type: str | None,
    signal_payload: bytes | str | None,
    output: bytes | None,
    error: str | None,
    ended: int | None = None,
) -> Row:
    """What decides about an instance, of columns in this order."""
    known = status_of(status)
    return Row(
        tenant_id=tenant_id,
        status=known,
        epoch=epoch,
        owner=owner,
        ours=is_ours(known, same_start, leased=epoch is not None),
        signal=signal_of(signal_type, signal_payload),
        output=output,
        error=error,
        ended=ended,
    )


def listed_of(
    instance_id: str,
    tenant_id: str,
    status: str,
    checkpoint_id: str | None,
    times: Iterable[datetime | None],
    owner: str | None,
    signal_type: str | None,
    same_start: object,
) -> Listed:
    """One instance in a list. ``times``: created, started, finished, sleeps until."""
    created, started, finished, sleeps = times
    known = status_of(status)
    signal = signal_of(signal_type, None)
    return Listed(
        instance_id=instance_id,
        tenant_id=tenant_id,
        status=known,
        owner=owner,
        ours=is_ours(known, same_start, leased=owner is not None),
        checkpoint_id=checkpoint_id,
        created_at=created,
        started_at=started,
        finished_at=finished,
        sleep_until=sleeps,
        signal=None if signal is None else signal.type,
    )


def invalid_cursor(cursor: str) -> ConfigError:
    """The error of a page whose ``before`` no earlier page has given."""
    return ConfigError(f"before must be the next of an earlier page, not {cursor!r}")
