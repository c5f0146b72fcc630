"""Instances as tables for people and as JSON for scripts."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import msgspec
from rich.console import Console
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from ..ids import MESSAGES, TIMED_OUT, own_record, users_id
from ..sdk.workflow import DEFAULT_QUEUE
from ..types import (
    CheckpointRecord,
    Event,
    InstanceDetails,
    InstanceStatus,
    InstanceSummary,
    RunInfo,
    RunState,
    StepInfo,
    StepKind,
    WorkerInfo,
)

_COLOURS = {
    InstanceStatus.RUNNING: "green",
    InstanceStatus.SUSPENDED: "yellow",
    InstanceStatus.COMPLETED: "blue",
    InstanceStatus.FAILED: "red",
    InstanceStatus.CANCELLED: "magenta",
}


def console() -> Console:
    """Where stories go. Piped, a line is as long as it must be: nothing is cut or wrapped."""
    return Console() if sys.stdout.isatty() else Console(width=100_000, highlight=False)


def display(table: Table | Tree) -> None:
    """Print a table; piped, without the blanks that make its lines equally long."""
    printer = console()
    with printer.capture() as captured:
        printer.print(table)
    for line in captured.get().splitlines():
        print(line if printer.is_terminal else line.rstrip())


def listing(*titles: str) -> Table:
    """An empty table. Where a terminal is narrow, ids and texts fold, nothing else does."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in titles:
        table.add_column(title, overflow="fold", no_wrap=title in _NARROW, min_width=len(title))
    return table


_NARROW = {"status", "age", "number", "when (UTC)", "bytes"}


@contextmanager
def progress(doing: str) -> Iterator[Callable[[int], None]]:
    """A line on stderr that counts up while something is long; on a terminal only."""
    console = Console(stderr=True)
    with console.status(doing) as status:
        yield lambda count: status.update(f"{doing}: {count:,}")


def plain(text: str) -> Text:
    """Somebody's text as it is: no markup, and nothing that a terminal would act on."""
    shown = (c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text)
    return Text("".join(shown))


def _last_checkpoint(one: InstanceSummary) -> str | None:
    """The user's id that a checkpoint belongs to: over QUIC the SDK's own records are checkpoints
    too, and the table shows the id that each was saved for."""
    return None if one.checkpoint_id is None else users_id(one.checkpoint_id)


def instances_table(
    instances: Iterable[InstanceSummary], now: datetime, workers: Iterable[WorkerInfo] = ()
) -> Table:
    """The list. Ages are of the newest that happened: the end, the start, the creation."""
    rows = list(instances)
    of_runs = ["workflow"] if any(one.run is not None for one in rows) else []
    table = listing("instance", "tenant", *of_runs, "status", "age", "last checkpoint", "note")
    for one in rows:
        newest = one.finished_at or one.started_at or one.created_at
        table.add_row(
            plain(one.instance_id),
            plain(one.tenant_id),
            *([plain(_workflow(one.run))] if of_runs else []),
            status_text(one.status),
            "" if newest is None else age(now, newest),
            plain(_last_checkpoint(one) or ""),
            note(one, now, workers),
        )
    return table


def _workflow(run: RunInfo | None) -> str:
    """The workflow of a run, and its queue where that is not the default."""
    if run is None:
        return ""
    queue = "" if run.queue == DEFAULT_QUEUE else f" in {run.queue}"
    return f"{run.workflow} {run.version}{queue}"


def details_table(
    details: InstanceDetails, now: datetime, workers: Iterable[WorkerInfo] = ()
) -> Table:
    """One instance, a line a fact."""
    one = details.summary
    open_steps = [step for step in details.open_steps if step.outcome is None]
    return facts(
        ("instance", one.instance_id),
        ("tenant", one.tenant_id),
        ("status", status_text(one.status)),
        ("note", note(one, now, workers)),
        *(() if one.run is None else _run_facts(one.run)),
        *(_doing(step, now) for step in open_steps),
        ("held by", details.holder),
        ("created", _moment(one.created_at, now)),
        ("started", _moment(one.started_at, now)),
        ("finished", _moment(one.finished_at, now)),
        ("last checkpoint", _last_checkpoint(one)),
        ("checkpoints", str(details.checkpoints)),
        ("events", str(details.events)),
        ("signals not read", ", ".join(details.unread_signals)),
        ("output", None if details.output is None else readable(details.output)),
        ("error", details.error),
    )


_DOING = {
    StepKind.SIGNAL: "waits for signal",
    StepKind.MESSAGE: "waits for message",
    StepKind.SLEEP: "sleeps in",
}


def _doing(step: StepInfo, now: datetime) -> tuple[str, str]:
    """What an instance does in a step, as a person says it, and since when."""
    since = "" if step.started_at is None else f" for {age(now, step.started_at)}"
    return _DOING.get(step.kind, "does"), f"{step.step}{since}"


def facts(*pairs: tuple[str, object]) -> Table:
    """A line a fact; those that are not set are left out."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in pairs:
        if value not in (None, ""):
            table.add_row(name, value if isinstance(value, Text) else plain(str(value)))
    return table


def _run_facts(run: RunInfo) -> list[tuple[str, object]]:
    return [
        ("workflow", f"{run.workflow} {run.version}"),
        ("queue", run.queue),
        ("key", run.key),
        ("priority", str(run.priority) if run.priority else None),
        ("run", run.state.value),
        ("parent", run.parent_id),
        ("waits for", ", ".join(_awaited(run))),
    ]


def _awaited(run: RunInfo) -> list[str]:
    """What an unloaded run waits for."""
    found = []
    for one in run.waiting_for:
        name = one.removeprefix(MESSAGES).removesuffix("::")
        found.append(f"the signal {one}" if name == one else f"a message {name}")
    return [*found, *(["its children"] if run.waiting_for_children else [])]


def events_table(events: Iterable[Event]) -> Table:
    """The history, a line an event."""
    table = listing("number", "when (UTC)", "event", "checkpoint", "payload")
    for event in events:
        kind = event.type if event.subtype is None else f"{event.type} {event.subtype}"
        table.add_row(
            str(event.id),
            "" if event.created_at is None else _time(event.created_at),
            plain(kind),
            plain(event.checkpoint_id or ""),
            plain(_first_line(event.payload)),
        )
    return table


def checkpoints_table(checkpoints: Iterable[CheckpointRecord], now: datetime) -> Table:
    """Stored checkpoints: their ids whole, their states as far as a line goes."""
    table = listing("checkpoint", "age", "bytes", "state")
    for one in checkpoints:
        table.add_row(
            plain(one.checkpoint_id),
            "" if one.created_at is None else age(now, one.created_at),
            str(len(one.state)),
            plain(_first_line(state_of(one))),
        )
    return table


def event_json(event: Event) -> dict[str, Any]:
    """An event for scripts; its payload as text, or ``base64:…`` where it is not UTF-8."""
    return {**msgspec.to_builtins(event), "payload": readable(event.payload)}


def checkpoint_json(one: CheckpointRecord) -> dict[str, Any]:
    """A checkpoint for scripts; its state as text, or ``base64:…`` where it is not UTF-8."""
    return {**msgspec.to_builtins(one), "state": readable(state_of(one))}


def state_of(one: CheckpointRecord) -> bytes:
    """The state; of the SDK's own records what they stand for."""
    kind, _ = own_record(one.checkpoint_id)
    if kind in ("wake", "deadline", "timeout") and len(one.state) == 8:
        moment = datetime.fromtimestamp(int.from_bytes(one.state, "big") / 1000, UTC)
        return f"{_time(moment)} UTC".encode()
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


def _first_line(data: bytes) -> str:
    """The beginning of some bytes, as text."""
    line = readable(data[:400]).split("\n", 1)[0]
    return line[:100] if len(data) <= len(line[:100].encode()) else line[:100] + "…"


def note(one: InstanceSummary, now: datetime, workers: Iterable[WorkerInfo] = ()) -> str:
    """What an operator has to know beside the status."""
    parts = []
    if one.run is not None and not one.status.finished and not one.held:
        ready = one.run.state in (RunState.READY, RunState.SUSPECT)
        unknown = unknown_to(one.run, one.tenant_id, workers) if ready else None
        parts.append(unknown or _standing(one.run, now))
    elif one.status is InstanceStatus.RUNNING and not one.held:
        parts.append(
            "its process has died: start it to go on" if one.ours else "a runtara-core runs it"
        )
    if one.status is InstanceStatus.SUSPENDED and one.held:
        parts.append("held: resume lets it go on")
    if one.signal is not None:
        parts.append(f"{one.signal.value} pending")
    if one.sleep_until is not None and one.sleep_until > now and not one.status.finished:
        parts.append(f"sleeps for {age(one.sleep_until, now)}")
    return "; ".join(parts)


def _standing(run: RunInfo, now: datetime) -> str:
    """Where a run stands that no worker has."""
    awaited = _awaited(run)
    waits = f"waits for {' or '.join(awaited)}" if awaited else ""
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


def workers_table(workers: Iterable[WorkerInfo], now: datetime) -> Table:
    """The workers that live, a line each."""
    table = listing(
        "worker", "process", "workflows", "queues", "working", "loaded", "looked", "note"
    )
    for one in workers:
        parts = ["draining"] if one.draining else []
        if one.oldest_boundary is not None and (now - one.oldest_boundary).total_seconds() > 60:
            parts.append(f"no boundary for {age(now, one.oldest_boundary)}")
        table.add_row(
            plain(one.name),
            plain(one.holder),
            plain(", ".join(f"{name} {version}" for name, version in one.workflows)),
            plain(", ".join(one.queues)),
            f"{one.working}/{one.slots}",
            str(one.loaded),
            f"{age(now, one.last_look)} ago",
            "; ".join(parts),
        )
    return table


def age(later: datetime, earlier: datetime) -> str:
    """A duration in its two largest units: ``3d 4h``."""
    seconds = max(0, int((later - earlier).total_seconds()))
    parts = []
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        count, seconds = divmod(seconds, length)
        if count:
            parts.append(f"{count}{unit}")
    return " ".join(parts[:2]) or "0s"


def summary_json(one: InstanceSummary) -> dict[str, Any]:
    """A row of the list for scripts; times are RFC 3339 texts, in UTC."""
    built: dict[str, Any] = msgspec.to_builtins(one)
    return built


def details_json(details: InstanceDetails) -> dict[str, Any]:
    """One instance for scripts: the summary's fields, and what only ``show`` has."""
    output = details.output
    return {
        **summary_json(details.summary),
        "holder": details.holder,
        "output": None if output is None else readable(output),
        "error": details.error,
        "checkpoints": details.checkpoints,
        "events": details.events,
        "unread_signals": details.unread_signals,
        "open_steps": msgspec.to_builtins(details.open_steps),
    }


def readable(data: bytes) -> str:
    """Bytes as text; as ``base64:…`` where they are not valid UTF-8."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return "base64:" + str(msgspec.to_builtins(data))


def size(count: int) -> str:
    """Bytes as people read them: ``3.4 MB``."""
    return decimal(count)


def now() -> datetime:
    return datetime.now(UTC)


def _moment(moment: datetime | None, now: datetime) -> str | None:
    if moment is None:
        return None
    return f"{_time(moment)} UTC ({age(now, moment)} ago)"


def _time(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S}"


def status_text(status: InstanceStatus) -> Text:
    return Text(status.value, style=_COLOURS.get(status, ""))
