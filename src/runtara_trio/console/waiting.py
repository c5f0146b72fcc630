"""What waits for people: every wait for a signal that nobody has answered, and its answer."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.responses import Response

from .. import words
from ..sdk.operator import Operator
from ..types import StepKind
from . import forms
from .guard import Refused
from .live import Parts
from .pages import Console, Plan, one_of, text_of, url_with

PAGE = 50


async def show(console: Console, request: Request) -> Response:
    """The page."""
    after = _cursor(request)

    async def make() -> Parts:
        page = await console.ask(lambda op: op.waits(after=after, limit=PAGE))
        following = None
        if page.next is not None:
            cursor = msgspec.json.encode(page.next).decode()
            following = url_with(request, after=cursor)
        return {"waits": console.part(request, "waits.html", waits=page.waits, next=following)}

    return await console.show(request, "waiting.html", make, "Waiting for people")


def _cursor(request: Request) -> tuple[int, str, str] | None:
    text = request.query_params.get("after")
    if text is None:
        return None
    try:
        found = msgspec.json.decode(text, type=tuple[int, str, str])
        if not 0 <= found[0] < 2**63:
            raise msgspec.DecodeError("out of range")
        return found
    except msgspec.DecodeError as exc:
        raise Refused(400, f"{text[:80]!r} is not where a page begins") from exc


async def answer(console: Console, request: Request) -> Response:
    """The form of one wait."""
    instance, step = one_of(request, "id"), one_of(request, "step")
    asks = await _asks(console, instance, step)
    return console.page(
        request,
        "answer.html",
        f"Answer {step}",
        id=instance,
        step=step,
        fields=forms.fields(asks),
        asks=asks,
    )


async def _asks(console: Console, instance: str, step: str) -> str | None:
    """The JSON schema of what a wait is for."""
    steps = await console.ask(lambda op: op.open_steps([instance]))
    mine = [one for _, one in steps if one.step == step and one.kind is StepKind.SIGNAL]
    return mine[-1].asks if mine else None


async def plan(console: Console, request: Request, form: FormData) -> Plan:
    """An answer, as it will be sent."""
    instance, step = text_of(form, "id"), text_of(form, "step")
    given: Mapping[str, str] = {name: str(value) for name, value in form.items()}
    try:
        payload = forms.payload_of(await _asks(console, instance, step), given)
    except forms.Invalid as exc:
        raise Refused(400, f"{exc}; go back, and correct it") from exc

    async def do(operator: Operator) -> str:
        await operator.send_signal(instance, step, payload, replace=form.get("replace") == "true")
        return f"answered {step} of {instance}"

    says = (f"{instance} gets, for {step}:", words.readable(payload) or "an empty payload")
    return Plan(f"Answer {step}?", says, do)


PLANS = {"answer": plan}
