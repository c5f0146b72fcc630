"""What the calls of operators are answered, over any backend.

They are those of runtara-environment that fit a server without images and launched programs:
instances, signals, checkpoints, events, steps.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Awaitable, Callable
from importlib.metadata import version
from typing import NamedTuple

from ...backend import Backend
from ...clock import ms_of
from ...errors import ConfigError, SdkError, ServerError, SignalRefused
from ...ids import check_checkpoint_id, check_instance_id, check_tenant_id
from ...messages import (
    CountInstances,
    Filter,
    GetStatus,
    ListInstances,
    ReadCheckpoints,
    SendCustomSignal,
    SendSignal,
    ShowInstance,
)
from ...types import InstanceStatus, InstanceSummary, SignalType
from .. import operators as bodies
from ..bodies import Done, Refusal
from .api import Api
from .bodies import read
from .guard import Guard
from .listed import MOST, Query
from .messages import Head, Refused, Reply, json
from .past import events_of, steps_of
from .routes import Found, Route, Routes

DONE = json(Done(True))


class Asked(NamedTuple):
    """A call that has come."""

    backend: Backend
    who: str
    """By whose token; for the audit."""
    instance: str
    name: str
    """The last of its path, where that may be anything."""
    query: str
    body: bytearray

    async def status(self) -> InstanceStatus:
        return (await self.backend.request(GetStatus(instance_id=self.instance))).status


Handler = Callable[[Asked], Awaitable[Reply]]


class OperatorAnswers(Api):
    """The application of operators."""

    def __init__(self, backend: Backend, guard: Guard) -> None:
        super().__init__(guard, ROUTES)
        self._backend = backend

    async def answer(self, head: Head, body: bytearray) -> Reply:
        found: Found[Handler] = head.found
        instance, name = (*found.values, "", "")[:2]
        asked = Asked(self._backend, head.who, instance, name, found.query, body)
        try:
            return await found.handler(asked)
        except Refused as exc:
            return exc.reply
        except ConfigError as exc:
            return json(Refusal(code="INVALID_REQUEST", error=str(exc)), 400)
        except ServerError as exc:
            if await asked.status() is InstanceStatus.UNKNOWN:
                return _unknown(asked)
            return json(Refusal(code="SERVER_ERROR", error=str(exc)), 500)
        except SdkError as exc:
            return json(Refusal(code="SERVER_ERROR", error=str(exc)), 500)


STARTED = time.monotonic()
AT_ONCE = 16 * 2**20
"""Bytes of states that are read at once, only to tell how long they are."""


async def _health(asked: Asked) -> Reply:
    await asked.backend.request(GetStatus(instance_id="health"))
    uptime = int((time.monotonic() - STARTED) * 1000)
    return json({"healthy": True, "version": version("runtara-trio"), "uptime_ms": uptime})


# ---- instances


async def _list(asked: Asked) -> Reply:
    query = Query(
        asked.query,
        (
            *("tenant_id", "status", "created_after_ms", "created_before_ms"),
            *("order_by", "limit", "offset"),
        ),
    )
    query.one_of("order_by", ("created_at_desc",))
    status, tenant, page = query.text("status"), query.text("tenant_id"), query.page
    if status is not None and status not in [*InstanceStatus]:
        raise ConfigError(f"status {status!r} is unknown; there are {', '.join(InstanceStatus)}")
    statuses = None if status is None else frozenset([InstanceStatus(status)])
    if tenant is not None:
        check_tenant_id(tenant)
    filter = Filter(
        created_after=query.time("created_after_ms"), created_before=query.time("created_before_ms")
    )
    counted = await asked.backend.request(
        CountInstances(statuses=statuses, tenant_id=tenant, filter=filter)
    )
    message = ListInstances(
        statuses=statuses, tenant_id=tenant, filter=filter, limit=max(1, page.end)
    )
    found = (await asked.backend.request(message)).instances
    summaries = [_summary(one) for one in page.of(found)]
    return json(bodies.Instances(instances=summaries, total_count=counted.count))


def _summary(one: InstanceSummary) -> bodies.Summary:
    return bodies.Summary(
        instance_id=one.instance_id,
        tenant_id=one.tenant_id,
        status=one.status.value,
        created_at_ms=ms_of(one.created_at) or 0,
        started_at_ms=ms_of(one.started_at),
        finished_at_ms=ms_of(one.finished_at),
        has_error=one.status is InstanceStatus.FAILED,
    )


async def _show(asked: Asked) -> Reply:
    if await asked.status() is InstanceStatus.UNKNOWN:
        return json(bodies.Instance(found=False, instance_id=asked.instance))
    details = await asked.backend.request(ShowInstance(instance_id=asked.instance))
    summary = details.summary
    return json(
        bodies.Instance(
            found=True,
            instance_id=asked.instance,
            status=summary.status.value,
            tenant_id=summary.tenant_id,
            checkpoint_id=summary.checkpoint_id,
            created_at_ms=ms_of(summary.created_at),
            started_at_ms=ms_of(summary.started_at),
            finished_at_ms=ms_of(summary.finished_at),
            output=details.output,
            input=details.input,
            error=details.error,
            termination_reason=details.termination_reason,
            exit_code=details.exit_code,
        )
    )


# ---- signals


async def _signal(asked: Asked) -> Reply:
    body = read(asked.body, bodies.SendSignal)
    if body.signal_type not in [*SignalType]:
        raise ConfigError(
            f"signal_type {body.signal_type!r} is unknown; there are {', '.join(SignalType)}"
        )
    return await _sent(asked, SignalType(body.signal_type), body.payload)


async def _sent(asked: Asked, type: SignalType, payload: str | None = None) -> Reply:
    status = await asked.status()
    if status is InstanceStatus.UNKNOWN:
        return _unknown(asked)
    if status.finished:
        return _refused(f"instance {asked.instance!r} is {status}: a {type} does nothing to it")
    data = (payload or secrets.token_hex(8)).encode()  # else two cannot be told apart
    try:
        await asked.backend.request(
            SendSignal(
                instance_id=check_instance_id(asked.instance),
                type=type,
                payload=data,
                who=asked.who,
            )
        )
    except SignalRefused as exc:
        return _refused(str(exc))
    return DONE


async def _custom(asked: Asked) -> Reply:
    body = read(asked.body, bodies.SendCustomSignal)
    if not body.checkpoint_id:
        raise ConfigError("checkpoint_id is empty: say who waits for the signal")
    if await asked.status() is InstanceStatus.UNKNOWN:
        return _unknown(asked)
    try:
        await asked.backend.request(
            SendCustomSignal(
                instance_id=check_instance_id(asked.instance),
                checkpoint_id=check_checkpoint_id(body.checkpoint_id),
                payload=(body.payload or "").encode(),
                who=asked.who,
            )
        )
    except SignalRefused as exc:
        return _refused(str(exc))
    return DONE


async def _stop(asked: Asked) -> Reply:
    return await _sent(asked, SignalType.CANCEL)


async def _resume(asked: Asked) -> Reply:
    return await _sent(asked, SignalType.RESUME)


def _unknown(asked: Asked) -> Reply:
    return json({"success": False, "error": f"Instance '{asked.instance}' not found"}, 404)


def _refused(why: str) -> Reply:
    return json({"success": False, "error": why}, 409)


# ---- what an instance has saved and done


async def _checkpoints(asked: Asked) -> Reply:
    page = Query(asked.query, ("limit", "offset")).page
    found: list[bodies.CheckpointSummary] = []
    after: str | None = None
    while True:
        part = await asked.backend.request(
            ReadCheckpoints(instance_id=asked.instance, after=after, limit=MOST, most_bytes=AT_ONCE)
        )
        found += (
            bodies.CheckpointSummary(
                checkpoint_id=one.checkpoint_id,
                instance_id=asked.instance,
                created_at_ms=ms_of(one.created_at) or 0,
                data_size_bytes=len(one.state),
            )
            for one in part.checkpoints
        )
        if not part.more:
            break
        after = part.checkpoints[-1].checkpoint_id
    found.sort(key=lambda one: one.created_at_ms, reverse=True)
    return json(
        bodies.Checkpoints(
            checkpoints=list(page.of(found)),
            total_count=len(found),
            limit=page.limit,
            offset=page.offset,
        )
    )


async def _checkpoint(asked: Asked) -> Reply:
    message = ReadCheckpoints(instance_id=asked.instance, prefix=asked.name, limit=1)
    for one in (await asked.backend.request(message)).checkpoints:
        if one.checkpoint_id == asked.name:
            return json(
                bodies.Checkpoint(
                    found=True,
                    checkpoint_id=asked.name,
                    instance_id=asked.instance,
                    created_at_ms=ms_of(one.created_at) or 0,
                    data=one.state,
                )
            )
    return json(
        bodies.Checkpoint(found=False, checkpoint_id=asked.name, instance_id=asked.instance)
    )


async def _events(asked: Asked) -> Reply:
    return json(await events_of(asked.backend, asked.instance, asked.query))


async def _steps(asked: Asked) -> Reply:
    return json(await steps_of(asked.backend, asked.instance, asked.query))


_BASE = "/api/v1/instances"
ROUTES: Routes[Handler] = Routes(
    [
        Route("GET", "/api/v1/health", _health),
        Route("GET", _BASE, _list),
        Route("GET", f"{_BASE}/{{id}}", _show),
        Route("POST", f"{_BASE}/{{id}}/signals", _signal, reads=True),
        Route("POST", f"{_BASE}/{{id}}/signals/custom", _custom, reads=True),
        Route("POST", f"{_BASE}/{{id}}/stop", _stop, reads=True),
        Route("POST", f"{_BASE}/{{id}}/resume", _resume),
        Route("GET", f"{_BASE}/{{id}}/checkpoints", _checkpoints),
        Route("GET", f"{_BASE}/{{id}}/checkpoints/{{checkpoint_id}}", _checkpoint),
        Route("GET", f"{_BASE}/{{id}}/events", _events),
        Route("GET", f"{_BASE}/{{id}}/steps", _steps),
    ]
)
