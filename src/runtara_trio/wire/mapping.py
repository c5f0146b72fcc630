"""Structs to protobuf and back.

Fields have the protocol's names on both sides, so a table of which struct is which message
is all there is to know; nested messages and optional fields follow from it. Nothing else
imports the generated module.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import Any, get_args, get_type_hints

from google.protobuf.message import DecodeError

from . import calls
from . import instance_pb2 as pb
from .calls import Answer, Call


class WireError(Exception):
    """Bytes that are no message, or one that says nothing."""


CALLS: dict[str, tuple[type[Call], type[Any]]] = {
    "register_instance": (calls.RegisterInstance, pb.RegisterInstanceRequest),
    "sleep": (calls.Sleep, pb.SleepRequest),
    "instance_event": (calls.InstanceEvent, pb.InstanceEvent),
    "instance_event_batch": (calls.InstanceEventBatch, pb.InstanceEventBatch),
    "get_instance_status": (calls.GetInstanceStatus, pb.GetInstanceStatusRequest),
    "checkpoint": (calls.Checkpoint, pb.CheckpointRequest),
    "get_checkpoint": (calls.GetCheckpoint, pb.GetCheckpointRequest),
    "poll_signals": (calls.PollSignals, pb.PollSignalsRequest),
    "signal_ack": (calls.SignalAck, pb.SignalAck),
    "retry_attempt": (calls.RetryAttempt, pb.RetryAttemptEvent),
}
"""The field of RpcRequest, the struct and the message."""

ANSWERS: dict[str, tuple[type[Answer], type[Any]]] = {
    "register_instance": (calls.RegisterInstanceAnswer, pb.RegisterInstanceResponse),
    "sleep": (calls.SleepAnswer, pb.SleepResponse),
    "instance_event": (calls.InstanceEventAnswer, pb.InstanceEventResponse),
    "get_instance_status": (calls.GetInstanceStatusAnswer, pb.GetInstanceStatusResponse),
    "checkpoint": (calls.CheckpointAnswer, pb.CheckpointResponse),
    "get_checkpoint": (calls.GetCheckpointAnswer, pb.GetCheckpointResponse),
    "poll_signals": (calls.PollSignalsAnswer, pb.PollSignalsResponse),
    "error": (calls.RpcError, pb.RpcError),
}
"""The same for RpcResponse."""

_PARTS: dict[type[Any], type[Any]] = {
    calls.Signal: pb.Signal,
    calls.CustomSignal: pb.CustomSignal,
    calls.InstanceEvent: pb.InstanceEvent,
}
"""What stands inside of others."""


class _Mapping:
    """One struct and its message."""

    def __init__(self, struct: type[Any], message: type[Any]) -> None:
        self._struct = struct
        self._message = message
        self._names: tuple[str, ...] = struct.__struct_fields__
        self._fields = _getter(self._names)
        self._optional: list[tuple[int, str]] = []
        self._inner: list[tuple[int, str, _Mapping]] = []
        self._repeated: list[tuple[int, str, _Mapping]] = []
        hints = get_type_hints(struct)
        for number, name in enumerate(self._names):
            parts = get_args(hints[name])
            if type(None) in parts:
                self._optional.append((number, name))
            if parts and parts[0] in _PARTS:
                inner = _Mapping(parts[0], _PARTS[parts[0]])
                kind = self._repeated if Ellipsis in parts else self._inner
                kind.append((number, name, inner))

    def message(self, value: Any) -> Any:
        """The protobuf message that says what ``value`` says."""
        fields = dict(zip(self._names, self._fields(value), strict=True))
        for _, name, mapping in self._inner:
            if fields[name] is not None:
                fields[name] = mapping.message(fields[name])
        for _, name, mapping in self._repeated:
            fields[name] = [mapping.message(one) for one in fields[name]]
        return self._message(**fields)

    def value(self, message: Any) -> Any:
        """The struct that says what ``message`` says."""
        if not self._optional and not self._repeated:
            return self._struct(*self._fields(message))
        fields = list(self._fields(message))
        for number, name in self._optional:
            if not message.HasField(name):
                fields[number] = None
        for number, _, mapping in self._inner:
            if fields[number] is not None:
                fields[number] = mapping.value(fields[number])
        for number, _, mapping in self._repeated:
            fields[number] = tuple(mapping.value(one) for one in fields[number])
        return self._struct(*fields)


def _getter(names: tuple[str, ...]) -> Callable[[Any], tuple[Any, ...]]:
    """All these attributes of an object. (attrgetter gives a lone one without a tuple.)"""
    match names:
        case ():
            return lambda _: ()
        case (name,):
            one = attrgetter(name)
            return lambda value: (one(value),)
    return attrgetter(*names)


class _Envelope:
    """A oneof: RpcRequest around the calls, or RpcResponse around the answers."""

    def __init__(
        self, message: type[Any], oneof: str, table: dict[str, tuple[type[Any], type[Any]]]
    ) -> None:
        self._message = message
        self._oneof = oneof
        self._by_name = {name: _Mapping(*pair) for name, pair in table.items()}
        self._names = {struct: name for name, (struct, _) in table.items()}

    def encode(self, value: Any) -> bytes:
        name = self._names[type(value)]
        message = self._message(**{name: self._by_name[name].message(value)})
        encoded: bytes = message.SerializeToString()
        return encoded

    def decode(self, data: bytes) -> Any:
        try:
            message = self._message.FromString(data)
        except DecodeError as exc:
            raise WireError(f"{len(data)} bytes are no {self._message.__name__}") from exc
        name = message.WhichOneof(self._oneof)
        return None if name is None else self._by_name[name].value(getattr(message, name))


_requests = _Envelope(pb.RpcRequest, "request", CALLS)
_responses = _Envelope(pb.RpcResponse, "response", ANSWERS)


def encode_call(call: Call) -> bytes:
    """The payload of a request frame."""
    return _requests.encode(call)


def decode_call(data: bytes) -> Call | None:
    """What a request frame's payload asks; None: nothing that this protocol knows.

    Raises:
      WireError: it is not an RpcRequest.
    """
    call: Call | None = _requests.decode(data)
    return call


def encode_answer(answer: Answer) -> bytes:
    """The payload of a response frame."""
    return _responses.encode(answer)


def decode_answer(data: bytes) -> Answer:
    """What a response frame's payload answers.

    Raises:
      WireError: it is not an RpcResponse, or an empty one.
    """
    answer: Answer | None = _responses.decode(data)
    if answer is None:
        raise WireError("the answer says nothing that this protocol knows")
    return answer


CALL_NAMES = {struct: name for name, (struct, _) in CALLS.items()}
"""What the protocol calls a call; in upper case and with ``_ERROR`` its error code."""
