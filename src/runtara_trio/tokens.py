"""Tokens: who shows one, and what he may do."""

from __future__ import annotations

import enum
import hashlib
import hmac
from pathlib import Path
from typing import NamedTuple, Self

from .errors import ConfigError

SHORTEST_TOKEN = 16


class Role(enum.StrEnum):
    """What somebody may do."""

    VIEWER = "viewer"
    """Look, but at no arguments, states, results and payloads."""
    OPERATOR = "operator"
    """Look at everything, and act."""
    PROGRAM = "program"
    """Run instances, on ``runtara-trio serve``."""


class Person(NamedTuple):
    """Whose token it is."""

    name: str
    role: Role


class TokenFile:
    """The people of a token file.

    A line is ``role name token``; empty ones and those that begin with ``#`` are left.
    """

    def __init__(self, text: str, name: str = "the token file") -> None:
        """Raises ConfigError: an invalid line, or no line."""
        self._people: dict[bytes, Person] = {}
        for number, line in enumerate(text.splitlines(), 1):
            if line.strip() and not line.lstrip().startswith("#"):
                self._add(line, f"line {number} of {name}")
        if not self._people:
            raise ConfigError(f"{name} has no line 'role name token'")

    @classmethod
    def read(cls, path: Path) -> Self:
        """Raises ConfigError: it cannot be read, or see above."""
        try:
            return cls(path.read_text(), str(path))
        except (OSError, UnicodeDecodeError) as exc:
            raise ConfigError(f"cannot read the token file {path}: {exc}") from exc

    def _add(self, line: str, where: str) -> None:
        parts = line.split()
        if len(parts) != 3 or parts[0] not in [*Role]:
            *others, last = Role
            raise ConfigError(
                f"{where} must be 'role name token', the role {', '.join(others)} or {last}"
            )
        role, name, token = parts
        if len(token) < SHORTEST_TOKEN:
            raise ConfigError(f"the token on {where} has under {SHORTEST_TOKEN} characters")
        self._people[_digest(token)] = Person(name, Role(role))

    @property
    def people(self) -> list[Person]:
        """All of them."""
        return list(self._people.values())

    def person(self, token: str) -> Person | None:
        """Whose token it is."""
        digest = _digest(token)
        found = None
        for one, person in self._people.items():  # all of them: the time tells nothing
            if hmac.compare_digest(one, digest):
                found = person
        return found


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
