"""Many instances, queues, schedules and families from a terminal."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
import trio
from click.testing import CliRunner

from runtara_trio import (
    RuntaraSdk,
    Schedule,
    Start,
    open_client,
    open_worker,
    workflow,
)
from runtara_trio.cli.main import main

NIGHT = Schedule("night", "waits", cron="0 3 * * *", timezone="Europe/Berlin", tenant_id="t")


@workflow
async def waits(sdk: RuntaraSdk) -> bytes:
    return await sdk.wait_for_signal("go")


@workflow
async def chat(sdk: RuntaraSdk) -> str:
    return await sdk.receive("line", type=str)


@workflow
async def parent(sdk: RuntaraSdk) -> None:
    async with sdk.open_children("kids") as children:
        await children.start(waits, name="one")
        await children.start(waits, name="two")


@workflow
async def fails(sdk: RuntaraSdk) -> None:
    raise OSError("away")


def run(url: str, *arguments: str, code: int = 0, answer: str | None = None) -> str:
    """Run a command in this process; its output, or its errors where it should fail."""
    done = CliRunner().invoke(main, arguments, env={"RUNTARA_DATABASE_URL": url}, input=answer)
    assert done.exit_code == code, (done.output, done.stderr, done.exception)
    return done.stderr if code else done.output


@pytest.fixture
def filled(url: str) -> str:
    async def fill() -> None:
        async with open_client(url, tenant_id="t") as client:
            starts = [Start(args=(), id=f"w-{n}", attributes={"n": n}) for n in range(5)]
            await client.start_many(waits, starts)
            await client.start(chat, id="c")

    trio.run(fill)
    return url


def test_acting_on_many(filled: str) -> None:
    assert run(filled, "list", "--attribute", "n=3", "--count") == "1\n"
    assert "give an ID, or options" in run(filled, "cancel", code=2)
    assert "not both" in run(filled, "cancel", "w-1", "--workflow", "waits", code=2)
    asked = run(filled, "cancel", "--prefix", "w-", code=1, answer="n\n")
    assert run(filled, "list", "--status", "cancelled", "--count") == "0\n", asked
    assert "cancel up to 5 instances?" in run(filled, "cancel", "--prefix", "w-", answer="y\n")
    assert run(filled, "list", "--status", "cancelled", "--count") == "5\n"
    assert run(filled, "rerun", "--workflow", "waits", "--yes") == "5 pending again\n"
    assert run(filled, "pause", "--workflow", "waits", "--yes") == "5 paused\n"
    assert run(filled, "resume", "--workflow", "waits", "--status", "pending", "--yes") == (
        "5 resumed\n"
    )
    assert run(filled, "cancel", "w-0") == "cancelled\n"
    assert run(filled, "prune", "--older-than", "0s", "--prefix", "w-") == "1 removed\n"
    assert run(filled, "list", "--created-before", "1h", "--count") == "0\n"


def test_rerun_and_fork(url: str) -> None:
    async def fail() -> None:
        async with open_client(url, tenant_id="t") as client, open_worker(url, [fails]):
            handle = await client.start(fails, id="f")
            while not (await handle.status()).finished:
                await trio.sleep(0.01)

    trio.run(fail)
    assert "pending again" in run(url, "rerun", "f")
    assert "only one that has ended" in run(url, "rerun", "f", code=1)
    assert run(url, "fork", "f", "g", "--args", "[]") == "g is pending\n"
    assert "must be a JSON array" in run(url, "fork", "f", "h", "--args", "{", code=2)
    assert "instance 'g' exists" in run(url, "fork", "f", "g", code=1)


def test_messages(filled: str) -> None:
    assert run(filled, "send", "c", "line", "hello") == "sent\n"

    async def work() -> None:
        async with open_client(filled, tenant_id="t") as client, open_worker(filled, [chat]):
            assert await client.get("c", chat).result(timeout=30) == "hello"

    trio.run(work)
    assert "receives no message" in run(filled, "send", "c", "line", "late", code=1)


def test_queues(filled: str) -> None:
    said = run(filled, "queues", "set", "default", "--limit", "3", "--rate", "100/60s")
    assert said == "default: 3 at once, 100 in 60 s\n"
    assert run(filled, "queues", "pause", "default") == "default is paused\n"
    listed = run(filled, "queues", "list")
    assert "3 at once, 100 in 60 s" in listed
    assert "paused" in listed
    assert run(filled, "queues", "resume", "default") == "default goes on\n"
    (info,) = json.loads(run(filled, "queues", "list", "--json"))
    assert info["queue"]["limit"] == 3
    assert info["ready"] == 6
    assert "must be as 100/60s" in run(filled, "queues", "set", "q", "--rate", "fast", code=2)
    assert "limit of the queue q must be" in run(
        filled, "queues", "set", "q", "--limit", "0", code=2
    )
    assert "no queue 'nobody'" in run(filled, "queues", "resume", "nobody", code=1)


def test_schedules(url: str) -> None:
    async def declare() -> None:
        async with open_client(url, tenant_id="t") as client:
            await client.set_schedule(NIGHT)

    trio.run(declare)
    listed = run(url, "schedules", "list")
    assert "0 3 * * * Europe/Berlin" in listed
    assert "not declared by any live worker" in listed
    shown = run(url, "schedules", "show", "night")
    assert shown.count("T03:00:00+0") == 10
    found = json.loads(run(url, "schedules", "show", "night", "--json"))
    assert len(found["next"]) == 10
    assert run(url, "schedules", "pause", "night") == "night is paused\n"
    assert "paused" in run(url, "schedules", "list")
    assert run(url, "schedules", "resume", "night") == "night goes on\n"
    started = run(url, "schedules", "trigger", "night").strip()
    assert datetime.fromisoformat(started.removeprefix("night@")).date() in {
        datetime.now(UTC).date(),
        datetime.now(ZoneInfo("Europe/Berlin")).date(),
    }
    times = "2025-01-01T00:00+01:00", "2025-01-31T23:00+01:00"
    assert run(url, "schedules", "backfill", "night", *times) == "31 slots\n"
    assert run(url, "list", "--workflow", "waits", "--count") == "32\n"
    assert "has no zone" in run(url, "schedules", "backfill", "night", "2025-01-01", "x", code=2)
    assert run(url, "schedules", "remove", "night") == "night is removed\n"
    assert "no schedule 'night'" in run(url, "schedules", "show", "night", code=1)


def test_the_tree_of_children(url: str) -> None:
    async def begin() -> None:
        async with open_client(url, tenant_id="t") as client, open_worker(url, [parent, waits]):
            await client.start(parent, id="p")
            for name in ("one", "two"):
                while (await client.get(f"p/kids::{name}").status()) != "running":
                    await trio.sleep(0.01)

    trio.run(begin)
    shown = run(url, "show", "p")
    assert "children" in shown
    assert "kids::one  suspended  waits 1" in shown.replace("pending", "suspended")
    assert "kids::two" in shown
    assert "children" not in run(url, "show", "p/kids::one").replace("its children", "")
    assert run(url, "list", "--parent", "p", "--count") == "2\n"
    assert "pause" in run(url, "pause", "p", "--tree")
    assert "paused" in run(url, "show", "p/kids::two")


def test_what_a_file_is(tmp_path: Path) -> None:
    missing = f"sqlite:///{tmp_path}/nothing.db"
    assert "there is no store at" in run(missing, "schedules", "list", code=1)
