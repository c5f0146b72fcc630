"""What an instance asks about its signals."""

from __future__ import annotations

from typing import ClassVar

import msgspec

from ..types import Signal
from .base import Done, Request


class PendingSignal(msgspec.Struct, frozen=True, kw_only=True):
    signal: Signal | None
    version: int


class PollSignals(Request[PendingSignal], frozen=True, kw_only=True):
    """The pending cancel, pause or resume; it stays until it is acknowledged."""

    verb: ClassVar[str] = "poll_signal"
    writes: ClassVar[bool] = False
    instance_id: str


class AcknowledgeSignal(Request[Done], frozen=True, kw_only=True):
    """Take a pause or resume off the instance, if exactly it still stands there.

    A cancel is acknowledged by :class:`RecordOutcome` alone: it ends the run.
    """

    verb: ClassVar[str] = "acknowledge_signal"
    instance_id: str
    lease: int
    signal: Signal


class SignalTaken(msgspec.Struct, frozen=True, kw_only=True):
    payload: bytes | None
    """None: there is no signal."""
    timed_out: bool = False
    """There will never be one: a wait for it has timed out, now or before."""


class TakeSignal(Request[SignalTaken], frozen=True, kw_only=True):
    """Take a custom signal; it is saved as a checkpoint before this answers."""

    verb: ClassVar[str] = "wait_for_signal"
    saves: ClassVar[bool] = True
    instance_id: str
    lease: int
    checkpoint_id: str
    give_up: bool = False
    """Where no signal is there, save that the wait has timed out."""


class TakeMessage(Request[SignalTaken], frozen=True, kw_only=True):
    """Take the oldest message under a name; it is saved under ``checkpoint_id`` before this
    answers."""

    verb: ClassVar[str] = "receive"
    saves: ClassVar[bool] = True
    instance_id: str
    lease: int
    name: str
    checkpoint_id: str
    give_up: bool = False
    """Where there is no message, save that the wait has timed out."""


class StopWaiting(Request[Done], frozen=True, kw_only=True):
    """No hints for this id any more: its waiter has gone."""

    verb: ClassVar[str] = "wait_for_signal"
    writes: ClassVar[bool] = False
    instance_id: str
    checkpoint_id: str
