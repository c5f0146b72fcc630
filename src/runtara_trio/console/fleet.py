"""Workers, queues and schedules: who works, on what, and what begins by itself."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.responses import Response

from .. import words
from ..sdk.operator import Operator
from ..types import Queue, Rate, ScheduleInfo
from .guard import Refused
from .live import Parts
from .pages import Console, Plan, text_of

SLOTS = 5
STUCK = 60.0
"""Seconds without a boundary after which a worker is marked."""


async def workers(console: Console, request: Request) -> Response:
    """Who lives, and what each does."""

    async def make() -> Parts:
        found = await console.ask(Operator.list_workers)
        now = words.now()
        rows = [
            (one, one.oldest_boundary and (now - one.oldest_boundary).total_seconds() > STUCK)
            for one in found
        ]
        return {"workers": console.part(request, "workers_rows.html", rows=rows)}

    return await console.show(request, "workers.html", make, "Workers")


async def queues(console: Console, request: Request) -> Response:
    """Their depth, their limits."""

    async def make() -> Parts:
        found = await console.ask(Operator.list_queues)
        return {"queues": console.part(request, "queues_rows.html", queues=found)}

    return await console.show(request, "queues.html", make, "Queues")


async def schedules(console: Console, request: Request) -> Response:
    """What begins by itself, and when."""

    async def make() -> Parts:
        found = await console.ask(_with_slots)
        return {"schedules": console.part(request, "schedules_rows.html", rows=found)}

    return await console.show(request, "schedules.html", make, "Schedules")


async def _with_slots(operator: Operator) -> list[tuple[ScheduleInfo, tuple[datetime, ...]]]:
    found = await operator.list_schedules()
    return [
        (one, () if one.paused else await operator.next_slots(one.name, SLOTS)) for one in found
    ]


# ---- actions


async def plan_queue(console: Console, request: Request, form: FormData) -> Plan:
    """A queue stands still, or goes on."""
    name = text_of(form, "name")
    paused = form.get("what") == "pause"

    async def do(operator: Operator) -> str:
        await (operator.pause_queue if paused else operator.resume_queue)(name)
        return f"the queue {name} {'stands still' if paused else 'goes on'}"

    if paused:
        says = "No worker claims from it any more; runs that have begun go on."
        return Plan(f"Pause the queue {name}?", (says,), do)
    return Plan(f"Resume the queue {name}?", ("Workers claim from it again.",), do)


async def plan_limits(console: Console, request: Request, form: FormData) -> Plan:
    """What a queue allows, from now on."""
    name = text_of(form, "name")
    rate_count, rate_per = _number(form, "rate_count"), _seconds(form, "rate_per")
    if (rate_count is None) != (rate_per is None):
        raise Refused(400, "a rate is so many runs in so many seconds: give both, or neither")
    queue = Queue(
        name,
        limit=_number(form, "limit"),
        per_worker=_number(form, "per_worker"),
        rate=None if rate_count is None or rate_per is None else Rate(rate_count, rate_per),
        key_limit=_number(form, "key_limit"),
    )

    async def do(operator: Operator) -> str:
        await operator.set_queue(queue)
        return f"the limits of {name} are stored"

    says = (
        f"At once, over all workers: {queue.limit or 'any number'}; in each worker: "
        f"{queue.per_worker or 'any number'}; of each key: {queue.key_limit or 'any number'}.",
        "Rate: " + (f"{rate_count} in {rate_per:g} s." if rate_count else "any."),
        "It counts for all workers, from their next claim on. A worker that declares other limits"
        " stores those at its next start.",
    )
    return Plan(f"Change the limits of the queue {name}?", says, do)


def _number(form: FormData, name: str) -> int | None:
    text = str(form.get(name, "")).strip()
    if not text:
        return None
    if not text.isdecimal():
        raise Refused(400, f"{name} must be a whole number, not {text!r}")
    return int(text)


def _seconds(form: FormData, name: str) -> float | None:
    text = str(form.get(name, "")).strip()
    if not text:
        return None
    try:
        return float(text)
    except ValueError as exc:
        raise Refused(400, f"{name} must be a number of seconds, not {text!r}") from exc


_SCHEDULE = {
    "pause": ("Pause", "No slot of it is run until it is resumed."),
    "resume": ("Resume", "Its slots are run again, from the next one on."),
    "trigger": ("Trigger", "A run of it is started now, beside its slots."),
    "remove": (
        "Remove",
        "It is forgotten; what it has started stays. A worker that declares it stores it again at"
        " its next start.",
    ),
}


async def plan_schedule(console: Console, request: Request, form: FormData) -> Plan:
    """An action on a schedule."""
    name, what = text_of(form, "name"), str(form.get("what", ""))
    if what not in _SCHEDULE:
        raise Refused(400, f"choose one of {', '.join(_SCHEDULE)}")
    title, follows = _SCHEDULE[what]

    async def do(operator: Operator) -> str:
        started: Any = await getattr(operator, f"{what}_schedule")(name)
        return f"started {started}" if what == "trigger" else f"{what}: done"

    return Plan(f"{title} the schedule {name}?", (follows,), do)


async def plan_backfill(console: Console, request: Request, form: FormData) -> Plan:
    """The slots of a time that is over."""
    name = text_of(form, "name")
    begin, end = (_moment(text_of(form, which)) for which in ("begin", "end"))

    async def do(operator: Operator) -> str:
        return f"{await operator.backfill(name, begin, end)} slots are started"

    says = (
        f"Its slots from {words.time(begin)} to {words.time(end)} UTC are started, the oldest"
        " first; those that were started before are left.",
    )
    return Plan(f"Backfill the schedule {name}?", says, do)


def _moment(text: str) -> datetime:
    try:
        return words.utc(text)
    except ValueError as exc:
        raise Refused(400, f"give a time as 2026-11-27T08:00, not {text!r}") from exc


PLANS = {
    "queue": plan_queue,
    "limits": plan_limits,
    "schedule": plan_schedule,
    "backfill": plan_backfill,
}
