"""Workflows that a console shows."""

from __future__ import annotations

from typing import Literal

import msgspec
import trio

from runtara_trio import Operator, RuntaraSdk, durable, workflow


class Approval(msgspec.Struct):
    """What an order waits for."""

    approved: bool
    by: str
    limit: int = 100
    how: Literal["quick", "slow"] = "quick"
    note: str | None = None


@durable(summary="charge {cents} cents", max_retries=0)
async def charge(cents: int) -> dict[str, int]:
    return {"receipt": cents}


@durable
async def pack(seconds: float) -> str:
    await trio.sleep(seconds)
    return "packed"


@workflow
async def order(sdk: RuntaraSdk, cents: int) -> str:
    await charge(cents)
    answer = await sdk.wait_for_signal("approval", type=Approval)
    return f"approved by {answer.by}" if answer.approved else "refused"


@workflow
async def failing(sdk: RuntaraSdk) -> None:
    raise ValueError("no <b>such</b> customer")


@workflow
async def packing(sdk: RuntaraSdk, seconds: float) -> str:
    return await pack(seconds)


@workflow
async def parent(sdk: RuntaraSdk) -> str:
    return await sdk.call(packing, 0.0)


WORKFLOWS = [order, failing, packing, parent]


async def until_waiting(operator: Operator, instance: str) -> None:
    """Until its wait for a signal is listed."""
    with trio.fail_after(30):
        while instance not in [one.instance_id for one in (await operator.waits()).waits]:
            await trio.sleep(0.01)
