"""Programs under a stock runtara-environment 1.6.4, which starts them as plain processes."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from runtara_trio import InstanceStatus, Operator, SignalRefused, open_backend

from ..helpers.http import Raw, b64, connected
from ..helpers.places import free_tcp_port, new_database

ENVIRONMENT = os.environ.get("INTEROP_ENVIRONMENT_1_6", "")
PROGRAM = Path(__file__).parents[1] / "helpers" / "programs" / "under_environment.py"
BIN = Path(__file__).parent / "bin"

pytestmark = pytest.mark.skipif(not ENVIRONMENT, reason="nox -s interop builds what this needs")


class Environment:
    """What is asked of a running one."""

    def __init__(self, raw: Raw, port: int, log: Path) -> None:
        self._raw = raw
        self.port = port
        self._log = log

    async def until_noticed(self, instance_id: str) -> None:
        """Wait until it has noticed that a process has ended. One that is started again before is
        taken for dead with it."""
        with trio.fail_after(60):
            while not any(
                "completed normally" in line and instance_id in line
                for line in self._log.read_text().splitlines()
            ):
                await trio.sleep(0.02)

    async def ask(self, method: str, path: str, body: Any = None) -> Any:
        answer = await self._raw.ask(method, f"/api/v1{path}", body)
        assert answer.status < 300, answer
        return answer.json

    async def start(self, instance_id: str, **order: Any) -> None:
        """Start our program, with an input."""
        script = f"#!/bin/sh\nexec {sys.executable} {PROGRAM}\n"
        image = {"tenant_id": "t", "name": instance_id, "binary": b64(script.encode())}
        made = await self.ask("POST", "/images", image)
        body = {
            "image_id": made["image_id"],
            "tenant_id": "t",
            "instance_id": instance_id,
            "input": order,
            "env": {
                "RUNTARA_SIGNAL_POLL_INTERVAL_MS": "50",
                "RUNTARA_HEARTBEAT_INTERVAL_MS": "200",
            },
        }
        await self.ask("POST", "/instances", body)

    async def show(self, instance_id: str) -> Any:
        return await self.ask("GET", f"/instances/{instance_id}")

    async def until(self, instance_id: str, *statuses: str) -> Any:
        """Wait for one of some statuses."""
        with trio.fail_after(60):
            while (shown := await self.show(instance_id))["status"] not in statuses:
                await trio.sleep(0.05)
        return shown

    async def signal(self, instance_id: str, kind: str) -> None:
        await self.ask("POST", f"/instances/{instance_id}/signals", {"signal_type": kind})

    async def until_saved(self, instance_id: str, checkpoint_id: str) -> None:
        path = f"/instances/{instance_id}/checkpoints/{checkpoint_id}"
        with trio.fail_after(60):
            while not (await self._raw.ask("GET", f"/api/v1{path}")).json.get("found"):
                await trio.sleep(0.05)


@pytest.fixture
async def environment(tmp_path: Path) -> AsyncIterator[Environment]:
    async with new_database(os.environ["INTEROP_POSTGRES"]) as database:
        async with _running(database, tmp_path) as url, connected(url) as raw:
            yield Environment(raw, int(url.rpartition(":")[2]), tmp_path / "log")


@asynccontextmanager
async def _running(database: str, folder: Path) -> AsyncIterator[str]:
    port, core = free_tcp_port(), free_tcp_port()
    variables = {
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "CRUN_PLACE": str(folder / "containers"),
        "DATA_DIR": str(folder / "data"),
        "RUNTARA_NETWORK_MODE": "host",
        "RUNTARA_DATABASE_URL": database,
        "RUNTARA_ENVIRONMENT_DATABASE_URL": database,
        "RUNTARA_ENV_HTTP_PORT": str(port),
        "RUNTARA_CORE_ADDR": f"127.0.0.1:{core}",
    }
    with (folder / "log").open("w") as log:
        process = await trio.lowlevel.open_process(
            [ENVIRONMENT],
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, **variables},
            cwd=folder,
        )
    try:
        with trio.fail_after(60):
            while not await _answers(port):
                assert process.poll() is None, "runtara-environment ended"
                await trio.sleep(0.02)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()


async def _answers(port: int) -> bool:
    try:
        async with connected(f"http://127.0.0.1:{port}") as raw:
            return (await raw.ask("GET", "/api/v1/health")).status == 200
    except OSError:
        return False


def output_of(shown: Any) -> Any:
    return msgspec.json.decode(base64.b64decode(shown["output"]))


async def test_a_program_gets_its_input_and_its_output_is_seen(environment: Environment) -> None:
    await environment.start("order-7", steps=3, sleep=1)
    shown = await environment.until("order-7", "completed", "failed")
    assert (shown["status"], output_of(shown)) == ("completed", {"steps": 3})
    found = (await environment.ask("GET", "/instances/order-7/checkpoints"))["checkpoints"]
    assert {"step-0", "step-1", "step-2"} <= {one["checkpoint_id"] for one in found}


async def test_a_long_sleep_ends_the_program_and_wakes_it(environment: Environment) -> None:
    await environment.start("order-8", steps=2, sleep=11)
    asleep = await environment.until("order-8", "suspended", "completed", "failed")
    assert (asleep["status"], asleep["termination_reason"]) == ("suspended", "sleeping")
    shown = await environment.until("order-8", "completed", "failed")
    assert (shown["status"], output_of(shown)) == ("completed", {"steps": 2})
    slept = (shown["finished_at_ms"] - shown["created_at_ms"]) / 1000
    assert slept > 10.9


async def test_a_pause_is_acknowledged_and_a_resume_goes_on(environment: Environment) -> None:
    await environment.start("order-9", steps=2, wait=True)
    await environment.until_saved("order-9", "step-1")
    await environment.signal("order-9", "pause")
    await environment.until("order-9", "suspended", "failed")
    await environment.until_noticed("order-9")
    await environment.ask("POST", "/instances/order-9/resume", {})
    await environment.until("order-9", "running", "failed")
    custom = {"checkpoint_id": "go", "payload": "1"}
    await environment.ask("POST", "/instances/order-9/signals/custom", custom)
    shown = await environment.until("order-9", "completed", "failed")
    assert shown["status"] == "completed", shown.get("error")


async def test_a_cancel(environment: Environment) -> None:
    await environment.start("order-10", steps=1, wait=True)
    await environment.until_saved("order-10", "step-0")
    await environment.signal("order-10", "cancel")
    shown = await environment.until("order-10", "cancelled", "completed", "failed")
    assert shown["status"] == "cancelled"


async def test_what_waits_is_kept_alive_by_events(environment: Environment) -> None:
    """Nothing else counts: polls, checkpoints and questions do not."""
    await environment.start("order-11", steps=1, wait=True)
    path = "/instances/order-11/events?event_type=heartbeat"
    with trio.fail_after(60):
        while (await environment.ask("GET", path))["total_count"] < 3:
            await trio.sleep(0.05)
    await environment.signal("order-11", "cancel")
    await environment.until("order-11", "cancelled")


async def test_operators_ask_it_through_our_client(environment: Environment) -> None:
    await environment.start("order-12", steps=3, wait=True)
    await environment.until_saved("order-12", "step-2")
    async with open_backend(f"http://127.0.0.1:1?operators={environment.port}") as backend:
        operator = Operator(backend)
        (listed,) = (await operator.list(statuses=[InstanceStatus.RUNNING])).instances
        assert (listed.instance_id, listed.tenant_id) == ("order-12", "t")
        details = await operator.show("order-12")
        assert details.input == b'{"steps":3,"wait":true}'
        page = await operator.checkpoints("order-12", prefix="step-", limit=2)
        assert [(one.checkpoint_id, one.state) for one in page.checkpoints] == [
            ("step-0", b"0"),
            ("step-1", b"1"),
        ]
        assert page.more
        events = (await operator.events("order-12", limit=2)).events
        assert str(events[0].type) == "started"
        await operator.send_signal("order-12", "go", "1")
        shown = await environment.until("order-12", "completed", "failed")
        assert shown["status"] == "completed"
        with pytest.raises(SignalRefused):
            await operator.cancel("order-12")
