"""Waits for signals that nobody has answered: which are listed, for how long, and what they ask."""

from __future__ import annotations

import msgspec
import pytest
import trio

from runtara_trio import (
    Client,
    InstanceDetails,
    Operator,
    Queue,
    RuntaraSdk,
    SharedBackend,
    StepOutcome,
    WaitInfo,
    open_client,
    open_runtara,
    open_worker,
    words,
    workflow,
)


class Approval(msgspec.Struct):
    approved: bool


@workflow
async def order(sdk: RuntaraSdk) -> bool:
    return (await sdk.wait_for_signal("approval", type=Approval)).approved


@workflow
async def gives_up(sdk: RuntaraSdk) -> str:
    with trio.move_on_after(0.5):
        await sdk.wait_for_signal("approval")
    return "gave up"


async def listed(operator: Operator, count: int) -> tuple[WaitInfo, ...]:
    """The open waits, once there are so many."""
    with trio.fail_after(30):
        while len(found := (await operator.waits()).waits) != count:
            await trio.sleep(0.01)
    return found


@pytest.fixture
async def client(backend: SharedBackend) -> Client:
    async with open_client(backend, tenant_id="t") as opened:
        return opened


async def outcomes(operator: Operator) -> list[StepOutcome | None]:
    return [one.outcome for one in await operator.steps("one")]


async def test_a_wait_goes_on_while_nobody_has_its_run(
    backend: SharedBackend, operator: Operator, client: Client
) -> None:
    async with open_worker(backend, [order], name="first"):
        await client.start(order, id="one")
        (first,) = await listed(operator, 1)
        assert (first.instance_id, first.checkpoint_id, first.workflow) == (
            "one",
            "approval",
            "order",
        )
        asks = msgspec.json.decode(first.asks or "")
        assert asks["$defs"]["Approval"]["required"] == ["approved"]
    assert await listed(operator, 1) == (first,)
    assert await outcomes(operator) == [StepOutcome.UNLOADED]
    async with open_worker(backend, [order], name="second"):
        with trio.fail_after(30):
            while await outcomes(operator) != [StepOutcome.INTERRUPTED, None]:
                await trio.sleep(0.01)
        assert await listed(operator, 1) == (first,)  # since it began to wait first
        await client.get("one").signal("approval", Approval(True))
        assert await client.get("one", order).result(timeout=30) is True
    assert await outcomes(operator) == [StepOutcome.INTERRUPTED, StepOutcome.DONE]
    await listed(operator, 0)


async def test_an_unloaded_wait_is_over_with_its_instance(
    backend: SharedBackend, operator: Operator, client: Client
) -> None:
    async with open_worker(backend, [order]):
        await client.start(order, id="one")
        await client.start(order, id="two")
        await listed(operator, 2)
    await operator.cancel("one")
    assert [one.instance_id for one in await listed(operator, 1)] == ["two"]
    assert await outcomes(operator) == [StepOutcome.INTERRUPTED]
    await operator.cancel_many(workflow="order")
    await listed(operator, 0)


async def test_a_wait_that_was_answered_while_nobody_had_it(
    backend: SharedBackend, operator: Operator, client: Client
) -> None:
    async with open_worker(backend, [order]):
        await client.start(order, id="one")
        await listed(operator, 1)
    await operator.send_signal("one", "approval", {"approved": True})
    await listed(operator, 0)  # nobody need answer a second time
    async with open_worker(backend, [order]):
        assert await client.get("one", order).result(timeout=30) is True


async def test_a_wait_that_the_program_gave_up_is_over(
    backend: SharedBackend, operator: Operator, client: Client
) -> None:
    async with open_worker(backend, [gives_up]):
        assert await (await client.start(gives_up, id="one")).result(timeout=30) == "gave up"
    assert await outcomes(operator) == [StepOutcome.INTERRUPTED]
    await listed(operator, 0)


async def test_a_program_that_runs_itself(backend: SharedBackend, operator: Operator) -> None:
    async with trio.open_nursery() as nursery:

        async def run(task_status: trio.TaskStatus[None]) -> None:
            async with open_runtara(backend, instance_id="one", tenant_id="t") as sdk:
                task_status.started()
                await sdk.wait_for_signal("approval", type=int)

        await nursery.start(run)
        (wait,) = await listed(operator, 1)
        assert (wait.workflow, wait.asks) == (None, '{"type":"integer"}')
        await operator.pause("one")
        await listed(operator, 1)  # somebody may answer nevertheless
        await operator.send_signal("one", "approval", 5)


async def test_pages(backend: SharedBackend, operator: Operator, client: Client) -> None:
    async with open_worker(backend, [order]):
        for number in range(5):
            await client.start(order, id=f"o-{number}")
        whole = await listed(operator, 5)
    seen: list[WaitInfo] = []
    page = await operator.waits(limit=2)
    while True:
        seen += page.waits
        if page.next is None:
            break
        page = await operator.waits(after=page.next, limit=2)
    assert tuple(seen) == whole
    steps = await operator.open_steps(["o-1", "o-3", "unknown"])
    assert sorted(instance for instance, _ in steps) == ["o-1", "o-3"]


@workflow(queue="nobody")
async def parcel(sdk: RuntaraSdk) -> None: ...


@workflow
async def shipment(sdk: RuntaraSdk) -> None:
    await sdk.call(parcel)


@workflow(queue="narrow")
async def naps(sdk: RuntaraSdk, name: str) -> None:
    await sdk.wait_for_signal("go")
    await trio.sleep_forever()


async def until_said(operator: Operator, id: str, text: str) -> None:
    """Until an instance is said to stand there."""
    with trio.fail_after(30):
        while text not in (said := words.sentence(await operator.show(id), words.now())):
            await trio.sleep(0.01)
    assert said == f"running: {text}"


async def test_a_loaded_run_that_waits_for_its_children(
    backend: SharedBackend, operator: Operator, client: Client
) -> None:
    async with open_worker(backend, [shipment]):
        await client.start(shipment, id="one")
        await until_said(operator, "one", "waits for its children")
        await operator.cancel("one")


def waits(details: InstanceDetails) -> bool:
    return details.summary.run is not None and details.summary.run.waits


async def test_a_run_that_wants_a_place_again(
    backend: SharedBackend, operator: Operator, client: Client
) -> None:
    async with open_worker(backend, [naps], queues=[Queue("narrow", limit=1)], drain_timeout=0):
        await client.start(naps, "a", id="a")
        with trio.fail_after(30):
            while not waits(await operator.show("a")):  # its place is free then
                await trio.sleep(0.01)
        await client.start(naps, "b", id="b")
        await operator.send_signal("b", "go")
        with trio.fail_after(30):
            while (await operator.show("b")).summary.status != "running":
                await trio.sleep(0.01)
        await operator.send_signal("a", "go")
        await until_said(operator, "a", "waits for a place of the queue narrow")
