"""``runtara-trio``: see and steer instances from a terminal.

Exit codes: 0 done, 1 failed, 2 used wrongly. Errors go to stderr, without a traceback.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import click
import msgspec
import trio

from ..engine.opening import open_backend
from ..errors import ConfigError, SdkError
from ..sdk.operator import Operator
from ..types import FINISHED, InstanceStatus
from . import show as shown

T = TypeVar("T")

store_option = click.option(
    "--store",
    envvar="RUNTARA_DATABASE_URL",
    required=True,
    metavar="URL",
    help="The store, as sqlite:///orders.db; else RUNTARA_DATABASE_URL.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")
instance_argument = click.argument("instance_id", metavar="ID")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="runtara-trio")
def main() -> None:
    """See and steer durable instances."""


@main.command("list")
@store_option
@json_option
@click.option("--unfinished", is_flag=True, help="Only what has not ended.")
@click.option("--tenant", metavar="ID", help="Only this tenant's.")
@click.option("--limit", default=100, show_default=True, type=click.IntRange(1, 100_000))
def list_command(
    store: str, as_json: bool, unfinished: bool, tenant: str | None, limit: int
) -> None:
    """List instances, the newest first."""
    statuses = set(InstanceStatus) - FINISHED if unfinished else None
    page = _operate(store, lambda op: op.list(statuses=statuses, tenant_id=tenant, limit=limit))
    if as_json:
        _print_json([shown.summary_json(one) for one in page.instances])
        return
    shown.console().print(shown.instances_table(page.instances, shown.now()))
    if page.next is not None:
        click.echo(f"more than {limit}; --limit shows more", err=True)


@main.command()
@store_option
@json_option
@instance_argument
def show(store: str, as_json: bool, instance_id: str) -> None:
    """Show all about one instance."""
    details = _operate(store, lambda op: op.show(instance_id))
    if as_json:
        _print_json(shown.details_json(details))
    else:
        shown.console().print(shown.details_table(details, shown.now()))


@main.command()
@store_option
@instance_argument
def cancel(store: str, instance_id: str) -> None:
    """Cancel an instance. Nothing takes a cancel back."""
    click.echo(_operate(store, lambda op: op.cancel(instance_id)).text)


@main.command()
@store_option
@instance_argument
def pause(store: str, instance_id: str) -> None:
    """Suspend an instance at its next boundary."""
    click.echo(_operate(store, lambda op: op.pause(instance_id)).text)


@main.command()
@store_option
@instance_argument
def resume(store: str, instance_id: str) -> None:
    """Take back a pause that has not stopped the instance yet."""
    click.echo(_operate(store, lambda op: op.resume(instance_id)).text)


def _operate(store: str, ask: Callable[[Operator], Awaitable[T]]) -> T:
    """Run one question on a store; its errors become messages and exit codes."""

    async def run() -> T:
        async with open_backend(store) as backend:
            return await ask(Operator(backend))

    try:
        return trio.run(run)
    except ConfigError as exc:
        raise click.UsageError(str(exc)) from exc
    except SdkError as exc:
        raise click.ClickException(str(exc)) from exc


def _print_json(value: object) -> None:
    click.echo(msgspec.json.format(msgspec.json.encode(value)))
