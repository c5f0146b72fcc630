"""The checkpoint id of a durable call: ``durable::<function name>::<key>``.

The key tells one call of a function from another. Unless the function names its own, it is
the single string argument, or the JSON of all arguments. Where JSON is the same for values
of different types, the types follow behind it (``key_types``).

A call may be stored under a former id: a parameter with a default was added to the function
since, or 0.1 stored it, which knew no types. Its work must not be done again.
"""

from __future__ import annotations

import inspect
import re
import string
from collections.abc import Callable
from typing import Any

from ..codec.json import as_json
from ..errors import ConfigError, message_of
from ..ids import DURABLE, check_text, escape, escape_slashes, shortened
from .key_types import TypeAt, types_in

Key = str | Callable[..., str] | None


def check_format(what: str, text: str, signature: inspect.Signature) -> None:
    """Raises ConfigError where a text is not a format string over the parameters."""
    try:
        parts = list(string.Formatter().parse(text))
    except ValueError as exc:
        raise ConfigError(f"{what}, {text!r}, is not a format string: {exc}") from exc
    for field in [field for _, field, _, _ in parts if field is not None]:
        named = field.partition(".")[0].partition("[")[0]
        if named not in signature.parameters:
            raise ConfigError(
                f"{what}, {text!r}, names {named!r}, which is not one of its "
                f"parameters: {', '.join(signature.parameters) or 'it has no parameters'}"
            )


class Keys:
    """Makes the keys of one function."""

    def __init__(
        self, name: str, function: Callable[..., Any], key: Key, *, leaves_out_first: bool = False
    ) -> None:
        """``leaves_out_first``: the first parameter is no argument of the call's.

        Raises:
          ConfigError: ``key`` names an unknown parameter, or is invalid.
        """
        self._name = name
        self._key = key
        self._signature = inspect.signature(function)
        self._head = f"{DURABLE}{escape(name)}::"
        first = next(iter(self._signature.parameters), "")
        self._left_out = {first} if leaves_out_first or first in ("self", "cls") else set()
        if isinstance(key, str):
            check_format(f"key of {name}", key, self._signature)
        elif key is not None and not callable(key):
            raise ConfigError(f"key of {name} must be a format string or a callable, not {key!r}")

    def of(
        self,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        prefix: str,
        claim_type: Callable[[str, type], object],
    ) -> str:
        """The checkpoint id of a call, below a path.

        Args:
          args, kwargs: of the call.
          prefix: the path.
          claim_type: told of each type whose name becomes a part of the key.

        Raises:
          TypeError: the call does not fit the signature, or an argument has no JSON.
          ConfigError: ``key`` cannot be made for this call.
        """
        if self._key is not None:
            key = check_text(f"the key of {self._name}", self._own_key(args, kwargs))
            _refuse_attempt(self._name, key)
            if prefix:
                key = escape_slashes(key)
            return shortened(prefix + self._head + key)
        values = self._values(args, kwargs)
        types = types_in(values.values())
        for _, kind in types:
            claim_type(self._name, kind)
        return self._default_id(values, types, prefix)

    def formerly(self, args: tuple[Any, ...], kwargs: dict[str, Any], prefix: str) -> list[str]:
        """Ids under which earlier versions may have stored a call that :meth:`of` takes."""
        if self._key is not None:
            return []
        values = self._values(args, kwargs)
        all_types = types_in(values.values())
        found = [self._default_id(values, [], prefix)] if all_types else []
        while values and self._is_default(*next(reversed(values.items()))):
            values.popitem()
            types = types_in(values.values())
            found.append(self._default_id(values, types, prefix))
            if types:
                found.append(self._default_id(values, [], prefix))
        return found

    def _own_key(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        """The key that the function names."""
        if callable(self._key):
            key = self._key(*args, **kwargs)
            if not isinstance(key, str):
                raise ConfigError(f"key of {self._name} returned {key!r}, which is not a str")
            return key
        assert self._key is not None
        try:
            return self._key.format_map(self._bound(args, kwargs))
        except (LookupError, AttributeError, ValueError, TypeError) as exc:
            raise ConfigError(f"key of {self._name}, {self._key!r}, cannot be made: {exc}") from exc

    def _bound(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        try:
            bound = self._signature.bind(*args, **kwargs)
        except TypeError as exc:
            raise TypeError(f"{self._name}(): {exc}") from None
        bound.apply_defaults()
        return bound.arguments

    def _values(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """The arguments that count, by name, in the order of the parameters."""
        arguments = self._bound(args, kwargs).items()
        return {name: value for name, value in arguments if name not in self._left_out}

    def _is_default(self, name: str, value: object) -> bool:
        parameter = self._signature.parameters[name]
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            return not value
        default = parameter.default
        if default is parameter.empty:
            return False
        if value is default:
            return True
        try:  # True is no 1 here, nor is 1.0: their JSON differs
            return self._json(name, value) == self._json(name, default) and (
                types_in([value]) == types_in([default])
            )
        except TypeError:
            return False

    def _default_id(self, values: dict[str, Any], types: list[TypeAt], prefix: str) -> str:
        key = self._default_key(values, lone=not types)
        if types:
            key += "~" + ",".join(f"{place}={kind.__qualname__}" for place, kind in types)
        return shortened(prefix + self._head + escape(key))

    def _default_key(self, values: dict[str, Any], *, lone: bool) -> str:
        """The JSON of the arguments; of a single string, where it may be ``lone``, itself."""
        if lone and len(values) == 1:
            (only,) = values.values()
            # What could be the JSON of something is made JSON, or two calls would meet.
            if isinstance(only, str) and only[:1] not in ("[", "{", '"'):
                return check_text(f"the argument of {self._name}", only)
        return f"[{','.join(self._json(*item) for item in values.items())}]"

    def _json(self, name: str, value: object) -> str:
        try:
            return as_json(value).decode()
        except Exception as exc:
            raise TypeError(
                f"argument {name!r} of the durable function {self._name}, a "
                f"{type(value).__name__}, has no JSON to make a key of ({message_of(exc)}); give "
                f"@durable(key=...), a format string over the arguments such as "
                f'key="{{{name}.id}}", or a callable'
            ) from exc


_OF_RETRY = re.compile(r"::retry::\d+\Z")


def _refuse_attempt(name: str, key: str) -> None:
    if _OF_RETRY.search(key):
        raise ConfigError(
            f"key of {name} is {key!r}, which ends as the record of a retry does; put something "
            "behind it"
        )
