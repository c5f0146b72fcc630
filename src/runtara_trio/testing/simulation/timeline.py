"""What happened in one simulation, for a person to read."""

from __future__ import annotations

from typing import Any

import msgspec

from ...messages import Claimed, Request

LAST, ABOUT = 30, 40
"""Lines that a failure shows: the last ones, and before them those about what was found."""

FOUND = "found"
"""Who tells of a finding."""

LONGEST = 160
"""Characters of a line."""

_QUIET = ("announce", "ends", "result", "look", "workers", "schedules", "checkpoints")
"""Verbs of what is asked again and again, which are not shown."""

_TOLD = (
    "instance_id",
    "instance_ids",
    "checkpoint_id",
    "lease",
    "status",
    "type",
    "waiting",
    "working",
    "dead",
    "block",
    "name",
    "next",
)
"""What a line tells of a message, where it is there."""


class Timeline:
    """Lines, in the order of simulated time. Their texts are made when they are read."""

    def __init__(self) -> None:
        self._lines: list[tuple[float, str, Any, Any]] = []

    def say(self, time: float, who: str, text: str) -> None:
        """Something happened."""
        self._lines.append((time, who, text, None))

    def message(self, time: float, who: str, message: Request[Any], reply: Any) -> None:
        """A message was carried out, or refused: then ``reply`` is the exception."""
        nothing = isinstance(reply, Claimed) and not reply.runs
        if message.verb not in _QUIET and not nothing:
            self._lines.append((time, who, message, reply))

    @property
    def lines(self) -> list[str]:
        """All of them."""
        return [
            f"{time:10.3f}  {who:<12} {what if reply is None else _told(what, reply)}"[:LONGEST]
            for time, who, what, reply in self._lines
        ]


def shown(lines: list[str], instance_id: str) -> list[str]:
    """The lines of a timeline that a failure shows: the last ones until something was found, and
    before them those about an instance and about what went wrong."""
    found = next((n for n, line in enumerate(lines) if f"  {FOUND:<12} " in line), len(lines))
    before, last = lines[: max(0, found - LAST)], lines[max(0, found - LAST) : found + 1]
    about = [
        line
        for line in before
        if (instance_id and instance_id in line) or "  fault  " in line or "  operator  " in line
    ]
    left = len(before) - len(about[-ABOUT:])
    return [*about[-ABOUT:], *([f"({left} lines are left out)"] if left else []), *last]


def _told(message: Request[Any], reply: Any) -> str:
    parts = [f"{name}={_short(value)}" for name, value in _fields(message)]
    text = f"{type(message).__name__} {' '.join(parts)}"
    if isinstance(reply, BaseException):
        return f"{text} -> {type(reply).__name__}: {reply}"
    if isinstance(reply, Claimed):
        took = ", ".join(f"{run.instance_id} (lease {run.lease})" for run in reply.runs)
        return f"ClaimRuns -> {took or 'nothing'}"
    told = [
        f"{name}={_short(value)}"
        for name in ("found", "refused", "existing", "count", "cancel")
        if (value := getattr(reply, name, None)) not in (None, False, ())
    ]
    return f"{text} -> {' '.join(told)}" if told else text


def _fields(message: Request[Any]) -> list[tuple[str, Any]]:
    found = [
        (name, value)
        for name in _TOLD
        if (value := getattr(message, name, None)) not in (None, (), "")
    ]
    runs = getattr(message, "runs", None)
    if runs:
        found.append(("runs", ", ".join(run.instance_id for run in runs)))
    return found


def _short(value: Any) -> str:
    if isinstance(value, msgspec.Struct):
        said = [
            f"{name}={_short(one)}"
            for name, one in msgspec.structs.asdict(value).items()
            if one not in (None, (), False, "", b"")
        ]
        return f"({' '.join(said)})"
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return str(value)
