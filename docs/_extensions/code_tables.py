"""Tables of the documentation that are made from the code that decides.

``outcomes``   what a block ends as: ``engine/outcome.py``
``signals``    what a store does with an operator's signal: ``store/answers/rules.py``
``logs``       the events that are logged: ``logs.py``
``layers``     the layers of the package: ``layers.py``
``measures``   what is measured: ``measures.py``
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from runtara_trio.engine.outcome import TABLE
from runtara_trio.layers import LAYERS
from runtara_trio.logs import EVENTS, FIELDS
from runtara_trio.measures import MEASURES
from runtara_trio.store.answers.rules import SIGNALS, Action, Standing
from runtara_trio.types import SignalType

Rows = Iterable[tuple[str, ...]]


def outcomes() -> Rows:
    yield ("what happened: the first row that holds decides", "recorded", "`sdk.outcome`")
    for row in TABLE:
        if row.outcome is None:
            yield (row.when, "that, at the moment of the call", "what it said")
        else:
            yield (row.when, row.recorded.value if row.recorded else "nothing", row.outcome.name)
    yield ("the process died", "nothing: the next start goes on at once", "")


DONE = {
    Action.DELIVER: "delivered",
    Action.WAIT: "waits for the next start",
    Action.CARRY_OUT: "carried out at once",
    Action.MARK: "carried out at once, and left as a row",
    Action.WITHDRAW: "a waiting pause is taken back",
    Action.TAKE_OUT: "leaves its queue at once",
    Action.PUT_BACK: "back in its queue at once",
    Action.NOTHING: "nothing: it is so already",
}


def signals() -> Rows:
    yield ("the instance is", *(kind.value for kind in SignalType))
    for stands in Standing:
        if stands is Standing.FINISHED:
            yield (stands.value, *("refused" for _ in SignalType))
        else:
            yield (stands.value, *(DONE[SIGNALS[kind, stands][0]] for kind in SignalType))


def layers() -> Rows:
    yield ("packages and modules", "what they are")
    for layer in LAYERS:
        yield (", ".join(f"`{name}`" for name in layer.names), layer.what)


def logs() -> Rows:
    yield ("event", "logger", "level", "fields")
    for event in EVENTS:
        level = logging.getLevelName(event.level)
        fields = ", ".join(f"`{field}`" for field in event.fields)
        yield (f"`{event.name}`", f"`{event.logger.name}`", level, fields)


def log_fields() -> Rows:
    yield ("field", "what it says")
    for field, meaning in FIELDS.items():
        yield (f"`{field}`", meaning)


def measures() -> Rows:
    yield ("metric", "kind", "unit", "by", "what")
    for one in MEASURES:
        by = ", ".join(f"`{name}`" for name in one.attributes)
        unit = one.unit.strip("{}")
        yield (f"`{one.name}`", one.kind.name.lower(), unit, by, one.text)


TABLES: dict[str, Callable[[], Rows]] = {
    "outcomes": outcomes,
    "signals": signals,
    "logs": logs,
    "log-fields": log_fields,
    "layers": layers,
    "measures": measures,
}


class CodeTable(SphinxDirective):
    """``{code-table} outcomes``: one of the tables above."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        head, *body = TABLES[self.arguments[0]]()
        lines = [head, ("---",) * len(head), *body]
        text = ["| " + " | ".join(line) + " |" for line in lines]
        holder = nodes.container()
        self.state.nested_parse(StringList(text, source=self.arguments[0]), 0, holder)
        return holder.children


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("code-table", CodeTable)
    return {"parallel_read_safe": True}
