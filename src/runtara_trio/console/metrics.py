"""What Prometheus scrapes of the console: how many instances, workers and queues there are."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Gauge, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import Response

from .. import words
from ..sdk.operator import Operator
from .listing import CHIPS_SECONDS, STATUSES
from .pages import Console

MOST = 100_000
"""Instances of a status that are counted at most."""


async def scrape(console: Console, request: Request) -> Response:
    """The page, for a scraper."""

    async def make() -> bytes:
        text: bytes = await console.ask(_read)
        return text

    text = await console.kept("metrics", CHIPS_SECONDS, make)
    own = CollectorRegistry()
    streams = Gauge("runtara_console_streams", "Pages that are open and live.", registry=own)
    streams.set(console.views.streams)
    return Response(text + generate_latest(own), media_type=CONTENT_TYPE_LATEST)


async def _read(operator: Operator) -> bytes:
    registry = CollectorRegistry()
    instances = Gauge(
        "runtara_instances", "Instances, up to 100,000 of each.", ["status"], registry=registry
    )
    for one in STATUSES:
        count = await operator.count(statuses=[one], most=MOST)
        instances.labels(one.value).set(min(count, MOST))
    slots = Gauge("runtara_worker_slots", "Slots.", ["worker", "process"], registry=registry)
    used = Gauge("runtara_worker_slots_used", "In use.", ["worker", "process"], registry=registry)
    loaded = Gauge("runtara_worker_loaded", "Runs.", ["worker", "process"], registry=registry)
    oldest = Gauge(
        "runtara_worker_oldest_boundary_seconds",
        "How long its oldest run has not reached a boundary.",
        ["worker", "process"],
        registry=registry,
    )
    now = words.now()
    for worker in await operator.list_workers():
        of = worker.name, worker.holder
        slots.labels(*of).set(worker.slots)
        used.labels(*of).set(worker.working)
        loaded.labels(*of).set(worker.loaded)
        since = worker.oldest_boundary
        oldest.labels(*of).set(0 if since is None else (now - since).total_seconds())
    all_queues = await operator.list_queues()
    for name, what in (
        ("ready", "Runs that a worker may take, up to 10,000."),
        ("behind", "Runs that wait for the turn of their key, up to 10,000."),
        ("working", "Runs that hold a place of a limited queue."),
        ("wanting", "Runs that want a place to go on."),
    ):
        gauge = Gauge(f"runtara_queue_{name}", what, ["queue"], registry=registry)
        for one_queue in all_queues:
            gauge.labels(one_queue.queue.name).set(getattr(one_queue, name))
    waited = Gauge(
        "runtara_queue_oldest_seconds",
        "How long the oldest run that a worker may take is ready.",
        ["queue"],
        registry=registry,
    )
    for one_queue in all_queues:
        since = one_queue.ready_since
        waited.labels(one_queue.queue.name).set(
            0 if since is None else (now - since).total_seconds()
        )
    return generate_latest(registry)
