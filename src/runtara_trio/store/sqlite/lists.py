"""Lists of instances on SQLite: which are meant, and a page of them, the newest first.

What only a run can be is looked up in the table of runs, by one of its indexes; everything else
in that of instances, whose rows are in the order of their creation.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

import msgspec

from ...messages import CountInstances, ListInstances
from ..structs import Kind, Listed
from ..values import invalid_cursor, waiting_text
from . import reading
from .schema import time_text

Wanted = list[tuple[str, tuple[object, ...]]]
"""Conditions, each with its values."""


def page(
    db: sqlite3.Connection, message: ListInstances, kinds: Sequence[Kind] | None
) -> tuple[list[Listed], str | None]:
    """A page, and where the next one begins."""
    by, wanted = _wanted(message, kinds)
    if message.before is not None:
        wanted.append((f"{by}.rowid < ?", (_rowid(message.before),)))
    rows = db.execute(
        f"SELECT {by}.rowid, i.instance_id {_from(by)}{_where(wanted)}"
        f" ORDER BY {by}.rowid DESC LIMIT ?",
        (*_values(wanted), message.limit + 1),
    ).fetchall()
    shown = rows[: message.limit]
    following = str(shown[-1][0]) if len(rows) > message.limit else None
    return reading.listed_in_order(db, [instance for _, instance in shown]), following


def count(db: sqlite3.Connection, message: CountInstances, kinds: Sequence[Kind] | None) -> int:
    by, wanted = _wanted(message, kinds)
    statement = f"SELECT count(*) {_from(by)}{_where(wanted)}"
    (number,) = db.execute(statement, tuple(_values(wanted))).fetchone()
    return int(number)


def _from(by: str) -> str:
    if by == "r":  # CROSS: in this order
        runs = "runtara_trio_runs r CROSS JOIN instances i ON i.instance_id = r.instance_id"
        return f"FROM {runs}"
    return "FROM instances i"


def _wanted(
    message: ListInstances | CountInstances, kinds: Sequence[Kind] | None
) -> tuple[str, Wanted]:
    """The table whose order counts, and the conditions."""
    filter = message.filter
    wanted: Wanted = []
    for condition, value in (
        ("i.tenant_id = ?", message.tenant_id),
        ("r.workflow = ?", filter.workflow),
        ("r.version = ?", filter.version),
        ("r.queue = ?", filter.queue),
        ("r.parent_id = ?", filter.parent_id),
    ):
        if value is not None:
            wanted.append((condition, (value,)))
    if filter.waiting_for is not None:
        wanted.append(("r.waiting_for = ?", (waiting_text((filter.waiting_for,)),)))
    if message.statuses is not None:
        marks = ", ".join("?" * len(message.statuses))
        wanted.append((f"i.status IN ({marks})", tuple(sorted(message.statuses))))
    if filter.id_prefix is not None:
        above = (filter.id_prefix, filter.id_prefix + chr(0x10FFFF))
        wanted.append(("i.instance_id >= ? AND i.instance_id < ?", above))
    if filter.created_after is not None:
        after = time_text(int(filter.created_after.timestamp()))
        wanted.append(("i.created_at >= ?", (after,)))
    if filter.created_before is not None:
        before = time_text(int(filter.created_before.timestamp()))
        wanted.append(("i.created_at < ?", (before,)))
    if filter.parked:
        wanted.append(("r.state = 'parked'", ()))
    for name, given in filter.attributes.items():
        wanted.append(
            (
                "r.instance_id IN (SELECT instance_id FROM runtara_trio_attributes"
                " WHERE name = ? AND value = ?)",
                (name, msgspec.json.encode(given).decode()),
            )
        )
    if kinds is not None:
        values = msgspec.json.encode([msgspec.structs.astuple(kind) for kind in kinds]).decode()
        parts = ", ".join(f"json_extract(k.value, '$[{number}]')" for number in range(3))
        wanted.append(
            (
                "r.state = 'ready' AND (r.queue, r.workflow, r.version) IN"
                f" (SELECT {parts} FROM json_each(?) k)"
                " AND NOT EXISTS (SELECT 1 FROM json_each(?) k"
                " CROSS JOIN json_each(k.value, '$[3]') t WHERE (r.queue, r.workflow, r.version,"
                f" r.tenant_id) = ({parts}, t.value))",
                (values, values),
            )
        )
    return ("r" if filter.of_runs else "i"), wanted


def _where(wanted: Wanted) -> str:
    return f" WHERE {' AND '.join(condition for condition, _ in wanted)}" if wanted else ""


def _values(wanted: Wanted) -> list[object]:
    return [value for _, values in wanted for value in values]


def _rowid(cursor: str) -> int:
    if not (cursor.isdecimal() and int(cursor) < 2**63):
        raise invalid_cursor(cursor)
    return int(cursor)
