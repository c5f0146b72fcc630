"""The checkpoint id of a durable call: ``durable::<function name>::<key>``.

The key tells one call of a function from another. It is the single string argument, or
the JSON of all arguments, unless the function names its own.
"""

from __future__ import annotations

import hashlib
import inspect
import math
import string
from collections.abc import Callable
from typing import Any

import msgspec

from ..errors import ConfigError
from ..ids import DURABLE, MAX_CHECKPOINT_ID, check_text, escape, escape_slashes

Key = str | Callable[..., str] | None


class Keys:
    """Makes the keys of one function."""

    def __init__(self, name: str, function: Callable[..., Any], key: Key) -> None:
        """
        Raises:
          ConfigError: ``key`` names no parameter of the function, or is no key at all.
        """
        self._name = name
        self._key = key
        self._signature = inspect.signature(function)
        self._head = f"{DURABLE}{escape(name)}::"
        first = next(iter(self._signature.parameters), "")
        self._left_out = {first} if first in ("self", "cls") else set()
        if isinstance(key, str):
            self._check_format(key)
        elif key is not None and not callable(key):
            raise ConfigError(f"key of {name} must be a format string or a callable, not {key!r}")

    def _check_format(self, key: str) -> None:
        try:
            parts = list(string.Formatter().parse(key))
        except ValueError as exc:
            raise ConfigError(f"key of {self._name}, {key!r}, is no format string: {exc}") from exc
        for field in [field for _, field, _, _ in parts if field is not None]:
            named = field.partition(".")[0].partition("[")[0]
            if named not in self._signature.parameters:
                raise ConfigError(
                    f"key of {self._name}, {key!r}, names {named!r}, which is none of its "
                    f"parameters: {', '.join(self._signature.parameters) or 'it has none'}"
                )

    def of(self, args: tuple[Any, ...], kwargs: dict[str, Any], prefix: str) -> str:
        """The checkpoint id of a call, below a path.

        Raises:
          TypeError: the call does not fit the signature, or an argument has no JSON.
          ConfigError: ``key`` cannot be made for this call.
        """
        key = check_text(f"the key of {self._name}", self._key_of(args, kwargs))
        if prefix and self._key is not None:  # a default key has none
            key = escape_slashes(key)
        return shortened(prefix + self._head + key)

    def _key_of(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        if callable(self._key):
            key = self._key(*args, **kwargs)
            if not isinstance(key, str):
                raise ConfigError(f"key of {self._name} returned {key!r}, which is no str")
            return key
        try:
            bound = self._signature.bind(*args, **kwargs)
        except TypeError as exc:
            raise TypeError(f"{self._name}(): {exc}") from None
        bound.apply_defaults()
        if self._key is not None:
            try:
                return self._key.format_map(bound.arguments)
            except (LookupError, AttributeError, ValueError, TypeError) as exc:
                raise ConfigError(
                    f"key of {self._name}, {self._key!r}, cannot be made: {exc}"
                ) from exc
        values = {
            name: value for name, value in bound.arguments.items() if name not in self._left_out
        }
        if len(values) == 1:
            (only,) = values.values()
            # What could be the JSON of something is made JSON, or two calls would meet.
            if isinstance(only, str) and only[:1] not in ("[", "{", '"'):
                return escape(check_text(f"the argument of {self._name}", only))
        return escape("[" + ",".join(self._json(*item) for item in values.items()) + "]")

    def _json(self, name: str, value: object) -> str:
        try:
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError("JSON has only finite numbers")
            return msgspec.json.encode(value, order="deterministic").decode()
        except Exception as exc:
            raise TypeError(
                f"argument {name!r} of the durable function {self._name}, a "
                f"{type(value).__name__}, has no JSON to make a key of ({exc}); give "
                f"@durable(key=...), a format string over the arguments such as "
                f'key="{{{name}.id}}", or a callable'
            ) from exc


def shortened(checkpoint_id: str) -> str:
    """An id that fits every backend: one that is too long keeps its start, and gets ``~`` and
    its SHA-256."""
    data = checkpoint_id.encode()
    if len(data) <= MAX_CHECKPOINT_ID:
        return checkpoint_id
    digest = f"~{hashlib.sha256(data).hexdigest()}"
    return data[: MAX_CHECKPOINT_ID - len(digest)].decode(errors="ignore") + digest
