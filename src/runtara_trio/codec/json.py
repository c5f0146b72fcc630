"""JSON by msgspec."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import msgspec

from . import foreign, reading
from .codec import Codec

T = TypeVar("T")


_TYPE = type
_ENCODE = msgspec.json.Encoder(enc_hook=foreign.to_json).encode
_ENCODE_IN_ORDER = msgspec.json.Encoder(enc_hook=foreign.to_json, order="deterministic").encode


class JsonCodec:
    """JSON by msgspec: structs, dataclasses, attrs classes, TypedDicts, datetimes, unions and so
    on; models of pydantic, paths, numbers and arrays of numpy.

    ``bytes`` are stored as they are, and handed back as they are where ``bytes`` is the
    type asked for. JSON has no NaN and no infinity: they are refused.
    """

    def encode(self, value: Any, /) -> bytes:
        if isinstance(value, (bytes, bytearray, memoryview)):
            return bytes(value)
        data = _ENCODE(value)
        if b"null" in data:  # what msgspec writes for a number that is not finite, too
            check_finite(value)
        return data

    def schema(self, type: Any, /) -> str:
        """The JSON schema of what is decoded to a type."""
        return msgspec.json.encode(foreign.schema(type) or msgspec.json.schema(type)).decode()

    def decode(self, data: bytes, type: type[T], /) -> T:
        if type is bytes:
            return data  # type: ignore[return-value]
        wanted: Any = type
        try:
            # Two unions of one set are equal, and are not read in one order.
            decoder = _decoder(wanted, "" if type.__class__ is _TYPE else repr(wanted))
        except TypeError as exc:
            if "unhashable" not in str(exc):
                raise
            decoder = _decoder.__wrapped__(wanted, "")
        value: T = decoder(data)
        return value

    def check(self, type: Any, /) -> None:
        """Whether a type can be decoded at all. Raises TypeError."""
        if not reading.check(type):
            reading.reader(type)


@functools.lru_cache(maxsize=1024)
def _decoder(kind: Any, shown: str) -> Callable[[bytes], Any]:
    """What decodes a type, which is ``shown`` so where it has parts. Raises TypeError: nothing
    does."""
    try:
        if reading.check(kind):
            return msgspec.json.Decoder(kind, dec_hook=foreign.from_json).decode
    except TypeError:  # an unknown class: where no value is of it, it does no harm
        return msgspec.json.Decoder(kind, dec_hook=foreign.from_json).decode
    read = reading.reader(kind)
    return lambda data: read(msgspec.json.decode(data))


def as_json(value: Any) -> bytes:
    """The same JSON for equal values. Raises TypeError, ValueError."""
    data = _ENCODE_IN_ORDER(value)
    if b"null" in data:
        check_finite(value)
    return data


def check_finite(value: Any) -> None:
    """Raises ValueError where a value holds NaN or an infinity; it names the place."""
    try:
        plain = msgspec.to_builtins(value, enc_hook=foreign.to_json)
    except TypeError:  # of msgspec.Raw, which is JSON already
        return
    try:
        json.dumps(plain, allow_nan=False)
    except ValueError as exc:
        found = next(_not_finite(plain, ""), None)
        if found is not None:
            place, number = found
            raise ValueError(
                f"{place or 'it'} is {number}, and JSON has only finite numbers; save None, a "
                "text or a Decimal instead"
            ) from exc


def _not_finite(value: Any, place: str) -> Iterator[tuple[str, float]]:
    if isinstance(value, float):
        if not math.isfinite(value):
            yield place, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _not_finite(item, f"{place}[{key!r}]")
    elif isinstance(value, (list, tuple)):
        for number, item in enumerate(value):
            yield from _not_finite(item, f"{place}[{number}]")


JSON: Codec = JsonCodec()
"""The default codec."""
