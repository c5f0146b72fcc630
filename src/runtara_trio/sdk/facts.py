"""What the SDK says of its instance and its block."""

from __future__ import annotations

from ..engine.block import Block
from ..errors import SdkError
from ..ids import step_key
from ..types import Outcome


class Facts:
    """What is known of an instance that runs; no call to the backend."""

    def __init__(self, block: Block, checkpoint_id: str | None) -> None:
        self._block = block
        self._checkpoint_id = checkpoint_id

    @property
    def instance_id(self) -> str:
        """The id of the instance that runs."""
        return self._block.instance_id

    @property
    def tenant_id(self) -> str:
        """The id of the tenant that the instance belongs to."""
        return self._block.tenant_id

    @property
    def parent_id(self) -> str | None:
        """The id of the instance that this one is a child of; None: it is not a child."""
        return self._block.state.parent_id

    @property
    def checkpoint_id(self) -> str | None:
        """The checkpoint that the start named to resume from; None: it named no checkpoint."""
        return self._checkpoint_id

    @property
    def is_registered(self) -> bool:
        """Whether the instance was registered by this block."""
        return self._block.state.registered

    @property
    def is_writable(self) -> bool:
        """Whether writing calls are taken, being registered and with no outcome recorded yet."""
        return self._block.state.is_writable

    @property
    def is_connected(self) -> bool:
        """Whether calls can be made: the block has not ended. It says nothing of a network."""
        return not self._block.state.ended

    @property
    def heartbeat_interval_ms(self) -> int:
        """Milliseconds between two automatic heartbeats; 0: there are no automatic ones."""
        return self._block.shared.config.heartbeat_interval_ms

    @property
    def outcome(self) -> Outcome | None:
        """How the block ended; None before its end and where nothing was registered."""
        return self._block.outcome

    @property
    def pause_requested(self) -> bool:
        """A pause was asked and not withdrawn; the next boundary parks."""
        return self._block.boundary.pause_requested

    @property
    def cancel_requested(self) -> bool:
        """An operator's cancel has reached the body. Clean-up can tell it from a pause and
        from a local stop, after which the program goes on some day."""
        return self._block.signals.cancel_requested

    @property
    def step_key(self) -> str:
        """A key for the other side's idempotency, made of instance id and the step's checkpoint id.

        Raises:
          SdkError: outside a step, or in one without an id.
        """
        key = self._block.boundary.step_key
        if key is None:
            raise SdkError("step_key is known inside 'async with sdk.step(checkpoint_id)' only")
        return step_key(self.instance_id, key)
