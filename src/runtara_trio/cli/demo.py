"""How ``runtara-trio demo`` looks: the story line by line, a bar, and the count."""

from __future__ import annotations

import itertools
from pathlib import Path

import click
import trio
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from ..demo.orders import INSTANCE
from ..demo.story import Count, Demo, DemoFailed
from . import tables


def run_demo(folder: Path | None, kills: int) -> int:
    """Run the demo in a new folder. The exit code: 0 where the count proves the promise."""
    wanted = (folder or Path("runtara-demo")).resolve()
    if "?" in str(wanted):
        raise click.UsageError(f"{wanted} has a '?', which ends the path of a store's URL")
    place = _new_folder(wanted)
    console = tables.console()
    with Progress(
        TextColumn("  "),
        BarColumn(40),
        MofNCompleteColumn(),
        TextColumn("orders"),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as bar:
        task = bar.add_task("orders", total=None)
        demo = Demo(
            place,
            kills,
            tell=lambda text: bar.console.print(f"  {text}", markup=False, highlight=False),
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
        click.echo("A file of orders, each to be charged once, whatever happens to the process.")
        click.echo(f"  store   {place / 'orders.db'}")
        click.echo(f"  ledger  {demo.ledger}")
        try:
            count = trio.run(demo.run)
        except DemoFailed as exc:
            raise click.ClickException(str(exc)) from exc
    tables.display(_count_table(count))
    click.echo("Both files stay where they are. To look at the store:")
    click.echo(f"  runtara-trio show {INSTANCE} --store {demo.store}")
    return 0 if count.proved else 1


def _new_folder(wanted: Path) -> Path:
    """A folder that nothing is in yet: the wanted one, else with the first free number."""
    for number in itertools.count(1):
        folder = wanted if number == 1 else wanted.with_name(f"{wanted.name}-{number}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as exc:
            raise click.UsageError(f"cannot make the folder {folder}: {exc.strerror}") from exc
        return folder
    raise AssertionError


def _count_table(count: Count) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False, title_justify="left")
    table.add_column()
    table.add_column(justify="right")
    table.add_column(style="dim")
    well = "[green]{}[/]".format
    ill = "[bold red]{}[/]".format
    table.add_row("  charged", str(count.charged), f"of {count.orders} valid orders")
    table.add_row("  saved in the store", str(count.saved), f"status: {count.status}")
    table.add_row(
        "  attempted again", str(count.again), "a kill fell between a charge and its checkpoint"
    )
    table.add_row("  applied twice", (ill if count.twice else well)(count.twice), "")
    table.add_row("  missing", (ill if count.missing else well)(count.missing), "")
    return table
