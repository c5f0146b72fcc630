"""What operators ask, over HTTP: of ``serve --operators-port``, or of a runtara-environment.

Such a server knows neither leases nor workers, and its texts are texts: a payload must be UTF-8.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

import msgspec
import trio

from ...clock import ms_of, time_of
from ...config import SdkConfig
from ...errors import ConfigError, NotSupported, ServerError, SignalRefused
from ...messages import (
    CheckpointPage,
    Counted,
    CountInstances,
    Done,
    EventPage,
    Filter,
    InstancePage,
    ListEvents,
    ListInstances,
    ReadCheckpoints,
    Request,
    SendCustomSignal,
    SendSignal,
    ShowInstance,
    SignalAnswer,
)
from ...types import (
    CheckpointRecord,
    Event,
    EventType,
    InstanceDetails,
    InstanceStatus,
    InstanceSummary,
    SignalType,
)
from .. import bodies as shared
from .. import operators as bodies
from .connection import Response
from .pool import Pool

T = TypeVar("T")

PAGE = 1000
"""Rows that are asked for at once."""


class Operators:
    """Asks the operators' port of one server."""

    def __init__(self, pool: Pool, config: SdkConfig) -> None:
        self._pool = pool
        self._timeout = config.request_timeout_ms / 1000
        token = config.operators_token
        bearer = "" if token is None else f"Authorization: Bearer {token}\r\n"
        self._head = f"Host: {pool.server.authority}\r\nAccept: application/json\r\n{bearer}"

    async def request(self, message: Request[Any]) -> Any:
        """What a message is answered.

        Raises:
          NotSupported: there is no such call.
          ServerError: it was refused. SignalRefused: the instance does not take it.
        """
        return await HANDLERS[type(message)](self, message)

    async def get(self, message: Request[Any], path: str, kind: type[T], **query: Any) -> T:
        """What there is under a path."""
        given = {name: value for name, value in query.items() if value is not None}
        target = f"{path}?{urlencode(given)}" if given else path
        return _read(message, await self._ask(message, "GET", target, b""), kind)

    async def post(self, message: Request[Any], path: str, body: shared.Body) -> None:
        """Have something done. Raises SignalRefused."""
        response = await self._ask(message, "POST", path, msgspec.json.encode(body))
        if response.status in (404, 409):
            raise SignalRefused(_why(response))
        _read(message, response, shared.Done)

    async def _ask(self, message: Request[Any], method: str, target: str, body: bytes) -> Response:
        kind = "Content-Type: application/json\r\n" if body else ""
        head = (
            f"{method} /api/v1/instances{target} HTTP/1.1\r\n"
            f"{self._head}{kind}Content-Length: {len(body)}\r\n\r\n"
        )
        reply = await self._pool.call(
            message.asked,
            head.encode() + body,
            trio.current_time() + self._timeout,
            resend=method == "GET",
        )
        return reply.response


def _read(message: Request[Any], response: Response, kind: type[T]) -> T:
    if response.status >= 300:
        raise ServerError(message.asked, f"HTTP_{response.status}", _why(response))
    try:
        return msgspec.json.decode(response.body, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as exc:
        raise ServerError(message.asked, "BAD_REPLY", f"{response.status}: {exc}") from exc


def _why(response: Response) -> str:
    try:
        return msgspec.json.decode(response.body, type=shared.Refusal).error
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return response.body.decode(errors="replace").strip() or f"status {response.status}"


def _path(instance_id: str) -> str:
    return f"/{quote(instance_id, safe='')}"


def _text(payload: bytes) -> str:
    try:
        return payload.decode()
    except UnicodeDecodeError as exc:
        raise ConfigError(
            "a payload is sent as a text over HTTP, and this one is no UTF-8: give the URL of the "
            "server's database"
        ) from exc


# ---- instances


async def _list(operators: Operators, message: ListInstances) -> InstancePage:
    offset = int(message.before or 0)
    found = await operators.get(
        message,
        "",
        bodies.Instances,
        **_query(message),
        limit=message.limit,
        offset=offset,
    )
    end = offset + len(found.instances)
    more = bool(found.instances) and end < found.total_count
    return InstancePage(
        instances=tuple(map(_summary, found.instances)), next=str(end) if more else None
    )


async def _count(operators: Operators, message: CountInstances) -> Counted:
    found = await operators.get(message, "", bodies.Instances, **_query(message), limit=1)
    return Counted(count=found.total_count)


def _query(message: ListInstances | CountInstances) -> dict[str, Any]:
    """What a list asks for. Raises NotSupported: more than a server over HTTP filters by."""
    filter, statuses = message.filter, message.statuses
    plain = Filter(created_after=filter.created_after, created_before=filter.created_before)
    if filter != plain or (statuses is not None and len(statuses) > 1):
        raise NotSupported(
            "over HTTP instances are listed by one status, tenant and creation time alone: give "
            "the URL of the server's database"
        )
    status = next(iter(statuses), None) if statuses else None
    return {
        "tenant_id": message.tenant_id,
        "status": None if status is None else status.value,
        "created_after_ms": ms_of(filter.created_after),
        "created_before_ms": ms_of(filter.created_before),
    }


def _summary(one: bodies.Summary | bodies.Instance) -> InstanceSummary:
    told = one.status or ""
    status = InstanceStatus(told) if told in [*InstanceStatus] else InstanceStatus.UNKNOWN
    return InstanceSummary(
        instance_id=one.instance_id,
        tenant_id=one.tenant_id or "",
        status=status,
        held=False,
        ours=False,
        checkpoint_id=one.checkpoint_id if isinstance(one, bodies.Instance) else None,
        created_at=time_of(one.created_at_ms),
        started_at=time_of(one.started_at_ms),
        finished_at=time_of(one.finished_at_ms),
        sleep_until=None,
        signal=None,
    )


async def _show(operators: Operators, message: ShowInstance) -> InstanceDetails:
    path = _path(message.instance_id)
    found = await operators.get(message, path, bodies.Instance)
    if not found.found:
        raise ServerError(message.asked, "", f"no instance {message.instance_id!r}")
    checkpoints = await operators.get(message, f"{path}/checkpoints", bodies.Checkpoints, limit=1)
    events = await operators.get(message, f"{path}/events", bodies.Events, limit=1)
    return InstanceDetails(
        summary=_summary(found),
        holder=None,
        input=found.input,
        output=found.output,
        error=found.error,
        checkpoints=checkpoints.total_count,
        events=events.total_count,
        termination_reason=found.termination_reason,
        exit_code=found.exit_code,
    )


# ---- signals


async def _signal(operators: Operators, message: SendSignal) -> SignalAnswer:
    if message.tree and message.type is not SignalType.CANCEL:
        raise NotSupported(
            f"a {message.type} of children is no call over HTTP: give the URL of the server's "
            "database"
        )
    path = _path(message.instance_id)
    body = bodies.SendSignal(signal_type=message.type.value, payload=_text(message.payload))
    await operators.post(message, f"{path}/signals", body)
    found = await operators.get(message, path, bodies.Instance)
    return SignalAnswer(status=_summary(found).status, text=f"the {message.type} was sent")


async def _custom(operators: Operators, message: SendCustomSignal) -> Done:
    if message.replace:
        raise NotSupported(
            "a signal is not replaced over HTTP: give the URL of the server's database"
        )
    body = bodies.SendCustomSignal(
        checkpoint_id=message.checkpoint_id, payload=_text(message.payload)
    )
    await operators.post(message, f"{_path(message.instance_id)}/signals/custom", body)
    return Done()


# ---- what an instance has saved and done


async def _events(operators: Operators, message: ListEvents) -> EventPage:
    """The calls know no row to begin after: what comes before it is passed over."""
    pages = await _pages(operators, message, "events", bodies.Events, sort_order="asc")
    found = [one for page in pages for one in page.events if one.id > message.after]
    events = tuple(_event(one) for one in found[: message.limit])
    return EventPage(events=events, more=len(found) > message.limit)


def _event(one: bodies.Event) -> Event:
    known = one.event_type in [*EventType]
    return Event(
        id=one.id,
        type=EventType(one.event_type) if known else one.event_type,
        subtype=one.subtype,
        checkpoint_id=one.checkpoint_id,
        payload=one.payload or b"",
        created_at=time_of(one.created_at_ms),
    )


async def _checkpoints(operators: Operators, message: ReadCheckpoints) -> CheckpointPage:
    """They come by their times: all ids are read, and then the states of the page."""
    pages = await _pages(operators, message, "checkpoints", bodies.Checkpoints)
    times = {
        one.checkpoint_id: time_of(one.created_at_ms) for page in pages for one in page.checkpoints
    }
    after = None if message.after is None else message.after.encode()
    wanted = sorted(
        (one for one in times if one.startswith(message.prefix)), key=lambda one: one.encode()
    )
    if after is not None:
        wanted = [one for one in wanted if one.encode() > after]
    found: list[CheckpointRecord] = []
    size = 0
    for name in wanted[: message.limit]:
        if message.most_bytes is not None and found and size >= message.most_bytes:
            break
        state = b""
        if not message.ids_only:
            path = f"{_path(message.instance_id)}/checkpoints/{quote(name, safe='')}"
            one = await operators.get(message, path, bodies.Checkpoint)
            state = one.data or b""
        size += len(state)
        found.append(
            CheckpointRecord(
                checkpoint_id=name,
                state=state,
                created_at=None if message.ids_only else times[name],
            )
        )
    return CheckpointPage(checkpoints=tuple(found), more=len(wanted) > len(found))


PageT = TypeVar("PageT", bodies.Events, bodies.Checkpoints)


async def _pages(
    operators: Operators,
    message: ListEvents | ReadCheckpoints,
    what: str,
    kind: type[PageT],
    **query: Any,
) -> list[PageT]:
    path = f"{_path(message.instance_id)}/{what}"
    found: list[PageT] = []
    while not found or len(found) * PAGE < found[-1].total_count:
        offset = len(found) * PAGE
        found.append(await operators.get(message, path, kind, limit=PAGE, offset=offset, **query))
    return found


HANDLERS: Mapping[type[Request[Any]], Callable[[Operators, Any], Awaitable[Any]]] = {
    ListInstances: _list,
    CountInstances: _count,
    ShowInstance: _show,
    SendSignal: _signal,
    SendCustomSignal: _custom,
    ListEvents: _events,
    ReadCheckpoints: _checkpoints,
}
"""Which function asks for what."""
