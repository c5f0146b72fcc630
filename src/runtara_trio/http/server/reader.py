"""From bytes to requests, with llhttp below: strict about everything that two readers of one
request could take in two ways."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import httptools

from .messages import Head, Reply, text

LONGEST_TARGET = 64 * 1024 - 1
LONGEST_HEAD = 128 * 1024
"""Bytes of a request that are no body: its head, its chunks' sizes, its trailers."""
MOST_HEADERS = 100
LONGEST_BODY = 64 * 1024 * 1024
SMALL_BODY = 64 * 1024
"""Bytes of a body that are read though the request is refused: the connection goes on then."""

ONCE = (b"host", b"origin", b"authorization", b"transfer-encoding")
"""Headers whose repetition would leave open which one counts."""


class Asked:
    """A request that has come."""

    __slots__ = ("body", "head", "keep_alive", "refusal", "size")

    def __init__(self, head: Head) -> None:
        self.head = head
        self.body = bytearray()
        self.size = 0
        """Bytes of the body, also of one that is not kept."""
        self.refusal: Reply | None = None
        """It is answered with this, whatever its body is."""
        self.keep_alive = True


class Reader:
    """The requests of one connection."""

    def __init__(
        self, refuses: Callable[[Head], Reply | None], take: Callable[[int], bool]
    ) -> None:
        """
        Args:
          refuses: what answers a request by its head alone, if anything does.
          take: asked whether so many bytes more may be held.
        """
        self._refuses = refuses
        self._take = take
        self._parser = httptools.HttpRequestParser(self)
        self.whole: deque[Asked] = deque()
        """Requests that are whole, oldest first."""
        self.now: Asked | None = None
        """One whose head has come."""
        self.end: Reply | None = None
        """No more is read: what the last request is answered."""
        self.expects_continue = False
        """Who asks waits to be told that the body may come."""
        self.is_between = True
        """Nothing of a next request has come."""
        self._other = 0
        """Bytes of the request that comes, but those of its body."""
        self._begin_head()

    def feed(self, data: bytes) -> None:
        """More has come."""
        self._other += len(data)
        fits = self._take(len(data))
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:  # to no protocol that is spoken here
            self._close_behind()
        except httptools.HttpParserCallbackError as exc:  # a mistake of ours
            raise exc.__context__ or exc from None
        except httptools.HttpParserError as exc:
            self._end(text(400, f"invalid request: {exc}"))
        if not fits:
            self._end(text(503, "the server holds too much; ask again later"))
        elif self._other > LONGEST_HEAD:
            self._end(text(431, "the headers are too long"))

    def _begin_head(self) -> None:
        self._target = b""
        self._headers: dict[bytes, bytes] = {}
        self._count = 0

    def _close_behind(self) -> None:
        """What was whole is answered, and the connection is closed."""
        if self.whole:
            self.whole[-1].keep_alive = False
        else:
            self._end(text(400, "invalid request: an upgrade of a request that is not whole"))

    def _end(self, reply: Reply) -> None:
        if self.end is None:
            self.end = reply

    # ---- called by the parser

    def on_message_begin(self) -> None:
        self.is_between = False

    def on_url(self, piece: bytes) -> None:
        self._target += piece
        if len(self._target) > LONGEST_TARGET:
            self._end(text(414, "the URI is too long"))

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.now is not None:
            return  # behind the body: nobody asks for these
        name = name.lower()
        self._count += 1
        if self._count > MOST_HEADERS:
            self._end(text(431, f"more than {MOST_HEADERS} headers"))
        elif name in self._headers:
            if name in ONCE:
                self._end(text(400, f"invalid request: {name.decode('latin-1')} is there twice"))
            value = self._headers[name] + b", " + value
        self._headers[name] = value

    def on_headers_complete(self) -> None:
        if self.end is not None:
            return
        head = Head(
            method=self._parser.get_method().decode("ascii"),
            target=self._target,
            headers=self._headers,
        )
        asked = self.now = Asked(head)
        version = self._parser.get_http_version()
        asked.keep_alive = version != "1.0" and self._parser.should_keep_alive()
        coding = head.header(b"transfer-encoding").lower()
        if coding not in ("", "chunked"):
            self._end(text(400, f"invalid request: the transfer-encoding {coding!r} is unknown"))
            return
        asked.refusal = self._refuses(head)
        length = head.headers.get(b"content-length", b"")
        if length.isdigit():
            self._check_length(asked, int(length))
        if head.header(b"expect").lower() == "100-continue":
            self.expects_continue = asked.refusal is None
            if asked.refusal is not None:  # who asks would wait before he sends the body
                self._end(asked.refusal)

    def on_body(self, piece: bytes) -> None:
        asked = self.now
        if asked is None or self.end is not None:
            return
        self._other -= len(piece)
        asked.size += len(piece)
        self._check_length(asked, asked.size)
        if asked.refusal is None:
            asked.body += piece
        else:
            self._take(-len(piece))

    def _check_length(self, asked: Asked, length: int) -> None:
        if length > LONGEST_BODY:
            self._end(text(413, f"a body has {LONGEST_BODY} bytes at most"))
        elif asked.refusal is not None and length > SMALL_BODY:
            self._end(asked.refusal)

    def on_message_complete(self) -> None:
        asked, self.now = self.now, None
        self.is_between = True
        self._take(-self._other)
        self._other = 0
        self.expects_continue = False
        self._begin_head()
        if asked is not None and self.end is None:
            self.whole.append(asked)
