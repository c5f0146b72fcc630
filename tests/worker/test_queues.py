"""What queues allow, on every store: places, turns of keys, rates, standing still."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from runtara_trio import (
    Client,
    ConfigError,
    InstanceStatus,
    Operator,
    Queue,
    Rate,
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
from runtara_trio.messages import ClaimRuns, RecordOutcome
from runtara_trio.testing import memory_backend

from ..helpers.support import sql, until


class Gauge:
    """How many work at once, and in which order they began."""

    def __init__(self) -> None:
        self.now: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self.order: list[str] = []
        self.go = trio.Event()

    @contextmanager
    def one(self, of: str, name: str = "") -> Iterator[None]:
        self.now[of] += 1
        self.most[of] = max(self.most[of], self.now[of])
        self.order.append(name)
        try:
            yield
        finally:
            self.now[of] -= 1


@pytest.fixture
def gauge() -> Gauge:
    return Gauge()


async def until_wanting(client: Client, count: int) -> None:
    with trio.fail_after(30):
        while (await client.list_queues())[0].wanting != count:
            await trio.sleep(0.01)


async def test_a_limit_over_workers(backend: SharedBackend, gauge: Gauge) -> None:
    @workflow(queue="mail")
    async def send(sdk: RuntaraSdk, number: int) -> int:
        with gauge.one("mail"):
            await trio.sleep(0.001)
        return number

    limited = Queue("mail", limit=3)
    async with (
        open_worker(backend, [send], queues=[limited]),
        open_worker(backend, [send], queues=["mail"]),
        open_client(backend, tenant_id="t") as client,
    ):
        handles = await client.start_many(send, [Start(args=(n,)) for n in range(60)])
        assert [await one.result(timeout=30) for one in handles] == list(range(60))
        assert gauge.most["mail"] == 3
        (info,) = await client.list_queues()
        assert info.queue == limited
        assert (info.ready, info.working, info.paused) == (0, 0, False)


async def test_a_limit_per_worker(backend: SharedBackend, gauge: Gauge) -> None:
    def sending(worker: str) -> Any:
        @workflow(name="send")
        async def send(sdk: RuntaraSdk) -> None:
            with gauge.one(worker):
                await trio.sleep(0.001)

        return send

    queue = Queue("default", per_worker=2)
    async with (
        open_worker(backend, [sending("one")], queues=[queue]),
        open_worker(backend, [sending("two")]),
        open_client(backend, tenant_id="t") as client,
    ):
        for one in await client.start_many("send", [Start(args=()) for _ in range(40)]):
            await one.result(timeout=30)
    assert max(gauge.most.values()) == 2


async def test_keys_one_after_the_other(backend: SharedBackend, gauge: Gauge) -> None:
    """In the order of their starts, whatever the other keys do."""

    @workflow
    async def step(sdk: RuntaraSdk, key: str, number: int) -> None:
        with gauge.one(key, f"{key}{number}"):
            await trio.sleep(0.001)

    queue = Queue("default", key_limit=1)
    async with open_client(backend, tenant_id="t") as client:
        starts = [Start(args=(key, n), key=key) for n in range(8) for key in "abcd"]
        handles = await client.start_many(step, starts)
        async with (
            open_worker(backend, [step], queues=[queue], slots=5),
            open_worker(backend, [step], slots=5),
        ):
            for one in handles:
                await one.result(timeout=30)
    assert max(gauge.most.values()) == 1
    for key in "abcd":
        assert [one for one in gauge.order if one[0] == key] == [f"{key}{n}" for n in range(8)]


@pytest.mark.parametrize("act", ["cancel", "pause", "open a block"])
async def test_the_next_of_a_key_does_not_come(
    backend: SharedBackend, operator: Operator, act: str
) -> None:
    """It was made ready and nobody has taken it: the one behind it is next."""

    @workflow
    async def send(sdk: RuntaraSdk) -> None: ...

    asked = ClaimRuns(queues=("default",), workflows=(("send", 1),), limit=10)
    async with open_client(backend, tenant_id="t") as client:
        await client.set_queue(Queue("default", key_limit=1))
        for id in ("a", "b", "c"):
            await client.start(send, id=id, key="k")
        (first,) = (await backend.request(asked)).runs
        await backend.request(
            RecordOutcome(instance_id="a", lease=first.lease, status=InstanceStatus.COMPLETED)
        )
        async with AsyncExitStack() as stack:
            match act:
                case "cancel":
                    await operator.cancel("b")
                case "pause":
                    await operator.pause("b")
                case _:
                    await stack.enter_async_context(
                        open_runtara(backend, instance_id="b", tenant_id="t")
                    )
        assert [one.instance_id for one in (await backend.request(asked)).runs] == ["c"]


async def test_a_busy_key_is_not_looked_through(backend: SharedBackend, gauge: Gauge) -> None:
    @workflow
    async def step(sdk: RuntaraSdk, name: str) -> None:
        gauge.order.append(name)
        if name.startswith("busy"):
            await gauge.go.wait()

    queue = Queue("default", key_limit=1)
    async with (
        open_client(backend, tenant_id="t") as client,
        open_worker(backend, [step], queues=[queue], slots=10),
    ):
        starts = [Start(args=(f"busy {n}",), key="busy") for n in range(50)]
        busy = await client.start_many(step, starts)
        await until(lambda: len(gauge.order) == 1)
        free = await client.start(step, "free", key="free")
        await free.result(timeout=30)
        (info,) = await client.list_queues()
        assert (info.behind, info.ready) == (49, 0)
        assert gauge.order == ["busy 0", "free"]
        run = (await busy[7].show()).summary.run
        assert run is not None
        assert run.state is RunState.BEHIND
        await busy[7].cancel()
        gauge.go.set()
        for one in busy[:7] + busy[8:]:
            await one.result(timeout=30)
        assert len(gauge.order) == 50


async def test_an_interrupted_run_keeps_the_turn_of_its_key(
    backend: SharedBackend, gauge: Gauge
) -> None:
    @durable
    async def note(name: str) -> None:
        gauge.order.append(name)

    @workflow
    async def step(sdk: RuntaraSdk, name: str) -> None:
        await note(f"{name} begins")
        await sdk.wait_for_signal("go")
        await note(f"{name} ends")

    queue = Queue("default", key_limit=1)
    async with open_client(backend, tenant_id="t") as client:
        first = await client.start(step, "first", key="k", id="first")
        second = await client.start(step, "second", key="k", id="second", priority=9)
        third = await client.start(step, "third", key="k", id="third")
        async with open_worker(backend, [step], queues=[queue]):
            await until(lambda: bool(gauge.order))
        began = gauge.order[0].split()[0]
        assert began == "second"  # of those that had not begun, the higher priority
        async with open_worker(backend, [step], queues=[queue], max_loaded=1):
            for name, handle in (("second", second), ("first", first), ("third", third)):
                await until(lambda name=name: f"{name} begins" in gauge.order)
                await handle.signal("go")
                await handle.result(timeout=30)
    assert gauge.order == [
        f"{name} {what}" for name in ("second", "first", "third") for what in ("begins", "ends")
    ]


async def test_a_pause_and_a_backoff_give_the_turn_away(
    backend: SharedBackend, operator: Operator, gauge: Gauge
) -> None:
    @workflow(max_attempts=2, retry_delay=0.2)
    async def step(sdk: RuntaraSdk, name: str) -> None:
        gauge.order.append(name)
        if name == "paused":
            await sdk.wait_for_signal("never")
        if name == "fails" and gauge.order.count("fails") == 1:
            raise OSError("away")

    queue = Queue("default", key_limit=1)
    async with (
        open_client(backend, tenant_id="t") as client,
        open_worker(backend, [step], queues=[queue]),
    ):
        paused = await client.start(step, "paused", key="k")
        await until(lambda: bool(gauge.order))
        fails = await client.start(step, "fails", key="k")
        last = await client.start(step, "last", key="k")
        await paused.pause()
        await fails.result(timeout=30)
        await last.result(timeout=30)
        assert gauge.order == ["paused", "fails", "last", "fails"]
        assert await paused.status() is InstanceStatus.SUSPENDED


async def test_waiting_gives_the_place_back(backend: SharedBackend, gauge: Gauge) -> None:
    """One that goes on takes it again, ahead of those that have not begun."""

    @workflow
    async def waits(sdk: RuntaraSdk) -> None:
        with gauge.one("work", "waits"):
            pass
        await sdk.wait_for_signal("go")
        with gauge.one("work", "goes on"):
            await trio.sleep(0.01)

    @workflow
    async def works(sdk: RuntaraSdk, number: int) -> None:
        with gauge.one("work", "works"):
            if number == 0:
                await gauge.go.wait()

    queue = Queue("default", limit=1)
    async with (
        open_client(backend, tenant_id="t") as client,
        open_worker(backend, [waits, works], queues=[queue]),
    ):
        handle = await client.start(waits)
        await until(lambda: gauge.order == ["waits"])
        others = [await client.start(works, 0)]
        await until(lambda: gauge.order == ["waits", "works"])  # its place is free by now
        others += [await client.start(works, n) for n in range(1, 5)]
        await handle.signal("go")
        await until_wanting(client, 1)
        assert gauge.order == ["waits", "works"]
        gauge.go.set()
        await handle.result(timeout=30)
        for one in others:
            await one.result(timeout=30)
    assert gauge.most["work"] == 1
    assert gauge.order[2] == "goes on"


def test_a_wait_that_the_body_cancels_takes_a_place_again() -> None:
    gauge = Gauge()

    @workflow
    async def hurries(sdk: RuntaraSdk) -> None:
        with trio.move_on_after(10):
            await sdk.wait_for_signal("never")
        with gauge.one("work", "goes on"):
            await trio.sleep(1)

    @workflow
    async def works(sdk: RuntaraSdk) -> None:
        with gauge.one("work", "works"):
            await trio.sleep(20)

    async def main() -> None:
        queue = Queue("default", limit=1)
        async with (
            memory_backend() as backend,
            open_client(backend, tenant_id="t") as client,
            open_worker(backend, [hurries, works], queues=[queue]),
        ):
            handle = await client.start(hurries)
            await trio.sleep(5)
            other = await client.start(works)
            await trio.sleep(10)
            assert gauge.order == ["works"]
            await until_wanting(client, 1)
            await other.result()
            await handle.result()

    trio.run(main, clock=MockClock(autojump_threshold=0))
    assert gauge.most["work"] == 1


async def test_a_queue_stands_still(backend: SharedBackend, operator: Operator) -> None:
    @workflow
    async def quick(sdk: RuntaraSdk) -> str:
        return "done"

    async with (
        open_client(backend, tenant_id="t") as client,
        open_worker(backend, [quick], queues=["default", "slow"]),
    ):
        await operator.pause_queue("slow")
        slow = await client.start(quick, queue="slow")
        assert await (await client.start(quick)).result(timeout=30) == "done"
        assert await slow.status() is InstanceStatus.PENDING
        found = {one.queue.name: one.paused for one in await client.list_queues()}
        assert found["slow"] is True
        await client.resume_queue("slow")
        assert await slow.result(timeout=30) == "done"
        with pytest.raises(SdkError, match="no queue 'nobody' is stored"):
            await client.resume_queue("nobody")


async def test_changed_while_they_run(backend: SharedBackend, gauge: Gauge) -> None:
    @workflow
    async def send(sdk: RuntaraSdk) -> None:
        with gauge.one("now"):
            await gauge.go.wait()

    async with (
        open_client(backend, tenant_id="t") as client,
        open_worker(backend, [send]),
    ):
        first = await client.start_many(send, [Start(args=()) for _ in range(3)])
        await until(lambda: gauge.now["now"] == 3)
        await client.set_queue(Queue("default", limit=4))
        more = await client.start_many(send, [Start(args=()) for _ in range(10)])
        await until(lambda: gauge.now["now"] == 4)
        await client.set_queue(Queue("default", limit=6))
        await until(lambda: gauge.now["now"] == 6)
        gauge.go.set()
        for one in first + more:
            await one.result(timeout=30)
    assert gauge.most["now"] == 6


async def test_limited_while_a_run_waits(backend: SharedBackend) -> None:
    """A run that began without a limit gives its place back all the same: else its child, of the
    same queue, would never be taken."""

    @workflow
    async def child(sdk: RuntaraSdk) -> str:
        return (await sdk.wait_for_signal("go")).decode()

    @workflow
    async def parent(sdk: RuntaraSdk) -> str:
        await sdk.wait_for_signal("begin")
        return await sdk.call(child, name="c")

    async with (
        open_client(backend, tenant_id="t") as client,
        open_worker(backend, [parent, child]),
    ):
        handle = await client.start(parent, id="p")
        with trio.fail_after(30):
            while await handle.status() is not InstanceStatus.RUNNING:
                await trio.sleep(0.01)
        await client.set_queue(Queue("default", limit=1))
        await handle.signal("begin", b"")
        with trio.fail_after(30):
            while not await client.count(parent_id="p"):
                await trio.sleep(0.01)
        await client.get("p/c").signal("go", b"there")
        assert await handle.result(timeout=30) == "there"


def test_a_rate() -> None:
    """So many in any window; one that goes on is not counted; it holds over a restart."""
    begun: list[float] = []

    @workflow
    async def send(sdk: RuntaraSdk) -> None:
        if await sdk.get_checkpoint("began") is None:
            begun.append(trio.current_time())
            await sdk.checkpoint("began", b"1")
            await sdk.sleep(100, "nap")

    async def main() -> None:
        async with memory_backend() as backend, open_client(backend, tenant_id="t") as client:
            starts = [Start(args=()) for _ in range(25)]
            handles = await client.start_many(send, starts)
            queue = Queue("default", rate=Rate(10, per=60))
            async with open_worker(backend, [send], queues=[queue], max_loaded=1, slots=3):
                await trio.sleep(30)
            async with open_worker(backend, [send], max_loaded=1, slots=3):
                for one in handles:
                    await one.result()

    trio.run(main, clock=MockClock(autojump_threshold=0))
    assert len(begun) == 25
    for number, time in enumerate(begun[10:], start=10):
        assert time - begun[number - 10] >= 60


async def test_a_rate_whose_clock_is_set_back(backend: SharedBackend) -> None:
    """What has begun by a later time counts as begun now: the queue is not closed until then."""

    @workflow
    async def send(sdk: RuntaraSdk) -> None: ...

    queue = Queue("default", rate=Rate(1, per=1.5))
    async with (
        open_client(backend, tenant_id="t") as client,
        open_worker(backend, [send], queues=[queue]),
    ):
        await (await client.start(send)).result(timeout=30)
        assert await sql(backend, "SELECT count(*) FROM runtara_trio_begins") == [(1,)]
        await sql(backend, "UPDATE runtara_trio_begins SET began_us = began_us + 3600000000")
        await (await client.start(send)).result(timeout=30)


def test_a_fork_counts_for_the_rate() -> None:
    """It has a past, and begins all the same."""
    begun: list[float] = []

    @workflow
    async def send(sdk: RuntaraSdk) -> None:
        begun.append(trio.current_time())
        await sdk.checkpoint("sent", b"1")

    async def main() -> None:
        async with memory_backend() as backend, open_client(backend, tenant_id="t") as client:
            async with open_worker(backend, [send], queues=[Queue("default", rate=Rate(1, 60))]):
                await (await client.start(send, id="a")).result()
                for number in range(3):
                    await Operator(backend).fork("a", f"fork {number}")
                for number in range(3):
                    await client.get(f"fork {number}").result()

    trio.run(main, clock=MockClock(autojump_threshold=0))
    assert len(begun) == 4
    assert all(later - earlier >= 60 for earlier, later in itertools.pairwise(begun))


@pytest.mark.parametrize(
    ("queue", "match"),
    [
        (
            Queue("q", limit=0),
            "limit of the queue q must be a whole number from 1 to 1000000, not 0",
        ),
        (Queue("q", per_worker=True), "per_worker of the queue q must be"),
        (Queue("q", key_limit=1.5), "key_limit of the queue q must be"),  # type: ignore[arg-type]
        (Queue(""), "queue is empty"),
        (Queue("q", rate=Rate(0, 1)), "count of the rate of the queue q must be"),
        (Queue("q", rate=Rate(1, 0)), "per of the rate of the queue q must be"),
        (Queue("q", rate=10), "rate of the queue q must be a Rate"),  # type: ignore[arg-type]
        ("q", "a queue must be a Queue"),
    ],
)
async def test_invalid_queues(memory: SharedBackend, queue: Any, match: str) -> None:
    async with open_client(memory, tenant_id="t") as client:
        with pytest.raises(ConfigError, match=match):
            await client.set_queue(queue)
        assert await client.list_queues() == ()


def test_a_claim_goes_on_behind_busy_keys() -> None:
    """Runs that wait hold the turns of their keys, and no places."""
    keys = 8

    @workflow(queue="q")
    async def nap(sdk: RuntaraSdk, seconds: float) -> str:
        await sdk.sleep(seconds, "nap")
        return "done"

    async def main() -> None:
        async with memory_backend() as memory, open_client(memory, tenant_id="t") as client:
            async with open_worker(memory, [nap], queues=[Queue("q", limit=1, key_limit=1)]):
                await client.start_many(
                    nap, [Start(args=(1000.0,), key=f"k{number}") for number in range(keys)]
                )
                await trio.sleep(3 * keys)  # each has begun, and has waited for a while
                await client.start_many(
                    nap, [Start(args=(0.0,), key=f"k{number}") for number in range(keys)]
                )
                free = await client.start(nap, 0.0, key="k9")
                assert await free.result(timeout=5) == "done"

    trio.run(main, clock=MockClock(autojump_threshold=0))


async def test_no_more_work_than_there_are_slots(backend: SharedBackend, gauge: Gauge) -> None:
    @workflow
    async def work(sdk: RuntaraSdk) -> None:
        for number in range(5):
            await sdk.sleep(0.001, f"s{number}")
            with gauge.one("all"):
                for _ in range(10):
                    await trio.lowlevel.checkpoint()

    async with (
        open_client(backend, tenant_id="t") as client,
        open_worker(backend, [work], slots=2),
    ):
        handles = await client.start_many(work, [Start(args=())] * 20)
        for handle in handles:
            await handle.result(timeout=60)
    assert 1 <= gauge.most["all"] <= 2
