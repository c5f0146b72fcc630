"""How an outcome gets recorded, whatever fails meanwhile.

It is tried again while trying may help. An answer that was lost is not guessed: a lease
that is gone may have gone with this very outcome, and the instance's status tells.
"""

from __future__ import annotations

import msgspec
import trio

from .. import logs
from ..errors import LeaseLost, OutcomeNotRecorded, SdkError, StoreError, Unreachable
from ..messages import GetStatus, OutcomeReply, RecordOutcome
from ..types import InstanceStatus
from .services import SharedBackend
from .state import State

RETRY = 0.2
"""Seconds between two tries."""

RETRY_LATER = 1.0
"""The same, once the block has ended without it."""


class Recorder:
    """Records one block's outcome. Its methods run in tasks of the services."""

    __slots__ = ("_instance_id", "_shared", "_state", "_timeout")

    def __init__(self, state: State, shared: SharedBackend, timeout: float) -> None:
        self._state = state
        self._shared = shared
        self._instance_id = state.instance_id
        self._timeout = timeout

    async def record(self, message: RecordOutcome) -> OutcomeReply:
        """Record an outcome, trying again what may pass.

        Raises:
          LeaseLost: see :meth:`carried_out`.
          OutcomeNotRecorded: not within the timeout.
        """
        failure: SdkError | None = None
        with trio.move_on_after(self._timeout):
            while True:
                try:
                    return await self._shared.request(message)
                except LeaseLost:
                    raise
                except SdkError as exc:
                    self._add(message.status)
                    failure = exc
                    if not _may_pass(exc):
                        break
                await trio.sleep(RETRY)
        self._add(message.status)
        raise OutcomeNotRecorded(
            f"instance {self._instance_id!r}: {message.status} could not be recorded within "
            f"{self._timeout:g} s"
            + (f": no answer{self._shared.because()}" if failure is None else f": {failure}")
            + "; its next start goes on from its last checkpoint"
        ) from failure

    async def carried_out(self) -> InstanceStatus | None:
        """The lease is gone: with an outcome of ours whose answer was lost, or to another?"""
        if not self._state.tried:
            return None
        try:
            info = await self._shared.in_time(GetStatus(instance_id=self._instance_id))
        except SdkError:
            return None
        return info.status if info.status in self._state.tried else None

    def later(self, message: RecordOutcome, failure: OutcomeNotRecorded) -> None:
        """Go on trying where the backend stays open, until it takes the outcome or the
        lease is gone. Otherwise an instance that nobody runs would be busy as long as the
        backend lives."""
        if _may_pass(failure.__cause__):
            self._shared.start_soon(self._later, message)

    async def _later(self, message: RecordOutcome) -> None:
        while True:
            await trio.sleep(RETRY_LATER)
            try:
                reply = await self._shared.request(message)
            except LeaseLost:
                return
            except SdkError as exc:
                if not _may_pass(exc):
                    raise
                continue
            if reply.cancel is not None:  # it came while the outcome could not be recorded
                message = msgspec.structs.replace(
                    message,
                    status=InstanceStatus.CANCELLED,
                    payload=b"",
                    signal=reply.cancel,
                    unless_cancelled=False,
                    next=None,
                )
            else:
                logs.recorded_late(instance_id=self._instance_id, recorded=message.status.value)
                return

    def _add(self, status: InstanceStatus) -> None:
        self._state.tried = (*self._state.tried, status)


def _may_pass(failure: BaseException | None) -> bool:
    """Whether it makes sense to try again; None: there only was no answer."""
    if isinstance(failure, StoreError):
        return failure.transient
    return failure is None or isinstance(failure, Unreachable)
