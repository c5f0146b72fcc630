"""The demo's orders: their file, the ledger, and both versions of their workflow."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from runtara_trio import Client, InstanceFailed, RuntaraSdk, Start, current_sdk, open_client
from runtara_trio.demo import orders, orders_2
from runtara_trio.demo.file import FILE, Order, read_orders
from runtara_trio.demo.ledger import Entry, apply, read_ledger
from runtara_trio.demo.orders import Shop
from runtara_trio.testing import check_every_boundary, effect

from ..helpers.support import Program, start_args

BAD_LINES = {
    8: "customer is missing",
    15: "has 4 fields, not 5",
    23: "no UTF-8 at byte 8",
    36: "quantity must be a whole number from 1 to 1000, not 'two'",
    42: "a repetition of line 14",
    50: "cents must be a whole number from 1 to 10000000, not '12.50'",
    69: "cents must be a whole number from 1 to 10000000, not '-500'",
    82: "no UTF-8 at byte 18",
    91: "has 6 fields, not 5",
    97: "a repetition of line 92",
    105: "order_id is missing",
    121: "quantity must be a whole number from 1 to 1000, not '0'",
    137: "unexpected end of data",
    142: "a repetition of line 5",
    155: "cents is missing",
    172: "another order with the id of line 104",
    177: "no UTF-8 at byte 12",
    186: "cents must be a whole number from 1 to 10000000, not '999999999999'",
    196: "holds a NUL character",
    210: "a repetition of line 32",
}


def valid() -> list[str]:
    """The ids of the valid orders, counted without the example's own reader."""
    lines = FILE.read_bytes().removeprefix(b"\xef\xbb\xbf").splitlines()
    good = [
        line.split(b",")[0].decode()
        for number, line in enumerate(lines, start=1)
        if number > 1 and line.strip() and number not in BAD_LINES
    ]
    assert len(good) == len(set(good)) == 187
    return good


def test_every_bad_line_is_reported_with_its_number() -> None:
    found, problems = read_orders(FILE.read_bytes())
    assert problems == [f"line {number}: {text}" for number, text in BAD_LINES.items()]
    assert [order.order_id for order in found] == valid()


def test_the_ledger_applies_a_key_once_and_drops_a_torn_line(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    entry = Entry("key", "charge", "A-1", pid=1)
    assert apply(path, entry).applied
    assert not apply(path, entry).applied
    with path.open("ab") as file:
        file.write(b'{"key": "torn", "eff')
    assert len(read_ledger(path)) == 2
    assert not apply(path, entry).applied
    assert apply(path, msgspec.structs.replace(entry, key="torn")).applied
    assert [(entry.key, entry.applied) for entry in read_ledger(path)] == [
        ("key", True),
        ("key", False),
        ("key", False),
        ("torn", True),
    ]


async def test_the_ledger_applies_a_key_once_for_all(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    async with trio.open_nursery() as nursery:
        for pid in range(20):
            entry = Entry("key", "charge", "A-1", pid)
            nursery.start_soon(trio.to_thread.run_sync, apply, path, entry)
    entries = read_ledger(path)
    assert {entry.pid for entry in entries} == set(range(20))
    assert sum(entry.applied for entry in entries) == 1


LAMP = Order(1, "A-1", "Ana", "lamp", 2, 50)


@pytest.mark.parametrize(
    ("module", "result", "effects"),
    [
        (orders, "shipped for 100 cents", ["charge", "ship"]),
        (orders_2, "shipped for 100 cents, with thanks", ["charge", "ship", "thank"]),
    ],
)
def test_every_boundary(
    module: Any, result: str, effects: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def have_done(name: str, order: Order, shop: Shop) -> None:
        effect(current_sdk().step_key, name)

    for one in (orders, orders_2):
        monkeypatch.setattr(one, "have_done", have_done)

    async def program(sdk: RuntaraSdk) -> str:
        shipped: str = await module.order(sdk, LAMP, Shop("nowhere"))
        return shipped

    undisturbed = check_every_boundary(program)
    assert undisturbed.result == result
    assert list(undisturbed.effects.values()) == effects


class Orders:
    """A store of orders, and workers on it."""

    def __init__(self, folder: Path, client: Client, shop: Shop) -> None:
        self.folder = folder
        self.client = client
        self.shop = shop

    def worker(self, module: Any, *options: str) -> Any:
        store = f"sqlite:///{self.folder}/orders.db"
        command = ("-m", "runtara_trio", "worker", module.__name__, "--store", store, *options)
        return start_args(*command)

    async def start(self, some: list[Order]) -> list[Any]:
        starts = [Start(args=(one, self.shop), id=one.order_id) for one in some]
        return await self.client.start_many(orders.order, starts)

    def done(self) -> Counter[tuple[str, str]]:
        entries = read_ledger(Path(self.shop.ledger))
        return Counter((one.effect, one.order_id) for one in entries if one.applied)


@asynccontextmanager
async def open_orders(folder: Path, **times: float) -> AsyncIterator[Orders]:
    store = f"sqlite:///{folder}/orders.db"
    async with open_client(store, tenant_id="shop") as client:
        yield Orders(folder, client, Shop(str(folder / "ledger.jsonl"), **times))


async def test_killed_again_and_again(tmp_path: Path) -> None:
    """At points drawn once; the seed makes them the same in each run."""
    draw = random.Random(3)
    some = read_orders(FILE.read_bytes())[0]
    async with open_orders(tmp_path, pace=0.01, packing=0.01) as shop:
        handles = await shop.start(some)
        for _ in range(5):
            async with shop.worker(orders, "--slots", "2") as program:
                for _ in range(draw.randint(1, 7)):
                    await program.line()
                await program.kill()
        async with shop.worker(orders):
            for order, handle in zip(some, handles, strict=True):
                cents = order.quantity * order.cents
                assert await handle.result(timeout=30) == f"shipped for {cents} cents"
        assert shop.done() == Counter(
            (name, order.order_id) for name in ("charge", "ship") for order in some
        )


async def charged(program: Program) -> None:
    await program.line("charge A-1")


async def test_the_next_version_goes_on(tmp_path: Path) -> None:
    async with open_orders(tmp_path, pace=0, packing=0.01) as shop:
        (handle,) = await shop.start([LAMP])
        async with shop.worker(orders) as program:
            await charged(program)
            await program.kill()
        async with shop.worker(orders_2, "--also", "order=1"):
            assert await handle.result(timeout=30) == "shipped for 100 cents, with thanks"
        assert set(shop.done().values()) == {1}


async def test_cancelled(tmp_path: Path) -> None:
    async with open_orders(tmp_path, pace=0, packing=3600) as shop:
        (handle,) = await shop.start([LAMP])
        async with shop.worker(orders) as program:
            await charged(program)
            await handle.cancel()
            with pytest.raises(InstanceFailed, match="cancelled"):
                await handle.result(timeout=30)
        assert set(shop.done()) == {("charge", "A-1")}
