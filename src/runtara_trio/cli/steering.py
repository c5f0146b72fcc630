"""``signal``, ``send``, ``cancel``, ``pause``, ``resume``, ``rerun``, ``fork`` and ``prune``."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import Any

import click
import msgspec

from ..sdk.operator import Operator
from . import tables
from .filtering import filter_options, filters_of
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


@click.command("send")
@store_option
@instance_argument
@click.argument("name")
@click.argument("payload")
def send_command(store: str, instance_id: str, name: str, payload: str) -> None:
    """Send PAYLOAD, as its bytes, as a message to an instance that receives under NAME."""
    data = os.fsencode(payload)
    operate(store, lambda op: op.send_message(instance_id, name, data))
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
@filter_options
@click.option(
    "--vacuum",
    is_flag=True,
    help="Then give the room back to the disk. On a file, nobody can write meanwhile.",
)
def prune(store: str, older_than: float, vacuum: bool, **options: Any) -> None:
    """Remove what finished long ago, with its checkpoints and its history: all of it, or what the
    options mean."""
    given = filters_of(options)
    with tables.progress("removing") as progress:
        if given:
            removed = operate(
                store,
                lambda op: op.prune_many(
                    older_than, progress=lambda done, total: progress(done), **given
                ),
            )
        else:
            removed = operate(store, lambda op: op.prune(older_than, progress=progress))
    click.echo(f"{removed} removed")
    if vacuum:
        done = operate(store, lambda op: op.vacuum())
        sizes = f"{tables.size(done.bytes_before)} before, {tables.size(done.bytes_after)} after"
        click.echo(f"vacuumed: {sizes}")


# ---- one, or many

many_argument = click.argument("instance_id", metavar="[ID]", required=False)
yes_option = click.option("--yes", is_flag=True, help="Do not ask.")
tree_option = click.option("--tree", is_flag=True, help="Its children, too, and theirs.")


@click.command()
@store_option
@many_argument
@filter_options
@yes_option
def cancel(store: str, instance_id: str | None, yes: bool, **options: Any) -> None:
    """Cancel an instance and its children, or all that the options mean. Nothing takes a cancel
    back."""
    if instance_id is not None:
        _check_alone(options)
        click.echo(operate(store, lambda op: op.cancel(instance_id)).text)
        return
    _act(store, "cancel", "cancelled", Operator.cancel_many, options, yes=yes)


@click.command()
@store_option
@many_argument
@filter_options
@tree_option
@yes_option
def pause(store: str, instance_id: str | None, tree: bool, yes: bool, **options: Any) -> None:
    """Suspend an instance, or all that the options mean, at the next boundary; no worker takes it
    until a resume."""
    if instance_id is not None:
        _check_alone(options)
        click.echo(operate(store, lambda op: op.pause(instance_id, tree=tree)).text)
        return
    _act(store, "pause", "paused", Operator.pause_many, options, yes=yes)


@click.command()
@store_option
@many_argument
@filter_options
@tree_option
@yes_option
def resume(store: str, instance_id: str | None, tree: bool, yes: bool, **options: Any) -> None:
    """Put a paused run of a workflow back, or all that the options mean; or take a pause back that
    has not stopped it yet."""
    if instance_id is not None:
        _check_alone(options)
        click.echo(operate(store, lambda op: op.resume(instance_id, tree=tree)).text)
        return
    _act(store, "resume", "resumed", Operator.resume_many, options, yes=yes)


@click.command()
@store_option
@many_argument
@filter_options
@yes_option
def rerun(store: str, instance_id: str | None, yes: bool, **options: Any) -> None:
    """Have a workflow's instance that has ended go on from its checkpoints, or all failed and
    cancelled ones that the options mean."""
    if instance_id is not None:
        _check_alone(options)
        operate(store, lambda op: op.rerun(instance_id))
        click.echo("pending again: the next free worker goes on with it")
        return
    _act(store, "rerun", "pending again", Operator.rerun_many, options, yes=yes)


@click.command()
@store_option
@instance_argument
@click.argument("new_id", metavar="NEW_ID")
@click.option("--until", metavar="CHECKPOINT", help="The last checkpoint to be copied.  [all]")
@click.option("--args", "arguments", metavar="JSON", help="Other arguments, as a JSON array.")
def fork(
    store: str, instance_id: str, new_id: str, until: str | None, arguments: str | None
) -> None:
    """Make a new instance with the checkpoints of another."""
    args = None
    if arguments is not None:
        try:
            args = msgspec.json.decode(arguments, type=list)
        except msgspec.DecodeError as exc:
            raise click.UsageError(f"--args must be a JSON array: {exc}") from exc
    operate(store, lambda op: op.fork(instance_id, new_id, until=until, args=args))
    click.echo(f"{new_id} is pending")


def _check_alone(options: dict[str, Any]) -> None:
    if filters_of(options):
        raise click.UsageError("give an ID, or options that say which are meant, not both")


def _act(
    store: str,
    doing: str,
    done: str,
    act: Callable[..., Awaitable[int]],
    options: dict[str, Any],
    *,
    yes: bool,
) -> None:
    """Count, ask, and act on all that the options mean."""
    given = filters_of(options)
    if not given:
        raise click.UsageError("give an ID, or options that say which are meant, as --workflow")
    if not yes:
        count = operate(store, lambda op: op.count(**given))
        click.confirm(f"{doing} up to {count} instances?", abort=True)
    with tables.progress(doing) as progress:
        acted = operate(
            store, lambda op: act(op, progress=lambda seen, total: progress(seen), **given)
        )
    click.echo(f"{acted} {done}")
