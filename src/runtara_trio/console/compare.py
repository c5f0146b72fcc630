"""Two instances side by side, step by step: where their paths or times part."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

from starlette.requests import Request
from starlette.responses import Response

from .. import words
from ..sdk.operator import Operator
from ..types import StepInfo
from .live import Parts
from .pages import Console
from .timeline import length

MOST = 2000
"""Steps of each that are compared."""
MUCH = 2.0
"""A step that took so many times as long is marked, from a tenth of a second on."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A step of one, of the other, or of both."""

    left: StepInfo | None
    right: StepInfo | None
    left_took: str
    right_took: str
    parts: str
    """How they part; empty: they do not."""


def pairs(left: Sequence[StepInfo], right: Sequence[StepInfo]) -> list[Pair]:
    """Steps that belong together, in their order: those of the same id."""
    lefts, rights = _last_runs(left)[:MOST], _last_runs(right)[:MOST]
    matcher = SequenceMatcher(a=_names(lefts), b=_names(rights), autojunk=False)
    found: list[Pair] = []
    for what, a, b, c, d in matcher.get_opcodes():
        if what == "equal":
            both = zip(lefts[a:b], rights[c:d], strict=True)
            found += [_pair(one, other) for one, other in both]
        else:
            found += [_pair(one, None) for one in lefts[a:b]]
            found += [_pair(None, other) for other in rights[c:d]]
    return found


def _last_runs(steps: Sequence[StepInfo]) -> list[StepInfo]:
    """Of each step the last run of it."""
    last = {one.step: one for one in steps}
    return list(last.values())


def _names(steps: Sequence[StepInfo]) -> list[tuple[str, int]]:
    """What steps are called in either of the two, each once: many equal ones take for ever."""
    seen: Counter[str] = Counter()
    names: list[tuple[str, int]] = []
    for step in steps:
        name = step.step.rpartition("/")[2] if step.kind == "child" else step.step
        seen[name] += 1
        names.append((name, seen[name]))
    return names


def _pair(left: StepInfo | None, right: StepInfo | None) -> Pair:
    now = words.now()
    took = ["" if one is None else length(one, now) for one in (left, right)]
    return Pair(left, right, took[0], took[1], _parting(left, right))


def _parting(left: StepInfo | None, right: StepInfo | None) -> str:
    if left is None or right is None:
        return "only on one side"
    if left.outcome is not right.outcome:
        return "other outcome"
    if len(left.attempts) != len(right.attempts):
        return "other attempts"
    seconds = [_seconds(one) for one in (left, right)]
    short, long = sorted(seconds)
    return "other time" if long > 0.1 and long > MUCH * short else ""


def _seconds(step: StepInfo) -> float:
    if step.started_at is None or step.ended_at is None:
        return 0.0
    return (step.ended_at - step.started_at).total_seconds()


async def show(console: Console, request: Request) -> Response:
    """The page."""
    ids = [request.query_params.get(name, "") for name in ("a", "b")]

    async def make() -> Parts:
        if not all(ids):
            return {"pairs": ""}
        details = [
            await console.ask(functools.partial(Operator.show, instance_id=one)) for one in ids
        ]
        steps = [
            await console.ask(functools.partial(Operator.steps, instance_id=one)) for one in ids
        ]
        found = pairs(*steps)
        first = next((one for one in found if one.parts), None)
        kinds = {one.summary.run.workflow for one in details if one.summary.run is not None}
        sentences = [words.sentence(one, words.now()) for one in details]
        return {
            "pairs": console.part(
                request,
                "pairs.html",
                pairs=found,
                ids=ids,
                sentences=sentences,
                first=first,
                same=len(kinds) < 2,
                cut=max(map(len, steps)) > MOST,
            )
        }

    return await console.show(request, "compare.html", make, "Compare", ids=ids)
