"""The arguments of a workflow, as bytes and back."""

from __future__ import annotations

import inspect
import re
import types
import typing
from collections.abc import Callable
from typing import Any

from ..codec import Codec, decode, encode
from ..errors import CodecError, ConfigError

_PLAIN = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class Arguments:
    """What one workflow takes behind its SDK."""

    def __init__(self, name: str, function: Callable[..., Any], locals_: dict[str, Any]) -> None:
        """Raises TypeError where parameters are not plain positional ones."""
        self._name = name
        self._function = function
        self._locals = locals_
        parameters = list(inspect.signature(function).parameters.values())
        for one in parameters:
            if one.kind not in _PLAIN:
                raise TypeError(
                    f"the workflow {name} has {one}: arguments of a workflow are positional, "
                    "and as many as it names"
                )
        if not parameters:
            raise TypeError(f"the workflow {name} must take the SDK as its first argument")
        self._parameters = parameters[1:]
        self._fewest = sum(one.default is inspect.Parameter.empty for one in self._parameters)
        self._types: list[Any] | None = None

    def encode(self, codec: Codec, args: tuple[Any, ...]) -> bytes:
        """The bytes of arguments. Raises TypeError: too few or too many; CodecError."""
        self._check_number(len(args))
        return encode(codec, f"the arguments of the workflow {self._name}", list(args))

    def decode(self, codec: Codec, data: bytes) -> tuple[Any, ...]:
        """The arguments in stored bytes, those that were left out filled. Raises CodecError."""
        wanted = self._annotations()
        name = f"the arguments of the workflow {self._name}"
        try:
            return tuple(decode(codec, name, data, _tuple_of(wanted)))
        except CodecError as exc:
            given = len(decode(codec, name, data, list[Any]))
            try:
                self._check_number(given)
            except TypeError as wrong:
                raise CodecError(str(wrong)) from exc
            if given == len(wanted):
                raise CodecError(f"{self._named(str(exc))}: {exc}") from exc
        try:
            found = decode(codec, name, data, _tuple_of(wanted[:given]))
        except CodecError as exc:
            raise CodecError(f"{self._named(str(exc))}: {exc}") from exc
        return (*found, *(one.default for one in self._parameters[given:]))

    def _named(self, text: str) -> str:
        """Which argument an error is about, where it says so: decoders name the place."""
        place = re.search(r"(?:\$|at )\[(\d+)\]", text)
        if place is None or int(place[1]) >= len(self._parameters):
            return f"an argument of the workflow {self._name}"
        return f"the argument {self._parameters[int(place[1])].name} of the workflow {self._name}"

    def _check_number(self, given: int) -> None:
        most = len(self._parameters)
        if not self._fewest <= given <= most:
            takes = f"{most}" if self._fewest == most else f"{self._fewest} to {most}"
            plural = "" if takes == "1" else "s"
            names = ", ".join(one.name for one in self._parameters)
            raise TypeError(
                f"the workflow {self._name} takes {takes} argument{plural}"
                f"{f' ({names})' if names else ''}, not {given}"
            )

    def _annotations(self) -> list[Any]:
        if self._types is None:
            raw = getattr(self._function, "__annotations__", {})
            holder = types.SimpleNamespace(
                __annotations__={one.name: raw.get(one.name, Any) for one in self._parameters}
            )
            scope = getattr(self._function, "__globals__", {})
            try:
                hints = typing.get_type_hints(holder, scope, self._locals, include_extras=True)
            except NameError as exc:
                raise ConfigError(
                    f"an annotation of the workflow {self._name} names nothing that is there "
                    f"({exc}); define or import it in the function's module"
                ) from exc
            self._types = [hints[one.name] for one in self._parameters]
        return self._types


def _tuple_of(wanted: list[Any]) -> Any:
    return types.GenericAlias(tuple, tuple(wanted))
