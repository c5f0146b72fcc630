"""``open_worker``: a worker as a block, which drains when it is left."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TypedDict, Unpack

import trio

from ..clock import Seconds, check_seconds
from ..codec import JSON, Codec
from ..engine.services import SharedBackend
from ..engine.stop import STOP_SIGNALS, signal_numbers
from ..errors import ConfigError
from ..ids import check_name_of, check_tenant_id
from ..interrupts import protected_manager
from ..opening import Target, check_on_trio, check_shareable, open_backend
from ..sdk.queues import checked_queue
from ..sdk.schedules import Schedule, stored
from ..sdk.workflow import DEFAULT_QUEUE, AnyWorkflow, Workflow, check_version
from ..tasks import open_service_nursery
from ..types import Queue
from .settings import Settings, workflows_of
from .worker import Worker


class WorkerOptions(TypedDict, total=False):
    """What :func:`open_worker` takes by name."""

    queues: Iterable[str | Queue] | None
    slots: int
    max_loaded: int
    schedules: Iterable[Schedule]
    name: str | None
    versions: Mapping[str, Sequence[int]] | None
    tenant_ids: Iterable[str] | None
    drain_timeout: Seconds
    max_recoveries: int
    stop_signals: Iterable[int]
    codec: Codec


def open_worker(
    target: Target,
    workflows: Iterable[AnyWorkflow],
    *,
    queues: Iterable[str | Queue] | None = None,
    slots: int = 100,
    max_loaded: int = 10_000,
    schedules: Iterable[Schedule] = (),
    name: str | None = None,
    versions: Mapping[str, Sequence[int]] | None = None,
    tenant_ids: Iterable[str] | None = None,
    drain_timeout: Seconds = 20.0,
    max_recoveries: int = 10,
    stop_signals: Iterable[int] = (signal.SIGTERM,),
    codec: Codec = JSON,
) -> AbstractAsyncContextManager[Worker]:
    """Claim runs of these workflows and run them, as child tasks of the block.

    Any number of workers may work on one store. Leaving the block drains: nothing more is
    claimed, each run stops at its next boundary, and other workers go on with it at once.
    A stop signal does the same; the body is cancelled once the drain is over, and the block
    raises SystemExit (128 + the signal's number). A second one cancels the runs.

    Args:
      target: a URL of a store, an :class:`SdkConfig`, or an open backend of
        :func:`open_backend`, which a client may share.
      workflows: what it runs.
      queues: from which it takes runs: names, or a :class:`Queue` with its limits, which is
        stored before the block is entered and counts for all workers. None: those of its
        workflows, and ``default``.
      slots: how many runs work at once. A run that waits costs none.
      max_loaded: how many runs are in memory. Above it those that wait longest are unloaded.
      schedules: stored before the block is entered. A living worker that runs its workflow runs
        the slots of any schedule.
      name: what ``workers`` shows. None: host and process.
      versions: older versions, by name, that the same functions still run.
      tenant_ids: only runs of these. None: of every tenant.
      drain_timeout: seconds, or a ``timedelta``, for a drain; then the runs are cancelled.
      max_recoveries: a run whose worker died so often in a row without a new checkpoint is
        parked until a resume.
      stop_signals: what drains, in the main thread, where nobody else handles them.
      codec: encodes states, results and outputs.

    Raises:
      ConfigError: an invalid argument, or ``:memory:`` by its URL.
      NotSupported: a server, not a store.
      StoreError: the store cannot be used.
    """
    settings = _checked(
        list(workflows),
        queues=queues,
        slots=slots,
        max_loaded=max_loaded,
        schedules=list(schedules),
        name=name,
        versions=versions or {},
        tenant_ids=tenant_ids,
        drain_timeout=drain_timeout,
        max_recoveries=max_recoveries,
        stop_signals=stop_signals,
        codec=codec,
    )
    check_shareable(target, "open_worker")
    return _opened(target, settings)


async def run_worker(
    target: Target, workflows: Iterable[AnyWorkflow], **options: Unpack[WorkerOptions]
) -> None:
    """:func:`open_worker` with a body that waits: until a stop signal, or a cancel.

    Args:
      target: a URL of a store, an :class:`SdkConfig`, or an open backend.
      workflows: what it runs.
      options: those of :func:`open_worker`, which says what is raised.
    """
    async with open_worker(target, workflows, **options):
        await trio.sleep_forever()


@protected_manager
async def _opened(target: Target, settings: Settings) -> AsyncIterator[Worker]:
    check_on_trio()
    await trio.lowlevel.checkpoint_if_cancelled()
    if isinstance(target, SharedBackend):
        async with _working(target, settings) as worker:
            yield worker
        return
    async with open_backend(target, create=True) as shared, _working(shared, settings) as worker:
        yield worker


@asynccontextmanager
async def _working(shared: SharedBackend, settings: Settings) -> AsyncIterator[Worker]:
    worker = Worker(shared, settings)
    ending = _Ending(worker)
    left: BaseException | None = None
    ended: BaseException | None = None
    STOP_SIGNALS.join(settings.stop_signals, ending.hear)  # before anybody can know of it
    try:
        await worker.begin()
        async with open_service_nursery() as services:
            for service in (worker.serve, ending.watch):
                services.start_soon(service)
            try:
                with ending.body:
                    yield worker
            except BaseException as exc:  # not what the end of a drain has cancelled
                left = exc
            try:
                ended = await ending.finish()
            except (trio.Cancelled, KeyboardInterrupt) as exc:
                left = left or exc
    finally:
        number = STOP_SIGNALS.leave(ending.hear)
    if number is not None:  # it was the last of the process that the signal ends
        ended = ended or SystemExit(128 + number)
    try:
        if left is not None:
            raise left
        if ended is not None:
            raise ended
    finally:
        left = ended = None  # no cycle of exception, traceback and this frame


class _Ending:
    """The end of one worker's block."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._stopped = False
        self.body = trio.CancelScope()

    def hear(self, reason: str) -> None:
        """A stop signal: drain. A second one: cancel the runs."""
        if self._stopped:
            self._worker.stop()
        else:
            self._stopped = True
            self._worker.drain(reason)

    @trio.lowlevel.enable_ki_protection
    async def watch(self) -> None:
        """Cancel the body once a drain is over: a web server in it answers until then."""
        await self._worker.wait_ended()
        self.body.cancel()

    async def finish(self) -> BaseException | None:
        """Drain, and wait for its end. What a run raised to end the process, if one did.

        Cancelled, or at Ctrl-C, the runs are cancelled; it waits for their ends all the same.
        """
        self._worker.drain("its block is left")
        try:
            await self._worker.wait_ended()
        except (trio.Cancelled, KeyboardInterrupt):
            self._worker.stop()
            with trio.CancelScope(shield=True):
                await self._worker.wait_ended()
            raise
        return self._worker.ended_by


def _checked(
    workflows: list[AnyWorkflow],
    *,
    queues: Iterable[str | Queue] | None,
    slots: int,
    max_loaded: int,
    schedules: list[Schedule],
    name: str | None,
    versions: Mapping[str, Sequence[int]],
    tenant_ids: Iterable[str] | None,
    drain_timeout: Seconds,
    max_recoveries: int,
    stop_signals: Iterable[int],
    codec: Codec,
) -> Settings:
    """The settings. Raises ConfigError."""
    if not workflows:
        raise ConfigError("a worker needs at least one workflow")
    seen: dict[tuple[str, int], AnyWorkflow] = {}
    for one in workflows:
        if not isinstance(one, Workflow):
            raise ConfigError(f"workflows must be made by @workflow, not {one!r}")
        if seen.setdefault((one.name, one.version), one) is not one:
            raise ConfigError(
                f"two workflows are called {one.name!r} in version {one.version}; give one of "
                "them another name: @workflow(name=...)"
            )
    names = {one.name for one in workflows}
    for known, numbers in versions.items():
        if known not in names:
            raise ConfigError(f"versions names {known!r}, which is none of the worker's workflows")
        for number in numbers:
            check_version(number)
    if isinstance(queues, str) or isinstance(tenant_ids, str):
        raise ConfigError("queues and tenant_ids are lists of names, not one text")
    listed = list(queues or ())
    declared = [checked_queue(one) for one in listed if isinstance(one, Queue)]
    wanted = {one.name if isinstance(one, Queue) else one for one in listed}
    if queues is None:
        wanted = {one.queue for one in workflows} | {DEFAULT_QUEUE}
    if len({one.name for one in declared}) < len(declared):
        raise ConfigError("queues has two of one name; give each one once")
    names_of_schedules = [stored(one, codec, time.time()).name for one in schedules]
    if len(set(names_of_schedules)) < len(schedules):
        raise ConfigError("schedules has two of one name; give one of them another")
    if not wanted:
        raise ConfigError("queues is empty: name at least one, or leave it out")
    if name is None:
        name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(2)}"
    return Settings(
        workflows=workflows_of(workflows, versions),
        queues=tuple(sorted(check_name_of("queue", one) for one in wanted)),
        declared=tuple(declared),
        schedules=tuple(schedules),
        slots=_check_count("slots", slots),
        max_loaded=_check_count("max_loaded", max_loaded),
        name=check_name_of("name", name),
        tenant_ids=None if tenant_ids is None else tuple(map(check_tenant_id, tenant_ids)),
        drain_timeout=check_seconds("drain_timeout", drain_timeout),
        max_recoveries=_check_count("max_recoveries", max_recoveries),
        stop_signals=signal_numbers(stop_signals),
        codec=codec,
    )


def _check_count(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 1_000_000:
        raise ConfigError(f"{name} must be a whole number from 1 to 1000000, not {value!r}")
    return value
