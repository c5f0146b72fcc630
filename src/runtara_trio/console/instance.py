"""One instance: where it stands, what can be done about it, and what it did."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from .. import exports, words
from ..errors import ServerError
from ..ids import FORK_OF, FORKED
from ..sdk.operator import Operator
from ..types import (
    CheckpointRecord,
    Event,
    InstanceDetails,
    StepInfo,
    StepKind,
    StepOutcome,
)
from . import payloads
from .acting import possible
from .guard import Refused
from .listing import workers_for
from .live import Parts
from .pages import Console, one_of, url_with
from .timeline import CHUNK, Timeline, Window, length, rows_html, target, timeline

EVENTS = 200
AUDIT = 50
AT_FIRST = 1
"""Chunks of the timeline that a page has at once; the others come when somebody scrolls there."""
TABLE = 500
"""Rows of the table of steps."""
STEPS_SECONDS = 0.5
"""How old what is known of an instance may be."""


async def show(console: Console, request: Request) -> Response:
    """The page."""
    instance = one_of(request, "id")
    window = _window(request)
    as_table = request.query_params.get("as") == "table"
    seen = await _read(console, instance)
    line = seen.line(window)

    async def make() -> Parts:
        return await _parts(console, request, instance, window, as_table)

    return await console.show(
        request,
        "instance.html",
        make,
        instance,
        id=instance,
        chunks=_chunks(request, line.chunks, instance),
        chunk=CHUNK,
        height=CHUNK * 28,
        as_table=as_table,
        tabs=(url_with(request, **{"as": None}), url_with(request, **{"as": "table"})),
        whole=None if window is None else url_with(request, **{"from": None, "to": None}),
        count=len(seen.steps),
    )


async def chunk(console: Console, request: Request) -> Response:
    """Some rows of the timeline, for who scrolls there."""
    instance = one_of(request, "id")
    number = request.query_params.get("number", "0")
    if not number.isdecimal() or len(number) > 9:
        raise Refused(400, f"number must be a whole number, not {number!r}")
    seen = await _read(console, instance)
    line = seen.line(_window(request))
    base = request.scope.get("root_path", "")
    html = rows_html(line, line.chunk(int(number)), instance, base, seen.now)
    return Response(html, media_type="text/html")


def _chunks(request: Request, count: int, instance: str) -> list[str | None]:
    """Of each chunk where it comes from; None: the page has it."""
    base = request.scope.get("root_path", "")
    wanted = {name: request.query_params.get(name) for name in ("from", "to")}
    url = url_with(request, **{"as": None, **wanted}).partition("?")[2]
    return [
        None if number < AT_FIRST else f"{base}/chunk?{url}&number={number}"
        for number in range(count)
    ]


def _window(request: Request) -> Window | None:
    try:
        begin, end = (float(request.query_params[name]) for name in ("from", "to"))
        datetime.fromtimestamp(begin), datetime.fromtimestamp(end)
    except (KeyError, ValueError, OverflowError, OSError):
        return None
    return (begin, end) if begin < end else None


@dataclass(slots=True)
class Seen:
    """What there was of an instance at one moment."""

    details: InstanceDetails
    steps: list[StepInfo]
    now: datetime
    _lines: dict[Window | None, Timeline] = field(default_factory=dict)

    def line(self, window: Window | None) -> Timeline:
        """Its timeline, drawn once for all who look at it."""
        if window not in self._lines:
            runs = not self.details.summary.status.finished
            self._lines[window] = timeline(self.steps, self.now, runs=runs, window=window)
        return self._lines[window]


async def _read(console: Console, instance: str) -> Seen:
    """What there is of an instance; a moment old, if somebody else has just asked."""

    async def make() -> Seen:
        details = await console.ask(lambda op: op.show(instance))
        steps = await console.ask(lambda op: op.steps(instance))
        return Seen(details, list(steps), words.now())

    try:
        found: Seen = await console.kept(("steps", instance), STEPS_SECONDS, make)
    except ServerError as exc:
        raise Refused(404, str(exc)) from exc
    return found


async def _parts(
    console: Console, request: Request, instance: str, window: Window | None, as_table: bool
) -> Parts:
    seen = await _read(console, instance)
    details, now, line = seen.details, seen.now, seen.line(window)
    base = request.scope.get("root_path", "")
    workers = await workers_for(console, [details.summary])
    sees = console.sees_payloads(request)
    given = request.query_params.get("events", "0")
    after = int(given) if given.isdecimal() and len(given) < 19 else 0
    events = await console.ask(lambda op: op.events(instance, after=after, limit=EVENTS))
    audit = await console.ask(lambda op: op.audit(instance_id=instance, limit=AUDIT))
    parts = {
        "head": console.part(
            request,
            "head.html",
            one=details.summary,
            details=details,
            sentence=words.sentence(details, now, workers),
            actions=possible(details),
            asks=_asks(details),
            back=url_with(request),
            last=words.last_checkpoint(details.summary),
        ),
        "contents": console.part(
            request,
            "contents.html",
            input=payloads.shown(details.input) if sees else None,
            output=payloads.shown(details.output) if sees else None,
            details=details,
        ),
        "data": console.part(
            request,
            "data.html",
            events=[_shown_event(one) for one in events.events],
            more=events.more,
            earlier=url_with(request, events=None) if after else None,
            later=url_with(request, events=events.events[-1].id) if events.more else None,
            audit=audit.records,
            links=_links(events.events, details),
            id=instance,
        ),
    }
    if as_table:
        return {**parts, "table": _table(console, request, line, instance, now)}
    zooms = [url_with(request, **{"from": a, "to": b}) for _, _, (a, b) in line.ticks]
    parts["axis"] = console.part(request, "axis.html", line=line, zooms=zooms)
    parts["gaps"] = console.part(request, "gaps.html", line=line)
    for number in range(min(line.chunks, AT_FIRST)):
        html = rows_html(line, line.chunk(number), instance, base, now)
        parts[f"steps-{number}"] = html
    return parts


def _table(console: Console, request: Request, line: Timeline, instance: str, now: datetime) -> str:
    """The steps as a table, some at once."""
    base = request.scope.get("root_path", "")
    given = request.query_params.get("row", "0")
    first = int(given) if given.isdecimal() and len(given) < 10 else 0
    rows = [
        (row, length(row.step, now), target(row.step, instance, base))
        for row in line.rows[first : first + TABLE]
    ]
    earlier = url_with(request, row=max(0, first - TABLE)) if first else None
    is_more = len(line.rows) > first + TABLE
    later = url_with(request, row=first + TABLE) if is_more else None
    return console.part(request, "table.html", rows=rows, earlier=earlier, later=later)


def _asks(details: InstanceDetails) -> list[str]:
    """The ids of the signals that it waits for."""
    if details.summary.status.finished:
        return []
    waits = [one.step for one in details.open_steps if one.kind is StepKind.SIGNAL]
    return list(dict.fromkeys(waits))


def _shown_event(event: Event) -> dict[str, Any]:
    kind = str(event.type) if event.subtype is None else f"{event.type} {event.subtype}"
    return {
        "at": event.created_at,
        "kind": kind,
        "step": event.checkpoint_id,
        "payload": words.shown(event.payload[:300]),
    }


def _links(events: Iterable[Event], details: InstanceDetails) -> list[tuple[str, str]]:
    """What belongs to it: a word, and the id."""
    run = details.summary.run
    links = [] if run is None or run.parent_id is None else [("child of", run.parent_id)]
    for one in events:
        if one.subtype == FORKED:
            links.append(("forked to", words.shown(one.payload)))
        if one.subtype == FORK_OF:
            links.append(("fork of", words.shown(one.payload)))
    return links


# ---- a step


async def step(console: Console, request: Request) -> Response:
    """A step: each run of it, its attempts, and what it has saved."""
    instance, name = one_of(request, "id"), one_of(request, "step")
    find = request.query_params.get("find", "")

    async def make() -> Parts:
        seen = await _read(console, instance)
        mine = [(one, length(one, seen.now)) for one in seen.steps if one.step == name]
        saved = await _saved(console, instance, name)
        if not mine and not saved:
            raise Refused(404, f"instance {instance!r} has no step {name!r}")
        shown = saved if console.sees_payloads(request) else []
        states = [(one, payloads.shown(words.state_of(one), find)) for one in shown]
        return {
            "runs": console.part(
                request,
                "step_runs.html",
                runs=mine,
                states=states,
                waits=any(one.kind is StepKind.SIGNAL and _is_open(one) for one, _ in mine),
                id=instance,
                step=name,
            )
        }

    return await console.show(request, "step.html", make, name, id=instance, step=name, find=find)


def _is_open(step: StepInfo) -> bool:
    return step.outcome in (None, StepOutcome.UNLOADED)


async def _saved(console: Console, instance: str, name: str) -> list[CheckpointRecord]:
    """The checkpoints of a step, the SDK's own among them."""
    found: list[CheckpointRecord] = []
    for prefix in (name, *(f"runtara_trio::{kind}::{name}" for kind in _KINDS)):
        page = await console.ask(
            functools.partial(Operator.checkpoints, instance_id=instance, prefix=prefix, limit=20)
        )
        found += [one for one in page.checkpoints if one.checkpoint_id == prefix]
    return found


_KINDS = ("signal", "received", "failure", "wake", "deadline", "ended", "timeout")


async def export(console: Console, request: Request) -> Response:
    """All that is stored of an instance, as JSON."""
    if not console.sees_payloads(request):
        raise Refused(403, "an export has payloads, and you see none")
    instance = one_of(request, "id")
    everything = await console.ask(lambda op: exports.exported(op, instance))
    body = msgspec.json.format(msgspec.json.encode(everything))
    disposition = 'attachment; filename="instance.json"'
    headers = {"content-disposition": disposition}
    return Response(body, media_type="application/json", headers=headers)
