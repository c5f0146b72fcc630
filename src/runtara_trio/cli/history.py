"""``steps`` and ``export``: what an instance did, step by step, and all that is stored of it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import click
from rich.text import Text
from rich.tree import Tree

from .. import exports, words
from ..types import StepInfo, StepOutcome
from . import tables
from .options import instance_argument, json_option, operate, print_json, store_option

_COLOURS = {
    None: "green",
    StepOutcome.FAILED: "red",
    StepOutcome.INTERRUPTED: "yellow",
    StepOutcome.LOST: "magenta",
    StepOutcome.UNLOADED: "yellow",
}


@click.command()
@store_option
@json_option
@instance_argument
def steps(store: str, as_json: bool, instance_id: str) -> None:
    """Show the steps of an instance as a tree, with their durations."""
    found = operate(store, lambda op: op.steps(instance_id))
    if as_json:
        print_json(found)
    else:
        tables.display(steps_tree(instance_id, found, words.now()))


@click.command()
@store_option
@instance_argument
def export(store: str, instance_id: str) -> None:
    """Print all that is stored of an instance as JSON: its steps, checkpoints and events."""
    print_json(operate(store, lambda op: exports.exported(op, instance_id)))


def steps_tree(instance_id: str, found: Sequence[StepInfo], now: datetime) -> Tree:
    """The steps in their order, each below the one that it is inside of."""
    tree = Tree(tables.plain(instance_id))
    branches: dict[tuple[str, int], Tree] = {}
    runs = sorted({one.run for one in found if one.run})
    for one in found:
        above = tree if one.parent is None else branches.get((one.parent, one.run), tree)
        run = f"  run {runs.index(one.run) + 1}" if one.run and len(runs) > 1 else ""
        branches[one.step, one.run] = above.add(_line(one, run, now))
    return tree


def _line(one: StepInfo, run: str, now: datetime) -> Text:
    line = tables.plain(one.step)
    line.append(f"  {one.kind.value}{run}", style="dim")
    if one.started_at is not None and (one.ended_at is not None or one.outcome is None):
        line.append(f"  {words.duration((one.ended_at or now) - one.started_at)}")
    if one.outcome is not StepOutcome.DONE:
        outcome = "running" if one.outcome is None else one.outcome.value
        line.append(f"  {outcome}", style=_COLOURS[one.outcome])
    if one.summary is not None:
        line.append_text(tables.plain(f"  {one.summary}"))
    for number, (_, error) in enumerate(one.attempts, 1):
        line.append_text(tables.plain(f"\n  attempt {number}: {error}"))
    return line
