"""Work through a file of orders, so that every valid one is charged once.

    python -m runtara_trio.demo.orders

Kill it, and start it again: it goes on where it was. From another terminal, in the same
folder, pause or cancel it:

    runtara-trio pause  orders --store sqlite:///orders-run/orders.db
    runtara-trio cancel orders --store sqlite:///orders-run/orders.db

The ledger stands for the payment service. Between a charge and the checkpoint that saves
it a kill can always fall, so the charge is tried again; the key that goes with it lets the
ledger see that it was made already. ``runtara-trio demo`` does all that with it.
"""

from __future__ import annotations

import argparse
import csv
import fcntl
import os
import sys
from pathlib import Path

import msgspec
import trio

from runtara_trio import InstanceBusy, InstanceFinished, Outcome, open_runtara

INSTANCE = "orders"
FILE = Path(__file__).with_name("orders.csv")
FIELDS = ("order_id", "customer", "item", "quantity", "cents")


class Order(msgspec.Struct, frozen=True):
    """A valid line of the file."""

    line: int
    order_id: str
    customer: str
    item: str
    quantity: int
    cents: int


class Receipt(msgspec.Struct, frozen=True):
    """What is saved of a charge."""

    order_id: str
    cents: int


# ---- the file


def read_orders(data: bytes) -> tuple[list[Order], list[str]]:
    """The valid orders of a CSV file, and what is wrong with the other lines."""
    orders: dict[str, Order] = {}
    problems = []
    for number, raw in enumerate(data.removeprefix(b"\xef\xbb\xbf").splitlines(), start=1):
        if number == 1 or not raw.strip():
            continue
        try:
            order = parse_order(number, raw)
            first = orders.get(order.order_id)
            if first is not None:
                same = msgspec.structs.replace(order, line=first.line) == first
                kind = "a repetition" if same else "another order with the id"
                raise ValueError(f"{kind} of line {first.line}")
        except (ValueError, csv.Error) as exc:
            problems.append(f"line {number}: {exc}")
        else:
            orders[order.order_id] = order
    return list(orders.values()), problems


def parse_order(number: int, raw: bytes) -> Order:
    """One line. Raises ValueError or csv.Error, which say what is wrong with it."""
    try:
        text = raw.decode()
    except UnicodeDecodeError as exc:
        raise ValueError(f"no UTF-8 at byte {exc.start}") from exc
    if "\0" in text:
        raise ValueError("holds a NUL character")
    (fields,) = csv.reader([text], strict=True)
    if len(fields) != len(FIELDS):
        raise ValueError(f"has {len(fields)} fields, not {len(FIELDS)}")
    for name, value in zip(FIELDS, fields, strict=True):
        if not value.strip():
            raise ValueError(f"{name} is missing")
    order_id, customer, item, quantity, cents = (field.strip() for field in fields)
    return Order(
        line=number,
        order_id=order_id,
        customer=customer,
        item=item,
        quantity=parse_count("quantity", quantity, 1000),
        cents=parse_count("cents", cents, 10_000_000),
    )


def parse_count(name: str, text: str, most: int) -> int:
    """A whole number from 1 to ``most``."""
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= most):
        raise ValueError(f"{name} must be a whole number from 1 to {most}, not {text!r}")
    return int(text)


# ---- the payment service


class Entry(msgspec.Struct, frozen=True):
    """A line of the ledger: an attempt to charge."""

    key: str
    order_id: str
    cents: int
    applied: bool
    """False: the key was there before, and nobody was charged again."""


class Ledger:
    """A file of charges that applies each key once, like the other side of a payment API."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a+b")
        fcntl.flock(self._file, fcntl.LOCK_EX)  # one writer
        self._file.seek(0)
        data = self._file.read()
        whole = data[: data.rfind(b"\n") + 1]
        self._file.truncate(len(whole))  # a line that a kill cut off was never answered
        self._keys = {entry.key for entry in read_entries(whole)}

    def charge(self, key: str, order: Order) -> None:
        """Charge once a key, on disk before this returns. Each attempt leaves a line."""
        entry = Entry(
            key, order.order_id, order.quantity * order.cents, applied=key not in self._keys
        )
        self._file.write(msgspec.json.encode(entry) + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        self._keys.add(key)


def read_entries(data: bytes) -> list[Entry]:
    """The attempts that a ledger's file holds."""
    return [msgspec.json.decode(line, type=Entry) for line in data.splitlines()]


# ---- the program


async def work(folder: Path, file: Path, pace: float) -> int:
    """Charge what is not charged yet. The exit code: 0 where nothing went wrong."""
    orders, problems = read_orders(file.read_bytes())
    print(f"{len(orders)} valid orders and {len(problems)} bad lines in {file.name}", flush=True)
    for problem in problems:
        print(f"  {problem}", flush=True)
    try:
        async with open_runtara(
            f"sqlite:///{folder}/orders.db", instance_id=INSTANCE, tenant_id="shop"
        ) as sdk:
            ledger = Ledger(folder / "ledger.jsonl")  # ours, once the instance is
            for done, order in enumerate(orders, start=1):
                checkpoint_id = f"order/{order.order_id}"
                async with sdk.step(checkpoint_id):
                    if await sdk.get_checkpoint(checkpoint_id) is None:
                        await trio.to_thread.run_sync(ledger.charge, sdk.step_key, order)
                        await trio.sleep(pace)
                        receipt = Receipt(order.order_id, order.quantity * order.cents)
                        await sdk.checkpoint(checkpoint_id, receipt)
                        print(f"[{done:3}/{len(orders)}] charged {order.order_id}", flush=True)
            await sdk.completed({"orders": len(orders), "bad_lines": problems})
    except InstanceFinished as finished:
        print(f"nothing to do: {finished.status} before; remove {folder} to begin anew")
        return 0
    except InstanceBusy as busy:
        print(busy, file=sys.stderr)
        return 1
    print(f"{sdk.outcome}", flush=True)
    if sdk.outcome is Outcome.PAUSED:
        print("start it again to go on")
    return 0 if sdk.outcome in (Outcome.COMPLETED, Outcome.PAUSED) else 1


def main() -> int:
    parser = argparse.ArgumentParser(description="Charge the orders of a file, each once.")
    parser.add_argument("--file", type=Path, default=FILE)
    parser.add_argument("--folder", type=Path, default=Path("orders-run"))
    parser.add_argument("--pace", type=float, default=0.01, help="seconds that a charge takes")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    return trio.run(work, arguments.folder, arguments.file, arguments.pace)


if __name__ == "__main__":
    sys.exit(main())
