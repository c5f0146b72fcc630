"""Schedules: each slot once, whatever the clocks and the workers do."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest
import trio
from trio.testing import MockClock

from runtara_trio import (
    Client,
    ConfigError,
    Operator,
    RuntaraSdk,
    Schedule,
    ScheduleInfo,
    SdkConfig,
    SdkError,
    SharedBackend,
    open_backend,
    open_client,
    open_worker,
    workflow,
)
from runtara_trio.sdk.slots import moment, slot_id, slots

NEVER = 10**9


@workflow
async def report(sdk: RuntaraSdk, kind: str = "daily") -> str:
    return kind


@workflow
async def slow(sdk: RuntaraSdk) -> None:
    await sdk.sleep(150, "work")


def line(cron: str | None = None, zone: str = "UTC", every: int | None = None) -> ScheduleInfo:
    return ScheduleInfo(
        name="s",
        tenant_id="t",
        workflow="report",
        version=1,
        queue="default",
        input=b"[]",
        cron=cron,
        every=every,
        timezone=zone,
        overlap="allow",
        catch_up=3600,
        next_ms=0,
    )


def texts(schedule: ScheduleInfo, after: str, count: int) -> list[str]:
    begin = datetime.fromisoformat(after)
    begin = begin if begin.tzinfo else begin.replace(tzinfo=ZoneInfo(schedule.timezone))
    found = slots(schedule, int(begin.timestamp() * 1000))
    return [
        moment(schedule, slot).isoformat() for slot, _ in zip(found, range(count), strict=False)
    ]


# ---- when slots are


@pytest.mark.parametrize(
    ("schedule", "after", "expected"),
    [
        # the hour that does not exist: the next moment that does, under that name
        (
            line("30 2 * * *", "Europe/Berlin"),
            "2026-03-28T12:00",
            ["2026-03-29T03:00:00+02:00", "2026-03-30T02:30:00+02:00"],
        ),
        (
            line("30 2 * * *", "America/New_York"),
            "2026-03-07T12:00",
            ["2026-03-08T03:00:00-04:00", "2026-03-09T02:30:00-04:00"],
        ),
        (
            line("15 2 * * *", "Australia/Lord_Howe"),
            "2026-10-03T12:00",
            ["2026-10-04T02:30:00+11:00", "2026-10-05T02:15:00+11:00"],
        ),
        # the hour that comes twice: a fixed hour once, a wildcard in both
        (
            line("30 2 * * *", "Europe/Berlin"),
            "2026-10-24T12:00",
            ["2026-10-25T02:30:00+02:00", "2026-10-26T02:30:00+01:00"],
        ),
        (
            line("30 1 * * *", "America/New_York"),
            "2026-10-31T12:00",
            ["2026-11-01T01:30:00-04:00", "2026-11-02T01:30:00-05:00"],
        ),
        (
            line("45 1 * * *", "Australia/Lord_Howe"),
            "2026-04-04T12:00",
            ["2026-04-05T01:45:00+11:00", "2026-04-06T01:45:00+10:30"],
        ),
        (
            line("30 * * * *", "Europe/Berlin"),
            "2026-10-25T01:45",
            ["2026-10-25T02:30:00+02:00", "2026-10-25T02:30:00+01:00", "2026-10-25T03:30:00+01:00"],
        ),
        (
            line("45 * * * *", "Australia/Lord_Howe"),
            "2026-04-05T01:00",
            ["2026-04-05T01:45:00+11:00", "2026-04-05T01:45:00+10:30", "2026-04-05T02:45:00+10:30"],
        ),
        # asked inside the hour that comes twice, in its second pass
        (
            line("30 2 * * *", "Europe/Berlin"),
            "2026-10-25T02:10:00+01:00",
            ["2026-10-26T02:30:00+01:00"],
        ),
        (
            line("30 2 * * *", "Europe/Berlin"),
            "2026-10-25T02:40:00+02:00",
            ["2026-10-26T02:30:00+01:00"],
        ),
        (
            line("*/20 * * * *", "Europe/Berlin"),
            "2026-10-25T02:50:00+02:00",
            ["2026-10-25T02:00:00+01:00", "2026-10-25T02:20:00+01:00"],
        ),
        (
            line(every=900),
            "1970-01-01T00:00:01+00:00",
            ["1970-01-01T00:15:00+00:00", "1970-01-01T00:30:00+00:00"],
        ),
        (line(every=86400), "2026-01-01T00:00:00+00:00", ["2026-01-02T00:00:00+00:00"]),
    ],
)
def test_slots(schedule: ScheduleInfo, after: str, expected: list[str]) -> None:
    assert texts(schedule, after, len(expected)) == expected


def test_the_names_of_slots() -> None:
    schedule = line("30 2 * * *", "Europe/Berlin")
    (slot,) = [next(slots(schedule, int(datetime(2026, 3, 28, 12, tzinfo=UTC).timestamp() * 1000)))]
    assert slot_id(schedule, slot) == "s@2026-03-29T03:00:00+02:00"


@pytest.mark.parametrize(
    "zone", ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "UTC"]
)
@pytest.mark.parametrize("cron", ["30 2 * * *", "*/7 * * * *", "0 */3 * * 1-5", "15 1 1,15 * *"])
def test_a_year_of_slots_goes_forward(zone: str, cron: str) -> None:
    """Asked anew behind each slot, as a worker asks, the same come, and none twice."""
    schedule = line(cron, zone)
    begin = int(datetime(2026, 3, 1, tzinfo=UTC).timestamp() * 1000)
    whole = [slot for slot, _ in zip(slots(schedule, begin), range(400), strict=False)]
    assert whole == sorted(set(whole))
    one_by_one, after = [], begin
    for _ in range(400):
        after = next(slots(schedule, after))
        one_by_one.append(after)
    assert one_by_one == whole


# ---- who runs them


class Machine:
    """A store in memory whose wall clock a test moves."""

    def __init__(self, begin: datetime) -> None:
        self._begin = begin

    def run(self, main: Callable[[SharedBackend, Client, Wall], Awaitable[None]]) -> None:
        async def whole() -> None:
            clock = Wall(self._begin.timestamp())
            config = SdkConfig(store=":memory:", heartbeat_interval_ms=0, clock=clock)
            async with (
                open_backend(config) as backend,
                open_client(backend, tenant_id="t") as client,
            ):
                await main(backend, client, clock)

        trio.run(whole, clock=MockClock(autojump_threshold=0))


class Wall:
    """A wall clock that goes with Trio's, and jumps."""

    def __init__(self, begin: float) -> None:
        self._begin = begin - trio.current_time()
        self.jumped = 0.0

    def now(self) -> float:
        return self._begin + trio.current_time() + self.jumped


NIGHT = Schedule("night", report, ("nightly",), cron="0 3 * * *", tenant_id="t")
BEGIN = datetime(2026, 11, 26, 12, tzinfo=UTC)


async def ids_of(client: Client) -> list[str]:
    return sorted(one.instance_id for one in (await client.list(limit=1000)).instances)


def test_slots_are_run() -> None:
    async def main(backend: SharedBackend, client: Client, clock: Wall) -> None:
        async with open_worker(backend, [report], schedules=[NIGHT], stop_signals=()):
            (info,) = await client.list_schedules()
            assert info.declared
            await trio.sleep(3 * 86400)
        assert await ids_of(client) == [
            f"night@2026-11-{day}T03:00:00+00:00" for day in (27, 28, 29)
        ]
        assert await client.get("night@2026-11-28T03:00:00+00:00", report).result() == "nightly"
        (info,) = await client.list_schedules()
        assert not info.declared

    Machine(BEGIN).run(main)


def test_two_workers_and_one_slot() -> None:
    async def main(backend: SharedBackend, client: Client, clock: Wall) -> None:
        async with (
            open_worker(backend, [report], schedules=[NIGHT], stop_signals=()),
            open_worker(backend, [report], schedules=[NIGHT], stop_signals=()),
        ):
            await trio.sleep(86400)
        assert len(await ids_of(client)) == 1
        (info,) = await client.list_schedules()
        assert info.skipped == 0

    Machine(BEGIN).run(main)


def test_catching_up_after_a_week() -> None:
    """Slots younger than catch_up are run, the oldest first; the others are counted."""

    async def main(backend: SharedBackend, client: Client, clock: Wall) -> None:
        await client.set_schedule(
            msgspec.structs.replace(NIGHT, catch_up=timedelta(days=2, hours=10))
        )
        await trio.sleep(7 * 86400)
        async with open_worker(backend, [report], stop_signals=()):
            await trio.sleep(1)
            found = await ids_of(client)
            assert found == [f"night@2026-12-{day:02}T03:00:00+00:00" for day in (1, 2, 3)]
            (info,) = await client.list_schedules()
            assert info.skipped == 4

    Machine(BEGIN).run(main)


@pytest.mark.parametrize(
    ("overlap", "expected"),
    [
        ("allow", ["completed"] * 5),
        ("skip", ["completed", "completed"]),
        ("cancel", ["cancelled"] * 4 + ["completed"]),
    ],
)
def test_overlap(overlap: Any, expected: list[str]) -> None:
    async def main(backend: SharedBackend, client: Client, clock: Wall) -> None:
        each = Schedule("each", slow, every=60, overlap=overlap, tenant_id="t")
        async with open_worker(backend, [slow], schedules=[each], stop_signals=()):
            await trio.sleep(305)
            await client.pause_schedule("each")
            await trio.sleep(1000)
        statuses = [(await client.get(one).status()).value for one in await ids_of(client)]
        assert statuses == expected
        (info,) = await client.list_schedules()
        assert info.skipped == (3 if overlap == "skip" else 0)

    Machine(BEGIN).run(main)


def test_a_clock_that_jumps() -> None:
    patient = msgspec.structs.replace(NIGHT, catch_up=86400)

    async def main(backend: SharedBackend, client: Client, clock: Wall) -> None:
        async with open_worker(backend, [report], schedules=[patient], stop_signals=()):
            await trio.sleep(86400)
            clock.jumped = -12 * 3600  # the slot of today comes again, by this clock
            await trio.sleep(86400)
            clock.jumped = 0
            await trio.sleep(86400)
        assert await ids_of(client) == [
            f"night@2026-11-{day}T03:00:00+00:00" for day in (27, 28, 29)
        ]

    Machine(BEGIN).run(main)


def test_a_changed_line_runs_no_slot_of_the_past() -> None:
    async def main(backend: SharedBackend, client: Client, clock: Wall) -> None:
        await client.set_schedule(NIGHT)
        await trio.sleep(86400)
        await client.set_schedule(NIGHT)  # the same: what was missed stays to be run
        (info,) = await client.list_schedules()
        assert moment(info, info.next_ms) == datetime(2026, 11, 27, 3, tzinfo=UTC)
        other = msgspec.structs.replace(NIGHT, cron="0 4 * * *", catch_up=NEVER)
        await client.set_schedule(other)
        async with open_worker(backend, [report], stop_signals=()):
            await trio.sleep(86400)
        assert await ids_of(client) == ["night@2026-11-28T04:00:00+00:00"]

    Machine(BEGIN).run(main)


def test_pause_resume_trigger_remove() -> None:
    async def main(backend: SharedBackend, client: Client, clock: Wall) -> None:
        async with open_worker(backend, [report], schedules=[NIGHT], stop_signals=()):
            await client.pause_schedule("night")
            await trio.sleep(86400)
            assert await ids_of(client) == []
            triggered = await client.trigger_schedule("night")
            assert triggered == "night@2026-11-27T12:00:00+00:00"
            assert await client.get(triggered, report).result() == "nightly"
            await client.resume_schedule("night")
            await trio.sleep(86400)
            assert await ids_of(client) == [triggered, "night@2026-11-28T03:00:00+00:00"]
            following = await client.next_slots("night", 2)
            assert following == (
                datetime(2026, 11, 29, 3, tzinfo=UTC),
                datetime(2026, 11, 30, 3, tzinfo=UTC),
            )
            await client.remove_schedule("night")
            await trio.sleep(86400 * 3)
            assert len(await ids_of(client)) == 2
            for verb in (client.pause_schedule, client.remove_schedule, client.trigger_schedule):
                with pytest.raises(SdkError, match="there is no schedule 'night'"):
                    await verb("night")

    Machine(BEGIN).run(main)


def test_a_slot_whose_id_is_another_s(caplog: pytest.LogCaptureFixture) -> None:
    async def main(backend: SharedBackend, client: Client, clock: Wall) -> None:
        await client.start(slow, id="night@2026-11-27T03:00:00+00:00")
        async with open_worker(backend, [report, slow], schedules=[NIGHT], stop_signals=()):
            await trio.sleep(2 * 86400)
        assert len(await ids_of(client)) == 2

    Machine(BEGIN).run(main)
    assert "skips a slot: night@2026-11-27T03:00:00+00:00 is another's instance" in caplog.text


async def test_backfill_of_a_year(backend: SharedBackend, operator: Operator) -> None:
    seen: list[int] = []
    async with open_client(backend, tenant_id="t") as client:
        await client.set_schedule(Schedule("hourly", "report", cron="0 */12 * * *", tenant_id="t"))
        begin, end = datetime(2025, 1, 1, tzinfo=UTC), datetime(2025, 12, 31, 23, tzinfo=UTC)
        assert await operator.backfill("hourly", begin, end, progress=seen.append) == 730
        assert seen == [500, 730]
        assert await client.count() == 730
        assert await client.backfill("hourly", begin, end) == 730  # those that are there are left
        assert await client.count() == 730
        with pytest.raises(ConfigError, match="begin must be a time with its zone"):
            await client.backfill("hourly", datetime(2025, 1, 1), end)


async def test_on_every_store(backend: SharedBackend) -> None:
    """A slot of each second is run by one of two workers, under its name."""
    each = Schedule("each", report, every=1, tenant_id="t")
    async with (
        open_client(backend, tenant_id="t") as client,
        open_worker(backend, [report], schedules=[each]),
        open_worker(backend, [report], schedules=[each]),
    ):
        with trio.fail_after(30):
            while await client.count(workflow="report", statuses=["completed"]) < 2:
                await trio.sleep(0.02)
        names = await ids_of(client)
        assert all(one.startswith("each@") for one in names)
        times = [datetime.fromisoformat(one.partition("@")[2]) for one in names]
        assert times[1] - times[0] == timedelta(seconds=1)


async def test_a_client_of_another_tenant(memory: SharedBackend) -> None:
    async with (
        open_client(memory, tenant_id="t") as client,
        open_client(memory, tenant_id="u") as other,
    ):
        await client.set_schedule(NIGHT)
        assert await other.list_schedules() == ()
        with pytest.raises(SdkError, match="there is no schedule 'night'"):
            await other.remove_schedule("night")
        with pytest.raises(ConfigError, match="is of tenant 't', and this client of 'u'"):
            await other.set_schedule(NIGHT)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"cron": "61 * * * *"}, "cron of the schedule 'night', '61 .*', is invalid: Bad minute"),
        ({"cron": "0 0 30 2 *"}, "is invalid|has no slot at all"),
        ({"cron": None}, "either cron= or every="),
        ({"every": 60}, "either cron= or every="),
        ({"cron": None, "every": 1.5}, "must be whole seconds, not 1.5"),
        ({"cron": None, "every": 0}, "every of the schedule"),
        (
            {"timezone": "Mars/Olympus"},
            "timezone of the schedule 'night', 'Mars/Olympus', is unknown",
        ),
        ({"overlap": "queue"}, "must be one of allow, skip, cancel, not 'queue'"),
        ({"tenant_id": None}, "needs tenant_id="),
        ({"name": ""}, "the name of a schedule is empty"),
        ({"name": "n" * 401}, "is too long; at most 400 bytes"),
        ({"catch_up": math.nan}, "catch_up of the schedule"),
    ],
)
async def test_invalid_schedules(memory: SharedBackend, change: dict[str, Any], match: str) -> None:
    wrong = msgspec.structs.replace(NIGHT, **change)
    async with open_client(memory, tenant_id="t") as client:
        with pytest.raises(ConfigError, match=match):
            await client.set_schedule(wrong)
        with pytest.raises(ConfigError, match=match):
            open_worker(memory, [report], schedules=[wrong])
        assert await client.list_schedules() == ()
    with pytest.raises(ConfigError, match="two of one name"):
        open_worker(memory, [report], schedules=[NIGHT, NIGHT])
