"""One program in one case: started, and started again until it has ended."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import msgspec
import outcome
import trio
from trio.testing import MockClock

from ..backend import Backend
from ..client.client import Client, open_client
from ..clock import TrioClock
from ..codec import JSON, Codec
from ..config import SdkConfig
from ..engine.outcome import contains
from ..engine.services import SharedBackend
from ..errors import (
    ConfigError,
    InstanceFailed,
    InstanceFinished,
    LeaseLost,
    RequestTimeout,
    SdkError,
)
from ..messages import CountInstances, GetStatus, StartRuns
from ..opening import open_backend
from ..sdk import revealing
from ..sdk.block import open_runtara
from ..sdk.durable import run_in_thread
from ..sdk.operator import Operator
from ..sdk.runtara_sdk import RuntaraSdk
from ..sdk.starts import Start, made
from ..sdk.workflow import AnyWorkflow, Workflow
from ..store.location import locate
from ..store.sqlite.backend import open_sqlite
from ..tasks import runs_on_trio
from ..types import FINISHED, InstanceStatus, RunState
from ..worker.opening import open_worker
from . import world as worlds
from .faults import Boundaries, Case, Process
from .world import World

INSTANCE = "test"
MOST_STARTS = 100
LONGEST = 1e10
"""Mocked seconds, three hundred years, after which a program hangs."""

WALL = 1767225600.0
"""Where the wall clock starts: 2026-01-01 UTC, in every run the same."""

UNFINISHED = frozenset(InstanceStatus) - FINISHED

Program = Callable[[RuntaraSdk], Awaitable[Any]] | AnyWorkflow
Script = Callable[[Operator], Awaitable[Any]]


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """How a program went in one case."""

    case: Case | None
    """None: undisturbed."""
    status: InstanceStatus
    """What it ended as."""
    result: Any
    """What the program returned, the last time that it did."""
    returned: bool
    """Whether it did: not where it crashed once it had said its own end."""
    output: bytes | None
    error: str | None
    """Of a failed one, ``Type: message``."""
    failure: Exception | None
    """What it raised, the last time that it failed."""
    effects: dict[str, Any]
    """What it did to the world: :func:`effect`, by key."""
    conflicts: tuple[str, ...]
    """Keys under which it did two different things."""
    boundaries: tuple[str, ...]
    """The names of the boundaries that it came to."""
    starts: int
    """How often it was started."""


@asynccontextmanager
async def memory_backend() -> AsyncIterator[SharedBackend]:
    """An open backend in memory for a test on a MockClock, without heartbeats: a mocked week
    has twenty thousand of them."""
    async with open_backend(SdkConfig(store=":memory:", heartbeat_interval_ms=0)) as backend:
        yield backend


def run(
    program: Program,
    *,
    operator: Script | None = None,
    case: Case | None = None,
    **options: Any,
) -> Run:
    """Run a program on a MockClock until it has ended, starting it again where it stopped.

    Args:
      program: given the SDK of a block; what it returns is the result. A workflow is started
        by a client and run by a worker, as it will be.
      operator: what people do meanwhile: an async function of an :class:`Operator`, which
        sleeps, and sends signals to the instance ``"test"``. It is not disturbed by faults,
        and what it is refused because of them is left out.
      case: a fault at a boundary, once.
      options: for ``open_runtara``; of a workflow ``args``, a tuple, ``codec``, and
        ``workflows``: those of its children.

    Raises whatever a program raises that is not recorded as its failure.
    """
    check_outside_of_trio()
    running: _Running
    if isinstance(program, Workflow):
        running = _Working(program, operator, case, options)
        return trio.run(running.run, clock=MockClock(autojump_threshold=0))
    taken = {"instance_id", "tenant_id", "revive", "register", "stop_signals"} & set(options)
    if taken:
        raise ConfigError(f"the test kit sets {', '.join(sorted(taken))} itself")
    running = _Running(program, operator, case, options)
    return trio.run(running.run, clock=MockClock(autojump_threshold=0))


class _Running:
    def __init__(
        self,
        program: Program,
        operator: Script | None,
        case: Case | None,
        options: dict[str, Any],
    ) -> None:
        self._program = program
        self._operator = operator
        self._case = case
        self._options = options
        self._codec: Codec = options.get("codec", JSON)
        self._world = World()
        self._boundaries = Boundaries(INSTANCE)
        self._result: Any = None
        self._returned = False
        self._raised: Exception | None = None
        self._revive = False
        self._fired = False
        self._failure: Exception | None = None

    async def run(self) -> Run:
        clock = self._clock = TrioClock(WALL)
        with trio.move_on_after(LONGEST):
            async with open_sqlite(locate(":memory:"), lease_ms=30_000, clock=clock) as store:
                async with trio.open_nursery() as nursery:
                    if self._operator is not None:
                        operator = Operator(store, codec=self._codec)
                        nursery.start_soon(self._operate, self._operator, operator)
                    starts = await outcome.acapture(self._until_ended, store)
                    nursery.cancel_scope.cancel()
                found = await store.request(GetStatus(instance_id=INSTANCE))
                info = revealing.info(self._codec, found)
            if self._failure is not None:
                raise self._failure
            return Run(
                case=self._case,
                status=info.status,
                result=self._result,
                returned=self._returned,
                output=info.output,
                error=None if info.error is None else info.error.partition("\n")[0],
                failure=self._raised,
                effects=self._world.effects,
                conflicts=tuple(self._world.conflicts),
                boundaries=tuple(self._boundaries.names),
                starts=starts.unwrap(),
            )
        raise TimeoutError(
            f"the program hangs: it did not end within {LONGEST:g} mocked seconds, or waits for a "
            "thread or a socket, for which a mocked clock does not wait"
        )

    async def _begin(self, store: Backend) -> None:
        """What is to be done before the first start."""

    async def _until_ended(self, store: Backend) -> int:
        await self._begin(store)
        for start in range(1, MOST_STARTS + 1):
            case = None if self._fired else self._case
            process = Process(store, INSTANCE, self._boundaries, case, self._world)
            self._world.alive = True
            await self._one_start(process)
            self._fired = self._fired or process.fired
            left = await store.request(CountInstances(statuses=UNFINISHED))
            if not left.count and not self._revive:
                return start
        raise SdkError(f"the program was started {MOST_STARTS} times, and has not ended")

    async def _one_start(self, process: Process) -> None:
        worlds.enter(self._world)
        run_in_thread.set(inline)
        revive, self._revive = self._revive, False
        config = SdkConfig(heartbeat_interval_ms=0, clock=self._clock)
        entered = False
        try:
            with process.scope:
                async with (
                    open_backend(process, config=config) as shared,
                    open_runtara(
                        shared,
                        instance_id=INSTANCE,
                        tenant_id="test",
                        revive=revive,
                        stop_signals=(),
                        **self._options,
                    ) as sdk,
                ):
                    entered = True
                    result = await self._program(sdk)
                    if not process.dead:
                        self._result, self._returned = result, True
        except KeyboardInterrupt:
            raise
        except InstanceFinished:
            pass  # it crashed after its end was recorded
        except BaseException as exc:
            if process.dead:
                return
            if not entered or not isinstance(exc, Exception) or contains(exc, LeaseLost):
                raise
            self._raised = exc
            # It is recorded as failed; one that did not hear of an event's fate goes on.
            self._revive = process.fired and contains(exc, RequestTimeout)

    async def _operate(self, script: Script, operator: Operator) -> None:
        try:
            await script(operator)
        except Exception as exc:
            # What it is refused because of a fault is no mistake of its own.
            if self._case is None or not isinstance(exc, SdkError):
                self._failure = exc


class _Working(_Running):
    """A workflow, started by a client and run by workers."""

    def __init__(
        self,
        program: AnyWorkflow,
        operator: Script | None,
        case: Case | None,
        options: dict[str, Any],
    ) -> None:
        unknown = set(options) - {"args", "codec", "workflows"}
        if unknown:
            raise ConfigError(
                f"a workflow has no option {min(unknown)!r}; there are args, codec and workflows"
            )
        super().__init__(program, operator, case, options)
        self._workflow = program
        self._args: tuple[Any, ...] = options.get("args", ())
        self._workflows = list({program: None, **dict.fromkeys(options.get("workflows", ()))})

    async def _begin(self, store: Backend) -> None:
        new = made(
            self._workflow, Start(args=self._args, id=INSTANCE), version=None, codec=self._codec
        )
        await store.request(StartRuns(tenant_id="test", runs=(new,)))

    async def _one_start(self, process: Process) -> None:
        worlds.enter(self._world)
        run_in_thread.set(inline)
        config = SdkConfig(heartbeat_interval_ms=0, clock=self._clock)
        try:
            with process.scope:
                async with (
                    open_backend(process, config=config) as shared,
                    open_worker(
                        shared, self._workflows, stop_signals=(), codec=self._codec
                    ) as worker,
                    open_client(shared, tenant_id="test", codec=self._codec) as client,
                    trio.open_nursery() as nursery,
                ):
                    process.drain = worker.drain
                    nursery.start_soon(self._resume, client)
                    nursery.start_soon(self._wait, client, nursery.cancel_scope)
                    await worker.wait_ended()
                    nursery.cancel_scope.cancel()
        except KeyboardInterrupt:
            raise
        except BaseException:
            if not process.dead:
                raise

    async def _wait(self, client: Client, over: trio.CancelScope) -> None:
        try:
            self._result = await client.get(INSTANCE, self._workflow).result()
            self._returned = True
        except InstanceFailed as exc:
            self._raised = exc
        while left := (await client.list(statuses=UNFINISHED)).instances:  # what it has started
            for one in left:
                with suppress(InstanceFailed):
                    await client.get(one.instance_id).result()
        over.cancel()

    async def _resume(self, client: Client) -> None:
        """Whoever has paused it resumes it some time later."""
        seconds = 1.0
        while True:
            await trio.sleep(seconds)
            seconds *= 2
            run = (await client.get(INSTANCE).show()).summary.run
            if run is not None and run.state in (RunState.PAUSED, RunState.PARKED):
                await client.get(INSTANCE).resume()


def check_outside_of_trio() -> None:
    """Raises SdkError inside of Trio, which the test kit runs itself."""
    if runs_on_trio():
        raise SdkError("this runs Trio itself: call it from a plain function, not an async one")


async def inline(function: Callable[[], Any]) -> Any:
    """Call a sync durable function here: for a thread a mocked clock does not wait."""
    return function()
