"""Signals for programs that handle them themselves, as with the Rust SDK."""

from __future__ import annotations

import math

import trio

from ..engine.block import Block
from ..errors import ConfigError, InstanceCancelled, InstancePaused
from ..messages import PollSignals
from ..types import Signal, SignalType


class ManualSignals:
    """The verbs of ``signals="manual"``. They work in every block."""

    def __init__(self, block: Block) -> None:
        self._block = block
        self._next_poll = -math.inf

    async def poll_signal(self) -> Signal | None:
        """The pending signal; asks at most once every ``signal_poll_interval_ms``, and
        answers None in between."""
        self._block.state.check_open()
        if trio.current_time() < self._next_poll:
            await trio.lowlevel.checkpoint()
            return None
        return await self.poll_signal_now()

    async def poll_signal_now(self) -> Signal | None:
        """The pending cancel, pause or resume, if any; it stays until acknowledged."""
        reply = await self._block.requests.request(PollSignals(instance_id=self._block.instance_id))
        interval = self._block.shared.config.signal_poll_interval_ms / 1000
        self._next_poll = trio.current_time() + interval
        self._block.inbox.deliver(reply.signal, reply.version)
        return reply.signal

    async def acknowledge_signal(
        self, signal_type: SignalType | Signal | str, acknowledged: bool = True
    ) -> None:
        """Acknowledge the pending signal, if it is of this type.

        A cancel is recorded as cancelled at this moment; with a pause the block is
        recorded as suspended when it ends.

        Args:
          signal_type: its type, or the signal itself.
          acknowledged: False leaves it pending.

        Raises:
          ConfigError: an unknown type.
        """
        try:
            kind = SignalType(signal_type.type if isinstance(signal_type, Signal) else signal_type)
        except ValueError as exc:
            raise ConfigError(
                f"signal_type must be cancel, pause or resume, not {signal_type!r}"
            ) from exc
        self._block.state.check_writable()
        pending = (
            await self._block.requests.request(PollSignals(instance_id=self._block.instance_id))
        ).signal
        if acknowledged:
            same = pending if pending is not None and pending.type is kind else None
            await self._block.ending.acknowledge(kind, same)

    async def check_cancelled(self) -> None:
        """A checkpoint of Trio: raises Cancelled where a cancel reached the body.

        In manual mode it asks, and raises :class:`InstanceCancelled`.
        """
        if self._block.state.manual:
            signal = await self.poll_signal_now()
            if signal is not None and signal.type is SignalType.CANCEL:
                raise InstanceCancelled
        else:
            self._block.state.check_open()
            await trio.lowlevel.checkpoint()

    async def check_paused(self) -> None:
        """A boundary without a save: where a program that computes lets a pause in.

        In manual mode it asks, and raises :class:`InstancePaused`.
        """
        if self._block.state.manual:
            signal = await self.poll_signal_now()
            if signal is not None and signal.type is SignalType.PAUSE:
                raise InstancePaused
        else:
            self._block.state.check_open()
            await trio.lowlevel.checkpoint()
            await self._block.boundary.reach()
