"""Things that meet: each was once answered wrongly."""

from __future__ import annotations

import fcntl
import logging
import os
import signal
import sqlite3
import sys
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from runtara_trio import (
    JSON,
    LeaseLost,
    Operator,
    Outcome,
    OutcomeNotRecorded,
    RuntaraSdk,
    SdkError,
    ServerError,
    SharedBackend,
    Signal,
    SignalRefused,
    SignalType,
    StoreError,
    Unreachable,
    open_backend,
)
from runtara_trio.backend import SignalBatch
from runtara_trio.messages import ReadCheckpoints, RecordOutcome, Register, Request
from runtara_trio.store.sqlite import failures, owners, rows

from ..helpers.support import Unanswered, Watched, block

# ---- opening and closing


@pytest.mark.parametrize("passes", range(6))
async def test_cancelled_while_it_opens(url: str, passes: int) -> None:
    with trio.fail_after(10), trio.CancelScope() as around:
        async with trio.open_nursery() as nursery:

            async def cancel() -> None:
                for _ in range(passes):
                    await trio.lowlevel.checkpoint()
                around.cancel()

            nursery.start_soon(cancel)
            async with block(url):
                await trio.sleep_forever()
    assert around.cancelled_caught


async def test_calls_after_the_end_of_a_backend(url: str) -> None:
    async with open_backend(url) as backend:
        async with block(backend):
            pass
    for _ in range(3):
        with pytest.raises(StoreError, match="the store was closed"):
            await Operator(backend).list()
    with pytest.raises(SdkError, match="the backend was closed"):
        async with block(backend, "j"):
            raise AssertionError("it does not run")


@pytest.mark.parametrize("where", ["__aenter__", "__aexit__"])
def test_ctrl_c_in_the_frames_of_contextlib(where: str) -> None:
    """Those around our generators: the block is neither half open nor half closed."""
    hit = []

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        ours = frame.f_code.co_name == where and frame.f_code.co_filename.endswith("contextlib.py")
        if not ours or frame.f_locals["self"].gen.__name__ != "_run":
            return None

        def interrupt(frame: FrameType, event: str, argument: Any) -> None:
            if not hit:
                hit.append(frame)
                sys.settrace(before)
                signal.raise_signal(signal.SIGINT)

        return interrupt

    statuses = []

    async def main() -> None:
        async with open_backend(":memory:") as backend:
            try:
                sys.settrace(trace)
                async with block(backend) as sdk:
                    await sdk.checkpoint("a")
                await trio.sleep(30)  # here it comes where it was too late
            finally:
                with trio.CancelScope(shield=True):
                    page = await Operator(backend).list()
                    statuses.extend(one.status for one in page.instances)

    before = sys.gettrace()
    try:
        with pytest.raises(KeyboardInterrupt):
            trio.run(main)
    finally:
        sys.settrace(before)
    assert hit
    assert statuses == ([] if where == "__aenter__" else ["completed"])


async def test_sigterm_during_a_registration_that_fails(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The program must not try again: it was asked to end."""
    monkeypatch.setattr(failures, "BUSY_TIMEOUT", 0.05)
    async with block(url):
        pass
    other = sqlite3.connect(tmp_path / "store.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    async with open_backend(url) as backend:
        watched = Watched(backend)
        watched.before = lambda message: (
            signal.raise_signal(signal.SIGTERM) if isinstance(message, Register) else None
        )
        async with open_backend(watched) as shared:
            with pytest.raises(SystemExit) as caught:
                async with block(shared, "j"):
                    raise AssertionError("it does not run")
    other.close()
    assert caught.value.code == 128 + signal.SIGTERM
    assert isinstance(caught.value.__cause__, StoreError)


# ---- signals


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


async def test_a_signal_written_by_hand_as_text(tmp_path: Path, url: str) -> None:
    """As an environment does it, through the database; the thread lives on."""
    async with block(url) as sdk:
        other = sqlite3.connect(tmp_path / "store.db", isolation_level=None)
        other.execute(
            "INSERT INTO pending_signals (instance_id, signal_type, payload)"
            " VALUES ('i', 'cancel', 'text')"
        )
        other.close()
        with trio.fail_after(10):
            await trio.sleep_forever()
    assert sdk.outcome is Outcome.CANCELLED


async def test_a_declined_pause_leaves_no_task_behind(
    autojump_clock: MockClock, memory: SharedBackend
) -> None:
    async with block(memory, "warm-up"):
        pass
    before = trio.lowlevel.current_statistics().tasks_living
    for number in range(5):
        async with block(memory, f"i{number}") as sdk:
            await Operator(memory).pause(f"i{number}")
            await trio.testing.wait_all_tasks_blocked()
            assert sdk.pause_requested
        assert sdk.outcome is Outcome.COMPLETED
    await trio.sleep(10)
    assert trio.lowlevel.current_statistics().tasks_living == before


async def test_a_pause_does_not_end_the_clean_up_after_the_outcome(
    autojump_clock: MockClock, memory: SharedBackend
) -> None:
    async with block(memory, pause_grace=1) as sdk:
        await Operator(memory).pause("i")
        await trio.testing.wait_all_tasks_blocked()
        await sdk.completed(b"x")
        await trio.sleep(10)
        tidied = True
    assert tidied
    assert sdk.outcome is Outcome.COMPLETED


async def test_nothing_parks_under_a_cancelled_scope_around_the_block(
    autojump_clock: MockClock, memory: SharedBackend
) -> None:
    async def finish_a_step() -> None:
        with trio.CancelScope(shield=True):
            async with sdk.step():
                await trio.sleep(5)

    start = trio.current_time()
    with trio.CancelScope() as around:
        async with block(memory) as sdk, trio.open_nursery() as nursery:
            nursery.start_soon(finish_a_step)
            await trio.testing.wait_all_tasks_blocked()
            around.cancel()
            with trio.CancelScope(shield=True):
                await Operator(memory).pause("i")
                await sdk.checkpoint("clean-up")
                assert trio.current_time() == start
    assert sdk.outcome is Outcome.STOPPED


async def test_a_stray_task_that_waits_for_a_signal_is_told_of_the_end(
    memory: SharedBackend,
) -> None:
    told = []

    async def stray(sdk: RuntaraSdk) -> None:
        try:
            await sdk.wait_for_signal("never")
        except SdkError as exc:
            told.append(str(exc))

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            async with block(memory) as sdk:
                nursery.start_soon(stray, sdk)
                await trio.testing.wait_all_tasks_blocked()
    assert len(told) == 1
    assert "has ended" in told[0]


# ---- outcomes


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


async def test_an_outcome_that_was_not_recorded_is_recorded_later(
    autojump_clock: MockClock, memory: SharedBackend
) -> None:
    """Or the instance would be busy as long as the backend is open."""
    watched = Watched(memory)
    troubles = [StoreError("the disk is full", transient=True)] * 30
    watched.before = lambda message: (
        troubles.pop() if isinstance(message, RecordOutcome) and troubles else None
    )
    async with open_backend(watched) as shared:
        with pytest.raises(ValueError, match="mine") as caught:
            async with block(shared, final_timeout=1):
                raise ValueError("mine")
        assert caught.value.__notes__
        while (await Operator(memory).show("i")).summary.held:
            await trio.sleep(1)
        assert (await Operator(memory).show("i")).summary.status == "failed"


async def test_a_write_refused_after_an_unconfirmed_end_does_not_make_it_lost(
    autojump_clock: MockClock, memory: SharedBackend
) -> None:
    async with open_backend(Unanswered(memory)) as shared, block(shared, final_timeout=1) as sdk:
        with pytest.raises(SdkError, match="no answer"):
            await sdk.completed(b"x")
        with pytest.raises(LeaseLost):
            await sdk.checkpoint("late")
    assert sdk.outcome is Outcome.COMPLETED


async def test_an_error_text_does_not_go_through_the_codec(backend: SharedBackend) -> None:
    class Backwards:
        def encode(self, value: Any, /) -> bytes:
            return JSON.encode(value)[::-1]

        def decode(self, data: bytes, type: Any, /) -> Any:
            return JSON.decode(data[::-1], type)

    async with block(backend, codec=Backwards()) as sdk:
        await sdk.failed("card was declined")
    assert (await Operator(backend).show("i")).error == "card was declined"


async def test_revive_keeps_checkpoints_that_only_look_like_attempts(
    backend: SharedBackend,
) -> None:
    kept = {"mail::retry::2nd reminder", "x::retry::1/effect", "http::retry::3rd"}
    async with block(backend) as sdk:
        for name in kept:
            await sdk.checkpoint(name)
        await sdk.record_retry_attempt("x", 12)
    async with block(backend, revive=True):
        saved = (await Operator(backend).checkpoints("i")).checkpoints
        assert {one.checkpoint_id for one in saved} == kept


# ---- owners


def test_two_who_look_at_a_dead_owner_at_once_agree(tmp_path: Path) -> None:
    owner = owners.OwnerFile(str(tmp_path / "x.db"))
    owner.close()
    looking = os.open(owner.path, os.O_RDONLY)
    fcntl.flock(looking, fcntl.LOCK_SH)  # the other, in the middle of its look
    assert owners.seen_at(owner.path).lock is owners.Lock.FREE
    os.close(looking)


async def test_an_owner_whose_row_could_not_go_is_dead_at_once(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another writer held the file while it closed."""
    monkeypatch.setattr(failures, "BUSY_TIMEOUT", 0.05)
    other = sqlite3.connect(tmp_path / "store.db", isolation_level=None)
    with pytest.raises(OutcomeNotRecorded):
        async with block(url, final_timeout=0.1):
            other.execute("BEGIN IMMEDIATE")
    other.execute("COMMIT")
    async with block(url) as sdk:  # no lease is waited for
        assert sdk.is_registered
    assert [path for path in tmp_path.iterdir() if "-owner-" in path.name] == []
    async with block(url, "j"):
        pass
    assert other.execute("SELECT count(*) FROM runtara_trio_owners").fetchone() == (0,)
    other.close()


async def test_side_files_that_no_row_names_go_with_the_next_start(
    tmp_path: Path, url: str
) -> None:
    """Their owner died while it made them, or who buried it before it removed them."""
    orphan = owners.OwnerFile(f"{tmp_path}/store.db")
    orphan.close()
    living = owners.OwnerFile(f"{tmp_path}/store.db")
    async with block(url):
        assert not Path(orphan.path).exists()
        assert Path(living.path).exists()
    living.remove()


# ---- what fails beside a decision


class Refusing(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        raise ValueError("a filter of the program's own")


@pytest.mark.parametrize("how", ["factory", "filter"])
async def test_a_log_that_raises_changes_nothing(
    tmp_path: Path, url: str, how: str, request: pytest.FixtureRequest
) -> None:
    factory = logging.getLogRecordFactory()
    loggers = [logging.getLogger(f"runtara_trio.{part}") for part in ("instance", "boundary")]
    refusing = Refusing()

    def with_event(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = factory(*args, **kwargs)
        record.event = record.instance_id = "the program's own"
        return record

    def undo() -> None:
        logging.setLogRecordFactory(factory)
        for logger in loggers:
            logger.removeFilter(refusing)
            logger.setLevel(logging.NOTSET)

    request.addfinalizer(undo)
    for logger in loggers:
        logger.setLevel(logging.DEBUG)
    if how == "factory":
        logging.setLogRecordFactory(with_event)
    else:
        for logger in loggers:
            logger.addFilter(refusing)
    async with open_backend(url) as backend:
        async with block(backend) as sdk:
            await Operator(backend).cancel("i")
            await trio.sleep_forever()
        assert sdk.outcome is Outcome.CANCELLED
        with pytest.raises(LeaseLost):
            async with block(backend, "j") as sdk:
                db = sqlite3.connect(tmp_path / "store.db")
                db.execute("UPDATE runtara_trio_leases SET epoch = epoch + 5")
                db.commit()
                db.close()
                with suppress(LeaseLost):
                    await sdk.checkpoint("a")
                await trio.sleep_forever()
        assert sdk.outcome is Outcome.LOST


def test_ctrl_c_inside_a_request_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes after the request: no transaction is left open."""
    save = rows.save

    def interrupted(*args: Any) -> bool:
        monkeypatch.setattr(rows, "save", save)
        signal.raise_signal(signal.SIGINT)
        return save(*args)

    async def main() -> None:
        async with open_backend(":memory:") as backend:
            with suppress(KeyboardInterrupt):
                async with block(backend) as sdk:
                    monkeypatch.setattr(rows, "save", interrupted)
                    await sdk.checkpoint("a")
                    await trio.sleep(30)
            assert sdk.outcome is Outcome.STOPPED
            assert (await Operator(backend).show("i")).checkpoints == 1

    trio.run(main)


@pytest.mark.parametrize("kind", [RecordOutcome, ReadCheckpoints])
async def test_a_backend_that_is_closed_waits_for_what_is_being_recorded(
    memory: SharedBackend, kind: type[Request[Any]]
) -> None:
    """Its Cancelled does not leave the block, where it would end the program's nursery."""
    async with block(memory) as sdk:
        await sdk.checkpoint("a")
        await sdk.suspended()
    watched = Watched(memory)
    asked, go = trio.Event(), trio.Event()

    def hold(message: Request[Any]) -> trio.Event | None:
        if not isinstance(message, kind):
            return None
        asked.set()
        return go

    ended = []

    async def run(backend: SharedBackend) -> None:
        async with block(backend) as sdk:
            pass
        ended.append(sdk.outcome)

    async def let_go() -> None:
        await asked.wait()
        await trio.testing.wait_all_tasks_blocked()
        go.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(let_go)
        async with open_backend(watched) as backend:
            watched.before = hold
            nursery.start_soon(run, backend)
            await asked.wait()
    assert ended == [Outcome.COMPLETED]


async def test_a_block_that_said_its_end_may_outlive_its_backend(memory: SharedBackend) -> None:
    async with block(memory) as sdk:
        await sdk.suspended()
    said, go = trio.Event(), trio.Event()

    async def run(backend: SharedBackend) -> None:
        async with block(backend) as sdk:
            await sdk.completed()
            said.set()
            await go.wait()
        assert sdk.outcome is Outcome.COMPLETED

    async with trio.open_nursery() as nursery:
        async with open_backend(Watched(memory)) as backend:
            nursery.start_soon(run, backend)
            await said.wait()
        go.set()


async def test_a_pause_of_what_only_waits_has_settled_whatever_its_grace(
    memory: SharedBackend, caplog: pytest.LogCaptureFixture
) -> None:
    async with block(memory, pause_grace=0) as sdk, trio.open_nursery() as nursery:
        nursery.start_soon(sdk.wait_for_signal, "never")
        await trio.testing.wait_all_tasks_blocked()
        await Operator(memory).pause("i")
        await trio.sleep_forever()
    assert sdk.outcome is Outcome.PAUSED
    assert "grace" not in caplog.text


async def test_states_that_somebody_wrote_by_hand(tmp_path: Path, url: str) -> None:
    async with block(url) as sdk:
        for name in ("text", "number"):
            await sdk.checkpoint(name, b"ours")
        db = sqlite3.connect(tmp_path / "store.db")
        db.execute("""UPDATE checkpoints SET state = '{"a":2}' WHERE checkpoint_id = 'text'""")
        db.execute("UPDATE checkpoints SET state = 12 WHERE checkpoint_id = 'number'")
        db.commit()
        db.close()
        assert (await sdk.checkpoint("text")).decode(dict) == {"a": 2}
        assert await sdk.get_checkpoint("text", dict) == {"a": 2}
        assert (await sdk.checkpoint("number")).state == b"12"
