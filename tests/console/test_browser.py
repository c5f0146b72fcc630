"""The console in a real Chromium, on real stores, with real workers.

With ``SCREENSHOTS=docs/pictures`` the pictures of the documentation are made here.
"""

from __future__ import annotations

import os
import re
import signal
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from playwright.sync_api import Browser, expect, sync_playwright

from runtara_trio import (
    InstanceStatus,
    Operator,
    Queue,
    Schedule,
    StepKind,
    StepOutcome,
    open_backend,
    open_client,
)
from runtara_trio.messages import Noted, NoteSteps, RecordOutcome, Register, StepNote

from ..helpers import places
from ..helpers.browsing import Looking, command, launch
from . import shop

PICTURES = os.environ.get("SCREENSHOTS")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        opened = launch(playwright)
        yield opened
        opened.close()


@pytest.fixture(params=["file", "postgres"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of each store that several processes can open."""
    if request.param == "file":
        yield f"sqlite:///{tmp_path}/store.db"
        return
    server = request.getfixturevalue("postgres_server")
    schema = f"t{uuid.uuid4().hex}"
    places._sql(server, f"CREATE SCHEMA {schema}")
    yield f"{server}{'&' if '?' in server else '?'}options=-csearch_path%3D{schema}"
    places._sql(server, f"DROP SCHEMA {schema} CASCADE")


@contextmanager
def console(store: str, *options: str) -> Iterator[str]:
    """Where the console of a store is, without a slash at the end."""
    arguments = ("console", "--store", store, "--port", "0", *options)
    with command(*arguments, ready="console on") as (_, line):
        yield line.removeprefix("console on ").rstrip("/")


def looking(browser: Browser, base: str, **options: Any) -> Looking:
    return Looking(browser.new_context(**options).new_page(), base)


def worker(store: str, name: str) -> Any:
    arguments = ("worker", "tests.console.shop", "--store", store, "--name", name)
    return command(*arguments, ready=f"worker {name} runs")


def on_store(store: str, ask: Callable[[Any, Operator], Any]) -> Any:
    """Ask a client and an operator something."""

    async def run() -> Any:
        async with open_backend(store, create=True) as backend:
            async with open_client(backend, tenant_id="shop") as client:
                return await ask(client, Operator(backend))

    return trio.run(run)


def test_look_filter_answer_and_cancel(browser: Browser, store: str) -> None:
    async def start(client: Any, operator: Operator) -> None:
        for number in range(3):
            await client.start(shop.order, 100, id=f"order-{number}")
        await client.start(shop.packing, 0.0, id="packed")

    on_store(store, start)
    with console(store) as base, worker(store, "till"):
        look = looking(browser, base)
        page = look.go("/")
        row = page.locator("tr", has=page.get_by_role("link", name="order-1", exact=True))
        expect(row).to_contain_text("waits for the signal approval")
        row.get_by_role("checkbox").check()
        on_store(store, lambda client, operator: client.start(shop.packing, 0.0, id="newer"))
        expect(page.locator("tbody tr")).to_have_count(5)  # the others have moved down
        chosen = page.locator("input[name=id]:checked")
        expect(chosen).to_have_count(1)
        expect(chosen).to_have_value("order-1")
        page.get_by_label("Id begins with").fill("order-2")
        expect(row).to_contain_text(re.compile(r"approval for [2-9]s"))  # it has changed since
        expect(row.get_by_role("checkbox")).to_be_checked()
        expect(page.get_by_label("Id begins with")).to_have_value("order-2")
        page.get_by_role("button", name="Filter").click()
        expect(page.locator("tbody tr")).to_have_count(1)
        page.get_by_role("link", name="order-2").click()
        expect(page.locator(".sentence")).to_contain_text("nobody has answered")
        page.get_by_role("link", name="Answer…").click()
        page.get_by_label("approved").select_option("yes")
        page.get_by_label("by", exact=True).fill("Ann")
        page.get_by_role("button", name="Go on…").click()
        expect(page.locator(".says").last).to_contain_text('"by":"Ann"')
        page.get_by_role("button", name="Yes, do it").click()
        expect(page.get_by_role("status")).to_contain_text("answered approval of order-2")
        look.go("/instance?id=order-2")
        expect(page.locator(".sentence")).to_contain_text("completed")
        expect(page.locator("#data")).to_contain_text("approved by Ann")
        look.go("/?workflow=order&status=running")
        page.get_by_role("button", name="All that match…").click()
        expect(page.get_by_role("heading")).to_have_text("Cancel 2 instances?")
        page.get_by_role("button", name="Yes, do it").click()
        expect(page.get_by_role("status")).to_contain_text("2 of 2")
        look.go("/audit")
        expect(page.locator("tbody tr")).to_have_count(3)
        look.check()


def test_a_status_changes_without_a_reload(browser: Browser, store: str) -> None:
    on_store(store, lambda client, operator: client.start(shop.order, 5, id="one"))
    with console(store) as base:
        listed, shown = looking(browser, base), looking(browser, base)
        listed.go("/")
        shown.go("/instance?id=one")
        expect(shown.page.locator(".sentence")).to_contain_text("no live worker knows order 1")
        with worker(store, "till"):
            expect(shown.page.locator(".sentence")).to_contain_text("nobody has answered")
            answer = {"approved": False, "by": "bo"}
            on_store(store, lambda client, operator: client.get("one").signal("approval", answer))
            expect(shown.page.locator(".sentence")).to_contain_text("completed")
            expect(listed.page.locator("tbody .status")).to_have_text("completed")
        listed.check()
        shown.check()


def test_a_bar_grows_and_a_takeover_is_shown(browser: Browser, store: str) -> None:
    on_store(store, lambda client, operator: client.start(shop.packing, 3600.0, id="one"))
    with console(store) as base:
        look = looking(browser, base)
        page = look.go("/instance?id=one")
        with worker(store, "first") as (first, _):
            bar = page.locator(".row.o-running rect")
            expect(bar).to_have_count(1)
            width = bar.get_attribute("width")
            expect(bar).not_to_have_attribute("width", width or "")
            with worker(store, "second") as (second, _):
                first.send_signal(signal.SIGKILL)
                expect(page.locator(".row.o-lost")).to_have_count(1)
                expect(page.locator(".row.o-running")).to_have_count(1)
                expect(page.locator("#axis")).to_contain_text("run 2 on second begins")
                second.send_signal(signal.SIGKILL)  # its drain would wait for the step
        look.check()


PAGES = (
    *(
        "/",
        "/?prefix=order",
        "/?prefix=nothing",
        "/waiting",
        "/workers",
        "/queues",
        "/schedules",
        "/audit",
    ),
    *("/instance?id=long", "/instance?id=long&as=table", "/compare?a=long&b=slept"),
    *("/instance?id=slept", "/instance?id=failed-often", "/step?id=failed-often&step=charge"),
    *("/answer?id=order-1&step=approval", "/instance?id=order-1"),
)


PICTURED = {
    "/?prefix=order": "console-instances",
    "/instance?id=order-1": "console-instance",
    "/instance?id=failed-often": "console-failed",
    "/answer?id=order-1&step=approval": "console-answer",
}


async def everything(client: Any, operator: Operator, count: int = 60) -> None:
    """Ids that are long and written from the right, one that failed often, one that slept."""
    await operator.set_queue(Queue("slow", limit=3))
    await operator.set_schedule(
        Schedule("nightly", shop.packing, args=(0.0,), cron="0 3 * * *", tenant_id="shop")
    )
    await client.start(shop.order, 100, id="order-1", attributes={"customer": "anna", "vip": True})
    await client.start(shop.order, 100, id="long-" + "x" * 300)
    await client.start(shop.order, 100, id="הזמנה-מספר-7", attributes={"שם": "דוד"})
    await client.start("nobody", id="nobody-knows-it", queue="slow")
    now = 1_790_000_000_000
    month = 30 * 86_400_000
    done, failed = StepOutcome.DONE, StepOutcome.FAILED
    notes = {
        "slept": [
            StepNote(step="charge", kind=StepKind.CALL, started_ms=now, ended_ms=now + 900,
                     outcome=done, summary="charge 5 cents"),
            StepNote(step="nap", kind=StepKind.SLEEP, started_ms=now + 950,
                     ended_ms=now + month, outcome=done),
            StepNote(step="ship", kind=StepKind.CALL, started_ms=now + month,
                     ended_ms=now + month + 5000, outcome=done),
        ],
        "failed-often": [
            StepNote(step="charge", kind=StepKind.CALL, started_ms=now, ended_ms=now + 61_000,
                     outcome=failed,
                     attempts=tuple((now + 2000 * n, f"OSError: try {n}") for n in range(1, 31))),
        ],
        "long": [
            StepNote(step=f"step-{n:05}", kind=StepKind.CALL, started_ms=now + 100 * n,
                     ended_ms=now + 100 * n + 90, outcome=done,
                     parent=f"step-{n - n % 10:05}" if n % 10 else None)
            for n in range(count)
        ],
    }  # fmt: skip
    backend = operator._backend
    for instance, steps in notes.items():
        register = Register(instance_id=instance, tenant_id="shop")
        lease = (await backend.request(register)).lease
        for at in range(0, len(steps), 1000):
            noted = Noted(instance_id=instance, lease=lease, steps=tuple(steps[at : at + 1000]))
            await backend.request(NoteSteps(runs=(noted,)))
        status, payload = InstanceStatus.COMPLETED, b'"well"'
        if instance == "failed-often":
            status, payload = InstanceStatus.FAILED, b"OSError: try 30"
        await backend.request(
            RecordOutcome(instance_id=instance, lease=lease, status=status, payload=payload)
        )


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_wide_and_narrow(browser: Browser, tmp_path: Path, scheme: Any) -> None:
    store = f"sqlite:///{tmp_path}/store.db"
    on_store(store, everything)
    with console(store) as base, worker(store, "till"):
        wait = looking(browser, base)
        expect(wait.go("/waiting").locator(".waits li")).to_have_count(3)
        for width in (1280, 390):
            size: Any = {"width": width, "height": 900}
            look = looking(browser, base, color_scheme=scheme, viewport=size)
            for path in PAGES:
                look.go(path).locator("h1").wait_for()
                look.check()
                assert look.violations() == [], (path, width)
                if PICTURES and path in PICTURED and width == 1280:
                    look.page.screenshot(path=f"{PICTURES}/{PICTURED[path]}-{scheme}.png")
            look.page.context.close()


def test_ten_thousand_steps_scroll(browser: Browser, tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path}/store.db"
    on_store(store, lambda client, operator: everything(client, operator, 10_000))
    with console(store) as base:
        look = looking(browser, base)
        page = look.go("/instance?id=long")
        expect(page.get_by_role("link", name="step-00499", exact=True)).to_have_count(1)
        last = page.locator("ol.steps").last
        last.scroll_into_view_if_needed()
        expect(page.get_by_role("link", name="step-09999", exact=True)).to_have_count(1)
        page.locator(".ticks a").nth(2).click()
        expect(page.get_by_role("link", name="step-04000", exact=True)).to_have_count(1)
        expect(page.get_by_role("link", name="step-00000", exact=True)).to_have_count(0)
        look.go("/instance?id=long&as=table&row=9500")
        expect(page.get_by_role("link", name="step-09999", exact=True)).to_have_count(1)
        page.get_by_role("link", name="Earlier steps").click()
        expect(page.get_by_role("link", name="step-09000", exact=True)).to_have_count(1)
        look.check()


def test_what_somebody_types_stays_with_what_it_is_for(browser: Browser, tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path}/store.db"
    on_store(store, lambda client, operator: operator.set_queue(Queue("middle", limit=3)))
    with console(store) as base:
        look = looking(browser, base)
        page = look.go("/queues")
        page.get_by_text("Change the limits of middle").click()
        limit = page.locator("section", has_text="middle").get_by_label("At once")
        limit.fill("7")
        on_store(store, lambda client, operator: operator.set_queue(Queue("a", limit=1)))
        expect(page.locator("section")).to_have_count(2)
        expect(page.locator("section").first).to_contain_text("Change the limits of a")
        expect(limit).to_be_visible()
        expect(limit).to_have_value("7")
        limit.press("Enter")
        expect(page.get_by_role("heading")).to_have_text("Change the limits of the queue middle?")
        page.get_by_role("button", name="Yes, do it").click()
        queues = on_store(store, lambda client, operator: operator.list_queues())
        assert {one.queue.name: one.queue.limit for one in queues} == {"a": 1, "middle": 7}
        look.check()


def test_without_script(browser: Browser, tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path}/store.db"
    on_store(store, lambda client, operator: client.start(shop.order, 5, id="one"))
    with console(store, "--base-path", "/ops") as base:
        look = looking(browser, base, java_script_enabled=False)
        page = look.go("/")
        page.get_by_role("link", name="one", exact=True).click()
        page.get_by_role("button", name="Cancel…").click()
        page.get_by_role("button", name="Yes, do it").click()
        expect(page.locator(".sentence")).to_contain_text("cancelled")
        page.get_by_role("link", name="Audit").click()
        expect(page.locator("tbody tr")).to_have_count(1)
        assert look.elsewhere == []


def test_keys_alone(browser: Browser, tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path}/store.db"
    on_store(store, lambda client, operator: client.start(shop.order, 5, id="one"))
    with console(store) as base:
        look = looking(browser, base)
        page = look.go("/instance?id=one")
        page.keyboard.press("Tab")
        expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
        page.keyboard.press("Enter")
        page.keyboard.press("Tab")
        expect(page.get_by_role("button", name="Pause…")).to_be_focused()
        page.keyboard.press("Enter")
        expect(page.get_by_role("button", name="Yes, do it")).to_be_focused()
        page.keyboard.press("Enter")
        expect(page.get_by_role("status")).to_contain_text("pause")
        look.check()
