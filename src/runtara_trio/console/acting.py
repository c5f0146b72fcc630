"""What can be done to one instance: cancel it, run it again, copy it, send it something."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec
from starlette.datastructures import FormData
from starlette.requests import Request

from ..errors import CodecError
from ..sdk.operator import Operator
from ..types import InstanceDetails, InstanceStatus, RunState, SignalType
from .forms import typed
from .guard import Refused
from .pages import Console, Plan, text_of


async def _signal(operator: Operator, kind: SignalType, instance: str) -> str:
    answer = await getattr(operator, kind.value)(instance)
    return str(answer.text)


async def _rerun(operator: Operator, instance: str) -> str:
    await operator.rerun(instance)
    return "pending again: the next free worker goes on with it"


async def _remove(operator: Operator, instance: str) -> str:
    removed = await operator.remove([instance])
    return "removed" if removed else "not removed: it has not ended"


ACTIONS: dict[str, tuple[str, str, Callable[[Operator, str], Awaitable[str]]]] = {
    "cancel": (
        "Cancel",
        "It ends at its next checkpoint, as cancelled, and so do its children; where it does not"
        " run, at once. Nothing takes a cancel back.",
        lambda op, one: _signal(op, SignalType.CANCEL, one),
    ),
    "pause": (
        "Pause",
        "It stops at its next boundary, and goes on after a resume.",
        lambda op, one: _signal(op, SignalType.PAUSE, one),
    ),
    "resume": (
        "Resume",
        "A pause is taken back; a paused or parked run is ready again.",
        lambda op, one: _signal(op, SignalType.RESUME, one),
    ),
    "rerun": (
        "Rerun",
        "It goes on from its checkpoints: what was saved is not done again. Its attempts begin"
        " anew, its saved failures are forgotten, and its failed children run again.",
        _rerun,
    ),
    "remove": (
        "Remove",
        "It is removed with its checkpoints and its history. Nothing brings it back.",
        _remove,
    ),
}
"""What can be done to one: its name, what follows, and how."""


def possible(details: InstanceDetails) -> list[tuple[str, str]]:
    """The actions that are possible now: names, and what is on their buttons."""
    one = details.summary
    run = one.run
    if one.status.finished:
        wanted = ["rerun"] if run is not None else []
        return [(name, ACTIONS[name][0]) for name in (*wanted, "remove")]
    wanted = []
    paused = run is not None and run.state in (RunState.PAUSED, RunState.PARKED)
    if one.signal is SignalType.PAUSE or paused or _is_held(details):
        wanted.append("resume")
    elif one.signal is not SignalType.CANCEL:
        wanted.append("pause")
    if one.signal is not SignalType.CANCEL:
        wanted.append("cancel")
    return [(name, ACTIONS[name][0]) for name in wanted]


def _is_held(details: InstanceDetails) -> bool:
    one = details.summary
    return one.status is InstanceStatus.SUSPENDED and one.held


async def plan_one(console: Console, request: Request, form: FormData) -> Plan:
    """An action on one instance."""
    name, instance = text_of(form, "what"), text_of(form, "id")
    if name not in ACTIONS:
        raise Refused(400, f"there is no action {name!r}")
    title, follows, act = ACTIONS[name]
    back = "/" if name == "remove" else None
    return Plan(f"{title} {instance}?", (follows,), lambda op: act(op, instance), back)


async def plan_fork(console: Console, request: Request, form: FormData) -> Plan:
    """A copy of an instance, with other arguments if somebody has typed some."""
    instance, new = text_of(form, "id"), text_of(form, "new_id")
    until = str(form.get("until", "")) or None
    text = str(form.get("args", "")).strip()
    args = None
    if text:
        try:
            args = msgspec.json.decode(text, type=list)
        except msgspec.DecodeError as exc:
            raise Refused(400, f"the arguments must be a JSON array: {exc}") from exc

    async def do(operator: Operator) -> str:
        try:
            await operator.fork(instance, new, until=until, args=args)
        except CodecError as exc:
            raise Refused(400, str(exc)) from exc
        return f"{new} is pending"

    says = [f"A new instance {new} begins with the checkpoints of {instance}"]
    says[0] += f", up to {until}." if until else "."
    if args is not None:
        says.append(f"Its arguments are {text}.")
    return Plan(f"Fork {instance}?", tuple(says), do)


async def plan_message(console: Console, request: Request, form: FormData) -> Plan:
    """A signal or a message with a payload that somebody has typed."""
    instance, name = text_of(form, "id"), text_of(form, "name")
    payload = typed(str(form.get("payload", "")))
    is_signal = form.get("kind") != "message"

    async def do(operator: Operator) -> str:
        if is_signal:
            await operator.send_signal(instance, name, payload)
        else:
            await operator.send_message(instance, name, payload)
        return f"sent to {name}"

    what = "the signal" if is_signal else "a message"
    says = (f"{instance} gets {what} {name}, now or when it asks for it: {payload or 'empty'}",)
    return Plan(f"Send to {instance}?", says, do)


PLANS = {"instance": plan_one, "fork": plan_fork, "send": plan_message}
