"""What ends as what: the table itself, and each of its rows through ``open_runtara``."""

from __future__ import annotations

import signal
from contextlib import suppress
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from runtara_trio import (
    JSON,
    InstanceCancelled,
    InstanceInfo,
    InstancePaused,
    InstanceStatus,
    LeaseLost,
    Operator,
    Outcome,
    RuntaraSdk,
    SdkError,
    SharedBackend,
    SignalRefused,
    SignalType,
    current_sdk,
    open_backend,
    open_runtara,
)
from runtara_trio.engine.outcome import TABLE, Facts, decide, failure_text, manual_signal

from ..helpers.support import block, leave_with, sql

ORDER = [
    Outcome.LOST,
    None,
    Outcome.CANCELLED,
    Outcome.PAUSED,
    Outcome.STOPPED,
    Outcome.STOPPED,
    Outcome.FAILED,
    Outcome.COMPLETED,
]


async def status(backend: SharedBackend) -> InstanceInfo:
    async with open_runtara(backend, instance_id="i", tenant_id="t", register=False) as sdk:
        return await sdk.get_status()


# ---- the pure function


def test_the_rows_stand_in_their_order() -> None:
    assert [row.outcome for row in TABLE] == ORDER


@given(
    st.builds(
        Facts,
        lease_lost=st.booleans(),
        said=st.sampled_from([None, Outcome.COMPLETED, Outcome.CANCELLED]),
        cancelled=st.booleans(),
        paused=st.booleans(),
        stopped=st.sampled_from([None, "why"]),
        error=st.sampled_from([None, ValueError("x")]),
        tried_again=st.booleans(),
    )
)
def test_the_first_row_that_holds_decides(facts: Facts) -> None:
    found = decide(facts).outcome
    if facts.lease_lost:
        assert found is Outcome.LOST
    elif facts.said is not None:
        assert found is facts.said
    elif facts.cancelled:
        assert found is Outcome.CANCELLED
    elif facts.paused:
        assert found is Outcome.PAUSED
    elif facts.stopped or (facts.error and facts.tried_again):
        assert found is Outcome.STOPPED
    elif facts.error:
        assert found is Outcome.FAILED
    else:
        assert found is Outcome.COMPLETED


def test_nothing_is_recorded_twice() -> None:
    assert decide(Facts(lease_lost=True)).recorded is None
    assert decide(Facts(said=Outcome.FAILED, cancelled=True)).recorded is None


def test_failure_text_is_the_type_and_message_a_blank_line_and_the_traceback() -> None:
    try:
        raise ValueError("no \0 in here")
    except ValueError as exc:
        text = failure_text(exc)
    first, blank, rest = text.split("\n", 2)
    assert first == "ValueError: no \\x00 in here"
    assert blank == ""
    assert rest.startswith("Traceback (most recent call last):")


def test_manual_signals_count_alone_or_among_themselves() -> None:
    cancelled, paused = InstanceCancelled(), InstancePaused()
    assert manual_signal(cancelled) == (True, False)
    assert manual_signal(ExceptionGroup("", [paused, paused])) == (False, True)
    assert manual_signal(ExceptionGroup("", [cancelled, paused])) == (True, True)
    assert manual_signal(ExceptionGroup("", [cancelled, ValueError()])) == (False, False)
    assert manual_signal(None) == (False, False)


# ---- row by row


async def test_lost(backend: SharedBackend) -> None:
    """Row 1. Another owner's instance is left alone, whatever the body does."""
    with pytest.raises(LeaseLost):
        async with block(backend) as sdk:
            await take_away(backend)
            with pytest.raises(LeaseLost):
                await sdk.checkpoint("a")
            assert trio.current_effective_deadline() == -float("inf")
    assert sdk.outcome is Outcome.LOST
    assert (await status(backend)).status is InstanceStatus.RUNNING


async def test_lost_with_an_exception_of_the_body(backend: SharedBackend) -> None:
    mine = ValueError("mine")
    with pytest.raises(ValueError, match="mine") as caught:
        async with block(backend) as sdk:
            await take_away(backend)
            try:
                await sdk.checkpoint("a")
            except LeaseLost:
                raise mine from None
    assert caught.value is mine
    assert sdk.outcome is Outcome.LOST


async def test_lost_is_noticed_at_the_end_at_the_latest(backend: SharedBackend) -> None:
    with pytest.raises(LeaseLost):
        async with block(backend) as sdk:
            await take_away(backend)
    assert sdk.outcome is Outcome.LOST


async def take_away(backend: SharedBackend) -> None:
    """What another owner does: the lease row changes under the holder."""
    await sql(backend, "UPDATE runtara_trio_leases SET owner = 'other', epoch = epoch + 1000")


async def test_said_completed(backend: SharedBackend) -> None:
    """Row 2. Recorded at the moment of the call; what comes after does not count."""
    mine = ValueError("too late")
    with pytest.raises(ValueError, match="too late") as caught:
        async with block(backend) as sdk:
            await sdk.completed({"sum": 3})
            assert (await status(backend)).status is InstanceStatus.COMPLETED
            raise mine
    assert caught.value is mine
    assert sdk.outcome is Outcome.COMPLETED
    assert (await status(backend)).output == b'{"sum":3}'


async def test_said_failed_and_suspended(backend: SharedBackend) -> None:
    async with block(backend) as sdk:
        await sdk.suspended("for lunch")
    assert sdk.outcome is Outcome.PAUSED
    async with block(backend) as sdk:
        await sdk.failed("no such item")
    assert sdk.outcome is Outcome.FAILED
    info = await status(backend)
    assert (info.status, info.error) == (InstanceStatus.FAILED, "no such item")


async def test_an_error_text_does_not_go_through_the_codec(backend: SharedBackend) -> None:
    class Backwards:
        def encode(self, value: Any, /) -> bytes:
            return JSON.encode(value)[::-1]

        def decode(self, data: bytes, type: Any, /) -> Any:
            return JSON.decode(data[::-1], type)

    async with block(backend, codec=Backwards()) as sdk:
        await sdk.failed("card was declined")
    assert (await Operator(backend).show("i")).error == "card was declined"


async def test_said_by_acknowledging_a_cancel(backend: SharedBackend) -> None:
    async with block(backend, signals="manual") as sdk:
        await Operator(backend).cancel("i")
        await sdk.acknowledge_signal(SignalType.CANCEL)
        assert (await status(backend)).status is InstanceStatus.CANCELLED
        with pytest.raises(SdkError, match="nothing more can be written"):
            await sdk.checkpoint("a")
    assert sdk.outcome is Outcome.CANCELLED


@pytest.mark.parametrize("verb", ["checkpoint", "heartbeat", "sleep", "completed", "retry"])
async def test_writing_after_the_outcome_is_an_error(backend: SharedBackend, verb: str) -> None:
    async with block(backend) as sdk:
        await sdk.completed()
        calls = {
            "checkpoint": lambda: sdk.checkpoint("a"),
            "heartbeat": sdk.heartbeat,
            "sleep": lambda: sdk.sleep(0, "a"),
            "completed": sdk.completed,
            "retry": lambda: sdk.record_retry_attempt("a", 1),
        }
        with pytest.raises(SdkError, match="nothing more can be written"):
            await calls[verb]()


async def test_cancelled(backend: SharedBackend) -> None:
    """Row 3. The block ends like move_on_after."""
    async with block(backend) as sdk:
        await Operator(backend).cancel("i")
        await trio.sleep_forever()
    assert sdk.outcome is Outcome.CANCELLED
    assert (await status(backend)).status is InstanceStatus.CANCELLED


async def test_a_cancel_that_was_swallowed_stands(backend: SharedBackend) -> None:
    async with block(backend) as sdk:
        await Operator(backend).cancel("i")
        with suppress(trio.Cancelled):
            await trio.sleep_forever()
    assert sdk.outcome is Outcome.CANCELLED


async def test_a_cancel_that_races_the_end_stands(backend: SharedBackend) -> None:
    async with block(backend) as sdk:
        await Operator(backend).cancel("i")  # nothing is awaited after it
    assert sdk.outcome is Outcome.CANCELLED
    assert (await status(backend)).status is InstanceStatus.CANCELLED


@pytest.mark.parametrize("passes", range(8))
async def test_a_resume_that_meets_the_outcome(backend: SharedBackend, passes: int) -> None:
    async def resume() -> None:
        with suppress(SignalRefused):  # where it comes after the end
            await Operator(backend).resume("i")

    async with block(backend) as sdk, trio.open_nursery() as nursery:
        nursery.start_soon(resume)
        for _ in range(passes):
            await trio.lowlevel.checkpoint()
        await sdk.completed(b"x")
    assert sdk.outcome is Outcome.COMPLETED


async def test_an_error_in_the_clean_up_of_a_cancelled_body_leaves_it(
    backend: SharedBackend,
) -> None:
    mine = ValueError("clean-up")
    with pytest.raises(ValueError, match="clean-up") as caught:
        async with block(backend) as sdk:
            try:
                await Operator(backend).cancel("i")  # may be cancelled by itself
                await trio.sleep_forever()
            finally:
                raise mine
    assert caught.value is mine
    assert sdk.outcome is Outcome.CANCELLED


async def test_a_cancel_reaches_a_scope_that_is_cancelled_already(backend: SharedBackend) -> None:
    with trio.CancelScope() as around:
        async with block(backend) as sdk:
            around.cancel()
            with trio.CancelScope(shield=True):
                await Operator(backend).cancel("i")
            await trio.sleep_forever()
    assert sdk.outcome is Outcome.CANCELLED


async def test_paused(backend: SharedBackend) -> None:
    """Row 4."""
    async with block(backend) as sdk:
        await sdk.checkpoint("a", b"kept")
        await Operator(backend).pause("i")
        await sdk.sleep(3600, "nap")
    assert sdk.outcome is Outcome.PAUSED
    assert (await status(backend)).status is InstanceStatus.SUSPENDED
    assert (await Operator(backend).show("i")).summary.signal is None
    async with block(backend) as sdk:
        assert (await sdk.checkpoint("a", b"other")).existing_state == b"kept"


async def test_an_error_in_the_clean_up_of_a_paused_body_does_not_finish_it(
    backend: SharedBackend,
) -> None:
    with pytest.raises(ValueError, match="clean-up"):
        async with block(backend) as sdk:
            await Operator(backend).pause("i")
            try:
                await sdk.sleep(3600, "nap")
            finally:
                raise ValueError("clean-up")
    assert sdk.outcome is Outcome.PAUSED
    assert (await status(backend)).status is InstanceStatus.SUSPENDED


async def test_stopped_by_a_scope_around(backend: SharedBackend) -> None:
    """Row 5. A local stop is never recorded as cancelled or failed."""
    with trio.CancelScope() as around:
        async with block(backend) as sdk:
            around.cancel()
            await trio.sleep_forever()
        raise AssertionError("the block does not swallow an outer Cancelled")
    assert sdk.outcome is Outcome.STOPPED
    assert (await status(backend)).status is InstanceStatus.SUSPENDED
    last = (await Operator(backend).events("i")).events[-1]
    assert last.payload == b"stopped by a cancelled scope around the block"


async def test_stopped_by_a_scope_around_though_the_body_raised(backend: SharedBackend) -> None:
    mine = ValueError("clean-up")
    with pytest.raises(ValueError, match="clean-up") as caught:
        with trio.CancelScope() as around:
            async with block(backend) as sdk:
                around.cancel()
                try:
                    await trio.sleep_forever()
                finally:
                    raise mine
    assert caught.value is mine
    assert sdk.outcome is Outcome.STOPPED


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("grouped", [False, True])
async def test_stopped_by_leaving(
    backend: SharedBackend, kind: type[BaseException], grouped: bool
) -> None:
    mine: BaseException = kind()
    if grouped:
        mine = BaseExceptionGroup("", [ValueError(), BaseExceptionGroup("", [mine])])
    sdk, caught = await leave_with(backend, mine)
    assert caught is mine
    assert sdk.outcome is Outcome.STOPPED
    assert (await status(backend)).status is InstanceStatus.SUSPENDED


async def test_failed(backend: SharedBackend) -> None:
    """Row 6."""
    with pytest.raises(ValueError, match="no such order") as caught:
        async with block(backend) as sdk:
            raise ValueError("no such order")
    assert sdk.outcome is Outcome.FAILED
    info = await status(backend)
    assert info.status is InstanceStatus.FAILED
    assert info.error is not None
    assert info.error.startswith("ValueError: no such order\n\nTraceback")
    assert not isinstance(caught.value, BaseExceptionGroup)


async def test_a_group_leaves_as_it_is(backend: SharedBackend) -> None:
    mine = ExceptionGroup("mine", [ValueError("a"), ExceptionGroup("in", [KeyError("b")])])
    sdk, caught = await leave_with(backend, mine)
    assert caught is mine
    assert sdk.outcome is Outcome.FAILED


async def test_where_cancelled_is_mixed_in_what_trio_leaves_goes_out(
    backend: SharedBackend,
) -> None:
    async def fails_in_clean_up() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError("clean-up")

    with pytest.raises(BaseExceptionGroup) as caught:
        async with block(backend) as sdk, trio.open_nursery() as nursery:
            nursery.start_soon(fails_in_clean_up)
            nursery.start_soon(trio.sleep_forever)
            await trio.testing.wait_all_tasks_blocked()
            await Operator(backend).cancel("i")
            await trio.sleep_forever()
    assert caught.value.split(trio.Cancelled)[0] is None
    assert [type(part) for part in caught.value.exceptions] == [ValueError]
    assert sdk.outcome is Outcome.CANCELLED


async def test_completed(backend: SharedBackend) -> None:
    """Row 7."""
    async with block(backend) as sdk:
        assert sdk.outcome is None
    assert sdk.outcome is Outcome.COMPLETED
    info = await status(backend)
    assert (info.status, info.output) == (InstanceStatus.COMPLETED, None)
    assert info.finished_at is not None


async def test_a_pause_that_only_was_asked_is_declined(backend: SharedBackend) -> None:
    async with block(backend) as sdk:
        await Operator(backend).pause("i")
        while not sdk.pause_requested:
            await trio.lowlevel.checkpoint()
    assert sdk.outcome is Outcome.COMPLETED
    assert (await Operator(backend).show("i")).summary.signal is None


async def test_nothing_is_recorded_where_nothing_was_registered(backend: SharedBackend) -> None:
    with pytest.raises(ValueError, match="x"):
        async with block(backend, register=False) as sdk:
            raise ValueError("x")
    assert sdk.outcome is None


async def test_a_url_gives_the_same(url: str) -> None:
    """With a backend of its own the block's exception passes a nursery, unwrapped."""
    mine = ValueError("mine")
    with pytest.raises(ValueError, match="mine") as caught:
        async with open_runtara(url, instance_id="i", tenant_id="t") as sdk:
            raise mine
    assert caught.value is mine
    assert sdk.outcome is Outcome.FAILED
    with trio.move_on_after(0) as around:
        async with open_runtara(url, instance_id="j", tenant_id="t"):
            raise AssertionError("entered under a cancelled scope")
    assert around.cancelled_caught
    async with open_backend(url) as backend:
        names = [one.instance_id for one in (await Operator(backend).list()).instances]
    assert names == ["i"]


# ---- the stop signal, in this very process


async def test_a_stop_signal_ends_all_blocks_and_the_last_raises(backend: SharedBackend) -> None:
    """Row 5, and what leaves the blocks."""
    sdks: dict[str, RuntaraSdk] = {}
    ended: list[str] = []

    async def run(name: str, started: trio.Event, may_end: trio.Event) -> None:
        async with open_runtara(backend, instance_id=name, tenant_id="t"):
            sdks[name] = current_sdk()
            started.set()
            try:
                await trio.sleep_forever()
            finally:
                with trio.CancelScope(shield=True):
                    await may_end.wait()
        ended.append(name)

    first, second = (trio.Event(), trio.Event()), (trio.Event(), trio.Event())
    with pytest.raises(BaseExceptionGroup) as caught:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run, "a", *first)
            nursery.start_soon(run, "b", *second)
            await first[0].wait()
            await second[0].wait()
            signal.raise_signal(signal.SIGTERM)
            first[1].set()
            while ended != ["a"]:
                await trio.lowlevel.checkpoint()
            second[1].set()
    (leaving,) = caught.value.exceptions
    assert isinstance(leaving, SystemExit)
    assert leaving.code == 128 + signal.SIGTERM
    assert ended == ["a"]
    assert {name: sdk.outcome for name, sdk in sdks.items()} == {
        "a": Outcome.STOPPED,
        "b": Outcome.STOPPED,
    }
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


async def test_a_handler_of_somebody_else_is_left_alone(backend: SharedBackend) -> None:
    seen: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: seen.append(number))
    try:
        async with block(backend) as sdk:
            signal.raise_signal(signal.SIGTERM)
            await sdk.checkpoint("a")
        assert seen == [signal.SIGTERM]
        assert sdk.outcome is Outcome.COMPLETED
    finally:
        signal.signal(signal.SIGTERM, before)
