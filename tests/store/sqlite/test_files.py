"""Files that are not as they should be: each error names the file and the remedy."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import trio

from runtara_trio import (
    ConfigError,
    InstanceStatus,
    Operator,
    Outcome,
    OutcomeNotRecorded,
    StoreError,
    open_backend,
    open_runtara,
)
from runtara_trio.messages import ListInstances, Register
from runtara_trio.store.location import Location, locate
from runtara_trio.store.sqlite import failures
from runtara_trio.store.sqlite.schema import CORE_1_6, CORE_MIGRATIONS, CORE_TABLES

from ...helpers.support import sqlite_of, start


def block(url: str, **options: Any) -> Any:
    return open_runtara(url, instance_id="i", tenant_id="t", **options)


def core_file(path: Path) -> sqlite3.Connection:
    """A database as a runtara-core makes it, in its journal mode."""
    db = sqlite3.connect(path, isolation_level=None)
    for statement in CORE_TABLES.split(";"):
        db.execute(statement)
    for version, what, digest in CORE_MIGRATIONS:
        db.execute(
            "INSERT INTO _sqlx_migrations VALUES (?, ?, CURRENT_TIMESTAMP, 1, ?, 1)",
            (version, what, bytes.fromhex(digest)),
        )
    return db


async def refused(path: Path, text: str) -> None:
    """A start and an operator's question are refused, and the file stays as it is."""
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(StoreError, match=text) as caught:
        async with block(f"sqlite:///{path}"):
            raise AssertionError("it does not run")
    assert str(path) in str(caught.value)
    if before is not None:
        assert path.read_bytes() == before
    assert not [name for name in os.listdir(path.parent) if "-owner-" in name]


# ---- what is there


async def test_a_missing_file_is_made_by_a_register_alone(tmp_path: Path, url: str) -> None:
    path = tmp_path / "store.db"
    async with open_backend(url) as backend:
        with pytest.raises(StoreError, match=f"there is no store at {path}"):
            await Operator(backend).list()
        assert not path.exists()
    with pytest.raises(StoreError, match="there is no store"):
        async with block(url, register=False) as sdk:
            await sdk.get_status()
    async with block(url):
        assert path.exists()


async def test_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=f"make the folder {tmp_path}/no first"):
        async with block(f"sqlite:///{tmp_path}/no/x.db"):
            raise AssertionError("it does not run")


async def test_mode_rw_makes_no_file(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="there is no store"):
        async with block(f"sqlite://{tmp_path}/x.db?mode=rw"):
            raise AssertionError("it does not run")


async def test_a_sqlite_that_is_too_old(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 25, 3))
    monkeypatch.setattr(sqlite3, "sqlite_version", "3.25.3")
    for store in (url, ":memory:"):
        with pytest.raises(
            StoreError, match=r"SQLite 3\.26\.0 or newer.* has 3\.25\.3; .* a newer SQLite"
        ):
            async with block(store):
                raise AssertionError("it does not run")
    assert not (tmp_path / "store.db").exists()


async def test_not_a_database(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("not a database at all, but longer than a header of one\n" * 20)
    await refused(path, "not a SQLite database; check the path")


async def test_a_folder(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    path.mkdir()
    await refused(path, "cannot be opened")


async def test_a_damaged_database(tmp_path: Path, url: str) -> None:
    async with block(url) as sdk:
        await sdk.checkpoint("a", b"x" * 50_000)
        await sdk.suspended()
    path = tmp_path / "store.db"
    data = bytearray(path.read_bytes())
    data[4096:] = os.urandom(len(data) - 4096)
    path.write_bytes(data)
    await refused(path, "damaged; restore it from a backup")


async def test_somebody_elses_tables(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE instances (id INTEGER)")
    db.close()
    await refused(path, "has a table 'instances' that is neither runtara-core 1.4.1's")


async def test_tables_beside_those_of_another_program(tmp_path: Path) -> None:
    path = tmp_path / "shared.db"
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE customers (id INTEGER)")
    db.close()
    async with open_backend(f"sqlite:///{path}") as backend:
        with pytest.raises(StoreError, match="is a database, but not a runtara store"):
            await Operator(backend).list()
    async with block(f"sqlite:///{path}") as sdk:
        await sdk.checkpoint("a")
    assert sdk.outcome is Outcome.COMPLETED


@pytest.mark.parametrize(
    ("statement", "text"),
    [
        ("UPDATE runtara_trio_schema SET version = 2", "newer runtara-trio .schema 2, this one"),
        (
            "INSERT INTO _sqlx_migrations VALUES (9, 'x', CURRENT_TIMESTAMP, 1, x'00', 0)",
            "newer runtara-core than 1.6.4",
        ),
        (
            "INSERT INTO _sqlx_migrations VALUES (8, 'x', CURRENT_TIMESTAMP, 1, x'00', 0)",
            "neither runtara-core 1.4.1's nor 1.6.4's",
        ),
        ("DELETE FROM _sqlx_migrations WHERE version = 7", "older runtara-core than 1.4.1"),
        (
            "UPDATE _sqlx_migrations SET checksum = x'00'",
            "neither runtara-core 1.4.1's nor 1.6.4's",
        ),
    ],
)
async def test_another_version(tmp_path: Path, url: str, statement: str, text: str) -> None:
    async with block(url) as sdk:
        await sdk.suspended()
    path = tmp_path / "store.db"
    with sqlite3.connect(path) as db:
        db.execute(statement)
    db.close()
    await refused(path, text)


async def test_a_question_waits_for_a_core_that_commits(tmp_path: Path) -> None:
    """In the journal mode of a core nobody reads meanwhile, not even which tables there are."""
    core = core_file(tmp_path / "core.db")
    async with open_backend(f"sqlite:///{tmp_path}/core.db") as store:
        operator = Operator(store)
        await operator.list()
        core.execute("BEGIN EXCLUSIVE")
        answered = trio.Event()

        async def ask() -> None:
            await operator.list()
            answered.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            with trio.move_on_after(0.5):  # five times as long as SQLite itself waits
                await answered.wait()
            assert not answered.is_set()
            core.execute("COMMIT")
    core.close()


async def test_a_file_that_a_newer_core_has_migrated_goes_on(tmp_path: Path, url: str) -> None:
    """Under a store that has it open, and before one opens it."""
    async with open_backend(url) as backend:
        async with block(backend) as sdk:
            await sdk.checkpoint("a", 1)
            with sqlite3.connect(tmp_path / "store.db") as db:
                db.execute("ALTER TABLE instances ADD COLUMN termination_reason TEXT")
                db.execute("ALTER TABLE instances ADD COLUMN exit_code INTEGER")
                db.executemany(
                    "INSERT INTO _sqlx_migrations VALUES (?, ?, CURRENT_TIMESTAMP, 1, ?, 0)",
                    [(version, what, bytes.fromhex(digest)) for version, what, digest in CORE_1_6],
                )
            db.close()
            await sdk.checkpoint("b", 2)
            await sdk.suspended()
    async with block(url) as sdk:
        assert await sdk.get_checkpoint("b", int) == 2
    assert sdk.outcome is Outcome.COMPLETED


# ---- what may be done with it


@pytest.mark.skipif(sys.platform != "linux" or os.getuid() != 0, reason="needs setuid")
def test_a_file_that_may_not_be_written(tmp_path: Path) -> None:
    """As another user, since root may write everything."""
    _as_nobody(tmp_path, 0o444, "read-only; give this user the right to write")


@pytest.mark.skipif(sys.platform != "linux" or os.getuid() != 0, reason="needs setuid")
def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    _as_nobody(tmp_path, 0o000, "cannot be opened; check that it is a file that this user may")


def _as_nobody(tmp_path: Path, mode: int, text: str) -> None:
    path = tmp_path / "store.db"

    async def fill() -> None:
        async with block(f"sqlite:///{path}") as sdk:
            await sdk.suspended()

    trio.run(fill)
    path.chmod(mode)
    for folder in (tmp_path, *tmp_path.parents):
        if str(folder).startswith("/tmp/"):
            folder.chmod(0o755)
    child = os.fork()
    if child == 0:
        try:
            os.setgid(65534)
            os.setuid(65534)
            trio.run(fill)
        except StoreError as exc:
            os._exit(0 if text in str(exc) and str(path) in str(exc) else 2)
        except BaseException:
            os._exit(3)
        os._exit(4)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


async def test_locked_by_another_writer(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For longer than the busy timeout, shortened here; nothing is lost."""
    monkeypatch.setattr(failures, "BUSY_TIMEOUT", 0.05)
    async with block(url) as sdk:
        await sdk.checkpoint("before", b"kept")
        other = sqlite3.connect(tmp_path / "store.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="locked by another writer for 10 s") as caught:
            await sdk.checkpoint("during", b"refused")
        assert caught.value.transient
        assert str(tmp_path / "store.db") in str(caught.value)
        assert await sdk.get_checkpoint("before") == b"kept"  # reading goes on
        other.execute("ROLLBACK")
        other.close()
        assert not (await sdk.checkpoint("during", b"saved")).found
    assert sdk.outcome is Outcome.COMPLETED


async def test_all_who_wait_for_a_lock_are_told_at_once(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch that gets no turn is not tried one by one, ten seconds each."""
    monkeypatch.setattr(failures, "BUSY_TIMEOUT", 0.5)
    async with block(url) as sdk:
        other = sqlite3.connect(tmp_path / "store.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        refused = []

        async def save(number: int) -> None:
            try:
                await sdk.checkpoint(f"{number}")
            except StoreError as exc:
                refused.append(exc)

        with trio.fail_after(5):
            async with trio.open_nursery() as nursery:
                for number in range(40):
                    nursery.start_soon(save, number)
        other.execute("ROLLBACK")
        other.close()
    assert len(refused) == 40
    assert len(set(map(id, refused))) == 40  # an exception object each


async def test_a_full_disk(url: str) -> None:
    """As SQLite reports one: the file may not grow. What was saved stays."""
    async with (
        open_backend(url) as backend,
        open_runtara(backend, instance_id="i", tenant_id="t") as sdk,
    ):
        await sdk.checkpoint("before", b"kept")
        connection = sqlite_of(backend)
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(StoreError, match="the disk is full; make room"):
            await sdk.checkpoint("big", b"x" * 100_000)
        assert await sdk.get_checkpoint("before") == b"kept"
        assert await sdk.get_checkpoint("big") is None
        await sdk.checkpoint("small", b"fits")
        connection.execute("PRAGMA max_page_count = 1000000")
        await sdk.checkpoint("big", b"x" * 100_000)
    assert sdk.outcome is Outcome.COMPLETED


async def test_one_too_big_for_the_disk_does_not_fail_the_others(url: str) -> None:
    async with (
        open_backend(url) as backend,
        open_runtara(backend, instance_id="i", tenant_id="t") as sdk,
    ):
        connection = sqlite_of(backend)
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages + 2}")
        failed = []

        async def save(name: str, size: int) -> None:
            try:
                await sdk.checkpoint(name, b"x" * size)
            except StoreError:
                failed.append(name)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(save, "a", 10)
            nursery.start_soon(save, "big", 200_000)
            nursery.start_soon(save, "b", 10)
        assert failed == ["big"]
        assert await sdk.get_checkpoint("a") is not None
        assert await sdk.get_checkpoint("b") is not None


@pytest.mark.parametrize("how", ["deleted", "replaced"])
async def test_a_file_that_is_deleted_under_us(tmp_path: Path, url: str, how: str) -> None:
    """No write is acknowledged that no file holds."""
    path = tmp_path / "store.db"
    with pytest.raises(OutcomeNotRecorded, match=f"was {how}"):
        async with block(url, final_timeout=1) as sdk:
            await sdk.checkpoint("a")
            path.unlink()
            if how == "replaced":
                path.write_bytes(b"")
            with pytest.raises(StoreError, match=f"{path} was {how}.*while it was open"):
                await sdk.checkpoint("b")
            with pytest.raises(StoreError, match=f"was {how}"):
                await sdk.get_checkpoint("a")


async def test_a_deleted_file_is_noticed_without_a_call(
    tmp_path: Path, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(OutcomeNotRecorded):
        async with block(url, final_timeout=1):
            (tmp_path / "store.db").unlink()
            with trio.fail_after(10):
                while "was deleted" not in caplog.text:
                    await trio.sleep(0.01)


# ---- runtara-core's own


async def test_operators_leave_a_cores_file_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "core.db"
    db = core_file(path)
    db.execute(
        "INSERT INTO instances (instance_id, tenant_id, status, started_at)"
        " VALUES ('c', 't', 'running', '2026-11-22T16:10:15.516583684+00:00')"
    )
    tables = db.execute("SELECT name, sql FROM sqlite_master ORDER BY name").fetchall()
    async with open_backend(f"sqlite:///{path}") as backend:
        operator = Operator(backend)
        answer = await operator.pause("c")
        assert answer.text == "pause left for its runtara-core"
        assert (await operator.show("c")).summary.started_at is not None
        await operator.resume("c")
        await operator.send_signal("c", "approve", b"yes")
        await operator.cancel("c")
        assert (await operator.list()).instances[0].status is InstanceStatus.RUNNING
    assert db.execute("SELECT signal_type FROM pending_signals").fetchone() == ("cancel",)
    assert db.execute("PRAGMA journal_mode").fetchone() == ("delete",)
    assert db.execute("SELECT name, sql FROM sqlite_master ORDER BY name").fetchall() == tables
    db.close()


async def test_an_operator_sees_what_a_later_register_adds(tmp_path: Path) -> None:
    path = tmp_path / "core.db"
    core_file(path).close()
    async with open_backend(f"sqlite:///{path}") as backend:
        assert (await Operator(backend).list()).instances == ()
        async with block(f"sqlite:///{path}"):
            (one,) = (await Operator(backend).list()).instances
            assert one.held
            answer = await Operator(backend).pause("i")
            assert answer.text.startswith("pause delivered")


@pytest.mark.parametrize("sign", ["start", "checkpoint", "event"])
async def test_a_register_refuses_a_file_that_a_core_works_on(tmp_path: Path, sign: str) -> None:
    path = tmp_path / "core.db"
    db = core_file(path)
    fresh, old = "CURRENT_TIMESTAMP", "'2020-01-01 00:00:00'"
    db.execute(
        "INSERT INTO instances (instance_id, tenant_id, status, started_at)"
        f" VALUES ('c', 't', 'running', {fresh if sign == 'start' else old})"
    )
    for table in ("checkpoint", "event"):
        columns, values = {
            "checkpoint": ("checkpoint_id, state", "'a', x''"),
            "event": ("event_type", "'heartbeat'"),
        }[table]
        name = {"checkpoint": "checkpoints", "event": "instance_events"}[table]
        db.execute(
            f"INSERT INTO {name} (instance_id, {columns}, created_at)"
            f" VALUES ('c', {values}, {fresh if sign == table else old})"
        )
    await refused(path, "stop that server first")
    assert db.execute("PRAGMA journal_mode").fetchone() == ("delete",)
    for name, column in (
        ("instances", "started_at"),
        ("checkpoints", "created_at"),
        ("instance_events", "created_at"),
    ):
        db.execute(f"UPDATE {name} SET {column} = {old}")
    db.close()
    async with block(f"sqlite:///{path}"):
        pass


async def test_a_switch_to_wal_that_is_not_granted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failures, "BUSY_TIMEOUT", 0.05)
    path = tmp_path / "core.db"
    db = core_file(path)
    db.execute("BEGIN")
    db.execute("SELECT * FROM instances").fetchall()
    await refused(path, "stop that server or program first")
    db.close()


# ---- our file, as a core sees it


CORE_COLUMNS = {
    "instances": "instance_id tenant_id definition_version status checkpoint_id attempt"
    " max_attempts created_at started_at finished_at output error sleep_until"
    " memory_peak_bytes cpu_usage_usec stderr input",
    "checkpoints": "id instance_id checkpoint_id state created_at",
    "instance_events": "id instance_id event_type checkpoint_id payload created_at subtype",
    "pending_signals": "instance_id signal_type payload created_at acknowledged_at",
    "pending_custom_signals": "instance_id checkpoint_id payload created_at",
}


async def test_the_file_has_a_cores_tables_and_records(tmp_path: Path, url: str) -> None:
    async with block(url) as sdk:
        await sdk.checkpoint("a")
        await sdk.sleep(0, "nap")
    db = sqlite3.connect(tmp_path / "store.db")
    for table, columns in CORE_COLUMNS.items():
        found = [row[1] for row in db.execute(f"PRAGMA table_info({table})")]
        assert found == columns.split()
    assert db.execute("SELECT count(*) FROM _sqlx_migrations WHERE success").fetchone() == (7,)
    started, finished, created = db.execute(
        "SELECT started_at, finished_at, created_at FROM instances"
    ).fetchone()
    assert len(started) == len("2026-11-22T16:10:15.516583+00:00")
    assert len(finished) == len(created) == len("2026-11-22 16:10:15")
    assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    db.close()


async def test_what_a_core_did_since_is_respected(tmp_path: Path, url: str) -> None:
    """Handed over to a core and back: a start of its own makes the instance its own."""
    async with block(url) as sdk:
        await sdk.suspended()
    db = sqlite3.connect(tmp_path / "store.db", isolation_level=None)
    db.execute(
        "UPDATE instances SET status = 'running',"
        " started_at = '2020-01-01T00:00:00.123456789+00:00'"
    )
    async with open_backend(url) as backend:
        assert (await Operator(backend).pause("i")).text == "pause left for its runtara-core"
        db.execute("DELETE FROM pending_signals")
        for table in ("instance_events", "checkpoints"):  # and it died long ago
            db.execute(f"UPDATE {table} SET created_at = '2020-01-01 00:00:00'")
        async with open_runtara(backend, instance_id="i", tenant_id="t"):
            assert (await Operator(backend).pause("i")).text.startswith("pause delivered")
    db.close()


# ---- what somebody writes by hand


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


# ---- URLs


def test_urls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    here = os.path.realpath(tmp_path)
    assert locate("sqlite:///x.db") == Location(f"{here}/x.db")
    assert locate("sqlite:////abs/x.db") == Location("/abs/x.db")
    assert locate("sqlite://x.db?mode=rwc") == Location(f"{here}/x.db")
    assert locate("sqlite:///x.db?mode=rw") == Location(f"{here}/x.db", create=False)
    for url in (":memory:", "sqlite::memory:", "sqlite:///:memory:", "sqlite://"):
        assert locate(url) == Location(None)


def test_two_readings_of_one_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """runtara-core reads sqlite:///x.db as /x.db."""
    monkeypatch.chdir(tmp_path)
    other = tmp_path / "x.db"
    relative = str(other).lstrip("/")
    other.touch()
    with pytest.raises(ConfigError, match="only the second exists") as caught:
        locate(f"sqlite:///{relative}")
    assert str(other) in str(caught.value)
    assert f"{os.path.realpath(tmp_path)}/{relative}" in str(caught.value)
    os.makedirs(os.path.dirname(relative))
    Path(relative).touch()
    assert locate(f"sqlite:///{relative}").path == os.path.realpath(relative)


def test_a_link_and_its_target_are_one_store(tmp_path: Path) -> None:
    (tmp_path / "real.db").touch()
    (tmp_path / "link.db").symlink_to(tmp_path / "real.db")
    assert locate(f"sqlite:///{tmp_path}/link.db") == locate(f"sqlite:///{tmp_path}/real.db")


# ---- statements


async def test_ten_thousand_idle_instances_cost_a_fixed_number_of_statements(url: str) -> None:
    """A second of them: the same few as with ten."""

    statements: list[str] = []
    versions = trio.Semaphore(0)
    token = trio.lowlevel.current_trio_token()

    def seen(statement: str) -> None:  # on the database thread
        statements.append(statement)
        if "data_version" in statement:
            token.run_sync_soon(versions.release)

    async def count() -> int:
        """The statements in a second or so: of 25 looks for signals."""
        with trio.fail_after(60):
            await versions.acquire()
            before = len(statements)
            while versions.value:
                versions.acquire_nowait()
            for _ in range(25):
                await versions.acquire()
        return len(statements) - before

    async with open_backend(url) as backend:
        counts = []
        registered = 0
        for wanted in (10, 10_000):
            async with trio.open_nursery() as nursery:
                for number in range(registered, wanted):
                    message = Register(instance_id=f"i{number}", tenant_id="t")
                    nursery.start_soon(backend.request, message)
            if not registered:
                sqlite_of(backend).set_trace_callback(seen)
            registered = wanted
            counts.append(await count())
        page = await backend.request(ListInstances(limit=1))
        assert page.next is not None
    assert 25 <= counts[0] <= 40
    assert 25 <= counts[1] <= 40


def test_the_store_module_runs_no_thread_for_memory() -> None:
    """In memory all runs inline, so that a MockClock may jump."""
    code = (
        "import threading, trio\n"
        "from runtara_trio import open_runtara\n"
        "async def main():\n"
        "    async with open_runtara(':memory:', instance_id='i', tenant_id='t') as sdk:\n"
        "        await sdk.checkpoint('a')\n"
        "        print(threading.active_count())\n"
        "trio.run(main)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1"


async def test_a_killed_writer_leaves_what_was_acknowledged(tmp_path: Path, url: str) -> None:
    async with start("worker.py", url, "i", "write-100") as program:
        await program.line("running new")
        await program.line("saved 20")
        await program.kill()
    db = sqlite3.connect(tmp_path / "store.db")
    names = {name for (name,) in db.execute("SELECT checkpoint_id FROM checkpoints")}
    assert {f"n{number}" for number in range(21)} <= names
    db.close()


async def test_a_backend_that_creates_makes_the_store_at_the_first_request(
    tmp_path: Path, url: str
) -> None:
    async with open_backend(url) as backend:
        with pytest.raises(StoreError, match="there is no store at"):
            await Operator(backend).list()
    assert not (tmp_path / "store.db").exists()
    async with open_backend(url, create=True) as backend:
        assert (await Operator(backend).list()).instances == ()
        async with block(backend) as sdk:
            await sdk.checkpoint("one")
    async with open_backend(url) as backend:
        assert (await Operator(backend).show("i")).checkpoints == 1


class TestWhereItLies:
    @pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")
    @pytest.mark.parametrize("kind", ["of the same disk", "of another"])
    async def test_a_file_that_is_mounted_alone_is_refused(self, tmp_path: Path, kind: str) -> None:
        """As a container's volume: its log would lie outside of it, and be lost."""
        volume = tmp_path / "volume" if kind == "of the same disk" else Path("/dev/shm")
        volume.mkdir(exist_ok=True)
        file = volume / f"runtara-trio-{os.getpid()}.db"
        folder = tmp_path / "a folder"  # with what the kernel escapes in its name
        folder.mkdir()
        inside = folder / "orders.db"
        async with open_runtara(f"sqlite:///{file}", instance_id="i", tenant_id="t") as sdk:
            await sdk.suspended()
        inside.touch()
        mount = await trio.run_process(
            ["mount", "--bind", str(file), str(inside)], check=False, capture_stderr=True
        )
        if mount.returncode:
            file.unlink()
            pytest.skip(f"this machine mounts nothing: {mount.stderr.decode()}")
        try:
            with pytest.raises(StoreError, match=r"orders\.db-wal .* mount the folder"):
                async with open_runtara(f"sqlite:///{inside}", instance_id="i", tenant_id="t"):
                    raise AssertionError("it does not run")
            async with open_backend(f"sqlite:///{inside}") as backend:
                with pytest.raises(StoreError, match="mount the folder"):
                    await Operator(backend).list()
        finally:
            await trio.run_process(["umount", str(inside)])
            file.unlink()

    async def test_a_folder_that_is_mounted_is_fine(self, tmp_path: Path) -> None:
        """A disk of its own for the store's folder is what everybody has."""
        async with open_runtara(f"sqlite:///{tmp_path}/x.db", instance_id="i", tenant_id="t"):
            pass

    def test_a_working_folder_that_is_gone(self, tmp_path: Path, monkeypatch: Any) -> None:
        folder = tmp_path / "gone"
        folder.mkdir()
        monkeypatch.chdir(folder)
        folder.rmdir()
        with pytest.raises(ConfigError, match="working folder of this process is gone"):
            locate("sqlite:///orders.db")
        with pytest.raises(ConfigError, match="working folder of this process is gone"):
            locate("sqlite://orders.db")
        assert locate("sqlite:////orders.db").path == "/orders.db"

    @pytest.mark.parametrize(("length", "fits"), [(232, True), (233, False), (300, False)])
    async def test_a_name_that_is_too_long(self, tmp_path: Path, length: int, fits: bool) -> None:
        """The side file's name is longer; it must fit too."""
        url = f"sqlite:///{tmp_path}/{'x' * length}"
        if fits:
            async with open_runtara(url, instance_id="i", tenant_id="t"):
                pass
        else:
            with pytest.raises(StoreError, match="name is too long; at most 232 bytes"):
                async with open_runtara(url, instance_id="i", tenant_id="t"):
                    raise AssertionError("it does not run")

    def test_percents_in_a_core_url(self, tmp_path: Path, monkeypatch: Any) -> None:
        """Core resolves them; 0.1 did not, and its files are gone on with."""
        monkeypatch.chdir(tmp_path)
        literal, resolved = tmp_path / "shop%20one.db", tmp_path / "shop one.db"
        assert locate("sqlite://shop%20one.db?mode=rwc").path == str(resolved)
        assert locate("sqlite:///shop%20one.db").path == str(literal)
        literal.touch()
        assert locate("sqlite://shop%20one.db").path == str(literal)
        resolved.touch()
        with pytest.raises(ConfigError, match=r"means '.*shop one\.db' .* both are there"):
            locate("sqlite://shop%20one.db")


class TestRoom:
    async def test_the_log_does_not_stay_at_its_peak(self, tmp_path: Path, url: str) -> None:
        """It grows while somebody reads, and shrinks when that is over."""
        log = tmp_path / "store.db-wal"
        async with open_runtara(url, instance_id="i", tenant_id="t") as sdk:
            await sdk.checkpoint("first")
            reader = sqlite3.connect(tmp_path / "store.db", isolation_level=None)
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM checkpoints").fetchall()
            for number in range(40):
                await sdk.checkpoint(f"n{number}", b"x" * 2**20)
            assert log.stat().st_size > 40 * 2**20
            reader.close()
            for number in range(4):
                await sdk.checkpoint(f"m{number}", b"x" * 2**20)
            assert log.stat().st_size <= 17 * 2**20

    async def test_vacuum_gives_back_what_prune_removed(self, tmp_path: Path, url: str) -> None:
        async with open_backend(url) as backend:
            async with open_runtara(backend, instance_id="i", tenant_id="t") as sdk:
                for number in range(20):
                    await sdk.checkpoint(f"n{number}", b"x" * 2**20)
            operator = Operator(backend)
            await operator.prune(0)
            done = await operator.vacuum()
            assert done.bytes_before > 20 * 2**20
            assert done.bytes_after < 2**20
            assert done.bytes_after == sum(
                path.stat().st_size for path in tmp_path.glob("store.db*") if "-" not in path.name
            )

    async def test_vacuum_in_memory(self) -> None:
        async with open_backend(":memory:", create=True) as backend:
            done = await Operator(backend).vacuum()
            assert done.bytes_after <= done.bytes_before


class TestAStoreThatIsLocked:
    @pytest.fixture
    async def locks(self, url: str) -> AsyncIterator[sqlite3.Connection]:
        """Another writer, on a store that is there."""
        async with open_runtara(url, instance_id="first", tenant_id="t"):
            pass
        connection = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)
        yield connection
        connection.close()

    @pytest.mark.parametrize("body", ["returns", "raises", "is in the middle of a save"])
    async def test_the_end_keeps_to_the_final_timeout(
        self, url: str, locks: sqlite3.Connection, body: str
    ) -> None:
        with (
            trio.fail_after(15),
            trio.CancelScope() as around,
            suppress(OutcomeNotRecorded, KeyError),
        ):
            async with open_runtara(url, instance_id="i", tenant_id="t", final_timeout=0.3) as sdk:
                locks.execute("BEGIN IMMEDIATE")
                ending = trio.current_time()
                if body == "raises":
                    raise KeyError(body)
                if body != "returns":
                    around.deadline = trio.current_time() + 0.1
                    await sdk.checkpoint("never")
        assert trio.current_time() - ending < 4
        assert sdk.outcome is None

    async def test_a_lock_that_passes_is_waited_for(
        self, url: str, locks: sqlite3.Connection
    ) -> None:
        async with open_runtara(url, instance_id="i", tenant_id="t") as sdk:
            locks.execute("BEGIN IMMEDIATE")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(sdk.checkpoint, "a")
                await trio.sleep(0.5)
                locks.execute("ROLLBACK")
        assert sdk.outcome is Outcome.COMPLETED
