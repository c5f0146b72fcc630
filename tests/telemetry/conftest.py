"""An OpenTelemetry SDK for one test: its own is for a whole process."""

from __future__ import annotations

from collections import Counter

import opentelemetry.metrics
import opentelemetry.trace
import pytest
from opentelemetry.context import Context
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import HistogramDataPoint, InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter


class Spans(SpanProcessor):
    """The spans of a test: those that have ended, and those that have not."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(self)
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.open: Counter[str] = Counter()

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        self.open[span.name] += 1

    def on_end(self, span: ReadableSpan) -> None:
        self.open[span.name] -= 1

    @property
    def ended(self) -> tuple[ReadableSpan, ...]:
        return self.exporter.get_finished_spans()

    def named(self, name: str) -> list[ReadableSpan]:
        """In the order of their ends."""
        return [one for one in self.ended if one.name == name]

    def one(self, name: str) -> ReadableSpan:
        (found,) = self.named(name)
        return found

    def tree(self) -> set[tuple[str | None, str]]:
        """(parent, span), by name; None: its parent has not ended, or it has none."""
        names = {one.context.span_id: one.name for one in self.ended}
        return {
            (None if one.parent is None else names.get(one.parent.span_id), one.name)
            for one in self.ended
        }


def links_of(span: ReadableSpan) -> list[int]:
    """The ids of the spans that one is linked to."""
    return [link.context.span_id for link in span.links]


class Metrics:
    """What a test has measured."""

    def __init__(self) -> None:
        self.reader = InMemoryMetricReader()
        self.provider = MeterProvider([self.reader])

    def read(self) -> dict[tuple[str, ...], float]:
        """Sums, last values and counts, by name and attributes."""
        data = self.reader.get_metrics_data()
        return {
            (metric.name.removeprefix("runtara."), *map(str, point.attributes.values())): (
                point.count if isinstance(point, HistogramDataPoint) else point.value
            )
            for resource in ([] if data is None else data.resource_metrics)
            for scope in resource.scope_metrics
            for metric in scope.metrics
            for point in metric.data.data_points
        }


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Spans:
    made = Spans()
    monkeypatch.setattr(opentelemetry.trace, "get_tracer_provider", lambda: made.provider)
    return made


@pytest.fixture
def metrics(monkeypatch: pytest.MonkeyPatch) -> Metrics:
    made = Metrics()
    monkeypatch.setattr(opentelemetry.metrics, "get_meter_provider", lambda: made.provider)
    return made
