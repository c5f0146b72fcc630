"""Scopes, nurseries and maps: paths that are the same in every run."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from runtara_trio import (
    ConfigError,
    Operator,
    Outcome,
    RuntaraSdk,
    SdkError,
    SharedBackend,
    current_sdk,
    durable,
    open_backend,
    open_runtara,
)
from runtara_trio.messages import GetCheckpoint, ReadCheckpoints

from ..helpers.support import Watched, block
from ..helpers.support import checkpoint_ids as ids


@durable
async def work(n: int) -> int:
    return n


class TestScopes:
    async def test_every_verb_is_below_the_path(self, memory: SharedBackend) -> None:
        async with block(memory) as sdk:
            await Operator(memory).send_signal("i", "ship/signal", b"yes")
            with sdk.scope("ship"):
                assert (await sdk.checkpoint("a", b"1")).checkpoint_id == "ship/a"
                assert await sdk.get_checkpoint("a") == b"1"
                await sdk.sleep(0, "nap")
                assert await sdk.wait_for_signal("signal") == b"yes"
                async with sdk.deadline("soon", 60):
                    pass
                async with sdk.step("step"):
                    assert sdk.step_key == "i/ship/step"
                await work(7)
                with sdk.scope("a/b%"):
                    await sdk.checkpoint("c/d")
            await sdk.checkpoint("a", b"2")
            assert await sdk.get_checkpoint("ship/a") == b"1"
        assert await ids(memory) == [
            "a",
            "runtara_trio::deadline::ship/soon",
            "runtara_trio::ended::ship/soon",
            "runtara_trio::signal::ship/signal",
            "runtara_trio::wake::ship/nap",
            "ship/a",
            "ship/a%2Fb%25/c%2Fd",
            "ship/durable::work::[7]",
            "ship/nap",
        ]

    async def test_no_two_paths_meet(self, memory: SharedBackend) -> None:
        async with block(memory) as sdk:
            for outer, inner, name in (
                ("a", "b", "c"),
                ("a", "b/c", ""),
                ("a/b", "c", ""),
                ("a%2Fb", "c", ""),
                ("a", "b", "c/"),
                ("nursery:0", "task:0", "c"),
            ):
                with sdk.scope(outer), sdk.scope(inner):
                    assert not (await sdk.checkpoint(name)).found

            async def child() -> None:
                assert not (await sdk.checkpoint("c")).found

            async with sdk.open_nursery() as nursery:
                nursery.start_soon(child)
        assert len(await ids(memory)) == 7

    async def test_one_that_is_open_twice_is_an_error(self, memory: SharedBackend) -> None:
        async with block(memory) as sdk:
            with sdk.scope("a"):
                with sdk.scope("a"):  # below itself is another place
                    pass
            with sdk.scope("a"):  # again is the same work
                pass

            async def child(started: Any = None, *, task_status: Any = None) -> None:
                with sdk.scope("b"):
                    if task_status:
                        task_status.started()
                        await trio.sleep_forever()

            async with trio.open_nursery() as nursery:
                await nursery.start(child)
                with pytest.raises(SdkError, match="'b' is open already"):
                    await child()
                nursery.cancel_scope.cancel()

    async def test_also_from_inside_two_durable_calls(self, memory: SharedBackend) -> None:
        @durable(max_retries=0)
        async def call(n: int) -> None:
            with current_sdk().scope("same"):
                await trio.sleep(0.01)

        async with block(memory):
            with pytest.RaisesGroup(pytest.RaisesExc(SdkError, match="'same' is open already")):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(call, 1)
                    nursery.start_soon(call, 2)

    @pytest.mark.parametrize("name", ["", 7, "a\0", "\ud800"])
    async def test_a_name_that_is_none(self, memory: SharedBackend, name: Any) -> None:
        async with block(memory) as sdk:
            with pytest.raises(ConfigError, match="name"):
                sdk.scope(name)

    async def test_a_block_inside_a_scope_of_another_has_its_own_root(
        self, memory: SharedBackend
    ) -> None:
        async with block(memory, "outer") as outer:
            with outer.scope("a"):
                async with block(memory) as sdk:
                    await sdk.checkpoint("b")
                await outer.checkpoint("c")
        assert await ids(memory) == ["b"]

    async def test_each_block_around_a_task_has_a_path(self, memory: SharedBackend) -> None:
        async with block(memory) as outer:
            with outer.scope("a"):
                async with block(memory, "inner") as inner:
                    with inner.scope("b"):
                        await outer.checkpoint("c")
        assert await ids(memory) == ["a/c"]

    async def test_a_path_that_is_too_long_is_refused(self, memory: SharedBackend) -> None:
        async with block(memory) as sdk:
            with sdk.scope("x" * 1000):
                await work(1)
                with pytest.raises(ConfigError, match="1029 bytes"):
                    await sdk.checkpoint("y" * 28)
        (only,) = await ids(memory)
        assert only.startswith("x" * 900)


async def test_a_scope_in_a_worker_thread(memory: SharedBackend) -> None:
    async with block(memory) as sdk:

        def in_thread() -> str:
            with sdk.scope("thread"):
                result = trio.from_thread.run(sdk.checkpoint, "mark")
                return str(result.checkpoint_id)

        for _ in range(2):
            assert await trio.to_thread.run_sync(in_thread) == "thread/mark"
        with sdk.scope("thread"):
            await sdk.checkpoint("other")
    assert await ids(memory) == ["thread/mark", "thread/other"]


class TestNurseries:
    async def test_paths_by_the_order_of_start_soon(self, memory: SharedBackend) -> None:
        async with block(memory) as sdk:
            for _ in range(2):
                async with sdk.open_nursery() as nursery:
                    nursery.start_soon(work, 1)
                    nursery.start_soon(work, 1)
                    nursery.start_soon(work, 1, name="third")
            async with sdk.open_nursery("named") as nursery:
                nursery.start_soon(work, 1)
        assert await ids(memory) == [
            "named/task:0/durable::work::[1]",
            "nursery:0/task:0/durable::work::[1]",
            "nursery:0/task:1/durable::work::[1]",
            "nursery:0/third/durable::work::[1]",
            "nursery:1/task:0/durable::work::[1]",
            "nursery:1/task:1/durable::work::[1]",
            "nursery:1/third/durable::work::[1]",
        ]

    async def test_they_nest(self, memory: SharedBackend) -> None:
        async def child(depth: int) -> None:
            if depth:
                async with current_sdk().open_nursery() as nursery:
                    nursery.start_soon(child, depth - 1)
                    nursery.start_soon(child, depth - 1)
            else:
                await work(0)

        async with block(memory):
            await child(3)
        assert len(await ids(memory)) == 8

    async def test_another_task_must_name(self, memory: SharedBackend) -> None:
        async with block(memory) as sdk:
            async with sdk.open_nursery() as nursery:

                async def child() -> None:
                    nursery.start_soon(work, 1, name="grandchild")
                    with pytest.raises(SdkError, match=r"'nursery:0' needs name="):
                        nursery.start_soon(work, 1)
                    async with sdk.open_nursery():  # its own place: it opened it
                        pass

                nursery.start_soon(child)

            async def stranger() -> None:
                with pytest.raises(SdkError, match="open_nursery in another task"):
                    async with sdk.open_nursery():
                        pass
                async with sdk.open_nursery("named"):
                    pass

            async with trio.open_nursery() as plain:
                plain.start_soon(stranger)

    async def test_two_siblings_of_one_name_are_an_error_at_once(
        self, memory: SharedBackend
    ) -> None:
        ran = []

        async def child(n: int) -> None:
            ran.append(n)

        async with block(memory) as sdk:
            with pytest.RaisesGroup(pytest.RaisesExc(SdkError, match="have the name 'a'")):
                async with sdk.open_nursery() as nursery:
                    nursery.start_soon(child, 1, name="a")
                    await trio.testing.wait_all_tasks_blocked()
                    nursery.start_soon(child, 2, name="a")
        assert ran == [1]

    async def test_start(self, memory: SharedBackend) -> None:
        async def child(n: int, *, task_status: trio.TaskStatus[int]) -> None:
            await work(n)
            task_status.started(n + 1)
            await work(n + 1)

        async with block(memory) as sdk:
            async with sdk.open_nursery() as nursery:
                assert await nursery.start(child, 1) == 2
                assert await nursery.start(child, 1, name="x") == 2
        assert await ids(memory) == [
            "nursery:0/task:0/durable::work::[1]",
            "nursery:0/task:0/durable::work::[2]",
            "nursery:0/x/durable::work::[1]",
            "nursery:0/x/durable::work::[2]",
        ]

    async def test_an_error_cancels_the_others(
        self, autojump_clock: MockClock, memory: SharedBackend
    ) -> None:
        async def fail() -> None:
            raise KeyError

        with pytest.RaisesGroup(KeyError):
            async with block(memory) as sdk:
                async with sdk.open_nursery() as nursery:
                    nursery.start_soon(trio.sleep_forever)
                    nursery.start_soon(fail)
        assert sdk.outcome is Outcome.FAILED

    @pytest.mark.core
    async def test_a_crash_anywhere_finds_the_same_ids(self, backend: SharedBackend) -> None:
        """Whatever order the tasks run in: it differs from run to run."""
        ran: list[int] = []

        @durable
        async def part(n: int) -> int:
            ran.append(n)
            if len(ran) % 4 == 0:
                stop.cancel()
            return n

        async def child(n: int) -> None:
            await part(n)
            await part(n)

        for _ in range(20):
            with trio.CancelScope() as stop:
                async with block(backend) as sdk:
                    for _ in range(2):
                        async with sdk.open_nursery() as nursery:
                            for n in range(10):
                                nursery.start_soon(child, n)
            if sdk.outcome is Outcome.COMPLETED:
                break
        assert sdk.outcome is Outcome.COMPLETED
        assert sorted(ran) == sorted(2 * list(range(10)))


class TestMap:
    async def test_results_as_they_come(
        self, autojump_clock: MockClock, memory: SharedBackend
    ) -> None:
        async def slow(seconds: float) -> float:
            await trio.sleep(seconds)
            return seconds

        async with block(memory) as sdk:
            async with sdk.map(slow, [3, 1, 2]) as results:
                assert [result async for result in results] == [1, 2, 3]
            async with sdk.map(slow, []) as results:
                assert [result async for result in results] == []

    async def test_a_limit(self, autojump_clock: MockClock, memory: SharedBackend) -> None:
        running = most = 0

        async def slow(n: int) -> int:
            nonlocal running, most
            running += 1
            most = max(most, running)
            await trio.sleep(1)
            running -= 1
            return n

        start = trio.current_time()
        async with block(memory) as sdk:
            async with sdk.map(slow, range(10), limit=3) as results:
                assert sorted([result async for result in results]) == list(range(10))
        assert most == 3
        assert trio.current_time() - start == 4

    @pytest.mark.parametrize("limit", [0, -1, True, 1.5, "3"])
    async def test_a_limit_that_is_none(self, memory: SharedBackend, limit: Any) -> None:
        async with block(memory) as sdk:
            with pytest.raises(ConfigError, match="limit must be a whole number from 1"):
                async with sdk.map(work, [1], limit=limit):
                    pass

    async def test_ids(self, memory: SharedBackend) -> None:
        async with block(memory) as sdk:
            async with sdk.map(work, [7, 7]) as results:
                assert [result async for result in results] == [7, 7]
            async with sdk.map(work, [7, 8], key=lambda n: f"n/{n}", name="named") as results:
                assert sorted([result async for result in results]) == [7, 8]
        assert await ids(memory) == [
            "map:0/item:0/durable::work::[7]",
            "map:0/item:1/durable::work::[7]",
            "named/n%2F7/durable::work::[7]",
            "named/n%2F8/durable::work::[8]",
        ]

    async def test_two_items_of_one_key_are_an_error_at_once(self, memory: SharedBackend) -> None:
        async with block(memory) as sdk:
            with pytest.raises(SdkError, match="two items of a map have the key 'a': 1 and 3"):
                async with sdk.map(work, [1, 2, 3], key=lambda n: "ab"[n == 2]):
                    raise AssertionError("nothing starts")
        assert await ids(memory) == []

    async def test_leaving_early_cancels_the_rest(
        self, autojump_clock: MockClock, memory: SharedBackend
    ) -> None:
        ended = []

        async def slow(n: int) -> int:
            await trio.sleep(n)
            ended.append(n)
            return n

        async with block(memory) as sdk:
            async with sdk.map(slow, [1, 2, 300]) as results:
                async for result in results:
                    if result == 2:
                        break
        assert ended == [1, 2]
        assert sdk.outcome is Outcome.COMPLETED

    async def test_an_error_of_a_call(
        self, autojump_clock: MockClock, memory: SharedBackend
    ) -> None:
        async def slow(n: int) -> int:
            await trio.sleep(n)
            raise KeyError(n)

        async with block(memory) as sdk:
            with pytest.RaisesGroup(KeyError):
                async with sdk.map(slow, [1, 2]) as results:
                    async for _ in results:
                        pass
        assert sdk.outcome is Outcome.COMPLETED

    async def test_no_error_is_lost(self, memory: SharedBackend) -> None:
        """Whoever is the last: Trio runs tasks in another order each time."""

        async def work(n: int) -> int:
            await trio.lowlevel.checkpoint()
            if n == 2:
                await trio.lowlevel.checkpoint()
                raise KeyError(n)
            return n

        async with block(memory) as sdk:
            for _ in range(200):
                with pytest.RaisesGroup(KeyError):
                    async with sdk.map(work, [1, 2]) as results:
                        async for _ in results:
                            pass

    async def test_inside_a_durable_call_the_numbers_are_its_own(
        self, memory: SharedBackend
    ) -> None:
        """A call that is found opens nothing, and one that is tried again opens it again."""
        attempts = []

        @durable(delay=0, key="{city}")
        async def trip(city: str, *, crash: bool) -> list[str]:
            sdk = current_sdk()
            attempts.append(city)

            async def book(what: str) -> str:
                saved = await sdk.checkpoint("booked", f"{what} in {city}")
                return saved.decode(str)

            async with sdk.map(book, ["flight", "hotel"]) as results:
                booked = sorted([result async for result in results])
            async with sdk.open_nursery() as nursery:
                nursery.start_soon(book, "car")
            if crash:
                stop.cancel()
            if len(attempts) == 1:
                raise OSError
            return booked

        for crash in (True, False):
            with trio.CancelScope() as stop:
                async with block(memory):
                    rome = await trip("Rome", crash=False)
                    oslo = await trip("Oslo", crash=crash)
        assert rome == ["flight in Rome", "hotel in Rome"]
        assert oslo == ["flight in Oslo", "hotel in Oslo"]
        assert len([one for one in await ids(memory) if one.endswith("/booked")]) == 6

    async def test_a_replay_reads_pages(self, memory: SharedBackend) -> None:
        count = 10_000
        ran = []

        @durable
        async def part(n: int) -> int:
            ran.append(n)
            return n

        watched = Watched(memory)
        for stop in (True, False):
            watched.requests.clear()
            async with open_backend(watched) as shared, block(shared) as sdk:
                total = 0
                async with sdk.map(part, range(count), limit=64) as results:
                    async for result in results:
                        total += result
                assert total == count * (count - 1) // 2
                if stop:
                    await sdk.suspended()
        assert len(ran) == count
        reads = watched.sent(GetCheckpoint) + [
            one for one in watched.sent(ReadCheckpoints) if not one.ids_only
        ]
        assert len(reads) <= count // 1000 + 1


async def test_a_pause_waits_for_a_map_inside_a_step(
    autojump_clock: MockClock, memory: SharedBackend
) -> None:
    """Who waits for the results of tasks that are parked does not keep the pause."""

    @durable
    async def part(seconds: float) -> float:
        await trio.sleep(seconds)
        return seconds

    @durable
    async def whole() -> float:
        total = 0.0
        async with current_sdk().map(part, [5, 6, 7, 8], limit=2, name="parts") as results:
            async for result in results:
                total += result
        return total

    async def pause() -> None:
        await trio.sleep(1)
        await Operator(memory).pause("i")

    start = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pause)
        async with block(memory, pause_grace=1000) as sdk:
            await whole()
    assert sdk.outcome is Outcome.PAUSED
    assert trio.current_time() - start == pytest.approx(6, abs=0.1)  # what ran has ended
    assert len([one for one in await ids(memory) if "durable::part" in one]) == 2
    async with block(memory) as sdk:
        assert await whole() == 26


@pytest.mark.core
async def test_ten_thousand_is_the_same_everywhere(backend: SharedBackend) -> None:
    """A few hundred here: over QUIC each is a read of its own, many at once."""

    async def program(sdk: RuntaraSdk) -> int:
        total = 0
        async with sdk.map(work, range(300), limit=64) as results:
            async for result in results:
                total += result
        return total

    for _ in range(2):
        async with block(backend) as sdk:
            assert await program(sdk) == 300 * 299 // 2
            await sdk.suspended()


async def test_a_map_collects_errors(memory: SharedBackend) -> None:
    """The others go on, and a replay finds the same."""
    ran: list[int] = []

    @durable(max_retries=0)
    async def half(number: int) -> int:
        ran.append(number)
        if number % 2:
            raise ValueError(f"{number} is odd")
        return number // 2

    for _ in range(2):
        async with open_runtara(memory, instance_id="i", tenant_id="t") as sdk:
            async with sdk.map(half, range(6), on_error="collect", ordered=True) as results:
                found = [one async for one in results]
            assert [one for one in found if not isinstance(one, Exception)] == [0, 1, 2]
            assert [str(one) for one in found[1::2]] == ["1 is odd", "3 is odd", "5 is odd"]
            await sdk.suspended()
    assert sorted(ran) == list(range(6))


async def test_a_map_in_the_order_of_its_items(memory: SharedBackend) -> None:
    async def late(number: int) -> int:
        for _ in range(20 - number):
            await trio.lowlevel.checkpoint()
        return number

    async with open_runtara(memory, instance_id="i", tenant_id="t") as sdk:
        async with sdk.map(late, range(20), limit=4, ordered=True) as results:
            assert [one async for one in results] == list(range(20))
        with pytest.raises(ConfigError, match="on_error must be 'cancel' or 'collect', not 'skip'"):
            async with sdk.map(late, [1], on_error="skip"):  # type: ignore[call-overload]
                pass


async def test_the_first_is_the_first_in_every_replay(memory: SharedBackend) -> None:
    began: list[str] = []
    go = trio.Event()

    @durable
    async def ask(whom: str) -> str:
        began.append(whom)
        if whom == "bank" and not go.is_set():
            await trio.sleep_forever()
        return f"offer of {whom}"

    for _ in range(2):
        async with open_runtara(memory, instance_id="i", tenant_id="t") as sdk:
            found = await sdk.first(partial(ask, "bank"), partial(ask, "broker"))
            assert found == (1, "offer of broker")
            await sdk.suspended()
        go.set()  # now the bank would be faster
    assert sorted(began) == ["bank", "broker"]


async def test_an_error_before_the_first(memory: SharedBackend) -> None:
    async def wrong() -> int:
        raise KeyError("x")

    async with open_runtara(memory, instance_id="i", tenant_id="t") as sdk:
        with pytest.raises(ExceptionGroup) as raised:
            await sdk.first(wrong, trio.sleep_forever)
        assert raised.value.subgroup(KeyError) is not None
        with pytest.raises(ConfigError, match="at least one function"):
            await sdk.first()
