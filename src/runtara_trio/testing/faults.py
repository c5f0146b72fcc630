"""The backend of one process, which fails at one boundary."""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from typing import Any, cast

import msgspec
import trio

from ..backend import Backend, SignalBatch
from ..errors import RequestTimeout, SignalRefused
from ..ids import own_record
from ..messages import (
    AcknowledgeSignal,
    AnnounceWorker,
    CancelChildren,
    Checkpoint,
    CheckpointReply,
    Claimed,
    ClaimRuns,
    Done,
    Ends,
    EndsSince,
    FreeLease,
    GetResults,
    GoOn,
    Hold,
    Marked,
    MarkRuns,
    OutcomeReply,
    RecordEvent,
    RecordOutcome,
    RecordRetry,
    RecoverRuns,
    Registered,
    ReplyT,
    Request,
    Results,
    SendSignal,
    Sleep,
    StartRuns,
    StopWaiting,
    TakeSignal,
)
from ..types import SignalType
from .world import World


class Fault(enum.StrEnum):
    """What happens at a boundary."""

    CRASH_BEFORE = "crash before the save"
    CRASH_AFTER = "crash after the save"
    LOST_REPLY = "lost reply"
    CANCEL = "cancel"
    PAUSE = "pause"
    STOP = "local stop"
    DRAIN = "drain"
    """Of a workflow: its worker drains, and another one goes on."""
    TAKEOVER = "takeover"
    """Of a workflow: its worker is taken for dead, and another one has the run."""


OF_WORKFLOWS = frozenset({Fault.DRAIN, Fault.TAKEOVER})


class Case(msgspec.Struct, frozen=True):
    """One fault at one boundary. Its text, ``fault at boundary``, names it."""

    fault: Fault
    boundary: str

    def __str__(self) -> str:
        return f"{self.fault} at {self.boundary}"


class Crash(BaseException):
    """The process is dead: nothing in it may handle this."""


_VERBS: dict[type[Request[Any]], str] = {
    Checkpoint: "checkpoint",
    Sleep: "sleep",
    TakeSignal: "wait_for_signal",
    RecordRetry: "retry",
    RecordEvent: "event",
    RecordOutcome: "end",
    StartRuns: "start",
    CancelChildren: "cancel",
}
"""The messages that are boundaries: what a program, or its end, writes."""

_OF_SERVICES = (StopWaiting, AcknowledgeSignal, Hold, GoOn, AnnounceWorker)


MOST_RECOVERIES = 1000

PASSES = 3
"""Of Trio's scheduler, in which the watch hands a signal to the block: it has come before the
boundary in every run, in whichever order Trio lets tasks run."""


class Boundaries:
    """Gives every boundary of a case a name, the same in every run."""

    def __init__(self, instance_id: str) -> None:
        """``instance_id``: of the program; its children's are named as well."""
        self._instance_id = instance_id
        self._seen: Counter[str] = Counter()
        self.names: list[str] = []

    def name(self, message: Request[Any]) -> str | None:
        """The name of a message; None: it is not a boundary."""
        verb = _VERBS.get(type(message))
        instance = getattr(message, "instance_id", None)
        if verb is None or instance is None:
            return None
        kind, named = own_record(getattr(message, "checkpoint_id", ""))
        if isinstance(message, RecordRetry):
            named = f"{named}, {message.attempt}"
        elif isinstance(message, RecordEvent):
            named = message.subtype or message.type
        elif isinstance(message, StartRuns):
            named = message.runs[0].instance_id
        elif isinstance(message, CancelChildren):
            named = message.block
        what = f"{kind or verb} {named!r}" if named or kind else verb
        if instance != self._instance_id:
            what += f" of {instance!r}"
        self._seen[what] += 1
        name = what if self._seen[what] == 1 else f"{what}, time {self._seen[what]}"
        self.names.append(name)
        return name


class Process:
    """A backend as one process has it: when that dies, nothing goes through any more."""

    def __init__(
        self,
        store: Backend,
        instance_id: str,
        boundaries: Boundaries,
        case: Case | None,
        world: World,
    ) -> None:
        self._store = store
        self._instance_id = instance_id
        self._boundaries = boundaries
        self._case = case
        self._world = world
        self._leases: dict[str, int] = {}
        self._claim: ClaimRuns | None = None
        self.scope = trio.CancelScope()
        """Around the program: what a local stop cancels, and a crash."""
        self.fired = False
        self.dead = False
        self.alone = True
        self.drain: Callable[[], object] = lambda: None
        """Has the worker drain, where there is one."""

    def signals(self) -> AsyncIterator[SignalBatch]:
        return self._store.signals()

    async def request(self, message: Request[ReplyT], /) -> ReplyT:
        if self.dead:
            return of_the_dead(message)
        name = self._boundaries.name(message)
        if self._case is None or name != self._case.boundary or self.fired:
            return await self._pass(message)
        self.fired = True
        match self._case.fault:
            case Fault.CRASH_BEFORE:
                await self._crash()
            case Fault.CRASH_AFTER:
                with trio.CancelScope(shield=True):
                    await self._pass(message)
                await self._crash()
            case Fault.LOST_REPLY:
                return await self._lose_reply(message)
            case Fault.CANCEL:
                await self._signal(SignalType.CANCEL)
            case Fault.PAUSE:
                await self._signal(SignalType.PAUSE)
            case Fault.STOP:
                self.scope.cancel()
            case Fault.DRAIN:
                self.drain()
            case Fault.TAKEOVER:
                with trio.CancelScope(shield=True):
                    await self._take_over(getattr(message, "instance_id"))  # noqa: B009
        return await self._pass(message)

    async def _pass(self, message: Request[ReplyT]) -> ReplyT:
        reply = await self._store.request(message)
        if isinstance(reply, Registered):
            self._leases[self._instance_id] = reply.lease
        if isinstance(reply, Claimed) and isinstance(message, ClaimRuns) and reply.runs:
            taken = {one.instance_id: one.lease for one in reply.runs}
            self._leases.update(taken)
            self._claim = message
            if self.dead:  # it died meanwhile, and with it what it had taken
                await self._free(taken)
        if isinstance(message, Hold) and self.fired:  # by the pause of the case
            await self._signal(SignalType.RESUME)
        return reply

    async def _crash(self) -> None:
        self.dead = True
        self._world.alive = False
        self.scope.cancel()
        with trio.CancelScope(shield=True):
            await self._free(dict(self._leases))
        raise Crash

    async def _free(self, leases: Mapping[str, int]) -> None:
        """The one who has these leases is dead; a workflow's runs are found by a sweep."""
        for instance, lease in leases.items():
            await self._store.request(FreeLease(instance_id=instance, lease=lease))
        if self._claim is not None:
            await self._store.request(RecoverRuns(dead=("",), max_recoveries=MOST_RECOVERIES))

    async def _take_over(self, instance_id: str) -> None:
        """Another worker takes the run, and dies before it has done anything."""
        assert self._claim is not None
        waits = MarkRuns(waiting=(instance_id,))  # so that no death is counted
        await self._store.request(waits)
        await self._free({instance_id: self._leases[instance_id]})
        reply = await self._store.request(self._claim)
        if reply.runs:  # else its own worker was faster: the run is another one all the same
            taken = {one.instance_id: one.lease for one in reply.runs}
            await self._store.request(MarkRuns(waiting=tuple(taken)))
            await self._free(taken)

    async def _lose_reply(self, message: Request[ReplyT]) -> ReplyT:
        """Carried out, and the answer did not arrive: what a client over a network then does."""
        first = await self._pass(message)
        if isinstance(message, (RecordEvent, RecordOutcome)):
            raise RequestTimeout(
                f"the reply to {self._case} was lost; it may have been carried out"
            )
        again = await self._pass(message)
        if isinstance(first, CheckpointReply) and not first.found:
            return first  # its own state is not found
        return again

    async def _signal(self, kind: SignalType) -> None:
        with trio.CancelScope(shield=True), suppress(SignalRefused):  # what it has started goes on
            await self._store.request(
                SendSignal(instance_id=self._instance_id, type=kind, payload=b"of the test")
            )
            for _ in range(PASSES):
                await trio.lowlevel.checkpoint()


def of_the_dead(message: Request[ReplyT]) -> ReplyT:
    """The answer to a dead process: services end quietly; whoever else asks is dead as well."""
    if isinstance(message, RecordOutcome):
        return cast(ReplyT, OutcomeReply(cancel=None))
    if isinstance(message, GetResults):
        return cast(ReplyT, Results(results={}))
    if isinstance(message, EndsSince):
        return cast(ReplyT, Ends(last=0, ended=()))
    if isinstance(message, MarkRuns):
        return cast(ReplyT, Marked())
    if isinstance(message, _OF_SERVICES):
        return cast(ReplyT, Done())
    raise Crash
