"""How an outcome gets recorded, whatever fails meanwhile."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock

from runtara_trio import (
    LeaseLost,
    Operator,
    Outcome,
    OutcomeNotRecorded,
    SdkError,
    ServerError,
    SharedBackend,
    StoreError,
    Unreachable,
    open_backend,
)
from runtara_trio.messages import RecordOutcome

from ..helpers.support import Unanswered, Watched, block


async def test_an_outcome_that_cannot_be_recorded(autojump_clock: MockClock) -> None:
    async with open_backend(":memory:") as memory:
        watched = Watched(memory)
        async with open_backend(watched) as shared:
            with pytest.raises(OutcomeNotRecorded, match="within 3 s: the disk is full"):
                async with block(shared, final_timeout=3) as sdk:
                    watched.before = lambda message: (
                        StoreError("the disk is full", transient=True)
                        if isinstance(message, RecordOutcome)
                        else None
                    )
            assert sdk.outcome is None
            mine = ValueError("mine")
            with pytest.raises(ValueError, match="mine") as caught:
                async with block(shared, "j", final_timeout=3):
                    raise mine
            assert caught.value is mine
            assert "could not be recorded" in caught.value.__notes__[0]


async def test_a_short_trouble_does_not_lose_the_outcome(
    autojump_clock: MockClock,
) -> None:
    async with open_backend(":memory:") as memory:
        watched = Watched(memory)
        async with open_backend(watched) as shared, block(shared) as sdk:
            troubles = [StoreError("locked", transient=True)] * 3
            watched.before = lambda message: (
                troubles.pop() if isinstance(message, RecordOutcome) and troubles else None
            )
        assert sdk.outcome is Outcome.COMPLETED
        assert not troubles


async def test_an_outcome_whose_answer_was_lost_is_what_it_was(
    autojump_clock: MockClock,
) -> None:
    """``completed`` timed out, but had been carried out: the block ends as completed."""
    async with open_backend(":memory:") as memory:
        async with open_backend(Unanswered(memory)) as shared:
            with pytest.raises(OutcomeNotRecorded, match="no answer"):
                async with block(shared, final_timeout=1) as sdk:
                    await sdk.completed(b"x")
    assert sdk.outcome is Outcome.COMPLETED


@pytest.mark.parametrize("how", ["returns", "completed", "suspended"])
async def test_an_outcome_that_is_sent_again_after_its_answer_was_lost(
    autojump_clock: MockClock, memory: SharedBackend, how: str
) -> None:
    class Lossy(Watched):
        lost = False

        async def request(self, message: Any, /) -> Any:
            reply = await super().request(message)
            if isinstance(message, RecordOutcome) and not self.lost:
                self.lost = True
                raise Unreachable("the answer was lost")
            return reply

    async with open_backend(Lossy(memory)) as shared, block(shared) as sdk:
        if how == "completed":
            await sdk.completed(b"x")
        elif how == "suspended":
            await sdk.suspended()
    assert sdk.outcome is (Outcome.PAUSED if how == "suspended" else Outcome.COMPLETED)


async def test_another_error_in_the_recording_is_a_note_too(memory: SharedBackend) -> None:
    watched = Watched(memory)
    watched.before = lambda message: (
        ServerError("instance_event", "INSTANCE_EVENT_ERROR", "database error")
        if isinstance(message, RecordOutcome)
        else None
    )
    mine = KeyError("mine")
    async with open_backend(watched) as shared:
        with pytest.raises(KeyError) as caught:
            async with block(shared):
                raise mine
    assert caught.value is mine
    assert "database error" in mine.__notes__[0]


def takes_no_outcome(backend: SharedBackend, times: int) -> Watched:
    """A backend that fails to record an outcome so often."""
    watched = Watched(backend)
    troubles = [StoreError("the disk is full", transient=True)] * times
    watched.before = lambda message: (
        troubles.pop() if isinstance(message, RecordOutcome) and troubles else None
    )
    return watched


async def test_an_outcome_that_was_not_recorded_is_recorded_later(
    autojump_clock: MockClock, memory: SharedBackend
) -> None:
    """Or the instance would be busy as long as the backend is open."""
    watched = takes_no_outcome(memory, 30)
    async with open_backend(watched) as shared:
        with pytest.raises(ValueError, match="mine") as caught:
            async with block(shared, final_timeout=1):
                raise ValueError("mine")
        assert caught.value.__notes__
        while (await Operator(memory).show("i")).summary.held:
            await trio.sleep(1)
        assert (await Operator(memory).show("i")).summary.status == "failed"


async def test_a_cancel_that_comes_before_it_is_recorded_stands(
    autojump_clock: MockClock, memory: SharedBackend
) -> None:
    """Or the instance would be held for ever: what is recorded gives way to the cancel."""
    watched = takes_no_outcome(memory, 30)
    operator = Operator(memory)
    async with open_backend(watched) as shared:
        with pytest.raises(ValueError, match="mine"):
            async with block(shared, final_timeout=1):
                raise ValueError("mine")
        await operator.cancel("i")
        with trio.fail_after(60):
            while (await operator.show("i")).summary.held:
                await trio.sleep(1)
        summary = (await operator.show("i")).summary
    assert (summary.status, summary.signal) == ("cancelled", None)


async def test_a_write_refused_after_an_unconfirmed_end_does_not_make_it_lost(
    autojump_clock: MockClock, memory: SharedBackend
) -> None:
    async with open_backend(Unanswered(memory)) as shared, block(shared, final_timeout=1) as sdk:
        with pytest.raises(SdkError, match="no answer"):
            await sdk.completed(b"x")
        with pytest.raises(LeaseLost):
            await sdk.checkpoint("late")
    assert sdk.outcome is Outcome.COMPLETED
