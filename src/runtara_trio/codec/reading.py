"""Types that msgspec has no decoder for, read part by part.

It has none for a union with a class of somebody else's, and does not call the validators of
pydantic's dataclasses. What it can read it reads; a union is read by pydantic where one of its
models is in it, and else by the first of its members that fits.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import functools
import sys
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, Union

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
            if not is_inside and not foreign.is_known(cls):
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
        self._of: dict[Any, Reader | None] = {}

    def of(self, kind: Any) -> Reader:
        if kind in self._of:
            return lambda value: self._made(kind)(value)
        self._of[kind] = None
        made = self._of[kind] = self._make(kind)
        return made

    def _made(self, kind: Any) -> Reader:
        found = self._of[kind]
        assert found is not None
        return found

    def _make(self, kind: Any) -> Reader:
        if check(kind):
            return functools.partial(convert, kind)
        if foreign.is_validated(kind):
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
        pydantic = sys.modules.get("pydantic")
        if pydantic is not None and any(map(foreign.is_validated, members)):
            try:
                return functools.partial(foreign.validated, pydantic.TypeAdapter(kind))
            except pydantic.PydanticSchemaGenerationError:
                pass  # a struct is in it, too
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
        fields = [(name, self.of(of)) for name, of in _fields(kind).items()]

        def read(value: Any) -> Any:
            given = dict(_pairs(value))
            values = {
                name: _at(f".{name}", item, given[name]) for name, item in fields if name in given
            }
            return kind(**values)  # which says what is missing

        return read


def _fields(kind: Any) -> Mapping[str, Any]:
    """The fields of a class, by name. Raises TypeError: it has none that could be read."""
    known = (
        hasattr(kind, "__struct_fields__")
        or dataclasses.is_dataclass(kind)
        or hasattr(kind, "__attrs_attrs__")
        or hasattr(kind, "__total__")
    )
    if not known:
        name = getattr(kind, "__name__", kind)
        raise TypeError(f"{name} is not a struct, a dataclass or other known type")
    return typing.get_type_hints(kind, include_extras=True)


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
