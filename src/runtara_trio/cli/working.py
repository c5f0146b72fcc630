"""``worker`` and ``workers``: running workflows, and who does."""

from __future__ import annotations

import signal
from collections.abc import Iterable
from contextlib import AbstractAsyncContextManager

import click
import trio

from .. import words
from ..engine.outcome import contains
from ..errors import ConfigError, SdkError
from ..sdk.workflow import AnyWorkflow, Workflow
from ..worker.opening import open_worker
from ..worker.worker import Worker
from . import health, tables
from .modules import find_module
from .options import codec, json_option, operate, print_json, seconds, settings, store_option


@click.command("worker")
@store_option
@click.option("--slots", default=100, show_default=True, metavar="N", help="Runs at once.")
@click.option(
    "--max-loaded", default=10_000, show_default=True, metavar="N", help="Runs in memory."
)
@click.option(
    "--queue",
    "queues",
    multiple=True,
    metavar="NAME",
    help="Take runs from it; may be given more than once.  [default: those of the workflows]",
)
@click.option(
    "--tenant", "tenants", multiple=True, metavar="ID", help="Only runs of it; more than once."
)
@click.option("--name", metavar="NAME", help="What 'workers' shows.")
@click.option(
    "--also",
    "also",
    multiple=True,
    metavar="NAME=VERSION",
    help="An older version that the workflow still runs; may be given more than once.",
)
@click.option(
    "--drain-timeout",
    default="20s",
    show_default=True,
    metavar="DURATION",
    callback=lambda context, option, text: seconds(text),
    help="How long a drain waits for boundaries.",
)
@click.option(
    "--health-port",
    type=click.IntRange(1, 65535),
    metavar="PORT",
    help="Answer /livez and /readyz there, for an orchestrator.",
)
@click.option(
    "--metrics-port",
    type=click.IntRange(1, 65535),
    metavar="PORT",
    help="Answer /metrics there, for Prometheus.",
)
@click.argument("targets", nargs=-1, required=True, metavar="MODULE[:NAME]...")
@click.pass_context
def worker_command(
    context: click.Context,
    store: str,
    slots: int,
    max_loaded: int,
    queues: tuple[str, ...],
    tenants: tuple[str, ...],
    name: str | None,
    also: tuple[str, ...],
    drain_timeout: float,
    health_port: int | None,
    metrics_port: int | None,
    targets: tuple[str, ...],
) -> None:
    """Run workflows until SIGTERM, which drains: all of a module, or those that are named.

    Ends with 143 after SIGTERM and with 130 after Ctrl-C.
    """
    workflows = find_workflows(targets)
    versions = _versions(also)
    coded = codec()

    async def work() -> None:
        async with (
            health.listening(health_port) as probed,
            health.listening(metrics_port) as scraped,
            health.measured(metrics_port) as metrics,
            opened() as worker,
            trio.open_nursery() as nursery,
        ):
            click.echo(f"worker {worker.name} runs {worker.runs}", err=True)
            nursery.start_soon(health.serve, probed, health.probes(worker))
            nursery.start_soon(health.serve, scraped, metrics)
            await trio.sleep_forever()

    def opened() -> AbstractAsyncContextManager[Worker]:
        return open_worker(
            settings(store),
            workflows,
            slots=slots,
            max_loaded=max_loaded,
            queues=queues or None,
            tenant_ids=tenants or None,
            name=name,
            versions=versions,
            drain_timeout=drain_timeout,
            codec=coded,
        )

    try:
        trio.run(work)
    except ConfigError as exc:
        raise click.UsageError(str(exc)) from exc
    except SdkError as exc:
        raise click.ClickException(str(exc)) from exc
    except BaseException as exc:
        if contains(exc, KeyboardInterrupt):
            context.exit(128 + signal.SIGINT)
        raise


@click.command()
@store_option
@json_option
def workers(store: str, as_json: bool) -> None:
    """List the workers that live."""
    found = operate(store, lambda op: op.list_workers())
    if as_json:
        print_json(found)
    else:
        tables.display(tables.workers_table(found, words.now()))


def find_workflows(targets: Iterable[str]) -> list[AnyWorkflow]:
    """The workflows that ``module:name`` names, or all of a module."""
    found: dict[int, AnyWorkflow] = {}
    for target in targets:
        module_name, separator, name = target.partition(":")
        module = find_module(module_name)
        if separator:
            one = getattr(module, name, None)
            if not isinstance(one, Workflow):
                raise click.UsageError(f"{target!r} is not a workflow: put @workflow on it")
            found[id(one)] = one
            continue
        of_module = [one for one in vars(module).values() if isinstance(one, Workflow)]
        if not of_module:
            raise click.UsageError(f"the module {module_name!r} has no workflow")
        found |= {id(one): one for one in of_module}
    return list(found.values())


def _versions(texts: Iterable[str]) -> dict[str, list[int]]:
    versions: dict[str, list[int]] = {}
    for text in texts:
        name, separator, number = text.rpartition("=")
        if not separator or not number.isdecimal():
            raise click.UsageError(f"{text!r} is not of the form name=version")
        versions.setdefault(name, []).append(int(number))
    return versions
