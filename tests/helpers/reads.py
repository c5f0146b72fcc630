"""An instance whose checkpoints are read, without a store: what was asked for is kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import trio

from runtara_trio.messages import CheckpointPage, GetCheckpoint, ReadCheckpoints, StoredState
from runtara_trio.types import CheckpointRecord


class Reads:
    """The reads of one instance's checkpoints, answered as a store answers them."""

    def __init__(self, states: Mapping[str, bytes]) -> None:
        self.states = dict(states)
        self.requests: list[Any] = []

    async def request(self, message: Any) -> Any:
        """A page or one checkpoint; the request is kept."""
        await trio.lowlevel.checkpoint()
        self.requests.append(message)
        if isinstance(message, GetCheckpoint):
            state = self.states.get(message.checkpoint_id)
            return StoredState(found=state is not None, state=state or b"")
        assert isinstance(message, ReadCheckpoints)
        after = message.after or ""
        left = [name for name in self.states if name.startswith(message.prefix) and name > after]
        return CheckpointPage(
            checkpoints=tuple(
                CheckpointRecord(
                    checkpoint_id=name,
                    state=b"" if message.ids_only else self.states[name],
                    created_at=None,
                )
                for name in sorted(left)[: message.limit]
            ),
            more=len(left) > message.limit,
        )

    def asked(self) -> list[str]:
        """What was asked for since the last look: an id, or of a page ``prefix>after``."""
        asked = [
            message.checkpoint_id
            if isinstance(message, GetCheckpoint)
            else f"{message.prefix}>{message.after or ''}"
            for message in self.requests
        ]
        self.requests.clear()
        return asked
