"""What commands share: their options, and a run on an open store."""

from __future__ import annotations

import getpass
import ipaddress
import os
import re
import socket
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import click
import msgspec
import trio

from ..codec import JSON, Codec
from ..config import SdkConfig, environment
from ..errors import ConfigError, SdkError
from ..opening import open_backend
from ..sdk.operator import Operator
from .modules import find_codec

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

_CODEC = "runtara_trio.codec"


def _keep_codec(context: click.Context, option: click.Parameter, text: str | None) -> None:
    if text is not None:
        context.meta[_CODEC] = find_codec(text)


def codec() -> Codec:
    """That of the command that runs."""
    found: Codec = click.get_current_context().meta.get(_CODEC, JSON)
    return found


url_option = click.option(
    "--store",
    envvar="RUNTARA_DATABASE_URL",
    show_envvar=True,
    required=True,
    metavar="URL",
    help="The store, as sqlite:///orders.db.",
)
codec_option = click.option(
    "--codec",
    envvar="RUNTARA_CODEC",
    show_envvar=True,
    metavar="MODULE:OBJECT",
    expose_value=False,
    callback=_keep_codec,
    help="Of the programs, where it is not JSON.",
)


def store_option(command: F) -> F:
    """The store, and what encodes its values."""
    return url_option(codec_option(command))


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")
limit_option = click.option(
    "--limit", default=100, show_default=True, type=click.IntRange(1, 100_000), help="Rows."
)
instance_argument = click.argument("instance_id", metavar="ID")


def settings(store: str) -> SdkConfig:
    """A store, with the timeouts and intervals of the environment."""
    return msgspec.structs.replace(environment(), store=store)


def operate(store: str, ask: Callable[[Operator], Awaitable[T]]) -> T:
    """Run one question on a store."""
    coded = codec()

    async def run() -> T:
        async with open_backend(settings(store)) as backend:
            return await ask(Operator(backend, codec=coded, who=person()))

    return run_on_trio(run)


def person() -> str:
    """Who uses the command line, for the audit."""
    try:
        name = getpass.getuser()
    except (OSError, KeyError):  # a user without a name
        name = str(os.getuid())
    return f"{name}@{socket.gethostname()}"


def run_on_trio(main: Callable[[], Awaitable[T]]) -> T:
    """Run it; its errors become messages and exit codes."""
    try:
        return trio.run(main)
    except ConfigError as exc:
        raise click.UsageError(str(exc)) from exc
    except SdkError as exc:
        raise click.ClickException(str(exc)) from exc


def seconds(text: str) -> float:
    """A duration such as ``30d`` in seconds. Raises BadParameter."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([wdhms])", text.strip())
    if match is None:
        raise click.BadParameter(f"{text!r} is an invalid duration; write 4w, 30d, 12h, 90m or 45s")
    return float(match[1]) * {"w": 604800, "d": 86400, "h": 3600, "m": 60, "s": 1}[match[2]]


def print_json(value: object) -> None:
    """Print a value, for scripts."""
    click.echo(msgspec.json.format(msgspec.json.encode(value)))


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a host's ports."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
