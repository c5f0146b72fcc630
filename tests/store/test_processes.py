"""Several processes on one store: takeover, fencing, signals. Real kills, real stops."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import sqlite3
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import pytest
import trio

from runtara_trio import (
    InstanceBusy,
    InstanceStatus,
    LeaseLost,
    Operator,
    Outcome,
    OutcomeNotRecorded,
    SdkConfig,
    SignalRefused,
    open_backend,
    open_runtara,
)
from runtara_trio.store.sqlite import failures, owners
from runtara_trio.store.sqlite.owners import Lock

from ..helpers.places import Shared, postgres_place
from ..helpers.support import PROGRAMS, block, sql, start, start_command

SOON = 0.15  # seconds: a signal from another process reaches the body within this


def side_files(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in tmp_path.iterdir() if "-owner-" in path.name)


async def test_a_killed_process_is_taken_over_at_once(tmp_path: Path, url: str) -> None:
    async with start("worker.py", url, "i", "wait") as first:
        await first.line("running new")
        with pytest.raises(InstanceBusy, match=f"process {first.pid} "):
            async with open_runtara(url, instance_id="i", tenant_id="t"):
                raise AssertionError("it does not run")
        assert len(side_files(tmp_path)) == 1
        await first.kill()
        async with start("worker.py", url, "i", "return") as second:
            await second.line("running again")
            assert await second.wait() == 0
    assert side_files(tmp_path) == []  # the dead one's too


async def test_a_program_killed_and_killed_goes_on_each_time(shared: Shared) -> None:
    for run in range(5):
        async with start("worker.py", shared.url, "i", "wait") as program:
            await program.line("running new" if run == 0 else "running again")
            await program.kill()
            await shared.expire(program)


@pytest.mark.parametrize("late", ["write", "wait"])
async def test_a_stopped_holder_is_fenced_when_it_comes_back(shared: Shared, late: str) -> None:
    """SIGSTOP past its lease and taken over: nothing that it writes gets through."""
    mode = "sleep" if late == "wait" else "write-after-cont"
    async with start("worker.py", shared.url, "i", mode, 300) as holder:
        await holder.line("running new" if late == "wait" else "listening")
        shared.stop(holder)
        with trio.fail_after(20):
            while True:  # until the lease has run out
                try:
                    async with open_runtara(shared.url, instance_id="i", tenant_id="t") as sdk:
                        holder.send(signal.SIGCONT)
                        ended = await holder.line("ended")
                        await sdk.checkpoint("ours", b"x")
                        break
                except InstanceBusy:
                    continue
        assert ended.endswith("lost")
        await holder.wait()
    assert sdk.outcome is Outcome.COMPLETED
    async with open_backend(shared.url) as backend:
        page = await Operator(backend).checkpoints("i")
    names = {one.checkpoint_id for one in page.checkpoints}
    assert "late" not in names
    assert "ours" in names


async def test_a_process_that_hangs_in_its_transaction_is_taken_over(
    postgres_server: str,
) -> None:
    """Nothing of ours is locked while the function runs, and its commit is refused."""

    def insert(connection: Any) -> None:
        connection.execute("INSERT INTO mine VALUES ('ours')")

    async with postgres_place(postgres_server) as place:
        shared = Shared(place.url)
        async with open_runtara(place.backend, instance_id="first", tenant_id="t"):
            await sql(place.backend, "CREATE TABLE mine (text TEXT)")
        async with start("hangs.py", shared.url) as program:
            await program.line("hangs")
            shared.stop(program)
            await shared.expire(program)
            async with open_runtara(place.backend, instance_id="i", tenant_id="t") as sdk:
                await sdk.transact(insert, id="step")
            program.send(signal.SIGCONT)
            await program.line("ended lost")
            await program.wait()
        assert await sql(place.backend, "SELECT text FROM mine") == [("ours",)]


async def test_an_expired_lease_that_nobody_took_stays_valid(shared: Shared) -> None:
    async with start("worker.py", shared.url, "i", "write-after-cont", 100) as program:
        await program.line("listening")
        shared.stop(program)
        async with open_backend(shared.url) as backend:
            operator = Operator(backend)
            with trio.fail_after(20):
                while (await operator.show("i")).summary.held:
                    pass
        program.send(signal.SIGCONT)
        assert (await program.line("ended")).endswith("completed")


async def test_a_forked_child_does_not_keep_the_lease(shared: Shared) -> None:
    async with start("worker.py", shared.url, "i", "fork") as program:
        await program.line("running new")
        child = int((await program.line("child")).split()[1])
        try:
            await program.kill()
            await shared.expire(program)
            async with open_runtara(shared.url, instance_id="i", tenant_id="t") as sdk:
                assert (await sdk.checkpoint("first")).found
        finally:
            os.kill(child, signal.SIGKILL)


@pytest.mark.direct
@pytest.mark.parametrize(
    ("kind", "mode"),
    [
        ("cancel", "wait"),
        ("cancel", "sleep"),
        ("cancel", "compute"),
        ("pause", "sleep"),
        ("pause", "compute"),
    ],
)
async def test_signals_from_another_process_reach_the_body_soon(
    shared: Shared, kind: str, mode: str
) -> None:
    async with start("worker.py", shared.url, "i", mode) as program:
        await program.line("running new")
        async with open_backend(shared.url) as backend:
            before = time.time()
            await getattr(Operator(backend), kind)("i")
            _, ended, outcome = (await program.line("ended")).split()
        assert outcome == {"cancel": "cancelled", "pause": "paused"}[kind]
        assert float(ended) - before < SOON
        assert await program.wait() == 0


async def test_sigterm_ends_a_program_as_stopped(shared: Shared) -> None:
    async with start("worker.py", shared.url, "i", "wait") as program:
        await program.line("running new")
        program.send(signal.SIGTERM)
        assert (await program.line("ended")).endswith("stopped")
        assert await program.wait() == 128 + signal.SIGTERM
    async with open_backend(shared.url) as backend:
        details = await Operator(backend).show("i")
        events = (await Operator(backend).events("i")).events
    assert details.summary.status is InstanceStatus.SUSPENDED
    assert events[-1].payload == b"stopped by SIGTERM"


async def test_ctrl_c_ends_a_program_as_stopped(shared: Shared) -> None:
    async with start("worker.py", shared.url, "i", "sleep") as program:
        await program.line("running new")
        program.send(signal.SIGINT)
        assert (await program.line("ended")).endswith("stopped")
        assert await program.wait() != 0


async def test_a_dead_instance_is_cancelled_at_once(shared: Shared) -> None:
    async with start("worker.py", shared.url, "i", "wait") as program:
        await program.line("running new")
        await program.kill()
        await shared.expire(program)
    async with open_backend(shared.url) as backend:
        answer = await Operator(backend).cancel("i")
        assert answer.status is InstanceStatus.CANCELLED
        assert (await Operator(backend).show("i")).summary.held is False


async def test_the_lease_is_renewed_while_the_loop_is_blocked(shared: Shared) -> None:
    """By the database thread, which needs no free loop."""
    async with start("worker.py", shared.url, "i", "block", 300) as program:
        await program.line("running new")
        await program.line("blocking")
        async with open_backend(shared.url) as backend:
            await Operator(backend).show("i")
            seen = set()
            with trio.fail_after(20):
                while len(seen) < 8:  # two leases long
                    seen.update(await sql(backend, "SELECT * FROM runtara_trio_owners"))
                    assert (await Operator(backend).show("i")).summary.held
        program.send(signal.SIGKILL)


async def test_first_starts_may_race(shared: Shared) -> None:
    """Eight processes make the same tables."""
    async with trio.open_nursery() as nursery:

        async def run(name: str) -> None:
            async with start("worker.py", shared.url, name, "return") as program:
                await program.line("running new")
                assert await program.wait() == 0

        for number in range(8):
            nursery.start_soon(run, f"i{number}")
    async with open_backend(shared.url) as backend:
        instances = (await Operator(backend).list()).instances
    assert {one.status for one in instances} == {InstanceStatus.COMPLETED}
    assert len(instances) == 8


async def test_two_processes_share_a_store(shared: Shared) -> None:
    """Their writes take turns; none is lost."""

    async def run(name: str) -> None:
        async with start("worker.py", shared.url, name, "write-100") as program:
            await program.line("running new")
            assert await program.wait() == 0

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run, "a")
        nursery.start_soon(run, "b")
    async with open_backend(shared.url) as backend:
        for name in ("a", "b"):
            assert (await Operator(backend).show(name)).checkpoints == 101


async def test_a_block_that_loses_its_lease_in_a_wait_is_told_by_the_renewal(
    shared: Shared,
) -> None:
    config = SdkConfig(store=shared.url, lease_ms=100)
    with pytest.raises(LeaseLost):
        async with open_runtara(config, instance_id="i", tenant_id="t") as sdk:
            async with open_backend(shared.url) as other:
                await Operator(other).show("i")
                await sql(
                    other, "UPDATE runtara_trio_leases SET owner = 'other', epoch = epoch + 9"
                )
            with trio.fail_after(20):
                await trio.sleep_forever()
    assert sdk.outcome is Outcome.LOST


# ---- the rules by which an owner is dead


HERE, ELSEWHERE = owners.this_clock(), b"another boot or namespace"


@pytest.mark.parametrize(
    ("lock", "clock", "age", "unchanged", "dead"),
    [
        (Lock.FREE, HERE, 0, 0, True),  # the kernel has dropped the lock
        (Lock.FREE, ELSEWHERE, 0, 0, True),
        (Lock.HELD, HERE, 1000, 1000, False),
        (Lock.HELD, HERE, 1001, 0, True),  # it holds the lock, but does not renew
        (Lock.HELD, None, 1001, 0, True),  # of 0.1, which did not say by which clock
        (Lock.HELD, None, -1, 1000, False),
        (Lock.HELD, ELSEWHERE, -5000, 1000, False),  # its age cannot be told
        (Lock.HELD, ELSEWHERE, 99999, 1000, False),
        (Lock.HELD, ELSEWHERE, -5000, 1001, True),  # it was not seen to renew
        (Lock.UNREADABLE, None, 1000, 1000, False),
        (Lock.UNREADABLE, None, 1001, 0, True),
        (Lock.MISSING, None, 1000, 0, False),
        (Lock.MISSING, None, -1, 0, True),  # of another boot, or another machine
    ],
)
def test_when_an_owner_is_dead(
    lock: Lock, clock: bytes | None, age: int, unchanged: int, dead: bool
) -> None:
    found = owners.is_dead(
        owners.Seen(lock, clock),
        renewed_ms=9000,
        lease_ms=1000,
        now_ms=9000 + age,
        unchanged_ms=unchanged,
    )
    assert found is dead


def test_an_owner_holds_its_lock_in_the_same_process_too(tmp_path: Path) -> None:
    database = str(tmp_path / "x.db")
    owner = owners.OwnerFile(database)
    assert owners.seen_at(owner.path) == (Lock.HELD, HERE)
    owner.close()
    assert owners.seen_at(owner.path) == (Lock.FREE, HERE)
    assert owners.seen_at(owners.side_file(database, "nobody")).lock is Lock.MISSING


def test_two_who_look_at_a_dead_owner_at_once_agree(tmp_path: Path) -> None:
    owner = owners.OwnerFile(str(tmp_path / "x.db"))
    owner.close()
    looking = os.open(owner.path, os.O_RDONLY)
    fcntl.flock(looking, fcntl.LOCK_SH)  # the other, in the middle of its look
    assert owners.seen_at(owner.path).lock is owners.Lock.FREE
    os.close(looking)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
async def test_another_users_dead_owner_is_dead(tmp_path: Path, url: str) -> None:
    """Its side file is not ours to write, and a lock needs no right to."""
    tmp_path.chmod(0o777)
    for folder in tmp_path.parents[:3]:
        folder.chmod(folder.stat().st_mode | 0o011)
    async with start("worker.py", url, "i", "wait") as first:
        await first.line("running new")
        await first.kill()
    for path in tmp_path.iterdir():
        path.chmod(0o644 if "-owner-" in path.name else 0o666)
    done = await trio.to_thread.run_sync(_open_as_nobody, url)
    assert done.decode() == "completed"


def _open_as_nobody(url: str) -> bytes:
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        signal.set_wakeup_fd(-1)  # of the test's Trio
        os.setgid(65534)
        os.setuid(65534)
        os.write(write, _completed(url).encode())
        os._exit(0)
    os.close(write)
    os.waitpid(child, 0)
    with open(read, "rb") as result:
        return result.read()


def _completed(url: str) -> str:
    async def main() -> str:
        async with open_runtara(url, instance_id="i", tenant_id="t", stop_signals=()) as sdk:
            pass
        return str(sdk.outcome)

    try:
        return trio.run(main)
    except Exception as exc:
        return "".join(traceback.format_exception(exc))


@pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("unshare") is None, reason="needs a time namespace"
)
async def test_an_owner_in_another_time_namespace_lives(tmp_path: Path, url: str) -> None:
    """Its monotonic clock is years behind; it is busy, until it is killed."""
    program = [sys.executable, "-u", str(PROGRAMS / "worker.py"), url, "i", "wait", "3000"]
    command = [
        "unshare",
        "--time",
        "--kill-child",
        "--monotonic",
        "100000000",
        "--boottime",
        "100000000",
    ]
    async with start_command(*command, *program) as other:
        try:
            await other.line("running new")
        except EOFError:
            pytest.skip(f"no time namespaces here: {other.lines}")
        config = SdkConfig(store=url, lease_ms=300)
        for _ in range(2):
            with pytest.raises(InstanceBusy):
                async with open_runtara(config, instance_id="i", tenant_id="t"):
                    raise AssertionError("it does not run")


async def test_what_dead_owners_left_is_tidied_by_the_next_start(tmp_path: Path, url: str) -> None:
    """Also where nobody takes their instances over."""
    for name in ("a", "b"):
        async with start("worker.py", url, name, "wait") as program:
            await program.line("running new")
            await program.kill()
    async with open_runtara(url, instance_id="c", tenant_id="t"):
        assert len(side_files(tmp_path)) == 1
    assert side_files(tmp_path) == []
    async with open_runtara(url, instance_id="a", tenant_id="t") as sdk:
        assert (await sdk.checkpoint("first")).found


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


async def test_attempts_survive_a_kill(shared: Shared) -> None:
    """Failed twice, killed in the third attempt: two attempts are left."""
    async with start("durably.py", shared.url, "i", "flaky") as first:
        await first.line("third")
        await first.kill()
        await shared.expire(first)
        await first.rest()
    assert first.lines.count("attempt") == 3
    async with start("durably.py", shared.url, "i", "flaky") as second:
        assert await second.wait() == 1
    assert second.lines.count("attempt") == 2
    assert "OSError: as always" in second.lines[-1]


async def test_a_signal_is_used_once_though_its_taker_is_killed(shared: Shared) -> None:
    """Killed between taking a signal and using it."""
    async with start("durably.py", shared.url, "i", "take") as first:
        await first.line("waits")
        async with open_backend(shared.url) as backend:
            await Operator(backend).send_signal("i", "approve", b"first")
            assert await first.line("took") == "took first"
            await first.kill()
            await shared.expire(first)
            with pytest.raises(SignalRefused, match="answered already"):
                await Operator(backend).send_signal("i", "approve", b"second")
            await Operator(backend).send_signal("i", "approve", b"first")  # the very same
    async with start("durably.py", shared.url, "i", "signal") as second:
        assert await second.wait() == 0
    assert second.lines[-3:] == ["took first", "used first", "outcome completed"]
    async with open_backend(shared.url) as backend:
        assert (await Operator(backend).show("i")).unread_signals == ()


async def test_a_kill_while_held(shared: Shared) -> None:
    async with start("durably.py", shared.url, "i", "hold") as first:
        await first.line("saved 5")
        async with open_backend(shared.url) as backend:
            operator = Operator(backend)
            await operator.pause("i")
            with trio.fail_after(20):
                while (await operator.show("i")).summary.status != InstanceStatus.SUSPENDED:
                    await trio.lowlevel.checkpoint()
            assert (await operator.show("i")).summary.held
            await first.kill()
            await shared.expire(first)
            assert not (await operator.show("i")).summary.held
        await first.rest()
    async with start("durably.py", shared.url, "i", "hold") as second:
        last = int(first.lines[-1].split()[1])
        first_new = await second.line("saved")
        assert int(first_new.split()[1]) in (last + 1, last + 2)  # saved, and not said
        async with open_backend(shared.url) as backend:
            await Operator(backend).cancel("i")
        assert await second.wait() == 0
        assert second.lines[-1] == "outcome cancelled"


async def test_a_map_that_is_killed_again_and_again(shared: Shared) -> None:
    """What was saved is not done again, whatever order the tasks run in."""
    parts: list[str] = []
    for stop_after in (40, 100, 200, None):
        async with start("durably.py", shared.url, "i", "map") as program:
            if stop_after is None:
                assert await program.wait() == 0
            else:
                await program.line("running")
                for _ in range(stop_after):
                    await program.line("part")
                await program.kill()
                await shared.expire(program)
                await program.rest()
        parts += [line for line in program.lines if line.startswith("part")]
    assert program.lines[-2:] == [f"sum {499 * 500 // 2}", "outcome completed"]
    assert len(set(parts)) == 500
    assert len(parts) <= 500 + 3 * 20  # those that were under way
