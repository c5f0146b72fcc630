"""What an instance did, as bars on one axis of time: from steps to what is drawn.

Pure functions of steps and the time that it is. The axis of an instance that runs ends a little
in the future, and stays for a while: bars that have ended stay where they are.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from urllib.parse import quote

from markupsafe import escape

from .. import words
from ..types import StepInfo, StepKind, StepOutcome

CHUNK = 500
"""Rows that are sent at once."""
DEEPEST = 12
"""Steps that are nested deeper are drawn as deep as this."""
TICKS = 5
SHORTEST = 0.15
"""Percent of the axis: a bar is never narrower."""
_BOUNDS = [
    *(0.1, 0.2, 0.5, 1, 2, 3, 5, 10, 15, 20, 30, 45, 60, 90, 120, 180, 300, 450, 600, 900, 1200),
    *(1800, 2700, 3600, 5400, 7200, 10800, 14400, 21600, 32400, 43200, 64800, 86400),
]
"""Lengths of the axis, seconds; from days on they grow by a quarter."""

Window = tuple[float, float]
"""A part of the time, Unix seconds."""


class Row(NamedTuple):
    """A step, as deep as it is nested."""

    step: StepInfo
    depth: int


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of the axis, or a moment on it, with its name. Percent."""

    x: float
    width: float
    name: str


@dataclass(slots=True)
class Timeline:
    """All that is drawn."""

    begin: datetime
    seconds: float
    """The length of the axis."""
    rows: list[Row] = field(default_factory=list)
    gaps: list[Span] = field(default_factory=list)
    """When it was in no process: slept, paused, dead."""
    marks: list[Span] = field(default_factory=list)
    """Where a run begins."""
    now: float | None = None
    """Percent; None: not on the axis, or it has ended."""

    def x(self, moment: datetime) -> float:
        """Where a moment is, percent."""
        return 100 * (moment - self.begin).total_seconds() / self.seconds

    @property
    def ticks(self) -> list[tuple[float, str, Window]]:
        """Where the axis is divided, how far from its begin, and the part from there on."""
        part = self.seconds / TICKS
        start = self.begin.timestamp()
        return [
            (
                100 * number / TICKS,
                words.duration(timedelta(seconds=part * number)) if number else "0",
                (start + part * number, start + part * (number + 1)),
            )
            for number in range(TICKS)
        ]

    @property
    def chunks(self) -> int:
        """How many parts its rows are sent in; one at least."""
        return max(1, -(-len(self.rows) // CHUNK))

    def chunk(self, number: int) -> list[Row]:
        return self.rows[CHUNK * number : CHUNK * (number + 1)]


def timeline(
    steps: Sequence[StepInfo], now: datetime, *, runs: bool, window: Window | None = None
) -> Timeline:
    """What is drawn of steps.

    Args:
      runs: the instance has not ended: the axis goes on.
      window: only what is in a part of the time.
    """
    times = [one.started_at or one.ended_at for one in steps]
    begin = min((one for one in times if one is not None), default=now)
    last = now if runs else max((_end(one, now) for one in steps), default=now)
    if window is not None:
        whole = Timeline(datetime.fromtimestamp(window[0], UTC), max(window[1] - window[0], 1e-3))
    else:
        span = max((last - begin).total_seconds(), 1e-3)
        whole = Timeline(begin, bound(span) if runs else span)
    whole.rows = [row for row in nested(steps) if window is None or _is_in(whole, row.step, now)]
    whole.gaps, whole.marks = _runs(whole, steps, now)
    if runs and 0 <= whole.x(now) <= 100:
        whole.now = whole.x(now)
    return whole


def bound(seconds: float) -> float:
    """The length of an axis on which so many seconds have room, and stay for a while."""
    for one in _BOUNDS:
        if seconds <= one:
            return float(one)
    length = 86400.0
    while length < seconds:
        length *= 1.25
    return length


def nested(steps: Iterable[StepInfo]) -> Iterator[Row]:
    """Steps in the order in which they began, each behind the one that it is inside of."""
    given = list(steps)
    if not any(one.parent for one in given):
        yield from (Row(one, 0) for one in given)
        return
    there = {(one.step, one.run) for one in given}
    inside: dict[tuple[str, int], list[StepInfo]] = {}
    outer: list[StepInfo] = []
    for one in given:
        above = (one.parent or "", one.run)
        if above in there and above != (one.step, one.run):
            inside.setdefault(above, []).append(one)
        else:
            outer.append(one)
    waiting = [(one, 0) for one in reversed(outer)]
    while waiting:
        step, depth = waiting.pop()
        yield Row(step, min(depth, DEEPEST))
        below = inside.pop((step.step, step.run), [])
        waiting += [(one, depth + 1) for one in reversed(below)]
    for left in inside.values():  # inside of each other: nobody's but a damaged store's
        yield from (Row(one, 0) for one in left)


def _end(step: StepInfo, now: datetime) -> datetime:
    if step.ended_at is not None:
        return step.ended_at
    if step.outcome is None:
        return now
    return max([one for one, _ in step.attempts] or [step.started_at or now])


def _is_in(line: Timeline, step: StepInfo, now: datetime) -> bool:
    begin = step.started_at or step.ended_at or now
    return line.x(begin) <= 100 and line.x(_end(step, now)) >= 0


def _runs(
    line: Timeline, steps: Sequence[StepInfo], now: datetime
) -> tuple[list[Span], list[Span]]:
    """What lies between the runs, and where they begin."""
    of_run: dict[int, list[StepInfo]] = {}
    for one in steps:
        if one.run and one.started_at is not None:
            of_run.setdefault(one.run, []).append(one)
    gaps: list[Span] = []
    marks: list[Span] = []
    groups = sorted(of_run.items(), key=lambda item: min(_begins(item[1])))
    for number, (_, group) in enumerate(groups, 1):
        worker = next((one.worker for one in group if one.worker), "")
        begins = min(_begins(group))
        if number > 1 and 0 <= line.x(begins) <= 100:
            marks.append(Span(line.x(begins), 0, f"run {number}{' on ' if worker else ''}{worker}"))
    for (_, before), (_, after) in itertools.pairwise(groups):
        ended = max(_end(one, now) for one in before)
        span = _span(line, ended, min(_begins(after)), _between(before))
        if span is not None:
            gaps.append(span)
    if groups and line.now is None and any(_is_unloaded(one) for one in groups[-1][1]):
        last = groups[-1][1]
        span = _span(line, max(_end(one, now) for one in last), now, _between(last))
        if span is not None:
            gaps.append(span)
    return gaps, marks


def _begins(steps: Iterable[StepInfo]) -> Iterator[datetime]:
    return (one.started_at for one in steps if one.started_at is not None)


def _is_unloaded(step: StepInfo) -> bool:
    return step.outcome is StepOutcome.UNLOADED


def _span(line: Timeline, begin: datetime, end: datetime, name: str) -> Span | None:
    left, right = max(0.0, line.x(begin)), min(100.0, line.x(end))
    return Span(left, right - left, name) if right - left > 0.5 else None


_GAPS: Mapping[StepKind, str] = {
    StepKind.SLEEP: "asleep, unloaded",
    StepKind.SIGNAL: "waiting, unloaded",
    StepKind.MESSAGE: "waiting, unloaded",
}


def _between(before: Iterable[StepInfo]) -> str:
    """Why nobody ran it after a run."""
    steps = list(before)
    for one in steps:
        if one.outcome is StepOutcome.LOST:
            return "its process had died"
        if _is_unloaded(one):
            return _GAPS.get(one.kind, "unloaded")
    if any(one.outcome is StepOutcome.INTERRUPTED for one in steps):
        return "paused or stopped"
    return "not running"


# ---- as HTML


def rows_html(
    line: Timeline, rows: Iterable[Row], instance_id: str, base: str, now: datetime
) -> str:
    """Rows, an ``li`` each. Made here: ten thousand are too many for a template."""
    return "".join(_row_html(line, row, instance_id, base, now) for row in rows)


def _row_html(line: Timeline, row: Row, instance_id: str, base: str, now: datetime) -> str:
    step = row.step
    outcome = "running" if step.outcome is None else step.outcome.value
    link = target(step, instance_id, base)
    label = f"<b>{escape(step.summary)}</b>" if step.summary else ""
    tried = f"{len(step.attempts)} failed" if step.attempts else ""
    took = length(step, now)
    said = ", ".join(part for part in (step.kind.value, outcome, tried) if part)
    return (
        f'<li class="row o-{outcome} k-{step.kind.value} d{row.depth}">'
        f'<a href="{escape(link)}" title="{escape(step.step)}">{escape(step.step)}</a>'
        f'<span class="what">{label}<i>{escape(said)}</i></span><span class="took">{took}</span>'
        f'<svg class="bars" aria-hidden="true">{_bar(line, step, now)}</svg></li>'
    )


def target(step: StepInfo, instance_id: str, base: str) -> str:
    """The page of a step; a child is an instance."""
    if step.kind is StepKind.CHILD:
        return f"{base}/instance?id={quote(step.step, safe='')}"
    return f"{base}/step?id={quote(instance_id, safe='')}&step={quote(step.step, safe='')}"


def length(step: StepInfo, now: datetime) -> str:
    """How long a step took, or takes."""
    if step.started_at is None or (step.ended_at is None and step.outcome is not None):
        return ""
    return words.duration((step.ended_at or now) - step.started_at)


def _bar(line: Timeline, step: StepInfo, now: datetime) -> str:
    begin, end = step.started_at, _end(step, now)
    if begin is None:
        return f'<circle cx="{min(99.8, line.x(end)):.3f}%" cy="50%" r="3"/>'
    left, right = max(0.0, line.x(begin)), min(100.0, line.x(end))
    width = max(right - left, SHORTEST)
    left = min(left, 100 - SHORTEST)
    tries = "".join(
        f'<line x1="{line.x(at):.3f}%" x2="{line.x(at):.3f}%" y1="15%" y2="85%"/>'
        for at, _ in step.attempts
        if 0 <= line.x(at) <= 100
    )
    return f'<rect x="{left:.3f}%" y="25%" width="{width:.3f}%" height="50%" rx="2"/>{tries}'
