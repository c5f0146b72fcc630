"""An order, from its payment to its last parcel. Kill it anywhere, and start it again.

    pip install aiohttp
    python examples/carrier.py 8080                    # in a terminal of its own
    python examples/order.py order-7 http://127.0.0.1:8080

It waits for a person, who has three days:

    runtara-trio signal order-7 approval '{"by": "ana", "approved": true}' \
        --store sqlite:///orders.db

An operator can pause it (it stops between two steps) or cancel it (it pays back what was
paid). ``tests/test_examples.py`` runs it with every fault at every boundary.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import msgspec
import trio

from runtara_trio import (
    InstanceFinished,
    NonRetryable,
    RuntaraSdk,
    current_sdk,
    durable,
    open_runtara,
)

DAY = 24 * 3600


class Order(msgspec.Struct, frozen=True):
    id: str
    customer: str
    cents: int
    parcels: list[str]


class Decision(msgspec.Struct, frozen=True):
    by: str
    approved: bool


class Label(msgspec.Struct, frozen=True):
    parcel: str
    tracking: str


class Declined(NonRetryable):
    """The bank says no: trying again would not change its mind."""


# ---- the world outside: each service knows its idempotency keys


class Bank:
    """Stands for a payment service: a file of what was paid, by idempotency key."""

    def __init__(self, file: Path) -> None:
        self.file = file

    async def charge(self, key: str, order_id: str, cents: int) -> None:
        self.enter(key, order_id, cents)

    async def pay_back(self, key: str, order_id: str) -> None:
        """Whatever was charged for the order, if anything was."""
        self.enter(
            key, order_id, -sum(cents for of, cents in self.book().values() if of == order_id)
        )

    def book(self) -> dict[str, tuple[str, int]]:
        return json.loads(self.file.read_text()) if self.file.exists() else {}

    def enter(self, key: str, order_id: str, cents: int) -> None:
        book = self.book()
        if key not in book and cents:
            self.file.write_text(json.dumps({**book, key: (order_id, cents)}, indent=1))
            print("bank:", order_id, cents, flush=True)


async def request_label(url: str, key: str, parcel: str) -> str:
    """The carrier's client. It needs asyncio, as it is made with aiohttp."""
    import aiohttp

    async with (
        aiohttp.ClientSession() as session,
        session.post(
            f"{url}/labels", json={"parcel": parcel}, headers={"Idempotency-Key": key}
        ) as answer,
    ):
        answer.raise_for_status()
        return str((await answer.json())["tracking"])


bank = Bank(Path("bank.json"))
carrier = "http://127.0.0.1:8080"


# ---- the steps: each is saved once it is done, and not done again


@durable(key="{order.id}", max_retries=5, delay=0.5, timeout=20)
async def charge(order: Order) -> int:
    if order.cents <= 0:
        raise Declined(f"{order.cents} cents")
    await bank.charge(current_sdk().step_key, order.id, order.cents)
    return order.cents


@durable(key="{order.id}")
async def pay_back(order: Order) -> None:
    await bank.pay_back(current_sdk().step_key, order.id)


@durable(flavor="asyncio", jitter=True, max_delay=600, max_retries=20)
async def ship(parcel: str) -> Label:
    return Label(parcel, await request_label(carrier, current_sdk().step_key, parcel))


@durable
def file_papers(order_id: str, labels: list[Label]) -> str:
    """Blocking code runs in a thread."""
    papers = Path(f"{order_id}.txt")
    papers.write_text("".join(f"{label.parcel} {label.tracking}\n" for label in labels))
    return papers.name


# ---- the program


async def carry_out(sdk: RuntaraSdk, order: Order) -> str:
    """What becomes of the order, in words."""
    try:
        await charge(order)
        try:
            decision = await sdk.wait_for_signal("approval", timeout=3 * DAY, type=Decision)
        except trio.TooSlowError:
            decision = Decision("nobody", approved=False)
        if not decision.approved:
            await pay_back(order)
            return f"not approved by {decision.by}"

        labels: list[Label] = []
        async with (
            sdk.deadline("shipping", 2 * DAY) as shipping,
            sdk.map(ship, order.parcels, limit=4, key=str, name="parcels") as results,
        ):
            labels += [label async for label in results]
        if shipping.cancelled_caught:
            await pay_back(order)
            return f"not shipped in time: {len(labels)} of {len(order.parcels)} parcels"

        labels.sort(key=lambda label: label.parcel)  # they came as they were ready
        papers = await file_papers(order.id, labels)
        await sdk.sleep(2, "until the courier comes")
        return f"shipped, see {papers}"
    finally:
        if sdk.cancel_requested:  # not a pause, not a stop: nobody will go on with it
            with trio.CancelScope(shield=True):
                await pay_back(order)


async def main(order: Order) -> None:
    async with open_runtara("sqlite:///orders.db", instance_id=order.id, tenant_id="shop") as sdk:
        print("running", order.id, flush=True)
        await sdk.completed(await carry_out(sdk, order))
    print(order.id, sdk.outcome, flush=True)


if __name__ == "__main__":
    order_id, carrier = sys.argv[1:] if len(sys.argv) == 3 else ("order-7", carrier)
    try:
        trio.run(main, Order(order_id, "kim", 4500, ["books", "lamp", "teapot"]))
    except InstanceFinished as finished:
        print(f"{order_id} is {finished.status}: {(finished.output or b'').decode()}")
