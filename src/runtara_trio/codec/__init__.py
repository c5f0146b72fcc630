"""How values become bytes: a small protocol, and JSON behind it.

codec       the protocol, and what every encoding and decoding is checked by
json        JSON, by msgspec
foreign     values of other libraries in it: pydantic's models, numpy's numbers and arrays, paths
reading     types that msgspec has no decoder for, read part by part
places      where a value is stored, for codecs that bind it to that
encrypted   a codec around another one
compressed  a codec around another one
marks       how their bytes begin

Never pickle: stored bytes outlive the code that wrote them, and are read by others.
"""

import importlib
from typing import TYPE_CHECKING, Any

from .codec import (
    MAX_STATE,
    Codec,
    check_type,
    decode,
    decode_sent,
    encode,
    encode_sent,
    schema_of,
)
from .json import JSON, JsonCodec
from .places import (
    Kind,
    Place,
    at,
    copied,
    error_text,
    is_bound,
    plain,
    resealed,
    reveal,
    revealed,
    seal,
    unseal,
)

if TYPE_CHECKING:
    from .compressed import Compressed
    from .encrypted import Encrypted

_AT_FIRST_USE = {"Compressed": "compressed", "Encrypted": "encrypted"}
"""What imports a library that most programs do without, and its module."""


def __getattr__(name: str) -> Any:
    if name not in _AT_FIRST_USE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_AT_FIRST_USE[name]}", __name__), name)


__all__ = [
    "JSON",
    "MAX_STATE",
    "Codec",
    "Compressed",
    "Encrypted",
    "JsonCodec",
    "Kind",
    "Place",
    "at",
    "check_type",
    "copied",
    "decode",
    "decode_sent",
    "encode",
    "encode_sent",
    "error_text",
    "is_bound",
    "plain",
    "resealed",
    "reveal",
    "revealed",
    "schema_of",
    "seal",
    "unseal",
]
