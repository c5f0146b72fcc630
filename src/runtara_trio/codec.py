"""How values become bytes: a small protocol, and JSON by msgspec behind it.

Never pickle: stored bytes outlive the code that wrote them, and are read by others. A
codec that compresses or encrypts wraps :data:`JSON` in a few lines::

    class Compressed:
        def encode(self, value):
            return zlib.compress(JSON.encode(value))

        def decode(self, data, type):
            return JSON.decode(zlib.decompress(data), type)
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any, Protocol, TypeVar

import msgspec
import msgspec.inspect

from .errors import CodecError, ConfigError, message_of
from .ids import check_text

T = TypeVar("T")

MAX_STATE = 64 * 1024 * 1024 - 4096
"""Bytes of one state, output, error or payload: runtara-core's largest frame, less its head."""


class Codec(Protocol):
    """Encodes what a program saves and decodes what it gets back.

    It may have a method ``check(type)``, which raises where it can decode no such type: a
    durable function is then refused before it runs. And a method ``schema(type)``, which returns
    the JSON schema of a type as a text: the console makes a form of it.
    """

    def encode(self, value: Any, /) -> bytes:
        """The bytes to store. May raise anything; the SDK turns it into CodecError."""

    def decode(self, data: bytes, type: type[T], /) -> T:
        """The value of ``type`` in ``data``. May raise anything, likewise."""


class JsonCodec:
    """JSON by msgspec: structs, dataclasses, TypedDicts, datetimes, unions and so on.

    ``bytes`` are stored as they are, and handed back as they are where ``bytes`` is the
    type asked for. JSON has no NaN and no infinity: they are refused.
    """

    def encode(self, value: Any, /) -> bytes:
        if isinstance(value, (bytes, bytearray, memoryview)):
            return bytes(value)
        data = msgspec.json.encode(value)
        if b"null" in data:  # what msgspec writes for a number that is not finite, too
            check_finite(value)
        return data

    def schema(self, type: Any, /) -> str:
        """The JSON schema of what is decoded to a type."""
        return msgspec.json.encode(msgspec.json.schema(type)).decode()

    def decode(self, data: bytes, type: type[T], /) -> T:
        if type is bytes:
            return data  # type: ignore[return-value]
        return msgspec.json.decode(data, type=type)

    def check(self, type: Any, /) -> None:
        """Whether a type can be decoded at all. Raises TypeError."""
        for part in _parts(msgspec.inspect.type_info(type)):
            if isinstance(part, msgspec.inspect.CustomType):
                raise TypeError(
                    f"{part.cls.__name__} is not a struct, a dataclass or other known type"
                )


def check_finite(value: Any) -> None:
    """Raises ValueError where a value holds NaN or an infinity; it names the place."""
    try:
        plain = msgspec.to_builtins(value)
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


def _parts(info: Any) -> Iterator[Any]:
    """A type and the types that it is made of; fields of classes are left out."""
    yield info
    for name in ("types", "item_types"):
        for part in getattr(info, name, ()):
            yield from _parts(part)
    for name in ("type", "item_type", "key_type", "value_type"):
        part = getattr(info, name, None)
        if isinstance(part, msgspec.inspect.Type):
            yield from _parts(part)


JSON: Codec = JsonCodec()
"""The default codec."""


def encode(codec: Codec, name: str, value: Any) -> bytes:
    """The bytes of ``value``, checked against the limit of every backend.

    Raises:
      CodecError: the codec has no bytes for it.
      ConfigError: more than 64 MiB − 4 KiB.
    """
    try:
        data = codec.encode(value)
    except Exception as exc:
        raise CodecError(
            f"{name}: {type(codec).__name__} cannot encode a {type(value).__name__}: "
            f"{message_of(exc)}"
        ) from exc
    if not isinstance(data, bytes):
        raise CodecError(
            f"{name}: {type(codec).__name__}.encode returned a {type(data).__name__}, not bytes"
        )
    if len(data) > MAX_STATE:
        raise ConfigError(
            f"{name} has {len(data)} bytes, at most {MAX_STATE} are stored; "
            "keep the data elsewhere and save where it is"
        )
    return data


def check_type(codec: Codec, name: str, wanted: Any) -> None:
    """Whether the codec can decode such a type at all, if it can tell. Raises CodecError."""
    check = getattr(codec, "check", None)
    if check is None:
        return
    try:
        check(wanted)
    except Exception as exc:
        raise CodecError(
            f"{name}: {type(codec).__name__} cannot decode a "
            f"{getattr(wanted, '__name__', wanted)}: {message_of(exc)}"
        ) from exc


def schema_of(codec: Codec, wanted: Any) -> str | None:
    """The JSON schema of a type, if the codec can tell; it is for people, and never an error."""
    schema = getattr(codec, "schema", None)
    if schema is None or wanted is bytes:
        return None
    try:
        return str(schema(wanted))
    except Exception:
        return None


def decode(codec: Codec, name: str, data: bytes, wanted: type[T]) -> T:
    """The value of type ``wanted`` in ``data``. Raises CodecError."""
    try:
        return codec.decode(data, wanted)
    except Exception as exc:
        head = data if len(data) <= 40 else data[:37] + b"..."
        raise CodecError(
            f"{name}: {type(codec).__name__} finds no "
            f"{getattr(wanted, '__name__', wanted)} in {head!r}: {message_of(exc)}"
        ) from exc


def encode_sent(codec: Codec, name: str, value: Any) -> bytes:
    """The bytes of what a person sends. A text is sent as it is typed: as its UTF-8.

    One that begins with a quote is encoded, or :func:`decode_sent` would take it for JSON.

    Raises as :func:`encode` does.
    """
    if isinstance(value, str) and not value.startswith('"'):
        value = check_text(name, value).encode()
    return encode(codec, name, value)


def decode_sent(codec: Codec, name: str, data: bytes, wanted: type[T]) -> T:
    """What a person sent, as a ``wanted``. Typed at a terminal, ``yes`` stands for ``"yes"``.

    Raises:
      CodecError: neither it nor its text is a ``wanted``.
    """
    try:
        return decode(codec, name, data, wanted)
    except CodecError as exc:
        if wanted is bytes:
            raise
        try:
            text = codec.decode(data, bytes).decode()
            return codec.decode(codec.encode(text), wanted)
        except Exception:
            raise exc from exc.__cause__
