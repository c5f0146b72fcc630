"""Who looks at the console: by a token, by a proxy in front, or on this machine."""

from __future__ import annotations

import enum
import hashlib
import hmac
import ipaddress
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from itsdangerous import BadSignature, URLSafeTimedSerializer
from starlette.requests import HTTPConnection

from ..errors import ConfigError

SESSION = "runtara_session"
SESSION_SECONDS = 12 * 3600
SHORTEST_TOKEN = 16
USER_HEADER, ROLE_HEADER = "x-forwarded-user", "x-forwarded-role"


class Role(enum.StrEnum):
    """What somebody may do."""

    VIEWER = "viewer"
    """Look, but at no arguments, states, results and payloads."""
    OPERATOR = "operator"
    """Look at everything, and act."""


class Person(NamedTuple):
    """Who looks."""

    name: str
    role: Role


Scope = Mapping[str, Any]
Authorize = Callable[[Scope], "Given | Awaitable[Given]"]
"""From an ASGI scope to a (user, role), or None where it is nobody."""
Given = Person | tuple[str, str] | None

LOCAL = Person("local", Role.OPERATOR)
"""Whoever is on this machine, where nothing else was said."""


def checked(given: Given) -> Person | None:
    """What an ``authorize`` gave. Raises ConfigError: an unknown role."""
    if given is None:
        return None
    name, role = given
    try:
        return Person(str(name), Role(role))
    except ValueError as exc:
        known = ", ".join(Role)
        raise ConfigError(f"authorize gave the role {role!r}; there are {known}") from exc


def everybody(scope: Scope) -> Given:
    """All are operators: for a console that only this machine reaches."""
    return LOCAL


class Tokens:
    """The people of a token file, and their sessions.

    A line is ``role name token``; empty ones and those that begin with ``#`` are left. A session
    ends after 12 hours, and with the file that it was made by.
    """

    def __init__(self, text: str, name: str = "the token file") -> None:
        """Raises ConfigError: an invalid line, or no line."""
        self._people: dict[bytes, Person] = {}
        for number, line in enumerate(text.splitlines(), 1):
            if line.strip() and not line.lstrip().startswith("#"):
                self._add(line, f"line {number} of {name}")
        if not self._people:
            raise ConfigError(f"{name} has no line 'role name token'")
        self._secret = hashlib.sha256(text.encode()).hexdigest()
        self._signer = URLSafeTimedSerializer(self._secret, salt="session")

    @classmethod
    def read(cls, path: Path) -> Tokens:
        """Raises ConfigError: it cannot be read, or see above."""
        try:
            return cls(path.read_text(), str(path))
        except (OSError, UnicodeDecodeError) as exc:
            raise ConfigError(f"cannot read the token file {path}: {exc}") from exc

    def _add(self, line: str, where: str) -> None:
        parts = line.split()
        if len(parts) != 3 or parts[0] not in [*Role]:
            raise ConfigError(f"{where} must be 'role name token', the role viewer or operator")
        role, name, token = parts
        if len(token) < SHORTEST_TOKEN:
            raise ConfigError(f"the token on {where} has under {SHORTEST_TOKEN} characters")
        self._people[_digest(token)] = Person(name, Role(role))

    def person(self, token: str) -> Person | None:
        """Whose token it is."""
        digest = _digest(token)
        found = None
        for one, person in self._people.items():  # all of them: the time tells nothing
            if hmac.compare_digest(one, digest):
                found = person
        return found

    def session(self, person: Person) -> str:
        """What a browser keeps instead of the token."""
        return str(self._signer.dumps([person.name, person.role.value]))

    def authorize(self, scope: Scope) -> Given:
        """By a session, or by the header ``Authorization: Bearer``, for programs."""
        connection = HTTPConnection(dict(scope))
        kind, _, token = connection.headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer":
            return self.person(token.strip())
        session = connection.cookies.get(SESSION)
        if session is None:
            return None
        try:
            name, role = self._signer.loads(session, max_age=SESSION_SECONDS)
        except (BadSignature, ValueError, TypeError):
            return None
        person = Person(name, Role(role))
        return person if person in self._people.values() else None


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


class TrustedProxy:
    """People whom a proxy in front knows: its headers are believed from its addresses alone."""

    def __init__(
        self, networks: Iterable[str], user: str = USER_HEADER, role: str = ROLE_HEADER
    ) -> None:
        """Raises ConfigError: an invalid network."""
        try:
            self._networks = [ipaddress.ip_network(one) for one in networks]
        except ValueError as exc:
            raise ConfigError(f"a trusted proxy is given as 10.0.0.0/8: {exc}") from exc
        self._user = user
        self._role = role

    def authorize(self, scope: Scope) -> Given:
        client = scope.get("client")
        try:
            address = ipaddress.ip_address(client[0]) if client else None
        except ValueError:
            return None
        if address is None or not any(address in one for one in self._networks):
            return None
        headers = HTTPConnection(dict(scope)).headers
        name, role = headers.get(self._user), headers.get(self._role)
        return Person(name, Role(role)) if name and role and role in [*Role] else None


def first_of(*ways: Authorize) -> Authorize:
    """The first of some ways that knows somebody; of ways that do not wait."""

    def authorize(scope: Scope) -> Given:
        for way in ways:
            found = way(scope)
            if found is not None:
                assert isinstance(found, tuple)
                return found
        return None

    return authorize
