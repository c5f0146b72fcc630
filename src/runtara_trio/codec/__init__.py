"""How values become bytes: a small protocol, and JSON behind it.

codec     the protocol, and what every encoding and decoding is checked by
json      JSON, by msgspec
foreign   values of other libraries in it: pydantic's models, numpy's numbers and arrays, paths
reading   types that msgspec has no decoder for, read part by part

Never pickle: stored bytes outlive the code that wrote them, and are read by others. A codec that
compresses or encrypts wraps :data:`JSON` in a few lines::

    class Compressed:
        def encode(self, value):
            return zlib.compress(JSON.encode(value))

        def decode(self, data, type):
            return JSON.decode(zlib.decompress(data), type)
"""

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

__all__ = [
    "JSON",
    "MAX_STATE",
    "Codec",
    "JsonCodec",
    "check_type",
    "decode",
    "decode_sent",
    "encode",
    "encode_sent",
    "schema_of",
]
