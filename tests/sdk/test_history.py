"""The history of an instance: which steps it has, when, and how they ended."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
import trio.testing

from runtara_trio import (
    ConfigError,
    Operator,
    RuntaraSdk,
    SdkConfig,
    SharedBackend,
    StepInfo,
    StepKind,
    StepOutcome,
    durable,
    open_backend,
    open_client,
    open_worker,
    workflow,
)
from runtara_trio.messages import Noted, NoteSteps, Register, StepNote, TakeLease

from ..helpers.places import Place, Shared
from ..helpers.support import block, sql, start

tries: list[int] = []


@durable(summary="charge {cents} cents", delay=0.001)
async def charge(cents: int, fails: int = 0) -> int:
    tries.append(cents)
    if len(tries) <= fails:
        raise OSError(f"try {len(tries)}")
    return await fee(cents)


@durable
async def fee(cents: int) -> int:
    return cents // 10


@durable(max_retries=1, delay=0.001)
async def never(key: str) -> None:
    raise ValueError("no")


@pytest.fixture(autouse=True)
def no_tries() -> None:
    tries.clear()


def by_id(steps: tuple[StepInfo, ...]) -> dict[str, StepInfo]:
    return {one.step: one for one in steps}


async def until_noted(operator: Operator, step: str) -> StepInfo:
    """A step that is not noted yet."""
    with trio.fail_after(20):
        while True:
            found = by_id(await operator.steps("i"))
            if step in found and found[step].run:
                return found[step]
            await trio.sleep(0.01)


async def test_calls_with_their_attempts_and_what_is_inside(place: Place) -> None:
    async with block(place.backend) as sdk:
        await charge(70, fails=2)
        with pytest.raises(ValueError, match="no"):
            await never("k")
        lease = sdk._block.state.lease
    found = by_id(await place.operator.steps("i"))
    outer, inner = found["durable::charge::[70,2]"], found["durable::fee::[70]"]
    assert (outer.kind, outer.outcome, outer.run) == (StepKind.CALL, StepOutcome.DONE, lease)
    assert outer.summary == "charge 70 cents"
    assert [error for _, error in outer.attempts] == ["OSError: try 1", "OSError: try 2"]
    assert inner.parent == outer.step
    assert inner.worker == outer.worker != ""
    times = [outer.started_at, *(at for at, _ in outer.attempts), inner.started_at]
    times += [inner.ended_at, outer.ended_at]
    known = [one for one in times if one is not None]
    assert known == sorted(known)
    assert len(known) == 6
    failed = found["durable::never::k"]
    assert failed.outcome is StepOutcome.FAILED
    assert [error for _, error in failed.attempts] == ["ValueError: no"] * 2


async def test_of_many_attempts_the_last_are_kept(place: Place) -> None:
    @durable(max_retries=None, delay=0.0)
    async def stubborn() -> None:
        tries.append(1)
        if len(tries) <= 60:
            raise OSError(f"try {len(tries)} " + "x" * 5000)

    async with block(place.backend):
        await stubborn()
    (found,) = await place.operator.steps("i")
    assert [error[:15] for _, error in found.attempts] == [
        f"OSError: try {number}" for number in range(11, 61)
    ]
    assert {len(error) for _, error in found.attempts} == {1000}


async def test_a_call_is_noted_once_its_result_is_saved(place: Place) -> None:
    async with block(place.backend):
        await fee(10)
        (noted,) = await place.operator.steps("i")
    assert (noted.step, noted.outcome) == ("durable::fee::[10]", StepOutcome.DONE)


async def test_a_replay_notes_nothing_again(place: Place) -> None:
    for _ in range(2):
        async with block(place.backend) as sdk:
            await fee(10)
            await sdk.suspended()
    assert len(await place.operator.steps("i")) == 1


async def test_what_runs_and_what_waits_is_there_before_it_ends(place: Place) -> None:
    async with block(place.backend) as sdk, trio.open_nursery() as nursery:
        nursery.start_soon(sdk.wait_for_signal, "approve")
        waits = await until_noted(place.operator, "approve")
        assert (waits.kind, waits.ended_at, waits.outcome) == (StepKind.SIGNAL, None, None)
        async with sdk.step("ship"):
            works = await until_noted(place.operator, "ship")
            assert (works.kind, works.outcome) == (StepKind.STEP, None)
        await place.operator.send_signal("i", "approve", b"yes")
    found = by_id(await place.operator.steps("i"))
    assert found["approve"].outcome is found["ship"].outcome is StepOutcome.DONE
    assert found["approve"].started_at == waits.started_at


async def test_what_a_cancel_ends_was_interrupted(place: Place) -> None:
    async with block(place.backend) as sdk, sdk.step("ship"):
        await place.operator.cancel("i")
        await trio.sleep_forever()
    (ship,) = await place.operator.steps("i")
    assert (ship.outcome, ship.ended_at is None) == (StepOutcome.INTERRUPTED, False)


@pytest.mark.parametrize("history", ["steps", "none"])
async def test_a_transaction_has_its_row_in_its_own_commit(place: Place, history: Any) -> None:
    def insert(connection: Any) -> int:
        return 1

    async with (
        open_backend(place.url, config=SdkConfig(history=history)) as backend,
        block(backend) as sdk,
    ):
        await sdk.transact(insert, id="row")
        (found,) = await Operator(backend).steps("i")
        noted = (found.kind, found.outcome, found.started_at is None)
    if history == "steps":
        assert noted == (StepKind.TRANSACTION, StepOutcome.DONE, False)
    else:
        assert noted == (StepKind.CHECKPOINT, StepOutcome.DONE, True)


async def test_every_kind(place: Place) -> None:
    def insert(connection: Any) -> int:
        return 1

    async with block(place.backend) as sdk:
        await fee(1)
        await sdk.transact(insert, id="row")
        await sdk.sleep(0.02, "nap")
        async with sdk.deadline("limit", 60), sdk.step("ship"):
            await sdk.checkpoint("plain")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sdk.wait_for_signal, "approve")
            nursery.start_soon(sdk.receive, "orders")
            for name in ("approve", "orders::0"):
                await until_noted(place.operator, name)
            await place.operator.send_signal("i", "approve", b"")
            await place.operator.send_message("i", "orders", b"")
    found = by_id(await place.operator.steps("i"))
    assert {step: one.kind.value for step, one in found.items()} == {
        "durable::fee::[1]": "call",
        "row": "transaction",
        "nap": "sleep",
        "limit": "deadline",
        "ship": "step",
        "plain": "checkpoint",
        "approve": "signal",
        "orders::0": "message",
    }
    assert {one.outcome for one in found.values()} == {StepOutcome.DONE}
    assert found["ship"].parent == "limit"


async def test_signals_that_were_there_already_are_shown(place: Place) -> None:
    async with block(place.backend) as sdk:
        await place.operator.send_signal("i", "approve", b"")
        await sdk.wait_for_signal("approve")
        (taken,) = await place.operator.steps("i")
    assert (taken.step, taken.kind, taken.started_at) == ("approve", StepKind.SIGNAL, None)


async def test_in_pages(place: Place) -> None:
    async with block(place.backend) as sdk:
        async with trio.open_nursery() as nursery:
            for number in range(1, 1501):
                nursery.start_soon(fee, number)
        await sdk.checkpoint("last")
    found = await place.operator.steps("i")
    assert len({one.step for one in found}) == len(found) == 1501
    times = [one.started_at for one in found if one.started_at is not None]
    assert times == sorted(times)


async def test_without_a_history_the_ends_are_known(place: Place) -> None:
    config = SdkConfig(store=place.url, history="none")
    if place.url == ":memory:":
        pytest.skip("a store in memory cannot be opened twice")
    async with open_backend(config) as backend, block(backend):
        await fee(10)
    (found,) = await place.operator.steps("i")
    assert (found.step, found.kind) == ("durable::fee::[10]", StepKind.CHECKPOINT)
    assert (found.started_at, found.run, found.outcome) == (None, 0, StepOutcome.DONE)
    assert await sql(place.backend, "SELECT * FROM runtara_trio_steps") == []


def test_a_setting_that_is_unknown() -> None:
    with pytest.raises(ConfigError, match="history must be 'steps', 'none' or 'core', not 'all'"):
        SdkConfig(history="all")  # type: ignore[arg-type]


async def test_a_run_that_has_lost_its_lease_notes_nothing(place: Place) -> None:
    """It would be shown as running, and nobody would end it."""
    i = {"instance_id": "i"}
    old = (await place.backend.request(Register(**i, tenant_id="t"))).lease
    note = StepNote(step="late", kind=StepKind.SIGNAL, started_ms=1)
    await place.backend.request(TakeLease(**i, replaces=old))
    await place.backend.request(NoteSteps(runs=(Noted(**i, lease=old, steps=(note,)),)))
    assert await place.operator.steps("i") == ()
    assert (await place.operator.show("i")).open_steps == ()


async def test_a_note_that_is_late_reopens_nothing(place: Place) -> None:
    i = {"instance_id": "i"}
    lease = (await place.backend.request(Register(**i, tenant_id="t"))).lease
    begun = StepNote(step="s", kind=StepKind.CALL, started_ms=1)
    ended = StepNote(
        step="s", kind=StepKind.CALL, started_ms=1, ended_ms=5, outcome=StepOutcome.DONE
    )
    again = StepNote(step="s", kind=StepKind.CALL, started_ms=7)
    outcomes = []
    for note in (ended, begun, again):
        await place.backend.request(NoteSteps(runs=(Noted(**i, lease=lease, steps=(note,)),)))
        (found,) = await place.operator.steps("i")
        outcomes.append(found.outcome)
    assert outcomes == [StepOutcome.DONE, StepOutcome.DONE, None]


async def test_a_killed_process_leaves_what_it_did(shared: Shared) -> None:
    async with start("worker.py", shared.url, "i", "sleep") as program:
        await program.line("running new")
        async with open_backend(shared.url) as backend:
            assert (await until_noted(Operator(backend), "nap")).outcome is None
            await program.kill()
    await shared.expire(program)
    async with open_backend(shared.url) as backend:
        async with block(backend):
            found = by_id(await Operator(backend).steps("i"))
            assert found["nap"].outcome is StepOutcome.LOST
            assert str(program.pid) in found["nap"].worker


@workflow
async def parent(sdk: RuntaraSdk, fails: bool) -> None:
    async with sdk.open_children() as children:
        await (await children.start(child, fails)).result()


@workflow
async def child(sdk: RuntaraSdk, fails: bool) -> None:
    await fee(10)


async def test_children_and_the_worker(stored: SharedBackend) -> None:
    async with (
        open_worker(stored, [parent, child], name="w-1", stop_signals=()),
        open_client(stored, tenant_id="t") as client,
    ):
        handle = await client.start(parent, False, id="p")
        await handle.result()
        operator = Operator(stored)
        (one,) = [step for step in await operator.steps("p") if step.kind is StepKind.CHILD]
        assert (one.outcome, one.summary) == (StepOutcome.DONE, "child")
        (inside,) = await operator.steps(one.step)
    assert inside.worker == "w-1"


async def test_on_a_mocked_clock(autojump_clock: trio.testing.MockClock) -> None:
    async with open_backend(":memory:", create=True) as backend, block(backend) as sdk:
        await sdk.sleep(3600, "nap")
        await sdk.checkpoint("nap was")  # takes the end along
        (nap, _) = await Operator(backend).steps("i")
        assert nap.started_at is not None
        assert nap.ended_at == nap.started_at + timedelta(hours=1)


@pytest.fixture
async def stored(tmp_path: Path) -> AsyncIterator[SharedBackend]:
    async with open_backend(f"sqlite:///{tmp_path}/h.db", create=True) as backend:
        yield backend


@pytest.mark.parametrize(
    ("summary", "error"),
    [("{cent}", "names 'cent'"), ("{", "is not a format string"), (3, "must be a format string")],
)
def test_a_summary_that_is_invalid(summary: Any, error: str) -> None:
    with pytest.raises(ConfigError, match=error):

        @durable(summary=summary)
        async def pay(cents: int) -> None: ...


async def test_a_summary_that_cannot_be_made_fails_no_call(place: Place) -> None:
    @durable(summary="at {when:%H}")
    async def note(when: int) -> None: ...

    async with block(place.backend):
        await note(3)
    (found,) = await place.operator.steps("i")
    assert found.summary is not None
    assert found.summary.startswith("at {when:%H} (ValueError: ")


# ---- for Runtara's own tools


@asynccontextmanager
async def noted_for_core(place: Place) -> AsyncIterator[tuple[SharedBackend, Any]]:
    """A backend that writes events of steps, and the operator of its instances."""
    config = SdkConfig(history="core")
    async with open_backend(place.url, config=config) as backend:
        yield backend, Operator(backend) if place.url == ":memory:" else place.operator


async def debug_events(operator: Any) -> list[tuple[str, dict[str, Any]]]:
    """The events of steps in their order: the end of their subtype, and what they say."""
    return [
        (one.subtype.removeprefix("step_debug_"), msgspec.json.decode(one.payload))
        for one in (await operator.events("i", limit=100)).events
        if one.subtype is not None and one.subtype.startswith("step_debug_")
    ]


@pytest.mark.core
async def test_events_for_the_tools_of_runtara(place: Place) -> None:
    async with noted_for_core(place) as (backend, operator):
        async with block(backend) as sdk, sdk.step("pack"):
            await fee(10)
        found = await debug_events(operator)
        if backend.keeps_history:
            assert {one.step for one in await operator.steps("i")} >= {"pack"}
    assert [(kind, event["step_id"]) for kind, event in found] == [
        ("start", "pack"),
        ("start", "durable::fee::[10]"),
        ("end", "durable::fee::[10]"),
        ("end", "pack"),
    ]
    assert [event["scope_id"] for _, event in found] == [None, "pack", "pack", None]
    assert [event["parent_scope_id"] for _, event in found] == [None] * 4
    assert [event["step_type"] for _, event in found] == ["step", "call", "call", "step"]
    assert found[1][1]["step_name"] == "fee"
    assert found[2][1]["error"] is None


@pytest.mark.core
async def test_the_event_of_a_failure(place: Place) -> None:
    @durable(max_retries=0)
    async def broken() -> None:
        raise ValueError("no such account")

    async with noted_for_core(place) as (backend, operator):
        with pytest.raises(ValueError, match="account"):
            async with block(backend):
                await broken()
        _, (kind, event) = await debug_events(operator)
    assert (kind, event["error"]) == ("end", "ValueError: no such account")


@pytest.mark.core
async def test_events_go_out_before_what_the_program_says(place: Place) -> None:
    async with noted_for_core(place) as (backend, operator):
        async with block(backend) as sdk:
            await fee(10)
            await sdk.completed(b"done")
        found = await debug_events(operator)
    assert [kind for kind, _ in found] == ["start", "end"]
