"""``migrate``: a store's tables, brought to this version before programs of it start."""

from __future__ import annotations

import click

from ..migrating import migrate, table_versions
from ..opening import check_shareable
from ..store.structs import TableVersions
from . import tables
from .options import json_option, print_json, run_on_trio, url_option


@click.command("migrate")
@url_option
@json_option
@click.option("--check", "only_check", is_flag=True, help="Change nothing; 1 where there is work.")
@click.pass_context
def migrate_command(context: click.Context, store: str, as_json: bool, only_check: bool) -> None:
    """Bring the tables of a store to this version.

    Programs of the version before go on working meanwhile. A program that starts does the same by
    itself; this is for those whose role may make no tables.
    """

    async def look() -> TableVersions:
        check_shareable(store, "migrate", remedy="its tables are made when it is opened")
        if not only_check:
            await migrate(store)
        return await table_versions(store)

    found = run_on_trio(look)
    if as_json:
        print_json({"current": found.is_current, "tables": found})
    else:
        _show(found)
    if not found.is_current:
        context.exit(1)


def _show(found: TableVersions) -> None:
    table = tables.listing("tables", "there", "needed")
    table.add_row("runtara-core", "1.4.1" if found.core else "not made", "1.4.1")
    table.add_row("instances", "made" if found.ours else "not made", "made")
    table.add_row("workflows", str(found.workflows or "not made"), str(found.newest))
    tables.display(table)
    if found.is_current:
        click.echo("the tables are those of this version")
    else:
        click.echo("to do: run this command without --check", err=True)
