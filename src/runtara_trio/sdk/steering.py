"""Acting on one instance: signals, messages, another run of it, another instance from it."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from functools import partial
from typing import Any

from ..codec import JSON, Codec, Place, at, copied, encode, encode_sent, is_bound
from ..errors import ConfigError
from ..ids import check_checkpoint_id, check_instance_id, check_name_of, check_text
from ..messages import Fork, Rerun, SendCustomSignal, SendMessage, SendSignal, SignalAnswer
from ..types import SignalType
from .asking import Asking


class Steering(Asking):
    """Verbs on one instance."""

    _codec: Codec

    async def cancel(self, instance_id: str, payload: bytes = b"") -> SignalAnswer:
        """Cancel an instance; nothing takes a cancel back.

        A running instance is told, and ends by itself. An instance that does not run is
        cancelled at once. So are its children, and theirs.

        Args:
          instance_id: which one.
          payload: handed to a program that takes its signals itself.

        Raises:
          SignalRefused: unknown or finished.
        """
        return await self._signal(SignalType.CANCEL, instance_id, payload)

    async def pause(
        self, instance_id: str, payload: bytes = b"", *, tree: bool = False
    ) -> SignalAnswer:
        """Suspend an instance at its next boundary; its program goes on when started again.

        A worker's run is out of its queue until a resume.

        Args:
          instance_id: which one.
          payload: handed to a program that takes its signals itself.
          tree: its children, too, and theirs; else they go on.

        Raises:
          SignalRefused: unknown, finished, or a cancel stands.
        """
        return await self._signal(SignalType.PAUSE, instance_id, payload, tree=tree)

    async def resume(
        self, instance_id: str, payload: bytes = b"", *, tree: bool = False
    ) -> SignalAnswer:
        """Take back a pause that has not stopped the instance yet.

        A worker's run that is paused or parked is ready again. To go on with another suspended
        instance, start its program; the answer says so.

        Args:
          instance_id: which one.
          payload: handed to a program that takes its signals itself.
          tree: its children, too, and theirs.

        Raises:
          SignalRefused: unknown, finished, or a cancel stands.
        """
        return await self._signal(SignalType.RESUME, instance_id, payload, tree=tree)

    async def send_signal(
        self, instance_id: str, checkpoint_id: str, payload: Any = b"", *, replace: bool = False
    ) -> None:
        """Send a payload to whoever waits, now or later, for this id of an instance.

        The same payload twice is one signal. A text is sent as its UTF-8, as the command line
        sends it, anything else by the codec.

        Args:
          instance_id: the instance that gets it.
          checkpoint_id: the id that it waits for, path included.
          payload: bytes, a text, or a value.
          replace: instead of a signal that nobody has taken yet, or one that was not of the
            type that was waited for.

        Raises:
          SignalRefused: unknown or finished; the id has or had a different signal; with
            ``replace``, that one was handed out.
        """
        place = Place(check_instance_id(instance_id), "state", check_checkpoint_id(checkpoint_id))
        await self._request(
            SendCustomSignal(
                instance_id=instance_id,
                checkpoint_id=checkpoint_id,
                payload=encode_sent(at(self._codec, place), "payload", payload),
                replace=replace,
            )
        )

    async def send_message(self, instance_id: str, name: str, payload: Any = b"") -> None:
        """Send a message to an instance that receives it now or later, also before its first start.
        Any number may wait; they are handed out in the order in which they were sent.

        Args:
          instance_id: the instance that gets it.
          name: under which it receives.
          payload: bytes, a text, or a value; see :meth:`send_signal`.

        Raises:
          SignalRefused: unknown or finished.
        """
        place = Place(check_instance_id(instance_id), "message", check_name_of("name", name))
        await self._request(
            SendMessage(
                instance_id=instance_id,
                name=name,
                payload=encode_sent(at(self._codec, place), "payload", payload),
            )
        )

    async def rerun(self, instance_id: str) -> None:
        """Make a finished instance of a workflow pending again: it goes on from its checkpoints.

        Attempts, the deaths of its workers and its timeout begin anew, and saved failures are
        forgotten. Its failed and cancelled children are pending again in the same commit.

        Args:
          instance_id: which one.

        Raises:
          SdkError: unknown, not finished, no workflow's, or a child of a parent that has not ended.
        """
        await self._request(Rerun(instance_ids=(check_instance_id(instance_id),)))

    async def fork(
        self,
        instance_id: str,
        new_id: str,
        *,
        until: str | None = None,
        args: Sequence[Any] | None = None,
    ) -> None:
        """Make a new pending instance with the checkpoints of another; the history of each names
        the other. It has its own children.

        Args:
          instance_id: the other.
          new_id: the new one's id.
          until: the last checkpoint to be copied, in the order in which they were saved. None: all.
          args: other arguments of the workflow. None: the same.

        Raises:
          SdkError: ``new_id`` exists; the other is unknown, no workflow's, or has no such
            checkpoint.
          CodecError: the codec cannot read what is to be copied.
        """
        codec, data = self._codec, None
        if args is not None:
            place = Place(check_instance_id(new_id), "input")
            data = encode(at(codec, place), f"the arguments of {new_id!r}", [*args])
        await self._request(
            Fork(
                instance_id=check_instance_id(instance_id),
                new_id=check_instance_id(new_id),
                until=None if until is None else check_text("until", until),
                input=data,
                copied=partial(copied, codec, instance_id, new_id) if is_bound(codec) else None,
            )
        )

    async def _signal(
        self, kind: SignalType, instance_id: str, payload: bytes, *, tree: bool = False
    ) -> SignalAnswer:
        if not isinstance(payload, bytes):
            raise ConfigError(f"payload must be bytes, not {type(payload).__name__}")
        return await self._request(
            SendSignal(
                instance_id=check_instance_id(instance_id),
                type=kind,
                # A token of its own, so that an acknowledgement means this very signal.
                payload=encode(JSON, "payload", payload) or secrets.token_hex(8).encode(),
                tree=tree,
            )
        )
