"""The final failure of a durable call, saved and raised again.

A program that catches a failure goes another way, and must go the same way in a replay: so
a call whose attempts are used up leaves a record of its failure, and a replay raises it
without running the function. The exception is made again of its class and its arguments,
where that gives the same text; else it is a :class:`DurableError`.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator
from typing import Any

import msgspec
import trio

from ..codec import Codec, decode, encode
from ..engine.outcome import leaves_of
from ..errors import CodecError, ConfigError, DurableError, SdkError, message_of
from ..ids import storable

_LONGEST_TEXT = 1 << 16

Raises = tuple[type[Exception], ...]


class Failure(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A failure as it is stored."""

    type: str
    """``module.qualified name`` of its class."""
    message: str
    args: list[Any] | None = None
    """The exception's arguments, where JSON has them all."""
    attributes: dict[str, Any] | None = {}
    """The rest of it, likewise."""
    traceback: str = ""
    parts: list[Failure] = []
    """What a group holds."""


def check_raises(name: str, raises: object) -> Raises:
    """The exception types that a durable function names. Raises ConfigError."""
    kinds = raises if isinstance(raises, tuple) else (raises,)
    for kind in kinds:
        if not (isinstance(kind, type) and issubclass(kind, Exception)):
            raise ConfigError(
                f"raises of {name} must be an exception type or a tuple of them, not {raises!r}"
            )
    return kinds


def is_final(error: Exception) -> bool:
    """Whether a failure is one of the program's own, which stays as it is.

    Errors of the SDK may pass by themselves, and what a cancelled call raises instead of
    Cancelled says nothing of the call.
    """
    return not any(isinstance(leaf, SdkError) for leaf in leaves_of(error)) and not (
        was_cancelled(error)
    )


def was_cancelled(error: BaseException) -> bool:
    """Whether an error came of a cancellation that still stands around the calling task."""
    return trio.current_effective_deadline() == -float("inf") and any(map(_cancels, _chain(error)))


def _cancels(error: BaseException) -> bool:
    asyncio = sys.modules.get("asyncio")
    kinds = (trio.Cancelled,) if asyncio is None else (trio.Cancelled, asyncio.CancelledError)
    return isinstance(error, kinds)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error, what it came of, and what they hold."""
    seen: set[int] = set()
    todo: list[BaseException | None] = [error]
    while todo:
        one = todo.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        todo += (one.__cause__, one.__context__, *getattr(one, "exceptions", ()))


def encoded(codec: Codec, name: str, error: Exception) -> bytes:
    """The record of a failure. Raises CodecError."""
    text = "".join(traceback.format_exception(error))
    failure = msgspec.structs.replace(
        _failure(error), traceback=storable(text[-_LONGEST_TEXT:], _LONGEST_TEXT)
    )
    return encode(codec, name, msgspec.json.encode(failure).decode())


def decoded(codec: Codec, name: str, data: bytes, raises: Raises) -> Exception:
    """The exception of a stored failure.

    Args:
      codec: the one it was encoded by.
      name: what errors call it.
      data: the record.
      raises: classes that the durable function names, looked at first.

    Raises:
      CodecError: it is not such a record.
    """
    text = decode(codec, name, data, str)
    try:
        failure = msgspec.json.decode(text, type=Failure)
    except msgspec.DecodeError as exc:
        raise CodecError(f"{name} is not the record of a failure: {exc}") from exc
    error = _made(failure, raises)
    error.add_note(f"(of an earlier run, or call, which raised:)\n{failure.traceback}")
    return error


def can_be_made(error: Exception, raises: Raises) -> bool:
    """Whether a replay raises a failure as what it is."""
    failure = _failure(error)
    made = _made(failure, raises)
    return type(made) is type(error) and _same(_failure(made), failure)


def _same(one: Failure, other: Failure) -> bool:
    """Whether two exceptions are alike, as far as can be stored."""
    return (
        (one.args, one.attributes) == (other.args, other.attributes)
        and len(one.parts) == len(other.parts)
        and all(map(_same, one.parts, other.parts))
        and other.args is not None
        and other.attributes is not None
    )


def _failure(error: Exception) -> Failure:
    name, message = _name(type(error)), storable(message_of(error), _LONGEST_TEXT)
    if isinstance(error, ExceptionGroup):
        parts = [_failure(part) for part in error.exceptions]
        return Failure(type=name, message=message, args=[error.message], parts=parts)
    args: Any = error.args
    if isinstance(error, OSError):  # its file names are in no other place
        args = error.__reduce__()[1]
    attributes = {key: value for key, value in vars(error).items() if key != "__notes__"}
    return Failure(
        type=name, message=message, args=_in_json(list(args)), attributes=_in_json(attributes)
    )


def _in_json(value: Any) -> Any:
    """A value that is the same once it was JSON; None: this one is not."""
    try:
        return value if msgspec.json.decode(msgspec.json.encode(value)) == value else None
    except Exception:
        return None


def _name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _made(failure: Failure, raises: Raises) -> Exception:
    """The exception of a record, or what stands for it."""
    if failure.parts:
        parts = [_made(part, raises) for part in failure.parts]
        if failure.type == _name(ExceptionGroup) and failure.args is not None:
            return ExceptionGroup(str(failure.args[0]), parts)
    for kind in _classes(failure.type, raises):
        for make in (_as_it_was, _of_its_arguments, _of_its_text):
            try:
                error = make(kind, failure)
            except Exception:
                continue
            if (
                error is not None
                and type(error) is kind
                and storable(message_of(error), _LONGEST_TEXT) == failure.message
            ):
                return error
    return DurableError(failure.type.rpartition(".")[2], failure.message, failure.traceback)


def _as_it_was(kind: type[Exception], failure: Failure) -> Exception | None:
    """With its arguments and attributes; its ``__init__`` may take others."""
    if failure.args is None or failure.attributes is None:
        return None
    error = kind.__new__(kind, *failure.args)
    vars(error).update(failure.attributes)
    return error


def _of_its_arguments(kind: type[Exception], failure: Failure) -> Exception | None:
    return None if failure.args is None else kind(*failure.args)


def _of_its_text(kind: type[Exception], failure: Failure) -> Exception:
    return kind(failure.message)


def _classes(name: str, raises: Raises) -> Iterator[type[Exception]]:
    """The classes of this name: those that the function names, then those that are loaded.

    A program's module may be called otherwise in another run (``__main__``), so of those
    that the function names only the last part of the name counts.
    """
    last = name.rpartition(".")[2]
    yield from (kind for kind in raises if _name(kind) == name)
    yield from (kind for kind in raises if kind.__name__ == last)
    # One that was defined again, in a function or a reload, is the newest of its name.
    yield from reversed([kind for kind in _subclasses(Exception) if _name(kind) == name])


def _subclasses(kind: type[Exception]) -> list[type[Exception]]:
    found: dict[type[Exception], None] = {kind: None}
    todo = [kind]
    while todo:
        for one in type.__subclasses__(todo.pop()):
            if one not in found:
                found[one] = None
                todo.append(one)
    return list(found)
