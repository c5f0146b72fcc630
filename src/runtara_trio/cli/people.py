"""``audit`` and ``waits``: what people have done, and what waits for them."""

from __future__ import annotations

import click

from .. import words
from . import tables
from .options import json_option, limit_option, operate, print_json, store_option


@click.command()
@store_option
@json_option
@click.argument("instance_id", metavar="[ID]", required=False)
@limit_option
def audit(store: str, as_json: bool, instance_id: str | None, limit: int) -> None:
    """List what people have done with the command line and the console, the newest first."""
    page = operate(store, lambda op: op.audit(instance_id=instance_id, limit=limit))
    if as_json:
        print_json(page.records)
        return
    table = tables.listing("when (UTC)", "who", "what", "instance", "detail")
    for one in page.records:
        of = (one.who, one.what, one.instance_id or "", one.detail or "")
        table.add_row(words.time(one.at), *map(tables.plain, of))
    tables.display(table)


@click.command()
@store_option
@json_option
@limit_option
def waits(store: str, as_json: bool, limit: int) -> None:
    """List the waits for signals that nobody has answered, the oldest first."""
    page = operate(store, lambda op: op.waits(limit=limit))
    if as_json:
        print_json(page.waits)
        return
    table = tables.listing("signal", "instance", "workflow", "age")
    now = words.now()
    for one in page.waits:
        of = (one.checkpoint_id, one.instance_id, one.workflow or "")
        table.add_row(*map(tables.plain, of), words.age(now, one.since))
    tables.display(table)
