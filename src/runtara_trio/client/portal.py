"""One background thread that runs Trio, for programs that do not.

``blocking`` and ``aio`` call one client in it and differ in how their callers wait. A call is a
task there, with a future that any thread may wait for. Not ``trio.from_thread.run``: it waits in
its own way, and nothing can cancel what it has begun.
"""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, suppress
from typing import Any, Generic, ParamSpec, TypeVar

import sniffio
import trio

from ..codec import Codec
from ..config import SdkConfig
from ..errors import ConfigError, SdkError
from ..opening import check_shareable
from .client import Client, open_client

P = ParamSpec("P")
T = TypeVar("T")
R = TypeVar("R")


class Call(Generic[T]):
    """A call on its way."""

    def __init__(self, function: Callable[[], Awaitable[T]]) -> None:
        self.ended: Future[T] = Future()
        self.scope = trio.CancelScope()
        self._function = function

    async def run(self) -> None:
        """Set what the function returns or raises."""
        error: BaseException | None = None
        try:
            with self.scope:
                self.ended.set_result(await self._function())
        except trio.Cancelled:
            raise  # the client closes
        except trio.TooSlowError as exc:
            error = TimeoutError(str(exc))
            error.__cause__ = exc
        except BaseException as exc:  # also one that would end the thread: it is the caller's
            error = exc
        finally:
            if not self.ended.done():
                self.fail(error or SdkError("the client was closed before the call had ended"))
            error = None  # no cycle of exception, traceback and this frame

    def fail(self, error: BaseException) -> None:
        self.ended.set_exception(error)


def client_portal(
    target: str | SdkConfig, tenant_id: str | None, codec: Codec, *, what: str
) -> Portal[Client]:
    """A client of its own in a thread of its own.

    Args:
      what: the function that an error names.

    Raises:
      ConfigError: what :func:`open_client` refuses, or an open backend.
    """
    check_portable(target, what)
    return Portal(open_client(target, tenant_id=tenant_id, codec=codec), what=what)


def check_portable(target: object, what: str) -> None:
    """Whether a thread of its own can open a target. Raises ConfigError."""
    if not isinstance(target, (str, SdkConfig)):
        raise ConfigError(
            f"{what} needs the URL of a store, as sqlite:///shop.db, or an SdkConfig, not "
            f"{target!r}: an open backend belongs to one Trio run"
        )
    check_shareable(target, what, remedy="give the URL of a file, as sqlite:///shop.db")


class Portal(Generic[T]):
    """Something open in a thread of its own. All but ``__init__`` is for any thread."""

    def __init__(self, opening: AbstractAsyncContextManager[T], *, what: str) -> None:
        self._opening = opening
        self._scope = trio.CancelScope()
        self._token: trio.lowlevel.TrioToken | None = None
        self._nursery: trio.Nursery | None = None
        self._closed = False
        # A daemon: a program that never leaves its block can end nevertheless.
        self._thread = threading.Thread(target=self._run, name=what, daemon=True)
        self.opened: Future[T] = Future()
        """What is open, or why it is not."""
        self.ended: Future[None] = Future()
        """Set once Trio has ended; an error that nobody was told of."""

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def begin(
        self, function: Callable[P, Awaitable[R]], *args: P.args, **kwargs: P.kwargs
    ) -> Call[R]:
        """Begin a call of what is open, or of something of it.

        Raises:
          SdkError: the client is closed.
        """
        if self._closed or self._token is None:
            raise _closed()
        if not self._thread.is_alive():
            raise SdkError("the client's thread is not in this process: open it after the fork")
        call = Call(lambda: function(*args, **kwargs))
        try:
            self._token.run_sync_soon(contextvars.copy_context().run, self._spawn, call)
        except trio.RunFinishedError:
            raise _closed() from None
        return call

    def cancel(self, call: Call[Any]) -> None:
        """Cancel a call. It has ended once its future is set."""
        self._soon(call.scope.cancel)

    def close(self) -> None:
        """Cancel all calls and have the thread end, also where it still opens the client."""
        self._closed = True
        if self._thread.is_alive():
            self._soon(self._scope.cancel)
        elif not self.ended.done():  # it never ran, or runs in another process
            self.ended.set_result(None)

    def join(self) -> None:
        """Until the thread is gone. Only a moment, once ``ended`` is set."""
        if self._thread.ident is not None:
            self._thread.join()

    def _soon(self, function: Callable[[], object]) -> None:
        if self._token is not None:
            with suppress(trio.RunFinishedError):
                self._token.run_sync_soon(function)

    # ---- in the thread

    def _run(self) -> None:
        error: BaseException | None = None
        try:
            trio.run(self._main)
        except BaseException as exc:
            error = exc
        self._closed = True
        if not self.opened.done():
            self.opened.set_exception(error or _closed())
            error = None
        if error is None:
            self.ended.set_result(None)
        else:
            self.ended.set_exception(error)

    async def _main(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        if self._closed:  # before the token was there
            return
        with self._scope:
            async with self._opening as opened, trio.open_nursery() as self._nursery:
                self.opened.set_result(opened)
                try:
                    await trio.sleep_forever()
                finally:
                    self._closed = True

    def _spawn(self, call: Call[Any]) -> None:
        if self._closed or self._nursery is None:
            call.fail(_closed())
        else:
            # In the context of the caller, which may be of a trace, but on Trio.
            sniffio.current_async_library_cvar.set("trio")
            self._nursery.start_soon(call.run)


def _closed() -> SdkError:
    return SdkError("the client is closed: open another one")
