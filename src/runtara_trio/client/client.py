"""``open_client``: starting runs of workflows, from any program that can reach the store."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Any, TypeVar, TypeVarTuple, Unpack, overload

import msgspec
import trio

from ..clock import Seconds
from ..codec import JSON, Codec
from ..config import VARIABLES, SdkConfig
from ..engine.services import SharedBackend
from ..errors import ConfigError
from ..ids import check_instance_id, check_tenant_id
from ..interrupts import protected_manager
from ..messages import InstancePage, NewRun, StartRuns
from ..opening import Target, check_on_trio, check_shareable, open_backend
from ..sdk.filters import Filters
from ..sdk.fleet import Fleet
from ..sdk.operator import Operator
from ..sdk.starts import (
    IfExists,
    Start,
    StartOptions,
    check_existing,
    check_start,
    made,
    newest_version,
)
from ..sdk.workflow import AnyWorkflow, Workflow
from ..types import InstanceStatus
from .handle import InstanceHandle

Ts = TypeVarTuple("Ts")
T = TypeVar("T")

BATCH = 1000
"""Runs that are started in one commit."""

BATCH_BYTES = 8 * 2**20


def open_client(
    target: Target, *, tenant_id: str | None = None, codec: Codec = JSON
) -> AbstractAsyncContextManager[Client]:
    """Open a client of one tenant. It takes no lease: any number may be open.

    Args:
      target: a URL of a store, an :class:`SdkConfig`, or an open backend of
        :func:`open_backend`, which a worker may share.
      tenant_id: None: the config's, else RUNTARA_TENANT_ID.
      codec: encodes arguments and decodes results; that of the workers.

    Raises:
      ConfigError: an invalid argument, no tenant, or ``:memory:`` by its URL.
      NotSupported: a server, not a store.
    """
    if isinstance(target, SharedBackend):
        configured = target.config.tenant_id
    else:
        configured = target.tenant_id if isinstance(target, SdkConfig) else None
    tenant = tenant_id or configured or os.environ.get(VARIABLES["tenant_id"])
    if tenant is None:
        raise ConfigError(f"give open_client tenant_id=..., or set {VARIABLES['tenant_id']}")
    check_shareable(target, "open_client")
    return _opened(target, check_tenant_id(tenant), codec)


@protected_manager
async def _opened(target: Target, tenant_id: str, codec: Codec) -> AsyncIterator[Client]:
    check_on_trio()
    await trio.lowlevel.checkpoint_if_cancelled()
    if isinstance(target, SharedBackend):
        yield Client(target, tenant_id, codec)
        return
    async with open_backend(target, create=True) as shared:
        yield Client(shared, tenant_id, codec)


class Client(Fleet):
    """Starts runs of workflows of one tenant, and finds its instances."""

    def __init__(self, shared: SharedBackend, tenant_id: str, codec: Codec) -> None:
        self._shared = self._backend = shared
        self._codec = codec
        self._operator = Operator(shared, codec=codec)
        self.tenant_id = self._only_of = tenant_id
        """Whose instances it starts and reaches."""

    @overload
    async def start(
        self,
        workflow: Workflow[*Ts, T],
        *args: *Ts,
        **options: Unpack[StartOptions],
    ) -> InstanceHandle[T]: ...
    @overload
    async def start(
        self,
        workflow: str,
        *args: Any,
        **options: Unpack[StartOptions],
    ) -> InstanceHandle[Any]: ...
    async def start(  # type: ignore[misc]  # a workflow of any arguments
        self,
        workflow: Any,
        *args: Any,
        id: str | None = None,
        if_exists: IfExists = "attach",
        queue: str | None = None,
        priority: int = 0,
        delay: Seconds | None = None,
        at: datetime | None = None,
        key: str | None = None,
        attributes: Mapping[str, str | int | float | bool] | None = None,
        version: int | None = None,
    ) -> InstanceHandle[Any]:
        """Start a run: a pending instance, which a worker takes. When this returns, it is on disk.

        A start whose answer was lost is simply made again under the same ``id``.

        Args:
          workflow: a :class:`Workflow`, or the name of one.
          args: its arguments.
          id: the instance's id. None: a random one that sorts by its time (UUIDv7).
          if_exists: "attach": an instance of the id is taken for this one where its workflow
            and its arguments are the same. "fail": it never is.
          queue: None: the workflow's; by name, ``default``.
          priority: 0 to 9; the higher first, among the runs of one key of one tenant.
          delay: seconds, or a ``timedelta``, before it is ready.
          at: when it is ready instead: an aware ``datetime``.
          key: runs of a key take turns with those of others.
          attributes: up to 20 texts, numbers or bools, by name.
          version: None: the workflow's; by name, the newest that a living worker runs, else 1.

        Raises:
          ConfigError: an invalid option. TypeError: too few arguments or too many. CodecError: an
            argument has no encoding. Nothing was written.
          InstanceExists: the id is another's.
        """
        start: Start[Any] = Start(
            args=args,
            id=id,
            queue=queue,
            priority=priority,
            delay=delay,
            at=at,
            key=key,
            attributes=attributes,
        )
        handles = await self.start_many(workflow, [start], if_exists=if_exists, version=version)
        return handles[0]

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
        self,
        workflow: Any,
        starts: Iterable[Start[Any]],
        *,
        if_exists: IfExists = "attach",
        version: int | None = None,
    ) -> list[InstanceHandle[Any]]:
        """Start many runs, in batches of one commit each. Handles in the order of the starts.

        All are checked before the first batch is written.

        Args:
          workflow: a :class:`Workflow`, or the name of one.
          starts: a :class:`Start` for each, with its arguments and options.
          if_exists: as of :meth:`start`.
          version: as of :meth:`start`.

        Raises:
          What :meth:`start` raises. InstanceExists leaves the batches before it written.
        """
        check_start(workflow, if_exists)
        runs = [made(workflow, one, version=version, codec=self._codec) for one in starts]
        if isinstance(workflow, str) and version is None and runs:
            newest = await newest_version(self._shared, workflow)
            runs = [msgspec.structs.replace(one, version=newest) for one in runs]
        for batch in _batches(runs):
            await self._start(batch, if_exists)
        known = workflow if isinstance(workflow, Workflow) else None
        return [self._handle(one.instance_id, known) for one in runs]

    async def _start(self, batch: Sequence[NewRun], if_exists: IfExists) -> None:
        reply = await self._shared.request(StartRuns(tenant_id=self.tenant_id, runs=tuple(batch)))
        for run, existing in zip(batch, reply.existing, strict=True):
            check_existing(existing, run, self.tenant_id, self._codec, if_exists)

    @overload
    def get(self, id: str) -> InstanceHandle[Any]: ...
    @overload
    def get(self, id: str, workflow: Workflow[*Ts, T]) -> InstanceHandle[T]: ...
    def get(self, id: str, workflow: AnyWorkflow | None = None) -> InstanceHandle[Any]:
        """A handle to an instance that exists or will. It does not ask the store.

        Args:
          id: the instance's id.
          workflow: what types its result. None: the codec alone.
        """
        return self._handle(check_instance_id(id), workflow)

    async def list(
        self,
        *,
        statuses: Iterable[InstanceStatus] | None = None,
        before: str | None = None,
        limit: int = 100,
        **filters: Unpack[Filters],
    ) -> InstancePage:
        """The tenant's instances, the newest first.

        Args:
          statuses: of these; None: of any.
          before: the ``next`` of the page before. None: from the newest.
          limit: of the page, 1 to 100,000.
          filters: see :class:`~runtara_trio.sdk.filters.Filters`.

        Raises:
          ConfigError: what :meth:`Operator.list` refuses.
        """
        return await self._operator.list(
            statuses=statuses, tenant_id=self.tenant_id, before=before, limit=limit, **filters
        )

    async def count(
        self, *, statuses: Iterable[InstanceStatus] | None = None, **filters: Unpack[Filters]
    ) -> int:
        """How many instances a :meth:`list` of the same would have.

        Args:
          statuses: of these; None: of any.
          filters: see :class:`~runtara_trio.sdk.filters.Filters`.
        """
        return await self._operator.count(statuses=statuses, tenant_id=self.tenant_id, **filters)

    def _handle(self, id: str, workflow: AnyWorkflow | None) -> InstanceHandle[Any]:
        return InstanceHandle(
            self._shared, id, tenant_id=self.tenant_id, workflow=workflow, codec=self._codec
        )


def _batches(runs: Sequence[NewRun]) -> Iterable[list[NewRun]]:
    """Runs in batches of so many, and of so many bytes."""
    batch: list[NewRun] = []
    size = 0
    for run in runs:
        if batch and (len(batch) == BATCH or size + len(run.input) > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(run)
        size += len(run.input)
    if batch:
        yield batch
