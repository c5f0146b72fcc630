"""The ASGI application of the console: its routes."""

from __future__ import annotations

import functools
import secrets
from collections.abc import Awaitable, Callable, Collection
from pathlib import Path

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from ..codec import JSON, Codec
from ..config import SdkConfig
from ..engine.services import SharedBackend
from ..errors import ConfigError, SdkError
from . import acting, audit, compare, fleet, instance, listing, metrics, waiting
from .guard import Guard, Refused, cookie, form_of
from .pages import Console
from .people import SESSION, Authorize, Tokens
from .reach import InThread, OnBackend

Page = Callable[[Console, Request], Awaitable[Response]]

PAGES: dict[str, Page] = {
    "/": listing.instances,
    "/instance": instance.show,
    "/chunk": instance.chunk,
    "/step": instance.step,
    "/export": instance.export,
    "/waiting": waiting.show,
    "/answer": waiting.answer,
    "/workers": fleet.workers,
    "/queues": fleet.queues,
    "/schedules": fleet.schedules,
    "/compare": compare.show,
    "/audit": audit.show,
    "/metrics": metrics.scrape,
}
PLANS = {**listing.PLANS, **acting.PLANS, **waiting.PLANS, **fleet.PLANS}
"""What a form may do, by its field ``act``."""


def app(
    target: str | SdkConfig | SharedBackend,
    *,
    authorize: Authorize | None = None,
    tokens: Tokens | None = None,
    allowed_hosts: Collection[str] | None = (),
    read_only: bool = False,
    hide_payloads: bool = False,
    https: bool = False,
    codec: Codec = JSON,
) -> Starlette:
    """The console as an ASGI application, to be served or mounted.

    Args:
      target: an open backend, for a server on Trio; or a URL, for one on asyncio: the store is
        then opened in a thread of its own.
      authorize: gives of an ASGI scope a (user, role), or None: nobody. It may be a coroutine
        function. None: ``tokens`` say who it is. ``runtara_trio.console.people.everybody`` makes
        whoever reaches the application an operator.
      tokens: people who log in with a token; see :class:`~runtara_trio.console.people.Tokens`.
      allowed_hosts: the names by which browsers may ask for it, beside addresses and localhost;
        None: any, where a proxy has checked it, or ``authorize`` lets nobody in by the address.
      read_only: nobody acts.
      hide_payloads: nobody sees arguments, states, results and payloads.
      https: browsers reach it over https, through a proxy that speaks http to it: its cookies
        are sent over https alone. Not needed where the server itself speaks https.
      codec: of the programs: encodes what is sent, and decodes what is shown.

    Raises:
      ConfigError: an invalid target, or neither ``authorize`` nor ``tokens``.
    """
    if isinstance(allowed_hosts, str):
        raise ConfigError(f"allowed_hosts must be a list of names, not {allowed_hosts!r}")
    reach = (
        OnBackend(target, codec) if isinstance(target, SharedBackend) else InThread(target, codec)
    )
    who = authorize or (None if tokens is None else tokens.authorize)
    if who is None:
        raise ConfigError(
            "say who may look and act: authorize=..., which is given a scope, tokens=..., or"
            " authorize=everybody, where nobody else reaches it"
        )
    secret = secrets.token_bytes(32)
    console = Console(
        reach,
        read_only=read_only,
        hide_payloads=hide_payloads,
        secret=secret,
        login=tokens is not None,
    )
    routes: list[Route | Mount] = [
        Route(path, functools.partial(_page, console, page), methods=["GET"])
        for path, page in PAGES.items()
    ]
    routes.append(Route("/act", functools.partial(_page, console, _act), methods=["POST"]))
    static = StaticFiles(directory=Path(__file__).with_name("static"))
    routes.append(Mount("/static", static))
    if tokens is not None:
        for name, endpoint in (("login", _login), ("logout", _logout)):
            answer = functools.partial(_page, console, functools.partial(endpoint, tokens))
            methods = ["GET", "POST"] if name == "login" else ["POST"]
            routes.append(Route(f"/{name}", answer, methods=methods))
    guard = Middleware(
        Guard,
        authorize=who,
        hosts=None if allowed_hosts is None else {one.lower() for one in allowed_hosts},
        login=tokens is not None,
        https=https,
        secret=secret,
    )
    application = Starlette(routes=routes, middleware=[guard])
    application.state.console = console
    return application


async def _page(console: Console, page: Page, request: Request) -> Response:
    try:
        return await page(console, request)
    except (Refused, SdkError) as exc:
        return console.refused(request, exc)


async def _act(console: Console, request: Request) -> Response:
    return await console.act(request, PLANS)


async def _login(tokens: Tokens, console: Console, request: Request) -> Response:
    if request.method == "GET":
        return console.page(request, "login.html", "Log in", wrong=False)
    form = await form_of(request)
    person = tokens.person(str(form.get("secret", "")))
    if person is None:
        return console.page(request, "login.html", "Log in", wrong=True, status=401)
    answer = RedirectResponse(f"{request.scope.get('root_path', '')}/", 303)
    cookie(answer.headers, request.scope, SESSION, tokens.session(person))
    return answer


async def _logout(tokens: Tokens, console: Console, request: Request) -> Response:
    await form_of(request)
    answer = RedirectResponse(f"{request.scope.get('root_path', '')}/login", 303)
    cookie(answer.headers, request.scope, SESSION, "")
    return answer
