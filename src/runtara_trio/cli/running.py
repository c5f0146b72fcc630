"""``runtara-trio run``: a block around a function of somebody's module.

The function is ``async def name(sdk, *arguments)``; what it returns is the instance's
output. A stop signal's SystemExit may come wrapped in groups by nurseries of the program:
it is unwrapped here, so that the process ends with 128 + the signal's number.
"""

from __future__ import annotations

import inspect
import os
import signal
import traceback
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any

import click
import msgspec
import trio

from ..engine.outcome import contains
from ..errors import ConfigError, InstanceFinished, SdkError
from ..sdk.block import open_runtara
from ..sdk.runtara_sdk import RuntaraSdk
from ..sdk.workflow import Workflow
from ..types import InstanceStatus, Outcome
from .modules import find_module
from .options import codec, settings, store_option

Program = Callable[..., Awaitable[Any]]


@click.command("run")
@store_option
@click.option(
    "--id",
    "instance_id",
    envvar="RUNTARA_INSTANCE_ID",
    required=True,
    metavar="ID",
    help="The instance; else RUNTARA_INSTANCE_ID.",
)
@click.option(
    "--tenant",
    envvar="RUNTARA_TENANT_ID",
    required=True,
    metavar="ID",
    help="The tenant it belongs to; else RUNTARA_TENANT_ID.",
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
    program = find_program(target)
    values = parse_arguments(arguments)
    check_arguments(target, program, values)
    context.exit(run_program(store, instance_id, tenant, program, values, revive=revive))


def find_program(target: str) -> Program:
    """The function that ``module:function`` names, looked for in the current folder too."""
    module_name, separator, function_name = target.partition(":")
    if not separator or not module_name or not function_name:
        raise click.UsageError(f"{target!r} is not of the form module:function")
    function = getattr(find_module(module_name), function_name, None)
    if isinstance(function, Workflow):
        return function
    if not inspect.iscoroutinefunction(function):
        raise click.UsageError(f"{target!r} is not an async function")
    return function


def parse_arguments(texts: tuple[str, ...]) -> list[Any]:
    """The arguments, each a JSON value."""
    values = []
    for text in texts:
        try:
            values.append(msgspec.json.decode(os.fsencode(text)))
        except msgspec.DecodeError as exc:
            raise click.UsageError(
                f"{text!r} is not JSON ({exc}); a text is written '\"so\"'"
            ) from exc
    return values


def check_arguments(target: str, program: Program, values: list[Any]) -> None:
    """Refuse what the function does not take, before an instance fails of it."""
    try:
        inspect.signature(program).bind(None, *values)
    except TypeError as exc:
        given = f"{len(values)} argument{'s' * (len(values) != 1)}"
        raise click.UsageError(f"{target} does not take the SDK and {given}: {exc}") from exc


def run_program(
    store: str,
    instance_id: str,
    tenant_id: str,
    program: Program,
    arguments: list[Any],
    *,
    revive: bool,
) -> int:
    """Run the program in a block of its own. The exit code of the process."""
    sdks: list[RuntaraSdk] = []
    coded = codec()

    async def run() -> None:
        async with open_runtara(
            settings(store),
            instance_id=instance_id,
            tenant_id=tenant_id,
            revive=revive,
            codec=coded,
        ) as sdk:
            sdks.append(sdk)
            result = await program(sdk, *arguments)
            if result is not None and sdk.is_writable:
                await sdk.completed(result)

    try:
        trio.run(run)
    except KeyboardInterrupt:
        return _interrupted(sdks)
    except (Exception, BaseExceptionGroup) as exc:
        if contains(exc, KeyboardInterrupt):
            return _interrupted(sdks)
        return _failed(exc, program) if sdks else _not_begun(exc)
    outcome = sdks[0].outcome
    click.echo(str(outcome), err=True)
    return 0 if outcome in (Outcome.COMPLETED, Outcome.PAUSED) else 1


def _interrupted(sdks: list[RuntaraSdk]) -> int:
    """Ctrl-C: the exit code by which a shell knows it."""
    if sdks and sdks[0].outcome is not None:
        click.echo(str(sdks[0].outcome), err=True)
    return 128 + signal.SIGINT


def _not_begun(error: BaseException) -> int:
    """What kept the program from running, as a message and an exit code."""
    match error:
        case ConfigError():
            raise click.UsageError(str(error)) from error
        case InstanceFinished():
            click.echo(str(error).replace("revive=True", "--revive"), err=True)
            return 0 if error.status == InstanceStatus.COMPLETED else 1
        case SdkError():
            raise click.ClickException(str(error)) from error
    raise error


def _failed(error: BaseException, program: Program) -> int:
    """What the program raised, whatever it is: its own business, shown as Python does."""
    if isinstance(error, BaseExceptionGroup):
        code = _stopped_with(error)
        if code is not None:
            return code
    if not isinstance(error, Exception):
        raise error
    error.__traceback__ = _from_the_program(error.__traceback__, program)
    traceback.print_exception(error)
    return 1


def _from_the_program(trace: TracebackType | None, program: Program) -> TracebackType | None:
    """A traceback without the frames that lead to the program: they are ours and Trio's."""
    code = getattr(inspect.unwrap(program), "__code__", None)
    first = trace
    while first is not None and first.tb_frame.f_code is not code:
        first = first.tb_next
    return first or trace


def _stopped_with(group: BaseExceptionGroup[BaseException]) -> int | None:
    """The code of a SystemExit, where the group has nothing else."""
    exits, rest = group.split(SystemExit)
    while isinstance(exits, BaseExceptionGroup):
        exits = exits.exceptions[0]  # type: ignore[assignment]
    if rest is not None or exits is None:
        return None
    code = exits.code
    return code if isinstance(code, int) else 1
