"""Ids: their limits, and the ids of what the SDK stores beside the user's checkpoints.

The limits hold on every backend and are checked before anything is written, so that a
program that runs on SQLite does not fail on its first day on PostgreSQL.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable
from urllib.parse import unquote

from .errors import ConfigError

MAX_INSTANCE_ID = 512
MAX_CHECKPOINT_ID = 1024
RESERVED = "runtara_trio::"

STEP_BEGINS, STEP_ENDS = "step_debug_start", "step_debug_end"
"""The subtypes of the pair of events of a step, which Runtara's own tools show."""

DURABLE = "durable::"
RERUN, FORKED, FORK_OF = "runtara_trio_rerun", "runtara_trio_forked", "runtara_trio_fork_of"
"""The subtypes of the events that say so."""
_LONGEST_KIND = 32  # "deadline::" and the like


def check_instance_id(value: object) -> str:
    """An instance id: 1 to 512 bytes of UTF-8 without NUL. Raises ConfigError."""
    return _named("instance_id", value)


def check_tenant_id(value: object) -> str:
    """A tenant id: 1 to 512 bytes of UTF-8 without NUL. Raises ConfigError."""
    return _named("tenant_id", value)


def check_name_of(what: str, value: object) -> str:
    """The name of a workflow, a queue, a key or a worker: 1 to 512 bytes of UTF-8 without NUL.

    Raises:
      ConfigError: names ``what`` it is, and what is wrong with it.
    """
    return _named(what, value)


def check_checkpoint_id(value: object) -> str:
    """A user's checkpoint id: up to 1,024 bytes of UTF-8, no NUL, not reserved.

    Empty is legal, as on runtara-core.

    Raises:
      ConfigError: names what is wrong with it.
    """
    checked = _limited("checkpoint_id", value, MAX_CHECKPOINT_ID)
    if checked.startswith(RESERVED):
        raise ConfigError(
            f"checkpoint_id {checked!r} begins with {RESERVED!r}, which the SDK keeps "
            "for its own records; choose another name"
        )
    return checked


def check_stored_id(value: object) -> str:
    """A checkpoint id as another SDK sends it: records of the SDK's own are legal.

    Raises:
      ConfigError: names what is wrong with it.
    """
    return _limited("checkpoint_id", value, MAX_CHECKPOINT_ID + len(RESERVED) + _LONGEST_KIND)


def check_subtype(value: object) -> str:
    """A custom event's subtype: up to 1,024 bytes of UTF-8 without NUL. Raises ConfigError."""
    return _limited("subtype", value, MAX_CHECKPOINT_ID)


def check_text(name: str, value: object) -> str:
    """Any text that is stored as UTF-8: no NUL, no lone surrogate. Raises ConfigError."""
    if not isinstance(value, str):
        raise ConfigError(f"{name} must be a str, not {type(value).__name__}: {value!r}")
    if "\0" in value:
        raise ConfigError(f"{name} holds a NUL character, which PostgreSQL cannot store")
    try:
        value.encode()
    except UnicodeEncodeError as exc:
        raise ConfigError(
            f"{name} holds a lone surrogate at position {exc.start}, which is not valid UTF-8: "
            f"{_shown(value)}"
        ) from exc
    return value


def storable(text: str, most: int) -> str:
    """A text that every backend stores: up to so many characters, a NUL and lone surrogates
    escaped as Python writes them."""
    return text[:most].replace("\0", "\\x00").encode(errors="backslashreplace").decode()


def escape(part: str) -> str:
    """``%``, ``/`` and ``:`` percent-escaped, so that joined parts never meet."""
    return part.replace("%", "%25").replace("/", "%2F").replace(":", "%3A")


def escape_slashes(part: str) -> str:
    """An id that stands below a path: ``%`` and ``/`` percent-escaped."""
    return part.replace("%", "%25").replace("/", "%2F")


def shortened(text: str, most: int = MAX_CHECKPOINT_ID) -> str:
    """An id that fits every backend: one that is too long keeps its start, and gets ``~`` and
    its SHA-256."""
    data = text.encode()
    if len(data) <= most:
        return text
    digest = f"~{hashlib.sha256(data).hexdigest()}"
    return data[: most - len(digest)].decode(errors="ignore") + digest


def child_id(parent_id: str, parts: Iterable[str]) -> str:
    """The id of a child: its parent's, a slash, and the parts of its path, escaped already."""
    return shortened(f"{parent_id}/{'::'.join(parts)}", MAX_INSTANCE_ID)


def step_key(instance_id: str, checkpoint_id: str) -> str:
    """One text for an instance and a checkpoint id; two different pairs never share one."""
    return f"{escape(instance_id)}/{checkpoint_id}"


def wake_id(checkpoint_id: str) -> str:
    """Where the wake time of a sleep is stored: 8 bytes, Unix ms, big-endian."""
    return f"{RESERVED}wake::{checkpoint_id}"


def exit_id(wake_at_ms: int) -> str:
    """Where a core keeps when a program is to be started again, each time under another id: it
    takes none twice."""
    return f"{RESERVED}exit::{wake_at_ms}::{secrets.token_hex(4)}"


def signal_id(checkpoint_id: str) -> str:
    """Where a custom signal is stored once it was handed out: byte 1 and the payload."""
    return f"{RESERVED}signal::{checkpoint_id}"


def signal_record(payload: bytes) -> bytes:
    """What is stored for a custom signal that was handed out."""
    return b"\1" + payload


def ended_id(checkpoint_id: str) -> str:
    """Where it is stored how the work under a deadline ended: byte 1 in time, 0 too late."""
    return f"{RESERVED}ended::{checkpoint_id}"


def failure_id(checkpoint_id: str, generation: int = 0) -> str:
    """Where the final failure of a durable call is stored, in a text of JSON.

    ``generation``: how often the instance was revived where a revive cannot remove them.
    """
    kind = f"failure-{generation}" if generation else "failure"
    return f"{RESERVED}{kind}::{checkpoint_id}"


FAILURES = f"{RESERVED}failure"
"""How the ids of saved failures begin."""


def is_failure(stored: str) -> bool:
    """Whether a stored id is that of a saved failure."""
    return stored.startswith(FAILURES)


def revived_id(number: int) -> str:
    """Where a client of a runtara-core, which removes nothing, counts revives, from 1."""
    return f"{RESERVED}revived::{number}"


def inside_id(checkpoint_id: str) -> str:
    """Where the ids are stored that a durable call used inside: a JSON list, or nothing where
    they were too many."""
    return f"{RESERVED}inside::{checkpoint_id}"


def refused_id(checkpoint_id: str) -> str:
    """Stored where a signal was not of the type that was waited for: it may be replaced."""
    return f"{RESERVED}refused::{checkpoint_id}"


TIMED_OUT = b"\0"
"""What is stored for one that nobody waits for any more."""


def signal_payload(record: bytes | None) -> bytes | None:
    """The payload in such a record; None: there is none, or the wait has timed out."""
    return None if record is None or record == TIMED_OUT else record[1:]


def timeout_id(checkpoint_id: str) -> str:
    """Where the time is stored until which a wait lasts: 8 bytes, Unix ms, big-endian."""
    return f"{RESERVED}timeout::{checkpoint_id}"


def deadline_id(checkpoint_id: str) -> str:
    """Where a deadline is stored: 8 bytes, Unix ms, big-endian."""
    return f"{RESERVED}deadline::{checkpoint_id}"


WORKFLOW_TIMEOUT = f"{RESERVED}workflow"
"""The id of the deadline of a whole workflow."""


def started_id(path: str) -> str:
    """Where it is stored that an instance of its own right was started: its id."""
    return f"{RESERVED}started::{path}"


def message_id(name: str) -> str:
    """What a run waits for that receives a message; and how the ids of messages begin."""
    return f"{RESERVED}message::{escape(name)}::"


MESSAGES = f"{RESERVED}message::"


def numbered_message_id(name: str, number: int) -> str:
    """Where a message waits, beside custom signals; they sort as they were sent."""
    return f"{message_id(name)}{number:015d}"


def waited_for(checkpoint_id: str) -> str:
    """What somebody waits for who is hinted at a custom signal of this id: of a message, what all
    of its name begin with."""
    if not checkpoint_id.startswith(MESSAGES):
        return checkpoint_id
    return checkpoint_id.rpartition("::")[0] + "::"


def received_id(path: str, name: str, number: int) -> str:
    """Where the n-th message is stored that a path has received under a name, from 0."""
    return f"{RESERVED}received::{path}{escape(name)}::{number}"


def received_name(named: str) -> str:
    """The name of the messages in what follows the kind in such an id."""
    return unquote(named.rpartition("::")[0].rpartition("/")[2])


def first_id(path: str) -> str:
    """Where it is stored which of several calls was first: its number, from 0."""
    return f"{RESERVED}first::{path}"


def attributes_id(path: str, digest: str, number: int) -> str:
    """Where it is stored that attributes were set, for the n-th time the same, from 0."""
    return f"{RESERVED}attributes::{path}{digest}::{number}"


def acknowledgement_id(number: int) -> str:
    """Where a client of a runtara-core stores the signals that it acknowledged, from 1."""
    return f"{RESERVED}ack::{number}"


RETRY = "::retry::"
"""What stands between a step and the number of an attempt."""


def retry_id(checkpoint_id: str, attempt: int) -> str:
    """Where runtara-core on SQLite records a retry."""
    return f"{checkpoint_id}{RETRY}{attempt}"


def attempted(stored: str) -> str | None:
    """The step that a stored id records an attempt at; None: it records none."""
    step, separator, attempt = stored.rpartition(RETRY)
    is_number = attempt.isascii() and attempt.isdecimal()
    return step if separator and is_number else None


def is_attempt(stored: str) -> bool:
    """Whether a stored id records an attempt at a step."""
    return attempted(stored) is not None


def own_record(stored: str) -> tuple[str, str]:
    """The kind of a record of the SDK's own, and what follows it; ("", …) for other ids."""
    if not stored.startswith(RESERVED):
        return "", stored
    kind, _, named = stored.removeprefix(RESERVED).partition("::")
    return kind, named


def users_id(stored: str) -> str | None:
    """The user's id that something was stored for: itself, its wake time, its signal, a
    retry of it. None: a record of the SDK's own."""
    kind, named = own_record(stored)
    if kind.partition("-")[0] not in _OF_USERS:
        return None
    step = attempted(named)
    return named if step is None else step


_OF_USERS = ("", "wake", "signal", "deadline", "ended", "timeout", "failure")
"""The kinds of records that are stored for an id of the user's."""


def _named(name: str, value: object) -> str:
    text = _limited(name, value, MAX_INSTANCE_ID)
    if not text:
        raise ConfigError(f"{name} is empty")
    return text


def _limited(name: str, value: object, limit: int) -> str:
    text = check_text(name, value)
    size = len(text.encode())
    if size > limit:
        raise ConfigError(
            f"{name} has {size} bytes of UTF-8, at most {limit} are stored; shorten {_shown(text)}"
        )
    return text


def _shown(text: str) -> str:
    return ascii(text if len(text) <= 60 else text[:57] + "...")
