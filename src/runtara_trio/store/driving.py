"""Driving an answer whose database never waits."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def drive(answer: Coroutine[Any, Any, T]) -> T:
    """What an answer returns, which must not suspend."""
    try:
        answer.send(None)
    except StopIteration as done:
        value: T = done.value
        return value
    answer.close()
    raise AssertionError("an answer suspended, though its database never waits")
