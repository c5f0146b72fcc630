"""Where a value is stored: a codec that encrypts binds its bytes to that, so that they mean nothing
in any other place.

A codec that has a method ``at(place)`` is asked by it for the codec of each place. One that has a
true ``seals``, too, is given texts that would otherwise be stored as they are: errors, summaries.
"""

from __future__ import annotations

import base64
from typing import Literal, NamedTuple

from ..errors import CodecError, message_of
from ..ids import TIMED_OUT, attempted, own_record, received_name
from .codec import Codec, decode
from .marks import written_by

Kind = Literal[
    "state", "input", "output", "message", "event", "error", "attempt", "summary", "schedule"
]

SEALED = "sealed:"
"""How a text begins whose rest is the base64 of what a codec has made of it."""


class Place(NamedTuple):
    """One place of a store."""

    instance_id: str
    """Of a schedule's arguments: empty."""
    kind: Kind
    """What it is: of a checkpoint, and of the signal that becomes one, "state"."""
    id: str = ""
    """Which one: the checkpoint's id, the message's name, the event's subtype, the schedule's name;
    empty where an instance has but one."""


def at(codec: Codec, place: Place) -> Codec:
    """The codec of one place."""
    method = getattr(codec, "at", None)
    bound: Codec = codec if method is None else method(place)
    return bound


def is_bound(codec: Codec) -> bool:
    """Whether what it writes means nothing in another place."""
    return hasattr(codec, "at")


def seal(codec: Codec, place: Place, text: str) -> str:
    """A text as it is stored."""
    if not getattr(codec, "seals", False):
        return text
    return SEALED + base64.b64encode(at(codec, place).encode(text.encode())).decode()


def unseal(codec: Codec, place: Place, stored: str) -> str:
    """A stored text, for people; of one that cannot be read, why."""
    try:
        return unsealed(codec, place, stored)
    except Exception as exc:
        return f"({message_of(exc)})"


def unsealed(codec: Codec, place: Place, stored: str) -> str:
    """A stored text. Raises CodecError."""
    if not stored.startswith(SEALED):
        return stored
    try:
        data = base64.b64decode(stored.removeprefix(SEALED), validate=True)
    except ValueError:  # somebody's own text
        return stored
    if getattr(codec, "seals", False):
        return decode(at(codec, place), place.kind, data, bytes).decode(errors="replace")
    by = written_by(data)
    if by is not None:
        raise CodecError(f"it is {by}")
    return stored


def error_text(codec: Codec, instance_id: str, stored: str | None) -> str | None:
    """The error of an instance, for people."""
    return None if stored is None else unseal(codec, Place(instance_id, "error"), stored)


def reveal(codec: Codec, place: Place, data: bytes) -> bytes:
    """Stored bytes as the innermost codec has written them, for people; what cannot be read stays
    as it is."""
    if not is_bound(codec):
        return data
    try:
        return at(codec, place).decode(data, bytes)
    except Exception:
        return data


def plain(codec: Codec, place: Place, name: str, data: bytes) -> bytes:
    """Stored bytes as the innermost codec has written them. Raises CodecError."""
    return decode(at(codec, place), name, data, bytes) if is_bound(codec) else data


def resealed(codec: Codec, data: bytes, old: Place, new: Place) -> bytes:
    """What is stored in one place, for another one. Raises CodecError."""
    if not is_bound(codec):
        return data
    return at(codec, new).encode(plain(codec, old, f"{old.kind} {old.id!r}", data))


def stored_place(instance_id: str, stored: str) -> tuple[Place, int] | None:
    """The place of what is stored under a checkpoint id, and how many bytes of a record stand
    before it. None: nothing of a codec's is stored there."""
    kind, named = own_record(stored)
    if kind == "" or kind.startswith("failure"):
        return Place(instance_id, "state", stored), 0
    if kind == "signal":
        return Place(instance_id, "state", named), 1
    if kind == "received":
        return Place(instance_id, "message", received_name(named)), 1
    return None


def revealed(codec: Codec, instance_id: str, stored: str, state: bytes) -> bytes:
    """What is stored under a checkpoint id, for people."""
    step = attempted(stored)
    if step is not None and state.startswith(SEALED.encode()):
        return unseal(codec, Place(instance_id, "attempt", step), state.decode()).encode()
    found = stored_place(instance_id, stored)
    if found is None or state == TIMED_OUT:
        return state
    place, before = found
    return state[:before] + reveal(codec, place, state[before:])


def copied(codec: Codec, old: str, new: str, stored: str | None, state: bytes) -> bytes:
    """What is stored under a checkpoint id of one instance, for another one; of None, its
    arguments. Raises CodecError."""
    if stored is None:
        return resealed(codec, state, Place(old, "input"), Place(new, "input"))
    step = attempted(stored)
    if step is not None and state.startswith(SEALED.encode()):
        text = unsealed(codec, Place(old, "attempt", step), state.decode())
        return seal(codec, Place(new, "attempt", step), text).encode()
    found, wanted = stored_place(old, stored), stored_place(new, stored)
    if found is None or wanted is None or state == TIMED_OUT:
        return state
    before = found[1]
    if step is not None and written_by(state[before:]) is None:
        return state  # the text of an attempt, by who has no codec
    return state[:before] + resealed(codec, state[before:], found[0], wanted[0])
