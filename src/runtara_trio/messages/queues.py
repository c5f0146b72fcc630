"""What is asked of queues: what they allow, and whether they stand still."""

from __future__ import annotations

from typing import ClassVar

import msgspec

from ..types import Queue, QueueInfo
from .base import Action, Done, Request


class SetQueues(Action[Done], frozen=True, kw_only=True):
    """Store what queues allow; from now on that counts for all workers."""

    verb: ClassVar[str] = "set_queue"
    makes: ClassVar[bool] = True
    queues: tuple[Queue, ...]


class PauseQueue(Action[Done], frozen=True, kw_only=True):
    """Claim nothing from a queue any more, or claim again. Refused with SdkError."""

    verb: ClassVar[str] = "pause_queue"
    makes: ClassVar[bool] = True
    name: str
    paused: bool


class Queues(msgspec.Struct, frozen=True, kw_only=True):
    queues: tuple[QueueInfo, ...]
    """By name."""


class ListQueues(Request[Queues], frozen=True, kw_only=True):
    """Those that are stored, and those that have something ready."""

    verb: ClassVar[str] = "queues"
    writes: ClassVar[bool] = False
