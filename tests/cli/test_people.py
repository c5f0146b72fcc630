"""The audit, what waits for people, and the console as a command."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio
from prometheus_client.parser import text_string_to_metric_families

from runtara_trio import Start, open_client, open_worker

from ..console import shop
from ..helpers.working import working
from .test_fleet import run


@pytest.fixture
def filled(url: str) -> str:
    """Two orders, of which one waits for an answer."""

    async def fill() -> None:
        async with open_client(url, tenant_id="t") as client:
            await client.start_many(shop.order, [Start(args=(5,), id=id) for id in ("a", "b")])

    trio.run(fill)
    return url


def test_what_is_done_leaves_a_row_that_outlives_a_prune(filled: str) -> None:
    run(filled, "pause", "a")
    run(filled, "cancel", "--workflow", "order", "--yes")
    run(filled, "rerun", "a")
    run(filled, "signal", "a", "approval", "{}")
    run(filled, "cancel", "a")
    run(filled, "prune", "--older-than", "0s")
    found = json.loads(run(filled, "audit", "a", "--json"))
    assert [one["what"] for one in found] == ["cancel", "signal", "rerun", "cancel", "pause"]
    assert {one["who"].partition("@")[2] for one in found} == {socket.gethostname()}
    text = run(filled, "audit", "--limit", "1")
    assert "prune" in text
    assert "removed" in text
    assert run(filled, "audit", "unknown").splitlines() == [
        "when (UTC)  who  what  instance  detail"
    ]


def test_what_is_refused_leaves_none(filled: str) -> None:
    run(filled, "rerun", "a", code=1)
    run(filled, "cancel", "unknown", code=1)
    assert json.loads(run(filled, "audit", "--json")) == []


def test_what_waits_for_people(filled: str) -> None:
    with working(filled, *shop.WORKFLOWS):
        while "a" not in (text := run(filled, "waits")) or "b" not in text:
            pass
    assert "approval" in text
    found = json.loads(run(filled, "waits", "--json"))
    assert '"approved"' in found[0]["asks"]
    run(filled, "cancel", "a")
    assert [one["instance_id"] for one in json.loads(run(filled, "waits", "--json"))] == ["b"]


# ---- the console


@contextmanager
def serving(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The command until the end of the block, and where it listens."""
    process = subprocess.Popen(
        [sys.executable, "-m", "runtara_trio", "console", "--port", "0", *arguments],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    try:
        line = process.stderr.readline()
        assert line.startswith("console on http"), line
        yield process, line.split()[-1].rstrip("/")
    finally:
        process.kill()
        process.communicate(timeout=30)


def get(url: str, **headers: str) -> tuple[int, str]:
    pairs = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=pairs), timeout=30) as got:
            return got.status, got.read().decode()
    except urllib.error.HTTPError as exc:
        return exc.code, exc.read().decode()


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_with_a_signal_also_while_browsers_look(filled: str, stop: signal.Signals) -> None:
    with serving("--store", filled) as (process, base):
        assert "order" in get(f"{base}/")[1]
        stream = urllib.request.urlopen(f"{base}/?live=1", timeout=30)
        assert stream.readline().startswith(b"data: <hx-partial")
        process.send_signal(stop)
        assert process.wait(timeout=30) == 0
        stream.close()


def streams_of(base: str) -> float:
    """How many pages are live, as a Prometheus client reads it."""
    found = {one.name: one for one in text_string_to_metric_families(get(f"{base}/metrics")[1])}
    assert {"runtara_instances", "runtara_queue_ready", "runtara_worker_slots"} <= set(found)
    return found["runtara_console_streams"].samples[0].value


def until_streams(base: str, count: int) -> None:
    """Until so many pages are live: each question is a wait."""
    while streams_of(base) != count:
        pass


def test_browsers_that_go_away_are_noticed(filled: str) -> None:
    with serving("--store", filled) as (_, base):
        opened = [urllib.request.urlopen(f"{base}/?live=1", timeout=30) for _ in range(40)]
        until_streams(base, 40)
        for one in opened:
            one.close()
        until_streams(base, 0)


def test_under_a_path_that_a_proxy_leaves_or_takes_away(filled: str) -> None:
    with serving("--store", filled, "--base-path", "/ops/") as (_, base):
        assert base.endswith("/ops")
        for place in (base, base.removesuffix("/ops")):
            status, page = get(f"{place}/instance?id=a")
            assert status == 200
            assert 'href="/ops/static/console.css"' in page
            assert 'hx-sse:connect="/ops/instance?id=a' in page
            assert get(f"{place}/static/console.css")[0] == 200


def test_on_other_addresses_only_with_tokens_or_a_proxy(filled: str, tmp_path: Path) -> None:
    for address in ("0.0.0.0", "::", "192.0.2.7"):
        said = run(filled, "console", "--host", address, code=2)
        assert "--token-file" in said
    tokens = tmp_path / "tokens"
    tokens.write_text("viewer vic short")
    assert "under 16" in run(filled, "console", "--token-file", str(tokens), code=2)
    assert "10.0.0.0/8" in run(filled, "console", "--trusted-proxy", "x", code=2)
    tokens.write_text("viewer vic " + "v" * 20)
    options = ("--store", filled, "--host", "0.0.0.0", "--token-file", str(tokens))
    with serving(*options, "--trusted-proxy", "127.0.0.1/32") as (_, base):
        here = base.replace("0.0.0.0", "127.0.0.1")
        assert "Log in" in get(f"{here}/")[1]
        assert get(f"{here}/", authorization="Bearer " + "v" * 20)[0] == 200
        _, page = get(f"{here}/", X_Forwarded_User="pia", X_Forwarded_Role="operator")
        assert "pia, operator" in page
        assert get(f"{here}/", host="evil.example")[0] == 421


def test_a_port_that_is_taken(filled: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert f"cannot listen on 127.0.0.1:{port}" in run(
            filled, "console", "--port", port, code=1
        )


MOUNTED = """
import os
from fastapi import FastAPI
from runtara_trio.console import app as console
from runtara_trio.console.people import everybody

api = FastAPI()
api.mount("/ops", console(os.environ["STORE"], authorize=everybody))

@api.get("/mine")
async def mine() -> str:
    return "mine"
"""


def test_mounted_in_an_application_on_asyncio(filled: str, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MOUNTED)
    arguments = ["--app-dir", str(tmp_path), "--port", "0", "mine:api"]
    server = subprocess.Popen(
        [sys.executable, "-m", "uvicorn", *arguments],
        env={**os.environ, "STORE": filled},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert server.stderr is not None
    try:
        while "running on" not in (line := server.stderr.readline()):
            assert line, "it ended"
        base = line.partition("running on ")[2].split()[0]
        reading = threading.Thread(target=server.stderr.read)
        reading.start()
        assert get(f"{base}/mine") == (200, '"mine"')
        status, page = get(f"{base}/ops/")
        assert status == 200
        assert 'href="/ops/instance?id=a"' in page
        assert get(f"{base}/ops/static/console.css")[0] == 200
        stream = urllib.request.urlopen(f"{base}/ops/instance?id=a&live=1", timeout=30)
        assert b"no live worker knows order 1" in stream.read(2000)
        until_streams(f"{base}/ops", 1)
        stream.close()
        until_streams(f"{base}/ops", 0)
    finally:
        server.kill()
        server.wait(timeout=30)
        reading.join()
        server.stderr.close()


def test_what_cannot_be_mounted(url: str) -> None:
    from runtara_trio import ConfigError
    from runtara_trio.console import app
    from runtara_trio.console.people import everybody

    with pytest.raises(ConfigError, match="alone with it"):
        app(":memory:")

    async def on_trio() -> None:
        from ..console.conftest import visiting

        async with (
            open_worker(url, shop.WORKFLOWS),
            visiting(app(url, authorize=everybody)) as visitor,
        ):
            assert "open backend" in await visitor.get("/", 400)

    trio.run(on_trio)
