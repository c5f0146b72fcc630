"""What ends as what: the table.

Whatever happened in a block, its end is decided here, once, by the first row that holds.
The rows stand in the order of what may not be lost: another owner's right to the
instance, what the program said itself, an operator's word, a local stop, and last how
the body ended.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable

import msgspec

from ..errors import InstanceCancelled, InstancePaused, StoreError, Unreachable, message_of
from ..ids import storable
from ..types import InstanceStatus, Outcome


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """All that counts when a body has ended."""

    lease_lost: bool = False
    """Another owner has it, and no outcome was recorded before."""
    said: Outcome | None = None
    """What the body recorded itself: completed, failed, suspended, a cancel acknowledged."""
    cancelled: bool = False
    """A cancel signal reached the body's scope, or InstanceCancelled left the body."""
    paused: bool = False
    """A pause cancelled the body's scope, was acknowledged, or InstancePaused left the body."""
    stopped: str | None = None
    """Why the block was stopped from this process, if it was."""
    error: BaseException | None = None
    """What the body raised."""
    tried_again: bool = False
    """A worker runs the whole function again."""
    output: bytes = b""
    """What a workflow returned."""


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the table."""

    when: str
    holds: Callable[[Facts], bool]
    outcome: Outcome | None
    """None: what the body said."""
    recorded: InstanceStatus | None
    """What is still to be recorded; None: nothing."""


TABLE: tuple[Row, ...] = (
    Row(
        when="the lease was lost to another owner before an outcome was recorded",
        holds=lambda facts: facts.lease_lost,
        outcome=Outcome.LOST,
        recorded=None,
    ),
    Row(
        when="the body called completed, failed or suspended, or acknowledged a cancel",
        holds=lambda facts: facts.said is not None,
        outcome=None,
        recorded=None,
    ),
    Row(
        when="a cancel signal reached the body's scope (manual: InstanceCancelled left the body)",
        holds=lambda facts: facts.cancelled,
        outcome=Outcome.CANCELLED,
        recorded=InstanceStatus.CANCELLED,
    ),
    Row(
        when="a pause signal cancelled the body's scope"
        " (manual: InstancePaused left it, or it acknowledged a pause)",
        holds=lambda facts: facts.paused,
        outcome=Outcome.PAUSED,
        recorded=InstanceStatus.SUSPENDED,
    ),
    Row(
        when="a scope around the block is cancelled; a stop signal;"
        " KeyboardInterrupt or SystemExit, alone or anywhere in a group",
        holds=lambda facts: facts.stopped is not None,
        outcome=Outcome.STOPPED,
        recorded=InstanceStatus.SUSPENDED,
    ),
    Row(
        when="the body raised, and a worker is to run it again",
        holds=lambda facts: facts.error is not None and facts.tried_again,
        outcome=Outcome.STOPPED,
        recorded=InstanceStatus.SUSPENDED,
    ),
    Row(
        when="the body raised anything else",
        holds=lambda facts: facts.error is not None,
        outcome=Outcome.FAILED,
        recorded=InstanceStatus.FAILED,
    ),
    Row(
        when="the body returned",
        holds=lambda facts: True,
        outcome=Outcome.COMPLETED,
        recorded=InstanceStatus.COMPLETED,
    ),
)
"""The first row that holds decides."""


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What :func:`decide` found."""

    outcome: Outcome
    recorded: InstanceStatus | None
    payload: bytes
    of_error: bool
    """The payload is the text of what the body raised."""


def decide(facts: Facts) -> Verdict:
    """What a block with these facts ends as, and what is recorded of it."""
    row = next(row for row in TABLE if row.holds(facts))
    outcome = row.outcome if row.outcome is not None else facts.said
    assert outcome is not None
    payload, of_error = b"", False
    if facts.error is not None and (
        outcome is Outcome.FAILED or (facts.tried_again and facts.stopped is None)
    ):
        payload, of_error = failure_text(facts.error).encode(), True
    elif outcome is Outcome.COMPLETED and facts.said is None:
        payload = facts.output
    elif outcome is Outcome.STOPPED and facts.stopped is not None:
        payload = facts.stopped.encode(errors="backslashreplace")
    elif outcome is Outcome.PAUSED:
        payload = b"paused by an operator"
    return Verdict(outcome=outcome, recorded=row.recorded, payload=payload, of_error=of_error)


def local_stop(error: BaseException | None) -> str | None:
    """The reason, where a KeyboardInterrupt or SystemExit is what ended the body."""
    for wanted in (KeyboardInterrupt, SystemExit):
        found = _first(error, wanted)
        if found is not None:
            return f"stopped by {type(found).__name__}"
    return None


def manual_signal(error: BaseException | None) -> tuple[bool, bool]:
    """(cancelled, paused): whether what left the body is one of these, or a group of them."""
    leaves = leaves_of(error)
    kinds = (InstanceCancelled, InstancePaused)
    if not leaves or not all(isinstance(leaf, kinds) for leaf in leaves):
        return False, False
    cancelled, paused = (any(isinstance(leaf, kind) for leaf in leaves) for kind in kinds)
    return cancelled, paused


def contains(error: BaseException | None, wanted: type[BaseException]) -> bool:
    """Whether ``error`` is a ``wanted``, or a group with one in it."""
    return _first(error, wanted) is not None


def failure_text(error: BaseException) -> str:
    """``Type: message``, a blank line, the traceback; no NUL, at most 1 MiB or so."""
    made = "".join(traceback.format_exception(error))
    text = f"{type(error).__name__}: {message_of(error)}\n\n{made}"
    return storable(text, _LONGEST_TEXT)


_LONGEST_TEXT = 1 << 20


def is_trouble(error: BaseException) -> bool:
    """Whether a store that is away has ended a body, and not a mistake of its own."""
    return all(
        isinstance(leaf, Unreachable) or (isinstance(leaf, StoreError) and leaf.transient)
        for leaf in leaves_of(error)
    )


def _first(error: BaseException | None, wanted: type[BaseException]) -> BaseException | None:
    return next((leaf for leaf in leaves_of(error) if isinstance(leaf, wanted)), None)


def leaves_of(error: BaseException | None) -> list[BaseException]:
    """The exceptions in a group, however deep; of an exception that is no group: itself."""
    if error is None:
        return []
    if isinstance(error, BaseExceptionGroup):
        return [leaf for part in error.exceptions for leaf in leaves_of(part)]
    return [error]
