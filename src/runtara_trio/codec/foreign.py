"""Values that msgspec does not know, in JSON: pydantic's models, numpy's numbers and arrays, paths.

Nothing is imported for them: a program that has such a value has imported its library.
"""

from __future__ import annotations

import base64
import datetime
import functools
import sys
import typing
from collections.abc import Iterator
from pathlib import PurePath
from typing import Any

import msgspec

_ARRAY = frozenset("biufcmM")
"""The kinds of numpy's types whose bytes say all."""


def is_validated(kind: Any) -> bool:
    """A model or a dataclass of pydantic."""
    return isinstance(kind, type) and hasattr(kind, "__pydantic_validator__")


def is_model(kind: Any) -> bool:
    """A model of pydantic."""
    return is_validated(kind) and hasattr(kind, "model_dump")


def is_known(kind: Any) -> bool:
    """Whether a class has JSON here, though not of msgspec."""
    kind = typing.get_origin(kind) or kind
    if not isinstance(kind, type):
        return False
    return is_validated(kind) or is_textual(kind) or _is_array(kind)


def is_textual(kind: Any) -> bool:
    """Whether its JSON is as that of a text or a number: in a union it could be either."""
    if not isinstance(kind, type):
        return False
    numpy = sys.modules.get("numpy")
    return issubclass(kind, PurePath) or (
        numpy is not None
        and issubclass(kind, (numpy.bool_, numpy.integer, numpy.floating, numpy.datetime64))
        and not issubclass(kind, numpy.timedelta64)  # which is one of the integers
    )


def _is_array(kind: type) -> bool:
    numpy = sys.modules.get("numpy")
    return numpy is not None and kind is numpy.ndarray


def to_json(value: Any) -> Any:
    """A value as one that msgspec knows; its ``enc_hook``.

    Raises:
      TypeError: a model that would not come back as it is. NotImplementedError: an unknown class.
    """
    if is_model(type(value)):
        kind: Any = type(value)
        check_model(kind)
        return value.model_dump(mode="json", round_trip=True, by_alias=not _takes_names())
    if isinstance(value, PurePath):
        return str(value)
    numpy = sys.modules.get("numpy")
    if numpy is not None and type(value) is numpy.ndarray and value.dtype.kind in _ARRAY:
        return {
            "dtype": value.dtype.str,
            "shape": value.shape,
            "data": base64.b64encode(value.tobytes()).decode(),
        }
    if numpy is not None and isinstance(value, numpy.generic):
        plain = value.item()
        if isinstance(plain, (bool, int, float, str)) and not isinstance(value, numpy.datetime64):
            return plain
        if isinstance(plain, datetime.date):
            return plain
    raise NotImplementedError


def from_json(kind: Any, value: Any) -> Any:
    """What :func:`to_json` has made JSON of; msgspec's ``dec_hook``.

    Raises:
      ValueError: it is no such value; it names the field. NotImplementedError: an unknown class.
    """
    kind = typing.get_origin(kind) or kind
    if is_validated(kind):
        return validated(kind, value)
    if issubclass(kind, PurePath) and isinstance(value, str):
        return kind(value)
    numpy = sys.modules.get("numpy")
    if numpy is not None and issubclass(kind, numpy.ndarray):
        data = base64.b64decode(value["data"])
        return numpy.frombuffer(data, value["dtype"]).reshape(value["shape"]).copy()
    if is_textual(kind):
        for scalar, plain in _SCALARS:
            fits = isinstance(value, plain) and isinstance(value, bool) is (scalar == "bool_")
            if fits and issubclass(kind, getattr(numpy, scalar)):
                return kind(value)
        raise ValueError(f"{value!r} is no {kind.__name__}")
    if isinstance(value, kind):  # as msgspec does where it has no hook
        return value
    raise NotImplementedError


_SCALARS: tuple[tuple[str, tuple[type, ...]], ...] = (
    ("bool_", (bool,)),
    ("integer", (int,)),
    ("floating", (int, float)),
    ("datetime64", (str,)),
)
"""What JSON has for numpy's scalars."""


def validated(kind: Any, value: Any, *models: Any) -> Any:
    """A model, or what a ``TypeAdapter`` of some ``models`` is of, of what JSON has. Raises
    ValueError."""
    validator = getattr(kind, "__pydantic_validator__", None) or kind.validator
    names = {}
    if _takes_names():
        by_alias = not any(map(_names_meet, models or (kind,)))
        names = {"by_alias": by_alias, "by_name": True}
    try:
        return validator.validate_json(msgspec.json.encode(value), **names)
    except ValueError as exc:
        raise ValueError(told(exc)) from exc


def told(error: Exception) -> str:
    """What is wrong, in a line; pydantic's errors say where."""
    errors = getattr(error, "errors", None)
    return str(error) if errors is None else "; ".join(map(_sentence, errors(include_url=False)))


@functools.lru_cache(maxsize=1024)
def check_model(kind: Any) -> None:
    """Raises TypeError: a model would not come back as it was saved."""
    for model in _models(kind, {}):
        serialized = {
            name
            for one in model.__pydantic_decorators__.field_serializers.values()
            for name in one.info.fields
        }
        for name, field in _fields(model).items():
            secret = any(hasattr(one, "get_secret_value") for one in _parts(field.annotation))
            if field.exclude or (secret and not {name, "*"} & serialized):
                what = "a secret" if secret else "excluded"
                raise TypeError(
                    f"{model.__name__}.{name} is {what}, and would not be saved: give it a "
                    "field_serializer, or keep it elsewhere"
                )


@functools.lru_cache(maxsize=1024)
def _names_meet(kind: Any) -> bool:
    """Whether a field of a model has the alias that is another's name."""
    return any(
        alias in _fields(model) and alias != name
        for model in _models(kind, {})
        for name, field in _fields(model).items()
        for alias in (field.alias, field.validation_alias)
        if isinstance(alias, str)
    )


def _fields(model: Any) -> dict[str, Any]:
    found: dict[str, Any] = getattr(model, "__pydantic_fields__", None) or model.model_fields
    return found


def _models(kind: Any, seen: dict[Any, None]) -> dict[Any, None]:
    """A model, and those that are in its fields."""
    if is_validated(kind) and kind not in seen:
        seen[kind] = None
        for field in _fields(kind).values():
            for part in _parts(field.annotation):
                _models(part, seen)
    return seen


def _parts(annotation: Any) -> Iterator[Any]:
    yield annotation
    for part in typing.get_args(annotation):
        yield from _parts(part)


def schema(kind: Any) -> dict[str, Any] | None:
    """The JSON schema of a type in which a model is; None: msgspec has it."""
    pydantic = sys.modules.get("pydantic")
    members = (kind, *typing.get_args(kind))
    if pydantic is None or not any(map(is_validated, members)):
        return None
    found: dict[str, Any] = pydantic.TypeAdapter(kind).json_schema()
    return found


def _sentence(error: dict[str, Any]) -> str:
    place = ".".join(map(str, error["loc"]))
    return f"{place}: {error['msg']}" if place else str(error["msg"])


def _takes_names() -> bool:
    """Whether pydantic finds a field by its name also where it has an alias: from 2.11 on."""
    version = sys.modules["pydantic"].VERSION.split(".")
    return (int(version[0]), int(version[1])) >= (2, 11)
