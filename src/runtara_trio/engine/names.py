"""Names in ids: of durable functions, and of the types of their arguments.

Two functions of one name would share their results. Whether two are the same cannot be
asked of the objects: a helper may make a function anew for each call. So their code counts,
and what differs behind the same code: the functions and the plain values that they close
over. (Every function behind a decorator without ``functools.wraps`` has the same code.)
"""

from __future__ import annotations

import dis
import functools
from collections.abc import Callable
from types import CodeType
from typing import Any

from ..errors import SdkError

_PLAIN = (str, bytes, int, float, type(None))


class Names:
    """The names that one block uses."""

    __slots__ = ("_functions", "_types")

    def __init__(self) -> None:
        self._functions: dict[str, tuple[Callable[..., Any], object]] = {}
        self._types: dict[tuple[str, str], str] = {}

    def claim(self, name: str, function: Callable[..., Any]) -> None:
        """A durable function is used under this name. Raises SdkError: another one has it."""
        known = self._functions.get(name)
        if known is None:
            self._functions[name] = function, _identity(function)
        elif known[0] is not function and known[1] != _identity(function):
            raise SdkError(
                f"two durable functions of this block are called {name!r}, and would share their "
                "results; give one of them @durable(name=...), or its decorator functools.wraps"
            )

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


def _identity(function: Any, depth: int = 0) -> object:
    """What is the same where two functions are."""
    if isinstance(function, functools.partial):
        return _identity(function.func, depth), function.args, tuple(function.keywords.items())
    original: Any = getattr(function, "__func__", function)
    code: CodeType | None = getattr(original, "__code__", None)
    if code is None or depth > _DEEPEST:
        return None
    return (
        code,
        original.__module__,
        original.__qualname__,
        *(_identity_of_value(value, depth) for value in (original.__defaults__ or ())),
        *(_identity_of_cell(function_cell, depth) for function_cell in _cells(original, code)),
    )


_DEEPEST = 10


def _cells(function: Any, code: CodeType) -> list[Any]:
    """What the function closes over, but for what it sets itself."""
    sets = {one.argval for one in dis.get_instructions(code) if one.opname == "STORE_DEREF"}
    closure = zip(code.co_freevars, function.__closure__ or (), strict=True)
    return [cell for name, cell in closure if name not in sets]


def _identity_of_cell(cell: Any, depth: int) -> object:
    try:
        return _identity_of_value(cell.cell_contents, depth)
    except ValueError:  # not set yet
        return None


def _identity_of_value(value: Any, depth: int) -> object:
    if isinstance(value, _PLAIN):
        return type(value), value
    return _identity(value, depth + 1) if callable(value) else None
