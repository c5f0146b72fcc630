"""The result of a checkpoint."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from ..codec import Codec, decode, is_bound
from ..messages import CheckpointReply
from ..types import CustomSignal, Signal, SignalType

T = TypeVar("T")


class CheckpointResult(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to :meth:`RuntaraSdk.checkpoint`."""

    checkpoint_id: str
    found: bool
    """The checkpoint was there before: its state stands, and the given state is ignored."""
    state: bytes
    """The state that was there; empty where the id was new."""
    pending_signal: Signal | None = None
    custom_signal: CustomSignal | None = None
    """A signal sent to this checkpoint id; saved, so that a replay gets it too."""
    standing: bytes
    """The state that stands under the id now, whoever saved it."""
    codec: Codec

    @property
    def existing_state(self) -> bytes | None:
        """The state that was there, or None."""
        return self.state if self.found else None

    def decode(self, type: type[T]) -> T:
        """The state that stands under the id now, as a ``type``.

        Raises:
          CodecError: the state is not a ``type``.
        """
        return decode(self.codec, f"checkpoint {self.checkpoint_id!r}", self.standing, type)

    @property
    def should_cancel(self) -> bool:
        """A cancel signal waits."""
        return self.pending_signal is not None and self.pending_signal.type is SignalType.CANCEL

    @property
    def should_pause(self) -> bool:
        """A pause signal waits."""
        return self.pending_signal is not None and self.pending_signal.type is SignalType.PAUSE

    @property
    def should_exit(self) -> bool:
        """A cancel or a pause waits."""
        return self.should_cancel or self.should_pause


def made_result(
    checkpoint_id: str,
    reply: CheckpointReply,
    data: bytes,
    codec: Codec,
    signal: CustomSignal | None,
) -> CheckpointResult:
    """The result of a checkpoint whose state is ``data``, by the codec of its place; ``signal``: as
    it was sent.

    Raises:
      CodecError: what stands there cannot be read.
    """
    state = reply.state
    if is_bound(codec):  # what is handed out as bytes is what the program has saved
        name = f"checkpoint {checkpoint_id!r}"
        state = decode(codec, name, state, bytes) if reply.found else state
    return CheckpointResult(
        checkpoint_id=checkpoint_id,
        found=reply.found,
        state=state,
        pending_signal=reply.pending_signal,
        custom_signal=signal,
        standing=reply.state if reply.found else data,
        codec=codec,
    )
