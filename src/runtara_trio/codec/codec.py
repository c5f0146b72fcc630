"""The protocol of codecs, and what every encoding and decoding is checked by."""

from __future__ import annotations

from typing import Any, Protocol, TypeVar

from ..errors import CodecError, ConfigError, message_of
from ..ids import check_text
from .marks import written_by

T = TypeVar("T")

MAX_STATE = 64 * 1024 * 1024 - 4096
"""Bytes of one state, output, error or payload: runtara-core's largest frame, less its head."""


class Codec(Protocol):
    """Encodes what a program saves and decodes what it gets back.

    It may have a method ``check(type)``, which raises where it can decode no such type: a
    durable function is then refused before it runs. A method ``schema(type)``, which returns
    the JSON schema of a type as a text: the console makes a form of it. And a method ``at(place)``,
    which returns the codec of one :class:`Place`.
    """

    def encode(self, value: Any, /) -> bytes:
        """The bytes to store of a value. May raise anything; the SDK turns it into CodecError."""

    def decode(self, data: bytes, type: type[T], /) -> T:
        """The value of ``type`` in ``data``. May raise anything, likewise."""


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
        return decoded(codec, data, wanted)
    except CodecError as exc:
        raise CodecError(f"{name}: {exc}") from exc


def decoded(codec: Codec, data: bytes, wanted: type[T]) -> T:
    """The same of what has no name; for codecs around others."""
    try:
        return codec.decode(data, wanted)
    except CodecError:
        raise
    except Exception as exc:
        by = written_by(data)
        if by is not None:
            raise CodecError(f"it is {by}") from exc
        head = data if len(data) <= 40 else data[:37] + b"..."
        raise CodecError(
            f"{type(codec).__name__} finds no "
            f"{getattr(wanted, '__name__', wanted)} in {head!r}: {message_of(exc)}"
        ) from exc


class Around:
    """What codecs around another one leave to it."""

    _codec: Codec

    def check(self, type: Any, /) -> None:
        """Whether a type can be decoded. Raises whatever the other codec raises."""
        check = getattr(self._codec, "check", None)
        if check is not None:
            check(type)

    def schema(self, type: Any, /) -> str | None:
        """The JSON schema of a type, if the other codec has one."""
        return schema_of(self._codec, type)


def check_inner(codec: Codec, around: str) -> None:
    """Whether a codec can be inside another one: what it is given as bytes it stores as they are,
    and gives as bytes what it has stored. So they are read for another place, and for people.

    Raises:
      ConfigError: it cannot.
    """
    if hasattr(codec, "at"):  # it must be told a place first, and has been looked at itself
        return
    try:
        stored = codec.encode({}), codec.encode(b"\xff")
        kept = stored[1] == b"\xff" and codec.decode(stored[0], bytes) == stored[0]
    except Exception:
        kept = False
    if not kept:
        raise ConfigError(
            f"{type(codec).__name__} cannot be inside {around}: it must store bytes as they are, "
            "and decode(data, bytes) must give the data"
        )


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
