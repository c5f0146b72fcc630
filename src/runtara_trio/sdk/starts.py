"""What a start checks before anything is written, and what it makes."""

from __future__ import annotations

import secrets
import time
import uuid
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Generic, Literal, TypedDict, TypeVarTuple

import msgspec

from ..clock import Seconds, check_seconds
from ..codec import Codec, Place, at
from ..engine.services import SharedBackend
from ..errors import CodecError, ConfigError, InstanceExists
from ..ids import check_instance_id, check_name_of
from ..messages import Existing, ListWorkers, NewRun
from ..telemetry import current
from .attributes import check_attributes
from .workflow import (
    DEFAULT_QUEUE,
    AnyWorkflow,
    Workflow,
    check_version,
    encode_any,
    encode_arguments,
)

Ts = TypeVarTuple("Ts")

IfExists = Literal["attach", "fail"]


class Start(msgspec.Struct, Generic[*Ts], frozen=True, kw_only=True):
    """One of many starts of a workflow; see :meth:`Client.start`."""

    args: tuple[*Ts]
    id: str | None = None
    queue: str | None = None
    priority: int = 0
    delay: Seconds | None = None
    at: datetime | None = None
    key: str | None = None
    attributes: Mapping[str, str | int | float | bool] | None = None


class StartOptions(TypedDict, total=False):
    """The options of :meth:`Client.start`."""

    id: str | None
    if_exists: IfExists
    queue: str | None
    priority: int
    delay: Seconds | None
    at: datetime | None
    key: str | None
    attributes: Mapping[str, str | int | float | bool] | None
    version: int | None


async def newest_version(shared: SharedBackend, workflow: str) -> int:
    """The newest version of a workflow that a living worker runs, else 1."""
    workers = (await shared.request(ListWorkers())).workers
    return max(
        (version for one in workers for name, version in one.workflows if name == workflow),
        default=1,
    )


def new_id() -> str:
    """A random id that sorts by its time: a UUID of version 7 (RFC 9562, 5.7)."""
    ms = time.time_ns() // 1_000_000
    number = (ms & (2**48 - 1)) << 80 | 7 << 76 | secrets.randbits(12) << 64
    return str(uuid.UUID(int=number | 2 << 62 | secrets.randbits(62)))


def made(
    workflow: AnyWorkflow | str,
    start: Start[Any],
    *,
    version: int | None,
    codec: Codec,
    place: Place | None = None,
) -> NewRun:
    """The run that a start makes. ``place``: of its arguments; None: its instance.

    Raises:
      ConfigError: an invalid option; it names the option and its value.
      TypeError: too few arguments, or too many.
      CodecError: an argument has no encoding.
    """
    if start.delay is not None and start.at is not None:
        raise ConfigError("give delay or at, not both")
    instance_id = new_id() if start.id is None else check_instance_id(start.id)
    codec = at(codec, place or Place(instance_id, "input"))
    if isinstance(workflow, str):
        name, queue = check_name_of("workflow", workflow), DEFAULT_QUEUE
        data = encode_any(codec, name, start.args)
        number = 1 if version is None else check_version(version)
    else:
        name, queue = workflow.name, workflow.queue
        data = encode_arguments(workflow, codec, start.args)
        number = workflow.version if version is None else check_version(version)
    delay = 0.0 if start.delay is None else check_seconds("delay", start.delay)
    return NewRun(
        instance_id=instance_id,
        workflow=name,
        version=number,
        queue=check_name_of("queue", queue if start.queue is None else start.queue),
        input=data,
        priority=_check_priority(start.priority),
        key="" if start.key is None else check_name_of("key", start.key),
        delay_ms=int(delay * 1000),
        at_ms=None if start.at is None else _check_time(start.at),
        attributes=check_attributes(start.attributes or {}),
        trace=current.text(),
    )


def check_start(workflow: object, if_exists: object) -> None:
    """What a start is of, and what it does where its id exists. Raises ConfigError."""
    if if_exists not in ("attach", "fail"):
        raise ConfigError(f"if_exists must be 'attach' or 'fail', not {if_exists!r}")
    if not isinstance(workflow, (str, Workflow)):
        raise ConfigError(f"workflow must be made by @workflow, or a name, not {workflow!r}")


def check_existing(
    existing: Existing | None, run: NewRun, tenant_id: str, codec: Codec, if_exists: IfExists
) -> None:
    """Whether a start may have what had its id already; None: nothing had it.

    Raises:
      InstanceExists: it is another's, or ``if_exists`` is "fail".
    """
    if existing is not None:
        same = is_same(existing, run, tenant_id, codec)
        if if_exists == "fail" or not same:
            raise InstanceExists(run.instance_id, existing.workflow, same=same)


def is_same(existing: Existing, run: NewRun, tenant_id: str, codec: Codec) -> bool:
    """Whether an instance was started for the same: its workflow, and its arguments as JSON. An
    encrypting codec writes other bytes by another key, so both are decoded."""
    if existing.tenant_id != tenant_id or existing.workflow != run.workflow:
        return False
    if existing.input == run.input:
        return True
    codec = at(codec, Place(run.instance_id, "input"))
    try:
        return bool(codec.decode(existing.input, list) == codec.decode(run.input, list))
    except Exception as exc:
        raise CodecError(
            f"instance {run.instance_id!r} exists, and its arguments cannot be compared: {exc}"
        ) from exc


def _check_priority(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 9:
        raise ConfigError(f"priority must be a whole number from 0 to 9, not {value!r}")
    return value


def _check_time(value: object) -> int:
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise ConfigError(
            f"at must be a time with its zone, as datetime.now(UTC) + timedelta(hours=1), not "
            f"{value!r}"
        )
    return max(1, int(value.timestamp() * 1000))
