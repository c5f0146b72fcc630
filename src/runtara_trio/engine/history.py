"""What a block does, step by step, noted for people: each with the next commit of the block.

A short step costs one row, in the commit that saves its result. One that takes longer, or waits,
leaves its row before it ends.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import TYPE_CHECKING

import trio

from .. import measures
from ..clock import milliseconds
from ..errors import message_of
from ..ids import STEP_BEGINS, STEP_ENDS, storable, users_id
from ..messages import Noted, StepNote
from ..types import StepKind, StepOutcome
from .debugging import DebugEvents
from .outcome import contains
from .services import SharedBackend
from .signals import Cause
from .state import State

if TYPE_CHECKING:
    from ..telemetry.spans import RunSpans, Span

BRIEF_MS = 50
"""A step that is shorter is not noted while it runs."""

MOST_ATTEMPTS = 50
LONGEST_ERROR = 1000
"""Characters."""


_PUT_AWAY = (Cause.PAUSE, Cause.STOP, Cause.DRAIN, Cause.UNLOAD, Cause.SLEEP)
_WAITS = (StepKind.SIGNAL, StepKind.MESSAGE, StepKind.SLEEP)


class Open:
    """A step that runs."""

    __slots__ = (
        *("asks", "attempts", "ended_ms", "id", "kind", "outcome", "parent"),
        *("started_ms", "state", "summary", "told"),
    )

    def __init__(
        self,
        state: State,
        id: str,
        kind: StepKind,
        parent: str | None,
        summary: str | None,
        started_ms: int,
    ) -> None:
        self.state = state
        self.id = id
        self.kind = kind
        self.parent = parent
        self.summary = None if summary is None else state.seal("summary", id, summary)
        self.started_ms = started_ms
        self.asks: str | None = None
        """The JSON schema of what a wait is for."""
        self.attempts: list[tuple[int, str]] = []
        self.ended_ms: int | None = None
        self.outcome: StepOutcome | None = None
        self.told = False
        """Its end is noted, or on its way."""

    def failed(self, error: str, now_ms: int) -> None:
        """An attempt has failed. The last ones are kept: a call may be tried for ever."""
        text = self.state.seal("attempt", self.id, error[:LONGEST_ERROR])
        self.attempts.append((now_ms, text))
        del self.attempts[:-MOST_ATTEMPTS]

    def end(self, outcome: StepOutcome, now_ms: int) -> None:
        if self.ended_ms is None:
            self.outcome, self.ended_ms = outcome, now_ms

    def note(self, worker: str) -> StepNote:
        return StepNote(
            step=self.id,
            kind=self.kind,
            started_ms=self.started_ms,
            ended_ms=self.ended_ms,
            outcome=self.outcome,
            attempts=tuple(self.attempts),
            parent=self.parent,
            summary=self.summary,
            asks=self.asks,
            worker=worker,
        )


_around: ContextVar[tuple[tuple[History, Open], ...]] = ContextVar(
    "runtara_trio_open_steps", default=()
)


class History:
    """The steps of one block that are not noted yet."""

    __slots__ = ("_ended", "_open", "_shared", "_state", "_unsaid", "debug", "trace", "worker")

    def __init__(self, state: State, shared: SharedBackend) -> None:
        self._state = state
        self._shared = shared
        self._open: dict[Open, None] = {}
        self._unsaid: dict[Open, None] = {}
        """Those that run and are not noted, in the order in which they began."""
        self._ended: list[StepNote] = []
        self.worker = ""
        """The name of the worker that runs the block."""
        self.trace: RunSpans | None = None
        """None: nobody wants spans."""
        self.debug = DebugEvents(state, shared) if shared.config.history == "core" else None

    @contextmanager
    def step(
        self, kind: StepKind, id: str, summary: str | None = None, *, name: str = ""
    ) -> Iterator[Open | None]:
        """Around a step; None where nothing is noted. How the block is left says how it ended.

        ``name``: of the function that it calls.
        """
        if users_id(id) != id:
            yield None
        elif self.trace is None and self.debug is None and not measures.listened():
            with self._noted(kind, id, summary) as step:
                yield step
        else:
            with self._told(kind, id, summary, name) as step:
                yield step

    @contextmanager
    def _told(
        self, kind: StepKind, id: str, summary: str | None, name: str
    ) -> Iterator[Open | None]:
        """The same with a span, events and measured."""
        started = trio.current_time()
        outcome, error = StepOutcome.DONE, None
        if self.debug is not None:
            around = self._step_around()
            scopes = (None, None) if around is None else (around.id, around.parent)
            self.debug.add(STEP_BEGINS, id, kind, name, scopes)
        with self._step_span(kind, id, summary, name) as span:
            try:
                with self._noted(kind, id, summary) as step:
                    yield step
                if step is not None and step.outcome is not None:
                    outcome = step.outcome
            except BaseException as exc:
                outcome = self._outcome_of(kind, exc)
                if outcome is StepOutcome.FAILED:
                    text = f"{type(exc).__name__}: {message_of(exc)}"
                    error = self._state.seal("attempt", id, storable(text, LONGEST_ERROR))
                raise
            finally:
                taken = trio.current_time() - started
                if self.debug is not None:
                    ms = int(taken * 1000)
                    self.debug.add(STEP_ENDS, id, kind, name, scopes, error=error, duration_ms=ms)
                if span is not None:
                    span.set(outcome=outcome.value)
                measures.step_duration(taken, kind=kind.value, outcome=outcome.value)

    def _step_span(
        self, kind: StepKind, id: str, summary: str | None, name: str
    ) -> AbstractContextManager[Span | None]:
        if self.trace is None:
            return nullcontext()
        if summary is not None and self._state.seal("summary", id, summary) != summary:
            summary = None  # it is for those who have the key
        return self.trace.span(
            f"{kind.value} {name}".strip(),
            waits=kind in _WAITS,
            step_id=id,
            step_kind=kind.value,
            summary=summary,
        )

    def attempt_span(self, number: int) -> AbstractContextManager[object]:
        """Around an attempt, from 1."""
        return nullcontext() if self.trace is None else self.trace.span("attempt", attempt=number)

    def retry_span(self, number: int) -> AbstractContextManager[object]:
        """Around a long wait before a retry, from 1."""
        if self.trace is None:
            return nullcontext()
        return self.trace.span("wait for retry", waits=True, attempt=number)

    def wait_span(self, child: str | None, block: str | None) -> AbstractContextManager[object]:
        """Around a wait for a child, or for a block of children; neither: it has no span."""
        if self.trace is None or (child is None and block is None):
            return nullcontext()
        what = "wait for child" if block is None else "wait for children"
        return self.trace.span(what, waits=True, child_id=child, block=block)

    def _step_around(self) -> Open | None:
        """The step of this block around the calling task."""
        return next((one for history, one in reversed(_around.get()) if history is self), None)

    @contextmanager
    def _noted(self, kind: StepKind, id: str, summary: str | None) -> Iterator[Open | None]:
        kept = self._shared.steps.kept
        if not kept and self.debug is None:
            yield None
            return
        around = _around.get()
        outer = self._step_around()
        parent = None if outer is None else outer.id
        open_step = Open(self._state, id, kind, parent, summary, self.now())
        if kept:
            self._open[open_step] = self._unsaid[open_step] = None
            self._shared.steps.add(self)
        _around.set((*around, (self, open_step)))
        try:
            yield open_step
        except BaseException as exc:
            open_step.end(self._outcome_of(kind, exc), self.now())
            raise
        finally:
            open_step.end(StepOutcome.DONE, self.now())
            _around.set(around)
            self._open.pop(open_step, None)
            self._unsaid.pop(open_step, None)
            if kept and not open_step.told:
                self._ended.append(open_step.note(self.worker))
                self._shared.steps.add(self)

    def take(
        self, ends: Open | None = None, outcome: StepOutcome = StepOutcome.DONE
    ) -> tuple[StepNote, ...]:
        """What goes out with a commit, ``ends`` with the end that it has thereby."""
        if not self._shared.steps.kept or not (self._ended or self._unsaid):
            return ()
        now = self.now()
        notes, self._ended = self._ended, []
        if ends is not None:
            ends.end(outcome, now)
            ends.told = True
            self._unsaid.pop(ends, None)
            notes.append(ends.note(self.worker))
        for one in [*self._begun_before(now - BRIEF_MS)]:
            del self._unsaid[one]
            notes.append(one.note(self.worker))
        return tuple(notes)

    def _outcome_of(self, kind: StepKind, error: BaseException) -> StepOutcome:
        interrupted = not isinstance(error, Exception) or contains(error, trio.Cancelled)
        return self._interrupted(kind) if interrupted else StepOutcome.FAILED

    def _interrupted(self, kind: StepKind) -> StepOutcome:
        """A wait goes on where its run is put away: what it is for may still come."""
        put_away = self._state.signals.cause in _PUT_AWAY
        waits_on = put_away and kind in _WAITS
        return StepOutcome.UNLOADED if waits_on else StepOutcome.INTERRUPTED

    def last(self) -> tuple[StepNote, ...]:
        """What goes out with the outcome: what still runs is noted no more."""
        now = self.now()
        for one in self._open:
            one.end(self._interrupted(one.kind), now)
            one.told = True
            self._ended.append(one.note(self.worker))
        self._open.clear()
        self._unsaid.clear()
        return self.take()

    def of(self, step: Open | None) -> StepNote | None:
        """The note of a step that runs, for what notes its end by itself."""
        return step.note(self.worker) if step is not None and self._shared.steps.kept else None

    def noted_its_end(self, step: Open | None) -> None:
        """The end of a step is noted; it need not be said."""
        if step is not None:
            step.end(StepOutcome.DONE, self.now())
            step.told = True
            self._unsaid.pop(step, None)

    async def close(self, timeout: float) -> None:
        """Send the events that are left, before the outcome; within ``timeout`` seconds."""
        if self.debug is not None:
            await self._shared.uninterrupted(self.debug.close, timeout)

    def put_back(self, notes: tuple[StepNote, ...]) -> None:
        """They did not go out."""
        if notes:
            self._ended = [*notes, *self._ended]
            self._shared.steps.add(self)

    def noted(self) -> Noted | None:
        """What goes out by itself, since nothing takes it along."""
        if not self._state.is_writable:
            return None
        steps = self.take()
        lease = self._state.lease
        return Noted(instance_id=self._state.instance_id, lease=lease, steps=steps)

    @property
    def has_more(self) -> bool:
        """Whether something is still to be said."""
        return bool(self._unsaid or self._ended)

    def _begun_before(self, ms: int) -> Iterator[Open]:
        for one in self._unsaid:
            if one.started_ms > ms:
                return
            yield one

    def now(self) -> int:
        """Unix ms."""
        return milliseconds(self._shared.clock.now())
