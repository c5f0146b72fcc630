"""Instances as tables for people and as JSON for scripts."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime

from rich.console import Console
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from .. import words
from ..codec.marks import written_by
from ..types import (
    CheckpointRecord,
    Event,
    InstanceDetails,
    InstanceStatus,
    InstanceSummary,
    RunInfo,
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
            *([plain(words.workflow(one.run))] if of_runs else []),
            status_text(one.status),
            "" if newest is None else words.age(now, newest),
            plain(words.last_checkpoint(one) or ""),
            words.note(one, now, workers),
        )
    return table


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
        ("note", words.note(one, now, workers)),
        *(() if one.run is None else _run_facts(one.run)),
        *(("now", words.doing(step, now)) for step in open_steps),
        ("held by", details.holder),
        ("created", _moment(one.created_at, now)),
        ("started", _moment(one.started_at, now)),
        ("finished", _moment(one.finished_at, now)),
        ("ended as", details.termination_reason),
        ("exit code", details.exit_code),
        ("last checkpoint", words.last_checkpoint(one)),
        ("checkpoints", str(details.checkpoints)),
        ("events", str(details.events)),
        ("signals not read", ", ".join(details.unread_signals)),
        ("output", None if details.output is None else words.shown(details.output)),
        ("error", details.error),
    )


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
        ("attempt", run.attempt if run.attempt > 1 else None),
        ("queue", run.queue),
        ("key", run.key),
        ("priority", str(run.priority) if run.priority else None),
        ("run", run.state.value),
        ("parent", run.parent_id),
        ("waits for", ", ".join(words.awaited(run))),
    ]


def events_table(events: Iterable[Event]) -> Table:
    """The history, a line an event."""
    table = listing("number", "when (UTC)", "event", "checkpoint", "payload")
    for event in events:
        kind = event.type if event.subtype is None else f"{event.type} {event.subtype}"
        table.add_row(
            str(event.id),
            "" if event.created_at is None else words.time(event.created_at),
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
            "" if one.created_at is None else words.age(now, one.created_at),
            str(len(one.state)),
            plain(_first_line(words.state_of(one))),
        )
    return table


def _first_line(data: bytes) -> str:
    """The beginning of some bytes, as text."""
    line = words.shown(data[:400]).split("\n", 1)[0]
    if written_by(data) is not None:
        return line
    return line[:100] if len(data) <= len(line[:100].encode()) else line[:100] + "…"


def workers_table(workers: Iterable[WorkerInfo], now: datetime) -> Table:
    """The workers that live, a line each."""
    table = listing(
        "worker", "process", "workflows", "queues", "working", "loaded", "looked", "note"
    )
    for one in workers:
        parts = ["draining"] if one.draining else []
        if one.oldest_boundary is not None and (now - one.oldest_boundary).total_seconds() > 60:
            parts.append(f"no boundary for {words.age(now, one.oldest_boundary)}")
        table.add_row(
            plain(one.name),
            plain(one.holder),
            plain(", ".join(f"{name} {version}" for name, version in one.workflows)),
            plain(", ".join(one.queues)),
            f"{one.working}/{one.slots}",
            str(one.loaded),
            f"{words.age(now, one.last_look)} ago",
            "; ".join(parts),
        )
    return table


def size(count: int) -> str:
    """Bytes as people read them: ``3.4 MB``."""
    return decimal(count)


def _moment(moment: datetime | None, now: datetime) -> str | None:
    if moment is None:
        return None
    return f"{words.time(moment)} UTC ({words.age(now, moment)} ago)"


def status_text(status: InstanceStatus) -> Text:
    return Text(status.value, style=_COLOURS.get(status, ""))
