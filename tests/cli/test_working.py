"""``worker``, ``workers``, ``start`` and ``result``, as processes of their own."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from runtara_trio.cli.health import STALE, STUCK, answer_to
from runtara_trio.worker.settings import WorkerHealth

from .test_cli import run

SHOP = """
from runtara_trio import RuntaraSdk, workflow

@workflow
async def order(sdk: RuntaraSdk, cents: int) -> str:
    await sdk.sleep(0.01, "cooling-off")
    return f"receipt for {cents}"

@workflow(version=2)
async def broken(sdk: RuntaraSdk) -> None:
    raise ValueError("no such parcel")

@workflow
async def waits(sdk: RuntaraSdk) -> str:
    return (await sdk.wait_for_signal("answer")).decode()

async def plain(sdk: RuntaraSdk) -> None: ...
"""


@pytest.fixture
def shop(tmp_path: Path, url: str) -> dict[str, str]:
    """The environment of the commands, with a module ``shop`` in it."""
    (tmp_path / "shop.py").write_text(SHOP)
    return {
        "RUNTARA_DATABASE_URL": url,
        "RUNTARA_TENANT_ID": "t",
        "PYTHONPATH": str(tmp_path),
    }


@contextmanager
def working(
    shop: dict[str, str], *arguments: str, code: int = 143, stop: int = signal.SIGTERM
) -> Iterator[subprocess.Popen[str]]:
    """A worker, until the end of the block."""
    process = subprocess.Popen(
        [sys.executable, "-m", "runtara_trio", "worker", *arguments],
        env={"PATH": "/usr/bin:/bin", **shop},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        assert "runs" in process.stderr.readline()
        yield process
        process.send_signal(stop)
        _, errors = process.communicate(timeout=30)
        assert process.returncode == code, errors
        assert "KeyboardInterrupt" not in errors
    finally:
        process.kill()
        process.communicate()


def test_from_a_start_to_a_result(shop: dict[str, str]) -> None:
    assert run("start", "order", "1999", "--id", "order-7", **shop) == "order-7\n"
    run("start", "order", "1999", "--id", "order-7", **shop)
    assert "exists" in run("start", "order", "5", "--id", "order-7", code=1, **shop)
    assert "no live worker knows order 1" in run("list", **shop)
    assert "no live worker knows order 1" in run("show", "order-7", **shop)
    assert "--wait waits for its end" in run("result", "order-7", code=1, **shop)
    assert "no instance 'nobody'" in run("result", "nobody", code=1, **shop)
    with working(shop, "shop", "--name", "one"):
        assert run("result", "order-7", "--wait", **shop) == '"receipt for 1999"\n'
        (worker,) = json.loads(run("workers", "--json", **shop))
        assert worker["name"] == "one"
        assert ["broken", 2] in worker["workflows"]
        assert "one" in run("workers", **shop)
        output = run("start", "order", "5", "--wait", **shop)
        assert output.endswith('"receipt for 5"\n')
        failed = run("start", "broken", "--wait", "--id", "b", code=1, **shop)
        assert "is failed: ValueError: no such parcel" in failed
        run("start", "order", "5", "--queue", "maill", **shop)
        assert "no live worker serves the queue maill" in run("list", **shop)
        assert run("list", "--workflow", "order", "--count", **shop) == "3\n"
    assert run("result", "order-7", **shop) == '"receipt for 1999"\n'
    assert json.loads(run("workers", "--json", **shop)) == []


def test_a_pause_and_a_signal(shop: dict[str, str]) -> None:
    run("start", "waits", "--id", "w", **shop)
    with working(shop, "shop:waits"):
        run("pause", "w", **shop)
        run("resume", "w", **shop)
        run("signal", "w", "answer", "yes", **shop)
        assert run("result", "w", "--wait", **shop) == '"yes"\n'


def test_ctrl_c(shop: dict[str, str]) -> None:
    with working(shop, "shop:order", code=130, stop=signal.SIGINT):
        pass


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (("worker", "shop:plain"), "is not a workflow: put @workflow on it"),
        (("worker", "shop:nothing"), "is not a workflow"),
        (("worker", "nowhere"), "there is no module 'nowhere' here"),
        (("worker", "json"), "the module 'json' has no workflow"),
        (("worker", "shop", "--also", "order"), "not of the form name=version"),
        (("worker", "shop", "--slots", "0"), "slots must be a whole number"),
        (("start", "order", "nix"), "is not JSON"),
    ],
)
def test_used_wrongly(shop: dict[str, str], arguments: tuple[str, ...], match: str) -> None:
    assert match in run(*arguments, code=2, **shop)


def test_health(shop: dict[str, str]) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with working(shop, "shop:order", "--health-port", str(port)):
        assert ask(port, "/readyz") == 200
        assert ask(port, "/livez") == 200
        assert ask(port, "/") == 404
        for method in ("CONNECT", "POST", "OPTIONS"):
            with socket.create_connection(("127.0.0.1", port), timeout=10) as strange:
                strange.sendall(f"{method} /livez HTTP/1.1\r\nHost: x\r\n\r\n".encode())
                assert strange.recv(100) == b""
        assert ask(port, "/livez") == 200


def ask(port: int, path: str) -> int:
    """The status of an answer; the port may not be open yet."""
    for _ in range(1000):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
                status: int = answer.status
                return status
        except urllib.error.HTTPError as exc:
            with exc:
                return exc.code
        except (urllib.error.URLError, ConnectionError):
            continue
    raise AssertionError(f"nothing answers on port {port}")


def test_what_is_healthy() -> None:
    now = datetime.now(UTC)

    def status(path: str, look: float, turn: float, *, draining: bool = False) -> Any:
        health = WorkerHealth(
            last_look=now - timedelta(seconds=look),
            last_turn=now - timedelta(seconds=turn),
            oldest_boundary=None,
            loaded=0,
            slots=1,
            working=0,
            draining=draining,
        )
        return answer_to(path, health, now)[0]

    assert status("/livez", 0, 0) == status("/readyz", 0, 0) == 200
    assert status("/readyz", STALE + 1, 0) == 503  # the store is away
    assert status("/livez", STALE + 1, 0) == 200
    assert status("/livez", STUCK + 1, STUCK + 1) == 503
    assert status("/readyz", 0, 0, draining=True) == 503
