"""What goes to PostgreSQL, statement by statement."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from runtara_trio.store.postgres.connection import Connection


def watch(monkeypatch: pytest.MonkeyPatch, seen: Callable[[str, Any], object]) -> None:
    """From now on ``seen`` is called with each statement and its parameters as it is sent."""
    send = Connection._send

    def sends(self: Connection, statement: str, parameters: Any) -> None:
        seen(statement, parameters)
        send(self, statement, parameters)

    monkeypatch.setattr(Connection, "_send", sends)


def explain(monkeypatch: pytest.MonkeyPatch, seen: Callable[[str, int], object]) -> None:
    """From now on ``seen`` is called with each statement that has a plan, and with the number of
    rows that its scans look at. Each is carried out once more."""
    run_all = Connection.run_all

    async def explains(self: Connection, *statements: Any) -> Any:
        for statement, parameters in [*self._later, *statements]:
            if statement.strip().startswith(("SELECT", "UPDATE", "DELETE", "WITH")):
                explained = (f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", parameters)
                (((plan,),),) = await run_all(self, explained)
                seen(statement, rows_read(json.loads(plan)[0]["Plan"]))
        return await run_all(self, *statements)

    monkeypatch.setattr(Connection, "run_all", explains)


def rows_read(plan: dict[str, Any]) -> int:
    """How many rows the scans of a plan look at, those included that they leave out."""
    rows = 0
    if plan["Node Type"].endswith("Scan"):
        each = plan["Actual Rows"] + plan.get("Rows Removed by Filter", 0)
        rows = int(each * plan["Actual Loops"])
    return rows + sum(map(rows_read, plan.get("Plans", ())))
