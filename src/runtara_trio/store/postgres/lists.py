"""Lists of instances on PostgreSQL: which are meant, and a page of their ids, the newest first.

What only a run can be is looked up in the table of runs, by one of its indexes; everything else
in that of instances, each status by itself: an index of status and creation gives it in this
order, and nothing is read that is of another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from ...messages import CountInstances, ListInstances
from ...types import InstanceStatus
from ..leading import is_led_by_status
from ..structs import Kind, Listed
from ..values import invalid_cursor, waiting_text
from . import reading
from .connection import Connection


class Conditions:
    """Conditions of a query, and its parameters in order."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self._conditions: list[str] = []

    def add(self, condition: str, *values: Any) -> None:
        """A condition, in which each ``{}`` stands for a value."""
        self._conditions.append(condition.format(*(self.mark(value) for value in values)))

    def mark(self, value: Any) -> str:
        """A value that is not one of a condition."""
        self.values.append(value)
        return f"${len(self.values)}"

    def where(self, *more: str) -> str:
        every = [*self._conditions, *more]
        return f" WHERE {' AND '.join(every)}" if every else ""


async def page(
    connection: Connection, message: ListInstances, kinds: Sequence[Kind] | None, *, runs: bool
) -> tuple[list[Listed], str | None]:
    """A page, and where the next one begins."""
    if _needs_runs(message) and not runs:
        return [], None
    wanted = _wanted(message, kinds)
    if message.before is not None:
        at, last = _place(message.before)
        wanted.add("(o.created_at, o.instance_id) < ({}::text::timestamptz, {})", at, last)
    limit = wanted.mark(message.limit + 1)
    order = f" ORDER BY created_at DESC, instance_id DESC LIMIT {limit}"
    each = " UNION ALL ".join(f"({part}{order})" for part in _parts(message, wanted))
    if not each:
        return [], None
    connection.later(reading.PLAN_FOR_VALUES)
    found = await reading.listed_in(
        connection, f"SELECT instance_id FROM ({each}) AS each{order}", wanted.values, runs=runs
    )
    shown = found[: message.limit]
    following = None
    if len(found) > message.limit:
        following = f"{shown[-1].created_at} {shown[-1].instance_id}"
    return shown, following


async def count(
    connection: Connection, message: CountInstances, kinds: Sequence[Kind] | None, *, runs: bool
) -> int:
    if _needs_runs(message) and not runs:
        return 0
    wanted = _wanted(message, kinds)
    each = " UNION ALL ".join(_parts(message, wanted))
    if not each:
        return 0
    connection.later(reading.PLAN_FOR_VALUES)
    limit = "" if message.most is None else f" LIMIT {message.most}"
    counted = f"SELECT 1 FROM ({each}) AS all_of{limit}"
    ((number,),) = await connection.run(f"SELECT count(*) FROM ({counted}) AS each", *wanted.values)
    return int(number)


def _needs_runs(message: ListInstances | CountInstances) -> bool:
    """Whether it is answered from the tables of workflows."""
    return message.filter.of_runs or message.filter.waiting_for is not None


def _parts(message: ListInstances | CountInstances, wanted: Conditions) -> list[str]:
    """Queries that together give what is wanted; ``o`` is the table whose order counts."""
    statuses = InstanceStatus if message.statuses is None else message.statuses
    stored = [one.value for one in sorted(statuses) if one is not InstanceStatus.UNKNOWN]
    columns = "SELECT o.instance_id, o.created_at FROM"
    source = "instances o"
    if message.filter.of_runs and is_led_by_status(message):
        source = "instances o JOIN runtara_trio_runs r ON r.instance_id = o.instance_id"
    elif message.filter.of_runs:
        if message.statuses is not None:
            wanted.add("i.status::text = ANY ({}::text[])", stored)
        joined = "runtara_trio_runs o JOIN instances i ON i.instance_id = o.instance_id"
        return [f"{columns} {joined}{wanted.where()}"]
    of_each = (wanted.where(f"o.status = '{one}'") for one in stored)
    return [f"{columns} {source}{where}" for where in of_each]


def _wanted(message: ListInstances | CountInstances, kinds: Sequence[Kind] | None) -> Conditions:
    filter = message.filter
    wanted = Conditions()
    run = "r" if is_led_by_status(message) else "o"
    for condition, value in (
        ("o.tenant_id = {}", message.tenant_id),
        (f"{run}.workflow = {{}}", filter.workflow),
        (f"{run}.version = {{}}", filter.version),
        (f"{run}.queue = {{}}", filter.queue),
        ("o.parent_id = {}", filter.parent_id),
    ):
        if value is not None:
            wanted.add(condition, value)
    if filter.waiting_for is not None:
        wanted.add(
            "o.instance_id = ANY (ARRAY(SELECT w.instance_id FROM runtara_trio_runs w"
            " WHERE w.waiting_for = {} UNION SELECT s.instance_id FROM runtara_trio_steps s"
            " WHERE s.kind = 'signal' AND s.step = {} AND s.outcome IS NULL))",
            waiting_text((filter.waiting_for,)),
            filter.waiting_for,
        )
    if filter.id_prefix is not None:
        above = (filter.id_prefix, filter.id_prefix + chr(0x10FFFF))
        wanted.add('o.instance_id COLLATE "C" >= {} AND o.instance_id COLLATE "C" < {}', *above)
    if filter.created_after is not None:
        wanted.add("o.created_at >= {}::text::timestamptz", _text(filter.created_after))
    if filter.created_before is not None:
        wanted.add("o.created_at < {}::text::timestamptz", _text(filter.created_before))
    if filter.parked:
        wanted.add("o.state = 'parked'")
    if filter.attributes:
        others = len(filter.attributes) - 1
        more = (  # a row each, and not all that have it
            " AND (SELECT b.value FROM runtara_trio_attributes b"
            " WHERE b.instance_id = a.instance_id AND b.name = {}) = {}"
        )
        wanted.add(
            # an array: else all runs are gone through in their order, in search of twenty
            "o.instance_id = ANY (ARRAY(SELECT a.instance_id FROM runtara_trio_attributes a"
            f" WHERE a.name = {{}} AND a.value = {{}}{more * others}))",
            *_attributes(filter.attributes),
        )
    if kinds == []:
        wanted.add("false")
    elif kinds is not None:
        wanted.add(
            "o.state = 'ready' AND (o.queue, o.workflow, o.version) IN"
            " (SELECT * FROM unnest({}::text[], {}::text[], {}::bigint[]))",
            [one.queue for one in kinds],
            [one.workflow for one in kinds],
            [one.version for one in kinds],
        )
        served = [(one, tenant) for one in kinds for tenant in one.but_for]
        if served:
            wanted.add(
                "(o.queue, o.workflow, o.version, o.tenant_id) NOT IN (SELECT * FROM"
                " unnest({}::text[], {}::text[], {}::bigint[], {}::text[]))",
                [one.queue for one, _ in served],
                [one.workflow for one, _ in served],
                [one.version for one, _ in served],
                [tenant for _, tenant in served],
            )
    return wanted


def _attributes(attributes: Mapping[str, str | int | float | bool]) -> list[str]:
    """Names and values, one behind the other, as rows have them."""
    texts: list[str] = []
    for name, value in attributes.items():
        text = msgspec.json.encode(value).decode()
        texts += [name, text]
    return texts


def _text(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat()


def _place(cursor: str) -> tuple[str, str]:
    """The time of creation and the id before which a page begins."""
    day, time, instance = (*cursor.split(" ", 2), "", "")[:3]
    try:
        datetime.fromisoformat(f"{day} {time}")
    except ValueError as exc:
        raise invalid_cursor(cursor) from exc
    return f"{day} {time}", instance
