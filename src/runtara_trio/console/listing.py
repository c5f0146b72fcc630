"""The list of instances, and what can be done to many of them."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Any

from starlette.datastructures import FormData, QueryParams
from starlette.requests import Request
from starlette.responses import Response

from .. import words
from ..errors import ConfigError, SdkError
from ..sdk.filters import attribute_of
from ..sdk.many import MEANT
from ..sdk.operator import Operator
from ..types import InstanceStatus, InstanceSummary, WorkerInfo
from .guard import Refused
from .live import Parts
from .pages import Console, Plan, url_with

PAGE = 50
MOST = 10_000
"""Instances that a chip counts."""
CHIPS_SECONDS = 5.0
LONGEST_QUERY = 4000
"""Characters."""

STATUSES = [one for one in InstanceStatus if one is not InstanceStatus.UNKNOWN]
TEXTS = ("workflow", "queue", "parent", "prefix", "waiting_for", "tenant")
FLAGS = ("no_live_worker", "parked")
_NAMES = {"parent": "parent_id", "prefix": "id_prefix", "tenant": "tenant_id"}


def filters_of(query: QueryParams | FormData) -> dict[str, Any]:
    """The arguments of ``Operator.list`` that a query means, its statuses among them.

    Raises:
      ConfigError: an invalid value.
    """
    given: dict[str, Any] = {}
    for name in TEXTS:
        if text := str(query.get(name, "")).strip():
            given[_NAMES.get(name, name)] = text
    for name in FLAGS:
        if query.get(name):
            given[name] = True
    if version := str(query.get("version", "")).strip():
        if not version.isdecimal():
            raise ConfigError(f"version must be a whole number, not {version!r}")
        given["version"] = int(version)
    for name in ("created_after", "created_before"):
        if text := str(query.get(name, "")).strip():
            given[name] = _moment(name, text)
    attributes = [str(one) for one in query.getlist("attribute") if str(one).strip()]
    if attributes:
        pairs = [attribute_of(one.strip()) for one in attributes]
        given["attributes"] = dict(pairs)
        if len(given["attributes"]) < len(pairs):
            raise ConfigError("an attribute is given twice; give each name once")
    if statuses := [str(one) for one in query.getlist("status") if one]:
        try:
            given["statuses"] = {InstanceStatus(one) for one in statuses}
        except ValueError as exc:
            raise ConfigError(f"{exc}; there are {', '.join(STATUSES)}") from exc
    return given


def _moment(name: str, text: str) -> datetime:
    try:
        return words.utc(text)
    except ValueError as exc:
        raise ConfigError(f"{name} must be a time as 2026-11-27T08:00, not {text!r}") from exc


async def instances(console: Console, request: Request) -> Response:
    """The page."""
    query = request.query_params
    if len(request.url.query) > LONGEST_QUERY:
        raise Refused(400, f"a filter has at most {LONGEST_QUERY} characters")
    given = filters_of(query)
    before = query.get("before")

    async def make() -> Parts:
        return await _parts(console, request, given, before)

    names = (*TEXTS, "version", "created_after", "created_before")
    return await console.show(
        request,
        "instances.html",
        make,
        "Instances",
        filled={name: query.get(name, "") for name in names},
        flags={name: bool(query.get(name)) for name in FLAGS},
        attributes=query.getlist("attribute"),
        statuses=query.getlist("status"),
        is_filtered=bool(given),
        is_open=any(query.get(name) for name in (*names, *FLAGS, "attribute") if name != "prefix"),
    )


async def _parts(
    console: Console, request: Request, given: dict[str, Any], before: str | None
) -> Parts:
    page = await console.ask(lambda op: op.list(before=before, limit=PAGE, **given))
    workers = await workers_for(console, page.instances)
    ids = [one.instance_id for one in page.instances if one.held]
    steps = await console.ask(lambda op: op.open_steps(ids)) if ids else ()
    doing = words.activities(steps, words.now())
    for one in page.instances:
        if one.held and one.run is not None and words.waits_for_children(one.run):
            doing.setdefault(one.instance_id, words.WAITS_FOR_CHILDREN)
    others = {name: value for name, value in given.items() if name != "statuses"}
    key = "chips", repr(sorted(others.items(), key=str))
    counts = await console.kept(key, CHIPS_SECONDS, functools.partial(_counts, console, others))
    chosen = given.get("statuses", set())
    chips = [
        {
            "status": one.value,
            "count": _count(counts[one]),
            "chosen": one in chosen,
            "url": _toggled(request, one),
        }
        for one in STATUSES
    ]
    following = None if page.next is None else url_with(request, before=page.next)
    return {
        "chips": console.part(
            request, "chips.html", chips=chips, all=url_with(request, status=None, before=None)
        ),
        "list": console.part(
            request,
            "list.html",
            rows=page.instances,
            workers=workers,
            doing=doing,
            next=following,
            first=None if before is None else url_with(request, before=None),
            query=request.url.query,
            back=url_with(request),
            filtered=bool(given),
        ),
    }


async def workers_for(console: Console, rows: Sequence[InstanceSummary]) -> tuple[WorkerInfo, ...]:
    """The living workers, where something shown waits for one."""
    if words.ask_for_workers(rows):
        found: tuple[WorkerInfo, ...] = await console.ask(Operator.list_workers)
        return found
    return ()


async def _counts(console: Console, given: dict[str, Any]) -> dict[InstanceStatus, int]:
    return {
        one: await console.ask(
            functools.partial(Operator.count, statuses=[one], most=MOST + 1, **given)
        )
        for one in STATUSES
    }


def _count(count: int) -> str:
    return f"{MOST:,}+" if count > MOST else f"{count:,}"


def _toggled(request: Request, status: InstanceStatus) -> str:
    """This page with a status more, or less."""
    chosen = request.query_params.getlist("status")
    wanted = [one for one in chosen if one != status.value]
    if status.value not in chosen:
        wanted.append(status.value)
    url = url_with(request, status=None, before=None)
    joint = "&" if "?" in url else "?"
    return url + (joint + "&".join(f"status={one}" for one in wanted) if wanted else "")


# ---- actions on many

Each = Callable[[Operator, str], Awaitable[object]]

ACTIONS: dict[str, tuple[str, str, Each | None, Any]] = {
    "cancel": (
        "Cancel",
        "Those that run are told, and end by themselves; the others are cancelled at once, and so"
        " are their children. Nothing takes a cancel back.",
        Operator.cancel,
        Operator.cancel_many,
    ),
    "pause": (
        "Pause",
        "Each stops at its next boundary, and no worker takes it until a resume.",
        Operator.pause,
        Operator.pause_many,
    ),
    "resume": (
        "Resume",
        "What is paused or parked is ready again.",
        Operator.resume,
        Operator.resume_many,
    ),
    "rerun": (
        "Rerun",
        "Those that have failed or were cancelled go on from their checkpoints, their attempts"
        " begin anew, and so do their failed children.",
        Operator.rerun,
        Operator.rerun_many,
    ),
    "prune": (
        "Prune",
        "Those that have ended are removed, with their checkpoints and their history. What has not"
        " ended is left. Nothing brings them back.",
        None,
        None,
    ),
}
"""What can be done to many: its name, what follows, the verb for one and the verb for all."""


async def bulk(console: Console, request: Request, form: FormData) -> Plan:
    """An action on the ids that were chosen, or on all that the filter means."""
    name = str(form.get("what", ""))
    if name not in ACTIONS:
        raise Refused(400, f"choose one of {', '.join(ACTIONS)}")
    ids = [str(one) for one in form.getlist("id")]
    if form.get("all"):
        return await _bulk_all(console, name, QueryParams(str(form.get("query", ""))))
    if not ids:
        raise Refused(400, "choose instances first, or all that match")
    title, follows, each, _ = ACTIONS[name]

    async def do(operator: Operator) -> str:
        if each is None:
            return f"{await operator.remove(ids)} removed"
        done, why = 0, ""
        for one in ids:
            try:
                await each(operator, one)
                done += 1
            except SdkError as exc:
                why = str(exc)
        refused = f"; {len(ids) - done} not, as: {why}" if why else ""
        return f"{name}: {done} of {len(ids)} done{refused}"

    shown = ", ".join(ids[:5]) + (f" and {len(ids) - 5} more" if len(ids) > 5 else "")
    return Plan(f"{title} {_instances(len(ids))}?", (f"These: {shown}.", follows), do)


async def _bulk_all(console: Console, name: str, query: QueryParams) -> Plan:
    given = filters_of(query)
    if not given:
        raise Refused(400, "give a filter first: else all instances of the store would be meant")
    title, follows, _, many = ACTIONS[name]
    chosen, meant = given.get("statuses"), MEANT[name]
    given["statuses"] = meant if chosen is None else meant & chosen
    if not given["statuses"]:
        raise Refused(400, f"{name} is for those that are {', '.join(sorted(meant))}")
    count = await console.ask(lambda op: op.count(**given))

    async def do(operator: Operator) -> str:
        if many is None:
            return f"{await operator.prune_many(0, **given)} removed"
        return f"{name}: {await many(operator, **given):,} of {count:,} done"

    which = " ".join(str(query).split())
    says = (f"All that match now: {which or 'no filter'}.", follows)
    return Plan(f"{title} {_instances(count)}?", says, do)


def _instances(count: int) -> str:
    return "1 instance" if count == 1 else f"{count:,} instances"


PLANS = {"bulk": bulk}
