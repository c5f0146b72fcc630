"""The services of an open backend, shared by all blocks on it.

They are tasks that outlive every body: the watch that hands signals to the blocks, one
heartbeat for all of them, and the tasks in which outcomes are recorded. A service that
fails says so and tries again; it never cancels a body.

Ctrl-C never lands here. Trio raises it in whatever unprotected code runs, or in the main
task's next park, even a shielded one: so services are protected, and what must not be
interrupted runs in a task of theirs while the main task waits unabortably.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

import outcome
import trio

from .. import logs
from ..backend import Backend, Patience, SignalBatch
from ..clock import Clock
from ..config import SdkConfig
from ..errors import RequestTimeout, SdkError
from ..messages import (
    Heartbeats,
    PauseSchedule,
    RemoveSchedule,
    ReplyT,
    Request,
    SetSchedules,
)
from ..tasks import Answer, RepeatedEvent
from ..types import Signal
from .ends import EndsOfRuns
from .noting import Noting

if TYPE_CHECKING:
    from ..telemetry.tracing import Tracing

T = TypeVar("T")

RETRY_DELAY, LONGEST_DELAY = 1.0, 30.0
"""Seconds before a service that failed tries again; doubled each time."""

_OF_SCHEDULES = (SetSchedules, PauseSchedule, RemoveSchedule)

WORKS_AGAIN = 120.0
"""Seconds after which one that has not failed is taken to work."""


class Watched:
    """What a backend's services need of a block."""

    instance_id: str

    def deliver(self, signal: Signal | None, version: int) -> None:
        """What a poll of the instance's signals found, perhaps again."""
        raise NotImplementedError

    def hint(self, checkpoint_id: str) -> None:
        """A custom signal may be there."""
        raise NotImplementedError

    def lose(self, lease: int) -> None:
        """Another owner has the lease."""
        raise NotImplementedError


class SharedBackend:
    """A backend with its services; what :func:`open_backend` gives.

    It is a :class:`Backend` itself. Its cost does not grow with the blocks on it.
    """

    def __init__(
        self,
        backend: Backend,
        config: SdkConfig,
        clock: Clock,
        nursery: trio.Nursery,
        patience: Patience,
    ) -> None:
        self.config = config
        self.clock = clock
        self.patience = patience
        """Of its end."""
        self._backend = backend
        self._nursery = nursery
        self._blocks: dict[str, Watched] = {}
        self._early: dict[str, tuple[Signal, int]] = {}
        self._told_of_lag = False
        self.on_news: dict[Callable[[], object], None] = {}
        """What is called when runs may be ready, due or ended that were not."""
        self.ends = EndsOfRuns(self)
        self.keeps_history = bool(getattr(backend, "keeps_history", False))
        """Whether it keeps what is noted for people."""
        keeps = config.history != "none" and self.keeps_history
        self.steps = Noting(self.request, kept=keeps)
        self.tracing: Tracing | None = None
        """None: nobody wants spans."""
        self.closed = False
        self.schedules_changed = RepeatedEvent()
        """Set where a schedule is changed through this backend."""
        self.schedule_changes = 0
        """How often that was."""

    async def request(self, message: Request[ReplyT], /) -> ReplyT:
        """Pass a message on to the backend."""
        reply = await self._backend.request(message)
        if isinstance(message, _OF_SCHEDULES):
            self.schedule_changes += 1
            self.schedules_changed.set()
        return reply

    async def in_time(self, message: Request[ReplyT]) -> ReplyT:
        """The same within ``request_timeout_ms``, for a request that nothing cancels.

        Raises:
          RequestTimeout: there was no answer.
        """
        timeout = self.request_timeout
        with trio.move_on_after(timeout):
            return await self.request(message)
        raise self.no_answer(message, timeout)

    def no_answer(self, message: Request[Any], timeout: float) -> RequestTimeout:
        """The error of a request that was not answered."""
        return RequestTimeout(
            f"{type(message).__name__} of instance {getattr(message, 'instance_id', None)!r} got "
            f"no answer within {timeout:g} s; it may have been carried out{self.because()}"
        )

    @property
    def alone(self) -> bool:
        """Whether no other process can use the store: one in memory."""
        return bool(getattr(self._backend, "alone", False))

    def every(self, seconds: float) -> float:
        """Seconds between two looks at what nobody may have told of: never, where nobody else can
        use the store. A simulated store has a slower ``pace``."""
        return math.inf if self.alone else seconds * getattr(self._backend, "pace", 1.0)

    def because(self) -> str:
        """What keeps the backend from answering, in brackets, if it knows."""
        trouble = getattr(self._backend, "trouble", None)
        return "" if trouble is None else f" ({trouble})"

    @property
    def request_timeout(self) -> float:
        """Seconds that a request waits for its answer where nothing cancels it."""
        return self.config.request_timeout_ms / 1000

    def signals(self) -> AsyncIterator[SignalBatch]:
        """Taken already: the services read them."""
        raise SdkError("the signals of an open backend are read by its services")

    def attach(self, block: Watched) -> None:
        """Signals and heartbeats for this block from now on."""
        self._blocks[block.instance_id] = block
        if block.instance_id in self._early:
            block.deliver(*self._early.pop(block.instance_id))

    def detach(self, block: Watched) -> None:
        """No more; a block that is not attached is fine."""
        if self._blocks.get(block.instance_id) is block:
            del self._blocks[block.instance_id]
        self._early.pop(block.instance_id, None)

    def start_soon(self, function: Callable[..., Awaitable[object]], *args: object) -> None:
        """Run something beside the body, whose failure is logged and no more."""
        if self.closed:
            return
        self._nursery.start_soon(_logged, function, *args)

    def start_service(self, service: EndsOfRuns) -> None:
        """Have a watch for ends run until the backend is closed."""
        self._nursery.start_soon(keep_running, service.watch)

    @trio.lowlevel.enable_ki_protection
    async def uninterrupted(self, function: Callable[..., Awaitable[T]], *args: object) -> T:
        """Run ``function`` in a task of the services and wait for it, whatever comes.

        Neither a cancelled scope nor Ctrl-C ends the wait: ``function`` needs a timeout.
        """
        if self.closed:
            raise SdkError("the backend was closed; it must outlive the blocks on it")
        answer = Answer()
        self._nursery.start_soon(_run_for, answer, function, *args, name=function)
        result: T = await answer.wait(grace=math.inf)
        return result

    # ---- the services

    async def watch(self) -> None:
        """Hand what the backend reports to the blocks."""
        async for batch in self._backend.signals():
            if batch.news:
                self.ends.tell()
                for told in list(self.on_news):
                    told()
            for instance, signal in batch.signals:
                if instance in self._blocks:
                    self._blocks[instance].deliver(signal, batch.version)
                else:  # between its registration and attach
                    self._early[instance] = signal, batch.version
            for instance, checkpoint_id in batch.hints:
                if instance in self._blocks:
                    self._blocks[instance].hint(checkpoint_id)
            for instance, lease in batch.lost:
                if instance in self._blocks:
                    self._blocks[instance].lose(lease)

    async def heartbeat(self) -> None:
        """One message an interval for all blocks."""
        interval = self.config.heartbeat_interval_ms / 1000
        while True:
            await trio.sleep(interval)
            if self._blocks:
                await self._backend.request(Heartbeats(instance_ids=tuple(self._blocks)))

    async def watch_lag(self) -> None:
        """Warn once of a body that keeps the loop from running for a heartbeat's interval."""
        interval = self.config.heartbeat_interval_ms / 1000
        tick = interval / 4  # what blocks for an interval is seen as 3/4 of it at least
        while True:
            planned = trio.current_time() + tick
            await trio.sleep_until(planned)
            lag = trio.current_time() - planned
            if lag > interval - tick and self._blocks and not self._told_of_lag:
                self._told_of_lag = True
                logs.loop_blocked(seconds=lag, interval=interval)


@trio.lowlevel.enable_ki_protection
async def keep_running(service: Callable[[], Awaitable[None]]) -> None:
    """Run a service; where it fails, say so once, and start it again."""
    delay = RETRY_DELAY
    said = ""
    while True:
        started = trio.current_time()
        try:
            await service()
        except Exception as exc:
            if trio.current_time() - started > WORKS_AGAIN:
                delay, said = RETRY_DELAY, ""
            if str(exc) != said:
                said = str(exc)
                logs.service_failed(exc_info=exc, task=service.__name__, error=said)
        await trio.sleep(delay)
        delay = min(2 * delay, LONGEST_DELAY)


@trio.lowlevel.enable_ki_protection
async def _logged(function: Callable[..., Awaitable[object]], *args: object) -> None:
    try:
        await function(*args)
    except Exception as exc:
        logs.request_failed(task=getattr(function, "__name__", function), error=str(exc))


@trio.lowlevel.enable_ki_protection
async def _run_for(
    answer: Answer, function: Callable[..., Awaitable[object]], *args: object
) -> None:
    # Shielded: a backend that is closed meanwhile waits, or its Cancelled would go out there.
    with trio.CancelScope(shield=True):
        result = await outcome.acapture(function, *args)
    answer.give(result)
