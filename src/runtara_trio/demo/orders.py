"""An order as a workflow: charge it, pack it, ship it.

    runtara-trio worker runtara_trio.demo.orders --store sqlite:///shop.db

Any number of such workers may run, on the orders that a client has started. Kill one, and
another goes on with its orders. Between an effect and the checkpoint that saves it a kill can
always fall, so the effect is tried again; the key that goes with it lets the ledger see that
it was there already. ``runtara-trio demo`` does all that.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import trio

from runtara_trio import RuntaraSdk, current_sdk, durable, workflow

from .file import Order
from .ledger import Entry, apply


class Shop(msgspec.Struct, frozen=True):
    """The services of the shop, as an order finds them."""

    ledger: str
    """The file that they write to."""
    pace: float = 0.1
    """Seconds that an effect takes."""
    packing: float = 0.5
    """Seconds from the charge until an order can be shipped."""


@durable(key="{order.order_id}")
async def charge(order: Order, shop: Shop) -> int:
    await have_done("charge", order, shop)
    return order.quantity * order.cents


@durable(key="{order.order_id}")
async def ship(order: Order, shop: Shop) -> None:
    await have_done("ship", order, shop)


async def have_done(effect: str, order: Order, shop: Shop) -> None:
    """Ask a service for an effect, inside a durable function."""
    entry = Entry(current_sdk().step_key, effect, order.order_id, os.getpid())
    entry = await trio.to_thread.run_sync(apply, Path(shop.ledger), entry)
    await trio.sleep(shop.pace)
    known = "" if entry.applied else " (done before)"
    print(f"{effect} {order.order_id}{known}", flush=True)


@workflow
async def order(sdk: RuntaraSdk, one: Order, shop: Shop) -> str:
    cents = await charge(one, shop)
    await sdk.sleep(shop.packing, "packing")
    await ship(one, shop)
    return f"shipped for {cents} cents"
