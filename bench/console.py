"""The console on a store of 1,000,000 instances, and an instance of 10,000 steps.

How long the server takes for each page, on both databases; and how long Chromium takes until an
instance of many steps is drawn. ``python -m bench.console --instances N``.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import trio

from runtara_trio import RuntaraSdk, StepKind, StepOutcome, open_backend, open_client, workflow
from runtara_trio.console import app
from runtara_trio.console.people import everybody
from runtara_trio.messages import Noted, NoteSteps, RecordOutcome, Register, StepNote
from runtara_trio.types import InstanceStatus

from .report import machine, table

PAGE = Path(__file__).parents[1] / "docs" / "benchmarks-console.md"
TIMES = 15
STEPS = 10_000
LIMIT_MS = 150
PAGES = {
    "the list": "/",
    "the list, far behind": "/?before={far}",
    "failed ones": "/?status=failed",
    "failed ones of a common workflow": "/?workflow=common&status=failed",
    "completed ones of a common workflow": "/?workflow=common&status=completed",
    "a prefix": "/?prefix=i-99999",
    "a prefix of nearly all": "/?prefix=i-",
    "failed ones with it": "/?prefix=i-&status=failed",
    "an attribute": '/?attribute=customer="c-7"',
    "an attribute that nobody has": "/?attribute=customer=nobody",
    "a small tenant": "/?tenant=small",
    "no live worker": "/?no_live_worker=1",
    "parked": "/?parked=1",
    "waiting for a signal": "/?waiting_for=approval",
    "created in an hour": "/?created_after=2026-01-01T00:00&created_before=2026-01-01T01:00",
    "an instance": "/instance?id=i-5",
    "an instance of 10,000 steps": "/instance?id=long",
    "500 of its steps": "/chunk?id=long&number=15",
    "its table": "/instance?id=long&as=table",
    "one of its steps": "/step?id=long&step=step-05000",
    "waiting for people": "/waiting",
    "workers": "/workers",
    "queues": "/queues",
    "schedules": "/schedules",
    "compare": "/compare?a=i-5&b=i-6",
    "audit": "/audit",
    "metrics": "/metrics",
}


@workflow
async def common(sdk: RuntaraSdk) -> None: ...


async def make(url: str) -> None:
    """The tables, and an instance of many steps."""
    async with (
        open_backend(url, create=True) as backend,
        open_client(backend, tenant_id="big") as client,
    ):
        await client.start(common, id="first")
        register = Register(instance_id="long", tenant_id="big")
        lease = (await backend.request(register)).lease
        now = int(time.time() * 1000) - 100 * STEPS
        notes = [
            StepNote(
                step=f"step-{number:05}",
                kind=StepKind.CALL,
                started_ms=now + 100 * number,
                ended_ms=now + 100 * number + 90,
                outcome=StepOutcome.DONE,
                summary=f"charge {number} cents",
            )
            for number in range(STEPS)
        ]
        for at in range(0, STEPS, 1000):
            noted = Noted(instance_id="long", lease=lease, steps=tuple(notes[at : at + 1000]))
            await backend.request(NoteSteps(runs=(noted,)))
        done = InstanceStatus.COMPLETED
        outcome = RecordOutcome(instance_id="long", lease=lease, status=done, payload=b"")
        await backend.request(outcome)


async def ask(application: Any, path: str) -> float:
    """Seconds until the last byte of a page."""
    path, _, query = path.partition("?")
    scope = {
        "type": "http",
        "method": "GET",
        "path": path,
        "root_path": "",
        "scheme": "http",
        "query_string": query.encode(),
        "headers": [(b"host", b"localhost")],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
        "http_version": "1.1",
    }
    status = 0

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        nonlocal status
        status = message.get("status", status)

    began = time.perf_counter()
    await application(scope, receive, send)
    if status != 200:
        raise RuntimeError(f"{path}?{query} was answered with {status}")
    return time.perf_counter() - began


async def pages(url: str) -> list[tuple[str, str]]:
    """The median and the longest of each page, nothing of it kept from the time before."""
    rows = []
    async with open_backend(url) as backend:
        application = app(backend, authorize=everybody)
        async with open_client(backend, tenant_id="big") as client:
            far = (await client.list(limit=20_000)).next
        for name, path in PAGES.items():
            times = []
            for _ in range(TIMES):
                application.state.console.forget()
                times.append(1000 * await ask(application, path.format(far=far)))
            median, longest = statistics.median(times), max(times)
            note = "" if median < LIMIT_MS else " (over the limit)"
            rows.append((name, f"{median:.0f} ms, at most {longest:.0f}{note}"))
            print(f"  {name:40} {rows[-1][1]}", flush=True)
    return rows


def drawing(url: str) -> str:
    """Until Chromium has drawn the instance of many steps: its first contentful paint, and when
    everything that came with the page is laid out."""
    from playwright.sync_api import sync_playwright
    from tests.helpers.browsing import command, launch

    script = """() => new Promise(done => requestAnimationFrame(() => setTimeout(() => done([
        performance.getEntriesByName('first-contentful-paint')[0].startTime,
        performance.now(), document.querySelectorAll('li.row').length]))))"""
    found = []
    with command("console", "--store", url, "--port", "0", ready="console on") as (_, line):
        base = line.split()[-1].rstrip("/")
        with sync_playwright() as playwright:
            browser = launch(playwright)
            for _ in range(5):
                page = browser.new_page()
                page.goto(f"{base}/instance?id=long")
                found.append(page.evaluate(script))
                page.close()
            browser.close()
    first, all_of, rows = (statistics.median(column) for column in zip(*found, strict=True))
    return f"first drawn after {first:.0f} ms, {rows:.0f} rows laid out after {all_of:.0f} ms"


@contextmanager
def stores(instances: int) -> Iterator[Iterator[tuple[str, str]]]:
    """Each store, filled."""
    from tests.helpers.many import fill_file, fill_postgres
    from tests.helpers.postgres import running_postgres

    now = datetime.now(UTC).replace(microsecond=0)

    def each() -> Iterator[tuple[str, str]]:
        with tempfile.TemporaryDirectory() as folder:
            url = f"sqlite:///{folder}/console.db"
            trio.run(make, url)
            fill_file(f"{folder}/console.db", instances, now)
            yield "SQLite", url
        with running_postgres() as url:
            trio.run(make, url)
            fill_postgres(url, instances, now)
            yield "PostgreSQL", url

    yield each()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--instances", type=int, default=1_000_000)
    options = parser.parse_args()
    parts = [
        "# The console on a million instances",
        f"Measured on {date.today()} with `nox -s bench_console`: {machine()}. Server time of each "
        f"page on a store of {options.instances:,} instances, from the request to the last byte, "
        f"the median of {TIMES}; nothing is kept from the time before.",
    ]
    with stores(options.instances) as each:
        for name, url in each:
            print(name, flush=True)
            rows = trio.run(pages, url)
            rows.append(("an instance of 10,000 steps, in Chromium", drawing(url)))
            print(rows[-1], flush=True)
            parts += [f"## {name}", table(("page", "server time"), rows)]
    PAGE.write_text("\n\n".join(parts) + "\n")


if __name__ == "__main__":
    main()
