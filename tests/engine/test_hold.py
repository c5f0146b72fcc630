"""``on_pause="hold"``: parked tasks stay parked, and a resume lets them go on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from runtara_trio import (
    ConfigError,
    InstanceStatus,
    LeaseLost,
    Operator,
    Outcome,
    RuntaraSdk,
    SharedBackend,
    StoreError,
    current_sdk,
    durable,
    open_backend,
)
from runtara_trio.messages import GoOn, Hold, RecordOutcome
from runtara_trio.types import Signal, SignalType

from ..helpers.support import Watched, block, block_of

pytestmark = pytest.mark.core


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    with trio.fail_after(10):
        while not await condition():
            await trio.sleep(0.01)


async def status(backend: SharedBackend) -> InstanceStatus:
    async with block(backend, "asks", register=False) as sdk:
        return (await sdk.get_instance_status("i")).status


async def when_it_is(backend: SharedBackend, wanted: InstanceStatus) -> None:
    async def is_so() -> bool:
        return await status(backend) is wanted

    await until(is_so)


class Counting:
    """A program that counts, a checkpoint each, and clean-up that writes."""

    def __init__(self, backend: SharedBackend) -> None:
        self.backend = backend
        self.reached = 0
        self.until = 10**9
        self.sdk: RuntaraSdk | None = None
        self.error: BaseException | None = None

    async def run(self, scope: trio.CancelScope, **options: Any) -> None:
        try:
            with scope:
                async with block(self.backend, on_pause="hold", **options) as self.sdk:
                    try:
                        while self.reached < self.until:
                            await self.sdk.checkpoint(f"n/{self.reached}")
                            self.reached += 1
                    finally:
                        with trio.CancelScope(shield=True):
                            await self.sdk.checkpoint("clean-up")
        except Exception as exc:
            self.error = exc

    @asynccontextmanager
    async def held(self, operator: Any, **options: Any) -> AsyncIterator[trio.CancelScope]:
        """The program, held; it must end by the end of the block."""
        scope = trio.CancelScope()
        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(lambda: self.run(scope, **options))
                await self.more()
                await operator.pause("i")
                await when_it_is(self.backend, InstanceStatus.SUSPENDED)
                yield scope

    async def more(self) -> None:
        """Until it has counted on."""
        before = self.reached

        async def is_more() -> bool:
            return self.reached > before + 3

        await until(is_more)

    @property
    def outcome(self) -> Outcome | None:
        assert self.sdk is not None
        return self.sdk.outcome


async def test_a_resume_lets_it_go_on(backend: SharedBackend, operator: Any) -> None:
    program = Counting(backend)
    async with program.held(operator):
        assert program.sdk is not None
        assert program.sdk.pause_requested
        before = program.reached
        await trio.sleep(0.1)
        assert program.reached == before
        await operator.resume("i")
        await program.more()
        assert await status(backend) is InstanceStatus.RUNNING
        assert not program.sdk.pause_requested
        program.until = 0
    assert program.outcome is Outcome.COMPLETED


async def test_it_can_be_held_again(backend: SharedBackend, operator: Any) -> None:
    program = Counting(backend)
    async with program.held(operator):
        for _ in range(2):
            await operator.resume("i")
            await program.more()
            await operator.pause("i")
            await when_it_is(backend, InstanceStatus.SUSPENDED)
        await operator.resume("i")
        await program.more()
        program.until = 0
    assert program.outcome is Outcome.COMPLETED


async def test_a_second_pause_while_held_changes_nothing(
    backend: SharedBackend, operator: Any
) -> None:
    program = Counting(backend)
    async with program.held(operator):
        await operator.pause("i")
        await trio.sleep(0.2)
        assert await status(backend) is InstanceStatus.SUSPENDED
        await operator.resume("i")
        await program.more()
        program.until = 0
    assert program.outcome is Outcome.COMPLETED


async def test_a_cancel_ends_it(backend: SharedBackend, operator: Any) -> None:
    program = Counting(backend)
    async with program.held(operator):
        await operator.cancel("i")
    assert program.outcome is Outcome.CANCELLED
    # Its clean-up could write, unless it is a core's, whose status says so at once.
    assert program.error is None or "got 'cancelled'" in str(program.error)
    assert await status(backend) is InstanceStatus.CANCELLED


async def test_a_scope_around_the_block_ends_it(backend: SharedBackend, operator: Any) -> None:
    program = Counting(backend)
    async with program.held(operator) as scope:
        scope.cancel()
    assert program.outcome is Outcome.STOPPED
    assert program.error is None
    assert await status(backend) is InstanceStatus.SUSPENDED


async def test_a_stop_ends_it(backend: SharedBackend, operator: Any) -> None:
    program = Counting(backend)
    async with program.held(operator):
        assert program.sdk is not None
        block_of(program.sdk).stop("stopped by a test")
    assert program.outcome is Outcome.STOPPED
    assert program.error is None
    async with block(backend) as sdk:  # the pause was carried out: the next start goes on
        await sdk.checkpoint("again")
    assert sdk.outcome is Outcome.COMPLETED


async def test_an_error_of_another_task_ends_it(backend: SharedBackend, operator: Any) -> None:
    fail = trio.Event()

    async def other() -> None:
        await fail.wait()
        raise KeyError("other")

    with pytest.RaisesGroup(pytest.RaisesExc(KeyError), flatten_subgroups=True):
        async with block(backend, on_pause="hold") as sdk, trio.open_nursery() as nursery:
            nursery.start_soon(other)
            nursery.start_soon(sdk.sleep, 3600, "nap")
            await operator.pause("i")
            await when_it_is(backend, InstanceStatus.SUSPENDED)
            fail.set()
    assert sdk.outcome is Outcome.FAILED
    assert await status(backend) is InstanceStatus.FAILED


async def test_a_task_that_is_not_parked_writes_after_the_hold(
    backend: SharedBackend, operator: Any
) -> None:
    go = trio.Event()
    wrote = trio.Event()

    async def other() -> None:
        await go.wait()
        await sdk.custom_event("written")
        wrote.set()

    async with block(backend, on_pause="hold") as sdk, trio.open_nursery() as nursery:
        nursery.start_soon(other)
        nursery.start_soon(sdk.wait_for_signal, "never")
        await operator.pause("i")
        await when_it_is(backend, InstanceStatus.SUSPENDED)
        go.set()
        await trio.sleep(0.1)
        assert not wrote.is_set()
        await operator.resume("i")
        with trio.fail_after(20):
            await wrote.wait()
        nursery.cancel_scope.cancel()
    assert sdk.outcome is Outcome.COMPLETED


async def test_a_signal_that_comes_while_held_is_taken_after(
    backend: SharedBackend, operator: Any
) -> None:
    got = []

    async def wait() -> None:
        got.append(await sdk.wait_for_signal("approve"))

    async with block(backend, on_pause="hold") as sdk, trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await operator.pause("i")
        await when_it_is(backend, InstanceStatus.SUSPENDED)
        await operator.send_signal("i", "approve", b"yes")
        await trio.sleep(0.1)
        assert got == []
        await operator.resume("i")
    assert got == [b"yes"]
    assert sdk.outcome is Outcome.COMPLETED


async def test_a_wrong_value_is_refused(memory: SharedBackend) -> None:
    with pytest.raises(ConfigError, match="on_pause must be 'suspend' or 'hold', not 'wait'"):
        block(memory, on_pause="wait")


async def test_the_grace_ends_what_reaches_no_boundary(
    autojump_clock: MockClock, memory: SharedBackend
) -> None:
    start = trio.current_time()
    async with block(memory, on_pause="hold", pause_grace=7) as sdk:
        await Operator(memory).pause("i")
        await trio.sleep_forever()
    assert sdk.outcome is Outcome.PAUSED
    assert trio.current_time() - start == pytest.approx(7)


async def test_steps_end_first_and_nested_ones_wait(
    autojump_clock: MockClock, memory: SharedBackend
) -> None:
    done = []

    @durable
    async def inner(seconds: float) -> None:
        await trio.sleep(seconds)
        done.append(seconds)

    @durable
    async def outer() -> None:
        async with current_sdk().open_nursery() as nursery:
            nursery.start_soon(inner, 5)
            nursery.start_soon(inner, 9)

    async def operate() -> None:
        await trio.sleep(1)
        await Operator(memory).pause("i")
        await trio.sleep(100)
        assert done == [5, 9]
        assert (await Operator(memory).show("i")).summary.status == "suspended"
        await Operator(memory).resume("i")

    start = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(operate)
        async with block(memory, on_pause="hold") as sdk:
            await outer()
            await inner(3)
    assert sdk.outcome is Outcome.COMPLETED
    assert trio.current_time() - start == pytest.approx(104)


async def test_a_pause_beside_the_end_changes_nothing(
    autojump_clock: MockClock, memory: SharedBackend
) -> None:
    """The body says that it has completed while another task parks for a pause."""
    watched = Watched(memory)
    slow = trio.Event()
    watched.before = lambda message: slow if isinstance(message, RecordOutcome) else None

    async with trio.open_nursery() as nursery, open_backend(watched) as shared:
        async with block(shared, on_pause="hold") as sdk, trio.open_nursery() as tasks:
            tasks.start_soon(sdk.wait_for_signal, "never")
            await trio.testing.wait_all_tasks_blocked()
            tasks.start_soon(sdk.completed, "done")
            await trio.testing.wait_all_tasks_blocked()
            watched.push(_batch(Signal(SignalType.PAUSE, b"pause")))
            await trio.sleep(1)
            slow.set()
            await trio.sleep(1)
            tasks.cancel_scope.cancel()
        nursery.cancel_scope.cancel()
    assert sdk.outcome is Outcome.COMPLETED
    assert not watched.sent(Hold)


async def test_a_scope_around_reaches_what_is_parked_in_a_shield(
    autojump_clock: MockClock, memory: SharedBackend
) -> None:
    with trio.move_on_after(20) as around:
        async with block(memory, on_pause="hold") as sdk:
            with trio.CancelScope(shield=True):
                await Operator(memory).pause("i")
                await trio.sleep(1)
                await sdk.check_paused()
            await trio.sleep_forever()
    assert around.cancelled_caught
    assert sdk.outcome is Outcome.STOPPED
    assert trio.current_time() < 30


async def test_reads_do_not_keep_a_hold_waiting(
    autojump_clock: MockClock, memory: SharedBackend
) -> None:
    async def reads() -> None:
        while True:
            await sdk.get_status()
            await trio.sleep(0.001)

    async with block(memory, on_pause="hold") as sdk, trio.open_nursery() as nursery:
        nursery.start_soon(reads)
        nursery.start_soon(reads)
        nursery.start_soon(sdk.sleep, 3600, "nap")
        await Operator(memory).pause("i")
        await trio.sleep(1)
        assert (await sdk.get_status()).status == "suspended"
        await Operator(memory).cancel("i")
    assert sdk.outcome is Outcome.CANCELLED


class Faulty:
    """What a backend that fails does to a hold."""

    @staticmethod
    async def run(memory: SharedBackend, before: Callable[[Any], Any]) -> RuntaraSdk:
        """A hold of 10 s that a resume ends."""
        watched = Watched(memory)
        watched.before = before

        async def operate() -> None:
            await trio.sleep(1)
            for kind in (SignalType.PAUSE, SignalType.RESUME):
                await (Operator(memory).pause if kind == "pause" else Operator(memory).resume)("i")
                signal = Signal(kind, kind.encode())
                watched.push(_batch(signal))
                await trio.sleep(10)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(operate)
            async with open_backend(watched) as shared:
                async with block(shared, on_pause="hold") as sdk:
                    await sdk.sleep(5, "nap")
                    await sdk.checkpoint("after")
            nursery.cancel_scope.cancel()
        return sdk


def _batch(signal: Signal) -> Any:
    from runtara_trio.backend import SignalBatch

    _batch.version = getattr(_batch, "version", 1000) + 1  # type: ignore[attr-defined]
    return SignalBatch(signals=(("i", signal),), version=_batch.version)  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", [Hold, GoOn])
async def test_a_backend_that_fails_is_asked_again(
    autojump_clock: MockClock, memory: SharedBackend, kind: type[Any]
) -> None:
    failures = iter([StoreError("locked", transient=True)] * 3)
    sdk = await Faulty.run(
        memory, lambda message: next(failures, None) if isinstance(message, kind) else None
    )
    assert sdk.outcome is Outcome.COMPLETED


@pytest.mark.parametrize("kind", [Hold, GoOn])
async def test_a_lease_that_is_lost_meanwhile(
    autojump_clock: MockClock, memory: SharedBackend, kind: type[Any]
) -> None:
    with pytest.RaisesGroup(LeaseLost, flatten_subgroups=True):
        await Faulty.run(
            memory, lambda message: LeaseLost("i") if isinstance(message, kind) else None
        )
