"""The next version of the workflow of an order: the customer is thanked, too.

    runtara-trio worker runtara_trio.demo.orders_2 --also order=1 --store sqlite:///shop.db

``--also order=1``: it also goes on with what was started as version 1. It can, as the steps
that both have are the same, in the same order, and what is new comes after them.
"""

from __future__ import annotations

from runtara_trio import RuntaraSdk, durable, workflow

from .file import Order
from .orders import Shop, charge, have_done, ship


@durable(key="{order.order_id}")
async def thank(order: Order, shop: Shop) -> None:
    await have_done("thank", order, shop)


@workflow(version=2)
async def order(sdk: RuntaraSdk, one: Order, shop: Shop) -> str:
    cents = await charge(one, shop)
    await sdk.sleep(shop.packing, "packing")
    await ship(one, shop)
    await thank(one, shop)
    return f"shipped for {cents} cents, with thanks"
