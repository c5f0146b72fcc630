"""What every request is checked by, before any page sees it.

Its Host, against a page of somebody else's that has this machine's address by its own DNS; who it
is of; and of a form, whether one of our pages has sent it. Every answer carries a policy by which a
browser runs no script but ours.
"""

from __future__ import annotations

import functools
import hashlib
import hmac
import inspect
import ipaddress
import secrets
from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.datastructures import FormData, MutableHeaders
from starlette.requests import HTTPConnection, Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..tokens import Person
from .people import Authorize, checked

VISIT = "runtara_visit"
LARGEST_FORM = 2 * 2**20
"""Bytes."""

HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self';"
        " connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}
OPEN = ("/static/", "/login")
"""Paths that anybody may ask for."""


class Refused(Exception):
    """A request that is answered with a status and a sentence, and does nothing."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Guard:
    """Around the application."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        authorize: Authorize,
        hosts: Collection[str] | None,
        login: bool,
        https: bool,
        secret: bytes,
    ) -> None:
        """``hosts``: names by which it may be asked for, beside addresses and localhost; None: by
        any. ``login``: there is a page for it. ``https``: browsers speak it to a proxy."""
        self._app = app
        self._authorize = authorize
        self._hosts = hosts
        self._login = login
        self._https = https
        self._secret = secret

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if self._https:
            scope = {**scope, "scheme": "https"}
        connection = HTTPConnection(scope)
        visit = connection.cookies.get(VISIT, "")
        new_visit = not visit.isalnum()
        if new_visit:
            visit = secrets.token_hex(16)
        scope.setdefault("state", {})
        scope["state"]["token"] = token_of(self._secret, visit)

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                is_static = _path(scope).startswith("/static/")
                headers.setdefault("cache-control", "no-cache" if is_static else "no-store")
                if new_visit and not is_static:
                    cookie(headers, scope, VISIT, visit)
            await send(message)

        try:
            self._check_host(connection)
            if scope["method"] not in ("GET", "HEAD"):
                _check_origin(connection)
            person = await self._person(scope)
        except Refused as exc:
            answer: ASGIApp = PlainTextResponse(f"{exc}\n", exc.status)
            await answer(scope, receive, send_guarded)
            return
        scope["state"]["person"] = person
        scope["state"]["is_still"] = functools.partial(self._is_still, scope, person)
        if person is None and not _path(scope).startswith(OPEN):
            await self._nobody(scope)(scope, receive, send_guarded)
            return
        await self._app(scope, receive, send_guarded)

    async def _is_still(self, scope: Scope, person: Person | None) -> bool:
        """Whether the request would be let in again: a session ends, a right is taken away."""
        return await self._person(scope) == person

    async def _person(self, scope: Scope) -> Person | None:
        found = self._authorize(scope)
        if inspect.isawaitable(found):
            found = await found
        return checked(found)

    def _nobody(self, scope: Scope) -> Response:
        if self._login and scope["method"] == "GET" and "live=" not in str(scope["query_string"]):
            return RedirectResponse(f"{scope.get('root_path', '')}/login", 303)
        return PlainTextResponse("log in first\n", 401, {"www-authenticate": "Bearer"})

    def _check_host(self, connection: HTTPConnection) -> None:
        given = connection.headers.get("host", "")
        try:
            name = urlsplit(f"//{given}").hostname or ""
        except ValueError:
            name = ""
        if self._hosts is None or name == "localhost" or name in self._hosts or _is_address(name):
            return
        raise Refused(
            421,
            f"this console is not known as {given!r}: allow that name with --allowed-host, or"
            " allowed_hosts=",
        )


def _check_origin(connection: HTTPConnection) -> None:
    """Whether the page that sends a form has our Host. (The scheme may be a proxy's.)"""
    headers = connection.headers
    origin = headers.get("origin")
    site = headers.get("sec-fetch-site", "same-origin")
    same = origin is None or urlsplit(origin).netloc == headers.get("host")
    if not same or site not in ("same-origin", "none"):
        raise Refused(403, "this form was sent by a page of another origin; nothing was done")


def token_of(secret: bytes, visit: str) -> str:
    """The token in the forms of a browser."""
    return hmac.new(secret, visit.encode(), hashlib.sha256).hexdigest()


async def form_of(request: Request) -> FormData:
    """The form of a request, which one of our pages has made. Raises Refused."""
    length = request.headers.get("content-length", "")
    if not length.isdecimal() or int(length) > LARGEST_FORM:
        raise Refused(413, f"a form has at most {LARGEST_FORM} bytes, and says how many")
    form = await request.form(max_files=0, max_part_size=LARGEST_FORM)
    given = form.get("token")
    if not isinstance(given, str) or not hmac.compare_digest(
        given.encode(), request.state.token.encode()
    ):
        raise Refused(403, "this form is not of this browser, or too old: load its page again")
    return form


def cookie(headers: MutableHeaders, scope: Scope, name: str, value: str) -> None:
    """Set a cookie that no script reads and that no other site's page sends."""
    response = Response()
    response.set_cookie(
        name,
        value,
        path=scope.get("root_path", "") or "/",
        secure=scope.get("scheme") == "https",
        httponly=True,
        samesite="strict",
        max_age=None if value else 0,
    )
    headers.append("set-cookie", response.headers["set-cookie"])


def _path(scope: Scope) -> str:
    root, path = scope.get("root_path", ""), str(scope["path"])
    return path.removeprefix(root) if path.startswith(f"{root}/") else path


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
