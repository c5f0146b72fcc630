"""Names in ids: of durable functions, and of the types of their arguments.

Two functions of one name would share their results. Whether two are the same cannot be
asked of the objects: a helper may make a function anew for each call. So their code counts,
and the functions that they close over, since every function behind a decorator without
``functools.wraps`` has the same code. Plain values that differ are another matter: such
functions are two only where they come to the same id.
"""

from __future__ import annotations

import dis
import functools
from collections.abc import Callable
from contextlib import suppress
from types import CodeType
from typing import Any

from ..errors import SdkError

_PLAIN = (str, bytes, int, float, type(None))


class Names:
    """The names that one block uses."""

    __slots__ = ("_calls", "_functions", "_types")

    def __init__(self) -> None:
        self._functions: dict[str, tuple[Callable[..., Any], object]] = {}
        self._types: dict[tuple[str, str], str] = {}
        self._calls: dict[str, object] = {}

    def claim(self, name: str, function: Callable[..., Any]) -> None:
        """A durable function is used under this name. Raises SdkError: another one has it."""
        known = self._functions.get(name)
        if known is None:
            self._functions[name] = function, _identity(function)
        elif known[0] is not function and known[1] != _identity(function):
            raise _two(name)

    def claim_call(self, name: str, function: Callable[..., Any], checkpoint_id: str) -> None:
        """A function comes to an id. Raises SdkError: one that differs in what it captures did."""
        captured = _captured(function)
        if captured and self._calls.setdefault(checkpoint_id, captured) != captured:
            raise _two(name)

    def claim_type(self, function: str, kind: type) -> None:
        """The name of a type is part of a key of a function. Raises SdkError: another type of
        that name is too."""
        known = self._types.setdefault((function, kind.__qualname__), kind.__module__)
        if known != kind.__module__:
            raise SdkError(
                f"the durable function {function} is called with arguments of two types called "
                f"{kind.__qualname__!r}, of {known} and of {kind.__module__}, whose calls cannot "
                "be told apart; give @durable(key=...)"
            )


def _two(name: str) -> SdkError:
    return SdkError(
        f"two durable functions of this block are called {name!r}, and would share their results; "
        "give one of them @durable(name=...), or its decorator functools.wraps"
    )


def _identity(function: Any, depth: int = 0) -> object:
    """What is the same where two functions are."""
    if isinstance(function, functools.partial):
        return _identity(function.func, depth + 1)
    original: Any = getattr(function, "__func__", function)
    code: CodeType | None = getattr(original, "__code__", None)
    if code is None or depth > _DEEPEST:
        return None
    inner = [value for value in _behind(original, code) if callable(value)]
    return (
        code,
        original.__module__,
        original.__qualname__,
        *(_identity(value, depth + 1) for value in inner),
    )


def _captured(function: Any, depth: int = 0) -> tuple[object, ...]:
    """The plain values that a function has besides its arguments, and those of the functions
    behind it."""
    found: list[object] = []
    if isinstance(function, functools.partial):
        found += [(type(value), value) for value in function.args if isinstance(value, _PLAIN)]
        found += [
            (name, type(value), value)
            for name, value in function.keywords.items()
            if isinstance(value, _PLAIN)
        ]
        function = function.func
    original: Any = getattr(function, "__func__", function)
    code: CodeType | None = getattr(original, "__code__", None)
    if code is not None and depth <= _DEEPEST:
        for value in _behind(original, code):
            if isinstance(value, _PLAIN):
                found.append((type(value), value))
            elif callable(value):
                found += _captured(value, depth + 1)
    return tuple(found)


_DEEPEST = 10


def _behind(function: Any, code: CodeType) -> list[Any]:
    """What a function closes over, but for what it sets itself."""
    if not function.__closure__:
        return []
    found = []
    for name, cell in zip(code.co_freevars, function.__closure__, strict=True):
        if name not in _set_by(code):
            with suppress(ValueError):  # not set yet
                found.append(cell.cell_contents)
    return found


@functools.lru_cache(1000)
def _set_by(code: CodeType) -> frozenset[str]:
    """The names around a function that it sets."""
    return frozenset(
        one.argval for one in dis.get_instructions(code) if one.opname == "STORE_DEREF"
    )
