"""``signal``, ``cancel``, ``pause``, ``resume`` and ``prune``: what an operator does."""

from __future__ import annotations

import os

import click

from ..sdk.operator import Operator
from . import tables
from .options import instance_argument, operate, seconds, store_option


@click.command()
@store_option
@instance_argument
@click.argument("checkpoint_id", metavar="CHECKPOINT")
@click.argument("payload")
@click.option(
    "--replace",
    is_flag=True,
    help="Instead of one that nobody has taken, or that was not of the type waited for.",
)
def signal(store: str, instance_id: str, checkpoint_id: str, payload: str, replace: bool) -> None:
    """Send PAYLOAD, as its bytes, to whoever waits for CHECKPOINT in an instance, now or later."""
    data = os.fsencode(payload)  # also what is not UTF-8

    async def send(operator: Operator) -> None:
        await operator.send_signal(instance_id, checkpoint_id, data, replace=replace)

    operate(store, send)
    click.echo("sent")


@click.command()
@store_option
@click.option(
    "--older-than",
    required=True,
    metavar="DURATION",
    callback=lambda context, option, text: seconds(text),
    help="How long ago it must have finished: 30d, 12h, 90m or 45s.",
)
@click.option(
    "--vacuum",
    is_flag=True,
    help="Then give the room back to the disk. On a file, nobody can write meanwhile.",
)
def prune(store: str, older_than: float, vacuum: bool) -> None:
    """Remove what finished long ago, with its checkpoints and its history."""
    with tables.progress("removing") as progress:
        removed = operate(store, lambda op: op.prune(older_than, progress=progress))
    click.echo(f"{removed} removed")
    if vacuum:
        done = operate(store, lambda op: op.vacuum())
        sizes = f"{tables.size(done.bytes_before)} before, {tables.size(done.bytes_after)} after"
        click.echo(f"vacuumed: {sizes}")


@click.command()
@store_option
@instance_argument
def cancel(store: str, instance_id: str) -> None:
    """Cancel an instance, and its children. Nothing takes a cancel back."""
    click.echo(operate(store, lambda op: op.cancel(instance_id)).text)


tree_option = click.option("--tree", is_flag=True, help="Its children, too, and theirs.")


@click.command()
@store_option
@instance_argument
@tree_option
def pause(store: str, instance_id: str, tree: bool) -> None:
    """Suspend an instance at its next boundary; no worker takes it until a resume."""
    click.echo(operate(store, lambda op: op.pause(instance_id, tree=tree)).text)


@click.command()
@store_option
@instance_argument
@tree_option
def resume(store: str, instance_id: str, tree: bool) -> None:
    """Put a paused run of a workflow back, or take a pause back that has not stopped it yet."""
    click.echo(operate(store, lambda op: op.resume(instance_id, tree=tree)).text)
