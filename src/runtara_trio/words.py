"""What people read of instances, in words: the command line's and the console's."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from .codec.marks import written_by
from .ids import MESSAGES, TIMED_OUT, own_record, users_id
from .sdk.workflow import DEFAULT_QUEUE
from .types import (
    CheckpointRecord,
    InstanceDetails,
    InstanceStatus,
    InstanceSummary,
    RunInfo,
    RunState,
    StepInfo,
    StepKind,
    StepOutcome,
    WorkerInfo,
)


def now() -> datetime:
    return datetime.now(UTC)


def time(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S}"


def age(later: datetime, earlier: datetime) -> str:
    """A duration in its two largest units: ``3d 4h``."""
    seconds = max(0, int((later - earlier).total_seconds()))
    parts = []
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        count, seconds = divmod(seconds, length)
        if count:
            parts.append(f"{count}{unit}")
    return " ".join(parts[:2]) or "0s"


def utc(text: str) -> datetime:
    """A time that somebody has typed; without a zone it is UTC. Raises ValueError."""
    try:
        found = datetime.fromisoformat(text)
        return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    except OverflowError as exc:
        raise ValueError(str(exc)) from exc


def duration(span: timedelta) -> str:
    """``12 ms``, ``3.4 s``, ``2m 5s``."""
    seconds = max(0.0, span.total_seconds())
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    begin = now()
    return age(begin + span, begin)


def readable(data: bytes) -> str:
    """Bytes as text; as ``base64:…`` where they are not valid UTF-8."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return "base64:" + str(msgspec.to_builtins(data))


def shown(data: bytes) -> str:
    """The same for people: of what a codec has made unreadable, which one."""
    by = written_by(data)
    return readable(data) if by is None else f"({by})"


def state_of(one: CheckpointRecord) -> bytes:
    """The state; of the SDK's own records what they stand for."""
    kind, _ = own_record(one.checkpoint_id)
    if kind in ("wake", "deadline", "timeout") and len(one.state) == 8:
        moment = datetime.fromtimestamp(int.from_bytes(one.state, "big") / 1000, UTC)
        return f"{time(moment)} UTC".encode()
    if kind == "ended":
        return b"in time" if one.state == b"\1" else b"too late"
    if kind == "signal":
        return b"(timed out)" if one.state == TIMED_OUT else one.state[1:]
    if kind.startswith("failure"):
        return _failure_text(one.state)
    return one.state


def _failure_text(state: bytes) -> bytes:
    """``type: message`` of a saved failure, where its codec is JSON."""
    try:
        failure: dict[str, Any] = msgspec.json.decode(msgspec.json.decode(state, type=str))
        return f"{failure['type']}: {failure['message']}".encode()
    except (msgspec.DecodeError, LookupError, TypeError):
        return state


def last_checkpoint(one: InstanceSummary) -> str | None:
    """The user's id that a checkpoint belongs to: over QUIC the SDK's own records are checkpoints
    too, and the table shows the id that each was saved for."""
    return None if one.checkpoint_id is None else users_id(one.checkpoint_id)


def workflow(run: RunInfo | None) -> str:
    """The workflow of a run, and its queue where that is not the default."""
    if run is None:
        return ""
    queue = "" if run.queue == DEFAULT_QUEUE else f" in {run.queue}"
    return f"{run.workflow} {run.version}{queue}"


def awaited(run: RunInfo) -> list[str]:
    """What an unloaded run waits for."""
    found = []
    for one in run.waiting_for:
        name = one.removeprefix(MESSAGES).removesuffix("::")
        found.append(f"the signal {one}" if name == one else f"a message {name}")
    return [*found, *(["its children"] if run.waiting_for_children else [])]


def note(one: InstanceSummary, now: datetime, workers: Iterable[WorkerInfo] = ()) -> str:
    """What an operator has to know beside the status."""
    parts = []
    if one.run is not None and not one.status.finished and not one.held:
        ready = one.run.state in (RunState.READY, RunState.SUSPECT)
        unknown = unknown_to(one.run, one.tenant_id, workers) if ready else None
        parts.append(unknown or standing(one.run, now))
    elif one.status is InstanceStatus.RUNNING and not one.held:
        parts.append(
            "its process has died: start it to go on" if one.ours else "a runtara-core runs it"
        )
    elif one.run is not None and one.status is InstanceStatus.RUNNING and one.run.wants_place:
        parts.append(f"waits for a place of the queue {one.run.queue}")
    if one.status is InstanceStatus.SUSPENDED and one.held:
        parts.append("held: resume lets it go on")
    if one.signal is not None:
        parts.append(f"{one.signal.value} pending")
    if one.sleep_until is not None and one.sleep_until > now and not one.status.finished:
        parts.append(f"sleeps for {age(one.sleep_until, now)}")
    return "; ".join(parts)


def waits_for_children(run: RunInfo) -> bool:
    """Of a loaded run that is in no step: whether it waits for what it has started."""
    return run.waits and run.children > 0 and not run.wants_place


def standing(run: RunInfo, now: datetime) -> str:
    """Where a run stands that no worker has."""
    things = awaited(run)
    waits = f"waits for {' or '.join(things)}" if things else ""
    match run.state:
        case RunState.PAUSED:
            return "paused: resume puts it back"
        case RunState.PARKED:
            return f"parked: its worker died {run.recoveries} times in a row; resume tries it again"
        case RunState.WAITING:
            return waits
        case RunState.BEHIND:
            return f"waits for the turn of its key {run.key}"
        case RunState.TIMED:
            due = "" if run.due_at is None else f"ready in {age(run.due_at, now)}"
            return " or ".join(part for part in (waits, due) if part)
        case RunState.RUNNING:
            return "its worker has died: another one takes it"
    return f"waits for a worker of the queue {run.queue}"


def ask_for_workers(rows: Iterable[InstanceSummary]) -> bool:
    """Whether something of these waits for a worker: then a note tells which ones there are."""
    return any(one.run is not None and one.run.state is RunState.READY for one in rows)


def unknown_to(run: RunInfo, tenant_id: str, workers: Iterable[WorkerInfo]) -> str | None:
    """Why no living worker takes a run, if that is so."""
    living = [one for one in workers if not one.draining]
    if not any((run.workflow, run.version) in one.workflows for one in living):
        return f"no live worker knows {run.workflow} {run.version}"
    serving = [one for one in living if run.queue in one.queues]
    if not serving:
        return f"no live worker serves the queue {run.queue}"
    if not any(one.tenant_ids is None or tenant_id in one.tenant_ids for one in serving):
        return f"no live worker serves the tenant {tenant_id}"
    return None


WAITS_FOR_CHILDREN = "waits for its children"
_DOING = {
    StepKind.SIGNAL: "waits for the signal",
    StepKind.MESSAGE: "waits for a message",
    StepKind.SLEEP: "sleeps in",
}


def doing(step: StepInfo, now: datetime) -> str:
    """What an instance does in a step that runs, and since when."""
    since = "" if step.started_at is None else f" for {age(now, step.started_at)}"
    return f"{_DOING.get(step.kind, 'does')} {step.step}{since}"


def innermost(steps: Iterable[StepInfo]) -> list[StepInfo]:
    """Of steps that run, those that no other is inside of."""
    given = list(steps)
    around = {step.parent for step in given}
    return [step for step in given if step.step not in around]


def activities(steps: Iterable[tuple[str, StepInfo]], now: datetime) -> dict[str, str]:
    """What instances do and wait for, by their ids."""
    of_instance: dict[str, list[StepInfo]] = {}
    for instance, step in steps:
        if step.outcome is None:
            of_instance.setdefault(instance, []).append(step)
    return {
        instance: " and ".join(doing(step, now) for step in innermost(some)[:3])
        for instance, some in of_instance.items()
    }


def sentence(details: InstanceDetails, now: datetime, workers: Iterable[WorkerInfo] = ()) -> str:
    """Where an instance stands, in one sentence."""
    one = details.summary
    status = one.status.value
    if one.status.finished:
        when = "" if one.finished_at is None else f" {age(now, one.finished_at)} ago"
        took = ""
        if one.finished_at is not None and one.started_at is not None:
            took = f", after {duration(one.finished_at - one.started_at)}"
        error = f": {details.error.splitlines()[0]}" if details.error else ""
        return f"{status}{when}{took}{error}"
    said = note(one, now, workers)
    inner = innermost(details.open_steps)
    wants_place = one.run is not None and one.run.wants_place  # its wait is over
    running = [] if wants_place else [step for step in inner if step.outcome is None]
    waits = [step for step in inner if step.outcome is StepOutcome.UNLOADED]
    unanswered = any(
        step.kind is StepKind.SIGNAL and step.step not in details.unread_signals
        for step in (*running, *waits)
    )
    if one.held and running:
        said = " and ".join([*(doing(step, now) for step in running[:3]), *filter(None, [said])])
    elif one.held and one.run is not None and waits_for_children(one.run):
        said = " and ".join(filter(None, [WAITS_FOR_CHILDREN, said]))
    elif waits and one.run is not None and one.run.state in (RunState.WAITING, RunState.TIMED):
        said = " or ".join(doing(step, now) for step in waits[:3])
    answered = "; nobody has answered" if unanswered and one.signal is None else ""
    return f"{status}: {said}{answered}" if said else status
