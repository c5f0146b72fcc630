"""What the calls of instances are answered, over any backend.

The behaviour is runtara-core 1.6.4's where a stock client can see it. Beyond it stand the guards of
our stores: a finished instance is ended by no second event, a custom signal is saved before it is
handed out, an attempt or a sleep that is told twice counts once, and who has lost an instance is
told so.
"""

from __future__ import annotations

from ...backend import Backend
from ...errors import ConfigError, InstanceBusy, LeaseLost, SdkError, ServerError
from ...ids import check_instance_id, check_stored_id, check_tenant_id
from ...messages import GetInput, GetStatus
from ...remote.names import BUSY, LEASE_LOST
from ...serving.leases import ClientLeases
from ...types import InstanceStatus
from .. import bodies
from ..bodies import CLIENT
from . import bodies as asked
from . import checkpoints, events, signals
from .api import Api
from .bodies import read
from .calls import DONE, Call, One
from .guard import Guard
from .messages import Head, Refused, Reply, json
from .routes import Found, Route, Routes

QUIET = 120.0
"""Seconds without a call after which an instance's lease is free: stock programs send no heartbeats
by themselves."""


class InstanceAnswers(Api):
    """The application of a core: instances ask it."""

    def __init__(self, backend: Backend, leases: ClientLeases, guard: Guard) -> None:
        super().__init__(guard, ROUTES)
        self._backend = backend
        self._leases = leases

    async def answer(self, head: Head, body: bytearray) -> Reply:
        found: Found[Call] = head.found
        instance, name = (*found.values, "", "")[:2]
        one = One(self._backend, self._leases, head.header(CLIENT), instance, name, body)
        code = f"{found.handler.code}_ERROR"
        self._used(one.client, instance)
        try:
            return await found.handler.answer(one)
        except Refused as exc:
            return exc.reply
        except LeaseLost as exc:
            return json(bodies.Refusal(code=LEASE_LOST, error=str(exc)), 409)
        except ConfigError as exc:
            return json(bodies.Refusal(code=code, error=str(exc)), 400)
        except ServerError as exc:
            return json(bodies.Refusal(code=code, error=await _state(one) or exc.message), 500)
        except SdkError as exc:
            return json(bodies.Refusal(code=code, error=str(exc)), 500)
        finally:
            self._used(one.client, instance)

    def kept_waiting(self, head: Head) -> None:
        found: Found[Call] = head.found
        self._used(head.header(CLIENT), found.values[0])

    def _used(self, client: str, instance: str) -> None:
        if instance:
            self._leases.used(client, instance, QUIET)


async def _state(one: One) -> str | None:
    """Why a call was refused, as a core says it; None: not for the instance's status."""
    status = await one.status()
    if status is InstanceStatus.UNKNOWN:
        return f"Instance '{one.instance}' not found"
    if status is InstanceStatus.RUNNING:
        return None
    return f"Instance '{one.instance}' is in invalid state: expected 'running', got '{status}'"


async def _health(one: One) -> Reply:
    try:
        await one.status()
    except SdkError as exc:
        return json({"status": "unhealthy", "error": str(exc)}, 503)
    return json({"status": "healthy"})


async def _register(one: One) -> Reply:
    body = read(one.body, asked.Register)
    resume = body.checkpoint_id
    try:
        await one.leases.register(
            one.client,
            check_instance_id(one.instance),
            tenant_id=check_tenant_id(body.tenant_id),
            checkpoint_id=None if resume is None else check_stored_id(resume),
        )
    except InstanceBusy as exc:
        return _not_registered(f"{BUSY} {exc.holder}")
    except SdkError as exc:
        return _not_registered(str(exc))
    return DONE


def _not_registered(why: str) -> Reply:
    return json({"success": False, "error": why}, 400)


# ---- what is known of an instance


async def _status(one: One) -> Reply:
    info = await one.backend.request(GetStatus(instance_id=one.instance))
    known = info.status is not InstanceStatus.UNKNOWN
    return json(
        bodies.Status(
            found=known,
            status=info.status.value,
            instance_id=one.instance,
            checkpoint_id=info.checkpoint_id,
            output=info.output,
            error=info.error if known else "Instance not found",
        )
    )


async def _input(one: One) -> Reply:
    try:
        stored = await one.backend.request(GetInput(instance_id=one.instance))
    except ServerError:
        refusal = bodies.Refusal(
            code="INSTANCE_NOT_FOUND", error=f"Instance '{one.instance}' not found"
        )
        return json(refusal, 404)
    return json(bodies.Input(found=True, instance_id=one.instance, input=stored.input))


_BASE = "/api/v1/instances/{id}"
ROUTES = Routes(
    [
        Route("GET", "/health", Call("HEALTH", _health)),
        Route("POST", f"{_BASE}/register", Call("REGISTER", _register), reads=True),
        Route(
            "POST", f"{_BASE}/checkpoint", Call("CHECKPOINT", checkpoints.checkpoint), reads=True
        ),
        Route("GET", f"{_BASE}/signals", Call("POLL_SIGNALS", signals.pending)),
        Route("POST", f"{_BASE}/signals/ack", Call("SIGNAL_ACK", signals.acknowledge), reads=True),
        Route("GET", f"{_BASE}/signals/{{id}}", Call("POLL_CUSTOM_SIGNAL", signals.take)),
        Route("POST", f"{_BASE}/events", Call("EVENT", events.event), reads=True),
        Route("POST", f"{_BASE}/completed", Call("COMPLETED", events.completed), reads=True),
        Route("POST", f"{_BASE}/failed", Call("FAILED", events.failed), reads=True),
        Route("POST", f"{_BASE}/suspended", Call("SUSPENDED", events.suspended)),
        Route("POST", f"{_BASE}/sleep", Call("SLEEP", checkpoints.sleep), reads=True),
        Route("POST", f"{_BASE}/retry", Call("RETRY", events.retry), reads=True),
        Route("GET", f"{_BASE}/status", Call("STATUS", _status)),
        Route("GET", f"{_BASE}/input", Call("INPUT", _input)),
    ]
)
