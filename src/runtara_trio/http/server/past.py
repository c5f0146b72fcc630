"""What an instance did, as operators ask for it: its events, and its steps.

A step is a pair of events, ``step_debug_start`` and ``step_debug_end``, where a program writes
them; else what the store's own history tells.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from ...backend import Backend
from ...clock import ms_of
from ...ids import STEP_BEGINS, STEP_ENDS
from ...messages import ListEvents, ListSteps
from ...types import Event, StepInfo, StepOutcome
from .. import operators as bodies
from .listed import Query

PAGE = 1000
SCOPES = ("scope_id", "parent_scope_id", "root_scopes_only")
STATUSES = ("running", "completed", "failed")


async def _events(backend: Backend, instance: str) -> list[Event]:
    """All events of an instance, oldest first."""
    found: list[Event] = []
    while True:
        after = found[-1].id if found else 0
        part = await backend.request(ListEvents(instance_id=instance, after=after, limit=PAGE))
        found += part.events
        if not part.more:
            return found


def _read(event: Event) -> dict[str, Any]:
    """What the payload of an event says, where that is an object in JSON."""
    try:
        found = msgspec.json.decode(event.payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


async def events_of(backend: Backend, instance: str, text: str) -> bodies.Events:
    """The events that a query asks for, the newest first unless it says otherwise."""
    query = Query(
        text,
        (
            *("event_type", "subtype", "payload_contains", "created_after_ms", "created_before_ms"),
            *(*SCOPES, "sort_order", "limit", "offset"),
        ),
    )
    page, order = query.page, query.one_of("sort_order", ("desc", "asc"))
    found = [one for one in await _events(backend, instance) if _is_meant(query, one)]
    if order == "desc":
        found.reverse()
    return bodies.Events(
        events=[
            bodies.Event(
                id=one.id,
                instance_id=instance,
                event_type=str(one.type),
                created_at_ms=ms_of(one.created_at) or 0,
                checkpoint_id=one.checkpoint_id,
                payload=one.payload or None,
                subtype=one.subtype,
            )
            for one in page.of(found)
        ],
        total_count=len(found),
        limit=page.limit,
        offset=page.offset,
    )


def _is_meant(query: Query, event: Event) -> bool:
    kind, subtype, text = map(query.text, ("event_type", "subtype", "payload_contains"))
    after, before = query.time("created_after_ms"), query.time("created_before_ms")
    if kind not in (None, str(event.type)) or subtype not in (None, event.subtype):
        return False
    if text is not None and text.lower() not in event.payload.decode(errors="replace").lower():
        return False
    if event.created_at is not None and (
        (after is not None and event.created_at < after)
        or (before is not None and event.created_at > before)
    ):
        return False
    return _is_in_scope(query, _read(event)) if _asks_for_scope(query) else True


def _asks_for_scope(query: Query) -> bool:
    return any(query.text(name) is not None for name in SCOPES)


def _is_in_scope(query: Query, said: dict[str, Any]) -> bool:
    scope, parent = query.text("scope_id"), query.text("parent_scope_id")
    if scope not in (None, said.get("scope_id")):
        return False
    if query.is_on("root_scopes_only") and said.get("parent_scope_id") is not None:
        return False
    return parent in (None, said.get("parent_scope_id"))


async def steps_of(backend: Backend, instance: str, text: str) -> bodies.Steps:
    """The steps that a query asks for, the newest first unless it says otherwise."""
    query = Query(text, ("status", "step_type", *SCOPES, "sort_order", "limit", "offset"))
    page, order = query.page, query.one_of("sort_order", ("desc", "asc"))
    status = query.one_of("status", STATUSES) if query.text("status") else None
    kind = query.text("step_type")
    told = list(_paired(await _events(backend, instance)))
    if not told:
        told = [_step(one) for one in await _steps(backend, instance)]
    found = [
        one
        for one in told
        if status in (None, one.status)
        and kind in (None, one.step_type)
        and _is_in_scope(query, msgspec.structs.asdict(one))
    ]
    found.sort(key=lambda one: one.started_at_ms, reverse=order == "desc")
    return bodies.Steps(
        steps=list(page.of(found)), total_count=len(found), limit=page.limit, offset=page.offset
    )


def _paired(events: list[Event]) -> Iterator[bodies.Step]:
    """Steps of their pairs of events."""
    open_ones: dict[tuple[str | None, str | None], bodies.Step] = {}
    for event in events:
        if event.subtype not in (STEP_BEGINS, STEP_ENDS):
            continue
        said = _read(event)
        key = (_text(said.get("step_id")), _text(said.get("scope_id")))
        at = ms_of(event.created_at) or 0
        if event.subtype == STEP_BEGINS:
            if key in open_ones:
                yield open_ones.pop(key)
            open_ones[key] = bodies.Step(
                step_id=str(said.get("step_id", "")),
                step_type=str(said.get("step_type", "")),
                status="running",
                started_at_ms=at,
                step_name=_text(said.get("step_name")),
                inputs=said.get("inputs"),
                scope_id=_text(said.get("scope_id")),
                parent_scope_id=_text(said.get("parent_scope_id")),
            )
        elif key in open_ones:
            error = said.get("error")
            begun = open_ones.pop(key)
            yield msgspec.structs.replace(
                begun,
                status="completed" if error is None else "failed",
                completed_at_ms=at,
                duration_ms=at - begun.started_at_ms,
                outputs=said.get("outputs"),
                error=error,
            )
    yield from open_ones.values()


def _text(value: object) -> str | None:
    return None if value is None else str(value)


async def _steps(backend: Backend, instance: str) -> list[StepInfo]:
    """Those of the store's history."""
    found: list[StepInfo] = []
    message = ListSteps(instance_id=instance, limit=PAGE)
    while True:
        part = await backend.request(message)
        found += part.steps
        if part.next is None:
            return found
        message = msgspec.structs.replace(message, after=part.next)


def _step(one: StepInfo) -> bodies.Step:
    begun, ended = ms_of(one.started_at), ms_of(one.ended_at)
    failed = one.outcome in (StepOutcome.FAILED, StepOutcome.INTERRUPTED, StepOutcome.LOST)
    done = one.outcome is StepOutcome.DONE
    return bodies.Step(
        step_id=one.step,
        step_type=one.kind.value,
        status="failed" if failed else "completed" if done else "running",
        started_at_ms=begun or ended or 0,
        completed_at_ms=ended,
        duration_ms=None if begun is None or ended is None else ended - begun,
        outputs=one.summary,
        error=one.attempts[-1][1] if failed and one.attempts else None,
        parent_scope_id=one.parent,
    )
