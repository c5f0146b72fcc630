"""What is measured, as OpenTelemetry's reader and Prometheus' own parser have it."""

from __future__ import annotations

import re
import socket
import urllib.request
from pathlib import Path

import httpx
import psycopg
import trio
from prometheus_client.parser import text_string_to_metric_families

from runtara_trio import (
    Queue,
    RuntaraSdk,
    SdkConfig,
    Start,
    durable,
    open_backend,
    open_client,
    open_worker,
    workflow,
)
from runtara_trio.console import app
from runtara_trio.measures import MEASURES
from runtara_trio.telemetry.prometheus import Scraped

from ..helpers.places import Shared, postgres_place
from ..helpers.support import block, idle_pids, start, start_args, url_of
from .conftest import Metrics

SHOP = """
from runtara_trio import RuntaraSdk, durable, workflow

@durable(max_retries=1, delay=0)
async def charge(cents: int) -> int:
    return 100 // cents

@workflow
async def order(sdk: RuntaraSdk, cents: int) -> int:
    return await charge(cents)
"""


@durable(max_retries=1, delay=0)
async def charge(cents: int) -> int:
    return 100 // cents


@workflow
async def order(sdk: RuntaraSdk, cents: int) -> int:
    return await charge(cents)


@workflow
async def naps(sdk: RuntaraSdk) -> None:
    await sdk.sleep(0.3, "nap")


async def test_runs_and_steps(shared: Shared, metrics: Metrics) -> None:
    async with (
        open_backend(shared.url, create=True) as opened,
        open_client(opened, tenant_id="t") as client,
    ):
        handles = await client.start_many(order, [Start(args=(5,)), Start(args=(0,))])
        async with open_worker(opened, [order, naps], name="till"):
            handles.append(await client.start(naps))
            with trio.fail_after(30):
                for handle in handles:
                    while not (await handle.status()).finished:
                        await trio.sleep(0.01)
    found = metrics.read()
    assert found["run.started", "order"] == 2
    assert found["run.finished", "order", "completed"] == 1
    assert found["run.finished", "order", "failed"] == 1
    assert found["run.duration", "naps", "completed"] == 1
    assert found["step.duration", "call", "done"] == 1
    assert found["step.duration", "call", "failed"] == 1
    assert found["step.duration", "sleep", "done"] == 1
    assert found["step.retries",] == 1
    assert found["claim.latency", "default"] == 3
    assert found["claim.duration",] >= 1
    assert found["slot.wait",] >= 1
    assert found["slots.total", "till"] == 100
    assert found["queue.depth", "default"] >= 0
    assert found["store.batch",] == found["store.commit.duration",] >= 3


async def test_a_queue_that_waits(shared: Shared, metrics: Metrics) -> None:
    async with open_client(shared.url, tenant_id="t") as client:
        await client.start_many(order, [Start(args=(5,))] * 3)
        await client.set_queue(Queue("default", limit=1))
        await client.pause_queue("default")
        async with open_worker(shared.url, [order]):
            with trio.fail_after(30):
                while ("queue.oldest", "default") not in (found := metrics.read()):
                    await trio.sleep(0.01)
        assert found["queue.depth", "default"] == 3
        assert 0 <= found["queue.oldest", "default"] < 600
        (queue,) = await client.list_queues()
        assert queue.ready_since is not None


async def test_a_takeover(shared: Shared, metrics: Metrics) -> None:
    async with (
        open_backend(shared.url, create=True) as opened,
        open_client(opened, tenant_id="t") as client,
    ):
        handle = await client.start("order")
        async with start("traced.py", shared.url) as before:
            await before.line("run")
            await before.kill()

        @workflow(name="order")
        async def ends(sdk: RuntaraSdk) -> None:
            pass

        async with open_worker(opened, [ends]):
            with trio.fail_after(30):
                await handle.result()
    found = metrics.read()
    assert found["run.takeovers",] == 1
    assert ("claim.latency", "default") not in found  # it had begun before


async def test_a_connection_in_place_of_a_lost_one(postgres_server: str, metrics: Metrics) -> None:
    async with (
        postgres_place(postgres_server) as place,
        open_backend(SdkConfig(store=place.url), create=True) as opened,
        open_client(opened, tenant_id="t") as client,
    ):
        await client.start("order")
        assert ("reconnects", "postgres") not in metrics.read()
        with psycopg.connect(url_of(opened), autocommit=True) as admin:
            for pid in idle_pids(opened):
                admin.execute(f"SELECT pg_terminate_backend({pid})")
        await client.list()
    assert metrics.read()["reconnects", "postgres"] >= 1


async def test_two_backends_are_measured_once(metrics: Metrics) -> None:
    async with open_backend(":memory:") as one, open_backend(":memory:"):
        async with block(one, "i"):
            pass
    async with open_backend(":memory:") as again, block(again, "i"):
        pass
    assert metrics.read()["run.started",] == 2


async def test_the_page_of_a_worker(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(SHOP)
    url = f"sqlite:///{tmp_path}/shop.db"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = (
        "-m",
        "runtara_trio",
        "worker",
        "--store",
        url,
        "--metrics-port",
        str(port),
        "--name",
        "till",
    )
    async with open_client(url, tenant_id="t") as client:
        handle = await client.start("order", 5)
        async with start_args(*command, "--name", "till", "shop", cwd=tmp_path) as worker:
            await worker.line("worker")
            with trio.fail_after(30):
                assert await handle.result(int) == 20
                while True:
                    found = await trio.to_thread.run_sync(scraped, port)
                    if ("runtara_run_finished_total", "completed", "order") in found:
                        break
    assert found["runtara_run_finished_total", "completed", "order"] == 1
    assert found["runtara_step_duration_seconds_count", "call", "done"] == 1
    assert found["runtara_slots_total", "till"] == 100
    assert found["runtara_queue_depth", "default"] == 0


def scraped(port: int) -> dict[tuple[str, ...], float]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    return {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def test_the_dashboard_asks_for_what_there_is() -> None:
    dashboard = (Path(__file__).parents[2] / "examples" / "grafana.json").read_text()
    asked = set(re.findall(r"\bruntara_\w+", dashboard))
    page = Scraped().page().decode()
    async with open_backend(":memory:") as backend:
        console = app(backend, authorize=lambda scope: ("ann", "viewer"), allowed_hosts=None)
        transport = httpx.ASGITransport(console)
        async with httpx.AsyncClient(transport=transport, base_url="http://shop") as browser:
            page += (await browser.get("/metrics")).text
    there = {family.name for family in text_string_to_metric_families(page)}
    assert len(asked) > 10
    assert {re.sub("_(total|bucket)$", "", name) for name in asked} <= there


def test_every_name_is_of_one_kind() -> None:
    names = [one.name for one in MEASURES]
    assert len(set(names)) == len(names)
    assert all(one.text and one.unit for one in MEASURES)
