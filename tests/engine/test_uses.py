"""An id of a sleep, a wait or a deadline is used once in a run."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from runtara_trio import CodecError, Operator, RuntaraSdk, SdkError, SharedBackend, durable

from ..helpers.support import block

SECOND = "is used a second time in one run: .* put what differs into the id"


async def sleeps(sdk: RuntaraSdk) -> None:
    await sdk.sleep(1, "it")


async def waits(sdk: RuntaraSdk) -> None:
    await sdk.wait_for_signal("it")


async def waits_in_vain(sdk: RuntaraSdk) -> None:
    with contextlib.suppress(trio.TooSlowError):
        await sdk.wait_for_signal("other", timeout=1)


async def has_a_deadline(sdk: RuntaraSdk) -> None:
    async with sdk.deadline("it", 10):
        await trio.sleep(1)


async def misses_a_deadline(sdk: RuntaraSdk) -> None:
    async with sdk.deadline("it", 1):
        await trio.sleep_forever()


async def fails_under_a_deadline(sdk: RuntaraSdk) -> None:
    try:
        async with sdk.deadline("it", 10):
            raise ValueError("not the deadline's affair")
    except ValueError:
        pass


Use = Callable[[RuntaraSdk], Awaitable[None]]
EVERY = [
    sleeps,
    waits,
    waits_in_vain,
    has_a_deadline,
    misses_a_deadline,
    fails_under_a_deadline,
]
every = pytest.mark.parametrize("use", EVERY)


@pytest.fixture
async def sdk_backend(memory: SharedBackend) -> SharedBackend:
    """A backend whose instance has a signal."""
    async with block(memory) as sdk:
        await Operator(memory).send_signal("i", "it", b"1")
        await sdk.suspended()
    return memory


@every
async def test_in_a_loop(autojump_clock: MockClock, sdk_backend: SharedBackend, use: Use) -> None:
    async with block(sdk_backend) as sdk:
        await use(sdk)
        for _ in range(2):
            with pytest.raises(SdkError, match=SECOND):
                await use(sdk)


@pytest.mark.parametrize("use", [sleeps, waits_in_vain, has_a_deadline, misses_a_deadline])
async def test_in_two_tasks(
    autojump_clock: MockClock, sdk_backend: SharedBackend, use: Use
) -> None:
    refused = []
    async with block(sdk_backend) as sdk, trio.open_nursery() as nursery:

        async def one() -> None:
            try:
                await use(sdk)
            except SdkError as exc:
                refused.append(str(exc))

        for _ in range(3):
            nursery.start_soon(one)
    assert len(refused) == 2


@every
async def test_a_replay_is_another_run(
    autojump_clock: MockClock, sdk_backend: SharedBackend, use: Use
) -> None:
    for _ in range(3):
        async with block(sdk_backend) as sdk:
            await use(sdk)
            await sdk.suspended()


async def test_other_ids_other_kinds_and_other_scopes(
    autojump_clock: MockClock, memory: SharedBackend
) -> None:
    async with block(memory) as sdk:
        await sdk.sleep(1, "it")
        await sdk.sleep(1, "it/2")
        with sdk.scope("a"):
            await sdk.sleep(1, "it")
        async with sdk.deadline("it", 5):
            await sdk.checkpoint("mark")
            await sdk.checkpoint("mark")  # keeps its meaning: it is handed back
        async with sdk.map(lambda item: sdk.sleep(1, "it"), [1, 2]) as results:
            async for _ in results:
                pass
        with sdk.scope("a"), pytest.raises(SdkError, match=r"sleep 'a/it' is used a second"):
            await sdk.sleep(1, "it")


async def test_what_was_cancelled_goes_on(autojump_clock: MockClock, memory: SharedBackend) -> None:
    """Looking up from a wait now and then is no second use of it."""
    start = trio.current_time()
    async with block(memory) as sdk, trio.open_nursery() as nursery:
        rounds = 0
        for wait in (
            lambda: sdk.sleep(100, "nap"),
            lambda: sdk.wait_for_signal("go"),
        ):
            done = False
            while not done:
                rounds += 1
                with trio.move_on_after(30):
                    await wait()
                    done = True
                if rounds == 6:
                    nursery.start_soon(Operator(memory).send_signal, "i", "go", b"1")
        assert rounds == 7
    assert trio.current_time() - start == pytest.approx(160, abs=31)


async def test_the_next_attempt_of_a_durable_call_may(
    autojump_clock: MockClock, memory: SharedBackend
) -> None:
    attempts = []

    async with block(memory) as sdk:

        @durable(max_retries=3)
        async def f() -> str:
            attempts.append(trio.current_time())
            await sdk.sleep(10, "inside")
            async with sdk.deadline("all of it", 1000):
                if len(attempts) < 3:
                    raise ConnectionError
            return "done"

        assert await f() == "done"
        with pytest.raises(SdkError, match=SECOND):
            await sdk.sleep(10, "inside")
    assert [after - attempts[0] for after in attempts] == pytest.approx([0, 11, 13], abs=0.01)


async def test_a_wait_that_was_refused_may(
    autojump_clock: MockClock, memory: SharedBackend
) -> None:
    operator = Operator(memory)
    async with block(memory) as sdk:
        await operator.send_signal("i", "count", b"many")
        for _ in range(2):
            with pytest.raises(CodecError):
                await sdk.wait_for_signal("count", type=int)
        await operator.send_signal("i", "count", 3, replace=True)
        assert await sdk.wait_for_signal("count", type=int) == 3


async def test_an_error_names_what_to_do(autojump_clock: MockClock, memory: SharedBackend) -> None:
    async with block(memory) as sdk, trio.open_nursery() as nursery:
        nursery.start_soon(sdk.wait_for_signal, "approve")
        await wait_all_tasks_blocked()
        with pytest.raises(SdkError, match=r"wait for the signal 'approve' .* 'approve/1'"):
            await sdk.wait_for_signal("approve")
        nursery.cancel_scope.cancel()
