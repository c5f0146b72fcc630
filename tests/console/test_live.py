"""Pages that change by themselves: what browsers share, and what is left when they are gone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from runtara_trio import (
    Client,
    Operator,
    SharedBackend,
    StoreError,
    open_backend,
    open_client,
    open_worker,
)
from runtara_trio.console import app
from runtara_trio.console.live import MOST_STREAMS, Views
from runtara_trio.console.people import everybody
from runtara_trio.messages import ListInstances
from runtara_trio.testing import memory_backend

from . import shop


class Browser:
    """An open stream of a page."""

    def __init__(self, application: Any, path: str) -> None:
        self._app = application
        self._path, _, self._query = path.partition("?")
        self._gone = trio.Event()
        self.status = 0
        self.ended = False
        self.text = ""
        self.messages = 0
        self._news = trio.Event()

    async def run(self) -> None:
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": "http",
            "path": self._path,
            "raw_path": self._path.encode(),
            "query_string": f"{self._query}&live=1".lstrip("&").encode(),
            "root_path": "",
            "headers": [(b"host", b"localhost"), (b"cookie", b"runtara_visit=" + b"a" * 32)],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 80),
        }
        asked = False

        async def receive() -> dict[str, Any]:
            nonlocal asked
            if not asked:
                asked = True
                return {"type": "http.request", "body": b"", "more_body": False}
            await self._gone.wait()
            return {"type": "http.disconnect"}

        await self._app(scope, receive, self._send)
        self.ended = True

    async def _send(self, message: Any) -> None:
        self.status = message.get("status", self.status)
        if body := message.get("body", b""):
            self.messages += 1
            self.text += body.decode()
            self._news.set()
            self._news = trio.Event()

    async def until(self, words: str) -> None:
        """Until it was sent something."""
        with trio.fail_after(30):
            while words not in self.text:
                await self._news.wait()

    def leave(self) -> None:
        self._gone.set()


@asynccontextmanager
async def browsing(application: Any, *paths: str) -> AsyncIterator[list[Browser]]:
    browsers = [Browser(application, path) for path in paths]
    async with trio.open_nursery() as nursery:
        for one in browsers:
            nursery.start_soon(one.run)
        yield browsers
        for one in browsers:
            one.leave()


def views_of(application: Any) -> Views:
    views: Views = application.state.console.views
    return views


async def test_a_status_that_changes_is_sent(
    backend: SharedBackend, client: Client, operator: Operator
) -> None:
    application = app(backend, authorize=everybody)
    async with open_worker(backend, shop.WORKFLOWS):
        await client.start(shop.order, 5, id="one")
        async with browsing(application, "/", "/instance?id=one", "/waiting") as browsers:
            listed, shown, asked = browsers
            await shown.until("nobody has answered")
            await asked.until("approval")
            await listed.until("waits for the signal approval")
            await client.get("one").signal("approval", {"approved": True, "by": "bo"})
            await shown.until("completed")
            await listed.until('s-completed">completed')
            await asked.until("Nothing waits")
    assert len(views_of(application)) == 0


@pytest.fixture
def clock() -> MockClock:
    return MockClock(autojump_threshold=0)


class Counting:
    """A backend that counts how often it is asked for a list."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.asked = 0

    async def request(self, message: Any) -> Any:
        self.asked += isinstance(message, ListInstances)
        return await self._inner.request(message)

    async def signals(self) -> AsyncIterator[Any]:
        await trio.sleep_forever()
        yield


@pytest.mark.parametrize("count", [1, 200])
async def test_many_that_look_at_the_same_cost_what_one_does(clock: MockClock, count: int) -> None:
    async with memory_backend() as memory:
        counting = Counting(memory)
        async with open_backend(counting) as backend:
            application = app(backend, authorize=everybody)
            async with browsing(application, *["/"] * count):
                await trio.sleep(10.5)
                assert len(views_of(application)) == 1
    assert 11 <= counting.asked <= 12


async def test_who_may_see_different_things_shares_nothing(clock: MockClock) -> None:
    async with memory_backend() as backend:

        def authorize(scope: Any) -> tuple[str, str]:
            return "x", "viewer" if b"viewer" in scope["query_string"] else "operator"

        application = app(backend, authorize=authorize)
        paths = ["/?viewer=1", "/", "/", "/?status=failed"]
        async with browsing(application, *paths):
            await trio.sleep(1)
            assert len(views_of(application)) == 3


async def test_a_stream_ends_once_its_browser_may_not_look_any_more(clock: MockClock) -> None:
    people = ["ann"]
    async with memory_backend() as backend:

        async def authorize(scope: Any) -> tuple[str, str] | None:
            return (people[0], "viewer") if people else None

        async with trio.open_nursery() as nursery:
            browser = Browser(app(backend, authorize=authorize), "/workers")
            nursery.start_soon(browser.run)
            await browser.until("No worker lives")
            await trio.sleep(60)
            assert not browser.ended
            people.clear()
            await trio.sleep(60)
            assert browser.ended


async def test_contents_are_not_sent_again(clock: MockClock) -> None:
    async with memory_backend() as backend, open_client(backend, tenant_id="t") as client:
        await client.start("order", "a long text", id="one")
        async with browsing(app(backend, authorize=everybody), "/instance?id=one") as (browser,):
            await browser.until("a long text")
            await client.get("one").pause()
            await browser.until("pause")
            await trio.sleep(5)
    assert browser.messages > 1
    assert browser.text.count("a long text") == 1


async def test_ten_thousand_browsers_that_went_away_leave_nothing(clock: MockClock) -> None:
    async with memory_backend() as backend:
        application = app(backend, authorize=everybody)
        for _ in range(10):
            async with browsing(application, *["/workers"] * 1000) as browsers:
                await browsers[-1].until("No worker lives")
                tasks = trio.lowlevel.current_statistics().tasks_living
                assert tasks > 1000
            assert trio.lowlevel.current_statistics().tasks_living < 50
        views = views_of(application)
        assert (len(views), views.streams) == (0, 0)


async def test_the_first_of_those_that_share_a_view_goes(clock: MockClock) -> None:
    async with memory_backend() as backend:
        async with browsing(app(backend, authorize=everybody), "/", "/") as (first, second):
            await first.until("No instance yet")
            first.leave()
            seen = second.messages
            await trio.sleep(20)
            assert second.messages > seen  # a ping at least


async def test_a_browser_that_takes_nothing_is_left(clock: MockClock) -> None:
    async with memory_backend() as backend:
        application = app(backend, authorize=everybody)
        async with browsing(application, "/"):
            stuck = Browser(application, "/")

            async def send(message: Any) -> None:
                if message["type"] == "http.response.body":
                    await trio.sleep_forever()

            stuck._send = send  # type: ignore[method-assign]
            with trio.fail_after(60):
                await stuck.run()


async def test_no_more_streams_than_there_may_be(clock: MockClock) -> None:
    async with memory_backend() as backend:
        application = app(backend, authorize=everybody)
        async with browsing(application, *["/workers"] * (MOST_STREAMS + 1)) as browsers:
            await browsers[0].until("No worker lives")
            assert sorted(one.status for one in browsers)[-2:] == [200, 503]


async def test_an_instance_that_is_removed_while_somebody_looks(clock: MockClock) -> None:
    async with memory_backend() as backend, open_client(backend, tenant_id="t") as client:
        await client.start("unknown", id="one")
        async with browsing(app(backend, authorize=everybody), "/instance?id=one") as (browser,):
            await browser.until("no live worker knows unknown 1")
            operator = Operator(backend)
            await operator.cancel("one")
            await browser.until("cancelled")
            await trio.sleep(2)
            assert await operator.remove(["one"]) == 1
            await browser.until("not up to date any more")


async def test_a_store_that_is_away_is_said_and_comes_back(clock: MockClock) -> None:
    async with memory_backend() as memory:

        class Away(Counting):
            away = False

            async def request(self, message: Any) -> Any:
                if self.away and isinstance(message, ListInstances):
                    raise StoreError("the disk is <full>")
                return await super().request(message)

        inner = Away(memory)
        async with open_backend(inner) as backend:
            async with browsing(app(backend, authorize=everybody), "/") as (browser,):
                await browser.until("No instance yet")
                inner.away = True
                await browser.until("the disk is &lt;full&gt;")
                browser.text, inner.away = "", False
                await browser.until('hx-target="#trouble" hx-swap="innerMorph"></hx-partial>')
