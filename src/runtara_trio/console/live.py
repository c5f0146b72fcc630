"""Pages that change by themselves: parts of a page, sent again when they have changed.

All browsers on one view share its questions to the store: one of them asks, the others get what it
got. Nobody looks: nobody asks. A stream is always receiving, too: that is how a server says that
the browser is gone.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Mapping
from contextlib import asynccontextmanager

import anyio
from markupsafe import escape
from starlette.types import Receive, Scope, Send

from ..errors import SdkError
from .guard import Refused

Parts = Mapping[str, str]
"""HTML, by the id of the element that it is in."""
Making = Callable[[], Awaitable[Parts]]

PERIOD = 0.9
"""Seconds between two questions of one view."""
SPARING = 10
"""A view that took long to make is made again after so many times as long, but after LONGEST."""
LONGEST = 5.0
PING = 15.0
ASK_AGAIN = 15.0
"""Seconds after which it is asked again whether somebody may look."""
SEND_TIMEOUT = 10.0
"""Seconds within which a browser must take what it is sent."""
MOST_STREAMS = 2000

TOKEN = secrets.token_hex(16)
"""Stands in parts that browsers share for the token of each."""
TROUBLE = "trouble"
"""The id of the element that says why a page is not live."""


class View:
    """What browsers on the same page share."""

    def __init__(self, make: Making) -> None:
        self._make = make
        self._lock = anyio.Lock()
        self._parts: Parts = {}
        self._number = 0
        self._next = 0.0
        self.users = 0

    async def newer(self, than: int) -> tuple[int, Parts]:
        """The parts, once they were made again after those of a number."""
        async with self._lock:
            if self._number <= than:
                await anyio.sleep(max(0.0, self._next - anyio.current_time()))
                began = anyio.current_time()
                try:
                    self._parts = {**await self._make(), TROUBLE: ""}
                except (SdkError, Refused) as exc:
                    self._parts = {**self._parts, TROUBLE: _trouble(exc)}
                took = anyio.current_time() - began
                self._next = began + min(max(PERIOD, SPARING * took), LONGEST)
                self._number += 1
            return self._number, self._parts


def _trouble(error: Exception) -> str:
    return f"<p>This page is not up to date any more: {escape(str(error))}</p>"


class Views:
    """Those that somebody looks at."""

    def __init__(self) -> None:
        self._views: dict[Hashable, View] = {}
        self.streams = 0

    @asynccontextmanager
    async def view(self, key: Hashable, make: Making) -> AsyncIterator[View]:
        """The view of a key, made if nobody has it yet."""
        view = self._views.setdefault(key, View(make))
        view.users += 1
        self.streams += 1
        try:
            yield view
        finally:
            self.streams -= 1
            view.users -= 1
            if view.users == 0:
                del self._views[key]

    def __len__(self) -> int:
        return len(self._views)


class Stream:
    """An answer that goes on until the browser is gone."""

    def __init__(
        self,
        views: Views,
        key: Hashable,
        make: Making,
        token: str,
        is_still: Callable[[], Awaitable[bool]],
    ) -> None:
        """``is_still``: whether the browser may still look."""
        self._views = views
        self._is_still = is_still
        self._key = key
        self._make = make
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        full = self._views.streams >= MOST_STREAMS
        headers = [(b"content-type", b"text/event-stream"), (b"x-accel-buffering", b"no")]
        status = 503 if full else 200
        await send({"type": "http.response.start", "status": status, "headers": headers})
        if full:
            await send({"type": "http.response.body", "body": b""})
            return
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._until_gone, receive, tasks.cancel_scope)
                await self._send(send)
                await send({"type": "http.response.body", "body": b""})
                tasks.cancel_scope.cancel()
        except* (TimeoutError, OSError):
            pass  # it takes nothing any more

    async def _until_gone(self, receive: Receive, scope: anyio.CancelScope) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        scope.cancel()

    async def _send(self, send: Send) -> None:
        """Send what changes, as long as the browser may look."""
        sent: dict[str, str] = {}
        number, spoke = 0, anyio.current_time()
        asked = spoke
        async with self._views.view(self._key, self._make) as view:
            while True:
                number, parts = await view.newer(number)
                if anyio.current_time() - asked >= ASK_AGAIN:
                    if not await self._is_still():
                        return
                    asked = anyio.current_time()
                changed = {name: html for name, html in parts.items() if sent.get(name) != html}
                if not changed and anyio.current_time() - spoke < PING:
                    continue
                sent.update(changed)
                body = event(changed).replace(TOKEN, self._token) if changed else ":\n\n"
                with anyio.fail_after(SEND_TIMEOUT):
                    message = {"type": "http.response.body", "body": body.encode()}
                    await send({**message, "more_body": True})
                spoke = anyio.current_time()


def event(parts: Parts) -> str:
    """A server-sent event that puts parts in their places."""
    html = "".join(
        f'<hx-partial hx-target="#{name}" hx-swap="innerMorph">{html}</hx-partial>'
        for name, html in parts.items()
    )
    lines = "".join(f"data: {line}\n" for line in html.splitlines())
    return f"{lines}\n"
