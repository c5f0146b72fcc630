"""What must hold of a fleet, seen from outside: the messages that the store has carried out.

It keeps books of its own, by what each message says and what it was answered, and compares them
with what is stored. It knows nothing of how the store decides.
"""

from __future__ import annotations

import itertools
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

import msgspec

from ...ids import DURABLE
from ...messages import (
    CancelChildren,
    Checkpoint,
    CheckpointReply,
    Claimed,
    ClaimRuns,
    FireSchedule,
    Marked,
    MarkRuns,
    RecordOutcome,
    RecoverRuns,
    Request,
    Rerun,
    SendSignal,
    SetQueues,
    StartRuns,
)
from ...types import FINISHED, InstanceStatus
from .limits import Held, Limits
from .process import Process
from .store import ENDED
from .timeline import FOUND

MOST_MESSAGES = 200_000
"""Messages for each simulation."""


class Finding(msgspec.Struct, frozen=True):
    """Something that must not be. ``rule`` names what is broken, ``text`` how."""

    rule: str
    text: str
    instance_id: str = ""
    """Of which instance, where it is of one."""

    def __str__(self) -> str:
        return f"{self.rule}: {self.text}"


class Audit:
    """The books of one simulation."""

    def __init__(self, db: sqlite3.Connection, say: Callable[[str, str], None]) -> None:
        """``say``: who tells what, into the timeline."""
        self._db = db
        self._say = say
        self.findings: list[Finding] = []
        self._held: dict[str, Held] = {}
        self._saved: dict[str, dict[str, bytes]] = defaultdict(dict)
        """What was saved, by instance and id."""
        self._ended: dict[str, InstanceStatus] = {}
        self.started: dict[str, None] = {}
        self._limits = Limits(self.finding)
        self.touched: Counter[str] = Counter()
        """How much has happened to each instance."""
        self.of_schedules: set[str] = set()
        """Instances that slots have started."""
        self._again: set[str] = set()
        """Instances that were run again."""
        self._carried_out = 0

    def finding(self, rule: str, text: str, instance_id: str = "") -> None:
        """Note what must not be; the first one counts."""
        self.findings.append(Finding(rule, text, instance_id))
        self._say(FOUND, f"{rule}: {text}")

    def note(self, process: Process, message: Request[Any], reply: Any, now: float) -> None:
        """A message of a process was carried out; ``now``: wall time."""
        self._carried_out += 1
        if self._carried_out == MOST_MESSAGES:
            self.finding("it comes to an end", f"{MOST_MESSAGES} messages were not enough")
        check = _CHECKS.get(type(message))
        if check is not None:
            check(self, process, message, reply, now)
        if isinstance(message, _MAY_END):
            self._forget_lost()
        lease, instance = getattr(message, "lease", None), getattr(message, "instance_id", None)
        if instance is not None:
            self.touched[instance] += 1
        if lease is not None and instance is not None and not isinstance(message, RecordOutcome):
            self._check_lease(instance, lease, message)

    # ---- leases

    def _check_lease(self, instance: str, lease: int, message: Request[Any]) -> None:
        held = self._held.get(instance)
        if held is not None and lease < held.lease:
            self.finding(
                "an old lease writes nothing",
                f"{type(message).__name__} of {instance!r} under lease {lease} was carried out,"
                f" and {held.process.name} has lease {held.lease}",
            )

    def _claimed(self, process: Process, message: ClaimRuns, reply: Claimed, now: float) -> None:
        self._forget_given_back(process)
        for run in reply.runs:
            held = self._held.get(run.instance_id)
            if held is not None and held.process is not process and held.process.holds_leases:
                self.finding(
                    "a run is in one place",
                    f"{process.name} took {run.instance_id!r}, which {held.process.name} has",
                )
            if run.instance_id in self._ended:
                self.finding(
                    "what has ended is not run",
                    f"{process.name} took {run.instance_id!r}, which is "
                    f"{self._ended[run.instance_id]}",
                )
            self.touched[run.instance_id] += 1
            self._check_turn(run.instance_id, run.queue)
            self._held[run.instance_id] = Held(
                run.lease,
                process,
                run.queue,
                saved_before=frozenset(self._saved[run.instance_id]),
            )
            self._limits.note_begin(run.instance_id, run.queue, now)
        self._limits.check({run.queue for run in reply.runs}, self._held.values())

    def _check_turn(self, instance: str, queue: str) -> None:
        """Of a key with one turn no other run works, and one that begins is the next one."""
        if self._limits.key_limit(queue) != 1:
            return
        of_key = self._db.execute(
            "SELECT o.instance_id, o.state IN ('ready', 'behind') AND (-o.priority, o.ready_us)"
            " < (-m.priority, m.ready_us) FROM runtara_trio_runs m JOIN runtara_trio_runs o"
            " ON o.queue = m.queue AND o.tenant_id = m.tenant_id AND o.key = m.key"
            " WHERE m.instance_id = ? AND m.key <> '' AND o.instance_id <> m.instance_id",
            (instance,),
        ).fetchall()
        for other, goes_before in of_key:
            held = self._held.get(other)
            if held is not None and held.process.holds_leases:
                self.finding("turns are kept", f"{instance!r} began, and {other!r} has its turn")
            if goes_before and not self._limits.has_begun(instance):
                self.finding("turns are kept", f"{instance!r} began before {other!r}")

    def _recovered(self, process: Process, message: RecoverRuns, reply: Any, now: float) -> None:
        lost = self._forget_lost()
        for instance, held in lost.items():
            if held.process.holds_leases:
                self.finding(
                    "a run is in one place",
                    f"{process.name} made {instance!r} ready, which {held.process.name} has",
                )

    def _forget_lost(self) -> dict[str, Held]:
        """What has another lease by now, or none: it was ended, or made ready again."""
        epochs = dict(self._db.execute("SELECT instance_id, epoch FROM runtara_trio_leases"))
        lost = {
            instance: held
            for instance, held in self._held.items()
            if epochs.get(instance) != held.lease
        }
        for instance in lost:
            del self._held[instance]
        return lost

    def _forget_given_back(self, process: Process) -> None:
        """What a process has taken and never heard of, it has given back with its next claim."""
        nobodys = {
            instance
            for (instance,) in self._db.execute(
                "SELECT instance_id FROM runtara_trio_leases WHERE owner = ''"
            )
        }
        for instance in nobodys & self._held.keys():
            if self._held[instance].process is process:
                del self._held[instance]

    # ---- places of queues

    def _marked(self, process: Process, message: MarkRuns, reply: Marked, now: float) -> None:
        changed: set[str] = set()
        for works, instances in ((False, message.waiting), (True, message.working)):
            for instance in instances:
                held = self._held.get(instance)
                if held is None or held.process is not process or instance in reply.refused:
                    continue
                if works and not held.works:  # else it has had its place all the time
                    changed.add(held.queue)
                held.works = works
        self._limits.check(changed, self._held.values())

    def _set_queues(self, process: Process, message: SetQueues, reply: object, now: float) -> None:
        self._limits.set_queues(message.queues)

    # ---- what is saved

    def _checkpoint(
        self, process: Process, message: Checkpoint, reply: CheckpointReply, now: float
    ) -> None:
        instance, checkpoint_id = message.instance_id, message.checkpoint_id
        saved = self._saved[instance]
        if not reply.found:
            if checkpoint_id in saved and checkpoint_id.startswith(DURABLE):
                self.finding(
                    "what is saved stays", f"{checkpoint_id!r} of {instance!r} was saved twice"
                )
            saved[checkpoint_id] = message.state
            return
        held = self._held.get(instance)
        if (
            held is not None
            and held.lease == message.lease
            and checkpoint_id.startswith(DURABLE)
            and checkpoint_id in held.saved_before
        ):
            self.finding(
                "a saved step is not run again",
                f"{process.name} made {checkpoint_id!r} of {instance!r}, which was saved before",
            )

    def _started(self, process: Process, message: StartRuns, reply: Any, now: float) -> None:
        self.started.update((run.instance_id, None) for run in message.runs)

    def _fired(self, process: Process, message: FireSchedule, reply: Any, now: float) -> None:
        for instance in reply.started:
            if instance in self.started:
                self.finding("a slot is run once", f"{instance!r} was started twice")
            self.started[instance] = None
            self.of_schedules.add(instance)
            self._check_overlap(instance)

    def _check_overlap(self, instance: str) -> None:
        """A slot of a schedule that skips is not run beside another one."""
        name = instance.rpartition("@")[0]
        (overlap,) = self._db.execute(
            "SELECT json_extract(info, '$.overlap') FROM runtara_trio_schedules WHERE name = ?",
            (name,),
        ).fetchone() or ("",)
        if overlap != "skip":
            return
        for other in self.of_schedules - self._again - {instance}:
            if other.startswith(f"{name}@") and self._status(other) not in FINISHED:
                self.finding("slots do not overlap", f"{instance!r} began beside {other!r}")

    # ---- ends

    def _outcome(self, process: Process, message: RecordOutcome, reply: Any, now: float) -> None:
        instance = message.instance_id
        held = self._held.get(instance)
        if held is not None and held.lease > message.lease:
            if self._status(instance) is not message.status:
                return
            self.finding(
                "an old lease writes nothing",
                f"{process.name} ended {instance!r} under lease {message.lease}, and "
                f"{held.process.name} has lease {held.lease}",
            )
        if reply.cancel is not None:
            return  # it is to be cancelled first
        if held is not None and held.lease == message.lease:
            del self._held[instance]
        if message.status in FINISHED:
            self._ended[instance] = message.status
        if message.next is not None and message.next.counts:
            self._forget_ends()  # its children are tried again with it
        if message.status in (InstanceStatus.FAILED, InstanceStatus.CANCELLED):
            self._check_cascade(instance, message.status)

    def _check_cascade(self, instance: str, status: InstanceStatus) -> None:
        left = self._db.execute(
            "SELECT i.instance_id FROM runtara_trio_runs r JOIN instances i USING (instance_id)"
            f" WHERE r.parent_id = ? AND i.status NOT IN {ENDED}"
            " AND NOT EXISTS (SELECT 1 FROM pending_signals s WHERE s.instance_id = i.instance_id"
            " AND s.signal_type = 'cancel')",
            (instance,),
        ).fetchall()
        if left:
            self.finding(
                "a cascade is part of the end",
                f"{instance!r} is {status}, and its child {left[0][0]!r} goes on",
            )

    def _rerun(self, process: Process, message: Rerun, reply: Any, now: float) -> None:
        self._again.update(message.instance_ids)
        self._forget_ends()

    def _forget_ends(self) -> None:
        """Some that had ended are to be run again."""
        for (instance,) in self._db.execute(
            f"SELECT instance_id FROM instances WHERE status NOT IN {ENDED}"
        ):
            self._ended.pop(instance, None)

    def ended(self) -> list[str]:
        """The instances that have ended, as of now."""
        return [
            instance
            for (instance,) in self._db.execute(
                f"SELECT instance_id FROM instances WHERE status IN {ENDED}"
            )
        ]

    def _status(self, instance: str) -> InstanceStatus:
        found = self._db.execute(
            "SELECT status FROM instances WHERE instance_id = ?", (instance,)
        ).fetchone()
        return InstanceStatus(found[0]) if found else InstanceStatus.UNKNOWN

    # ---- at the end

    def check_slots(self, every: Mapping[str, int]) -> None:
        """No slot is left out; ``every``: seconds, by the name of a schedule."""
        for name, seconds in every.items():
            began = f"{name}@"
            times = sorted(
                datetime.fromisoformat(instance.removeprefix(began)).timestamp()
                for instance in self.of_schedules
                if instance.startswith(began)
            )
            for earlier, later in itertools.pairwise(times):
                if later - earlier > seconds:
                    self.finding(
                        "no slot is left out",
                        f"{name!r} was run at {earlier:.0f} and then at {later:.0f}, every "
                        f"{seconds} s",
                    )

    def check_stored(self) -> None:
        """What was acknowledged is stored."""
        for instance in self.started:
            if self._status(instance) is InstanceStatus.UNKNOWN:
                self.finding("what is started is there", f"{instance!r} is not stored")
        for instance, saved in self._saved.items():
            stored = dict(
                self._db.execute(
                    "SELECT checkpoint_id, state FROM checkpoints WHERE instance_id = ?",
                    (instance,),
                )
            )
            for checkpoint_id, state in saved.items():
                if checkpoint_id.startswith(DURABLE) and stored.get(checkpoint_id) != state:
                    self.finding(
                        "what is saved stays",
                        f"{checkpoint_id!r} of {instance!r} was saved, and is not stored so",
                    )
        for instance, status in self._ended.items():
            if (now := self._status(instance)) is not status:
                self.finding("an end stands", f"{instance!r} was {status}, and is {now}")
        for parent, child in self._db.execute(
            "SELECT p.instance_id, c.instance_id FROM runtara_trio_runs r"
            " JOIN instances c USING (instance_id) JOIN instances p ON p.instance_id = r.parent_id"
            f" WHERE p.status IN {ENDED}"
            f" AND c.status NOT IN {ENDED}"
        ).fetchall():
            self.finding(
                "a family ends together", f"{parent!r} has ended, and its child {child!r} has not"
            )


Check = Callable[[Audit, Process, Any, Any, float], None]
_CHECKS: Mapping[type[Request[Any]], Check] = {
    ClaimRuns: Audit._claimed,
    RecoverRuns: Audit._recovered,
    MarkRuns: Audit._marked,
    Checkpoint: Audit._checkpoint,
    StartRuns: Audit._started,
    FireSchedule: Audit._fired,
    RecordOutcome: Audit._outcome,
    Rerun: Audit._rerun,
    SetQueues: Audit._set_queues,
}
"""What is noted of which message."""

_MAY_END = (CancelChildren, RecordOutcome, SendSignal)
"""What may end others than its own instance."""
