"""Values that msgspec does not know, in JSON: pydantic's models, numpy's numbers and arrays, paths.

Nothing is imported for them: a program that has such a value has imported its library.
"""

from __future__ import annotations

import base64
import sys
import typing
from pathlib import PurePath
from typing import Any

import msgspec

_ARRAY = frozenset("biufcmM")
"""The kinds of numpy's types whose bytes say all."""


def is_validated(kind: Any) -> bool:
    """A model or a dataclass of pydantic."""
    return isinstance(kind, type) and hasattr(kind, "__pydantic_validator__")


def is_known(kind: Any) -> bool:
    """Whether a class has JSON here, though not of msgspec."""
    if not isinstance(kind, type):
        return False
    numpy = sys.modules.get("numpy")
    return (
        is_validated(kind)
        or issubclass(kind, PurePath)
        or (numpy is not None and issubclass(kind, (numpy.generic, numpy.ndarray)))
    )


def to_json(value: Any) -> Any:
    """A value as one that msgspec knows; its ``enc_hook``. Raises NotImplementedError."""
    if is_validated(type(value)):
        return value.model_dump(mode="json", round_trip=True, by_alias=not _takes_names())
    if isinstance(value, PurePath):
        return str(value)
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, numpy.ndarray) and value.dtype.kind in _ARRAY:
        return {
            "dtype": value.dtype.str,
            "shape": value.shape,
            "data": base64.b64encode(value.tobytes()).decode(),
        }
    if numpy is not None and isinstance(value, numpy.generic):
        plain = value.item()
        if not isinstance(plain, (numpy.generic, complex)):
            return plain
    raise NotImplementedError


def from_json(kind: Any, value: Any) -> Any:
    """What :func:`to_json` has made JSON of; msgspec's ``dec_hook``.

    Raises:
      ValueError: it is no such value; it names the field. NotImplementedError: an unknown class.
    """
    if is_validated(kind):
        return validated(kind, value)
    if issubclass(kind, PurePath):
        return kind(value)
    numpy = sys.modules.get("numpy")
    if numpy is not None and issubclass(kind, numpy.ndarray):
        data = base64.b64decode(value["data"])
        return numpy.frombuffer(data, value["dtype"]).reshape(value["shape"]).copy()
    if numpy is not None and issubclass(kind, numpy.generic):
        return kind(value)
    if isinstance(value, kind):  # as msgspec does where it has no hook
        return value
    raise NotImplementedError


def validated(kind: Any, value: Any) -> Any:
    """A model, or what a ``TypeAdapter`` is of, of what JSON has. Raises ValueError."""
    validator = getattr(kind, "__pydantic_validator__", None) or kind.validator
    names = {"by_alias": True, "by_name": True} if _takes_names() else {}
    try:
        return validator.validate_json(msgspec.json.encode(value), **names)
    except ValueError as exc:
        errors = getattr(exc, "errors", None)
        if errors is None:
            raise
        raise ValueError("; ".join(map(_sentence, errors(include_url=False)))) from exc


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
