"""Models of pydantic as arguments, states, signals, results and outputs of programs."""

from __future__ import annotations

import datetime as dt
from typing import Literal

import pydantic
import pytest
import trio

from runtara_trio import (
    CodecError,
    InstanceFailed,
    Operator,
    RuntaraSdk,
    SharedBackend,
    durable,
    open_client,
    open_worker,
    workflow,
)
from runtara_trio.codec import JSON, schema_of

from ..helpers.support import block, checkpoint_ids


class Card(pydantic.BaseModel):
    kind: Literal["card"] = "card"
    number: str


class Cash(pydantic.BaseModel):
    kind: Literal["cash"] = "cash"


class Order(pydantic.BaseModel):
    id: str
    at: dt.datetime
    cents: int = pydantic.Field(gt=0)


class Receipt(pydantic.BaseModel):
    order: Order
    paid: Card | Cash


ORDER = Order(id="o", at=dt.datetime(2026, 1, 1, tzinfo=dt.UTC), cents=5)
made: list[object] = []


@durable
async def charge(order: Order, by: Card | Cash) -> Receipt:
    made.append(by)
    return Receipt(order=order, paid=by)


@workflow
async def labels(sdk: RuntaraSdk, receipt: Receipt) -> list[Receipt]:
    return [receipt]


@workflow
async def shop(sdk: RuntaraSdk, order: Order, hint: Card | None = None) -> Receipt:
    by = await sdk.wait_for_signal("payment", type=Card | Cash)  # type: ignore[arg-type]
    saved = await sdk.checkpoint("paid", by)
    assert saved.decode(Card | Cash) == by  # type: ignore[arg-type]
    receipt = await charge(order, by)
    (label,) = await sdk.call(labels, receipt)
    return label


async def test_from_a_start_to_a_result(backend: SharedBackend, operator: Operator) -> None:
    async with (
        open_worker(backend, [shop, labels]),
        open_client(backend, tenant_id="t") as client,
    ):
        instance = await client.start(shop, ORDER, Card(number="1"))
        await instance.signal("payment", Cash())
        with trio.fail_after(30):
            receipt = await instance.result()
        assert receipt == Receipt(order=ORDER, paid=Cash())
        assert isinstance(receipt.paid, Cash)
        with pytest.raises(InstanceFailed, match=r"the argument order .*cents: Input should be gr"):
            await (
                await client.start("shop", {**ORDER.model_dump(mode="json"), "cents": 0})
            ).result()


async def test_a_replay_has_the_model_again(memory: SharedBackend) -> None:
    made.clear()
    for _ in range(2):
        async with block(memory, revive=True):
            assert (await charge(ORDER, Card(number="1"))).paid == Card(number="1")
            assert (await charge(ORDER, by=Cash())).paid == Cash()
    assert made == [Card(number="1"), Cash()]


async def test_calls_with_models_of_other_classes_are_other_calls(memory: SharedBackend) -> None:
    class One(pydantic.BaseModel):
        x: int = 1

    class Other(pydantic.BaseModel):
        x: int = 1

    @durable
    async def take(value: One | Other) -> str:
        return type(value).__name__

    async with block(memory):
        assert [await take(One()), await take(Other())] == ["One", "Other"]
        assert len(await checkpoint_ids(memory)) == 2


async def test_what_a_program_gets_is_validated(memory: SharedBackend) -> None:
    async with block(memory) as sdk:
        await sdk.checkpoint("order", {"id": "o", "at": "yesterday", "cents": 5})
        saved = await sdk.checkpoint("order")
        with pytest.raises(CodecError, match="at: Input should be a valid datetime"):
            saved.decode(Order)


def test_a_form_is_made_of_a_model() -> None:
    assert '"exclusiveMinimum":0' in (schema_of(JSON, Order) or "")
    assert "oneOf" in (schema_of(JSON, Card | Cash) or "") or "anyOf" in (
        schema_of(JSON, Card | Cash) or ""
    )
