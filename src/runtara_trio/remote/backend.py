"""A runtara-core, or ``runtara-trio serve``, as a backend."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import trio

from ..backend import SignalBatch, dispatch
from ..clock import Clock
from ..config import SdkConfig
from ..errors import LeaseLost, ServerError
from ..messages import ReplyT, Request
from .asking import Asking
from .instances import Instances
from .verbs import HANDLERS


class RemoteBackend:
    """A backend on a server."""

    def __init__(
        self, asking: Asking, config: SdkConfig, clock: Clock, nursery: trio.Nursery
    ) -> None:
        """``nursery``: for its services."""
        self._instances = Instances(asking, config, clock, nursery)
        nursery.start_soon(self._instances.watch)

    async def request(self, message: Request[ReplyT], /) -> ReplyT:
        await trio.lowlevel.checkpoint_if_cancelled()
        try:
            return await dispatch(HANDLERS, self._instances, message)
        except ServerError as exc:  # of some call: say what was asked of which instance
            raise _told(message, exc) from exc
        except LeaseLost as exc:
            self._instances.leave(exc.instance_id)  # another's now: it is not polled for here
            raise

    @property
    def trouble(self) -> str | None:
        """What keeps it from answering, if anything is known."""
        return self._instances.trouble()

    async def signals(self) -> AsyncIterator[SignalBatch]:
        async for batch in self._instances.batches:
            yield batch


def _told(message: Request[Any], error: ServerError) -> ServerError:
    instance: str | None = getattr(message, "instance_id", None)
    text = error.message
    if instance is not None and repr(instance) not in text:
        text = f"instance {instance!r}: {text}"
    return ServerError(message.asked, error.code, text)
