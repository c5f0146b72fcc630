"""How ``runtara-trio demo`` looks: the story line by line, a bar, and the count."""

from __future__ import annotations

import itertools
import shlex
from pathlib import Path

import click
import trio
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from ..demo.story import NEXT, Count, Demo, DemoFailed
from ..errors import SdkError
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
        click.echo("A file of orders, each to be charged and shipped once, whatever happens.")
        click.echo(f"  store   {place / 'orders.db'}")
        click.echo(f"  ledger  {demo.ledger}")
        click.echo("To look at it, and to help, from another terminal:")
        for command in _commands(demo):
            click.echo(f"  runtara-trio {command} --store {shlex.quote(demo.store)}")
        click.echo()
        try:
            count = trio.run(demo.run)
        except (DemoFailed, SdkError) as exc:
            raise click.ClickException(str(exc)) from exc
    tables.display(_count_table(count))
    click.echo("All files stay where they are, and so the commands go on working.")
    return 0 if count.proved else 1


def _commands(demo: Demo) -> tuple[str, ...]:
    """What a person can type beside it."""
    return "list", "workers", f"show {demo.orders[0].order_id}", f"worker {' '.join(NEXT)}"


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
    table.add_row("  shipped", str(count.shipped), "")
    table.add_row("  completed", str(count.completed), "by the store")
    table.add_row(
        "  attempted again", str(count.again), "a kill fell between an effect and its checkpoint"
    )
    table.add_row("  applied twice", (ill if count.twice else well)(count.twice), "")
    table.add_row("  missing", (ill if count.missing else well)(count.missing), "")
    return table
