"""``list``, ``show``, ``events`` and ``checkpoints``: what there is."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from typing import Any

import click

from .. import exports, words
from ..types import InstanceSummary, WorkerInfo
from . import tables
from .family import family
from .filtering import filter_options, filters_of
from .options import (
    instance_argument,
    json_option,
    limit_option,
    operate,
    print_json,
    store_option,
)


@click.command("list")
@store_option
@json_option
@filter_options
@click.option("--count", "counts", is_flag=True, help="Print how many there are, and no more.")
@limit_option
def list_command(
    store: str,
    as_json: bool,
    counts: bool,
    limit: int,
    **options: Any,
) -> None:
    """List instances, the newest first."""
    given = filters_of(options)
    if counts:
        click.echo(operate(store, lambda op: op.count(**given)))
        return
    page = operate(store, lambda op: op.list(limit=limit, **given))
    if as_json:
        print_json([exports.summary_json(one) for one in page.instances])
        return
    workers = _workers(store, page.instances)
    tables.display(tables.instances_table(page.instances, words.now(), workers))
    if page.next is not None:
        click.echo(f"more than {limit}; --limit shows more", err=True)


@click.command()
@store_option
@json_option
@instance_argument
def show(store: str, as_json: bool, instance_id: str) -> None:
    """Show all about one instance."""
    details = operate(store, lambda op: op.show(instance_id))
    if as_json:
        print_json(exports.details_json(details))
    else:
        workers = _workers(store, [details.summary])
        tables.display(tables.details_table(details, words.now(), workers))
        tree = operate(store, lambda op: family(op, instance_id))
        if tree is not None:
            tables.display(tree)


def _workers(store: str, shown: Iterable[InstanceSummary]) -> tuple[WorkerInfo, ...]:
    """The living workers, where something shown waits for one."""
    if words.ask_for_workers(shown):
        return operate(store, lambda op: op.list_workers())
    return ()


@click.command()
@store_option
@json_option
@instance_argument
@limit_option
@click.option("--after", default=0, metavar="NUMBER", help="Only what follows this event.")
def events(store: str, as_json: bool, instance_id: str, limit: int, after: int) -> None:
    """Show the history of an instance, oldest first."""
    page = operate(store, lambda op: op.events(instance_id, after=after, limit=limit))
    if as_json:
        print_json([exports.event_json(event) for event in page.events])
        return
    tables.display(tables.events_table(page.events))
    if page.more:
        click.echo(f"more follow; --after {page.events[-1].id} shows them", err=True)


@click.command()
@store_option
@json_option
@instance_argument
@limit_option
@click.option("--prefix", default="", metavar="TEXT", help="Only ids that begin with it.")
@click.option("--after", metavar="CHECKPOINT", help="Only ids that follow this one.")
def checkpoints(
    store: str, as_json: bool, instance_id: str, limit: int, prefix: str, after: str | None
) -> None:
    """Show the checkpoints of an instance, in the order of their ids."""
    page = operate(
        store, lambda op: op.checkpoints(instance_id, prefix=prefix, after=after, limit=limit)
    )
    if as_json:
        print_json([exports.checkpoint_json(one) for one in page.checkpoints])
        return
    tables.display(tables.checkpoints_table(page.checkpoints, words.now()))
    if page.more:
        last = page.checkpoints[-1].checkpoint_id
        click.echo(f"more follow; --after {shlex.quote(last)} shows them", err=True)
