"""What becomes of a run: every row of the table, on every store."""

from __future__ import annotations

import contextlib

import pytest
import trio

from runtara_trio import (
    InstanceBusy,
    InstanceFailed,
    InstanceStatus,
    NonRetryable,
    Operator,
    RunState,
    RuntaraSdk,
    SharedBackend,
    Start,
    StoreError,
    Worker,
    durable,
    open_client,
    open_runtara,
    open_worker,
    workflow,
)

from ..helpers.runs import Log, working
from ..helpers.support import until


async def test_a_run_returns(backend: SharedBackend) -> None:
    @workflow
    async def add(sdk: RuntaraSdk, one: int, two: int = 2) -> int:
        return one + two

    async with working(backend, add) as (_, client):
        handle = await client.start(add, 1, 5, id="first")
        assert await handle.result(timeout=30) == 6
        by_name = await client.start("add", 1)
        assert await by_name.result(int, timeout=30) == 3
        shown = await handle.show()
        assert shown.summary.status is InstanceStatus.COMPLETED
        assert shown.summary.run is not None
        assert shown.summary.run.state is RunState.ENDED
        assert shown.output == b"6"


async def test_a_run_that_raises_fails(backend: SharedBackend) -> None:
    @workflow
    async def wrong(sdk: RuntaraSdk) -> None:
        raise ValueError("no such parcel")

    async with working(backend, wrong) as (_, client):
        handle = await client.start(wrong)
        with pytest.raises(InstanceFailed, match="is failed: ValueError: no such parcel") as failed:
            await handle.result(timeout=30)
        assert failed.value.status is InstanceStatus.FAILED
        assert "Traceback" in (failed.value.error or "")


async def test_attempts(backend: SharedBackend, log: Log) -> None:
    """What is saved is not done again, and saved failures are forgotten."""

    @durable
    async def step(name: str) -> str:
        log.did.append(name)
        return name

    @durable(max_retries=0)
    async def fails() -> str:
        log.did.append("fails")
        if log.did.count("fails") < 3:
            raise OSError("away")
        return "at last"

    @workflow(max_attempts=3, retry_delay=0.01)
    async def job(sdk: RuntaraSdk) -> str:
        await step("once")
        return await fails()

    async with working(backend, job) as (_, client):
        handle = await client.start(job, id="j")
        assert await handle.result(timeout=30) == "at last"
        assert log.did == ["once", "fails", "fails", "fails"]
        errors = [one.payload for one in (await handle.events()).events if one.type == "suspended"]
        assert len(errors) == 2
        assert all(error.startswith(b"OSError: away\n") for error in errors)


@pytest.mark.parametrize("error", [NonRetryable("never"), ExceptionGroup("g", [NonRetryable()])])
async def test_what_is_not_tried_again(backend: SharedBackend, error: Exception, log: Log) -> None:
    @workflow(max_attempts=3, retry_delay=0)
    async def job(sdk: RuntaraSdk) -> None:
        log.did.append("ran")
        raise error

    async with working(backend, job) as (_, client):
        handle = await client.start(job)
        with pytest.raises(InstanceFailed):
            await handle.result(timeout=30)
    assert log.did == ["ran"]


async def test_the_last_attempt_fails(backend: SharedBackend, log: Log) -> None:
    @workflow(max_attempts=2, retry_delay=0.01)
    async def job(sdk: RuntaraSdk) -> None:
        log.did.append("ran")
        raise OSError("away")

    async with working(backend, job) as (_, client):
        with pytest.raises(InstanceFailed):
            await (await client.start(job)).result(timeout=30)
    assert log.did == ["ran", "ran"]


async def test_an_operator_cancels(backend: SharedBackend, log: Log) -> None:
    @workflow
    async def waits(sdk: RuntaraSdk) -> None:
        log.began.set()
        await sdk.sleep(1000, "long")

    async with working(backend, waits) as (_, client):
        handle = await client.start(waits)
        await log.began.wait()
        await handle.cancel()
        with pytest.raises(InstanceFailed, match="is cancelled") as failed:
            await handle.result(timeout=30)
        assert failed.value.status is InstanceStatus.CANCELLED


async def test_an_operator_pauses_and_resumes(backend: SharedBackend, log: Log) -> None:
    @workflow
    async def waits(sdk: RuntaraSdk) -> str:
        log.did.append("began")
        await sdk.sleep(0.3, "nap")
        return "done"

    async with working(backend, waits) as (worker, client):
        handle = await client.start(waits)
        await until(lambda: log.did == ["began"])
        await handle.pause()
        await until(lambda: worker.health().loaded == 0)
        summary = (await handle.show()).summary
        assert summary.status is InstanceStatus.SUSPENDED
        assert summary.run is not None
        assert summary.run.state is RunState.PAUSED
        assert "the next free worker" in (await handle.resume()).text
        assert await handle.result(timeout=30) == "done"


async def test_a_resume_while_a_pause_ends_the_run(backend: SharedBackend, log: Log) -> None:
    """It is too late to take the pause back: the run goes on once it has ended."""

    @workflow
    async def waits(sdk: RuntaraSdk) -> str:
        log.did.append("ran")
        try:
            await sdk.sleep(1000 if len(log.did) == 1 else 0, f"nap {len(log.did)}")
        except trio.Cancelled:
            log.began.set()
            with trio.CancelScope(shield=True):
                await log.go.wait()
            raise
        return "done"

    async with working(backend, waits) as (worker, client):
        handle = await client.start(waits)
        await until(lambda: log.did == ["ran"])
        (run,) = worker._runs.values()
        await until(lambda: run.block.waits.all() is not None)
        await handle.pause()
        await log.began.wait()
        await handle.resume()
        await until(lambda: run.block.signals.resumed)
        log.go.set()
        assert await handle.result(timeout=30) == "done"


async def test_a_pause_before_the_first_run(backend: SharedBackend, log: Log) -> None:
    @workflow
    async def job(sdk: RuntaraSdk) -> str:
        log.did.append("ran")
        return "done"

    async with open_client(backend, tenant_id="t") as client:
        handle = await client.start(job)
        assert "no worker takes it" in (await handle.pause()).text
        other = await client.start(job)
        async with open_worker(backend, [job]):
            await other.result(timeout=30)
            assert log.did == ["ran"]
            assert await handle.status() is InstanceStatus.PENDING
            await handle.resume()
            assert await handle.result(timeout=30) == "done"


async def test_a_cancel_before_the_first_run(backend: SharedBackend) -> None:
    @workflow
    async def job(sdk: RuntaraSdk) -> None: ...

    async with open_client(backend, tenant_id="t") as client:
        handle = await client.start(job)
        assert (await handle.cancel()).text == "cancelled"
        with pytest.raises(InstanceFailed, match="is cancelled"):
            await handle.result(timeout=30)


async def test_a_body_that_suspends_itself(backend: SharedBackend, log: Log) -> None:
    @workflow
    async def job(sdk: RuntaraSdk) -> str:
        log.did.append("ran")
        if len(log.did) == 1:
            await sdk.suspended("for a person")
        return "done"

    async with working(backend, job) as (worker, client):
        handle = await client.start(job)
        await until(lambda: bool(log.did) and worker.health().loaded == 0)
        run = (await handle.show()).summary.run
        assert run is not None
        assert run.state is RunState.PAUSED
        await handle.resume()
        assert await handle.result(timeout=30) == "done"


async def test_a_store_in_trouble_counts_no_attempt(backend: SharedBackend, log: Log) -> None:
    @workflow
    async def job(sdk: RuntaraSdk) -> str:
        log.did.append("ran")
        if len(log.did) == 1:
            raise StoreError("the disk is full", transient=True)
        return "done"

    async with working(backend, job) as (_, client):
        assert await (await client.start(job)).result(timeout=30) == "done"


async def test_a_drain(backend: SharedBackend, log: Log) -> None:
    """No step is torn apart; another worker goes on at once."""

    @durable
    async def step(name: str) -> str:
        log.did.append(f"{name} begins")
        log.began.set()
        await log.go.wait()
        log.did.append(f"{name} ends")
        return name

    @workflow
    async def job(sdk: RuntaraSdk) -> str:
        return await step("one") + await step("two")

    async with open_client(backend, tenant_id="t") as client:
        handle = await client.start(job)
        async with open_worker(backend, [job]) as first:
            await log.began.wait()
            first.drain()
            assert first.health().draining
            await trio.testing.wait_all_tasks_blocked()
            log.go.set()
            await first.wait_ended()
        assert log.did == ["one begins", "one ends"]
        run = (await handle.show()).summary.run
        assert run is not None
        assert run.state is RunState.READY
        async with open_worker(backend, [job]):
            assert await handle.result(timeout=30) == "onetwo"
        assert log.did == ["one begins", "one ends", "two begins", "two ends"]


async def test_a_resume_does_not_withdraw_a_drain(backend: SharedBackend, log: Log) -> None:
    @durable
    async def step() -> None:
        log.began.set()
        await log.go.wait()

    @workflow
    async def job(sdk: RuntaraSdk) -> None:
        await step()
        log.did.append("behind the step")

    async with open_client(backend, tenant_id="t") as client:
        handle = await client.start(job)
        async with open_worker(backend, [job]) as worker:
            await log.began.wait()
            worker.drain()
            await handle.resume()
            log.go.set()
        assert log.did == []


async def test_a_pause_before_a_drain_stays_a_pause(backend: SharedBackend, log: Log) -> None:
    @durable
    async def step() -> None:
        log.began.set()
        await log.go.wait()

    @workflow
    async def job(sdk: RuntaraSdk) -> None:
        await step()

    async with open_client(backend, tenant_id="t") as client:
        handle = await client.start(job)
        async with open_worker(backend, [job]) as worker:
            await log.began.wait()
            await handle.pause()
            (run,) = worker._runs.values()
            await until(lambda: run.block.boundary.pause_requested)
            worker.drain()
            log.go.set()
        found = (await handle.show()).summary.run
        assert found is not None
        assert found.state is RunState.PAUSED


async def test_the_grace_of_a_drain(backend: SharedBackend, log: Log) -> None:
    @workflow
    async def job(sdk: RuntaraSdk) -> None:
        log.began.set()
        await trio.sleep_forever()

    async with open_client(backend, tenant_id="t") as client:
        handle = await client.start(job)
        async with open_worker(backend, [job], drain_timeout=0.01):
            await log.began.wait()
        run = (await handle.show()).summary.run
        assert run is not None
        assert run.state is RunState.READY


async def test_an_error_while_a_drain_cancels_counts_no_attempt(
    backend: SharedBackend, log: Log
) -> None:
    @workflow(max_attempts=2, retry_delay=1000)
    async def job(sdk: RuntaraSdk) -> str:
        log.did.append("ran")
        if len(log.did) == 1:
            log.began.set()
            try:
                await trio.sleep_forever()
            finally:
                raise ValueError("in the clean-up")
        return "done"

    async with open_client(backend, tenant_id="t") as client:
        handle = await client.start(job)
        async with open_worker(backend, [job], drain_timeout=0.01):
            await log.began.wait()
        async with open_worker(backend, [job]):
            assert await handle.result(timeout=30) == "done"


async def test_a_deadline_of_the_whole(backend: SharedBackend) -> None:
    @workflow(timeout=0.1, max_attempts=5)
    async def slow(sdk: RuntaraSdk) -> None:
        await sdk.sleep(1000, "long")

    async with working(backend, slow) as (_, client):
        with pytest.raises(InstanceFailed, match="timed out"):
            await (await client.start(slow)).result(timeout=30)


async def test_what_nobody_knows_stays(backend: SharedBackend, log: Log) -> None:
    @workflow(version=2)
    async def job(sdk: RuntaraSdk) -> None:
        log.did.append("ran")

    async with working(backend, job) as (_, client):
        newer = await client.start(job, version=3)
        other = await client.start("unknown")
        elsewhere = await client.start(job, queue="maill")
        old = await client.start(job, version=1)
        await (await client.start(job)).result(timeout=30)
        assert log.did == ["ran"]
        for handle in (newer, other, elsewhere, old):
            assert await handle.status() is InstanceStatus.PENDING
    async with working(backend, job, versions={"job": [1]}):
        await old.result(timeout=30)


async def test_a_block_takes_a_run_out_of_its_queue(backend: SharedBackend, log: Log) -> None:
    @workflow
    async def job(sdk: RuntaraSdk) -> str:
        log.began.set()
        await log.go.wait()
        return "by a worker"

    @workflow
    async def other(sdk: RuntaraSdk) -> None: ...

    async with open_client(backend, tenant_id="t") as client:
        handle = await client.start(job, id="mine")
        with pytest.raises(RuntimeError):
            async with open_runtara(backend, instance_id="mine", tenant_id="t"):
                async with open_worker(backend, [job, other]):
                    await (await client.start(other)).result(timeout=30)
                    assert not log.began.is_set()
                raise RuntimeError
        assert await handle.status() is InstanceStatus.FAILED
        second = await client.start(job, id="second")
        async with open_worker(backend, [job]):
            await log.began.wait()
            with pytest.raises(InstanceBusy):
                async with open_runtara(backend, instance_id="second", tenant_id="t"):
                    pass
            log.go.set()
            assert await second.result(timeout=30) == "by a worker"


async def test_one_slot_and_many_waits(backend: SharedBackend, operator: Operator) -> None:
    """A run that waits costs no slot: each waits for what the others bring."""

    @workflow
    async def asks(sdk: RuntaraSdk) -> str:
        return (await sdk.wait_for_signal("answer")).decode()

    @workflow
    async def naps(sdk: RuntaraSdk) -> str:
        await sdk.sleep(0.05, "nap")
        return "rested"

    async with working(backend, asks, naps, slots=1) as (worker, client):
        first = [await client.start(asks) for _ in range(5)]
        second = [await client.start(naps) for _ in range(5)]
        for handle in second:
            assert await handle.result(timeout=30) == "rested"
        await until(lambda: worker.health().loaded == 5)
        assert worker.health().working == 0
        for handle in first:
            await handle.signal("answer", b"yes")
        for handle in first:
            assert await handle.result(timeout=30) == "yes"


async def test_unloading(backend: SharedBackend, log: Log) -> None:
    """What waits longest is unloaded, and loaded again when what it waits for is there."""

    @workflow
    async def asks(sdk: RuntaraSdk) -> str:
        log.did.append(sdk.instance_id)
        return (await sdk.wait_for_signal("answer")).decode()

    @workflow
    async def naps(sdk: RuntaraSdk) -> str:
        await sdk.sleep(0.5, "nap")
        return "rested"

    async with working(backend, asks, naps, max_loaded=2) as (worker, client):
        handles = [await client.start(asks) for _ in range(4)]
        nap = await client.start(naps)
        await until(lambda: len(log.did) == 4 and worker.health().loaded <= 2)
        shown = [(await one.show()).summary.run for one in handles]
        waiting = [one for one in shown if one is not None and one.state is RunState.WAITING]
        assert len(waiting) >= 2
        assert all(one.waiting_for == ("answer",) for one in waiting)
        for handle in handles:
            await handle.signal("answer", handle.id.encode())
        for handle in handles:
            assert await handle.result(timeout=30) == handle.id
        assert await nap.result(timeout=30) == "rested"


async def test_turns(backend: SharedBackend, log: Log) -> None:
    """A flood of one tenant, or of one key, starves nobody; then by priority, then by age."""

    @workflow
    async def job(sdk: RuntaraSdk, name: str) -> None:
        log.did.append(name)

    async with (
        open_client(backend, tenant_id="a") as one,
        open_client(backend, tenant_id="b") as two,
    ):
        flood = [await one.start(job, f"a{number}") for number in range(6)]
        urgent = await one.start(job, "urgent", priority=9)
        other = await two.start(job, "b0")
        async with open_worker(backend, [job], slots=1):
            for handle in (*flood, urgent, other):
                await handle.result(timeout=30)
    assert log.did.index("b0") <= 1
    assert log.did.index("urgent") <= 1
    assert [name for name in log.did if name.startswith("a")] == [f"a{n}" for n in range(6)]


async def test_a_worker_of_one_tenant(backend: SharedBackend, log: Log) -> None:
    """It finds its runs behind any number of those of others."""

    @workflow
    async def job(sdk: RuntaraSdk) -> None:
        log.did.append(sdk.tenant_id)

    async with open_client(backend, tenant_id="z") as mine:
        for number in range(5):
            async with open_client(backend, tenant_id=f"a{number}") as other:
                await other.start(job)
        handles = [await mine.start(job) for _ in range(3)]
        async with open_worker(backend, [job], slots=1, tenant_ids=["z"]):
            for handle in handles:
                await handle.result(timeout=30)
    assert log.did == ["z", "z", "z"]


async def test_what_ends_the_process_drains(backend: SharedBackend, log: Log) -> None:
    @workflow
    async def leaves(sdk: RuntaraSdk) -> None:
        log.did.append("ran")
        raise SystemExit(3)

    async with open_client(backend, tenant_id="t") as client:
        handle = await client.start(leaves)
        with pytest.raises(SystemExit) as left:
            async with open_worker(backend, [leaves]):
                await trio.sleep_forever()
        assert left.value.code == 3
        run = (await handle.show()).summary.run
        assert run is not None
        assert run.state is RunState.READY
    assert log.did == ["ran"]


async def test_a_cancelled_scope_around_the_worker(backend: SharedBackend, log: Log) -> None:
    @workflow
    async def job(sdk: RuntaraSdk) -> None:
        log.began.set()
        with contextlib.suppress(ValueError):
            await trio.sleep_forever()

    async with open_client(backend, tenant_id="t") as client:
        handle = await client.start(job)
        with trio.CancelScope() as scope:
            async with open_worker(backend, [job]):
                await log.began.wait()
                scope.cancel()
                await trio.sleep_forever()
        assert scope.cancelled_caught
        run = (await handle.show()).summary.run
        assert run is not None
        assert run.state is RunState.READY


async def test_a_mistake_in_a_service_ends_nothing(
    backend: SharedBackend, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed: list[str] = []

    def fails(self: Worker) -> None:
        failed.append("unload")
        raise RuntimeError("a mistake of ours")

    @workflow
    async def asks(sdk: RuntaraSdk) -> str:
        return (await sdk.wait_for_signal("answer")).decode()

    monkeypatch.setattr(Worker, "_unload", fails)
    async with working(backend, asks, max_loaded=1) as (_, client):
        handles = [await client.start(asks) for _ in range(3)]
        await until(lambda: bool(failed))
        for handle in handles:
            await handle.signal("answer", b"yes")
        for handle in handles:
            assert await handle.result(timeout=30) == "yes"


async def test_a_worker_that_fails_fails_no_run(
    backend: SharedBackend, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What ends its services unawares is no error of a run: another worker goes on with it."""

    class Broken(BaseException):
        pass

    def fails(self: Worker) -> None:
        raise Broken

    @workflow
    async def job(sdk: RuntaraSdk) -> str:
        log.did.append("ran")
        if len(log.did) == 1:
            await sdk.wait_for_signal("never")
        return "done"

    async with open_client(backend, tenant_id="t") as client:
        handle, _ = await client.start(job), await client.start(job)
        with monkeypatch.context() as patched:
            patched.setattr(Worker, "_unload", fails)
            with pytest.raises(BaseExceptionGroup) as left:
                async with open_worker(backend, [job], max_loaded=1, slots=1):
                    await trio.sleep_forever()
            assert left.group_contains(Broken)
        async with open_worker(backend, [job]):
            assert await handle.result(timeout=30) == "done"


async def test_marks_while_runs_end(backend: SharedBackend) -> None:
    """What is told of runs that wait is asked for when it is sent."""

    @workflow
    async def naps(sdk: RuntaraSdk, number: int) -> None:
        await sdk.sleep(1 + number / 50, "nap")

    async with working(backend, naps) as (worker, client):
        handles = await client.start_many(naps, [Start(args=(n,)) for n in range(50)])
        for handle in handles:
            await handle.result(timeout=30)
        # A result may be known before its worker hears of the commit.
        await until(lambda: worker.health().loaded == 0)


async def test_delays(backend: SharedBackend, log: Log) -> None:
    @workflow
    async def job(sdk: RuntaraSdk, name: str) -> None:
        log.did.append(name)

    async with working(backend, job) as (_, client):
        later = await client.start(job, "later", delay=0.2)
        now = await client.start(job, "now")
        await later.result(timeout=30)
        await now.result(timeout=30)
    assert log.did == ["now", "later"]
