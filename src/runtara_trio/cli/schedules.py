"""``schedules``: what is started by the clock."""

from __future__ import annotations

from datetime import datetime

import click

from .. import words
from ..sdk.operator import Operator
from ..sdk.slots import moment
from ..types import ScheduleInfo
from . import tables
from .options import json_option, operate, print_json, store_option

name_argument = click.argument("name")


@click.group()
def schedules() -> None:
    """List schedules, pause, resume, trigger and remove them, and start slots of the past."""


@schedules.command("list")
@store_option
@json_option
def list_command(store: str, as_json: bool) -> None:
    """List the schedules that are stored."""
    found = operate(store, lambda op: op.list_schedules())
    if as_json:
        print_json(found)
        return
    table = tables.listing("schedule", "tenant", "workflow", "line", "next", "note")
    for one in found:
        table.add_row(
            tables.plain(one.name),
            tables.plain(one.tenant_id),
            tables.plain(f"{one.workflow} {one.version}"),
            tables.plain(_line(one)),
            "" if one.paused else moment(one, one.next_ms).isoformat(),
            "; ".join(_notes(one)),
        )
    tables.display(table)


def _line(schedule: ScheduleInfo) -> str:
    if schedule.every is not None:
        return f"every {schedule.every} s"
    return f"{schedule.cron} {schedule.timezone}"


def _notes(schedule: ScheduleInfo) -> list[str]:
    notes = ["paused"] if schedule.paused else []
    if not schedule.declared:
        notes.append("not declared by any live worker")
    if schedule.skipped:
        notes.append(f"{schedule.skipped} slots skipped")
    return notes


@schedules.command("show")
@store_option
@json_option
@name_argument
def show_command(store: str, as_json: bool, name: str) -> None:
    """Show a schedule and its next ten slots."""

    async def ask(operator: Operator) -> tuple[ScheduleInfo, tuple[datetime, ...]]:
        following = await operator.next_slots(name)
        (found,) = [one for one in await operator.list_schedules() if one.name == name]
        return found, following

    schedule, following = operate(store, ask)
    if as_json:
        print_json({"schedule": schedule, "next": following})
        return
    table = tables.facts(
        ("schedule", schedule.name),
        ("tenant", schedule.tenant_id),
        ("workflow", f"{schedule.workflow} {schedule.version}"),
        ("arguments", words.shown(schedule.input)),
        ("queue", schedule.queue),
        ("line", _line(schedule)),
        ("overlap", schedule.overlap),
        ("catches up", f"{schedule.catch_up:g} s"),
        ("skipped", f"{schedule.skipped} slots"),
        ("last", schedule.last_id),
        ("note", "; ".join(_notes(schedule))),
        ("next", "\n".join(one.isoformat() for one in following)),
    )
    tables.display(table)


@schedules.command("pause")
@store_option
@name_argument
def pause_command(store: str, name: str) -> None:
    """Run no slot until a resume; those of that time are left out."""
    operate(store, lambda op: op.pause_schedule(name))
    click.echo(f"{name} is paused")


@schedules.command("resume")
@store_option
@name_argument
def resume_command(store: str, name: str) -> None:
    """Run slots again, from the next one on."""
    operate(store, lambda op: op.resume_schedule(name))
    click.echo(f"{name} goes on")


@schedules.command("trigger")
@store_option
@name_argument
def trigger_command(store: str, name: str) -> None:
    """Start a run now, beside the slots."""
    click.echo(operate(store, lambda op: op.trigger_schedule(name)))


@schedules.command("remove")
@store_option
@name_argument
def remove_command(store: str, name: str) -> None:
    """Forget a schedule; what it has started stays."""
    operate(store, lambda op: op.remove_schedule(name))
    click.echo(f"{name} is removed")


@schedules.command("backfill")
@store_option
@name_argument
@click.argument("begin", metavar="FROM")
@click.argument("end", metavar="TO")
def backfill_command(store: str, name: str, begin: str, end: str) -> None:
    """Start the runs of the slots between two times, as 2026-01-31T00:00+01:00."""
    first, last = _time(begin), _time(end)
    with tables.progress("starting") as progress:
        count = operate(store, lambda op: op.backfill(name, first, last, progress=progress))
    click.echo(f"{count} slots")


def _time(text: str) -> datetime:
    try:
        found = datetime.fromisoformat(text)
    except ValueError as exc:
        raise click.UsageError(f"{text!r} is no time; write it as 2026-01-31T00:00+01:00") from exc
    if found.tzinfo is None:
        raise click.UsageError(f"{text!r} has no zone; write it as {text}+00:00")
    return found
