"""A store with something of everything, and its console."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from runtara_trio import Client, InstanceFailed, SharedBackend, open_client, open_worker
from runtara_trio.console import app
from runtara_trio.console.people import everybody

from ..helpers.places import Place
from . import shop

BASE = "http://localhost:8080"


class Visitor:
    """A browser without script: it keeps cookies, and sends the forms of pages."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self.http = http

    async def get(self, path: str, status: int = 200, **options: Any) -> str:
        answer = await self.http.get(path, **options)
        assert answer.status_code == status, answer.text
        return answer.text

    async def token(self) -> str:
        """The token of its forms."""
        text = await self.get("/instance?id=done")
        return text.partition('name="token" value="')[2].partition('"')[0]

    async def act(self, status: int = 200, **fields: Any) -> str:
        """Send a form, and say yes where it asks."""
        fields = {"token": await self.token(), "sure": "1", "back": "/", **fields}
        answer = await self.http.post("/act", data=fields)
        assert answer.status_code == status, answer.text
        return answer.text


@asynccontextmanager
async def visiting(application: Any, base: str = BASE) -> AsyncIterator[Visitor]:
    """A visitor of an application."""
    transport = httpx.ASGITransport(app=application)
    options: dict[str, Any] = {"base_url": base, "follow_redirects": True, "timeout": 30}
    async with httpx.AsyncClient(transport=transport, **options) as http:
        yield Visitor(http)


@pytest.fixture
async def visitor(backend: SharedBackend) -> AsyncIterator[Visitor]:
    """Of the console of an open backend."""
    async with visiting(app(backend, authorize=everybody)) as opened:
        yield opened


@pytest.fixture
async def client(backend: SharedBackend) -> AsyncIterator[Client]:
    async with open_client(backend, tenant_id="shop") as opened:
        yield opened


@pytest.fixture
async def seeded(place: Place, client: Client, visitor: Visitor) -> Visitor:
    """A visitor where orders wait for an answer, have ended and failed, and nobody runs one."""
    async with open_worker(place.backend, shop.WORKFLOWS, name="till"):
        done = await client.start(shop.order, 5, id="done", attributes={"customer": "anna"})
        await done.signal("approval", {"approved": True, "by": "bo"})
        await done.result(timeout=60)
        failed = await client.start(shop.failing, id="failed")
        with pytest.raises(InstanceFailed):
            await failed.result(timeout=60)
        await client.start(shop.order, 1999, id="waits")
        await shop.until_waiting(place.operator, "waits")
    await client.start("unknown", id="nobody")
    return visitor
