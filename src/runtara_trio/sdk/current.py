"""The SDK of the calling task."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING

from ..errors import SdkError

if TYPE_CHECKING:
    from .runtara_sdk import RuntaraSdk

_current: ContextVar[RuntaraSdk | None] = ContextVar("runtara_trio_sdk", default=None)


def current_sdk() -> RuntaraSdk:
    """The SDK of the innermost block around the calling task.

    Raises:
      SdkError: the calling task is not inside a block.
    """
    sdk = _current.get()
    if sdk is None:
        raise SdkError("no open_runtara block is around this task")
    return sdk


def make_current(sdk: RuntaraSdk | None) -> RuntaraSdk | None:
    """Make ``sdk`` the current one. Returns the SDK that was current, to be set back. (A token of
    a context variable would bind to one context.)"""
    before = _current.get()
    _current.set(sdk)
    return before
