"""The protocol's numbers and the SDK's names."""

from __future__ import annotations

from ..types import InstanceStatus, Signal, SignalType
from ..wire import calls

HOLD = "runtara_trio::hold"
"""The subtype of a ``suspended`` whose program waits to go on: its lease stays."""

BUSY = "InstanceBusy:"
"""How a server of ours begins the refusal of an instance that a living owner runs."""

LEASE_LOST = "LEASE_LOST"
"""The error code of a server of ours, where another owner has the instance."""

_STATUSES = {
    calls.InstanceStatus.PENDING: InstanceStatus.PENDING,
    calls.InstanceStatus.RUNNING: InstanceStatus.RUNNING,
    calls.InstanceStatus.SUSPENDED: InstanceStatus.SUSPENDED,
    calls.InstanceStatus.COMPLETED: InstanceStatus.COMPLETED,
    calls.InstanceStatus.FAILED: InstanceStatus.FAILED,
    calls.InstanceStatus.CANCELLED: InstanceStatus.CANCELLED,
}
_STATUS_NUMBERS = {status: number for number, status in _STATUSES.items()}

_SIGNALS = {
    calls.SignalType.CANCEL: SignalType.CANCEL,
    calls.SignalType.PAUSE: SignalType.PAUSE,
    calls.SignalType.RESUME: SignalType.RESUME,
}
_SIGNAL_NUMBERS = {kind: number for number, kind in _SIGNALS.items()}

_OUTCOMES = {
    InstanceStatus.COMPLETED: calls.InstanceEventType.COMPLETED,
    InstanceStatus.FAILED: calls.InstanceEventType.FAILED,
    InstanceStatus.SUSPENDED: calls.InstanceEventType.SUSPENDED,
}
_OUTCOME_STATUSES = {number: status for status, number in _OUTCOMES.items()}


def status_of(number: int) -> InstanceStatus:
    """A status of the protocol; one that it does not know is UNKNOWN."""
    return _STATUSES.get(number, InstanceStatus.UNKNOWN)  # type: ignore[call-overload, no-any-return]


def status_number(status: InstanceStatus) -> int:
    return _STATUS_NUMBERS.get(status, calls.InstanceStatus.UNKNOWN)


def signal_of(signal: calls.Signal | None) -> Signal | None:
    """A pending signal; None where its type is unknown."""
    if signal is None:
        return None
    kind = signal_type(signal.signal_type)
    return None if kind is None else Signal(kind, signal.payload)


def signal_type(number: int) -> SignalType | None:
    return _SIGNALS.get(number)  # type: ignore[call-overload, no-any-return]


def signal_number(kind: SignalType) -> int:
    return _SIGNAL_NUMBERS[kind]


def event_type(status: InstanceStatus) -> int:
    """The event that records an outcome, of those that have one."""
    return _OUTCOMES[status]


def outcome_of(number: int) -> InstanceStatus | None:
    """The outcome that an event records; None: it records none."""
    return _OUTCOME_STATUSES.get(number)  # type: ignore[call-overload, no-any-return]
