"""Clients for programs that block: Django, scripts, notebooks.

The methods are those of :class:`runtara_trio.Client` and :class:`runtara_trio.InstanceHandle`.
They wait in the caller's thread, for one thread that runs Trio. Any number of threads may use
one client::

    with open_client("postgresql://db/shop", tenant_id="shop") as client:
        print(client.start(order, 1999).result(timeout=60))
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, TypeVarTuple, Unpack, overload

from .client import client as on_trio
from .client import handle as handle_on_trio
from .client.portal import Portal, client_portal
from .clock import Seconds
from .codec import JSON, Codec
from .config import SdkConfig
from .errors import SdkError
from .sdk.starts import IfExists, Start, StartOptions
from .sdk.workflow import Workflow
from .tasks import runs_on_trio

__all__ = ["Client", "InstanceHandle", "open_client"]

P = ParamSpec("P")
T = TypeVar("T")
AsT = TypeVar("AsT")
Ts = TypeVarTuple("Ts")


@contextmanager
def open_client(
    target: str | SdkConfig, *, tenant_id: str | None = None, codec: Codec = JSON
) -> Iterator[Client]:
    """Open a client that blocks, over one background thread. The end of the block ends it.

    Calls that other threads still wait for raise SdkError then.

    Args:
      target: a URL of a store, or an :class:`SdkConfig`.
      tenant_id, codec: as of :func:`runtara_trio.open_client`.

    Raises:
      ConfigError: what :func:`runtara_trio.open_client` refuses, or an open backend.
      SdkError: called in a Trio task, which must not block.
    """
    if runs_on_trio():
        raise SdkError("a Trio task must not block: use runtara_trio.open_client")
    portal = client_portal(target, tenant_id, codec, what="runtara_trio.blocking.open_client")
    try:
        portal.start()
        yield Client(portal, portal.opened.result())
    finally:
        portal.close()
        portal.ended.result()
        portal.join()


class _Front:
    """Something of a portal's client, and its calls."""

    def __init__(self, portal: Portal[Any], inner: Any) -> None:
        self._portal = portal
        self._inner = inner

    def _call(self, function: Callable[..., Awaitable[T]], *args: Any, **kwargs: Any) -> T:
        call = self._portal.begin(function, *args, **kwargs)
        try:
            return call.ended.result()
        finally:
            if not call.ended.done():  # Ctrl-C
                self._portal.cancel(call)


def _blocking(
    method: Callable[Concatenate[Any, P], Awaitable[T]],
) -> Callable[Concatenate[_Front, P], T]:
    """A method that waits for that of what it is in front of."""

    @functools.wraps(method)
    def call(self: _Front, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._call(method, self._inner, *args, **kwargs)

    return call


class InstanceHandle(_Front, Generic[T]):
    """:class:`runtara_trio.InstanceHandle`, with methods that block."""

    _inner: handle_on_trio.InstanceHandle[T]

    @property
    def id(self) -> str:
        """The instance's id."""
        return self._inner.id

    def __repr__(self) -> str:
        return repr(self._inner)

    @overload
    def result(self, *, timeout: Seconds | None = None) -> T: ...
    @overload
    def result(self, type: type[AsT], *, timeout: Seconds | None = None) -> AsT: ...
    def result(self, type: Any = None, *, timeout: Seconds | None = None) -> Any:
        """Wait for the end, and return what the workflow returned.

        Args:
          type: what it is decoded to. None: what the workflow says, or the codec makes of it.
          timeout: seconds, or a ``timedelta``; None: as long as it takes.

        Raises:
          TimeoutError: not within the timeout.
          InstanceFailed: it failed, or was cancelled.
          CodecError: the result is not of the type.
        """
        return self._call(self._inner.result, type, timeout=timeout)

    status = _blocking(handle_on_trio.InstanceHandle.status)
    show = _blocking(handle_on_trio.InstanceHandle.show)
    events = _blocking(handle_on_trio.InstanceHandle.events)
    cancel = _blocking(handle_on_trio.InstanceHandle.cancel)
    pause = _blocking(handle_on_trio.InstanceHandle.pause)
    resume = _blocking(handle_on_trio.InstanceHandle.resume)
    send_message = _blocking(handle_on_trio.InstanceHandle.send_message)
    rerun = _blocking(handle_on_trio.InstanceHandle.rerun)
    signal = _blocking(handle_on_trio.InstanceHandle.signal)


class Client(_Front):
    """:class:`runtara_trio.Client`, with methods that block."""

    _inner: on_trio.Client

    @property
    def tenant_id(self) -> str:
        """Whose instances it starts and reaches."""
        return self._inner.tenant_id

    @overload
    def start(
        self, workflow: Workflow[*Ts, T], *args: *Ts, **options: Unpack[StartOptions]
    ) -> InstanceHandle[T]: ...
    @overload
    def start(
        self, workflow: str, *args: Any, **options: Unpack[StartOptions]
    ) -> InstanceHandle[Any]: ...
    def start(  # type: ignore[misc]  # a workflow of any arguments
        self, workflow: Any, *args: Any, **options: Any
    ) -> InstanceHandle[Any]:
        """Start a run: a pending instance, which a worker takes. When this returns, it is on disk.

        Args:
          workflow: a :class:`runtara_trio.Workflow`, or the name of one.
          args: its arguments.
          options: those of :meth:`runtara_trio.Client.start`, which says what is raised.
        """
        return InstanceHandle(
            self._portal, self._call(self._inner.start, workflow, *args, **options)
        )

    @overload
    def start_many(
        self,
        workflow: Workflow[*Ts, T],
        starts: Iterable[Start[*Ts]],
        *,
        if_exists: IfExists = "attach",
        version: int | None = None,
    ) -> list[InstanceHandle[T]]: ...
    @overload
    def start_many(
        self,
        workflow: str,
        starts: Iterable[Start[*tuple[Any, ...]]],
        *,
        if_exists: IfExists = "attach",
        version: int | None = None,
    ) -> list[InstanceHandle[Any]]: ...
    def start_many(  # type: ignore[misc]
        self, workflow: Any, starts: Iterable[Start[Any]], **options: Any
    ) -> list[InstanceHandle[Any]]:
        """Start many runs, in batches of one commit each. Handles in the order of the starts.

        Args:
          workflow: a :class:`runtara_trio.Workflow`, or the name of one.
          starts: a :class:`runtara_trio.Start` for each, with its arguments and options.
          options: ``if_exists`` and ``version``, as of :meth:`runtara_trio.Client.start`.
        """
        given = list(starts)  # here: what makes them may be of this thread, as Django's cursors
        handles = self._call(self._inner.start_many, workflow, given, **options)
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

    list = _blocking(on_trio.Client.list)
    count = _blocking(on_trio.Client.count)
    list_workers = _blocking(on_trio.Client.list_workers)
    set_queue = _blocking(on_trio.Client.set_queue)
    pause_queue = _blocking(on_trio.Client.pause_queue)
    resume_queue = _blocking(on_trio.Client.resume_queue)
    list_queues = _blocking(on_trio.Client.list_queues)
    set_schedule = _blocking(on_trio.Client.set_schedule)
    list_schedules = _blocking(on_trio.Client.list_schedules)
    pause_schedule = _blocking(on_trio.Client.pause_schedule)
    resume_schedule = _blocking(on_trio.Client.resume_schedule)
    remove_schedule = _blocking(on_trio.Client.remove_schedule)
    trigger_schedule = _blocking(on_trio.Client.trigger_schedule)
    backfill = _blocking(on_trio.Client.backfill)
    next_slots = _blocking(on_trio.Client.next_slots)
