"""Who may ask, by the head of a request.

Any page in a browser can have requests sent to this machine. So what a browser sends is refused,
and what was sent to a name that nobody has allowed: it may be a page's own, with this machine's
address.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection
from urllib.parse import urlsplit

from ...tokens import Role, TokenFile
from .messages import Head, Reply, text

OF_BROWSERS = (b"origin", b"referer", b"sec-fetch-site", b"sec-fetch-mode", b"sec-fetch-dest")
"""Headers that only browsers send, and not with every request."""

BROWSER = b"mozilla/"
"""How every browser begins to say what it is."""


class Guard:
    """What every request is checked by."""

    def __init__(
        self, *, hosts: Collection[str] = (), tokens: TokenFile | None = None, role: Role
    ) -> None:
        """
        Args:
          hosts: names by which it may be asked for, beside addresses and localhost.
          tokens: of whom may ask; None: everybody.
          role: that a token must have.
        """
        self._hosts = {"localhost", *(host.lower() for host in hosts)}
        self._tokens = tokens
        self._role = role
        self._known: str | None = None

    def refuses(self, head: Head) -> Reply | None:
        """What answers who may not ask."""
        is_browser = head.headers.get(b"user-agent", b"").lower().startswith(BROWSER)
        if is_browser or any(name in head.headers for name in OF_BROWSERS):
            return text(403, "pages in a browser are not answered")
        host = head.header(b"host")
        if host != self._known:
            if not self._is_ours(host):
                return text(
                    403,
                    f"this server is not known as {host!r}: allow that name with --allowed-host",
                )
            self._known = host
        return None if self._tokens is None else self._refuses_token(head, self._tokens)

    def _is_ours(self, host: str) -> bool:
        if not host:  # HTTP/1.0
            return True
        try:
            name = urlsplit(f"//{host}").hostname or ""
            ipaddress.ip_address(name)
        except ValueError:
            return name in self._hosts
        return True

    def _refuses_token(self, head: Head, tokens: TokenFile) -> Reply | None:
        kind, _, token = head.header(b"authorization").partition(" ")
        person = tokens.person(token.strip()) if kind.lower() == "bearer" else None
        if person is None:
            challenge = (("www-authenticate", "Bearer"),)
            return Reply(
                status=401, body=b"a bearer token is needed", kind="text/plain", headers=challenge
            )
        if person.role is not self._role:
            return text(403, f"the token of {person.name} is one of a {person.role}")
        head.who = person.name
        return None
