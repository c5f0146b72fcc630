"""``sdk.transact``: a step whose effect and whose result are committed together."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import trio

from .. import logs
from ..engine import deadlines
from ..errors import ConfigError
from ..messages import Transact
from ..types import StepKind
from .keys import Keys
from .returning import Returns

if TYPE_CHECKING:
    from .runtara_sdk import RuntaraSdk


async def transact(
    sdk: RuntaraSdk,
    function: Callable[..., Any],
    args: tuple[Any, ...],
    *,
    id: str | None,
    limit: float,
) -> Any:
    """Run a function in a transaction of the store's database; see :meth:`RuntaraSdk.transact`."""
    if not callable(function) or inspect.iscoroutinefunction(function):
        raise ConfigError(
            f"transact runs a sync function f(connection, *args) in a thread, not {function!r}"
        )
    block = sdk._block
    block.state.check_writable()
    name = getattr(function, "__name__", type(function).__name__)
    if id is None:
        block.names.claim(name, function)
        keys = Keys(name, function, None, leaves_out_first=True)
        id = keys.of((None, *args), {}, sdk._path.prefix, block.names.claim_type)
        block.names.claim_call(name, function, id)
    else:
        id = sdk._id(id)
    returns = Returns(f"the function {name}", function, None)
    returns.check(sdk._codec)
    once = functools.partial(_once, sdk, id, function, args, returns, limit)
    return await block.runs.share(id, once)


async def _once(
    sdk: RuntaraSdk,
    checkpoint_id: str,
    function: Callable[..., Any],
    args: tuple[Any, ...],
    returns: Returns,
    limit: float,
) -> Any:
    block, codec = sdk._block, sdk._at(checkpoint_id)
    stored, _ = await block.past.find_call(checkpoint_id)
    await deadlines.note(stored)
    logs.checkpoint(
        instance_id=block.instance_id, checkpoint_id=checkpoint_id, found=stored is not None
    )
    if stored is not None:
        await trio.lowlevel.checkpoint()
        await block.boundary.reach_saved()
        return returns.decode(codec, checkpoint_id, stored)
    saved = b""

    def run(connection: Any) -> bytes:
        nonlocal saved
        saved = returns.encode(codec, checkpoint_id, function(connection, *args))
        return saved

    async with block.boundary.step(checkpoint_id, saves=True):
        with block.history.step(StepKind.TRANSACTION, checkpoint_id) as step:
            message = Transact(
                instance_id=block.instance_id,
                lease=block.state.lease_for_write(),
                checkpoint_id=checkpoint_id,
                run=run,
                limit=limit,
                note=block.history.of(step),
            )
            reply = await block.requests.save_after_work(message)
            if not reply.found:
                block.history.noted_its_end(step)
        block.requests.saved += not reply.found
    return returns.decode(codec, checkpoint_id, reply.state if reply.found else saved)
