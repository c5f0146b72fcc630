"""Workers in several processes: killed, stopped, drained, blocked. No run is lost, none is in two
places, and nothing that was saved is done again."""

from __future__ import annotations

import json
import random
import signal
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from runtara_trio import (
    Client,
    InstanceHandle,
    InstanceStatus,
    Operator,
    RunState,
    Start,
    open_backend,
    open_client,
)
from runtara_trio.types import RunInfo

from ..helpers.fleet import open_fleet
from ..helpers.places import Shared
from ..helpers.support import Program, sql, start

LONG = 60
"""Seconds for all that a test waits for; a lease that is not to be waited for is longer."""


async def results_of(handles: list[InstanceHandle[Any]]) -> dict[str, list[str]]:
    return {one.id: await one.result(list[str], timeout=LONG) for one in handles}


async def run_of(handle: InstanceHandle[Any]) -> RunInfo:
    found = (await handle.show()).summary.run
    assert found is not None
    return found


async def until_state(handle: InstanceHandle[Any], state: RunState) -> None:
    with trio.fail_after(LONG):
        while (await run_of(handle)).state is not state:
            await trio.sleep(0.02)


async def start_steps(
    client: Client, runs: int, steps: int, seconds: float
) -> list[InstanceHandle[Any]]:
    starts = [one_of(f"r{number}", steps, seconds) for number in range(runs)]
    return await client.start_many("steps", starts, version=1)


def one_of(instance: str, *args: object) -> Start[*tuple[Any, ...]]:
    return Start(args=args, id=instance)


def pids_of(tokens: list[str]) -> list[int]:
    return [int(token.split("/")[0]) for token in tokens]


# ---- kills


async def test_workers_are_killed_again_and_again(shared: Shared, tmp_path: Path) -> None:
    """At random points of the work; others go on, and one takes the place of each."""
    draw = random.Random(500)
    runs, steps, kills = 500, 20, 20
    async with (
        open_client(shared.url, tenant_id="t") as client,
        open_fleet(shared, tmp_path) as fleet,
    ):
        handles = await start_steps(client, runs, steps, 0.01)
        workers = [await fleet.start(slots=10) for _ in range(3)]
        points = sorted(draw.sample(range(runs * steps * 5 // 2), kills))  # lines of the ledger
        killed = []

        async def replace() -> None:
            workers.append(await fleet.start(slots=10))

        async with trio.open_nursery() as nursery:
            for point in points:
                await fleet.until_lines(point)
                await fleet.until(lambda: bool(workers))
                killed.append(workers.pop(draw.randrange(len(workers))))
                await fleet.kill(killed[-1])
                nursery.start_soon(replace)
            results = await results_of(handles)
    assert all(len(tokens) == steps for tokens in results.values())
    fleet.ledger.check(results)


@pytest.mark.direct
async def test_a_poison_run_is_parked_and_its_neighbours_are_not(
    shared: Shared, tmp_path: Path
) -> None:
    """It kills its process, again and again, until it is alone there."""
    async with (
        open_client(shared.url, tenant_id="t") as client,
        open_fleet(shared, tmp_path) as fleet,
    ):
        # Four begin beside it, and save nothing before it kills them.
        poison = await client.start("poison", id="p", version=1)
        handles = await start_steps(client, 4, 1, 0.3)

        async def feed() -> None:
            """Others are ready all the time, for whoever lets them run beside the suspect."""
            while len(fleet.ledger.lines("poison")) < 3:
                begun = {one.instance for one in fleet.ledger.lines("begin")}
                if len(handles) - len(begun) < 10:
                    starts = [one_of(f"o{len(handles) + more}", 1, 0.3) for more in range(10)]
                    handles.extend(await client.start_many("steps", starts, version=1))
                await trio.sleep(0.02)

        async def supervise() -> None:
            while True:
                worker = await fleet.start(max_recoveries=3, slots=5)
                assert await fleet.ended(worker) == -signal.SIGKILL
                fleet.ledger.note("kill", worker)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(supervise)
            nursery.start_soon(feed)
            await until_state(poison, RunState.PARKED)
            results = await results_of(handles)
            deaths = fleet.ledger.lines("kill")
            assert len(deaths) == 3
            assert (await run_of(poison)).recoveries == 3
            assert await poison.status() is InstanceStatus.SUSPENDED
            events = (await poison.events()).events
            assert b"its worker died 3 times in a row" in (events[-1].payload or b"")
            for handle in handles:
                assert (await run_of(handle)).state is RunState.ENDED
            # The last death was its own alone.
            lines = [one for one in fleet.ledger.lines() if one.pid == deaths[-1].pid]
            assert [one.instance for one in lines[-2:]] == ["p", "-"]
            ends = {one.instance for one in lines if one.what == "end"}
            assert {one.instance for one in lines if one.what == "begin"} == ends
            fleet.open_gate("cure")
            await poison.resume()
            assert await poison.result(str, timeout=LONG) == "cured"
            nursery.cancel_scope.cancel()
    fleet.ledger.check(results)


@pytest.mark.direct
async def test_a_death_in_a_wait_is_not_counted(shared: Shared, tmp_path: Path) -> None:
    """Its worker is killed more often than ``max_recoveries``, while it waits for a signal."""
    async with (
        open_backend(shared.url) as backend,
        open_client(backend, tenant_id="t") as client,
        open_fleet(shared, tmp_path) as fleet,
    ):
        handle = await client.start("asks", ["a"], id="i", version=1)
        worker = await fleet.start(max_recoveries=2)
        for _ in range(3):
            await fleet.until_noted("asks", "i", pid=worker.pid)
            with trio.fail_after(LONG):  # until the store knows that it waits
                while not (await sql(backend, "SELECT waits FROM runtara_trio_runs"))[0][0]:
                    await trio.sleep(0.02)
            successor = await fleet.start(max_recoveries=2)
            await fleet.kill(worker)
            before = trio.current_time()
            await fleet.until_noted("asks", "i", pid=successor.pid)
            # A second on a file and four on a server are promised, a slow machine takes longer.
            assert trio.current_time() - before < (3 if "sqlite" in shared.url else 10)
            assert (await run_of(handle)).recoveries == 0
            worker = successor
        await handle.signal("a", b"yes")
        assert await handle.result(list[str], timeout=LONG) == ["yes"]
    fleet.ledger.check({"i": []})


# ---- drains


async def test_a_drain_hands_over_each_run_by_itself(shared: Shared, tmp_path: Path) -> None:
    """The successor has it while the first still waits for the step of another."""
    async with (
        open_client(shared.url, tenant_id="t") as client,
        open_fleet(shared, tmp_path) as fleet,
    ):
        first = await fleet.start(lease_ms=600_000, drain_timeout=100)
        quick = [
            await client.start("job", 2, "one", id=f"q{number}", version=1) for number in range(5)
        ]
        slow = await client.start("job", 2, "two", id="slow", version=1)
        asks = await client.start("asks", ["a"], id="asks", version=1)
        for handle in (*quick, slow):
            await fleet.until_noted("begin", handle.id)
        await fleet.until_noted("asks")
        second = await fleet.start(lease_ms=600_000)
        fleet.ledger.note("drain", first)
        first.send(signal.SIGTERM)
        await fleet.until(lambda: "draining" in first.lines)
        await fleet.until_noted("asks", pid=second.pid)
        await asks.signal("a", b"yes")
        assert await asks.result(list[str], timeout=LONG) == ["yes"]
        fleet.open_gate("one")
        results = await results_of(quick)
        assert first.process.poll() is None
        fleet.open_gate("two")
        assert await fleet.ended(first) == 128 + signal.SIGTERM
        results |= await results_of([slow])
        for instance, tokens in results.items():
            results[instance] = tokens[1:]
            assert pids_of(tokens[1:]) == [first.pid, second.pid]
            assert (await run_of(client.get(instance))).recoveries == 0
            events = (await client.get(instance).events()).events
            assert b"drained by its worker" in [one.payload for one in events]
    assert len(fleet.ledger.lines("begin")) == len(fleet.ledger.lines("end")) == 12
    fleet.ledger.check(results)


async def test_workers_are_drained_again_and_again(shared: Shared, tmp_path: Path) -> None:
    """Each step begins once and ends once."""
    draw = random.Random(143)
    runs, steps, drains = 200, 10, 6
    async with (
        open_client(shared.url, tenant_id="t") as client,
        open_fleet(shared, tmp_path) as fleet,
    ):
        handles = await start_steps(client, runs, steps, 0.01)
        workers = [await fleet.start(slots=10, lease_ms=600_000) for _ in range(3)]
        for number in range(1, drains + 1):
            await fleet.until_lines(number * runs * steps * 3 // (drains + 2))
            leaving = workers.pop(draw.randrange(len(workers)))
            await fleet.drain(leaving)
            workers.append(await fleet.start(slots=10, lease_ms=600_000))
        results = await results_of(handles)
    assert len(fleet.ledger.lines("begin")) == len(fleet.ledger.lines("end")) == runs * steps
    fleet.ledger.check(results)


async def test_a_stop_signal_at_the_first_moment(shared: Shared, tmp_path: Path) -> None:
    options = json.dumps({"terminates": True})
    async with start("runs.py", shared.url, tmp_path, options) as program:
        assert await program.wait() == 128 + signal.SIGTERM


# ---- leases


async def test_a_worker_that_was_stopped_past_its_lease(shared: Shared, tmp_path: Path) -> None:
    """Another one takes over; what the first writes then is fenced, and it works on."""
    async with (
        open_client(shared.url, tenant_id="t") as client,
        open_fleet(shared, tmp_path) as fleet,
    ):
        first = await fleet.start(lease_ms=1000)
        held = await client.start("job", 2, "gate", id="held", version=1)
        asks = await client.start("asks", ["a", "b"], id="asks", version=1)
        await fleet.until_noted("begin", "held")
        await fleet.until_noted("asks")
        second = await fleet.start(lease_ms=1000)
        shared.stop(first)
        fleet.open_gate()
        tokens = await held.result(list[str], timeout=LONG)
        assert pids_of(tokens[1:]) == [second.pid] * 2
        await fleet.until_noted("asks", pid=second.pid)
        await asks.signal("a", b"one")
        first.send(signal.SIGCONT)
        await asks.signal("b", b"two")
        assert await asks.result(list[str], timeout=LONG) == ["one", "two"]
        await fleet.drain(second)
        others = await start_steps(client, 10, 5, 0.0)
        results = await results_of(others)
        assert {pid for found in results.values() for pid in pids_of(found)} == {first.pid}
        assert await held.result(list[str], timeout=LONG) == tokens
        saved = fleet.ledger.lines("saved", "held")
        assert [one.token for one in saved] == tokens[1:]
        assert first.process.poll() is None
        async with open_backend(shared.url) as backend:
            page = await Operator(backend).checkpoints("held")
        states = b" ".join(one.state for one in page.checkpoints)
        assert str(first.pid).encode() not in states
    fleet.ledger.check(results)


async def test_a_worker_that_was_stopped_while_it_wrote(shared: Shared, tmp_path: Path) -> None:
    """It goes on while another one works on what it had, with writes that it has sent before."""
    runs, steps = 40, 40
    async with (
        open_client(shared.url, tenant_id="t") as client,
        open_fleet(shared, tmp_path) as fleet,
    ):
        first = await fleet.start(slots=30, lease_ms=500)
        second = await fleet.start(slots=5, lease_ms=500)
        handles: list[InstanceHandle[Any]] = []
        for _ in range(3):
            with trio.fail_after(LONG):  # the second may end a batch before the first is awake
                while len(fleet.ledger.unfinished(first.pid, steps)) < 10:
                    saved = {one.instance for one in fleet.ledger.lines("saved")}
                    if len(handles) - len(saved) < runs:
                        starts = [
                            one_of(f"r{len(handles) + more}", steps, 0.0) for more in range(runs)
                        ]
                        handles += await client.start_many("steps", starts, version=1)
                    await trio.sleep(0.005)
            fleet.ledger.note("stop", first)
            shared.stop(first)
            had = fleet.ledger.unfinished(first.pid, steps)
            await fleet.until(partial(fleet.ledger.has_begun, second.pid, had))
            first.send(signal.SIGCONT)
        results = await results_of(handles)
        assert first.process.poll() is None
    fleet.ledger.check(results, stopped=first.pid)


async def test_a_worker_whose_loop_is_blocked_keeps_its_runs(
    shared: Shared, tmp_path: Path
) -> None:
    """A thread renews its leases."""
    async with (
        open_backend(shared.url) as backend,
        open_client(backend, tenant_id="t") as client,
        open_fleet(shared, tmp_path) as fleet,
    ):
        first = await fleet.start(lease_ms=300)
        held = await client.start("job", 2, "gate", id="held", version=1)
        await fleet.until_noted("begin", "held")
        blocks = await client.start("blocks", id="blocks", version=1)
        await fleet.until_noted("begin", "blocks")
        second = await fleet.start(lease_ms=300)
        seen: set[Any] = set()
        with trio.fail_after(LONG):
            while len(seen) < 30:  # ten leases, and several looks of the second
                seen.update(
                    await sql(
                        backend,
                        "SELECT * FROM runtara_trio_owners"
                        f" WHERE holder LIKE 'process {first.pid} %'",
                    )
                )
                await trio.sleep(0.02)
        others = await start_steps(client, 10, 2, 0.0)
        results = await results_of(others)
        assert {pid for found in results.values() for pid in pids_of(found)} == {second.pid}
        fleet.open_gate()
        results |= await results_of([held, blocks])
        results["held"] = results["held"][1:]
        assert set(pids_of(results["held"] + results["blocks"])) == {first.pid}
        assert (await run_of(held)).recoveries == (await run_of(blocks)).recoveries == 0
    fleet.ledger.check(results)


# ---- starts, versions, signals


async def test_two_processes_start_the_same_id_at_once(shared: Shared, tmp_path: Path) -> None:
    """There is one instance, which runs once, and both get its result."""
    count = 20
    async with (
        open_client(shared.url, tenant_id="t") as client,
        open_fleet(shared, tmp_path) as fleet,
    ):
        await fleet.start()
        printed: list[list[str]] = []

        async def end(program: Program) -> None:
            assert await program.wait() == 0, program.lines
            printed.append([line for line in program.lines if line != "ready"])

        arguments = (shared.url, tmp_path / "gate", count)
        async with start("starts.py", *arguments) as one, start("starts.py", *arguments) as two:
            await one.line("ready")
            await two.line("ready")
            fleet.open_gate()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(end, one)
                nursery.start_soon(end, two)
        first, second = ([line for line in lines if "result" in line] for lines in printed)
        assert len(first) == count
        assert first == second
        made = [line for lines in printed for line in lines if line.startswith("made")]
        assert len(made) == len(set(made)) == count
        results = {}
        for line in first:
            _, instance, *tokens = line.split()
            results[instance] = tokens
        assert len((await client.list(limit=1000)).instances) == 2 * count
        for number in range(count):
            await client.get(f"one{number}").result(timeout=LONG)
    for number in range(count):
        assert len(fleet.ledger.lines("begin", f"both{number}")) == 2
        assert len(fleet.ledger.lines("begin", f"one{number}")) == 1
    fleet.ledger.check(results)


async def test_a_rolling_deployment(shared: Shared, tmp_path: Path) -> None:
    """Each version's runs go to the workers that know it."""
    async with (
        open_client(shared.url, tenant_id="t") as client,
        open_fleet(shared, tmp_path) as fleet,
    ):
        old, new = await fleet.start(version=1), await fleet.start(version=2)
        fleet.open_gate("one")
        handles = {
            version: [await client.start("job", 3, "one", version=version) for _ in range(10)]
            for version in (1, 2)
        }
        handles[2].append(await client.start("job", 3, "one"))  # the newest that lives
        results: dict[str, list[str]] = {}
        for version, pid in ((1, old.pid), (2, new.pid)):
            for instance, found in (await results_of(handles[version])).items():
                assert found[0] == f"version {version}"
                results[instance] = found[1:]
                assert set(pids_of(found[1:])) == {pid}
        # The old worker ends in the middle of a run, and before another.
        half = await client.start("job", 2, "two", id="half", version=1)
        await fleet.until_noted("begin", "half")
        fleet.ledger.note("drain", old)
        old.send(signal.SIGTERM)
        await fleet.until(lambda: "draining" in old.lines)
        fleet.open_gate("two")
        assert await fleet.ended(old) == 128 + signal.SIGTERM
        left = await client.start("job", 2, "two", id="left", version=1)
        await (await client.start("job", 2, "two", version=2)).result(timeout=LONG)
        assert (await run_of(half)).state is (await run_of(left)).state is RunState.READY
        assert await half.status() is InstanceStatus.SUSPENDED
        assert await left.status() is InstanceStatus.PENDING
        bridge = await fleet.start(version=2, versions={"job": [1]})
        ends = await results_of([half, left])
        assert ends["half"][0] == ends["left"][0] == "version 2"
        assert pids_of(ends["half"][1:]) == [old.pid, bridge.pid]
        assert pids_of(ends["left"][1:]) == [bridge.pid] * 2
        results |= {instance: tokens[1:] for instance, tokens in ends.items()}
    fleet.ledger.check(results)


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_signals_that_come_while_runs_are_unloaded(
    shared: Shared, tmp_path: Path, seed: int
) -> None:
    """Each run waits three times, and is unloaded at once. Its signals come at any moment."""
    draw = random.Random(seed)
    runs, questions = 60, ["a", "b", "c"]
    async with (
        open_client(shared.url, tenant_id="t") as client,
        open_fleet(shared, tmp_path) as fleet,
    ):
        for _ in range(2):
            await fleet.start(max_loaded=1)

        async def answer(handle: InstanceHandle[Any], moments: list[float]) -> None:
            for question, moment in zip(questions, moments, strict=True):
                await trio.sleep(moment)  # not for something: the moments are to differ
                await handle.signal(question, f"{handle.id} {question}".encode())

        async with trio.open_nursery() as nursery:
            for number in range(runs):
                handle = await client.start("asks", questions, id=f"r{number}", version=1)
                nursery.start_soon(answer, handle, [draw.uniform(0, 0.2) for _ in questions])
                await trio.sleep(draw.uniform(0, 0.02))
        for number in range(runs):
            found = await client.get(f"r{number}").result(list[str], timeout=LONG)
            assert found == [f"r{number} {question}" for question in questions]
    assert len(fleet.ledger.lines("asks")) > runs  # many were loaded again
