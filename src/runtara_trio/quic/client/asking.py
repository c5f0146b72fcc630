"""Calls over QUIC: each a frame on a stream of its own."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from ...errors import ServerError
from ...remote.asking import Asking, Orphaned
from ...wire import frames, mapping
from ...wire.calls import Answer, Call
from .session import Session


class QuicAsking(Asking):
    """Makes calls through a session."""

    def __init__(self, session: Session, timeout: float) -> None:
        super().__init__(session.server.name, timeout)
        self._session = session

    def trouble(self) -> str | None:
        return self._session.trouble()

    async def answer(
        self, call: Call, deadline: float, *, resend: bool, orphaned: Orphaned | None
    ) -> tuple[Answer, bool]:
        name = mapping.CALL_NAMES[type(call)]
        frame = frames.encode(frames.REQUEST, mapping.encode_call(call))
        given = None if orphaned is None else _reads(name, orphaned)
        reply = await self._session.call(name, frame, deadline, resend=resend, orphaned=given)
        if reply.payload is None:
            raise ServerError(name, "NO_ANSWER", "the server ended the call without an answer")
        return _answer_in(name, reply.payload), reply.resent

    async def carry(self, call: Call, deadline: float, *, resend: bool) -> None:
        name = mapping.CALL_NAMES[type(call)]
        frame = frames.encode(frames.REQUEST, mapping.encode_call(call))
        await self._session.call(name, frame, deadline, resend=resend)


def _reads(name: str, orphaned: Orphaned) -> Callable[[bytes], None]:
    """The same for bytes; what is no answer holds nothing to be kept."""

    def given(payload: bytes) -> None:
        with contextlib.suppress(ServerError):
            orphaned(_answer_in(name, payload))

    return given


def _answer_in(name: str, payload: bytes) -> Answer:
    """What an answer says. Raises ServerError where it is invalid."""
    try:
        return mapping.decode_answer(payload)
    except mapping.WireError as exc:
        raise ServerError(name, "BAD_REPLY", str(exc)) from exc
