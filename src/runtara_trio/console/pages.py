"""What all pages share: how they are rendered, how they act, what they say afterwards."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Awaitable, Callable, Hashable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import quote, urlencode

import anyio
from itsdangerous import BadSignature, URLSafeTimedSerializer
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from .. import words
from ..errors import StoreError
from ..sdk.operator import Operator
from ..tokens import Person, Role
from .guard import Refused, form_of
from .live import TOKEN, TROUBLE, Making, Stream, Views
from .reach import Reach

SAID_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Plan:
    """What a form is about to do: said first, done once somebody has said yes."""

    title: str
    says: tuple[str, ...]
    """What it will do, and what follows; a sentence each."""
    do: Callable[[Operator], Awaitable[str]]
    """Does it, and says what became of it."""
    back: str | None = None
    """Where to go afterwards; None: to where the form was."""


Planning = Callable[["Console", Request, FormData], Awaitable[Plan]]


class Console:
    """What the routes of one application share."""

    def __init__(
        self, reach: Reach, *, read_only: bool, hide_payloads: bool, secret: bytes, login: bool
    ) -> None:
        self.reach = reach
        self.read_only = read_only
        self.hide_payloads = hide_payloads
        self.login = login
        self.views = Views()
        self._signer = URLSafeTimedSerializer(secret, salt="said")
        self._kept: dict[Hashable, tuple[float, Any]] = {}
        self._templates = Environment(
            loader=PackageLoader("runtara_trio.console"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.globals.update(
            ago=ago, age=words.age, duration=words.duration, moment=moment, note=words.note
        )
        self._templates.filters["q"] = lambda text: quote(str(text), safe="")
        self._templates.filters["digest"] = digest

    # ---- who may what

    def may_act(self, request: Request) -> bool:
        return self.person(request).role is Role.OPERATOR and not self.read_only

    def sees_payloads(self, request: Request) -> bool:
        return self.person(request).role is Role.OPERATOR and not self.hide_payloads

    def person(self, request: Request) -> Person:
        person: Person = request.state.person
        return person

    # ---- pages

    async def ask(self, question: Callable[[Operator], Awaitable[Any]]) -> Any:
        """Ask the store."""
        return await self.reach.ask(question)

    async def kept(self, key: Hashable, seconds: float, make: Callable[[], Awaitable[Any]]) -> Any:
        """Something that may be so many seconds old."""
        found = self._kept.get(key)
        if found is not None and anyio.current_time() < found[0]:
            return found[1]
        value = await make()
        now = anyio.current_time()
        self._kept = {one: kept for one, kept in self._kept.items() if now < kept[0]}
        self._kept[key] = now + seconds, value
        return value

    def forget(self) -> None:
        """Keep nothing that may be old."""
        self._kept.clear()

    async def show(
        self, request: Request, template: str, make: Making, title: str, **more: Any
    ) -> Response:
        """A page whose parts change by themselves; or the stream of these parts."""
        key = self.view_key(request)
        if "live" in request.query_params:
            state = request.state
            return Stream(self.views, key, make, state.token, state.is_still)  # type: ignore[return-value]
        parts = {name: Markup(html) for name, html in (await make()).items()}
        return self.page(request, template, title, parts=parts, stream=live_url(request), **more)

    def view_key(self, request: Request) -> Hashable:
        """What browsers share that look at the same, and may see the same."""
        asked = sorted(pair for pair in request.query_params.multi_items() if pair[0] != "live")
        path = path_of(request)
        return path, tuple(asked), self.may_act(request), self.sees_payloads(request)

    def page(
        self,
        request: Request,
        template: str,
        title: str,
        *,
        status: int = 200,
        stream: str | None = None,
        **more: Any,
    ) -> Response:
        """A page."""
        html = self._templates.get_template(template).render(
            title=title,
            stream=stream,
            person=request.state.person,
            said=self._said(request),
            login=self.login,
            trouble=TROUBLE,
            here=path_of(request),
            **self._always(request),
            **more,
        )
        return HTMLResponse(html.replace(TOKEN, request.state.token), status)

    def part(self, request: Request, template: str, **more: Any) -> str:
        """A part of a page; browsers that may see the same share it."""
        return self._templates.get_template(template).render(**self._always(request), **more)

    def _always(self, request: Request) -> dict[str, Any]:
        person = request.state.person
        return {
            "base": request.scope.get("root_path", ""),
            "token": TOKEN,
            "acts": person is not None and self.may_act(request),
            "payloads": person is not None and self.sees_payloads(request),
            "now": words.now(),
        }

    def refused(self, request: Request, exc: Exception) -> Response:
        """The page of an error."""
        status = exc.status if isinstance(exc, Refused) else 400
        if isinstance(exc, StoreError):
            status = 503
        return self.page(request, "refused.html", "That was not possible", status=status, why=exc)

    # ---- actions

    async def act(self, request: Request, plans: Mapping[str, Planning]) -> Response:
        """What a form does: says it, and asks; once somebody has said yes, does it."""
        if not self.may_act(request):
            raise Refused(403, "you may look, and not act; nothing was done")
        form = await form_of(request)
        planning = plans.get(str(form.get("act", "")))
        if planning is None:
            raise Refused(400, f"there is no action {form.get('act')!r}")
        plan = await planning(self, request, form)
        back = _own_path(str(form.get("back", "")), request)
        if "sure" not in form:
            kept = [(name, value) for name, value in form.multi_items() if name != "token"]
            return self.page(request, "confirm.html", plan.title, plan=plan, fields=kept, back=back)
        text = await self.reach.ask(plan.do, who=self.person(request).name)
        self.forget()  # what was read before it
        if plan.back is not None:
            back = f"{request.scope.get('root_path', '')}{plan.back}"
        said = self._signer.dumps([text, secrets.token_hex(4)])
        joint = "&" if "?" in back else "?"
        return RedirectResponse(f"{back}{joint}said={quote(said)}", 303)

    def _said(self, request: Request) -> str:
        """What the last action of this browser said."""
        try:
            text, _ = self._signer.loads(request.query_params.get("said", ""), max_age=SAID_SECONDS)
        except (BadSignature, ValueError, TypeError):
            return ""
        return str(text)


def digest(text: str) -> str:
    """The id of an element that stands for something with this id: it is kept, with what somebody
    has chosen there, wherever it moves to when the page changes."""
    return hashlib.blake2s(text.encode(), digest_size=8).hexdigest()


def _own_path(path: str, request: Request) -> str:
    """Where to go back to: a path of ours, whatever a form says."""
    base = request.scope.get("root_path", "")
    is_own = path.startswith(f"{base}/") and not path.startswith("//") and "\\" not in path
    if not is_own or any(ord(one) < 32 for one in path):
        return f"{base}/"
    return path


def live_url(request: Request) -> str:
    """The stream of a page."""
    pairs = [pair for pair in request.query_params.multi_items() if pair[0] not in ("live", "said")]
    return f"{path_of(request)}?{urlencode([*pairs, ('live', '1')])}"


def path_of(request: Request) -> str:
    """The path of a page as a browser has it, whether a proxy takes the base away or leaves it."""
    base: str = request.scope.get("root_path", "")
    path: str = request.scope["path"]
    return path if not base or path.startswith(f"{base}/") else f"{base}{path}"


def url_with(request: Request, **changed: Any) -> str:
    """This page with other arguments; None: without that one."""
    pairs = [
        (name, value)
        for name, value in request.query_params.multi_items()
        if name not in changed and name not in ("live", "said")
    ]
    pairs += [(name, str(value)) for name, value in changed.items() if value is not None]
    return f"{path_of(request)}?{urlencode(pairs)}" if pairs else path_of(request)


def ago(then: datetime | None, now: datetime) -> Markup:
    """A time, by how long it is since; the time itself to whoever points at it."""
    if then is None:
        return Markup("")
    text = f"in {words.age(then, now)}" if then > now else f"{words.age(now, then)} ago"
    return Markup('<time datetime="{}" title="{} UTC">{}</time>').format(
        then.isoformat(), words.time(then), text
    )


def moment(then: datetime | None) -> Markup:
    """A time, whole."""
    if then is None:
        return Markup("")
    return Markup('<time datetime="{}">{} UTC</time>').format(then.isoformat(), words.time(then))


def one_of(request: Request, name: str) -> str:
    """An argument that a page cannot do without. Raises Refused."""
    value = request.query_params.get(name, "")
    if not value:
        raise Refused(400, f"this page needs ?{name}=...")
    return value


def text_of(form: FormData, name: str) -> str:
    """A field of a form that must be there. Raises Refused."""
    value = form.get(name)
    if not isinstance(value, str) or not value:
        raise Refused(400, f"give {name}")
    return value
