"""Retries of durable functions: which error, how often, how long after.

An attempt that failed is recorded before anything else happens: a crash does not add to the
number of attempts. A long wait before the next attempt outlives the process.
"""

from __future__ import annotations

import inspect
import math
import random
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import msgspec
import trio

from .. import logs, measures
from ..clock import check_seconds
from ..engine.block import Block
from ..engine.history import Open
from ..engine.outcome import leaves_of
from ..engine.waits import Wait
from ..errors import ConfigError, NonRetryable, SdkError, message_of
from ..ids import retry_id, storable
from ..messages import RecordRetry
from . import waiting
from .failing import was_cancelled

T = TypeVar("T")

LONG_WAIT = 10.0
"""Seconds from which on a wait is saved; after a crash, a shorter one is not waited again."""

_LONGEST_ERROR = 10_000

RetryOn = type[Exception] | tuple[type[Exception], ...] | Callable[[Exception], bool]


class Retry(msgspec.Struct, frozen=True, kw_only=True):
    """What ``on_retry`` is given, once an attempt has failed and before the wait."""

    function: str
    checkpoint_id: str
    attempt: int
    """The attempt that failed, from 1."""
    max_retries: int | None
    """None: it is tried for ever."""
    error: Exception
    delay: float
    """Seconds until the next attempt."""


class RetryPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """How a function is retried; checked by :func:`policy`."""

    max_retries: int | None
    delay: float
    max_delay: float
    jitter: bool
    retry_on: RetryOn | None
    timeout: float | None
    on_retry: Callable[[Retry], Any] | None

    def is_last(self, number: int) -> bool:
        """Whether no retry follows attempt ``number``, from 0."""
        return self.max_retries is not None and number >= self.max_retries

    def longest_wait(self, number: int) -> float:
        """Seconds before retry ``number``, from 1, at most."""
        return float(min(self.max_delay, self.delay * 2.0 ** min(number - 1, 1000)))

    def wait(self, number: int) -> float:
        """Seconds before retry ``number``; with jitter anything up to the longest."""
        longest = self.longest_wait(number)
        return random.uniform(0, longest) if self.jitter else longest

    def retries(self, error: Exception) -> bool:
        """Whether this error is worth another attempt."""
        leaves = leaves_of(error)
        if any(isinstance(leaf, NonRetryable) for leaf in leaves):
            return False
        if self.retry_on is None:
            return not any(isinstance(leaf, SdkError) for leaf in leaves)
        if isinstance(self.retry_on, (type, tuple)):
            return isinstance(error, self.retry_on) or all(
                isinstance(leaf, self.retry_on) for leaf in leaves
            )
        return bool(self.retry_on(error))


def policy(name: str, **values: Any) -> RetryPolicy:
    """The policy of a function from the arguments of ``@durable``. Raises ConfigError."""
    retries, retry_on = values["max_retries"], values["retry_on"]
    whole = isinstance(retries, int) and not isinstance(retries, bool) and retries >= 0
    if retries is not None and not whole:
        raise ConfigError(
            f"max_retries of {name} must be a whole number from 0, or None for ever, not "
            f"{retries!r}"
        )
    kinds = retry_on if isinstance(retry_on, tuple) else (retry_on,)
    for kind in kinds:
        wrong = not issubclass(kind, Exception) if isinstance(kind, type) else len(kinds) > 1
        if wrong or not (kind is None or callable(kind)):
            raise ConfigError(
                f"retry_on of {name} must be an exception type, which Cancelled is not, a tuple "
                f"of them, or a predicate, not {retry_on!r}"
            )
    for field in ("delay", "max_delay"):
        values[field] = check_seconds(f"{field} of {name}", values[field])
    if values["timeout"] is not None:
        timeout = check_seconds(f"timeout of {name}", values["timeout"], positive=True)
        values["timeout"] = timeout
    if values["on_retry"] is not None and not callable(values["on_retry"]):
        raise ConfigError(f"on_retry of {name} must be callable, not {values['on_retry']!r}")
    return RetryPolicy(**values)


async def run(
    block: Block,
    how: RetryPolicy,
    function: str,
    checkpoint_id: str,
    attempt: Callable[[], Awaitable[T]],
    step: Open | None = None,
) -> T:
    """Make attempts until one succeeds, or the last one fails with its own error.

    ``step``: where those that failed are noted, but the last one.
    """
    number = await _recorded(block, checkpoint_id, how)
    if number:
        await _wait(block, how, checkpoint_id, number, resumed=True)
    while True:
        try:
            with (
                block.history.attempt_span(number + 1),
                trio.move_on_after(math.inf if how.timeout is None else how.timeout),
            ):
                return await attempt()
            raise trio.TooSlowError(f"{function} took longer than timeout={how.timeout:g} s")
        except Exception as exc:
            if how.is_last(number) or not how.retries(exc):
                raise
            if was_cancelled(exc):  # it says nothing of the call, and is no attempt
                await trio.lowlevel.checkpoint_if_cancelled()
            number += 1
            delay = how.wait(number)
            text = text_of(exc)
            if step is not None:
                step.failed(text, block.history.now())
            measures.step_retries()
            await _record(block, checkpoint_id, number, text)
            logs.retrying(
                instance_id=block.instance_id,
                checkpoint_id=checkpoint_id,
                error=type(exc).__name__,
                attempt=number,
                count="any" if how.max_retries is None else how.max_retries + 1,
                seconds=delay,
            )
            if how.on_retry is not None:
                told = how.on_retry(
                    Retry(
                        function=function,
                        checkpoint_id=checkpoint_id,
                        attempt=number,
                        max_retries=how.max_retries,
                        error=exc,
                        delay=delay,
                    )
                )
                if inspect.isawaitable(told):
                    await told
        await _wait(block, how, checkpoint_id, number, delay=delay)


async def _recorded(block: Block, checkpoint_id: str, how: RetryPolicy) -> int:
    """How many retries earlier runs have recorded."""
    number = 0
    while (
        not how.is_last(number)
        and await block.requests.find(retry_id(checkpoint_id, number + 1)) is not None
    ):
        number += 1
    return number


async def _record(block: Block, checkpoint_id: str, number: int, error: str) -> None:
    block.past.touch(retry_id(checkpoint_id, number))
    await block.requests.save(
        RecordRetry(
            instance_id=block.instance_id,
            lease=block.state.lease_for_write(),
            checkpoint_id=checkpoint_id,
            attempt=number,
            error=block.state.seal("attempt", checkpoint_id, error),
        )
    )


def text_of(error: Exception) -> str:
    """An error as it is recorded."""
    return storable(f"{type(error).__name__}: {message_of(error)}", _LONGEST_ERROR)


async def _wait(
    block: Block,
    how: RetryPolicy,
    checkpoint_id: str,
    number: int,
    *,
    delay: float | None = None,
    resumed: bool = False,
) -> None:
    """Wait before a retry. A boundary; a long one is a durable sleep."""
    seconds = how.wait(number) if delay is None else delay
    if how.longest_wait(number) >= LONG_WAIT:
        with block.history.retry_span(number):
            await waiting.sleep(block, seconds, retry_id(checkpoint_id, number), b"")
    else:
        with block.boundary.waiting():
            async with block.waits.one(Wait(), short=True):
                await trio.sleep(0 if resumed else seconds)
        await block.boundary.reach()
