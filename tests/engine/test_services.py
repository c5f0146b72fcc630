"""Services: heartbeats, the warning of a blocked loop, the look for signals, what fails in them."""

from __future__ import annotations

import logging
import re
import time
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from runtara_trio import (
    Operator,
    Outcome,
    SdkConfig,
    SharedBackend,
    Signal,
    SignalType,
    StoreError,
    open_backend,
)
from runtara_trio.backend import SignalBatch
from runtara_trio.engine.services import SharedBackend as Shared
from runtara_trio.messages import Heartbeats, RecordEvent, Register

from ..helpers.support import Watched, block, share_another, sql


@pytest.mark.parametrize("awaits", ["sleep", "signal", "plain", "shield"])
async def test_heartbeats_go_out_whatever_the_body_awaits(
    autojump_clock: MockClock, memory: SharedBackend, awaits: str
) -> None:
    watched = Watched(memory)
    async with open_backend(watched) as shared:
        with trio.move_on_after(100):
            async with block(shared) as sdk:
                if awaits == "sleep":
                    await sdk.sleep(3600, "nap")
                elif awaits == "signal":
                    await sdk.wait_for_signal("never")
                elif awaits == "shield":
                    with trio.CancelScope(shield=True):
                        await trio.sleep(100)
                else:
                    await trio.sleep_forever()
    assert watched.sent(Heartbeats) == [Heartbeats(instance_ids=("i",))] * 3


async def test_one_heartbeat_for_all_instances(
    autojump_clock: MockClock, memory: SharedBackend
) -> None:
    watched = Watched(memory)
    async with open_backend(watched) as shared:

        async def run(name: str) -> None:
            async with block(shared, name):
                await trio.sleep(40)

        async with trio.open_nursery() as nursery:
            for number in range(50):
                nursery.start_soon(run, f"i{number}")
    (beat,) = watched.sent(Heartbeats)
    assert sorted(beat.instance_ids) == sorted(f"i{number}" for number in range(50))
    await trio.sleep(100)
    assert len(watched.sent(Heartbeats)) == 1  # nobody is left


async def test_the_automatic_heartbeat_writes_no_event_and_the_called_one_does(
    autojump_clock: MockClock, memory: SharedBackend
) -> None:
    async with block(memory) as sdk:
        await trio.sleep(100)
        await sdk.heartbeat()
    events = (await Operator(memory).events("i")).events
    assert [event.type for event in events] == ["started", "heartbeat", "completed"]
    ((beat,),) = await sql(memory, "SELECT heartbeat_at FROM runtara_trio_owners")
    assert beat is not None


async def test_no_heartbeats_where_they_are_off(
    autojump_clock: MockClock, memory: SharedBackend
) -> None:
    watched = Watched(memory)
    opening = open_backend(SdkConfig(store=":memory:", heartbeat_interval_ms=0))
    async with opening as shared:
        share_another(shared, watched)
        async with block(shared):
            await trio.sleep(1000)
    assert watched.sent(Heartbeats) == []


@pytest.mark.parametrize("times", [1, 3])
async def test_a_blocked_loop_gets_one_warning_with_the_lag(
    caplog: pytest.LogCaptureFixture, times: int
) -> None:
    config = SdkConfig(store=":memory:", heartbeat_interval_ms=40)
    async with block(config):
        for _ in range(times):
            await trio.testing.wait_all_tasks_blocked()
            time.sleep(0.12)
            await trio.sleep(0.02)
    warnings = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(warnings) == 1
    measured = re.search(r"the Trio loop was blocked for (\S+) s", warnings[0].getMessage())
    assert measured is not None
    assert float(measured[1]) >= 0.1
    assert warnings[0].name == "runtara_trio.services"


async def test_a_short_block_gets_none(caplog: pytest.LogCaptureFixture) -> None:
    config = SdkConfig(store=":memory:", heartbeat_interval_ms=10_000)
    async with block(config):
        time.sleep(0.05)
        await trio.testing.wait_all_tasks_blocked()
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_a_service_that_fails_tries_again_and_leaves_the_body_alone(
    autojump_clock: MockClock, memory: SharedBackend, caplog: pytest.LogCaptureFixture
) -> None:
    watched = Watched(memory)
    failures = [StoreError("locked"), RuntimeError("a mistake")]
    watched.before = lambda message: (
        failures.pop(0) if isinstance(message, Heartbeats) and failures else None
    )
    async with open_backend(watched) as shared, block(shared) as sdk:
        await trio.sleep(100)
        await sdk.checkpoint("a")
    assert sdk.outcome is Outcome.COMPLETED
    assert "heartbeat failed, trying again: locked" in caplog.text
    assert "heartbeat failed, trying again: a mistake" in caplog.text
    assert len(watched.sent(Heartbeats)) == 3


async def test_the_watch_survives_a_failure(
    autojump_clock: MockClock, memory: SharedBackend
) -> None:
    class Failing(Watched):
        failed = False

        async def signals(self) -> Any:
            if not self.failed:
                self.failed = True
                raise StoreError("the disk failed to read it")
            async for batch in super().signals():
                yield batch

    failing = Failing(memory)
    async with open_backend(failing) as shared, block(shared) as sdk:
        failing.push(SignalBatch(signals=(("i", Signal(SignalType.CANCEL)),)))
        await trio.sleep_forever()
    assert sdk.outcome is Outcome.CANCELLED


@pytest.mark.parametrize("kind", [SignalType.PAUSE, SignalType.CANCEL])
async def test_what_was_seen_before_a_block_registered_is_not_for_it(
    autojump_clock: MockClock, memory: SharedBackend, kind: SignalType
) -> None:
    """A look that was slow: the block before has carried it out."""
    watched = Watched(memory)
    seen = Signal(kind, b"1")
    async with open_backend(watched) as shared:
        async with block(shared) as sdk:
            await sdk.suspended()
        watched.push(SignalBatch(signals=(("i", seen),), version=1))
        await trio.testing.wait_all_tasks_blocked()
        async with block(shared) as sdk:
            watched.push(SignalBatch(signals=(("i", seen),), version=1))
            await trio.testing.wait_all_tasks_blocked()
            assert not sdk.pause_requested
            assert not sdk.cancel_requested
            await sdk.checkpoint("a")
    assert sdk.outcome is Outcome.COMPLETED


async def test_what_was_seen_earlier_is_stale(
    autojump_clock: MockClock, memory: SharedBackend
) -> None:
    """A reply with a pause comes after the batch with the resume that withdrew it."""
    watched = Watched(memory)
    async with open_backend(watched) as shared, block(shared) as sdk:
        pause, resume = Signal(SignalType.PAUSE, b"1"), Signal(SignalType.RESUME, b"2")
        for signal_, version in ((resume, 1008), (pause, 1007)):
            watched.push(SignalBatch(signals=(("i", signal_),), version=version))
            await trio.testing.wait_all_tasks_blocked()
        assert not sdk.pause_requested
        watched.push(SignalBatch(signals=(("i", pause),), version=1009))
        await trio.testing.wait_all_tasks_blocked()
        assert sdk.pause_requested


async def test_a_signal_between_the_registration_and_its_answer(memory: SharedBackend) -> None:
    class Slow(Watched):
        async def request(self, message: Any, /) -> Any:
            reply = await super().request(message)
            if isinstance(message, Register):
                await Operator(memory).cancel("i")
                self.push(SignalBatch(signals=(("i", Signal(SignalType.CANCEL)),), version=99))
                await trio.testing.wait_all_tasks_blocked()
            return reply

    async with open_backend(Slow(memory)) as shared:
        with trio.fail_after(10):
            async with block(shared) as sdk:
                await trio.sleep_forever()
    assert sdk.outcome is Outcome.CANCELLED


async def test_signals_of_others_and_repeated_ones_do_nothing(
    autojump_clock: MockClock, memory: SharedBackend
) -> None:
    watched = Watched(memory)
    async with open_backend(watched) as shared, block(shared) as sdk:
        pause = Signal(SignalType.PAUSE, b"1")
        watched.push(
            SignalBatch(
                signals=(("somebody", Signal(SignalType.CANCEL)),),
                hints=(("somebody", "x"), ("i", "nobody waits")),
                lost=(("somebody", 1), ("i", 4711)),
            )
        )
        await trio.testing.wait_all_tasks_blocked()
        assert not sdk.pause_requested
        for _ in range(3):
            watched.push(SignalBatch(signals=(("i", pause),)))
            await trio.testing.wait_all_tasks_blocked()
        assert sdk.pause_requested
    assert sdk.outcome is Outcome.COMPLETED


async def test_services_outlive_the_body(autojump_clock: MockClock) -> None:
    """A body that cleans up for long still has its heartbeats, and can still write."""
    async with open_backend(":memory:") as memory:
        watched = Watched(memory)
        with trio.move_on_after(5):
            async with block(watched) as sdk:
                try:
                    await trio.sleep_forever()
                finally:
                    with trio.CancelScope(shield=True):
                        await trio.sleep(70)
                        await sdk.custom_event("cleaned up")
        assert len(watched.sent(Heartbeats)) == 2
        assert len(watched.sent(RecordEvent)) == 1
        assert sdk.outcome is Outcome.STOPPED


async def test_a_backend_is_shared_by_those_who_ask(memory: SharedBackend) -> None:
    assert isinstance(memory, Shared)
    async with block(memory, "a") as a, block(memory, "b") as b:
        await a.checkpoint("x", b"a")
        await b.checkpoint("x", b"b")
    assert (a.outcome, b.outcome) == (Outcome.COMPLETED, Outcome.COMPLETED)
