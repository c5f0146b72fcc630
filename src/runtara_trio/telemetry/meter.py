"""OpenTelemetry's side of ``measures``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from opentelemetry.metrics import Meter, MeterProvider

from ..measures import MEASURES, Kind, Measure


class Metered:
    """Instruments of one provider."""

    def __init__(self, provider: MeterProvider) -> None:
        self._provider = provider
        meter = provider.get_meter("runtara_trio")
        self._record = {one.name: _instrument(meter, one) for one in MEASURES}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Metered) and other._provider is self._provider

    def __hash__(self) -> int:
        return id(self._provider)

    def record(self, measure: Measure, value: float, attributes: Mapping[str, str]) -> None:
        named = {f"runtara.{name}": text for name, text in attributes.items() if text}
        self._record[measure.name](value, named)


def _instrument(meter: Meter, one: Measure) -> Callable[..., Any]:
    about = {"unit": one.unit, "description": one.text}
    if one.kind is Kind.COUNTER:
        return meter.create_counter(one.name, **about).add
    if one.kind is Kind.GAUGE:
        return meter.create_gauge(one.name, **about).set
    return meter.create_histogram(
        one.name, explicit_bucket_boundaries_advisory=one.bounds, **about
    ).record
