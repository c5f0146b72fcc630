"""The seam: what a backend is, to the engine above it and to operators.

The engine never asks which backend it has; a store answers in process, a client sends.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, Protocol, TypeVar, cast, runtime_checkable

import msgspec
import trio

from .errors import SdkError
from .messages import ReplyT, Request
from .types import Signal

ContextT = TypeVar("ContextT")


class SignalBatch(msgspec.Struct, frozen=True, kw_only=True):
    """All that waits now for the instances registered through a backend."""

    signals: tuple[tuple[str, Signal], ...] = ()
    """Pending cancel, pause and resume, by instance id; repeated until acknowledged."""
    version: int = 0
    """Of the signals; see ``messages``."""
    hints: tuple[tuple[str, str], ...] = ()
    """(instance id, checkpoint id): a custom signal may be there, try to take it."""
    lost: tuple[tuple[str, int], ...] = ()
    """(instance id, lease): another owner has it now."""
    news: bool = False
    """Runs may be ready, due or ended that were not."""


@runtime_checkable
class Backend(Protocol):
    """What answers messages. Shared by any number of instances of one Trio run."""

    async def request(self, message: Request[ReplyT], /) -> ReplyT:
        """Answer one message, or raise the :class:`SdkError` that fits.

        A checkpoint. In a cancelled scope it raises Cancelled before anything is
        written; cancelled while it waits it raises at once, and what was sent may still
        be carried out (a store always does).
        """

    def signals(self) -> AsyncIterator[SignalBatch]:
        """Batches, as they come. One reader."""


class Patience:
    """How long the end of a backend waits for a store or a server that does not answer."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._until: float | None = None

    def begin(self) -> None:
        """The end has begun: from now on the time runs."""
        if self._until is None:
            self._until = trio.current_time() + self.seconds

    def left(self) -> float:
        """Seconds that are left, 0 or more."""
        self.begin()
        assert self._until is not None
        return max(0.0, self._until - trio.current_time())


Handlers = Mapping[type[Request[Any]], Callable[[ContextT, Any], Awaitable[Any]]]
"""A backend's table: which function answers which message."""


async def dispatch(
    handlers: Handlers[ContextT], context: ContextT, message: Request[ReplyT]
) -> ReplyT:
    """Answer ``message`` by the table. The one place where a reply's type is asserted.

    Raises:
      SdkError: the table does not have it.
    """
    handler = handlers.get(type(message))
    if handler is None:
        raise SdkError(f"this backend does not answer {type(message).__name__}")
    return cast(ReplyT, await handler(context, message))
