"""Lists of instances on SQLite: which are meant, and a page of them, the newest first.

Each list is led by one index, that of what says most: what only a run can have, a prefix with which
few ids begin, statuses but for that of most (each by itself), a workflow of a tenant, a workflow, a
tenant, a time. The rows of a table are in the order of their creation, and so are those of an equal
value in an index.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from ...messages import CountInstances, ListInstances
from ..leading import is_led_by_status
from ..structs import Kind, Listed
from ..values import invalid_cursor, waiting_text
from . import reading
from .schema import time_text

BROAD = 2000
"""Ids that begin with a prefix: from there on it says little."""


@dataclass(slots=True)
class Query:
    """Conditions, each with its values, and what leads."""

    by: str
    """The table whose order counts: ``i`` of instances, ``r`` of runs."""
    source: str
    parts: list[tuple[str, tuple[object, ...]]] = field(default_factory=list)
    led_by_time: bool = False

    def add(self, condition: str, *values: object) -> None:
        self.parts.append((condition, values))

    @property
    def order(self) -> str:
        """Of the rows; with the plus no index gives it."""
        return f"{'+' if self.led_by_time else ''}{self.by}.rowid DESC"

    @property
    def where(self) -> str:
        return " AND ".join(condition for condition, _ in self.parts) or "1"

    @property
    def values(self) -> list[object]:
        return [value for _, values in self.parts for value in values]


_RUNS_OF_INSTANCES = "instances i CROSS JOIN runtara_trio_runs r ON r.instance_id = i.instance_id"
"""CROSS: in this order."""
_INSTANCES_OF_RUNS = (
    "runtara_trio_runs r{index} CROSS JOIN instances i ON i.instance_id = r.instance_id"
)


def page(
    db: sqlite3.Connection, message: ListInstances, kinds: Sequence[Kind] | None
) -> tuple[list[Listed], str | None]:
    """A page, and where the next one begins."""
    queries = _queries(db, message, kinds)
    if message.before is not None:
        for query in queries:
            query.add(f"{query.by}.rowid < ?", _rowid(message.before))
    rows: list[tuple[int, str]] = []
    for query in queries:
        rows += db.execute(
            f"SELECT {query.by}.rowid, i.instance_id FROM {query.source} WHERE {query.where}"
            f" ORDER BY {query.order} LIMIT ?",
            (*query.values, message.limit + 1),
        ).fetchall()
    rows.sort(reverse=True)
    shown = rows[: message.limit]
    following = str(shown[-1][0]) if len(rows) > message.limit else None
    return reading.listed_in_order(db, [instance for _, instance in shown]), following


def count(db: sqlite3.Connection, message: CountInstances, kinds: Sequence[Kind] | None) -> int:
    if message.most is None:
        counting, most = "SELECT count(*) FROM {} WHERE {}", tuple[int, ...]()
    else:
        counting = "SELECT count(*) FROM (SELECT 1 FROM {} WHERE {} LIMIT ?)"
        most = (message.most,)
    return sum(
        db.execute(counting.format(query.source, query.where), (*query.values, *most)).fetchone()[0]
        for query in _queries(db, message, kinds)
    )


def _queries(
    db: sqlite3.Connection, message: ListInstances | CountInstances, kinds: Sequence[Kind] | None
) -> list[Query]:
    """Queries that together give what is wanted, each instance once."""
    filter, statuses = message.filter, message.statuses
    broad = filter.id_prefix is not None and _is_broad(db, filter.id_prefix)
    if statuses is not None and is_led_by_status(message, broad=broad):
        queries = []
        for status in sorted(statuses):
            query = Query("i", _RUNS_OF_INSTANCES if filter.of_runs else "instances i")
            # as the partial index says it, or it is not taken
            query.add("i.status <> 'completed' AND i.status = ?", status.value)
            _add(query, message, kinds, led_by_status=True, broad=broad)
            queries.append(query)
        return queries
    if filter.of_runs:
        query = Query("r", _INSTANCES_OF_RUNS.format(index=_index(message, kinds, broad=broad)))
    else:
        query = Query("i", "instances i")
        timed = filter.created_after is not None or filter.created_before is not None
        few = filter.id_prefix is not None and not broad
        query.led_by_time = timed and message.tenant_id is None and not few
    if statuses is not None:
        marks = ", ".join("?" * len(statuses))
        query.add(f"+i.status IN ({marks})", *sorted(statuses))
    _add(query, message, kinds, led_by_status=False, broad=broad)
    return [query]


def _is_broad(db: sqlite3.Connection, prefix: str) -> bool:
    """Whether so many ids begin with a prefix that another index is the better one."""
    found = db.execute(
        "SELECT count(*) FROM (SELECT 1 FROM instances WHERE instance_id >= ? AND instance_id < ?"
        " LIMIT ?)",
        (*_ids_of(prefix), BROAD),
    )
    return bool(found.fetchone()[0] == BROAD)


def _ids_of(prefix: str) -> tuple[str, str]:
    """What ids with a prefix are not below, and what they are below."""
    return prefix, prefix + chr(0x10FFFF)


def _index(
    message: ListInstances | CountInstances, kinds: Sequence[Kind] | None, *, broad: bool
) -> str:
    """Which index of the runs leads."""
    filter = message.filter
    for given, name in (
        (filter.attributes, ""),  # the ids that it gives do
        (filter.parent_id, "runtara_trio_children_of"),
        (filter.waiting_for, ""),  # the same
        (filter.id_prefix and not broad, ""),
        (filter.parked, "runtara_trio_parked"),
        (kinds is not None, "runtara_trio_ready"),
        (filter.workflow and message.tenant_id, "runtara_trio_of_tenant"),
        (filter.workflow, "runtara_trio_of_workflow"),
    ):
        if given:
            return f" INDEXED BY {name}" if name else ""
    return ""


def _add(
    query: Query,
    message: ListInstances | CountInstances,
    kinds: Sequence[Kind] | None,
    *,
    led_by_status: bool,
    broad: bool,
) -> None:
    filter = message.filter
    ids_lead = bool(filter.attributes) or filter.waiting_for is not None
    prefix_leads = filter.id_prefix is not None and not broad
    others_lead = led_by_status or prefix_leads or ids_lead
    of_tenant = "i.tenant_id = ?"
    if filter.of_runs:
        of_tenant = "r.tenant_id = ?" if filter.workflow and not others_lead else "+r.tenant_id = ?"
    elif others_lead:
        of_tenant = "+i.tenant_id = ?"  # the plus: no index of it
    workflow = "+r.workflow = ?" if others_lead else "r.workflow = ?"
    for condition, value in (
        (of_tenant, message.tenant_id),
        (workflow, filter.workflow),
        ("r.version = ?", filter.version),
        ("r.queue = ?", filter.queue),
        ("r.parent_id = ?", filter.parent_id),
    ):
        if value is not None:
            query.add(condition, value)
    if filter.waiting_for is not None:
        query.add(
            f"{query.by}.instance_id IN"
            " (SELECT w.instance_id FROM runtara_trio_runs w WHERE w.waiting_for = ?"
            " UNION SELECT s.instance_id FROM runtara_trio_steps s"
            " WHERE s.kind = 'signal' AND s.step = ? AND s.outcome IS NULL)",
            waiting_text((filter.waiting_for,)),
            filter.waiting_for,
        )
    if filter.id_prefix is not None:
        name = f"{'+' if broad else ''}{'r' if filter.of_runs else 'i'}.instance_id"
        query.add(f"{name} >= ? AND {name} < ?", *_ids_of(filter.id_prefix))
    created = "i.created_at" if query.led_by_time else "+i.created_at"
    if filter.created_after is not None:
        query.add(f"{created} >= ?", time_text(int(filter.created_after.timestamp())))
    if filter.created_before is not None:
        query.add(f"{created} < ?", time_text(int(filter.created_before.timestamp())))
    if filter.parked:
        query.add("r.state = 'parked'")
    lead = (
        "r.instance_id IN (SELECT instance_id FROM runtara_trio_attributes"
        " WHERE name = ? AND value = ?)"
    )
    other = (
        "EXISTS (SELECT 1 FROM runtara_trio_attributes a WHERE a.instance_id = r.instance_id"
        " AND a.name = ? AND +a.value = ?)"
    )
    for number, (name, given) in enumerate(filter.attributes.items()):
        query.add(other if number else lead, name, msgspec.json.encode(given).decode())
    if kinds is not None:
        values = msgspec.json.encode([msgspec.structs.astuple(kind) for kind in kinds]).decode()
        parts = ", ".join(f"json_extract(k.value, '$[{number}]')" for number in range(3))
        query.add(
            "r.state = 'ready' AND (r.queue, r.workflow, r.version) IN"
            f" (SELECT {parts} FROM json_each(?) k)"
            " AND NOT EXISTS (SELECT 1 FROM json_each(?) k"
            " CROSS JOIN json_each(k.value, '$[3]') t WHERE (r.queue, r.workflow, r.version,"
            f" r.tenant_id) = ({parts}, t.value))",
            values,
            values,
        )


def _rowid(cursor: str) -> int:
    if not (cursor.isdecimal() and int(cursor) < 2**63):
        raise invalid_cursor(cursor)
    return int(cursor)
