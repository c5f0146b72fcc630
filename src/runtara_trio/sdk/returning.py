"""What a durable function returns, as bytes and back.

What a call returns is what a replay returns: also the first run hands out what is decoded
from the bytes that were saved, so that a result that does not survive them is seen at
once, and not after a crash.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Callable
from typing import Any, Union

from ..codec import Codec, check_type, decode, encode
from ..errors import CodecError, ConfigError

_BYTES = (bytes, bytearray, memoryview)


class Returns:
    """The result of one function: its type, from its annotation."""

    def __init__(
        self, what: str, function: Callable[..., Any], locals_: dict[str, Any] | None
    ) -> None:
        """``what``: what errors call the function, as "the durable function charge"."""
        self._what = what
        self._function = function
        self._type: Any = None
        self._resolved = self._resolve(locals_)
        self._checked: Codec | None = None

    def _resolve(self, locals_: dict[str, Any] | None) -> bool:
        """Make a type of the annotation. Whether all its names are there."""
        annotation = getattr(self._function, "__annotations__", {}).get("return", Any)
        holder = types.SimpleNamespace(__annotations__={"return": annotation})
        scope = getattr(self._function, "__globals__", {})
        try:
            hints = typing.get_type_hints(holder, scope, locals_, include_extras=True)
        except NameError as exc:
            if locals_ is not None:
                return False  # it may be defined later
            raise ConfigError(
                f"the return annotation of {self._what} names nothing that "
                f"is there ({exc}); define or import it in the function's module"
            ) from exc
        self._type = hints["return"]
        return True

    def check(self, codec: Codec) -> None:
        """Before the function runs: whether its result can be decoded at all, if that is known.

        Raises:
          ConfigError: the annotation is not a type.
          CodecError: the codec has no decoding for it.
        """
        if codec is self._checked:
            return
        if not self._resolved:
            self._resolved = self._resolve(None)
        name = f"{self._what} cannot run, for its result"
        check_type(codec, name, self._type)
        self._checked = codec

    def encode(self, codec: Codec, of: str, value: Any) -> bytes:
        """The bytes of a result, ``of`` a call or an instance.

        Raises CodecError, or ConfigError where it is too large.
        """
        name = self._named(of)
        if self._type is bytes:
            if not isinstance(value, _BYTES):
                raise CodecError(f"{name} is a {type(value).__name__}, not bytes as annotated")
            return encode(codec, name, bytes(value))
        if self._may_be_bytes():
            return encode(codec, name, (value,))  # bare, bytes are stored as they are
        if isinstance(value, _BYTES):
            raise CodecError(f"{name} is bytes; annotate the function: -> bytes")
        return encode(codec, name, value)

    def decode(self, codec: Codec, of: str, data: bytes) -> Any:
        """The result in stored bytes. Raises CodecError."""
        name = self._named(of)
        if self._type is not bytes and self._may_be_bytes():
            wrapped: Any = tuple[self._type]  # type: ignore[name-defined]
            return decode(codec, name, data, wrapped)[0]
        return decode(codec, name, data, self._type)

    def _may_be_bytes(self) -> bool:
        union = typing.get_origin(self._type) in (Union, types.UnionType)
        members = typing.get_args(self._type) if union else (self._type,)
        return any(member in _BYTES for member in members)

    def _named(self, of: str) -> str:
        return f"the result of {self._what} ({of!r})"
