"""What operators' calls ask for in their query, and pages of what was found."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from typing import NamedTuple, TypeVar
from urllib.parse import parse_qsl

from ...errors import ConfigError

T = TypeVar("T")

MOST = 10_000
"""Rows of an answer, and rows before it."""


class Query:
    """The parameters of one request. Invalid ones raise ConfigError."""

    def __init__(self, text: str, known: Collection[str]) -> None:
        self._values: dict[str, str] = {}
        for name, value in parse_qsl(text):
            if name not in known:
                raise ConfigError(
                    f"{name} is not understood; the parameters are {', '.join(known)}"
                )
            self._values[name] = value

    def text(self, name: str) -> str | None:
        return self._values.get(name)

    def number(self, name: str, default: int, most: int) -> int:
        found = self._values.get(name, str(default))
        if not found.isdecimal() or len(found) > 9 or int(found) > most:
            raise ConfigError(f"{name} must be a number up to {most}, not {found!r}")
        return int(found)

    def time(self, name: str) -> datetime | None:
        """Unix ms."""
        found = self._values.get(name)
        if found is None:
            return None
        try:
            return datetime.fromtimestamp(int(found) / 1000, UTC)
        except (ValueError, OverflowError, OSError) as exc:
            raise ConfigError(f"{name} must be Unix ms, not {found!r}") from exc

    def one_of(self, name: str, allowed: Sequence[str]) -> str:
        """The first where it is not given."""
        found = self._values.get(name, allowed[0])
        if found not in allowed:
            raise ConfigError(f"{name} must be one of {', '.join(allowed)}, not {found!r}")
        return found

    def is_on(self, name: str) -> bool:
        return self.one_of(name, ("false", "true")) == "true"

    @property
    def page(self) -> Page:
        return Page(self.number("limit", 100, MOST), self.number("offset", 0, MOST))


class Page(NamedTuple):
    """Which of the rows that were found."""

    limit: int
    offset: int

    @property
    def end(self) -> int:
        return self.offset + self.limit

    def of(self, rows: Sequence[T]) -> Sequence[T]:
        return rows[self.offset : self.end]
