"""``open_runtara``: a block inside which work is durable.

It owns the body's cancel scope, and for a URL the backend around it. It gives the user
their own exception, keeps the services alive while the body cleans up, and records what
the block ended as before it lets go.
"""

from __future__ import annotations

import math
import os
import signal
from collections.abc import AsyncIterator, Iterable
from contextlib import AbstractAsyncContextManager
from typing import Literal

import msgspec
import trio

from ..backend import Backend
from ..clock import Seconds, check_seconds
from ..codec import JSON, Codec
from ..config import CHECKPOINT_VARIABLE, VARIABLES, SdkConfig, environment
from ..engine.asleep import end_asleep
from ..engine.block import Block
from ..engine.outcome import contains
from ..engine.services import SharedBackend
from ..engine.stop import STOP_SIGNALS, signal_numbers
from ..errors import ConfigError, LeaseLost
from ..ids import check_checkpoint_id, check_instance_id, check_stored_id, check_tenant_id
from ..interrupts import protected_manager
from ..opening import Target, check_on_trio, open_backend
from ..types import Outcome
from .current import make_current
from .runtara_sdk import RuntaraSdk


def open_runtara(
    target: str | SdkConfig | Backend | None = None,
    *,
    instance_id: str | None = None,
    tenant_id: str | None = None,
    checkpoint_id: str | None = None,
    register: bool = True,
    revive: bool = False,
    signals: Literal["scopes", "manual"] = "scopes",
    on_pause: Literal["suspend", "hold"] = "suspend",
    on_sleep: Literal["wait", "exit"] = "wait",
    pause_grace: Seconds = 30.0,
    final_timeout: Seconds = 30.0,
    stop_signals: Iterable[int] = (signal.SIGTERM,),
    codec: Codec = JSON,
) -> AbstractAsyncContextManager[RuntaraSdk]:
    """Register an instance and run the block as its durable work.

    Starting is resuming: killed anywhere and started again, the same program goes on from
    its checkpoints. What the block's end is recorded as, and what leaves it, is the table
    in ``engine/outcome.py``; ``sdk.outcome`` has it afterwards.

    Args:
      target: a URL (``sqlite:///orders.db``, ``:memory:``), an :class:`SdkConfig`, a
        backend from :func:`open_backend` to be shared, or a bare one. None: from the
        environment, RUNTARA_SERVER_ADDR before RUNTARA_DATABASE_URL.
      instance_id: the instance that runs. None: the config's, else RUNTARA_INSTANCE_ID.
      tenant_id: the tenant it belongs to. None: the config's, else RUNTARA_TENANT_ID.
      checkpoint_id: a resume point, which must exist. None: RUNTARA_CHECKPOINT_ID, else
        not set; ``sdk.checkpoint_id`` has it.
      register: False: only questions, until ``sdk.register()``.
      revive: run a finished instance again. Its checkpoints are kept, and signals to ids that
        nobody has read; a pending cancel or pause, recorded attempts and saved failures are not.
      signals: "scopes": a cancel or pause cancels the body's scope. "manual": the program
        polls and acknowledges, as with the Rust SDK.
      on_pause: "suspend": a pause ends the block. "hold": what is parked stays parked, and a
        resume lets it go on; meanwhile the instance is suspended and nobody else may run it.
      on_sleep: "wait": the process waits for the time to wake. "exit": once all that the body does
        is sleep, for 10 s at least, the block ends as STOPPED and the instance is suspended until
        then: whoever starts its program again at that time, as a runtara-environment does, has it
        go on.
      pause_grace: seconds, or a ``timedelta``, that a pause waits for the next boundary before
        it cancels.
      final_timeout: seconds, or a ``timedelta``, to record the outcome and to close a backend
        of its own.
      stop_signals: end the block as STOPPED, in the main thread, where nobody else
        handles them.
      codec: encodes states and outputs.

    Raises:
      ConfigError: a wrong argument or setting; nothing was written.
      InstanceFinished: it ended before, and ``revive`` is false.
      InstanceBusy: a living owner runs it.
      RegistrationError: another tenant's, or a resume point that does not exist.
      StoreError: the store cannot be used.
      LeaseLost: another owner took the instance over while the block ran.
      OutcomeNotRecorded: the backend did not take the outcome in time.
      SystemExit: a stop signal ended the block, and it was the last of the process.
    """
    settings, place = _checked(
        target,
        instance_id=instance_id,
        tenant_id=tenant_id,
        checkpoint_id=checkpoint_id,
        register=register,
        revive=revive,
        signals=signals,
        on_pause=on_pause,
        on_sleep=on_sleep,
        pause_grace=pause_grace,
        final_timeout=final_timeout,
        stop_signals=stop_signals,
        codec=codec,
    )
    return _run(place, settings) if isinstance(place, SharedBackend) else _alone(place, settings)


class _Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The arguments of ``open_runtara``, checked."""

    instance_id: str
    tenant_id: str
    checkpoint_id: str | None
    register: bool
    revive: bool
    manual: bool
    hold: bool
    exits: bool
    pause_grace: float
    final_timeout: float
    stop_signals: tuple[int, ...]
    codec: Codec


@protected_manager
async def _alone(target: Target, settings: _Settings) -> AsyncIterator[RuntaraSdk]:
    check_on_trio()
    await trio.lowlevel.checkpoint_if_cancelled()
    async with open_backend(target) as shared:
        shared.patience.seconds = settings.final_timeout
        async with _run(shared, settings) as sdk:
            sdk._block.ending.on_end = shared.patience.begin
            yield sdk


@protected_manager
async def _run(shared: SharedBackend, settings: _Settings) -> AsyncIterator[RuntaraSdk]:
    await trio.lowlevel.checkpoint_if_cancelled()
    block = Block(
        shared,
        settings.instance_id,
        settings.tenant_id,
        manual=settings.manual,
        hold=settings.hold,
        pause_grace=settings.pause_grace,
        final_timeout=settings.final_timeout,
        codec=settings.codec,
    )
    sdk = RuntaraSdk(block, settings.codec, settings.checkpoint_id)
    STOP_SIGNALS.join(settings.stop_signals, block.stop)
    before = make_current(sdk)
    try:
        if settings.register:
            try:
                await block.register(settings.checkpoint_id, settings.revive)
            except Exception as exc:
                number = STOP_SIGNALS.leave(block.stop)
                if number is not None:  # asked to end meanwhile: do not try again
                    raise SystemExit(128 + number) from exc
                raise
        if settings.exits:
            block.waits.begin(None)
            shared.start_soon(end_asleep, block)
        raised: BaseException | None = None
        left: BaseException | None = None
        try:
            with block.current_span(), block.scope:
                try:
                    yield sdk
                except BaseException as exc:
                    raised = exc
                    raise
        except BaseException as exc:
            left = exc
        around_cancelled = trio.current_effective_deadline() == -math.inf
        if raised is not None and not contains(raised, trio.Cancelled):
            left = raised  # the scope copies groups; this is the body's own
        try:
            await block.ending.finish(raised, around_cancelled=around_cancelled)
        except Exception as exc:
            if left is None:
                raise
            left.add_note(str(exc))
        number = STOP_SIGNALS.leave(block.stop)
        left = left or block.state.stopped_by
        try:
            if left is not None:
                raise left
            if block.outcome is Outcome.LOST:
                raise LeaseLost(settings.instance_id)
            if number is not None:
                raise SystemExit(128 + number)
        finally:
            raised = left = None  # no cycle of exception, traceback and this frame
    finally:
        make_current(before)
        STOP_SIGNALS.leave(block.stop)


def _checked(
    target: str | SdkConfig | Backend | None,
    *,
    instance_id: str | None,
    tenant_id: str | None,
    checkpoint_id: str | None,
    register: bool,
    revive: bool,
    signals: str,
    on_pause: str,
    on_sleep: str,
    pause_grace: Seconds,
    final_timeout: Seconds,
    stop_signals: Iterable[int],
    codec: Codec,
) -> tuple[_Settings, Target]:
    """The settings and what to open. Raises ConfigError."""
    place: Target = environment() if target is None else target
    if isinstance(place, SharedBackend):
        config = place.config
    else:
        config = place if isinstance(place, SdkConfig) else SdkConfig()
    resume = checkpoint_id
    if resume is None:
        resume = os.environ.get(CHECKPOINT_VARIABLE) or None
        if resume is not None:  # an environment names the last one, which may be the SDK's own
            check_stored_id(resume)
    else:
        check_checkpoint_id(resume)
    if signals not in ("scopes", "manual"):
        raise ConfigError(f"signals must be 'scopes' or 'manual', not {signals!r}")
    if on_pause not in ("suspend", "hold"):
        raise ConfigError(f"on_pause must be 'suspend' or 'hold', not {on_pause!r}")
    if on_sleep not in ("wait", "exit"):
        raise ConfigError(f"on_sleep must be 'wait' or 'exit', not {on_sleep!r}")
    for name, value in (("register", register), ("revive", revive)):
        if not isinstance(value, bool):
            raise ConfigError(f"{name} must be True or False, not {value!r}")
    if not (hasattr(codec, "encode") and hasattr(codec, "decode")):
        raise ConfigError(f"codec must have encode and decode, as runtara_trio.JSON; not {codec!r}")
    settings = _Settings(
        instance_id=check_instance_id(_named("instance_id", instance_id, config.instance_id)),
        tenant_id=check_tenant_id(_named("tenant_id", tenant_id, config.tenant_id)),
        checkpoint_id=resume,
        register=register,
        revive=revive,
        manual=signals == "manual",
        hold=on_pause == "hold",
        exits=on_sleep == "exit",
        pause_grace=check_seconds("pause_grace", pause_grace),
        final_timeout=check_seconds("final_timeout", final_timeout, positive=True),
        stop_signals=signal_numbers(stop_signals),
        codec=codec,
    )
    return settings, place


def _named(field: str, argument: str | None, configured: str | None) -> str:
    """An id from the argument, the configuration or the environment."""
    value = configured if argument is None else argument
    if value is None:
        value = os.environ.get(VARIABLES[field]) or None
    if value is None:
        raise ConfigError(f"give open_runtara {field}=..., or set {VARIABLES[field]}")
    return value
