"""Which instances a list or a count is about."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import TypedDict

import msgspec

from ..errors import ConfigError
from ..ids import check_checkpoint_id, check_instance_id, check_name_of, check_text
from ..messages import Filter
from ..types import InstanceStatus
from .attributes import check_attributes
from .workflow import check_version


class Filters(TypedDict, total=False):
    """What :meth:`Operator.list` and :meth:`Operator.count` filter by, and those of a client."""

    workflow: str
    version: int
    """Of a workflow that is given as well."""
    queue: str
    """The same."""
    parent_id: str
    id_prefix: str
    created_after: datetime
    """Aware; a file knows whole seconds."""
    created_before: datetime
    waiting_for: str
    """The id of the signal that it waits for. Without a history (``SdkConfig.history``) only runs
    of workflows that are not loaded are found."""
    no_live_worker: bool
    """Ready runs that no living worker takes."""
    parked: bool
    attributes: Mapping[str, str | int | float | bool]
    """Those that have all of these, equal."""


def checked(filters: Filters) -> Filter:
    """The filter. Raises ConfigError: an invalid value, or no index answers it."""
    unknown = set(filters) - set(Filters.__annotations__)
    if unknown:
        raise ConfigError(
            f"{min(unknown)!r} is an unknown filter; there are {', '.join(Filters.__annotations__)}"
        )
    for name in ("version", "queue"):
        if filters.get(name) is not None and filters.get("workflow") is None:
            raise ConfigError(f"{name}={filters.get(name)!r} needs a workflow: add workflow=...")
    for name in ("created_after", "created_before"):
        moment = filters.get(name)
        if moment is not None and (not isinstance(moment, datetime) or moment.tzinfo is None):
            raise ConfigError(f"{name} must be a time with its zone, not {moment!r}")
    checks = {
        "workflow": lambda value: check_name_of("workflow", value),
        "version": check_version,
        "queue": lambda value: check_name_of("queue", value),
        "parent_id": check_instance_id,
        "id_prefix": lambda value: check_text("id_prefix", value),
        "waiting_for": check_checkpoint_id,
    }
    for name, check in checks.items():
        if filters.get(name) is not None:
            check(filters.get(name))
    if filters.get("attributes") is not None:
        check_attributes(filters["attributes"])
    return Filter(**filters)


def checked_statuses(
    statuses: Iterable[InstanceStatus] | None,
) -> frozenset[InstanceStatus] | None:
    """Statuses, or their names. Raises ConfigError."""
    try:
        return None if statuses is None else frozenset(map(InstanceStatus, statuses))
    except ValueError as exc:
        raise ConfigError(f"statuses must be of InstanceStatus: {exc}") from exc


def attribute_of(text: str) -> tuple[str, str | int | float | bool]:
    """An attribute that somebody has typed as ``name=value``: a JSON value, or a text.

    Raises:
      ConfigError: it has no ``=``.
    """
    name, separator, value = text.partition("=")
    if not separator:
        raise ConfigError(f"{text!r} is not of the form name=value")
    try:
        found = msgspec.json.decode(value)
    except msgspec.DecodeError:
        return name, value
    return name, found if isinstance(found, (str, int, float, bool)) else value
