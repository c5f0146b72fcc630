"""An order as a workflow: a payment, a cooling-off time, an approval by a person, a parcel.

    python examples/order_workflow.py order-7

Worker and client are one process here, on one file. The order waits for a person:

    runtara-trio signal order-7 approval yes --store sqlite:///order_workflow.db

Kill it anywhere and start it again: the order goes on. Start it once more after the order has
ended: it prints the result that is stored.
"""

from __future__ import annotations

import sys

import trio

from runtara_trio import (
    RuntaraSdk,
    current_sdk,
    durable,
    open_backend,
    open_client,
    open_worker,
    workflow,
)

DAY = 24 * 3600


# ---- the world outside: each service knows its idempotency keys


async def pay(key: str, cents: int) -> None:
    """Stands for the call of a payment service; a negative amount is paid back."""
    print("bank:", cents, "under", key, flush=True)


async def send(key: str, order_id: str) -> str:
    """Stands for the call of a carrier."""
    print("carrier:", order_id, "under", key, flush=True)
    return f"T-{order_id}"


# ---- the steps: each is saved once it is done, and not done again


@durable(max_retries=5, delay=0.5, timeout=20)
async def charge(order_id: str, cents: int) -> None:
    await pay(current_sdk().step_key, cents)


@durable(max_retries=5, delay=0.5, timeout=20)
async def pay_back(order_id: str, cents: int) -> None:
    await pay(current_sdk().step_key, -cents)


@durable(max_retries=20, max_delay=600, jitter=True)
async def ship(order_id: str) -> str:
    return await send(current_sdk().step_key, order_id)


# ---- the workflow


@workflow(max_attempts=3, timeout=30 * DAY)
async def order(sdk: RuntaraSdk, cents: int, cooling_off: float = 2.0) -> str:
    """What becomes of the order, in words."""
    await charge(sdk.instance_id, cents)
    await sdk.sleep(cooling_off, "cooling-off")
    print(sdk.instance_id, "waits for its approval", flush=True)
    try:
        answer = await sdk.wait_for_signal("approval", timeout=3 * DAY, type=str)
    except trio.TooSlowError:
        answer = "not in time"
    if answer != "yes":
        await pay_back(sdk.instance_id, cents)
        return f"paid back: {answer}"
    return f"shipped: {await ship(sdk.instance_id)}"


async def main(order_id: str) -> None:
    async with (
        open_backend("sqlite:///order_workflow.db") as backend,
        open_worker(backend, [order]),
        open_client(backend, tenant_id="shop") as client,
    ):
        handle = await client.start(order, 4500, id=order_id)
        print("started", handle.id, flush=True)
        print(handle.id, "is", await handle.result(), flush=True)


if __name__ == "__main__":
    trio.run(main, sys.argv[1] if len(sys.argv) > 1 else "order-7")
