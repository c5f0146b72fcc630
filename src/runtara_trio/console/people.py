"""Who looks at the console: by a token, by a proxy in front, or on this machine."""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

from itsdangerous import BadSignature, URLSafeTimedSerializer
from starlette.requests import HTTPConnection

from ..errors import ConfigError
from ..tokens import Person, Role, TokenFile

SESSION = "runtara_session"
SESSION_SECONDS = 12 * 3600
USER_HEADER, ROLE_HEADER = "x-forwarded-user", "x-forwarded-role"
ROLES = (Role.VIEWER, Role.OPERATOR)
"""Of whom the console lets in."""

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
    if role not in ROLES:
        raise ConfigError(f"authorize gave the role {role!r}; there are {', '.join(ROLES)}")
    return Person(str(name), Role(role))


def everybody(scope: Scope) -> Given:
    """All are operators: for a console that only this machine reaches."""
    return LOCAL


class Tokens(TokenFile):
    """The people of a token file, and their sessions. Those of programs are not let in.

    A session ends after 12 hours, and with the file that it was made by.
    """

    def __init__(self, text: str, name: str = "the token file") -> None:
        """Raises ConfigError: an invalid line, or no line."""
        super().__init__(text, name)
        self._signer = URLSafeTimedSerializer(
            hashlib.sha256(text.encode()).hexdigest(), salt="session"
        )

    def person(self, token: str) -> Person | None:
        found = super().person(token)
        return None if found is None or found.role not in ROLES else found

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
        return person if person in self.people else None


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
        return Person(name, Role(role)) if name and role and role in ROLES else None


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
