"""What is measured: one table. Nobody listens: a measure costs a look at an empty tuple.

A sink takes what is told, in OpenTelemetry's way or in Prometheus'. It may be told by any thread.
"""

from __future__ import annotations

import contextlib
import enum
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

import msgspec

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
COUNTS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
"""The upper bounds of the buckets of histograms."""


class Kind(enum.Enum):
    """How the values of a measure are put together."""

    COUNTER = enum.auto()
    HISTOGRAM = enum.auto()
    GAUGE = enum.auto()


class Measure(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the table. Called with a value and its attributes, it tells the sinks."""

    name: str
    """By OpenTelemetry's conventions."""
    kind: Kind
    unit: str
    """Of UCUM."""
    text: str
    attributes: tuple[str, ...]
    bounds: tuple[float, ...]

    def __call__(self, value: float = 1, **attributes: str) -> None:
        """It never raises: what is measured happens in the middle of decisions."""
        for sink, _ in _sinks:
            with contextlib.suppress(Exception):
                sink.record(self, value, attributes)


class Sink(Protocol):
    """What takes values."""

    def record(self, measure: Measure, value: float, attributes: Mapping[str, str]) -> None:
        """A value of a measure; all of its attributes are given."""


_sinks: tuple[tuple[Sink, int], ...] = ()
"""Each with the number of blocks that it is open for."""
_changing = threading.Lock()


def listened() -> bool:
    """Whether anybody is told."""
    return bool(_sinks)


@contextmanager
def told_to(sink: Sink) -> Iterator[None]:
    """Tell a sink what is measured in this process. One that is equal is told once."""
    _change(sink, 1)
    try:
        yield
    finally:
        _change(sink, -1)


def _change(sink: Sink, by: int) -> None:
    global _sinks
    with _changing:  # clients of other threads open backends, too
        counts = dict(_sinks)
        counts[sink] = counts.get(sink, 0) + by
        _sinks = tuple((one, count) for one, count in counts.items() if count)


MEASURES: list[Measure] = []
"""All of them."""


def _measure(
    kind: Kind,
    name: str,
    unit: str,
    text: str,
    attributes: str = "",
    bounds: tuple[float, ...] = SECONDS,
) -> Measure:
    made = Measure(
        name=f"runtara.{name}",
        kind=kind,
        unit=unit,
        text=text,
        attributes=tuple(attributes.split()),
        bounds=bounds,
    )
    MEASURES.append(made)
    return made


run_started = _measure(
    Kind.COUNTER, "run.started", "{run}", "Runs of instances that began", "workflow"
)
run_finished = _measure(
    Kind.COUNTER, "run.finished", "{run}", "Runs that ended, by outcome", "workflow outcome"
)
run_duration = _measure(
    Kind.HISTOGRAM, "run.duration", "s", "How long runs took", "workflow outcome"
)
takeovers = _measure(
    Kind.COUNTER, "run.takeovers", "{run}", "Runs that were taken over from dead owners"
)
step_duration = _measure(
    Kind.HISTOGRAM, "step.duration", "s", "How long steps took, by result", "kind outcome"
)
step_retries = _measure(
    Kind.COUNTER, "step.retries", "{attempt}", "Attempts at steps that failed and are tried again"
)
claim_duration = _measure(
    Kind.HISTOGRAM, "claim.duration", "s", "How long the store took to answer a claim"
)
claim_latency = _measure(
    Kind.HISTOGRAM,
    "claim.latency",
    "s",
    "How late runs began: from when they were ready, or due, to their claim",
    "queue",
)
slot_wait = _measure(
    Kind.HISTOGRAM, "slot.wait", "s", "How long runs that had waited waited for a slot"
)
slots_total = _measure(Kind.GAUGE, "slots.total", "{slot}", "Slots of a worker", "worker")
slots_used = _measure(Kind.GAUGE, "slots.used", "{slot}", "Slots in use", "worker")
runs_loaded = _measure(
    Kind.GAUGE, "runs.loaded", "{run}", "Runs in the memory of a worker", "worker"
)
queue_depth = _measure(
    Kind.GAUGE, "queue.depth", "{run}", "Runs that a worker may take, up to 10,000", "queue"
)
queue_oldest = _measure(
    Kind.GAUGE, "queue.oldest", "s", "How long the oldest of them is ready", "queue"
)
store_batch = _measure(
    Kind.HISTOGRAM,
    "store.batch",
    "{message}",
    "Messages that the store answered at once",
    bounds=COUNTS,
)
store_commit = _measure(
    Kind.HISTOGRAM, "store.commit.duration", "s", "How long the store took for a batch"
)
reconnects = _measure(
    Kind.COUNTER, "reconnects", "{connection}", "Connections made in place of lost ones", "peer"
)
