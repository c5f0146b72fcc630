"""Prometheus' side of ``measures``: what a scraper is answered."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from ..measures import MEASURES, Kind, Measure

CONTENT_TYPE = CONTENT_TYPE_LATEST
_KINDS = {Kind.COUNTER: Counter, Kind.GAUGE: Gauge, Kind.HISTOGRAM: Histogram}


class Scraped:
    """A registry of its own, which no other library of the program writes to."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._metrics = {one.name: self._metric(one) for one in MEASURES}

    def _metric(self, one: Measure) -> Any:
        more = {"buckets": one.bounds} if one.kind is Kind.HISTOGRAM else {}
        return _KINDS[one.kind](
            one.name.replace(".", "_"),
            one.text,
            one.attributes,
            unit="seconds" if one.unit == "s" else "",
            registry=self._registry,
            **more,
        )

    def record(self, measure: Measure, value: float, attributes: Mapping[str, str]) -> None:
        metric = self._metrics[measure.name]
        if measure.attributes:
            metric = metric.labels(**attributes)
        if measure.kind is Kind.COUNTER:
            metric.inc(value)
        elif measure.kind is Kind.GAUGE:
            metric.set(value)
        else:
            metric.observe(value)

    def page(self) -> bytes:
        """What a scraper reads."""
        text: bytes = generate_latest(self._registry)
        return text
