"""Codecs around codecs: what is read, what is refused, and what the error says."""

from __future__ import annotations

import secrets
from typing import Any

import pytest
import zstandard

from runtara_trio import CodecError, ConfigError
from runtara_trio.codec import (
    JSON,
    MAX_STATE,
    Codec,
    Compressed,
    Encrypted,
    Place,
    at,
    decode,
    encode,
)
from runtara_trio.codec.marks import COMPRESSED

from ..helpers.support import block

OLD, NEW = secrets.token_bytes(32), secrets.token_bytes(32)
HERE = Place("order-7", "state", "charge")
ENCRYPTED = Encrypted(JSON, {"old": OLD})


def encoded(codec: Codec, value: Any, place: Place = HERE) -> bytes:
    return encode(at(codec, place), "it", value)


def decoded(codec: Codec, data: bytes, wanted: Any = str, place: Place = HERE) -> Any:
    return decode(at(codec, place), "it", data, wanted)


@pytest.mark.parametrize(
    "codec",
    [
        ENCRYPTED,
        Compressed(JSON),
        Encrypted(Compressed(JSON), {"old": OLD}),
        Compressed(ENCRYPTED),
        Encrypted(ENCRYPTED, {"new": NEW}),
    ],
    ids=repr,
)
@pytest.mark.parametrize("value", ["", "text", b"", b"\xff\0bytes", [1] * 10_000, {"a": None}])
def test_values_come_back(codec: Codec, value: Any) -> None:
    data = encoded(codec, value)
    assert decoded(codec, data, type(value)) == value
    assert decoded(codec, data, bytes) == JSON.encode(value)


def test_what_is_compressed_is_shorter() -> None:
    assert len(encoded(Compressed(JSON), ["a text"] * 1000)) < 100
    assert len(encoded(Compressed(JSON), "x")) == len(b'"x"') + len(COMPRESSED) + 1


@pytest.mark.parametrize(
    "elsewhere",
    [
        Place("order-8", "state", "charge"),
        Place("order-7", "state", "refund"),
        Place("order-7", "message", "charge"),
    ],
)
def test_nothing_is_read_in_another_place(elsewhere: Place) -> None:
    data = encoded(ENCRYPTED, "secret")
    with pytest.raises(CodecError, match="damaged, or was moved here"):
        decoded(ENCRYPTED, data, place=elsewhere)


def test_the_same_value_is_the_same_bytes_in_one_place_only() -> None:
    data = encoded(ENCRYPTED, "secret")
    assert encoded(ENCRYPTED, "secret") == data
    others = [
        encoded(ENCRYPTED, "secreT"),
        encoded(ENCRYPTED, "secret", Place("order-8", "state", "charge")),
        encoded(ENCRYPTED, "secret", Place("order-7", "state", "refund")),
        encoded(Encrypted(JSON, {"old": NEW}), "secret"),
    ]
    nonces = {one[len(data) - len('"secret"') - 28 :][:12] for one in [data, *others]}
    assert len(nonces) == 5


def test_the_first_key_writes_and_all_read() -> None:
    both = Encrypted(JSON, {"new": NEW, "old": OLD})
    assert decoded(both, encoded(ENCRYPTED, "before")) == "before"
    data = encoded(both, "after")
    assert decoded(Encrypted(JSON, {"new": NEW}), data) == "after"
    with pytest.raises(CodecError, match="by the key 'new', and given are 'old'; add it"):
        decoded(ENCRYPTED, data)


def test_a_wrong_key_is_told_from_damage() -> None:
    data = encoded(ENCRYPTED, "secret")
    with pytest.raises(CodecError, match="by another key than the one that is given as 'old'"):
        decoded(Encrypted(JSON, {"old": NEW}), data)
    for length in range(len(data)):
        with pytest.raises(CodecError, match=r"it is (damaged|not encrypted|encrypted by the key)"):
            decoded(ENCRYPTED, data[:length])
    for at_byte in range(data.index(b"old") + len("old") + 4, len(data)):
        wrong = bytearray(data)
        wrong[at_byte] ^= 1
        with pytest.raises(CodecError, match="it is damaged"):
            decoded(ENCRYPTED, bytes(wrong))


def test_a_codec_that_changed_is_told() -> None:
    with pytest.raises(CodecError, match="it is encrypted with the key 'old': give the codec"):
        decoded(JSON, encoded(ENCRYPTED, "secret"))
    with pytest.raises(CodecError, match="it is compressed: give the codec Compressed"):
        decoded(JSON, encoded(Compressed(JSON), "text"))
    with pytest.raises(CodecError, match=r"not encrypted: .*plain=True\) reads it"):
        decoded(ENCRYPTED, b'"text"')
    assert decoded(Compressed(JSON), b'"text"') == "text"
    assert decoded(Encrypted(JSON, {"old": OLD}, plain=True), b'"text"') == "text"


@pytest.mark.parametrize("size", [MAX_STATE + 1, 2**40])
def test_no_more_is_unpacked_than_a_state_may_have(size: int) -> None:
    """What it says of its size decides: nothing is reserved for it before."""
    packed = zstandard.ZstdCompressor().compress(b"\0" * 1000)
    head = packed[:4] + b"\xe0" + size.to_bytes(8, "little")  # a frame with its size in 8 bytes
    with pytest.raises(CodecError, match=f"damaged: it says that it has {size} bytes"):
        decoded(Compressed(JSON), COMPRESSED + b"\1" + head + packed[6:])


def test_a_damaged_frame() -> None:
    data = encoded(Compressed(JSON), ["a text"] * 1000)
    for wrong in (data[:-1], data + b"x", data[: len(COMPRESSED) + 1], COMPRESSED):
        with pytest.raises(CodecError, match=r"it"):
            decoded(Compressed(JSON), wrong, list)


@pytest.mark.parametrize("codec", [ENCRYPTED, Compressed(JSON), Compressed(ENCRYPTED)], ids=repr)
def test_a_value_of_another_type_is_told_as_it_is_without(codec: Codec) -> None:
    data = encoded(codec, "text")
    with pytest.raises(CodecError, match=r"it: JsonCodec finds no int in b'\"text\"': Expected"):
        decoded(codec, data, int)


@pytest.mark.parametrize("codec", [Compressed(JSON), Encrypted(Compressed(JSON), {"old": OLD})])
def test_no_more_is_packed_than_is_unpacked(codec: Codec) -> None:
    with pytest.raises(CodecError, match=f"it has {MAX_STATE + 1} bytes before"):
        encoded(codec, bytes(MAX_STATE + 1))


class OfNumbers:
    """A codec that stores bytes in another way."""

    def encode(self, value: Any) -> bytes:
        return repr(value).encode()

    def decode(self, data: bytes, type: Any) -> Any:
        return type(data)


def test_what_stores_bytes_otherwise_cannot_be_inside() -> None:
    """Nobody could encode it for another place."""
    with pytest.raises(ConfigError, match="OfNumbers cannot be inside Encrypted: it must store"):
        Encrypted(OfNumbers(), {"old": OLD})
    with pytest.raises(ConfigError, match="OfNumbers cannot be inside Compressed"):
        Compressed(OfNumbers())


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({}, "at least one key"),
        (None, "at least one key"),
        ({"a": b"short"}, "'a' must be 32 random bytes, .* it is 5 bytes"),
        ({"a": "x" * 32}, "it is a str"),
        ({"": OLD}, "1 to 64 bytes, not ''"),
        ({"k" * 65: OLD}, "1 to 64 bytes"),
        ({1: OLD}, "1 to 64 bytes, not 1"),
        ({"\ud800": OLD}, "1 to 64 bytes, not"),
    ],
)
def test_invalid_keys(keys: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        Encrypted(JSON, keys)


@pytest.mark.parametrize("level", [0, 23, True, "3"])
def test_invalid_levels(level: Any) -> None:
    with pytest.raises(ConfigError, match="1 to 22"):
        Compressed(JSON, level=level)


async def test_a_codec_around_it_must_hand_on_the_place(memory: Any) -> None:
    """Else nothing would be bound to its place, and nobody would know."""

    class Around:
        encode = staticmethod(ENCRYPTED.encode)
        decode = staticmethod(ENCRYPTED.decode)

    async with block(memory, codec=Around()) as sdk:
        with pytest.raises(CodecError, match=r"needs a method at\(place\)"):
            await sdk.checkpoint("a", 1)
