"""Spans: one a run, and below it one a step, an attempt and a wait.

No span is open for long while nothing happens: that of a wait ends after a minute, and so do those
of a run all of whose tasks wait. They begin anew when the run goes on, each linked to its former
part.

A run is a child of the context in which its instance was started, and linked to the run before it
and to its parent's.

Nothing that a processor or a propagator of the program's raises disturbs a run: a span is missing
then, and no more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import msgspec
import trio
from opentelemetry import context as contexts
from opentelemetry import propagate, trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, SpanKind, StatusCode, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from ..messages import Trace

_RUN = contexts.create_key("runtara_trio_run")
_OURS = contexts.create_key("runtara_trio_span")
"""In a context: the innermost span of ours, as a :class:`Span` and as the SDK's."""
_SPAN = "runtara_span"
"""The key of a run's own span beside the context in which something was started."""

_PLAIN = TraceContextTextMapPropagator()


class Span:
    """A span, which may be put away and begun anew."""

    __slots__ = ("_around", "_attributes", "_kind", "_links", "_name", "_run", "_span", "context")

    def __init__(
        self,
        run: RunSpans,
        name: str,
        attributes: Mapping[str, Any],
        around: Context,
        kind: SpanKind = SpanKind.INTERNAL,
        links: Iterable[Link] = (),
    ) -> None:
        self._run = run
        self._name = name
        self._attributes = _named(attributes)
        self._around = around
        self._kind = kind
        self._links = list(links)
        self._begin()

    def _begin(self) -> None:
        around = self._run.moved(self._around)
        self._span: trace.Span = trace.INVALID_SPAN
        self.context = around
        with suppress(Exception):
            self._span = self._run.tracer.start_span(
                self._name, around, self._kind, self._attributes, self._links
            )
            mine = contexts.set_value(_OURS, (self, self._span), around)
            self.context = trace.set_span_in_context(self._span, mine)

    def put_away(self) -> None:
        """End it: it waits on."""
        with suppress(Exception):
            self._span.set_attribute("runtara.waits_on", True)
            self._span.end()

    def begin_anew(self) -> None:
        """Begin the next part of one that was put away, in the same trace."""
        self._links = [Link(self._span.get_span_context())]
        if not trace.get_current_span(self._around).get_span_context().is_valid:
            self._around = self.context
        self._begin()

    def set(self, **attributes: Any) -> None:
        with suppress(Exception):
            if self._span.is_recording():
                self._span.set_attributes(_named(attributes))

    def end(self, error: Exception | None = None) -> None:
        """``error``: what it failed with. One that was put away for good has ended."""
        with suppress(Exception):
            if self._span.is_recording():
                if error is not None:
                    self._span.set_status(StatusCode.ERROR, type(error).__name__)
                    with suppress(Exception):  # its own text may fail
                        self._span.record_exception(error)
                self._span.end()


class RunSpans:
    """The spans of one run."""

    def __init__(
        self,
        tracer: Tracer,
        name: str,
        known: Trace,
        *,
        claimed: bool,
        all_wait: Callable[[], bool],
        is_held: Callable[[], bool],
        **attributes: Any,
    ) -> None:
        """``claimed``: by a worker; ``all_wait``: whether all tasks of the run wait; ``is_held``:
        whether a pause holds it."""
        self.tracer = tracer
        self.on_wait: Callable[[], object] = lambda: None
        self._all_wait = all_wait
        self._is_held = is_held
        self._open: dict[Span, None] = {}
        """In the order in which they began: one that is around others comes first."""
        self._waits: dict[Span, float] = {}
        """Those that wait, and since when by Trio's clock."""
        self._is_away = False
        started = _carrier(known.started)
        # A worker's own context is that of whoever opened it.
        around = Context() if claimed else contexts.get_current()
        if started:
            with suppress(Exception):
                around = propagate.extract(started, around)
        own = contexts.set_value(_RUN, self, around)
        links = [link for text in (known.run, started.get(_SPAN)) if (link := _link(text))]
        kind = SpanKind.CONSUMER if claimed else SpanKind.INTERNAL
        self._root = Span(self, name, attributes, own, kind, links)
        self._open[self._root] = None

    @property
    def text(self) -> str:
        """The context of the run's own span, for the run after it."""
        return _text(self._root.context)

    @contextmanager
    def current(self) -> Iterator[None]:
        """The run's span is that of the calling task."""
        token = contexts.attach(self._root.context)
        try:
            yield
        finally:
            contexts.detach(token)

    @contextmanager
    def span(self, name: str, *, waits: bool = False, **attributes: Any) -> Iterator[Span]:
        """A span below that of the calling task. An exception that leaves it is its error."""
        self._come_back()
        here = contexts.get_current()
        if here.get(_RUN) is not self:  # a task that this run has not begun
            here = self._root.context
        span = Span(self, name, attributes, here)
        self._open[span] = None
        if waits:
            self._waits[span] = trio.current_time()
            self.on_wait()
        token = contexts.attach(span.context)
        error = None
        try:
            yield span
        except Exception as exc:
            error = exc
            raise
        finally:
            contexts.detach(token)
            self._waits.pop(span, None)
            self._come_back()
            self._open.pop(span, None)
            span.end(error)
            error = None

    def moved(self, around: Context) -> Context:
        """What goes on for a context whose span was put away."""
        ours = around.get(_OURS)
        if isinstance(ours, tuple) and trace.get_current_span(around) is ours[1]:
            found: Context = ours[0].context
            return found
        return around

    def put_away(self, before: float) -> bool:
        """End the spans of what waits since then. Whether that is all there was to end."""
        if not self._waits:
            return True
        for one, since in self._waits.items():
            if since <= before and one in self._open:
                del self._open[one]
                one.put_away()
        if max(self._waits.values()) <= before and self._all_wait():
            self.hold()
        return self._is_away

    def hold(self) -> None:
        """A pause holds the run, for as long as it may take."""
        if not self._is_away:
            self._is_away = True
            for one in reversed(self._open):
                one.put_away()

    def _come_back(self) -> None:
        """Something goes on: so do the spans around it."""
        if self._is_away and not self._is_held():
            self._is_away = False
            for one in self._open:
                one.begin_anew()
            if self._waits:  # of other tasks: they may soon be all there is again
                self.on_wait()

    def end(self, error: Exception | None, **attributes: Any) -> None:
        """The run has ended. ``error``: what it failed with."""
        self._come_back()
        self._root.set(**attributes)
        self._root.end(error)


def text_of_current() -> str | None:
    """The context of the calling task, and the span of the run that it is of."""
    here = contexts.get_current()
    carrier: dict[str, str] = {}
    with suppress(Exception):
        propagate.inject(carrier, here)
    run = here.get(_RUN)
    if isinstance(run, RunSpans):
        carrier[_SPAN] = run.text
    return msgspec.json.encode(carrier).decode() if carrier else None


def _text(context: Context) -> str:
    carrier: dict[str, str] = {}
    with suppress(Exception):
        _PLAIN.inject(carrier, context)
    return carrier.get("traceparent", "")


def _carrier(text: str | None) -> dict[str, str]:
    """What :func:`text_of_current` gave; nothing, where another program wrote it."""
    try:
        return msgspec.json.decode(text or "{}", type=dict[str, str])
    except msgspec.MsgspecError:
        return {}


def _link(text: str | None) -> Link | None:
    context = _PLAIN.extract({"traceparent": text or ""}, Context())
    found = trace.get_current_span(context).get_span_context()
    return Link(found) if found.is_valid else None


def _named(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes under OpenTelemetry's names, without those that are not known."""
    return {
        f"runtara.{name}": value
        for name, value in attributes.items()
        if value is not None and value != ""
    }
