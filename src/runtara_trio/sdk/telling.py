"""The verbs by which a program says something of itself: its history, its end, its status."""

from __future__ import annotations

import hashlib
from typing import Any, TypeVar, overload

import msgspec

from ..codec import JSON, Codec, Place, at, decode, encode
from ..errors import ConfigError
from ..ids import attributes_id, check_instance_id, check_subtype, check_text
from ..messages import GetInput, GetStatus, RecordEvent, RecordRetry, SetAttributes
from ..types import EventType, InstanceInfo, InstanceStatus
from . import revealing
from .attributes import check_attributes
from .facts import Facts
from .paths import Path

T = TypeVar("T")


class Telling(Facts):
    """What is recorded beside checkpoints."""

    _codec: Codec

    def _id(self, checkpoint_id: str) -> str:
        raise NotImplementedError

    @property
    def _path(self) -> Path:
        raise NotImplementedError

    # ---- the history

    async def heartbeat(self) -> None:
        """Add a heartbeat to the instance's history; the automatic heartbeats add no event."""
        await self._event(EventType.HEARTBEAT, None, b"")

    async def custom_event(self, subtype: str, payload: Any = b"") -> None:
        """Add an event of your own to the instance's history.

        Args:
          subtype: its name.
          payload: bytes as they are, anything else by the codec.
        """
        codec = at(self._codec, Place(self.instance_id, "event", check_subtype(subtype)))
        data = encode(codec, f"payload of event {subtype!r}", payload)
        await self._event(EventType.CUSTOM, subtype, data)

    async def record_retry_attempt(
        self, checkpoint_id: str, attempt_number: int, error_message: str | None = None
    ) -> None:
        """Record that a step is tried again.

        Args:
          checkpoint_id: of the step, below the path of the calling task.
          attempt_number: counts from 1.
          error_message: why; None: not known.
        """
        if (
            isinstance(attempt_number, bool)
            or not isinstance(attempt_number, int)
            or not 1 <= attempt_number < 2**31
        ):
            raise ConfigError(
                f"attempt_number must be a whole number from 1 to 2**31 - 1, not {attempt_number!r}"
            )
        error = None if error_message is None else check_text("error_message", error_message)
        encode(JSON, "error_message", (error or "").encode())  # its length
        checkpoint_id = self._id(checkpoint_id)
        if error is not None:
            error = self._block.state.seal("attempt", checkpoint_id, error)
        message = RecordRetry(
            instance_id=self.instance_id,
            lease=self._block.state.lease_for_write(),
            checkpoint_id=checkpoint_id,
            attempt=attempt_number,
            error=error,
        )
        self._block.past.touch(checkpoint_id)
        await self._block.requests.request(message)

    async def set_attributes(self, **attributes: str | int | float | bool) -> None:
        """Set attributes by which the instance is found; others that it has stay. Once: a replay
        sets them to nothing older.

        Raises:
          ConfigError: a value that is no text, finite number or bool.
          SdkError: it would have more than 20, or no client has started the instance.
        """
        values = check_attributes(attributes)
        digest = hashlib.sha256(msgspec.json.encode(values, order="deterministic")).hexdigest()
        path = self._path
        place = path.prefix + path.within, digest[:32]
        number = path.numbers.next(place)
        message = SetAttributes(
            instance_id=self.instance_id,
            lease=self._block.state.lease_for_write(),
            saved_as=attributes_id(*place, number),
            attributes=values,
        )
        await self._block.requests.save(message)
        await self._block.boundary.reach_saved()

    # ---- the end

    async def completed(self, output: Any = b"") -> None:
        """Record the instance as completed, now. Shielded, within ``final_timeout``.

        Every writing call after it is an error, and the instance is free for others.

        Args:
          output: bytes as they are, anything else by the codec.

        Raises:
          OutcomeNotRecorded: the backend did not take it in time.
        """
        codec = at(self._codec, Place(self.instance_id, "output"))
        await self._block.ending.say(InstanceStatus.COMPLETED, encode(codec, "output", output))

    async def failed(self, error: str) -> None:
        """Record the instance as failed, now; otherwise like :meth:`completed`.

        Args:
          error: why, as people read it.
        """
        text = self._block.state.seal("error", "", check_text("error", error))
        await self._block.ending.say(InstanceStatus.FAILED, encode(JSON, "error", text.encode()))

    async def suspended(self, reason: str = "") -> None:
        """Record the instance as suspended, now; a later start goes on with it.

        Args:
          reason: why, as people read it.
        """
        text = self._block.state.seal("error", "", check_text("reason", reason))
        await self._block.ending.say(
            InstanceStatus.SUSPENDED, encode(JSON, "reason", text.encode())
        )

    # ---- questions

    @overload
    async def input(self) -> bytes | None: ...
    @overload
    async def input(self, type: type[T]) -> T | None: ...
    async def input(self, type: type[Any] = bytes) -> Any:
        """What this instance was started with, by a client or a runtara-environment; None: it was
        started without an input. Of a workflow's run: its arguments, as an array.

        Args:
          type: what it is decoded to; bytes as they are.

        Raises:
          CodecError: it is not a ``type``.
          NotSupported: a server over QUIC.
          ServerError: there is no such instance yet.
        """
        message = GetInput(instance_id=self.instance_id)
        found = (await self._block.requests.request(message)).input
        if found is None:
            return None
        codec = at(self._codec, Place(self.instance_id, "input"))
        return decode(codec, f"the input of instance {self.instance_id!r}", found, type)

    async def get_status(self) -> InstanceInfo:
        """What the backend says of this instance."""
        return await self.get_instance_status(self.instance_id)

    async def get_instance_status(self, instance_id: str) -> InstanceInfo:
        """What the backend says of any instance; status UNKNOWN where it does not exist.

        Args:
          instance_id: which one.
        """
        message = GetStatus(instance_id=check_instance_id(instance_id))
        return revealing.info(self._codec, await self._block.requests.request(message))

    async def _event(self, kind: EventType, subtype: str | None, payload: bytes) -> None:
        await self._block.requests.request(
            RecordEvent(
                instance_id=self.instance_id,
                lease=self._block.state.lease_for_write(),
                type=kind,
                subtype=subtype,
                payload=payload,
            )
        )
