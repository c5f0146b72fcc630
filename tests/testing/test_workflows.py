"""The test kit runs workflows: a client starts them, workers run them, and faults are theirs."""

from __future__ import annotations

import math

import pytest
import trio
from trio.testing import MockClock

from runtara_trio import (
    ConfigError,
    InstanceFailed,
    InstanceStatus,
    Operator,
    RuntaraSdk,
    current_sdk,
    durable,
    open_client,
    open_worker,
    workflow,
)
from runtara_trio.testing import (
    BoundaryFailure,
    Case,
    Fault,
    check_every_boundary,
    effect,
    memory_backend,
    run,
)

DAY = 86400


@durable
async def charge(order: str, cents: int) -> str:
    return effect(current_sdk().step_key, f"charged {cents}")


@workflow(timeout=100 * DAY, max_attempts=3)
async def order(sdk: RuntaraSdk, cents: int) -> list[str]:
    receipt = await charge("order-7", cents)
    await sdk.sleep(DAY, "cooling-off")
    decision = await sdk.wait_for_signal("approve", timeout=30 * DAY)
    return [receipt, decision.decode(), await charge("fee", 1)]


async def ana(operator: Operator) -> None:
    await trio.sleep(2 * DAY)
    await operator.send_signal("test", "approve", b"yes")


def test_a_workflow_passes() -> None:
    undisturbed = check_every_boundary(order, operator=ana, args=(1999,))
    assert undisturbed.status is InstanceStatus.COMPLETED
    assert undisturbed.result == ["charged 1999", "yes", "charged 1"]


@workflow
async def forgetful(sdk: RuntaraSdk) -> None:
    effect(None, "not durable")
    await sdk.checkpoint("a")
    await sdk.checkpoint("b")


@pytest.mark.parametrize("fault", [Fault.CRASH_AFTER, Fault.DRAIN, Fault.TAKEOVER, Fault.PAUSE])
def test_a_mistake_is_found(fault: Fault) -> None:
    with pytest.raises(BoundaryFailure, match="is one too many") as found:
        check_every_boundary(forgetful, faults=[fault])
    assert found.value.case.fault is fault


def test_one_case() -> None:
    found = run(order, operator=ana, args=(5,), case=Case(Fault.TAKEOVER, "end"))
    assert found.result == ["charged 5", "yes", "charged 1"]


def test_what_only_workflows_have() -> None:
    async def plain(sdk: RuntaraSdk) -> None: ...

    with pytest.raises(ConfigError, match="drain is a fault of workflows"):
        check_every_boundary(plain, faults=[Fault.DRAIN])
    with pytest.raises(ConfigError, match="no option 'on_pause'; there are args, codec"):
        run(order, on_pause="hold")


def test_a_worker_in_memory_looks_at_nothing_now_and_then() -> None:
    @workflow
    async def asks(sdk: RuntaraSdk) -> bytes:
        return await sdk.wait_for_signal("answer")

    async def main() -> None:
        async with (
            memory_backend() as backend,
            open_worker(backend, [asks], stop_signals=()),
            open_client(backend, tenant_id="t") as client,
        ):
            handle = await client.start(asks)
            await trio.sleep(10)  # the store is told once that the run waits
            await trio.testing.wait_all_tasks_blocked()
            statistics = trio.lowlevel.current_statistics()
            assert statistics.seconds_to_next_deadline == math.inf
            await handle.signal("answer", b"yes")
            assert await handle.result() == b"yes"

    trio.run(main, clock=MockClock(autojump_threshold=0))


def test_a_worker_on_a_mocked_clock() -> None:
    """A mocked year takes no time: nothing looks now and then on a store in memory."""

    @workflow
    async def year(sdk: RuntaraSdk) -> str:
        for month in range(12):
            await sdk.sleep(30 * DAY, f"month {month}")
        return "a year"

    async def main() -> None:
        async with (
            memory_backend() as backend,
            open_worker(backend, [year], slots=1, max_loaded=1, stop_signals=()),
            open_client(backend, tenant_id="t") as client,
        ):
            handles = [await client.start(year, delay=n * DAY) for n in range(3)]
            for handle in handles:
                assert await handle.result() == "a year"

    trio.run(main, clock=MockClock(autojump_threshold=0))


@durable
async def pack(parcel: str) -> str:
    return effect(current_sdk().step_key, f"packed {parcel}")


@workflow
async def ship(sdk: RuntaraSdk, parcel: str) -> str:
    await pack(parcel)
    await sdk.sleep(60, "dry")
    return parcel.upper()


@workflow
async def ship_all(sdk: RuntaraSdk, parcels: list[str]) -> list[str]:
    async with sdk.open_children() as children:
        labels = [await children.start(ship, parcel, name=parcel) for parcel in parcels]
        found = [await label.result() for label in labels]
    await pack("the lot")
    return [*found, await sdk.call(ship, "extra"), await sdk.start(ship, "later")]


def test_every_boundary_of_a_parent_and_its_children() -> None:
    went = check_every_boundary(ship_all, args=(["a", "b"],), workflows=[ship])
    assert went.result == ["A", "B", "EXTRA", "test/start:0"]
    assert "checkpoint 'durable::pack::a' of 'test/children:0::a'" in went.boundaries
    assert "start 'test/children:0::a'" in went.boundaries
    assert "end of 'test/call:0'" in went.boundaries


@workflow
async def late(sdk: RuntaraSdk) -> None:
    await sdk.sleep(3600, "long")
    await pack("never")


@workflow
async def breaks(sdk: RuntaraSdk) -> None:
    await pack("broken")
    raise ValueError("broken parcel")


@workflow
async def in_time(sdk: RuntaraSdk) -> str:
    """One child fails, another is cancelled by a deadline: neither leaves anything half done."""
    try:
        async with sdk.open_children("first") as children:
            await children.start(late, name="late")
            await children.start(breaks, name="breaks")
    except* ValueError:
        raise
    except* InstanceFailed as group:
        await pack(f"known: {len(group.exceptions)}")
    async with sdk.deadline("limit", 10) as scope, sdk.open_children("second") as children:
        await children.start(late, name="late")
    assert scope.cancelled_caught
    return "well"


def test_every_boundary_of_blocks_that_are_cancelled() -> None:
    went = check_every_boundary(in_time, workflows=[late, breaks])
    assert went.result == "well"
    assert "cancel 'first'" in went.boundaries
    assert "cancel 'second'" in went.boundaries
