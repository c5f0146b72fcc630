"""Values that nobody reads, and nobody moves to another place, without the key."""

from __future__ import annotations

import copy
import functools
import hmac
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from ..errors import CodecError, ConfigError
from .codec import Around, Codec, check_inner, decoded
from .marks import ENCRYPTED
from .places import Place, at

T = TypeVar("T")

KEY_BYTES = 32
MAX_KEY_ID = 64
"""Bytes."""
_CHECK, _NONCE = 4, 12


class Encrypted(Around):
    """Encrypts what another codec has made, by AES-256-GCM; for ``codec=...``, of all that open one
    store::

        codec = Encrypted(JSON, {"2026-11": key})

    What is stored is bound to its instance and its id: moved to another place it cannot be read.
    The same value in the same place gives the same bytes, so that what is sent twice is still known
    as one. Ids, names, attributes, times and sizes stay readable; see ``docs/codecs.md``.

    Args:
      codec: makes the bytes, as :data:`JSON`, or ``Compressed(JSON)``.
      keys: 32 random bytes each, by the id that is stored with each value: up to 64 bytes of UTF-8.
        The first one writes, all read.
      plain: also read what was stored without encryption. It is no error then that somebody has
        replaced a value by one of their own.

    Raises:
      ConfigError: no key, or an invalid one.
    """

    seals = True

    def __init__(self, codec: Codec, keys: Mapping[str, bytes], *, plain: bool = False) -> None:
        if not isinstance(keys, Mapping) or not keys:
            raise ConfigError("Encrypted needs at least one key, as {'2026-11': 32 bytes}")
        for name, key in keys.items():
            _check_key(name, key)
        check_inner(codec, "Encrypted")
        self._codec = codec
        self._keys = dict(keys)
        self._plain = plain
        self._place: Place | None = None

    def __repr__(self) -> str:
        return f"<Encrypted by {next(iter(self._keys))!r} of {list(self._keys)}>"

    def at(self, place: Place) -> Encrypted:
        """The codec of one place."""
        bound = copy.copy(self)
        bound._place, bound._codec = place, at(self._codec, place)
        return bound

    def encode(self, value: Any, /) -> bytes:
        place = self._bound()
        plain = self._codec.encode(value)
        name, key = next(iter(self._keys.items()))
        cipher, nonces = _of_instance(key, place.instance_id)
        written = name.encode()
        head = b"".join((ENCRYPTED, bytes([len(written)]), written, _check_of(key)))
        bound_to = _bound_to(head, place)
        # One for each value in each place: no two share one, and a value has always the same.
        nonce = hmac.digest(nonces, bound_to + plain, "sha256")[:_NONCE]
        return head + nonce + cipher.encrypt(nonce, plain, bound_to)

    def decode(self, data: bytes, type: type[T], /) -> T:
        place = self._bound()
        if not data.startswith(ENCRYPTED):
            if self._plain:
                return decoded(self._codec, data, type)
            raise CodecError(
                "it is not encrypted: it was stored by another codec, or by none; where that was "
                "so before, Encrypted(..., plain=True) reads it"
            )
        name_from = len(ENCRYPTED) + 1
        check_from = name_from + data[name_from - 1] if len(data) >= name_from else len(data)
        name = data[name_from:check_from].decode(errors="replace")
        key = self._keys.get(name)
        if key is None:
            known = ", ".join(repr(one) for one in self._keys)
            raise CodecError(f"it is encrypted by the key {name!r}, and given are {known}; add it")
        nonce_from = check_from + _CHECK
        head, nonce = data[:nonce_from], data[nonce_from : nonce_from + _NONCE]
        if len(head) == nonce_from and head[check_from:] != _check_of(key):
            raise CodecError(
                f"it is encrypted by another key than the one that is given as {name!r}"
            )
        cipher, _ = _of_instance(key, place.instance_id)
        try:
            plain = cipher.decrypt(nonce, data[nonce_from + _NONCE :], _bound_to(head, place))
        except (InvalidTag, ValueError) as exc:
            raise CodecError("it is damaged, or was moved here from another place") from exc
        return decoded(self._codec, plain, type)

    def _bound(self) -> Place:
        if self._place is None:
            raise CodecError(
                "Encrypted must be told the place of a value: a codec around it needs a method "
                "at(place), which returns one around encrypted.at(place)"
            )
        return self._place


@functools.lru_cache(maxsize=4096)
def _of_instance(key: bytes, instance_id: str) -> tuple[AESGCM, bytes]:
    """The cipher of an instance, and the key of its nonces: a cipher for each, since one may
    encrypt 2**32 values."""
    made = _derived(key, b"instance " + instance_id.encode(), 2 * KEY_BYTES)
    return AESGCM(made[:KEY_BYTES]), made[KEY_BYTES:]


@functools.lru_cache(maxsize=64)
def _check_of(key: bytes) -> bytes:
    """By what a key is told from another one of its id."""
    return _derived(key, b"check", _CHECK)


def _derived(key: bytes, of: bytes, length: int) -> bytes:
    return HKDF(SHA256(), length, None, b"runtara-trio Encrypted 1 " + of).derive(key)


def _bound_to(head: bytes, place: Place) -> bytes:
    return msgspec.json.encode([head, *place])


def _check_key(name: object, key: object) -> None:
    try:
        length = len(name.encode()) if isinstance(name, str) else 0
    except UnicodeEncodeError:
        length = 0
    if not 1 <= length <= MAX_KEY_ID:
        raise ConfigError(f"a key's id must be a text of 1 to {MAX_KEY_ID} bytes, not {name!r}")
    if not isinstance(key, bytes) or len(key) != KEY_BYTES:
        found = f"{len(key)} bytes" if isinstance(key, bytes) else f"a {type(key).__name__}"
        raise ConfigError(
            f"the key {name!r} must be {KEY_BYTES} random bytes, as secrets.token_bytes("
            f"{KEY_BYTES}) makes them; it is {found}"
        )
