"""How pages reach the store: on Trio directly, from asyncio through a thread that runs Trio."""

from __future__ import annotations

import functools
import threading
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

import sniffio

from ..aio import ended
from ..client.portal import Portal, check_portable
from ..codec import Codec
from ..config import SdkConfig
from ..engine.services import SharedBackend
from ..errors import ConfigError
from ..opening import open_backend
from ..sdk.operator import Operator

T = TypeVar("T")

Question = Callable[[Operator], Awaitable[T]]


class Reach(Protocol):
    """A store, to pages."""

    async def ask(self, question: Question[T], *, who: str | None = None) -> T:
        """Ask an operator something; ``who``: who acts by it, for the audit."""


class OnBackend:
    """An open backend of this Trio run."""

    def __init__(self, backend: SharedBackend, codec: Codec) -> None:
        self._backend = backend
        self._codec = codec

    async def ask(self, question: Question[T], *, who: str | None = None) -> T:
        return await question(Operator(self._backend, codec=self._codec, who=who))


class InThread:
    """The store of a URL, which a thread of its own opens at the first question.

    It is open as long as the process lives: whoever mounts an application does not always tell it
    of its end. It takes no lease, so that nothing is left behind.
    """

    def __init__(self, target: str | SdkConfig, codec: Codec) -> None:
        """Raises ConfigError: an invalid target."""
        check_portable(target, "console.app")
        self._target = target
        self._codec = codec
        self._portal: Portal[SharedBackend] | None = None
        self._lock = threading.Lock()

    async def ask(self, question: Question[T], *, who: str | None = None) -> T:
        if sniffio.current_async_library() != "asyncio":
            raise ConfigError("on Trio give console.app an open backend, of open_backend")
        portal = self._opened()
        backend = await ended(portal.opened, lambda: None)  # others wait for it, too
        operator = Operator(backend, codec=self._codec, who=who)
        call = portal.begin(question, operator)
        return await ended(call.ended, functools.partial(portal.cancel, call))

    def _opened(self) -> Portal[SharedBackend]:
        with self._lock:
            portal = self._portal
            if portal is None or portal.ended.done():
                portal = self._portal = Portal(open_backend(self._target), what="console.app")
                portal.start()
            return portal
