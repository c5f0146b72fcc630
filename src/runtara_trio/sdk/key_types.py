"""Which values of a key are of types that JSON does not tell.

``Email("ana")`` and ``Sms("ana")`` have the same JSON, as have bytes and their base64, the
key 1 and the key "1" of a dict, a date and its text. A call with one is not the call with
the other, so the types of such values are put behind the JSON, each with its place: the
number of the value as one walks through them all.
"""

from __future__ import annotations

import dataclasses
import enum
import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from ..codec.foreign import is_validated
from ..codec.json import as_json

TypeAt = tuple[int, type]
"""The place of a value, and its type."""

_BYTES = (bytes, bytearray, memoryview)
_SETS = (set, frozenset)


def types_in(values: Iterable[Any]) -> list[TypeAt]:
    """The types in these values that their JSON does not tell, in the order of their places.

    The values have JSON.
    """
    places = itertools.count()
    return [found for value in values for found in _walk(value, places)]


def _walk(value: Any, places: Iterator[int]) -> Iterator[TypeAt]:
    place = next(places)
    if isinstance(value, enum.Enum):
        yield place, type(value)
    elif value is None or isinstance(value, (bool, int, float, str)):
        return
    elif isinstance(value, dict):
        for key in sorted(value, key=_json):
            at = next(places)
            if type(key) is not str:
                yield at, type(key)
            yield from _walk(value[key], places)
    elif isinstance(value, (list, tuple)):
        if hasattr(value, "_fields"):
            yield place, type(value)
        for item in value:
            yield from _walk(item, places)
    elif isinstance(value, _SETS):
        yield place, set
        for item in sorted(value, key=_json):
            yield from _walk(item, places)
    else:
        yield place, bytes if isinstance(value, _BYTES) else type(value)
        for name in _fields(value):
            yield from _walk(getattr(value, name, None), places)


def _json(value: Any) -> tuple[bytes, str]:
    return as_json(value), type(value).__qualname__


def _fields(value: Any) -> Iterable[str]:
    """The fields of a struct, a dataclass, a model or an attrs class; of others: no fields."""
    if isinstance(value, msgspec.Struct):
        return value.__struct_fields__
    if dataclasses.is_dataclass(value):
        return [field.name for field in dataclasses.fields(value)]
    if is_validated(type(value)):
        return list(type(value).model_fields)
    return [field.name for field in getattr(type(value), "__attrs_attrs__", ())]
