"""``@durable``: a function whose result is saved, and which does not run again then."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import ContextVar
from typing import Any, Literal, ParamSpec, Protocol, TypeVar, overload

import msgspec
import trio

from .. import logs
from ..clock import Seconds
from ..engine import deadlines
from ..engine.block import Block
from ..engine.history import Open
from ..engine.past import MOST_INSIDE
from ..errors import ConfigError
from ..ids import check_text, inside_id, users_id
from ..types import StepKind, StepOutcome
from . import failing, retry
from .asyncio_bridge import explained
from .current import current_sdk
from .failing import Raises, check_raises
from .keys import Key, Keys
from .paths import below
from .retry import Retry, RetryOn, RetryPolicy
from .returning import Returns
from .runtara_sdk import RuntaraSdk
from .summary import Summary

P = ParamSpec("P")
R = TypeVar("R")

run_in_thread: ContextVar[Callable[..., Awaitable[Any]]] = ContextVar(
    "runtara_trio_run_in_thread", default=trio.to_thread.run_sync
)
"""How a sync function is run; the test kit, whose clock does not wait for threads, runs it
inline."""


class DurableDecorator(Protocol):
    """What ``durable(...)`` gives: it keeps the function's own signature."""

    @overload
    def __call__(
        self, function: Callable[P, Coroutine[Any, Any, R]], /
    ) -> Callable[P, Coroutine[Any, Any, R]]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> Callable[P, Coroutine[Any, Any, R]]: ...


@overload
def durable(
    function: Callable[P, Coroutine[Any, Any, R]], /
) -> Callable[P, Coroutine[Any, Any, R]]: ...
@overload
def durable(function: Callable[P, R], /) -> Callable[P, Coroutine[Any, Any, R]]: ...
@overload
def durable(
    *,
    name: str | None = None,
    key: Key = None,
    flavor: Literal["trio", "asyncio"] = "trio",
    max_retries: int | None = 3,
    delay: Seconds = 1.0,
    max_delay: Seconds = 3600.0,
    jitter: bool = False,
    retry_on: RetryOn | None = None,
    raises: type[Exception] | Raises = (),
    timeout: Seconds | None = None,
    on_retry: Callable[[Retry], Any] | None = None,
    summary: str | None = None,
) -> DurableDecorator: ...
def durable(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    key: Key = None,
    flavor: Literal["trio", "asyncio"] = "trio",
    max_retries: int | None = 3,
    delay: Seconds = 1.0,
    max_delay: Seconds = 3600.0,
    jitter: bool = False,
    retry_on: RetryOn | None = None,
    raises: type[Exception] | Raises = (),
    timeout: Seconds | None = None,
    on_retry: Callable[[Retry], Any] | None = None,
    summary: str | None = None,
) -> Any:
    """Make a function durable: its result is saved once, and handed out from then on.

    On an async function, or on a sync one, which then runs in a worker thread. It is called
    inside an ``open_runtara`` block, as the async function that it then is. Each call is a
    step: a pause does not tear it from the save of its result. Two tasks that make the same
    call at the same time share one run.

    What it returns is decoded from the saved bytes to the function's return annotation, in
    the first run as in a replay.

    Args:
      name: what it is called in checkpoint ids. None: the function's own name. It must stay
        the same when the program is changed, and be another function's nowhere in a block.
      key: tells the calls of the function apart: a format string over the arguments
        (``"{order.id}"``), or a callable that is given them and returns a str. None: the
        single string argument, else the JSON of all arguments, without ``self``; types that
        JSON does not tell follow it.
      flavor: "asyncio": a coroutine that needs an asyncio library; it runs through
        trio-asyncio.
      max_retries: how often a failed call is tried again; also over crashes. None: for ever.
      delay: seconds before the first retry; they double with each.
      max_delay: seconds that a wait has at most.
      jitter: wait a random time up to that.
      retry_on: exception types, or a predicate. None: any ``Exception`` but
        :class:`SdkError`. A :class:`NonRetryable`, a cancellation, KeyboardInterrupt and
        SystemExit are never retried.
      raises: exception types that a replay must raise as themselves. Others are found by
        their name, where they are loaded.
      timeout: seconds for one attempt, then ``trio.TooSlowError``. Not for sync functions.
      on_retry: called with a :class:`Retry` before each wait; it may be async.
      summary: a format string over the arguments, for people who look at the instance's
        history: it is stored as it is, up to 200 characters. None: no summary.

    Raises:
      ConfigError: an invalid argument, or a function that cannot be durable; of a call, a
        result larger than 64 MiB − 4 KiB.
      TypeError: of a call, an argument has no JSON to make a key of.
      CodecError: of a call, its result cannot be encoded, or not decoded to its annotation;
        before the function runs, where that can be known.
      SdkError: of a call outside a block, after its end, or one that waits for itself.
      StoreError: of a call, its result was not saved; Unreachable: it may be.

    A call that fails otherwise raises what its last attempt raised. That failure is saved: a
    replay, and a second call, raise it again and do not run the function. It is of the same
    type where the exception is made of its arguments or its text alone, else a
    :class:`DurableError`. ``revive`` forgets failures.
    """
    locals_ = sys._getframe(1).f_locals  # a return type may be defined beside the function

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        _check_function(function)
        called = function.__name__ if name is None else check_text("name", name)
        if flavor not in ("trio", "asyncio"):
            raise ConfigError(f"flavor of {called} must be 'trio' or 'asyncio', not {flavor!r}")
        asynchronous = inspect.iscoroutinefunction(function)
        if flavor == "asyncio" and not asynchronous:
            raise ConfigError(f"{called} has flavor='asyncio' and is not a coroutine function")
        if timeout is not None and not asynchronous:
            raise ConfigError(f"timeout of {called}: a thread cannot be ended; limit what it calls")
        how = retry.policy(
            called,
            max_retries=max_retries,
            delay=delay,
            max_delay=max_delay,
            jitter=jitter,
            retry_on=retry_on,
            timeout=timeout,
            on_retry=on_retry,
        )
        made = Durable(
            called,
            function,
            Keys(called, function, key),
            Returns(f"the durable function {called}", function, dict(locals_)),
            how,
            check_raises(called, raises),
            Summary(called, function, summary),
            "asyncio" if flavor == "asyncio" else "trio" if asynchronous else "thread",
        )

        @functools.wraps(function)
        async def call(*args: Any, **kwargs: Any) -> Any:
            return await made.call(args, kwargs)

        return call

    return decorate if function is None else decorate(function)


def _check_function(function: Any) -> None:
    if isinstance(function, (staticmethod, classmethod)):
        raise ConfigError(f"put @durable below @{type(function).__name__}, next to the function")
    if not inspect.isroutine(function) or inspect.isbuiltin(function):
        raise ConfigError(f"@durable is for functions and methods, not for {function!r}")
    if inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function):
        raise ConfigError(
            f"{function.__name__} is a generator: it has no single result to be saved; "
            "return a list, or make each part durable"
        )


class Durable:
    """One durable function."""

    __slots__ = (
        *("_flavor", "_function", "_how", "_keys"),
        *("_name", "_raises", "_returns", "_summary"),
    )

    def __init__(
        self,
        name: str,
        function: Callable[..., Any],
        keys: Keys,
        returns: Returns,
        how: RetryPolicy,
        raises: Raises,
        summary: Summary,
        flavor: Literal["trio", "asyncio", "thread"],
    ) -> None:
        self._name = name
        self._function = function
        self._keys = keys
        self._returns = returns
        self._how = how
        self._raises = raises
        self._summary = summary
        self._flavor = flavor

    async def call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        sdk = current_sdk()
        block = sdk._block
        block.state.check_writable()
        block.names.claim(self._name, self._function)
        checkpoint_id = self._keys.of(args, kwargs, sdk._path.prefix, block.names.claim_type)
        block.names.claim_call(self._name, self._function, checkpoint_id)
        self._returns.check(sdk._codec)
        once = functools.partial(self._once, sdk, block, checkpoint_id, args, kwargs)
        return await block.runs.share(checkpoint_id, once)

    async def _once(
        self,
        sdk: RuntaraSdk,
        block: Block,
        checkpoint_id: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        stored, failure = await block.past.find_call(checkpoint_id)
        if stored is None and failure is None and block.past.resumed:
            for former in self._keys.formerly(args, kwargs, sdk._path.prefix):
                if await block.past.knows_call(former):
                    checkpoint_id = former
                    stored, failure = await block.past.find_call(former)
                    break
        found = failure if stored is None else stored
        await deadlines.note(found)
        logs.checkpoint(
            instance_id=block.instance_id, checkpoint_id=checkpoint_id, found=found is not None
        )
        if found is not None:
            await trio.lowlevel.checkpoint()
            await block.boundary.reach_saved()
        if failure is not None:
            codec = sdk._at(block.past.failure_id(checkpoint_id))
            raise failing.decoded(codec, self._failure_of(checkpoint_id), failure, self._raises)
        if stored is not None:
            return self._returns.decode(sdk._at(checkpoint_id), checkpoint_id, stored)
        async with block.boundary.step(checkpoint_id, saves=True):
            summary = self._summary.of(args, kwargs)
            with block.history.step(StepKind.CALL, checkpoint_id, summary, name=self._name) as step:
                data = await self._run(sdk, block, checkpoint_id, args, kwargs, step)
                result = self._returns.decode(sdk._at(checkpoint_id), checkpoint_id, data)
                reply = await block.requests.checkpoint(checkpoint_id, data, step)
            if reply.found:  # by another client of a core, which knows no leases
                result = self._returns.decode(sdk._at(checkpoint_id), checkpoint_id, reply.state)
        return result

    async def _run(
        self,
        sdk: RuntaraSdk,
        block: Block,
        checkpoint_id: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        step: Open | None,
    ) -> bytes:
        """Call the function until it has a result, or has failed for good, which is saved."""
        with block.past.inside() as inside:
            attempt = functools.partial(self._attempt, sdk, checkpoint_id, args, kwargs)
            try:
                value = await retry.run(block, self._how, self._name, checkpoint_id, attempt, step)
            except Exception as exc:
                if not failing.is_final(exc):
                    raise
                await self._save_inside(block, checkpoint_id, inside)
                await self._save_failure(sdk, block, checkpoint_id, exc, step)
                raise
        data = self._returns.encode(sdk._at(checkpoint_id), checkpoint_id, value)
        await self._save_inside(block, checkpoint_id, inside)
        return data

    async def _save_failure(
        self,
        sdk: RuntaraSdk,
        block: Block,
        checkpoint_id: str,
        error: Exception,
        step: Open | None,
    ) -> None:
        """Save the final failure of a call: a replay must go the same way."""
        name = self._failure_of(checkpoint_id)
        stored_as = block.past.failure_id(checkpoint_id)
        codec = sdk._at(stored_as)
        data = failing.encoded(codec, name, error)
        if step is not None:
            step.failed(retry.text_of(error), block.history.now())
        reply = await block.requests.checkpoint(stored_as, data, step, StepOutcome.FAILED)
        block.past.failed(checkpoint_id)
        if not failing.can_be_made(error, self._raises):
            logs.failure_changes(
                instance_id=block.instance_id,
                checkpoint_id=checkpoint_id,
                error=type(error).__name__,
            )
        if reply.found and reply.state != data:
            raise failing.decoded(codec, name, reply.state, self._raises) from error

    async def _save_inside(self, block: Block, checkpoint_id: str, ids: set[str]) -> None:
        """Save which ids a call has used inside: a replay that finds it does not visit them."""
        used = sorted(one for one in ids if users_id(one) == one)
        if used:
            data = msgspec.json.encode(used) if len(used) <= MOST_INSIDE else b""
            await block.requests.checkpoint(inside_id(checkpoint_id), data)

    def _failure_of(self, checkpoint_id: str) -> str:
        return f"the failure of the durable function {self._name} ({checkpoint_id!r})"

    async def _attempt(
        self, sdk: RuntaraSdk, checkpoint_id: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        with below(sdk._path.inside(checkpoint_id)), sdk._block.uses.attempt():
            try:
                if self._flavor == "trio":
                    return await self._function(*args, **kwargs)
                if self._flavor == "asyncio":
                    return await sdk.asyncio(self._function, *args, **kwargs)
                function = functools.partial(self._function, *args, **kwargs)
                return await run_in_thread.get()(function)
            except RuntimeError as exc:
                mistake = explained(self._name, exc)
                if mistake is None:
                    raise
                raise mistake from exc
