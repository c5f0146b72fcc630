"""What is asked and what is answered, whatever it is about."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import msgspec

TEXT = "text/plain; charset=utf-8"
JSON = "application/json"


class Head(msgspec.Struct, kw_only=True):
    """A request without its body."""

    method: str
    target: bytes
    """Path and query, as they were sent."""
    headers: Mapping[bytes, bytes]
    """By their names in small letters."""
    who: str = ""
    """By whose token it is asked; empty: nobody was asked for one."""
    found: Any = None
    """Where an application keeps what it has found out by the head."""

    def header(self, name: bytes) -> str:
        """The value of a header; empty where there is none."""
        return self.headers.get(name, b"").decode("latin-1")


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """An answer."""

    status: int = 200
    body: bytes = b""
    kind: str = JSON
    """Of the body, where it is not empty."""
    headers: tuple[tuple[str, str], ...] = ()
    not_before: float = 0.0
    """When it may be sent, by Trio's clock: who asks so waits until then."""

    def encoded(self, date: str, *, closes: bool, head_only: bool = False) -> bytes:
        """What is sent."""
        more = "".join(f"{name}: {value}\r\n" for name, value in self.headers)
        kind = f"content-type: {self.kind}\r\n" if self.body else ""
        head = (
            f"HTTP/1.1 {self.status} {PHRASES.get(self.status, 'Unknown')}\r\n"
            f"{kind}content-length: {len(self.body)}\r\ndate: {date}\r\n{more}"
            f"{CLOSES if closes else ''}\r\n"
        )
        return head.encode("latin-1") + (b"" if head_only else self.body)


CLOSES = "connection: close\r\n"
PHRASES = {one.value: one.phrase for one in HTTPStatus}


def json(value: object, status: int = 200) -> Reply:
    """An answer in JSON."""
    return Reply(status=status, body=msgspec.json.encode(value))


def text(status: int, why: str) -> Reply:
    """A refusal, for a person."""
    return Reply(status=status, body=why.encode(), kind=TEXT)


class Refused(Exception):
    """A request that is answered with a refusal."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.status)
        self.reply = reply
