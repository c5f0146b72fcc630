"""Clients for programs on asyncio: FastAPI, bots, any service.

The methods are those of :class:`runtara_trio.Client` and :class:`runtara_trio.InstanceHandle`.
They wait in the caller's task, for one thread that runs Trio. The tasks of any loop may use one
client::

    async with open_client("postgresql://db/shop", tenant_id="shop") as client:
        instance = await client.start(order, 1999)
        print(await instance.result(timeout=60))

A cancelled task cancels its call, and goes on once the call has ended: nothing is written after
that.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from concurrent.futures import Future
from contextlib import asynccontextmanager
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, TypeVarTuple, Unpack, overload

from .client import client as on_trio
from .client import handle as handle_on_trio
from .client.portal import Portal, client_portal
from .clock import Seconds
from .codec import JSON, Codec
from .config import SdkConfig
from .sdk.starts import IfExists, Start, StartOptions
from .sdk.workflow import Workflow

__all__ = ["Client", "InstanceHandle", "open_client"]

P = ParamSpec("P")
T = TypeVar("T")
AsT = TypeVar("AsT")
Ts = TypeVarTuple("Ts")


@asynccontextmanager
async def open_client(
    target: str | SdkConfig, *, tenant_id: str | None = None, codec: Codec = JSON
) -> AsyncIterator[Client]:
    """Open a client for asyncio, over one background thread. The end of the block ends it.

    Calls that other tasks still wait for raise SdkError then.

    Args:
      target: a URL of a store, or an :class:`SdkConfig`.
      tenant_id, codec: as of :func:`runtara_trio.open_client`.

    Raises:
      ConfigError: what :func:`runtara_trio.open_client` refuses, or an open backend.
    """
    portal = client_portal(target, tenant_id, codec, what="runtara_trio.aio.open_client")
    try:
        portal.start()
        yield Client(portal, await ended(portal.opened, portal.close))
    finally:
        portal.close()
        await ended(portal.ended, portal.close)
        portal.join()


async def ended(future: Future[T], cancel: Callable[[], object]) -> T:
    """What a future gives. A cancelled task cancels what it waits for, and waits for its end."""
    here = asyncio.wrap_future(future)
    cancelled: asyncio.CancelledError | None = None
    while not here.done():
        try:
            await asyncio.wait([here])
        except asyncio.CancelledError as exc:
            cancelled = exc
            cancel()
    try:
        if cancelled is not None:
            here.exception()  # looked at, or asyncio says that nobody did
            raise cancelled
        return here.result()
    finally:
        cancelled = None  # no cycle of exception, traceback and this frame


class _Front:
    """Something of a portal's client, and its calls."""

    def __init__(self, portal: Portal[Any], inner: Any) -> None:
        self._portal = portal
        self._inner = inner

    async def _call(self, function: Callable[..., Awaitable[T]], *args: Any, **kwargs: Any) -> T:
        call = self._portal.begin(function, *args, **kwargs)
        return await ended(call.ended, functools.partial(self._portal.cancel, call))


def _awaitable(
    method: Callable[Concatenate[Any, P], Awaitable[T]],
) -> Callable[Concatenate[_Front, P], Coroutine[Any, Any, T]]:
    """A method that awaits that of what it is in front of."""

    @functools.wraps(method)
    async def call(self: _Front, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._call(method, self._inner, *args, **kwargs)

    return call


class InstanceHandle(_Front, Generic[T]):
    """:class:`runtara_trio.InstanceHandle`, for asyncio."""

    _inner: handle_on_trio.InstanceHandle[T]

    @property
    def id(self) -> str:
        """The instance's id."""
        return self._inner.id

    def __repr__(self) -> str:
        return repr(self._inner)

    @overload
    async def result(self, *, timeout: Seconds | None = None) -> T: ...
    @overload
    async def result(self, type: type[AsT], *, timeout: Seconds | None = None) -> AsT: ...
    async def result(self, type: Any = None, *, timeout: Seconds | None = None) -> Any:
        """Wait for the end, and return what the workflow returned.

        Args:
          type: what it is decoded to. None: what the workflow says, or the codec makes of it.
          timeout: seconds, or a ``timedelta``; None: as long as it takes.

        Raises:
          TimeoutError: not within the timeout.
          InstanceFailed: it failed, or was cancelled.
          CodecError: the result is not of the type.
        """
        return await self._call(self._inner.result, type, timeout=timeout)

    status = _awaitable(handle_on_trio.InstanceHandle.status)
    show = _awaitable(handle_on_trio.InstanceHandle.show)
    events = _awaitable(handle_on_trio.InstanceHandle.events)
    cancel = _awaitable(handle_on_trio.InstanceHandle.cancel)
    pause = _awaitable(handle_on_trio.InstanceHandle.pause)
    resume = _awaitable(handle_on_trio.InstanceHandle.resume)
    send_message = _awaitable(handle_on_trio.InstanceHandle.send_message)
    rerun = _awaitable(handle_on_trio.InstanceHandle.rerun)
    signal = _awaitable(handle_on_trio.InstanceHandle.signal)


class Client(_Front):
    """:class:`runtara_trio.Client`, for asyncio."""

    _inner: on_trio.Client

    @property
    def tenant_id(self) -> str:
        """Whose instances it starts and reaches."""
        return self._inner.tenant_id

    @overload
    async def start(
        self, workflow: Workflow[*Ts, T], *args: *Ts, **options: Unpack[StartOptions]
    ) -> InstanceHandle[T]: ...
    @overload
    async def start(
        self, workflow: str, *args: Any, **options: Unpack[StartOptions]
    ) -> InstanceHandle[Any]: ...
    async def start(  # type: ignore[misc]  # a workflow of any arguments
        self, workflow: Any, *args: Any, **options: Any
    ) -> InstanceHandle[Any]:
        """Start a run: a pending instance, which a worker takes. When this returns, it is on disk.

        Args:
          workflow: a :class:`runtara_trio.Workflow`, or the name of one.
          args: its arguments.
          options: those of :meth:`runtara_trio.Client.start`, which says what is raised.
        """
        handle = await self._call(self._inner.start, workflow, *args, **options)
        return InstanceHandle(self._portal, handle)

    @overload
    async def start_many(
        self,
        workflow: Workflow[*Ts, T],
        starts: Iterable[Start[*Ts]],
        *,
        if_exists: IfExists = "attach",
        version: int | None = None,
    ) -> list[InstanceHandle[T]]: ...
    @overload
    async def start_many(
        self,
        workflow: str,
        starts: Iterable[Start[*tuple[Any, ...]]],
        *,
        if_exists: IfExists = "attach",
        version: int | None = None,
    ) -> list[InstanceHandle[Any]]: ...
    async def start_many(  # type: ignore[misc]
        self, workflow: Any, starts: Iterable[Start[Any]], **options: Any
    ) -> list[InstanceHandle[Any]]:
        """Start many runs, in batches of one commit each. Handles in the order of the starts.

        Args:
          workflow: a :class:`runtara_trio.Workflow`, or the name of one.
          starts: a :class:`runtara_trio.Start` for each, with its arguments and options.
          options: ``if_exists`` and ``version``, as of :meth:`runtara_trio.Client.start`.
        """
        given = list(starts)  # here: what makes them is of this thread
        handles = await self._call(self._inner.start_many, workflow, given, **options)
        return [InstanceHandle(self._portal, one) for one in handles]

    @overload
    def get(self, id: str) -> InstanceHandle[Any]: ...
    @overload
    def get(self, id: str, workflow: Workflow[*Ts, T]) -> InstanceHandle[T]: ...
    def get(self, id: str, workflow: Any = None) -> InstanceHandle[Any]:
        """A handle to an instance that exists or will. It does not ask the store.

        Args:
          id: the instance's id.
          workflow: what types its result. None: the codec alone.
        """
        return InstanceHandle(self._portal, self._inner.get(id, workflow))

    list = _awaitable(on_trio.Client.list)
    count = _awaitable(on_trio.Client.count)
    list_workers = _awaitable(on_trio.Client.list_workers)
    set_queue = _awaitable(on_trio.Client.set_queue)
    pause_queue = _awaitable(on_trio.Client.pause_queue)
    resume_queue = _awaitable(on_trio.Client.resume_queue)
    list_queues = _awaitable(on_trio.Client.list_queues)
    set_schedule = _awaitable(on_trio.Client.set_schedule)
    list_schedules = _awaitable(on_trio.Client.list_schedules)
    pause_schedule = _awaitable(on_trio.Client.pause_schedule)
    resume_schedule = _awaitable(on_trio.Client.resume_schedule)
    remove_schedule = _awaitable(on_trio.Client.remove_schedule)
    trigger_schedule = _awaitable(on_trio.Client.trigger_schedule)
    backfill = _awaitable(on_trio.Client.backfill)
    next_slots = _awaitable(on_trio.Client.next_slots)
