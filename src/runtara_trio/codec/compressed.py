"""Values that take less room."""

from __future__ import annotations

import copy
import threading
from typing import Any, TypeVar

from ..errors import CodecError, ConfigError
from .codec import MAX_STATE, Around, Codec, check_inner, decoded
from .marks import COMPRESSED
from .places import Place, at, is_bound

try:
    import zstandard
except ImportError:  # an extra
    zstandard = None  # type: ignore[assignment]

T = TypeVar("T")

_AS_IT_IS, _ZSTD = b"\0", b"\1"


class Compressed(Around):
    """Compresses what another codec has made, by zstd; for ``codec=...``. What was stored without
    it is read as well. It belongs inside encryption: ``Encrypted(Compressed(JSON), keys)``.

    Args:
      codec: makes the bytes, as :data:`JSON`.
      level: of zstd, 1 to 22.

    Raises:
      ConfigError: zstd is not installed, or an invalid level.
    """

    def __init__(self, codec: Codec, *, level: int = 3) -> None:
        if zstandard is None:
            raise ConfigError("Compressed needs zstandard: pip install 'runtara-trio[zstd]'")
        if isinstance(level, bool) or not isinstance(level, int) or not 1 <= level <= 22:
            raise ConfigError(f"level must be a whole number from 1 to 22, not {level!r}")
        check_inner(codec, "Compressed")
        self._codec = codec
        self._level = level
        self._local = threading.local()  # a compressor is of one thread
        self.seals = getattr(codec, "seals", False)

    def at(self, place: Place) -> Codec:
        """The codec of one place."""
        if not is_bound(self._codec):
            return self
        bound = copy.copy(self)
        bound._codec = at(self._codec, place)
        return bound

    def encode(self, value: Any, /) -> bytes:
        plain = self._codec.encode(value)
        if len(plain) > MAX_STATE:
            raise CodecError(
                f"it has {len(plain)} bytes before, and at most {MAX_STATE} are read; keep the "
                "data elsewhere and save where it is"
            )
        compressor = getattr(self._local, "compressor", None)
        if compressor is None:
            compressor = self._local.compressor = zstandard.ZstdCompressor(level=self._level)
        packed: bytes = compressor.compress(plain)
        if len(packed) < len(plain):
            return COMPRESSED + _ZSTD + packed
        return COMPRESSED + _AS_IT_IS + plain

    def decode(self, data: bytes, type: type[T], /) -> T:
        if not data.startswith(COMPRESSED):
            return decoded(self._codec, data, type)
        how, packed = data[len(COMPRESSED) : len(COMPRESSED) + 1], data[len(COMPRESSED) + 1 :]
        return decoded(self._codec, packed if how == _AS_IT_IS else _unpacked(packed), type)


def _unpacked(packed: bytes) -> bytes:
    """Raises CodecError: damaged, or more than the largest state: nothing else was compressed, and
    a few bytes can ask for all memory."""
    try:
        size = zstandard.frame_content_size(packed)
        if not 0 <= size <= MAX_STATE:
            raise CodecError(f"it is damaged: it says that it has {size} bytes")
        unpacked = zstandard.ZstdDecompressor().decompress(packed, allow_extra_data=False)
    except zstandard.ZstdError as exc:
        raise CodecError(f"it is damaged: {exc}") from exc
    return unpacked
