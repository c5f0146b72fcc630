"""Acting on many, running again, copies, attributes and messages, on every store."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from runtara_trio import (
    CodecError,
    ConfigError,
    InstanceFailed,
    InstanceStatus,
    Operator,
    RuntaraSdk,
    SdkError,
    SharedBackend,
    SignalRefused,
    Start,
    current_sdk,
    durable,
    open_client,
    open_runtara,
    open_worker,
    workflow,
)
from runtara_trio.testing import memory_backend

from ..helpers.runs import working
from ..helpers.support import block_of, until

calls: list[str] = []


@pytest.fixture(autouse=True)
def nothing_called() -> None:
    calls.clear()


@durable
async def charge(what: str) -> str:
    calls.append(what)
    return f"charged {what}"


@durable(max_retries=0)
async def flaky() -> str:
    calls.append("flaky")
    if calls.count("flaky") == 1:
        raise OSError("away")
    return "well"


@workflow
async def order(sdk: RuntaraSdk, what: str) -> list[str]:
    return [await charge(what), await flaky()]


@workflow
async def waits(sdk: RuntaraSdk) -> bytes:
    return await sdk.wait_for_signal("go")


# ---- many


async def test_cancel_many(backend: SharedBackend, operator: Operator) -> None:
    seen: list[tuple[int, int]] = []
    async with open_client(backend, tenant_id="t") as client:
        await client.start_many(waits, [Start(args=(), id=f"w-{n}") for n in range(12)])
        await client.start(order, "a", id="o-1")
        acted = await operator.cancel_many(
            workflow="waits", progress=lambda done, total: seen.append((done, total))
        )
        assert (acted, seen) == (12, [(12, 12)])
        assert await operator.cancel_many(workflow="waits") == 0
        assert await client.count(statuses=["pending"]) == 1
        with pytest.raises(ConfigError, match="else all would be meant"):
            await operator.cancel_many()


async def test_pause_resume_rerun_and_prune_many(
    backend: SharedBackend, operator: Operator
) -> None:
    async with open_client(backend, tenant_id="t") as client:
        handles = await client.start_many(waits, [Start(args=(), id=f"w-{n}") for n in range(5)])
        assert await operator.pause_many(id_prefix="w-") == 5
        async with open_worker(backend, [waits]) as worker:
            await (await client.start(waits, id="x", queue="default")).signal("go")
            await client.get("x", waits).result(timeout=30)
            await until(lambda: worker.health().loaded == 0)
            assert await operator.resume_many(workflow="waits") == 5
            await until(lambda: worker.health().loaded == 5)
            assert await operator.cancel_many(id_prefix="w-", statuses=["running"]) == 5
            for one in handles:
                with pytest.raises(InstanceFailed):
                    await one.result(timeout=30)
        assert await operator.rerun_many(workflow="waits") == 5
        assert await client.count(statuses=["pending"]) == 5
        assert await operator.cancel_many(id_prefix="w-") == 5
        assert await operator.prune_many(0, id_prefix="w-1") == 1
        assert await operator.prune_many(0, workflow="waits") == 5
        assert await client.count() == 0


# ---- again, and copies


async def test_rerun(backend: SharedBackend, operator: Operator) -> None:
    async with open_client(backend, tenant_id="t") as client, open_worker(backend, [order]):
        handle = await client.start(order, "a", id="o")
        with pytest.raises(InstanceFailed):
            await handle.result(timeout=30)
        await handle.rerun()
        assert await handle.result(timeout=30) == ["charged a", "well"]
        assert calls == ["a", "flaky", "flaky"]  # what is saved is not done again
        events = [one.subtype for one in (await handle.events()).events]
        assert "runtara_trio_rerun" in events
        with pytest.raises(SdkError, match="no instance 'nobody'"):
            await operator.rerun("nobody")
        async with open_runtara(backend, instance_id="plain", tenant_id="t"):
            pass
        with pytest.raises(SdkError, match="start its program with revive=True"):
            await operator.rerun("plain")
        await client.start(order, "b", id="pending", delay=3600)
        with pytest.raises(SdkError, match="only one that has ended is rerun"):
            await operator.rerun("pending")


async def test_rerun_of_a_family(backend: SharedBackend, operator: Operator) -> None:
    @workflow
    async def parent(sdk: RuntaraSdk) -> list[list[str]]:
        async with sdk.open_children() as children:
            started = [await children.start(order, name, name=name) for name in "ab"]
            return [await one.result() for one in started]

    async with open_client(backend, tenant_id="t") as client, open_worker(backend, [parent, order]):
        handle = await client.start(parent, id="p")
        with pytest.raises(InstanceFailed):
            await handle.result(timeout=30)
        await handle.rerun()
        assert await handle.result(timeout=30) == [[f"charged {name}", "well"] for name in "ab"]


async def test_no_rerun_under_a_living_parent(backend: SharedBackend, operator: Operator) -> None:
    @workflow
    async def parent(sdk: RuntaraSdk) -> None:
        await sdk.call(order, "a", name="c")
        await sdk.wait_for_signal("go")

    @workflow(name="order")
    async def well(sdk: RuntaraSdk, what: str) -> list[str]:
        return []

    async with open_client(backend, tenant_id="t") as client, open_worker(backend, [parent, well]):
        handle = await client.start(parent, id="p")
        await client.get("p/c").result(timeout=30)
        with pytest.raises(SdkError, match="which is running and may have its result already"):
            await operator.rerun("p/c")
        assert await operator.rerun_many(parent_id="p", statuses=["completed"]) == 0
        await handle.signal("go")
        await handle.result(timeout=30)
        await operator.rerun("p/c")
        await client.get("p/c").result(timeout=30)


async def test_fork(backend: SharedBackend, operator: Operator) -> None:
    @workflow
    async def steps(sdk: RuntaraSdk, first: str) -> list[str]:
        return [await charge(first), await charge("second"), await charge("third")]

    async with open_client(backend, tenant_id="t") as client, open_worker(backend, [steps]):
        one = await client.start(steps, "first", id="one", attributes={"colour": "red"})
        await one.result(timeout=30)
        await operator.fork("one", "two", until="durable::charge::second")
        assert await client.get("two").result(list, timeout=30) == [
            "charged first",
            "charged second",
            "charged third",
        ]
        assert calls == ["first", "second", "third", "third"]
        await operator.fork("one", "three", args=["other"])
        assert (await client.get("three").result(list, timeout=30))[0] == "charged other"
        assert calls[4:] == ["other"]
        assert await client.count(attributes={"colour": "red"}) == 3
        events = (await operator.events("one")).events
        assert [one.payload for one in events if one.subtype == "runtara_trio_forked"] == [
            b"two",
            b"three",
        ]
        (event,) = [
            one
            for one in (await operator.events("two")).events
            if one.subtype == "runtara_trio_fork_of"
        ]
        assert event.payload == b"one"
        with pytest.raises(SdkError, match="instance 'two' exists"):
            await operator.fork("one", "two")
        with pytest.raises(SdkError, match="has no checkpoint 'nothing'"):
            await operator.fork("one", "four", until="nothing")
        assert await client.get("four").status() is InstanceStatus.UNKNOWN


# ---- attributes


async def test_attributes(backend: SharedBackend, operator: Operator) -> None:
    @workflow
    async def marked(sdk: RuntaraSdk) -> None:
        await sdk.set_attributes(state="begun", paid=False)
        await sdk.wait_for_signal("go")
        await sdk.set_attributes(state="over", paid=True)
        with pytest.raises(ConfigError, match="must be a text, a finite number or a bool"):
            await sdk.set_attributes(wrong=float("nan"))

    async with open_client(backend, tenant_id="t") as client:
        await client.start(marked, id="m", attributes={"customer": "c-7", "cents": 1999})
        await client.start(marked, id="n", attributes={"customer": "c-8"})

        async def found(**attributes: Any) -> set[str]:
            page = await client.list(attributes=attributes)
            return {one.instance_id for one in page.instances}

        assert await found(customer="c-7") == {"m"}
        assert await found(cents=1999, customer="c-7") == {"m"}
        assert await found(cents=1999.5) == set()
        assert await client.count(attributes={"customer": "c-8"}) == 1
        for _ in range(2):  # a replay sets nothing older
            async with open_worker(backend, [marked]) as worker:
                await until(lambda: worker.health().loaded == 2)
                while await found(state="begun") != {"m", "n"}:
                    await trio.sleep(0.01)
        await operator.send_signal("m", "go")
        async with open_worker(backend, [marked]):
            await client.get("m").result(timeout=30)
            assert await found(state="over", paid=True) == {"m"}
            assert await found(paid=False) == {"n"}


# ---- messages


async def test_messages_in_order(backend: SharedBackend, operator: Operator) -> None:
    @workflow
    async def chat(sdk: RuntaraSdk, count: int) -> list[str]:
        return [await sdk.receive("line", type=str) for _ in range(count)]

    async with open_client(backend, tenant_id="t") as client:
        handle = await client.start(chat, 6, id="c")
        await operator.send_message("c", "line", "before the first start")
        await handle.send_message("line", "the second")
        await handle.send_message("other", "of another name")
        async with open_worker(backend, [chat]):
            await handle.send_message("line", "the third")
        async with open_worker(backend, [chat], max_loaded=1):
            await client.start(chat, 1, id="d")
            for number in range(4, 7):
                await handle.send_message("line", f"number {number}")
            assert await handle.result(timeout=30) == [
                "before the first start",
                "the second",
                "the third",
                "number 4",
                "number 5",
                "number 6",
            ]
            await client.get("d").send_message("line", "x")
            assert await client.get("d").result(list, timeout=30) == ["x"]
        with pytest.raises(SignalRefused, match="is completed: it receives no message"):
            await handle.send_message("line", "late")
        with pytest.raises(SignalRefused, match="there is no instance 'nobody'"):
            await operator.send_message("nobody", "line")


async def test_one_message_after_the_other(backend: SharedBackend, operator: Operator) -> None:
    """Each is sent once the one before was received, and has its number again."""
    async with open_runtara(backend, instance_id="i", tenant_id="t") as sdk:
        received: dict[int, str] = {}

        async def receive() -> None:
            for number in range(3):
                received[number] = await sdk.receive("line", type=str)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            for number in range(3):
                await until(lambda: bool(block_of(sdk).inbox.hints._waiters))
                await operator.send_message("i", "line", str(number))
                await until(partial(received.__contains__, number))
    assert received == {0: "0", 1: "1", 2: "2"}


async def test_a_message_wakes_who_is_unloaded(backend: SharedBackend) -> None:
    @workflow
    async def chat(sdk: RuntaraSdk) -> bytes:
        calls.append("began")
        return await sdk.receive("line")

    async with (
        open_client(backend, tenant_id="t") as client,
        open_worker(backend, [chat], max_loaded=1, slots=1) as worker,
    ):
        handles = [await client.start(chat) for _ in range(3)]
        await until(lambda: len(calls) == 3 and worker.health().loaded <= 1)
        for number, handle in enumerate(handles):
            await handle.send_message("line", str(number))
        for number, handle in enumerate(handles):
            assert await handle.result(timeout=30) == str(number).encode()


def test_a_message_that_does_not_come() -> None:
    """That it did not is saved: a replay goes the same way, whatever came since."""

    @workflow
    async def chat(sdk: RuntaraSdk) -> list[str]:
        found: list[str] = []
        for _ in range(2):
            try:
                found.append(await sdk.receive("line", timeout=60, type=str))
            except trio.TooSlowError:
                found.append("too late")
        await sdk.wait_for_signal("go")
        return found

    async def main() -> None:
        async with memory_backend() as backend, open_client(backend, tenant_id="t") as client:
            handle = await client.start(chat)
            async with open_worker(backend, [chat], stop_signals=()):
                await trio.sleep(100)
                await handle.send_message("line", "second")
                await trio.sleep(1)
            await handle.send_message("line", "third")
            await handle.signal("go")
            async with open_worker(backend, [chat], stop_signals=()):
                assert await handle.result() == ["too late", "second"]

    trio.run(main, clock=MockClock(autojump_threshold=0))


async def test_a_message_of_another_type(memory: SharedBackend) -> None:
    async with open_runtara(memory, instance_id="i", tenant_id="t") as sdk:
        operator = Operator(memory)
        await operator.send_message("i", "number", "five")
        await operator.send_message("i", "number", 5)
        with pytest.raises(CodecError, match="the message 'number'"):
            await sdk.receive("number", type=int)
        assert await sdk.receive("number", type=int) == 5


async def test_a_durable_call_that_is_tried_again_gets_the_same_message(
    backend: SharedBackend,
) -> None:
    """As its next run does: what one try has taken is of the call, and not lost with the try."""
    tries: list[str] = []

    @durable(max_retries=2, delay=0.01)
    async def reads(name: str) -> str:
        with current_sdk().scope("inside"):
            line = await current_sdk().receive("line", type=str)
        tries.append(line)
        if len(tries) < 3:
            raise ValueError("not yet")
        return line

    @workflow
    async def lines(sdk: RuntaraSdk) -> list[str]:
        return [await reads("a"), await sdk.receive("line", type=str), await reads("b")]

    async with working(backend, lines) as (_, client):
        handle = await client.start(lines, id="a")
        for line in ("one", "two", "three"):
            await handle.send_message("line", line)
        assert await handle.result(timeout=30) == ["one", "two", "three"]
    assert tries == ["one", "one", "one", "three"]
