"""One call on its way: its requests, and what is read of their answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

import msgspec

from ...errors import ServerError
from ...remote.asking import Orphaned
from ...wire import calls
from ...wire.mapping import CALL_NAMES
from .. import bodies
from .connection import Response

if TYPE_CHECKING:
    from .asking import HttpAsking

T = TypeVar("T")

TOO_LARGE = 413
_SIGNALS = {one.name.lower(): one for one in calls.SignalType}


class Input(calls.Call, frozen=True):
    """The one call that the protocol over QUIC has not."""

    instance_id: str


class Call:
    """One call on its way."""

    def __init__(
        self,
        asking: HttpAsking,
        call: Any,
        deadline: float,
        *,
        resend: bool,
        orphaned: Orphaned | None,
    ) -> None:
        self.asking = asking
        self.call = call
        self.name = CALL_NAMES.get(type(call), "input")
        self.resent = False
        self._deadline = deadline
        self._resend = resend
        self._orphaned = orphaned

    async def send(
        self,
        path: str,
        body: bodies.Body | None = None,
        *,
        of: str | None = None,
        late: bool = False,
    ) -> Response:
        """Send one request about the call's instance, or another one; ``late``: an answer that
        nobody waits for is given to who wants it."""
        instance = quote(self.call.instance_id if of is None else of, safe="")
        data = b"" if body is None else msgspec.json.encode(body)
        method = "GET" if body is None else "POST"
        kind = "" if body is None else "Content-Type: application/json\r\n"
        head = (
            f"{method} /api/v1/instances/{instance}{path} HTTP/1.1\r\n"
            f"{self.asking.head}{kind}Content-Length: {len(data)}\r\n\r\n"
        )
        reply = await self.asking.pool.call(
            self.name,
            head.encode() + data,
            self._deadline,
            resend=self._resend or body is None,
            late=self._given if late and self._orphaned is not None else None,
        )
        self.resent = self.resent or reply.resent
        return reply.response

    def _given(self, response: Response) -> None:
        if response.status == 200 and self._orphaned is not None:
            self._orphaned(checkpoint_answer(self, response))

    def read(self, response: Response, kind: type[T]) -> T:
        """What an answer says. Raises ServerError where it is invalid."""
        try:
            return msgspec.json.decode(response.body, type=kind)
        except msgspec.MsgspecError as exc:
            raise ServerError(self.name, "BAD_REPLY", f"{response.status}: {exc}") from exc

    def refusal(self, response: Response) -> calls.RpcError:
        """What a server says that does not carry a call out."""
        try:
            said = msgspec.json.decode(response.body, type=bodies.Refusal)
        except msgspec.MsgspecError:
            if response.status == TOO_LARGE:
                text = "it takes requests of up to 64 MiB, and so states of up to 48 MiB"
                return calls.RpcError("HTTP_413", text)
            text = response.body.decode(errors="replace").strip()
            return calls.RpcError(f"HTTP_{response.status}", text or f"status {response.status}")
        return calls.RpcError(said.code or f"HTTP_{response.status}", said.error)


def checkpoint_answer(one: Call, response: Response) -> calls.CheckpointAnswer:
    """What an answer says of a checkpoint."""
    found = one.read(response, bodies.CheckpointAnswer)
    return calls.CheckpointAnswer(
        found=found.found,
        state=found.state,
        pending_signal=signal_of(one, found.signal),
        custom_signal=custom_of(found.custom_signal),
    )


def signal_of(one: Call, found: bodies.Signal | None) -> calls.Signal | None:
    """A signal; None where its type is unknown."""
    if found is None or found.signal_type not in _SIGNALS:
        return None
    return calls.Signal(one.call.instance_id, _SIGNALS[found.signal_type], found.payload)


def custom_of(found: bodies.CustomSignal | None) -> calls.CustomSignal | None:
    """A signal to a checkpoint."""
    return None if found is None else calls.CustomSignal(found.checkpoint_id, found.payload)
