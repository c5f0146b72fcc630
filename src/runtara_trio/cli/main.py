"""``runtara-trio``: see and steer instances from a terminal.

Exit codes: 0 done, 1 failed, 2 used wrongly. Errors go to stderr, without a traceback.
"""

from __future__ import annotations

import io
import os
import re
import shlex
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import click
import msgspec
import trio

from ..config import SdkConfig
from ..errors import ConfigError, SdkError
from ..opening import open_backend
from ..sdk.operator import Operator
from ..types import FINISHED, InstanceStatus
from . import run as running
from . import show as shown

T = TypeVar("T")

store_option = click.option(
    "--store",
    envvar="RUNTARA_DATABASE_URL",
    show_envvar=True,
    required=True,
    metavar="URL",
    help="The store, as sqlite:///orders.db.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")
limit_option = click.option(
    "--limit", default=100, show_default=True, type=click.IntRange(1, 100_000), help="Rows."
)
instance_argument = click.argument("instance_id", metavar="ID")


class _Commands(click.Group):
    """Commands whose output may fail: a terminal without Unicode, a full disk."""

    def invoke(self, context: click.Context) -> object:
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")
        try:
            result = super().invoke(context)
            sys.stdout.flush()
        except BrokenPipeError:  # click ends quietly: who reads has seen enough
            raise
        except OSError as exc:
            raise click.ClickException(f"cannot write the output: {exc.strerror}") from exc
        return result


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="runtara-trio")
def main() -> None:
    """See and steer durable instances."""


@main.command("list")
@store_option
@json_option
@click.option("--unfinished", is_flag=True, help="Only what has not ended.")
@click.option(
    "--status",
    "wanted",
    multiple=True,
    type=click.Choice([status.value for status in InstanceStatus if status.value != "unknown"]),
    help="Only these; may be given more than once.",
)
@click.option("--tenant", metavar="ID", help="Only this tenant's.")
@limit_option
def list_command(
    store: str,
    as_json: bool,
    unfinished: bool,
    wanted: tuple[str, ...],
    tenant: str | None,
    limit: int,
) -> None:
    """List instances, the newest first."""
    statuses = {InstanceStatus(status) for status in wanted} or None
    if unfinished:
        statuses = (statuses or set(InstanceStatus)) - FINISHED
    page = _operate(store, lambda op: op.list(statuses=statuses, tenant_id=tenant, limit=limit))
    if as_json:
        _print_json([shown.summary_json(one) for one in page.instances])
        return
    shown.display(shown.instances_table(page.instances, shown.now()))
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
        shown.display(shown.details_table(details, shown.now()))


@main.command()
@store_option
@json_option
@instance_argument
@limit_option
@click.option("--after", default=0, metavar="NUMBER", help="Only what follows this event.")
def events(store: str, as_json: bool, instance_id: str, limit: int, after: int) -> None:
    """Show the history of an instance, oldest first."""
    page = _operate(store, lambda op: op.events(instance_id, after=after, limit=limit))
    if as_json:
        _print_json([shown.event_json(event) for event in page.events])
        return
    shown.display(shown.events_table(page.events))
    if page.more:
        click.echo(f"more follow; --after {page.events[-1].id} shows them", err=True)


@main.command()
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
    page = _operate(
        store, lambda op: op.checkpoints(instance_id, prefix=prefix, after=after, limit=limit)
    )
    if as_json:
        _print_json([shown.checkpoint_json(one) for one in page.checkpoints])
        return
    shown.display(shown.checkpoints_table(page.checkpoints, shown.now()))
    if page.more:
        last = page.checkpoints[-1].checkpoint_id
        click.echo(f"more follow; --after {shlex.quote(last)} shows them", err=True)


@main.command()
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

    _operate(store, send)
    click.echo("sent")


@main.command()
@store_option
@click.option(
    "--older-than",
    required=True,
    metavar="DURATION",
    callback=lambda context, option, text: _seconds(text),
    help="How long ago it must have finished: 30d, 12h, 90m or 45s.",
)
@click.option(
    "--vacuum",
    is_flag=True,
    help="Then give the room back to the disk. On a file, nobody can write meanwhile.",
)
def prune(store: str, older_than: float, vacuum: bool) -> None:
    """Remove what finished long ago, with its checkpoints and its history."""
    with shown.progress("removing") as progress:
        removed = _operate(store, lambda op: op.prune(older_than, progress=progress))
    click.echo(f"{removed} removed")
    if vacuum:
        done = _operate(store, lambda op: op.vacuum())
        sizes = f"{shown.size(done.bytes_before)} before, {shown.size(done.bytes_after)} after"
        click.echo(f"vacuumed: {sizes}")


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


@main.command("run")
@store_option
@click.option(
    "--id",
    "instance_id",
    envvar="RUNTARA_INSTANCE_ID",
    required=True,
    metavar="ID",
    help="Who runs; else RUNTARA_INSTANCE_ID.",
)
@click.option(
    "--tenant",
    envvar="RUNTARA_TENANT_ID",
    required=True,
    metavar="ID",
    help="Whom it belongs to; else RUNTARA_TENANT_ID.",
)
@click.option("--revive", is_flag=True, help="Run it again if it has ended; keep its checkpoints.")
@click.argument("target", metavar="MODULE:FUNCTION")
@click.argument("arguments", nargs=-1, metavar="[JSON]...")
@click.pass_context
def run_command(
    context: click.Context,
    store: str,
    instance_id: str,
    tenant: str,
    revive: bool,
    target: str,
    arguments: tuple[str, ...],
) -> None:
    """Run an async function as an instance: it gets the SDK and the JSON arguments."""
    program = running.find_program(target)
    values = running.parse_arguments(arguments)
    running.check_arguments(target, program, values)
    context.exit(running.run_program(store, instance_id, tenant, program, values, revive=revive))


@main.command("serve")
@store_option
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", default=8001, show_default=True, type=click.IntRange(0, 65535), help="UDP; 0: any."
)
@click.option(
    "--certificate",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="PEM; without it, one is made at every start.",
)
@click.option(
    "--key", type=click.Path(path_type=Path, dir_okay=False, exists=True), help="Its key, PEM."
)
@click.option("--max-connections", default=10_000, show_default=True, type=click.IntRange(1))
@click.option(
    "--max-handshakes",
    default=1_000,
    show_default=True,
    type=click.IntRange(1),
    help="Connections at once that are not established yet.",
)
@click.option(
    "--max-calls",
    default=1_000,
    show_default=True,
    type=click.IntRange(1, 100_000),
    help="Calls at once, of one connection.",
)
@click.option(
    "--max-memory",
    default=1024,
    show_default=True,
    type=click.IntRange(512),
    metavar="MIB",
    help="Of requests and replies at once; one connection may have a quarter.",
)
@click.option(
    "--idle-timeout",
    default=120.0,
    show_default=True,
    type=click.FloatRange(0.1),
    metavar="SECONDS",
    help="Of a connection.",
)
@click.option(
    "--call-timeout",
    default=300.0,
    show_default=True,
    type=click.FloatRange(0.1),
    metavar="SECONDS",
    help="Until a request must be whole, and a large reply be read.",
)
@click.option(
    "--drain-timeout",
    default=10.0,
    show_default=True,
    type=click.FloatRange(0),
    metavar="SECONDS",
    help="To answer at the end what was asked before.",
)
def serve_command(
    store: str,
    host: str,
    port: int,
    certificate: Path | None,
    key: Path | None,
    max_connections: int,
    max_handshakes: int,
    max_calls: int,
    max_memory: int,
    idle_timeout: float,
    call_timeout: float,
    drain_timeout: float,
) -> None:
    """Serve a store to SDKs of the instance protocol, as runtara-core does."""
    from ..quic.server.connection import Limits
    from . import serve as serving  # with QUIC and its cryptography

    limits = Limits(
        connections=max_connections,
        handshakes=max_handshakes,
        streams=max_calls,
        memory=max_memory << 20,
        idle_timeout=idle_timeout,
        stream_timeout=call_timeout,
    )

    async def run() -> None:
        await serving.run_server(
            SdkConfig(store=store),
            host,
            port,
            serving.identity_of(certificate, key, host),
            limits=limits,
            drain_timeout=drain_timeout,
        )

    _run(run)


@main.command("demo")
@click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where to make the store and the ledger; a new one beside it where it exists."
    "  [default: runtara-demo]",
)
@click.option(
    "--keep-killing",
    "kills",
    default=1,
    show_default=True,
    type=click.IntRange(0, 10_000),
    metavar="N",
    help="Kill the worker N times.",
)
@click.pass_context
def demo_command(context: click.Context, folder: Path | None, kills: int) -> None:
    """Watch a program that is killed, paused and resumed, and count what it did."""
    from .demo import run_demo  # with what draws its bar

    context.exit(run_demo(folder, kills))


def _operate(store: str, ask: Callable[[Operator], Awaitable[T]]) -> T:
    """Run one question on a store."""

    async def run() -> T:
        async with open_backend(running.settings(store)) as backend:
            return await ask(Operator(backend))

    return _run(run)


def _run(main: Callable[[], Awaitable[T]]) -> T:
    """Run it; its errors become messages and exit codes."""
    try:
        return trio.run(main)
    except ConfigError as exc:
        raise click.UsageError(str(exc)) from exc
    except SdkError as exc:
        raise click.ClickException(str(exc)) from exc


def _seconds(text: str) -> float:
    """A duration such as ``30d`` in seconds."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([wdhms])", text.strip())
    if match is None:
        raise click.BadParameter(f"{text!r} is no duration; write 4w, 30d, 12h, 90m or 45s")
    return float(match[1]) * {"w": 604800, "d": 86400, "h": 3600, "m": 60, "s": 1}[match[2]]


def _print_json(value: object) -> None:
    click.echo(msgspec.json.format(msgspec.json.encode(value)))
