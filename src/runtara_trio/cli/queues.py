"""``queues``: what they allow, and whether they stand still."""

from __future__ import annotations

import click

from .. import words
from ..errors import ConfigError
from ..types import Queue, Rate
from . import tables
from .options import json_option, operate, print_json, seconds, store_option


@click.group()
def queues() -> None:
    """List queues, change what they allow, pause and resume them."""


@queues.command("list")
@store_option
@json_option
def list_command(store: str, as_json: bool) -> None:
    """List the queues that are stored or have something ready."""
    found = operate(store, lambda op: op.list_queues())
    if as_json:
        print_json(found)
        return
    now = words.now()
    table = tables.listing(
        "queue", "allows", "working", "ready", "oldest", "behind", "wanting", "note"
    )
    for one in found:
        table.add_row(
            tables.plain(one.queue.name),
            _allows(one.queue),
            str(one.working) if one.queue.has_places else "",
            str(one.ready),
            "" if one.ready_since is None else words.age(now, one.ready_since),
            str(one.behind),
            str(one.wanting),
            "paused" if one.paused else "",
        )
    tables.display(table)


def _allows(queue: Queue) -> str:
    parts = [
        f"{value} {what}"
        for value, what in (
            (queue.limit, "at once"),
            (queue.per_worker, "a worker"),
            (queue.key_limit, "a key"),
        )
        if value is not None
    ]
    if queue.rate is not None:
        parts.append(f"{queue.rate.count} in {queue.rate.per:g} s")
    return ", ".join(parts) or "everything"


@queues.command("set")
@store_option
@click.argument("name")
@click.option("--limit", type=int, metavar="N", help="Runs at once, over all workers.")
@click.option("--per-worker", type=int, metavar="N", help="Runs at once in each worker.")
@click.option("--rate", metavar="N/DURATION", help="Runs that begin in any window, as 100/60s.")
@click.option("--key-limit", type=int, metavar="N", help="Runs at once of each key.")
def set_command(
    store: str,
    name: str,
    limit: int | None,
    per_worker: int | None,
    rate: str | None,
    key_limit: int | None,
) -> None:
    """Say what the queue NAME allows, in place of all that was said; from the next claim on."""
    try:
        queue = Queue(name, limit, per_worker, None if rate is None else _rate(rate), key_limit)
        operate(store, lambda op: op.set_queue(queue))
    except ConfigError as exc:
        raise click.UsageError(str(exc)) from exc
    click.echo(f"{name}: {_allows(queue)}")


def _rate(text: str) -> Rate:
    count, separator, per = text.partition("/")
    if not separator or not count.isdecimal():
        raise click.UsageError(f"--rate must be as 100/60s, not {text!r}")
    return Rate(int(count), seconds(per))


@queues.command("pause")
@store_option
@click.argument("name")
def pause_command(store: str, name: str) -> None:
    """Have no worker claim from the queue NAME."""
    operate(store, lambda op: op.pause_queue(name))
    click.echo(f"{name} is paused")


@queues.command("resume")
@store_option
@click.argument("name")
def resume_command(store: str, name: str) -> None:
    """Have workers claim from the queue NAME again."""
    operate(store, lambda op: op.resume_queue(name))
    click.echo(f"{name} goes on")
