"""One connection: requests in, answers out, in their order.

Who asks waits in the connection's own task, which reads nothing meanwhile: a write is carried
through whether its client is still there or not. Only who waits for a time is watched.
"""

from __future__ import annotations

import functools
import math
import time
from email.utils import formatdate
from typing import Protocol

import msgspec
import trio

from ... import logs
from ...serving.limits import Memory
from .messages import Head, Reply, text
from .reader import Asked, Reader

CHUNK = 64 * 1024
ON_ITS_WAY = 0.05
"""Seconds in which a request that was sent before a drain is still taken."""
LINGER = 2.0
"""Seconds in which a client that goes on sending can read why it is cut off."""
SMALL = 16 * 1024
"""Bytes of an answer that is sent however much is held: 10,000 of them are 160 MB."""
STILL_THERE = 30.0
"""Seconds after which it is said of one that waits for a time that he does."""
FAIR = 16
"""Pieces of one client after which it is the others' turn, though its next one is there."""
MOST_UNREAD = 1024 * 1024
"""Bytes that are read of one that waits for a time."""


FULL = text(503, "the server holds too many answers that nobody reads; ask again later")


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What a server lets its clients have."""

    connections: int = 10_000
    """At once."""
    idle_timeout: float = 120.0
    """Seconds without a request after which a connection is closed."""
    call_timeout: float = 300.0
    """Seconds until a request must be whole, and an answer be read."""
    memory: int = 1 << 30
    """Bytes that are held for all clients: half of it of requests, and half of answers that are not
    read yet. A quarter of it for one client."""


class Application(Protocol):
    """What answers requests."""

    def refuses(self, head: Head) -> Reply | None:
        """What answers a request by its head alone, if anything does."""

    async def answer(self, head: Head, body: bytearray) -> Reply:
        """What answers a request."""

    def kept_waiting(self, head: Head) -> None:
        """Who has asked waits for an answer that is there, and may not be sent yet."""


class _Left(Exception):
    """The connection is over: nobody waits for an answer, or no more is asked."""


class ServedConnection:
    """A client's connection."""

    def __init__(
        self,
        stream: trio.abc.HalfCloseableStream,
        application: Application,
        limits: Limits,
        requests: Memory,
        answers: Memory,
    ) -> None:
        """``requests`` and ``answers``: what is held of all clients' ones."""
        self._stream = stream
        self._application = application
        self._limits = limits
        self._requests = Memory(limits.memory // 4, requests)
        self._answers = Memory(limits.memory // 4, answers)
        self._reader = Reader(application.refuses, self._requests.take)
        self._waiting: trio.CancelScope | None = None
        """Around what a drain ends: a wait for a next request, or for a time."""
        self._draining = False
        self._turns = 0

    async def run(self) -> None:
        """Answer what is asked, until the connection ends."""
        try:
            while await self._answer(await self._next()):
                pass
            await self._linger()
        except (_Left, trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        finally:
            self._requests.take(-self._requests.used)
            self._answers.take(-self._answers.used)
            with trio.CancelScope(shield=True):
                await trio.aclose_forcefully(self._stream)

    def drain(self) -> None:
        """Answer what has been asked, and close."""
        self._draining = True
        if self._waiting is not None:
            self._waiting.cancel()

    # ---- requests

    async def _next(self) -> Asked | Reply:
        """The next request; or a last answer, where no more is read."""
        reader = self._reader
        whole_by = math.inf
        while not reader.whole:
            if reader.end is not None:
                return reader.end
            if reader.is_between:
                data = await self._more_or_idle()
                whole_by = trio.current_time() + self._limits.call_timeout
            else:
                data = await self._more(whole_by)
            reader.feed(data)
            if reader.expects_continue:
                reader.expects_continue = False
                await self._send(b"HTTP/1.1 100 Continue\r\n\r\n")
        return reader.whole.popleft()

    async def _more_or_idle(self) -> bytes:
        """The first bytes of a request."""
        by = trio.current_time() + self._limits.idle_timeout
        with trio.CancelScope(deadline=by) as self._waiting:
            if self._draining:
                self._waiting.cancel()
            try:
                return await self._received()
            finally:
                self._waiting = None
        if self._draining:
            return await self._more(trio.current_time() + ON_ITS_WAY)
        raise _Left

    async def _more(self, by: float) -> bytes:
        with trio.move_on_at(by):
            return await self._received()
        if not self._draining:
            self._reader.end = text(408, "the request did not become whole in time")
            await self._answer(self._reader.end)
        raise _Left

    async def _received(self) -> bytes:
        data = await self._stream.receive_some(CHUNK)
        self._turns += 1
        if self._turns % FAIR == 0:
            await trio.lowlevel.checkpoint()
        if not data:
            raise _Left
        return bytes(data)

    # ---- answers

    async def _answer(self, asked: Asked | Reply) -> bool:
        """Answer one request. Whether another one may follow."""
        if isinstance(asked, Reply):
            reply, keep_alive, head_only = asked, False, False
        else:
            reply = await self._reply_to(asked)
            keep_alive, head_only = asked.keep_alive, asked.head.method == "HEAD"
            if reply.not_before > trio.current_time():
                await self._wait(asked.head, reply.not_before)
        closes = self._draining or not keep_alive
        data = reply.encoded(date(), closes=closes, head_only=head_only)
        if not self._answers.take(len(data)) and len(data) > SMALL:
            self._answers.take(-len(data))
            data = FULL.encoded(date(), closes=True, head_only=head_only)
            self._answers.take(len(data))
            closes = True
        await self._send(data)
        self._answers.take(-len(data))
        return not closes

    async def _reply_to(self, asked: Asked) -> Reply:
        if asked.refusal is not None:
            return asked.refusal
        try:
            return await self._application.answer(asked.head, asked.body)
        except Exception as exc:  # a mistake of ours: the others must not suffer
            logs.call_failed(exc_info=exc, call="a request", error=str(exc))
            return text(500, "the server could not answer this")
        finally:
            self._requests.take(-len(asked.body))

    async def _send(self, data: bytes) -> None:
        with trio.move_on_after(self._limits.call_timeout):
            await self._stream.send_all(data)
            return
        raise _Left

    async def _wait(self, head: Head, until: float) -> None:
        """Until a time has come, and as long as somebody waits for it."""
        read = 0
        with trio.CancelScope(deadline=until) as self._waiting:
            if self._draining:
                self._waiting.cancel()
            try:
                while True:
                    self._application.kept_waiting(head)
                    with trio.move_on_after(STILL_THERE):
                        while read < MOST_UNREAD:
                            data = await self._received()
                            read += len(data)
                            self._reader.feed(data)
                        await trio.sleep_forever()
            finally:
                self._waiting = None
        if trio.current_time() < until:
            raise _Left  # drained

    async def _linger(self) -> None:
        """Let a client read the last answer, which what it still sends would take from it."""
        with trio.move_on_after(LINGER):
            await self._stream.send_eof()
            while await self._stream.receive_some(CHUNK):
                pass


def date() -> str:
    """The time of an answer."""
    return _date(int(time.time()))


@functools.lru_cache(maxsize=1)
def _date(second: int) -> str:
    return formatdate(second, usegmt=True)
