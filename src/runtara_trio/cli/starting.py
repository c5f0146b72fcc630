"""``start`` and ``result``: a run of a workflow, and what it returned."""

from __future__ import annotations

from typing import Any

import click

from ..client.client import Client, open_client
from ..client.handle import InstanceHandle
from ..codec.marks import written_by
from ..errors import ServerError
from ..types import InstanceStatus
from ..words import readable
from .options import codec, instance_argument, run_on_trio, seconds, settings, store_option
from .running import parse_arguments

tenant_option = click.option(
    "--tenant",
    envvar="RUNTARA_TENANT_ID",
    show_envvar=True,
    required=True,
    metavar="ID",
    help="The tenant it belongs to.",
)


@click.command()
@store_option
@tenant_option
@click.option("--id", "instance_id", metavar="ID", help="Its id.  [default: a random one]")
@click.option("--queue", metavar="NAME", help="Where it waits.  [default: default]")
@click.option(
    "--priority", default=0, show_default=True, type=click.IntRange(0, 9), help="9 comes first."
)
@click.option(
    "--delay",
    metavar="DURATION",
    callback=lambda context, option, text: None if text is None else seconds(text),
    help="How long before it is ready: 30s, 5m, 2h or 1d.",
)
@click.option("--key", metavar="TEXT", help="Runs of a key take turns with those of others.")
@click.option("--version", "number", type=int, metavar="N", help="Of the workflow.")
@click.option("--wait", is_flag=True, help="Wait for its end, and print its result.")
@click.argument("workflow", metavar="WORKFLOW")
@click.argument("arguments", nargs=-1, metavar="[JSON]...")
def start(
    store: str,
    tenant: str,
    instance_id: str | None,
    queue: str | None,
    priority: int,
    delay: float | None,
    key: str | None,
    number: int | None,
    wait: bool,
    workflow: str,
    arguments: tuple[str, ...],
) -> None:
    """Start a run of a workflow, by its name; prints the instance's id."""
    values = parse_arguments(arguments)

    async def ask(client: Client) -> tuple[str, str | None]:
        handle = await client.start(
            workflow,
            *values,
            id=instance_id,
            queue=queue,
            priority=priority,
            delay=delay,
            key=key,
            version=number,
        )
        return handle.id, await _result(handle) if wait else None

    id, output = _with_client(store, tenant, ask)
    click.echo(id)
    if output is not None:
        click.echo(output)


@click.command()
@store_option
@tenant_option
@instance_argument
@click.option("--wait", is_flag=True, help="Wait for its end.")
def result(store: str, tenant: str, instance_id: str, wait: bool) -> None:
    """Print what an instance has returned. Exit code 1 where it failed or has not ended."""

    async def ask(client: Client) -> str:
        handle = client.get(instance_id)
        if not wait:
            status = await handle.status()
            if status is InstanceStatus.UNKNOWN:
                raise ServerError("result", "", f"no instance {instance_id!r}")
            if not status.finished:
                raise click.ClickException(
                    f"instance {instance_id!r} is {status}: --wait waits for its end"
                )
        return await _result(handle)

    click.echo(_with_client(store, tenant, ask))


async def _result(handle: InstanceHandle[Any]) -> str:
    """The output as it is stored; JSON, unless its workers have another codec."""
    output = await handle.result(bytes)
    by = written_by(output)
    if by is not None:
        raise click.ClickException(f"the result of {handle.id!r} is {by}")
    return readable(output)


def _with_client(store: str, tenant: str, ask: Any) -> Any:
    coded = codec()

    async def run() -> Any:
        async with open_client(settings(store), tenant_id=tenant, codec=coded) as client:
            return await ask(client)

    return run_on_trio(run)
