"""Children: every row of the table, on every store."""

from __future__ import annotations

import contextlib

import pytest
import trio

from runtara_trio import (
    Client,
    InstanceExists,
    InstanceFailed,
    InstanceStatus,
    Operator,
    RunState,
    RuntaraSdk,
    SdkError,
    SharedBackend,
    Start,
    durable,
    open_client,
    open_runtara,
    open_worker,
    workflow,
)

from ..helpers.runs import Log, working
from ..helpers.support import until


@workflow
async def double(sdk: RuntaraSdk, number: int) -> int:
    return 2 * number


@workflow
async def waits(sdk: RuntaraSdk) -> str:
    return (await sdk.wait_for_signal("go")).decode()


@workflow
async def fails(sdk: RuntaraSdk) -> None:
    raise ValueError("broken parcel")


async def status_of(client: Client, id: str) -> InstanceStatus:
    return await client.get(id).status()


async def until_status(client: Client, id: str, status: InstanceStatus) -> None:
    with trio.fail_after(30):
        while await status_of(client, id) is not status:
            await trio.sleep(0.01)


async def test_results(backend: SharedBackend) -> None:
    @workflow
    async def parent(sdk: RuntaraSdk, numbers: list[int]) -> list[int]:
        async with sdk.open_children("doubles") as children:
            started = [await children.start(double, one, name=f"n {one}") for one in numbers]
            return [await one.result() for one in started]

    async with working(backend, parent, double) as (_, client):
        handle = await client.start(parent, list(range(20)), id="p/1")
        assert await handle.result(timeout=30) == [2 * one for one in range(20)]
        found = await client.list(parent_id="p/1")
        assert {one.instance_id for one in found.instances} == {
            f"p/1/doubles::n {one}" for one in range(20)
        }
        run = found.instances[0].run
        assert run is not None
        assert run.parent_id == "p/1"


async def test_call_and_parent_id(backend: SharedBackend) -> None:
    @workflow
    async def child(sdk: RuntaraSdk) -> str | None:
        return sdk.parent_id

    @workflow
    async def parent(sdk: RuntaraSdk) -> list[str | None]:
        return [sdk.parent_id, await sdk.call(child), await sdk.call("child", name="again")]

    async with working(backend, parent, child) as (_, client):
        handle = await client.start(parent, id="p")
        assert await handle.result(timeout=30) == [None, "p", "p"]
        found = await client.list(parent_id="p")
        assert {one.instance_id for one in found.instances} == {"p/call:0", "p/again"}


async def test_a_child_that_fails_cancels_its_siblings(backend: SharedBackend, log: Log) -> None:
    @workflow
    async def parent(sdk: RuntaraSdk) -> None:
        async with sdk.open_children() as children:
            await children.start(waits, name="waits")
            await children.start(fails, name="fails")
            try:
                await trio.sleep_forever()
            finally:
                log.did.append("body cancelled")

    async with working(backend, parent, waits, fails) as (_, client):
        handle = await client.start(parent, id="p")
        with pytest.raises(
            InstanceFailed, match="ExceptionGroup: children of instance 'p'"
        ) as raised:
            await handle.result(timeout=30)
        assert "p/children:0::fails' is failed: ValueError: broken parcel" in (
            raised.value.error or ""
        )
        assert "waits" not in (raised.value.error or "")  # the block itself has cancelled it
        assert await status_of(client, "p/children:0::waits") is InstanceStatus.CANCELLED
        assert log.did == ["body cancelled"]


async def test_call_raises_the_failure_itself(backend: SharedBackend) -> None:
    @workflow
    async def parent(sdk: RuntaraSdk) -> str:
        try:
            await sdk.call(fails)
        except InstanceFailed as exc:
            return exc.instance_id
        return "no"

    async with working(backend, parent, fails) as (_, client):
        assert await (await client.start(parent, id="p")).result(timeout=30) == "p/call:0"


async def test_an_operator_cancels_the_parent(backend: SharedBackend, operator: Operator) -> None:
    @workflow
    async def middle(sdk: RuntaraSdk) -> None:
        await sdk.call(waits)

    @workflow
    async def parent(sdk: RuntaraSdk) -> None:
        await sdk.call(middle)

    async with working(backend, parent, middle, waits) as (_, client):
        await client.start(parent, id="p")
        await until_status(client, "p/call:0/call:0", InstanceStatus.RUNNING)
        await operator.cancel("p")
        for id in ("p", "p/call:0", "p/call:0/call:0"):
            await until_status(client, id, InstanceStatus.CANCELLED)


async def test_an_operator_cancels_a_child(backend: SharedBackend, operator: Operator) -> None:
    @workflow
    async def parent(sdk: RuntaraSdk) -> str:
        try:
            await sdk.call(waits)
        except InstanceFailed as exc:
            return exc.status
        return "no"

    async with working(backend, parent, waits) as (_, client):
        handle = await client.start(parent, id="p")
        await until_status(client, "p/call:0", InstanceStatus.RUNNING)
        await operator.cancel("p/call:0")
        assert await handle.result(timeout=30) == "cancelled"


async def test_a_cancelled_scope_cancels_the_children(backend: SharedBackend) -> None:
    @workflow
    async def parent(sdk: RuntaraSdk) -> str:
        with trio.CancelScope() as scope:
            async with sdk.open_children("inner") as children:
                await children.start(waits, name="a")
                while await status_of(client, "p/inner::a") is not InstanceStatus.RUNNING:
                    await trio.sleep(0.01)
                scope.cancel()
        assert scope.cancelled_caught
        return (await status_of(client, "p/inner::a")).value

    async with working(backend, parent, waits) as (_, client):
        handle = await client.start(parent, id="p")
        assert await handle.result(timeout=30) == "cancelled"


async def test_an_error_of_the_body_cancels_the_children(backend: SharedBackend, log: Log) -> None:
    @workflow
    async def parent(sdk: RuntaraSdk) -> str:
        try:
            async with sdk.open_children("inner") as children:
                await children.start(waits, name="a")
                raise KeyError("mine")
        except* KeyError:
            log.did.append("as raised")
        return (await status_of(client, "p/inner::a")).value

    async with working(backend, parent, waits) as (_, client):
        handle = await client.start(parent, id="p")
        assert await handle.result(timeout=30) in ("cancelled", "unknown")  # or never started
        assert log.did == ["as raised"]


async def test_the_block_waits_for_all(backend: SharedBackend, operator: Operator) -> None:
    @workflow
    async def parent(sdk: RuntaraSdk) -> str:
        async with sdk.open_children("inner") as children:
            for number in range(3):
                await children.start(waits, name=str(number))
        return "after"

    async with working(backend, parent, waits, slots=2) as (_, client):
        handle = await client.start(parent, id="p")
        for number in range(3):
            await until_status(client, f"p/inner::{number}", InstanceStatus.RUNNING)
            assert await handle.status() is InstanceStatus.RUNNING
            await operator.send_signal(f"p/inner::{number}", "go", b"x")
        assert await handle.result(timeout=30) == "after"


@pytest.mark.parametrize("kind", ["call", "block", "results"])
async def test_a_parent_is_unloaded_while_it_waits(
    backend: SharedBackend, operator: Operator, log: Log, kind: str
) -> None:
    @workflow
    async def parent(sdk: RuntaraSdk) -> str:
        log.did.append("began")
        if kind == "call":
            return await sdk.call(waits, name="a")
        async with sdk.open_children() as children:
            child = await children.start(waits, name="a")
            if kind == "results":
                return await child.result()
        return "x"

    async with working(backend, parent, waits, slots=1, max_loaded=1) as (_worker, client):
        handle = await client.start(parent, id="p")
        child = "p/a" if kind == "call" else "p/children:0::a"

        async def is_unloaded() -> bool:
            run = (await handle.show()).summary.run
            return run is not None and run.waiting_for_children

        with trio.fail_after(30):
            while not await is_unloaded():
                await trio.sleep(0.01)
        run = (await handle.show()).summary.run
        assert run is not None
        assert run.state is RunState.WAITING
        await until_status(client, child, InstanceStatus.RUNNING)
        await operator.send_signal(child, "go", b"x")
        assert await handle.result(timeout=30) == "x"
        assert len(log.did) >= 2


async def test_an_unloaded_parent_hears_of_a_failure(
    backend: SharedBackend, operator: Operator, log: Log
) -> None:
    """And is unloaded again until the siblings, which it cancels, have ended."""

    @workflow
    async def stubborn(sdk: RuntaraSdk) -> None:
        log.began.set()
        try:
            await sdk.wait_for_signal("never")
        finally:
            with trio.CancelScope(shield=True):
                await log.go.wait()

    @workflow
    async def parent(sdk: RuntaraSdk) -> None:
        async with sdk.open_children() as children:
            await children.start(stubborn, name="s")
            await children.start(waits, name="w")

    async with (
        open_worker(backend, [parent], max_loaded=1, queues=["default"]) as first,
        open_worker(backend, [stubborn, waits]),
        open_client(backend, tenant_id="t") as client,
    ):
        handle = await client.start(parent, id="p")
        other = await client.start(parent, id="q")  # too many, so one of them is unloaded
        await log.began.wait()
        for id in ("p", "q"):
            await until_status(client, f"{id}/children:0::w", InstanceStatus.RUNNING)
            await operator.cancel(f"{id}/children:0::w")
        await trio.sleep(0.2)
        assert not (await handle.status()).finished
        log.go.set()
        for one in (handle, other):
            with pytest.raises(InstanceFailed, match="ExceptionGroup"):
                await one.result(timeout=30)
        assert first.health().loaded == 0


async def test_children_go_on_where_the_parent_is_paused(
    backend: SharedBackend, operator: Operator
) -> None:
    @workflow
    async def parent(sdk: RuntaraSdk) -> str:
        return await sdk.call(waits, name="a")

    async with working(backend, parent, waits) as (_, client):
        handle = await client.start(parent, id="p")
        await until_status(client, "p/a", InstanceStatus.RUNNING)
        await operator.pause("p")
        await until_status(client, "p", InstanceStatus.SUSPENDED)
        assert await status_of(client, "p/a") is InstanceStatus.RUNNING
        await operator.send_signal("p/a", "go", b"through")
        await until_status(client, "p/a", InstanceStatus.COMPLETED)
        await operator.resume("p")
        assert await handle.result(timeout=30) == "through"


async def test_pause_and_resume_of_a_tree(backend: SharedBackend, operator: Operator) -> None:
    @workflow
    async def parent(sdk: RuntaraSdk) -> str:
        return await sdk.call(waits, name="a")

    async with working(backend, parent, waits) as (_, client):
        handle = await client.start(parent, id="p")
        await until_status(client, "p/a", InstanceStatus.RUNNING)
        await operator.pause("p", tree=True)
        for id in ("p", "p/a"):
            await until_status(client, id, InstanceStatus.SUSPENDED)
        await handle.resume(tree=True)
        for id in ("p", "p/a"):
            await until_status(client, id, InstanceStatus.RUNNING)
        await operator.send_signal("p/a", "go", b"x")
        assert await handle.result(timeout=30) == "x"


async def test_a_drained_parent_finds_its_children(
    backend: SharedBackend, operator: Operator, log: Log
) -> None:
    @durable
    async def once(name: str) -> None:
        log.did.append(name)

    @workflow
    async def child(sdk: RuntaraSdk, number: int) -> int:
        await once(f"child {number}")
        await sdk.wait_for_signal("go")
        return number

    @workflow
    async def parent(sdk: RuntaraSdk) -> list[int]:
        async with sdk.open_children() as children:
            started = [await children.start(child, n, name=str(n)) for n in range(5)]
            return [await one.result() for one in started]

    async with open_client(backend, tenant_id="t") as client:
        handle = await client.start(parent, id="p")
        async with open_worker(backend, [parent, child]):
            await until(lambda: len(log.did) == 5)
        for number in range(5):
            await operator.send_signal(f"p/children:0::{number}", "go", b"")
        async with open_worker(backend, [parent, child]):
            assert await handle.result(timeout=30) == list(range(5))
    assert sorted(log.did) == [f"child {n}" for n in range(5)]


async def test_a_new_attempt_tries_failed_children_again(backend: SharedBackend, log: Log) -> None:
    @workflow
    async def flaky(sdk: RuntaraSdk) -> str:
        log.did.append("flaky")
        if log.did.count("flaky") == 1:
            raise OSError("away")
        return "well"

    @workflow
    async def good(sdk: RuntaraSdk) -> str:
        log.did.append("good")
        return "good"

    @workflow(max_attempts=2, retry_delay=0.01)
    async def parent(sdk: RuntaraSdk) -> list[str]:
        first = await sdk.call(good)
        return [first, await sdk.call(flaky)]

    async with working(backend, parent, flaky, good) as (_, client):
        handle = await client.start(parent, id="p")
        assert await handle.result(timeout=30) == ["good", "well"]
        assert log.did == ["good", "flaky", "flaky"]


async def test_a_replay_gets_the_results_that_the_body_got(
    backend: SharedBackend, operator: Operator, log: Log
) -> None:
    """A sibling has failed since: the body gets as far as it got, and is cancelled there."""

    @durable
    async def note(what: str) -> None:
        log.did.append(what)

    @workflow
    async def parent(sdk: RuntaraSdk) -> list[str]:
        found: list[str] = []
        with contextlib.suppress(ExceptionGroup):
            async with sdk.open_children("c") as children:
                first = await children.start(waits, name="first")
                second = await children.start(waits, name="second")
                found.append(await first.result())
                await note("got the first")
                found.append(await second.result())
                await note("got the second")
        return found

    async with open_client(backend, tenant_id="t") as client:
        handle = await client.start(parent, id="p")
        async with open_worker(backend, [parent, waits]):
            for name in ("first", "second"):
                await until_status(client, f"p/c::{name}", InstanceStatus.RUNNING)
            await operator.send_signal("p/c::first", "go", b"1")
            await until(lambda: bool(log.did))
        await operator.cancel("p/c::second")
        async with open_worker(backend, [parent, waits]):
            assert await handle.result(timeout=30) == ["1"]
    assert log.did == ["got the first"]


async def test_names_and_ids(backend: SharedBackend) -> None:
    @workflow
    async def parent(sdk: RuntaraSdk) -> list[str]:
        async with sdk.open_children("a/b") as children:
            one = await children.start(double, 1, name="x:y%")
            with pytest.raises(SdkError, match="two siblings have the name 'x%3Ay%25'"):
                await children.start(double, 1, name="x:y%")
            async with trio.open_nursery() as nursery:

                async def start() -> None:
                    with pytest.raises(SdkError, match="needs name="):
                        await children.start(double, 1)

                nursery.start_soon(start)
            unnamed = await children.start(double, 1)
            long = await children.start(double, 1, name="n" * 600)
            return [one.id, unnamed.id, long.id]

    async with working(backend, parent, double) as (_, client):
        handle = await client.start(parent, id="p")
        one, unnamed, long = await handle.result(timeout=30)
        assert one == "p/a%2Fb::x%3Ay%25"
        assert unnamed == "p/a%2Fb::child:0"
        assert len(long) == 512
        assert long.startswith("p/a%2Fb::nnn")


async def test_an_id_that_is_not_a_child_s(backend: SharedBackend) -> None:
    @workflow
    async def parent(sdk: RuntaraSdk) -> None:
        async with sdk.open_children("c") as children:
            await children.start(double, 1, name="x")

    async with working(backend, parent, double) as (_, client):
        await (await client.start(double, 1, id="p/c::x")).result(timeout=30)
        handle = await client.start(parent, id="p")
        with pytest.raises(InstanceFailed) as failed:
            await handle.result(timeout=30)
        assert "exists, and is not a child of 'p'; give the child another name=" in (
            failed.value.error or ""
        )


async def test_the_depth_is_limited(backend: SharedBackend) -> None:
    @workflow
    async def deeper(sdk: RuntaraSdk, left: int) -> int:
        return 0 if left == 0 else 1 + await sdk.call(deeper, left - 1, name="d")

    async with working(backend, deeper) as (_, client):
        deep = await client.start(deeper, 32, id="deep")
        assert await deep.result(timeout=60) == 32
        deeper_still = await client.start(deeper, 33, id="more")
        with pytest.raises(InstanceFailed) as failed:
            await deeper_still.result(timeout=60)
        assert "more/d" in (failed.value.error or "")
        assert await client.get("more" + "/d" * 33).status() is InstanceStatus.UNKNOWN


async def test_prune_keeps_the_children_of_a_living_parent(
    backend: SharedBackend, operator: Operator
) -> None:
    @workflow
    async def parent(sdk: RuntaraSdk) -> int:
        found = await sdk.call(double, 4, name="d")
        await sdk.wait_for_signal("go")
        return found

    async with working(backend, parent, double) as (_, client):
        handle = await client.start(parent, id="p")
        await until_status(client, "p/d", InstanceStatus.COMPLETED)
        assert await operator.prune(older_than=0) == 0
        await operator.send_signal("p", "go")
        assert await handle.result(timeout=30) == 8
        assert await operator.prune(older_than=0) == 2


async def test_an_instance_of_its_own_right(
    backend: SharedBackend, operator: Operator, log: Log
) -> None:
    """It is started once: a replay starts none, also where it was pruned since."""

    @workflow
    async def other(sdk: RuntaraSdk, text: str) -> str:
        log.did.append(text)
        return text

    @workflow
    async def parent(sdk: RuntaraSdk) -> list[str]:
        ids = [await sdk.start(other, "one"), await sdk.start(other, "two", id="two")]
        await sdk.wait_for_signal("go")
        return ids

    async with open_client(backend, tenant_id="t") as client:
        handle = await client.start(parent, id="p")
        async with open_worker(backend, [parent, other]):
            await until(lambda: len(log.did) == 2)
            await until_status(client, "p/start:0", InstanceStatus.COMPLETED)
            await until_status(client, "two", InstanceStatus.COMPLETED)
        assert await operator.prune(older_than=0) == 2
        await operator.send_signal("p", "go")
        async with open_worker(backend, [parent, other]):
            assert await handle.result(timeout=30) == ["p/start:0", "two"]
    assert sorted(log.did) == ["one", "two"]


async def test_a_plain_block_has_children_too(backend: SharedBackend) -> None:
    async with open_worker(backend, [double, waits]), open_client(backend, tenant_id="t"):
        async with open_runtara(backend, instance_id="plain", tenant_id="t") as sdk:
            async with sdk.open_children() as children:
                started = [await children.start(double, n) for n in range(3)]
                assert [await one.result() for one in started] == [0, 2, 4]


async def test_a_deadline_of_the_parent_cancels_its_children(
    backend: SharedBackend, operator: Operator
) -> None:
    @workflow(timeout=0.3)
    async def parent(sdk: RuntaraSdk) -> None:
        await sdk.call(waits, name="w")

    async with working(backend, parent, waits) as (_, client):
        handle = await client.start(parent, id="p")
        with pytest.raises(InstanceFailed, match="timed out"):
            await handle.result(timeout=30)
        assert await status_of(client, "p/w") is InstanceStatus.CANCELLED


async def test_a_start_under_way_does_not_hide_the_cancel(backend: SharedBackend, log: Log) -> None:
    @workflow
    async def endless(sdk: RuntaraSdk) -> None:
        log.began.set()
        await sdk.wait_for_signal("never")

    @workflow
    async def parent(sdk: RuntaraSdk) -> None:
        async with sdk.open_children() as children:
            await children.start(endless, name="a")
            await log.began.wait()
            await children.start(endless, name="b")
            raise ValueError("of the body")

    async with working(backend, parent, endless) as (_, client):
        handle = await client.start(parent, id="p")
        with pytest.raises(InstanceFailed):
            await handle.result(timeout=30)
        assert await client.get("p/children:0::a").status() is InstanceStatus.CANCELLED


async def test_an_id_of_another_workflow_is_refused_again(backend: SharedBackend) -> None:
    seen: list[str] = []

    @workflow(max_attempts=2, retry_delay=0.01)
    async def parent(sdk: RuntaraSdk) -> None:
        try:
            seen.append(await sdk.start(double, 1, id="taken"))
        except InstanceExists:
            seen.append("refused")
        if len(seen) == 1:
            raise RuntimeError("again")

    @workflow
    async def other(sdk: RuntaraSdk) -> None:
        pass

    async with working(backend, parent, double, other) as (_, client):
        await client.start(other, id="taken")
        await (await client.start(parent)).result(timeout=30)
    assert seen == ["refused", "refused"]


async def test_an_id_twice_in_one_batch_is_started_once(backend: SharedBackend) -> None:
    async with working(backend, double) as (_, client):
        twice = [Start(args=(2,), id="same"), Start(args=(2,), id="same")]
        first, second = await client.start_many(double, twice)
        assert await first.result(timeout=30) == await second.result(timeout=30) == 4
        assert await client.count() == 1
