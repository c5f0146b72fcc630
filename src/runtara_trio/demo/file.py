"""A file of orders, as they come: what is valid, and what is wrong with the rest."""

from __future__ import annotations

import csv
from pathlib import Path

import msgspec

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
