"""``runtara-trio``: see and steer instances from a terminal.

Exit codes: 0 done, 1 failed, 2 used wrongly. Errors go to stderr, without a traceback.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

import click

from . import (
    console,
    history,
    migrating,
    people,
    queues,
    reading,
    running,
    schedules,
    serving,
    starting,
    steering,
    working,
)


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
    help="Kill a worker N times.",
)
@click.pass_context
def demo_command(context: click.Context, folder: Path | None, kills: int) -> None:
    """Watch workers that are killed, drained and replaced, and count what they did."""
    from .demo import run_demo  # with what draws its bar

    context.exit(run_demo(folder, kills))


for command in (
    reading.list_command,
    reading.show,
    reading.events,
    reading.checkpoints,
    history.steps,
    history.export,
    people.audit,
    people.waits,
    steering.signal,
    steering.send_command,
    steering.prune,
    steering.cancel,
    steering.pause,
    steering.resume,
    steering.rerun,
    steering.fork,
    queues.queues,
    schedules.schedules,
    running.run_command,
    working.worker_command,
    working.workers,
    starting.start,
    starting.result,
    serving.serve_command,
    console.console_command,
    migrating.migrate_command,
):
    main.add_command(command)
