"""What is logged: the table's events, their fields, and nothing of a program's own."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from runtara_trio import (
    LeaseLost,
    Operator,
    Outcome,
    SharedBackend,
    current_sdk,
    durable,
    open_backend,
)
from runtara_trio.engine import visited
from runtara_trio.logs import EVENTS, FIELDS
from runtara_trio.messages import ReadCheckpoints

from ..helpers.support import Watched, block, start

TABLE = {event.name: event for event in EVENTS}
SECRET = "7f3c-a-secret"


def events(caplog: pytest.LogCaptureFixture, name: str = "") -> list[logging.LogRecord]:
    """The records of one event, or all of ours."""
    ours = [record for record in caplog.records if record.name.startswith("runtara_trio.")]
    return [record for record in ours if not name or record.__dict__["event"] == name]


def test_the_table_is_whole() -> None:
    assert {field for event in EVENTS for field in event.fields} == set(FIELDS)
    assert {event.logger.name for event in EVENTS} == {
        "runtara_trio.instance",
        "runtara_trio.boundary",
        "runtara_trio.services",
        "runtara_trio.store",
        "runtara_trio.worker",
        "runtara_trio.quic",
    }


async def test_a_run_and_its_records(
    autojump_clock: MockClock, memory: SharedBackend, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "runtara_trio")
    operator = Operator(memory)

    async def later(seconds: float, verb: Callable[..., Awaitable[object]], *args: object) -> None:
        await trio.sleep(seconds)
        await verb(*args)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(later, 1, operator.pause, "one", SECRET.encode())
        async with block(memory, "one") as sdk:
            await sdk.checkpoint("first", SECRET)
            await sdk.sleep(5, "nap", SECRET)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(later, 1, operator.send_signal, "one", "go", SECRET)
        async with block(memory, "one") as sdk:
            await sdk.checkpoint("first")
            await sdk.sleep(5, "nap")
            await sdk.wait_for_signal("go")
            await sdk.completed(SECRET)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(later, 1, operator.send_signal, "two", "go", SECRET)
        nursery.start_soon(later, 2, operator.cancel, "two", SECRET.encode())
        async with block(memory, "two") as sdk:
            await sdk.wait_for_signal("go")
            await trio.sleep_forever()
    with pytest.raises(ValueError, match="secret"):
        async with block(memory, "three"):
            raise ValueError(SECRET)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(later, 1, operator.pause, "four")
        async with block(memory, "four", pause_grace=1) as sdk, sdk.step("cut"):
            async with trio.open_nursery() as inner:
                inner.start_soon(later, 1.5, sdk.check_paused)
                await trio.sleep_forever()
    seen = [record.__dict__["event"] for record in events(caplog)]
    assert seen == [
        *("registered", "checkpoint", "sleeping", "signal", "settled", "ended"),
        *("registered", "checkpoint", "sleeping", "ended"),
        *("registered", "waiting", "signal", "scope_cancelled", "ended"),
        *("registered", "ended"),
        *("registered", "signal", "parked", "grace_over", "ended"),
    ]
    plain = set(logging.makeLogRecord({}).__dict__) | {"event", "message", "asctime"}
    for record in events(caplog):
        event = TABLE[record.__dict__["event"]]
        assert set(record.__dict__) - plain - {"taskName"} == set(event.fields)
        assert (record.name, record.levelno) == (event.logger.name, event.level)
        assert SECRET not in record.getMessage()
        assert SECRET not in str(record.__dict__)
    assert events(caplog)[0].__dict__["resumed"] is False
    assert events(caplog, "registered")[1].__dict__["resumed"] is True
    assert events(caplog, "scope_cancelled")[0].__dict__["cause"] == "cancel"
    assert events(caplog, "ended")[-1].getMessage() == "four ended: paused"


async def test_a_takeover(url: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "runtara_trio")
    async with start("worker.py", url, "i", "wait") as program:
        await program.line("running")
        await program.kill()
    async with open_backend(url) as backend, block(backend):
        pass
    (record,) = events(caplog, "taken_over")
    assert f"process {program.pid} on" in record.__dict__["taken_from"]


class TestUnvisited:
    """A run that completed without asking for what an earlier one stored."""

    async def test_a_renamed_checkpoint_is_told(
        self, backend: SharedBackend, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with block(backend) as sdk:
            await sdk.checkpoint("charge", b"paid")
            await sdk.checkpoint("kept")
            await sdk.sleep(0, "nap")
            await sdk.record_retry_attempt("ship", 1, "no")
            await sdk.suspended()
        assert not events(caplog, "unvisited")
        async with block(backend) as sdk:
            await sdk.checkpoint("payment", b"paid again")
            await sdk.get_checkpoint("kept")
        (record,) = events(caplog, "unvisited")
        assert record.levelno == logging.WARNING
        assert record.__dict__["unvisited"] == "charge, nap, ship"
        assert record.__dict__["count"] == 3
        assert "Where the program has changed" in record.getMessage()

    async def test_a_program_that_did_not_change_is_not_told(
        self, backend: SharedBackend, operator: Operator, caplog: pytest.LogCaptureFixture
    ) -> None:
        for _ in range(2):
            async with block(backend) as sdk:
                await operator.send_signal("i", "go", "now")
                await sdk.checkpoint("one")
                await sdk.sleep(0, "nap")
                await sdk.wait_for_signal("go")
                await sdk.record_retry_attempt("ship", 1, "no")
                await sdk.suspended()
        async with block(backend) as sdk:
            for name in ("one", "nap", "go", "ship"):
                await sdk.get_checkpoint(name)
        assert sdk.outcome is Outcome.COMPLETED
        assert not events(caplog, "unvisited")

    @pytest.mark.parametrize("end", ["suspended", "failed"])
    async def test_a_run_that_did_not_complete_is_not_told(
        self, backend: SharedBackend, caplog: pytest.LogCaptureFixture, end: str
    ) -> None:
        async with block(backend) as sdk:
            await sdk.checkpoint("one")
            await sdk.suspended()
        async with block(backend) as sdk:
            await getattr(sdk, end)("here")
        assert not events(caplog, "unvisited")

    async def test_what_lies_before_a_resume_point_is_not_missed(
        self, backend: SharedBackend, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with block(backend) as sdk:
            await sdk.checkpoint("one")
            await sdk.checkpoint("two")
            await sdk.suspended()
        async with block(backend, checkpoint_id="two"):
            pass
        assert not events(caplog, "unvisited")

    async def test_many_are_read_in_pages_and_ten_are_named(
        self, backend: SharedBackend, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with block(backend) as sdk:
            async with trio.open_nursery() as nursery:
                for number in range(1500):
                    nursery.start_soon(sdk.checkpoint, f"n{number:04}")
            await sdk.suspended()
        async with block(backend) as sdk:
            await sdk.completed()
        (record,) = events(caplog, "unvisited")
        assert record.__dict__["count"] == 1500
        assert record.__dict__["unvisited"].split(", ") == [f"n{n:04}" for n in range(10)]

    async def test_ids_of_the_programs_own_that_look_like_retries(
        self, backend: SharedBackend, caplog: pytest.LogCaptureFixture
    ) -> None:
        for _ in range(2):
            async with block(backend, revive=True) as sdk:
                await sdk.checkpoint("pay::retry::1")
        assert not events(caplog, "unvisited")

    async def test_what_a_call_that_was_found_used_inside_is_not_missed(
        self, backend: SharedBackend, caplog: pytest.LogCaptureFixture
    ) -> None:
        @durable
        async def inner(n: int) -> int:
            await current_sdk().checkpoint(f"of inner {n}")
            return n

        @durable(max_retries=0)
        async def outer(what: str) -> int:
            sdk = current_sdk()
            await sdk.sleep(0, f"nap of {what}")
            async with sdk.open_nursery() as nursery:
                nursery.start_soon(inner, len(what))
            with sdk.scope("deeper"):
                await sdk.checkpoint(f"mark of {what}")
            if what == "fails":
                raise ValueError(what)
            return 1

        @durable
        async def outermost() -> int:
            return await outer("works")

        for end in (False, True):
            async with block(backend) as sdk:
                await outermost()
                with pytest.raises(ValueError, match="fails"):
                    await outer("fails")
                if not end:
                    await sdk.checkpoint("gone")
                    await sdk.suspended()
        (record,) = events(caplog, "unvisited")
        assert record.__dict__["unvisited"] == "gone"

    async def test_a_call_that_used_too_many_to_tell(
        self,
        memory: SharedBackend,
        caplog: pytest.LogCaptureFixture,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr("runtara_trio.sdk.durable.MOST_INSIDE", 2)

        @durable
        async def many() -> None:
            for n in range(3):
                await current_sdk().checkpoint(f"n{n}")

        for end in (False, True):
            async with block(memory) as sdk:
                await many()
                if not end:
                    await sdk.suspended()
        assert not events(caplog, "unvisited")

    async def test_ids_asked_for_before_the_registration_count(
        self, backend: SharedBackend, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with block(backend) as sdk:
            await sdk.checkpoint("config")
            await sdk.suspended()
        async with block(backend, register=False) as sdk:
            await sdk.get_checkpoint("config")
            await sdk.register()
        assert sdk.outcome is Outcome.COMPLETED
        assert not events(caplog, "unvisited")

    async def test_a_look_that_fails_or_lasts_is_only_a_warning_lost(
        self,
        autojump_clock: MockClock,
        memory: SharedBackend,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        async with block(memory) as sdk:
            await sdk.checkpoint("one")
            await sdk.suspended()
        for failure in (NotImplementedError("no bulk reads"), trio.Event()):
            watched = Watched(memory)
            found = failure

            def fail(message: object, found: object = found) -> object:
                return found if isinstance(message, ReadCheckpoints) else None

            async with open_backend(watched) as backend:
                watched.before = fail
                async with block(backend, revive=True) as sdk:
                    pass
                assert sdk.outcome is Outcome.COMPLETED
        assert len(events(caplog, "request_failed")) == 2
        with trio.move_on_after(1) as around:
            async with open_backend(watched) as backend, block(backend, revive=True) as sdk:
                await sdk.completed()
                await trio.sleep_forever()
        assert around.cancelled_caught  # nobody is held up for a warning
        assert sdk.outcome is Outcome.COMPLETED
        assert trio.current_time() < 10

    async def test_more_ids_than_are_worth_it_are_not_kept(
        self,
        backend: SharedBackend,
        caplog: pytest.LogCaptureFixture,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(visited, "MOST", 3)
        async with block(backend) as sdk:
            await sdk.checkpoint("old")
            await sdk.suspended()
        async with block(backend) as sdk:
            for number in range(5):
                await sdk.checkpoint(f"new/{number}")
        assert not events(caplog, "unvisited")


async def test_an_id_cannot_forge_a_line(
    memory: SharedBackend, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "runtara_trio")
    forged = "i\nERROR all is lost"
    async with block(memory, forged):
        pass
    assert all("\n" not in record.getMessage() for record in events(caplog))
    assert events(caplog)[0].__dict__["instance_id"] == forged


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
