"""The options by which instances are meant, of ``list`` and of all that acts on many."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import click

from ..errors import ConfigError
from ..sdk.filters import attribute_of
from ..types import FINISHED, InstanceStatus
from .options import seconds

_OPTIONS = (
    click.option("--unfinished", is_flag=True, help="Only what has not ended."),
    click.option(
        "--status",
        "wanted",
        multiple=True,
        type=click.Choice([one.value for one in InstanceStatus if one.value != "unknown"]),
        help="Only these; may be given more than once.",
    ),
    click.option("--tenant", metavar="ID", help="Only this tenant's."),
    click.option("--workflow", metavar="NAME", help="Only runs of it."),
    click.option("--version", "number", type=int, metavar="N", help="Only of this version of it."),
    click.option("--queue", metavar="NAME", help="Only of the workflow's runs in it."),
    click.option("--parent", metavar="ID", help="Only children of this instance."),
    click.option("--prefix", metavar="TEXT", help="Only ids that begin with it."),
    click.option("--waiting-for", metavar="ID", help="Only runs that wait for a signal, unloaded."),
    click.option("--no-live-worker", is_flag=True, help="Only runs that no living worker takes."),
    click.option("--parked", is_flag=True, help="Only parked runs."),
    click.option(
        "--attribute",
        "attributes",
        multiple=True,
        metavar="NAME=VALUE",
        help="Only what has it; a JSON value or a text. May be given more than once.",
    ),
    click.option(
        "--created-before",
        "age",
        metavar="DURATION",
        callback=lambda context, option, text: None if text is None else seconds(text),
        help="Only what was created so long ago: 30d, 12h, 90m or 45s.",
    ),
)

_NAMES = {"number": "version", "prefix": "id_prefix", "parent": "parent_id"}


def filter_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command these options."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def filters_of(options: dict[str, Any]) -> dict[str, Any]:
    """The arguments of ``Operator.list`` that the options mean. Raises UsageError."""
    given = {_NAMES.get(name, name): value for name, value in options.items() if value}
    statuses = {InstanceStatus(status) for status in given.pop("wanted", ())} or None
    if given.pop("unfinished", False):
        statuses = (statuses or set(InstanceStatus)) - FINISHED
    if statuses is not None:
        given["statuses"] = statuses
    if "tenant" in given:
        given["tenant_id"] = given.pop("tenant")
    if "age" in given:
        given["created_before"] = datetime.now(UTC) - timedelta(seconds=given.pop("age"))
    if "attributes" in given:
        given["attributes"] = dict(_attribute(text) for text in given["attributes"])
    return given


def _attribute(text: str) -> tuple[str, Any]:
    try:
        return attribute_of(text)
    except ConfigError as exc:
        raise click.UsageError(str(exc)) from exc
