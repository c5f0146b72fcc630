"""Types that msgspec has no decoder for, read part by part.

It has none for a union with a class of somebody else's, and does not call the validators of
pydantic's dataclasses. What it can read it reads; a union is read by pydantic where one of its
models is in it, and else by the first of its members that fits.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import enum
import functools
import sys
import types
import typing
from collections.abc import Callable, Iterator
from datetime import date, time, timedelta
from decimal import Decimal
from typing import Annotated, Any, NamedTuple, Union
from uuid import UUID

import msgspec
import msgspec.inspect

from . import foreign

Reader = Callable[[Any], Any]
"""Makes a value of what JSON has. Raises one of WRONG: it is not of the type."""
WRONG = (ValueError, TypeError, msgspec.MsgspecError)

_LISTS: dict[Any, Callable[[Any], Any]] = {
    list: list,
    set: set,
    frozenset: frozenset,
    collections.abc.Sequence: list,
    collections.abc.Iterable: list,
    collections.abc.Collection: list,
    collections.abc.Set: set,
}
_DICTS = (dict, collections.abc.Mapping, collections.abc.MutableMapping)


def reader(kind: Any) -> Reader:
    """What reads a type. Raises TypeError: nothing does."""
    return _Readers().of(kind)


def check(kind: Any) -> bool:
    """Whether msgspec reads all of a type, with the help of ``foreign``.

    Raises:
      TypeError: a class in it, not in the fields of one, is unknown to both.
    """
    try:
        info = msgspec.inspect.type_info(kind)
    except TypeError as exc:
        if "unions" in str(exc):
            return False
        raise
    plain = True
    for part, is_inside in _parts(info, set()):
        cls = getattr(part, "cls", None)
        if isinstance(part, msgspec.inspect.CustomType):
            if foreign.is_model(cls):
                foreign.check_model(cls)
            elif not is_inside and not foreign.is_known(cls):
                name = getattr(cls, "__name__", cls)
                raise TypeError(f"{name} is not a struct, a dataclass or other known type")
        elif foreign.is_validated(cls):
            plain = False
    return plain


def convert(kind: Any, value: Any) -> Any:
    """What msgspec reads."""
    return msgspec.convert(value, kind, dec_hook=foreign.from_json, str_keys=True)


class _Readers:
    """Those of one type and its parts; a class may be inside of itself."""

    def __init__(self) -> None:
        self._of: dict[int, tuple[Any, Reader | None]] = {}
        """By identity: two unions of one set are equal, and not the same."""

    def of(self, kind: Any) -> Reader:
        if id(kind) in self._of:
            return lambda value: self._made(kind)(value)
        self._of[id(kind)] = kind, None
        made = self._make(kind)
        self._of[id(kind)] = kind, made
        return made

    def _made(self, kind: Any) -> Reader:
        _, found = self._of[id(kind)]
        assert found is not None
        return found

    def _make(self, kind: Any) -> Reader:
        if check(kind):
            return functools.partial(convert, kind)
        if foreign.is_model(kind):
            foreign.check_model(kind)
            return functools.partial(foreign.validated, kind)
        origin, args = typing.get_origin(kind), typing.get_args(kind)
        if origin is Annotated:
            inner = typing.get_origin(args[0]) in (Union, types.UnionType)
            return self._union(kind, typing.get_args(args[0])) if inner else self.of(args[0])
        if origin in (Union, types.UnionType):
            return self._union(kind, args)
        if origin in _LISTS:
            return self._many(_LISTS[origin], self.of(args[0]))
        if origin is tuple and len(args) == 2 and args[1] is ...:
            return self._many(tuple, self.of(args[0]))
        if origin is tuple:
            return self._tuple([self.of(one) for one in args])
        if origin in _DICTS:
            with_keys = types.GenericAlias(dict, (args[0], Any))
            return self._dict(functools.partial(convert, with_keys), self.of(args[1]))
        return self._object(kind)

    def _union(self, kind: Any, members: tuple[Any, ...]) -> Reader:
        models = [one for one in members if foreign.is_model(one)]
        textual = [one for one in members if foreign.is_textual(one)]
        if textual and any(not _is_told(one) for one in members if one is not textual[0]):
            raise TypeError(
                f"which of {kind} a text or a number is cannot be told: give one of them"
            )
        if models and all(one in _PYDANTICS or foreign.is_model(one) for one in members):
            for one in models:
                foreign.check_model(one)
            adapter = sys.modules["pydantic"].TypeAdapter(kind)
            return lambda value: foreign.validated(adapter, value, *models)
        readers = [self.of(one) for one in members]

        def read(value: Any) -> Any:
            errors = []
            for one in readers:
                try:
                    return one(value)
                except WRONG as exc:
                    errors.append(str(exc))
            raise ValueError(f"it is none of the union: {'; '.join(errors)}")

        return read

    def _many(self, make: Callable[[Any], Any], item: Reader) -> Reader:
        def read(value: Any) -> Any:
            return make([_at(f"[{number}]", item, one) for number, one in _items(value)])

        return read

    def _tuple(self, items: list[Reader]) -> Reader:
        def read(value: Any) -> Any:
            given = list(_items(value))
            if len(given) != len(items):
                raise ValueError(f"it has {len(given)} items, not {len(items)}")
            return tuple(
                _at(f"[{number}]", item, one)
                for item, (number, one) in zip(items, given, strict=True)
            )

        return read

    def _dict(self, with_keys: Reader, item: Reader) -> Reader:
        def read(value: Any) -> Any:
            return {name: _at(f"[{name!r}]", item, one) for name, one in with_keys(value).items()}

        return read

    def _object(self, kind: Any) -> Reader:
        fields = [(one, self.of(one.type)) for one in _fields(kind)]
        known = {one.key for one, _ in fields}
        config = getattr(kind, "__struct_config__", None)
        tag_field, tag = ("", None) if config is None else (config.tag_field, config.tag)
        forbids = config is not None and config.forbid_unknown_fields

        def read(value: Any) -> Any:
            given = dict(_pairs(value))
            if tag is not None and given.pop(tag_field, None) != tag:
                raise ValueError(f"it is no {kind.__name__}")
            unknown = given.keys() - known
            if forbids and unknown:
                raise ValueError(f"it has an unknown field {min(unknown)!r}")
            missing = [one.key for one, _ in fields if one.required and one.key not in given]
            if missing:
                raise ValueError(f"it has no field {missing[0]!r}")
            values = {
                one.name: _at(f".{one.key}", item, given[one.key])
                for one, item in fields
                if one.key in given
            }
            try:
                return kind(**values)
            except ValueError as exc:  # of a validator
                raise ValueError(foreign.told(exc)) from exc

        return read


class _Field(NamedTuple):
    name: str
    """As its class takes it."""
    key: str
    """In JSON."""
    type: Any
    required: bool


_PYDANTICS = (type(None), str, int, float, bool)
"""What pydantic tells from a model as msgspec does."""


_TEXTUAL = (str, bytes, int, float, bool, date, time, timedelta, Decimal, UUID, enum.Enum)


def _is_told(kind: Any) -> bool:
    """Whether its JSON is no text and no number."""
    if kind is Any or typing.get_origin(kind) is typing.Literal:
        return False
    return not (isinstance(kind, type) and (issubclass(kind, _TEXTUAL) or foreign.is_textual(kind)))


def _fields(kind: Any) -> list[_Field]:
    """The fields of a class. Raises TypeError: it has none that could be read."""
    hints = typing.get_type_hints(kind, include_extras=True) if isinstance(kind, type) else {}
    config = getattr(kind, "__struct_config__", None)
    if config is not None and not config.array_like:
        pairs = zip(kind.__struct_fields__, kind.__struct_encode_fields__, strict=True)
        return [_Field(name, key, hints[name], required=False) for name, key in pairs]
    if dataclasses.is_dataclass(kind) and all(one.init for one in dataclasses.fields(kind)):
        names = [one.name for one in dataclasses.fields(kind)]
        return [_Field(name, name, hints[name], required=False) for name in names]
    attributes = getattr(kind, "__attrs_attrs__", None)
    # What begins with an underscore msgspec does not save.
    if attributes is not None and all(one.init and one.name[0] != "_" for one in attributes):
        return [_Field(one.alias, one.name, hints[one.name], required=False) for one in attributes]
    if typing.is_typeddict(kind):
        needed = kind.__required_keys__
        return [_Field(name, name, _bare(of), name in needed) for name, of in hints.items()]
    name = getattr(kind, "__name__", kind)
    raise TypeError(f"{name} is not a struct, a dataclass or other type that can be read by parts")


def _bare(kind: Any) -> Any:
    """The type of a key of a TypedDict."""
    marked = typing.get_origin(kind) in (typing.Required, typing.NotRequired)
    return typing.get_args(kind)[0] if marked else kind


def _items(value: Any) -> Iterator[tuple[int, Any]]:
    if not isinstance(value, list):
        raise TypeError(f"it is a {type(value).__name__}, not an array")
    return iter(enumerate(value))


def _pairs(value: Any) -> Iterator[tuple[str, Any]]:
    if not isinstance(value, dict):
        raise TypeError(f"it is a {type(value).__name__}, not an object")
    return iter(value.items())


def _at(place: str, read: Reader, value: Any) -> Any:
    """Read a part; an error says where it is."""
    try:
        return read(value)
    except WRONG as exc:
        raise ValueError(f"at {place}: {exc}") from exc


def _parts(info: Any, seen: set[Any], *, inside: bool = False) -> Iterator[tuple[Any, bool]]:
    """A type and the types that it is made of, and whether each is in the fields of a class."""
    yield info, inside
    cls = getattr(info, "cls", None)
    if cls is not None:
        if cls in seen:
            return
        seen.add(cls)
    for name in ("types", "item_types"):
        for part in getattr(info, name, ()):
            yield from _parts(part, seen, inside=inside)
    for name in ("type", "item_type", "key_type", "value_type"):
        part = getattr(info, name, None)
        if isinstance(part, msgspec.inspect.Type):
            yield from _parts(part, seen, inside=inside)
    for field in getattr(info, "fields", ()):
        yield from _parts(field.type, seen, inside=True)
