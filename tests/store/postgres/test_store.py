"""What only PostgreSQL does: several machines, and a server that goes away. Real servers."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest
import trio

from runtara_trio import (
    ConfigError,
    InstanceBusy,
    InstanceStatus,
    Operator,
    Outcome,
    SdkConfig,
    SharedBackend,
    StoreError,
    open_backend,
    open_runtara,
)
from runtara_trio.messages import Checkpoint, GetStatus, Register
from runtara_trio.store.location import without_password
from runtara_trio.store.postgres import limits, settings
from runtara_trio.store.postgres.connection import Connection
from runtara_trio.store.postgres.schema import CORE_1_6

from ...helpers.places import client as core_client
from ...helpers.places import free_port, postgres_place, running_core
from ...helpers.postgres import Server
from ...helpers.support import block, idle_pids, sql, start, url_of


@pytest.fixture
async def url(postgres_server: str) -> AsyncIterator[str]:
    """A store's URL, in a schema of its own."""
    async with postgres_place(postgres_server) as place:
        yield place.url


@pytest.fixture(scope="module")
def own_server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


LOCKS = (
    "SELECT l.pid, o.lock_key FROM pg_locks l JOIN runtara_trio_owners o"
    " ON (o.lock_key & 4294967295) = l.objid::bigint"
    " WHERE l.locktype = 'advisory'"
)
"""Whose lock is held."""


def with_option(url: str, option: str) -> str:
    return url + quote(f" -c{option}", safe="")


def admin(url: str, statement: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(statement)


def cut(backend: SharedBackend) -> None:
    """End the connections that nobody uses just now."""
    for pid in idle_pids(backend):
        admin(url_of(backend), f"SELECT pg_terminate_backend({pid})")


def lose_commit(monkeypatch: pytest.MonkeyPatch, number: int) -> list[str]:
    """The n-th commit from now on is made, and nobody hears of it."""
    commit, commits = Connection.commit, []

    async def loses(self: Connection, *channels: str) -> None:
        await commit(self, *channels)
        commits.append("COMMIT")
        if len(commits) == number:
            self.broken = True
            raise psycopg.OperationalError("the connection was lost")

    monkeypatch.setattr(Connection, "commit", loses)
    return commits


class TestSeveralProcesses:
    async def test_one_runs_and_the_other_is_told(self, url: str) -> None:
        async with start("worker.py", url, "i", "wait") as first:
            await first.line("running new")
            with pytest.raises(InstanceBusy, match=f"process {first.pid} "):
                async with open_runtara(url, instance_id="i", tenant_id="t"):
                    raise AssertionError("it does not run")

    async def test_a_killed_holder_is_taken_over(self, url: str) -> None:
        """After half its lease: its connection may come back until then."""
        async with start("worker.py", url, "i", "wait", 2000) as first:
            await first.line("running new")
            await first.kill()
            async with start("worker.py", url, "i", "return", 2000) as second:
                await second.line("running again")
                assert await second.wait() == 0

    async def test_a_forked_child_does_not_keep_the_lock(self, url: str) -> None:
        async with start("worker.py", url, "i", "fork") as program:
            await program.line("running new")
            child = int((await program.line("child")).split()[1])
            try:
                await program.kill()
                async with open_backend(url) as backend:
                    with trio.fail_after(20):
                        while await sql(backend, LOCKS):
                            await trio.sleep(0.02)
            finally:
                os.kill(child, signal.SIGKILL)

    async def test_first_starts_race(self, postgres_server: str) -> None:
        async with postgres_place(postgres_server) as place:

            async def first(number: int) -> None:
                async with open_runtara(place.url, instance_id=f"i{number}", tenant_id="t") as sdk:
                    await sdk.checkpoint("a")

            async with trio.open_nursery() as nursery:
                for number in range(8):
                    nursery.start_soon(first, number)
            page = await Operator(place.backend).list()
            assert len(page.instances) == 8


class TestConnectionsThatAreLost:
    async def count(self, backend: SharedBackend, tasks: int, each: int) -> list[bool]:
        """Checkpoints of many tasks; for each, whether it was found."""
        found: list[bool] = []

        async def one(number: int) -> None:
            for step in range(each):
                result = await sdk.checkpoint(f"{number}/{step}", b"x" * 100)
                found.append(result.found)

        async with block(backend) as sdk, trio.open_nursery() as nursery:
            for number in range(tasks):
                nursery.start_soon(one, number)
        assert sdk.outcome is Outcome.COMPLETED
        return found

    async def test_killed_by_an_administrator(self, url: str) -> None:
        async with open_backend(url) as backend, trio.open_nursery() as nursery:

            async def kills() -> None:
                for _ in range(5):
                    await trio.sleep(0.05)
                    await trio.to_thread.run_sync(
                        admin,
                        url,
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                        " WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'",
                    )

            nursery.start_soon(kills)
            found = await self.count(backend, 64, 30)
            assert found == [False] * (64 * 30)
            assert await sql(backend, "SELECT count(*) FROM checkpoints") == [(64 * 30,)]
            nursery.cancel_scope.cancel()

    async def test_a_server_that_is_restarted(self, own_server: Server) -> None:
        async with postgres_place(own_server.url) as place, trio.open_nursery() as nursery:

            async def restart() -> None:
                await trio.sleep(0.1)
                await trio.to_thread.run_sync(own_server.shut_down_at_once)
                await trio.to_thread.run_sync(own_server.start)

            nursery.start_soon(restart)
            found = await self.count(place.backend, 64, 60)
            assert found == [False] * (64 * 60)
            assert await sql(place.backend, "SELECT count(*) FROM checkpoints") == [(64 * 60,)]

    async def test_a_server_that_stays_away(
        self, own_server: Server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Whoever waits is told, and what comes after the server is back is saved."""
        monkeypatch.setattr(limits, "AWAY", 0.3)
        async with postgres_place(own_server.url) as place:
            reply = await place.backend.request(Register(instance_id="i", tenant_id="t"))
            message = Checkpoint(instance_id="i", lease=reply.lease, checkpoint_id="a", state=b"1")
            await trio.to_thread.run_sync(own_server.shut_down_at_once)
            for asked in (message, GetStatus(instance_id="i")):
                with trio.fail_after(20), pytest.raises(StoreError) as caught:
                    await place.backend.request(asked)
                assert caught.value.transient
            await trio.to_thread.run_sync(own_server.start)
            monkeypatch.undo()
            assert not (await place.backend.request(message)).found

    async def test_what_had_not_been_committed_is_sent_again(self, url: str) -> None:
        """An event too: its connection was cut while nobody used it."""
        async with open_backend(url) as backend, block(backend) as sdk:
            await sdk.custom_event("first")
            cut(backend)
            await sdk.custom_event("second")
            cut(backend)
            await sdk.record_retry_attempt("a", 1, "why")
            cut(backend)
        assert sdk.outcome is Outcome.COMPLETED
        async with open_backend(url) as backend:
            events = (await Operator(backend).events("i")).events
        assert [one.subtype for one in events if one.subtype] == ["first", "second"]

    async def test_an_event_of_unknown_fate_raises(
        self, url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async with open_backend(url) as backend, block(backend) as sdk:
            await sdk.checkpoint("a")
            lose_commit(monkeypatch, 1)
            with pytest.raises(StoreError, match="nobody knows whether it was carried out"):
                await sdk.custom_event("first")
            await sdk.custom_event("second")

    async def test_a_rivals_state_is_never_skipped(self, url: str) -> None:
        """A checkpoint that is sent again is not found, though the first one had arrived."""
        async with open_backend(url) as backend:
            reply = await backend.request(Register(instance_id="i", tenant_id="t"))
            message = Checkpoint(
                instance_id="i", lease=reply.lease, checkpoint_id="a", state=b"mine"
            )
            assert not (await backend.request(message)).found
            assert (await backend.request(message)).found


@pytest.mark.parametrize("number", range(1, 7))
async def test_an_answer_that_is_lost(
    url: str, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """The n-th commit is made, and nobody hears of it: nothing is doubled, nothing skipped."""
    async with open_backend(url) as backend:
        commits = lose_commit(monkeypatch, number)
        async with block(backend) as sdk:  # 1: the register
            await Operator(backend).send_signal("i", "approve", b"yes")  # 2
            await sdk.sleep(0.01, "nap")  # 3
            assert await sdk.wait_for_signal("approve") == b"yes"  # 4
            await sdk.record_retry_attempt("a", 1, "why")  # 5
            assert not (await sdk.checkpoint("a", b"1")).found
            await sdk.completed("done")  # 6
        assert len(commits) >= 6
        assert sdk.outcome is Outcome.COMPLETED
        details = await Operator(backend).show("i")
        assert details.summary.status == "completed"
        assert not details.summary.held
        assert details.unread_signals == ()
        events = [one.type for one in (await Operator(backend).events("i")).events]
        assert events[-1] == "completed"
        assert events.count("completed") == 1


class TestAServerThatRefuses:
    async def open(self, url: str, text: str) -> StoreError:
        config = SdkConfig(store=url, connect_timeout_ms=300)
        with pytest.raises(StoreError, match=text) as caught:
            async with open_runtara(config, instance_id="i", tenant_id="t") as sdk:
                await sdk.checkpoint("a")
        return caught.value

    async def test_no_server(self) -> None:
        url = f"postgresql://localhost:{free_port()}/shop"
        error = await self.open(url, "PostgreSQL shop on localhost:.*check that the server runs")
        assert error.transient

    async def test_no_database(self, postgres_server: str) -> None:
        url = postgres_server.replace("/postgres?", "/nothing_here?")
        await self.open(url, "create it first: createdb")

    async def test_a_name_that_is_none(self) -> None:
        await self.open("postgresql://nowhere.invalid/shop", "nowhere.invalid")

    async def test_a_standby(self, own_server: Server) -> None:
        async with open_runtara(own_server.url, instance_id="first", tenant_id="t"):
            pass
        standby = own_server.standby()
        try:
            await self.open(standby.url, "read-only standby: give the primary's URL")
        finally:
            standby.close()

    async def test_a_statement_timeout(self, url: str) -> None:
        with psycopg.connect(url) as other:
            async with open_backend(with_option(url, "statement_timeout=200")) as backend:
                await backend.request(Register(instance_id="i", tenant_id="t"))
                other.execute("SELECT 1 FROM instances FOR UPDATE")
                with pytest.raises(StoreError, match="a timeout of the server") as caught:
                    await backend.request(Register(instance_id="i", tenant_id="t"))
                assert caught.value.transient

    async def test_a_lock_timeout_of_a_checkpoint(self, url: str) -> None:
        with psycopg.connect(url) as other:
            async with open_backend(with_option(url, "lock_timeout=200")) as backend:
                reply = await backend.request(Register(instance_id="i", tenant_id="t"))
                other.execute("SELECT 1 FROM instances FOR UPDATE")
                with pytest.raises(StoreError, match="a timeout of the server"):
                    await backend.request(
                        Checkpoint(instance_id="i", lease=reply.lease, checkpoint_id="a", state=b"")
                    )

    async def test_too_many_connections(self, url: str, postgres_server: str) -> None:
        admin(postgres_server, "DROP ROLE IF EXISTS few")
        admin(postgres_server, "CREATE ROLE few LOGIN SUPERUSER CONNECTION LIMIT 0")
        try:
            admin(postgres_server, "ALTER ROLE few NOSUPERUSER")
            await self.open(
                url.replace("postgres@", "few@").replace("postgres:@", "few@"),
                "raise max_connections",
            )
        finally:
            admin(postgres_server, "DROP ROLE few")

    async def test_a_wrong_password(self, own_server: Server) -> None:
        admin(own_server.url, "CREATE ROLE locked LOGIN PASSWORD 'right'")
        with psycopg.connect(own_server.url, autocommit=True) as connection:
            (file,) = connection.execute("SHOW hba_file").fetchone() or ("",)
            rules = Path(file).read_text()
            Path(file).write_text(f"local all locked scram-sha-256\n{rules}")
            connection.execute("SELECT pg_reload_conf()")
        url = own_server.url.replace("postgres:@", "locked:wrong@").replace(
            "postgres@", "locked:wrong@"
        )
        error = await self.open(url, "check the user and the password of the URL")
        assert "wrong" not in str(error)
        assert not error.transient

    async def test_a_url_that_is_none(self) -> None:
        with pytest.raises(ConfigError, match="cannot read the URL of a PostgreSQL"):
            async with open_backend("postgresql://[x"):
                raise AssertionError("not reached")

    async def test_the_password_is_in_no_message(self) -> None:
        url = f"postgresql://me:secret@localhost:{free_port()}/shop"
        assert "secret" not in str(await self.open(url, "PostgreSQL shop"))
        assert without_password(url) == url.replace("secret", "***")
        assert (
            without_password("postgresql://h/d?password=secret&a=b")
            == "postgresql://h/d?password=***&a=b"
        )
        assert without_password("sqlite:///a@b:c.db") == "sqlite:///a@b:c.db"
        with pytest.raises(ConfigError) as caught:
            async with open_backend("postgresql://me:secret@[x/shop"):
                raise AssertionError("not reached")
        assert "secret" not in str(caught.value)


class TestTables:
    async def test_an_operator_makes_none(self, postgres_server: str) -> None:
        async with postgres_place(postgres_server) as place:
            with pytest.raises(StoreError, match="has no tables of runtara yet"):
                await Operator(place.backend).list()

    @pytest.mark.parametrize(
        ("version", "text"),
        [(1, "before its first release .schema 1.*drop its"), (3, "newer runtara-trio .schema 3,")],
    )
    async def test_of_another_version(self, url: str, version: int, text: str) -> None:
        async with open_runtara(url, instance_id="i", tenant_id="t"):
            pass
        admin(url, f"UPDATE runtara_trio_schema SET version = {version}")
        async with open_backend(url) as backend:
            with pytest.raises(StoreError, match=text):
                await backend.request(Register(instance_id="i", tenant_id="t"))

    async def test_of_a_newer_core(self, url: str) -> None:
        async with open_runtara(url, instance_id="i", tenant_id="t"):
            pass
        admin(url, "INSERT INTO _sqlx_migrations VALUES (10, 'x', now(), true, '', 0)")
        async with open_backend(url) as backend:
            with pytest.raises(StoreError, match=r"newer runtara-core than 1\.6\.4"):
                await Operator(backend).list()

    @pytest.mark.parametrize("count", [1, len(CORE_1_6)])
    async def test_that_a_later_core_has_migrated(self, url: str, count: int) -> None:
        """Under a store that has them open, and before one opens them."""
        async with open_backend(url) as backend:
            async with open_runtara(backend, instance_id="i", tenant_id="t") as sdk:
                await sdk.checkpoint("a", 1)
                admin(url, "ALTER TABLE instances ADD COLUMN exit_code INT")
                for version, what, digest in CORE_1_6[:count]:
                    values = f"{version}, '{what}', now(), true, '\\x{digest}', 0"
                    admin(url, f"INSERT INTO _sqlx_migrations VALUES ({values})")
                await sdk.checkpoint("b", 2)
                await sdk.suspended()
        async with open_runtara(url, instance_id="i", tenant_id="t") as sdk:
            assert await sdk.get_checkpoint("b", int) == 2
        assert sdk.outcome is Outcome.COMPLETED

    async def test_that_are_somebody_elses(self, url: str) -> None:
        admin(url, "CREATE TABLE instances (a int)")
        async with open_backend(url) as backend:
            with pytest.raises(StoreError, match=r"neither runtara-core 1\.4\.1's nor 1\.6\.4's"):
                await backend.request(Register(instance_id="i", tenant_id="t"))


async def test_an_environment_finds_one_fresh_event_an_instance(url: str) -> None:
    """It fails what has had none for 120 s. Its tables and records are there beside core's."""
    config = SdkConfig(store=url, heartbeat_interval_ms=20)
    beat = "SELECT created_at FROM instance_events WHERE event_type = 'heartbeat'"
    async with open_backend(config) as backend, block(backend) as sdk:
        owner = "SELECT 1 FROM runtara_trio_owners WHERE heartbeat_at IS NOT NULL"
        with trio.fail_after(20):
            while not await sql(backend, owner):
                await trio.sleep(0.01)
        assert await sql(backend, beat) == []  # nobody looks for it
        admin(url, "CREATE TABLE container_registry (instance_id TEXT PRIMARY KEY)")
        admin(
            url,
            "INSERT INTO _sqlx_migrations VALUES"
            " (20250101000000, 'environment schema', now(), true, 'x', 0)",
        )
        seen = set()
        with trio.fail_after(20):
            while len(seen) < 3:
                seen.update(await sql(backend, beat))
                await trio.sleep(0.01)
        assert len(await sql(backend, beat)) == 1
    assert sdk.outcome is Outcome.COMPLETED
    async with open_runtara(config, instance_id="another", tenant_id="t") as sdk:
        await sdk.checkpoint("a")


class TestOwners:
    config_of = staticmethod(lambda url: SdkConfig(store=url, lease_ms=600))
    KEY = "SELECT lock_key FROM runtara_trio_owners"

    async def test_it_renews_while_a_session_of_its_own_that_was_cut_has_the_lock(
        self, url: str
    ) -> None:
        async with open_backend(self.config_of(url)) as backend, block(backend) as sdk:
            await sdk.checkpoint("a")
            ((pid, key),) = await sql(backend, LOCKS)
            with psycopg.connect(url, autocommit=True) as cut:
                cut.execute(f"SELECT pg_terminate_backend({pid})")
                cut.execute(f"SELECT pg_advisory_lock({key})")
                seen = set()
                with trio.fail_after(20):
                    while len(seen) < 4:
                        seen.update(
                            await sql(backend, "SELECT renewed_at FROM runtara_trio_owners")
                        )
                        await trio.sleep(0.01)
        assert sdk.outcome is Outcome.COMPLETED

    async def test_what_the_dead_left_is_tidied(self, url: str) -> None:
        for name in ("a", "b"):
            async with start("worker.py", url, name, "wait", 200) as program:
                await program.line("running new")
                await program.kill()
        async with open_backend(self.config_of(url)) as backend:
            for name in ("a", "b"):
                with trio.fail_after(20):
                    while (await Operator(backend).show(name)).summary.held:
                        await trio.sleep(0.02)
            async with block(backend, "a"):
                assert len(await sql(backend, self.KEY)) == 3  # a's and b's hold their leases
        async with open_backend(self.config_of(url)) as backend, block(backend, "c"):
            assert len(await sql(backend, self.KEY)) == 2  # b's is asked for who held it


async def test_one_that_is_stopped_inside_a_transaction_locks_nobody_out(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server ends the transaction; the call is made again."""
    shorter = settings.LENT._replace(session=settings.LENT.session.replace("5000", "300"))
    monkeypatch.setattr(settings, "LENT", shorter)
    commit, freed = Connection.commit, trio.Event()

    async def stops(self: Connection, *channels: str) -> None:
        await freed.wait()
        await commit(self, *channels)

    def lock() -> None:
        with psycopg.connect(url) as other:
            other.execute("SELECT 1 FROM instances WHERE instance_id = 'i' FOR UPDATE")

    async with (
        open_backend(url) as backend,
        block(backend) as sdk,
        trio.open_nursery() as nursery,
    ):
        await sdk.checkpoint("a")
        monkeypatch.setattr(Connection, "commit", stops)
        nursery.start_soon(sdk.record_retry_attempt, "a", 1, "why")
        while idle_pids(backend):
            await trio.sleep(0.01)
        with trio.fail_after(20):
            await trio.to_thread.run_sync(lock)
        freed.set()
    assert sdk.outcome is Outcome.COMPLETED


async def test_prune_leaves_what_is_revived_meanwhile(url: str) -> None:
    async with open_backend(url) as backend:
        for name in ("i", "j"):
            async with block(backend, name) as sdk:
                await sdk.checkpoint("a")
        with psycopg.connect(url) as other:
            other.execute("UPDATE instances SET status = 'running' WHERE instance_id = 'i'")
            with trio.fail_after(10):
                assert await Operator(backend).prune(0) == 1
            other.commit()
        (left,) = (await Operator(backend).list()).instances
    assert left.instance_id == "i"


async def test_a_writer_that_does_not_notify_is_seen(url: str) -> None:
    """A real core, or an environment: by the slow poll."""
    async with open_backend(url) as backend, block(backend) as sdk:
        await sql(
            backend,
            "INSERT INTO pending_signals (instance_id, signal_type) VALUES ('i', 'cancel')",
        )
        with trio.fail_after(20):
            await sdk.sleep(3600, "nap")
    assert sdk.outcome is Outcome.CANCELLED


@pytest.mark.skipif("INTEROP_CORE" not in os.environ, reason="no stock runtara-core")
class TestWithAStockCore:
    async def test_it_takes_our_tables_as_its_own(self, own_server: Server) -> None:
        name = "ours_first"
        admin(own_server.url, f"CREATE DATABASE {name}")
        url = own_server.url.replace("/postgres?", f"/{name}?")
        async with open_runtara(url, instance_id="i", tenant_id="t") as sdk:
            await sdk.checkpoint("a", b"1")
            await sdk.suspended()
        port = free_port()
        async with running_core(url, port), core_client(f"127.0.0.1:{port}") as core:
            async with block(core) as sdk:
                assert await sdk.get_checkpoint("a") == b"1"
                await sdk.checkpoint("b", b"2")
        async with open_backend(url) as backend:
            assert (await Operator(backend).show("i")).summary.status is InstanceStatus.COMPLETED

    async def test_it_works_on_them_at_the_same_time(
        self, own_server: Server, tmp_path: Path
    ) -> None:
        name = "cores_first"
        admin(own_server.url, f"CREATE DATABASE {name}")
        url = own_server.url.replace("/postgres?", f"/{name}?")
        port = free_port()
        async with running_core(url, port), core_client(f"127.0.0.1:{port}") as core:
            async with open_backend(url) as backend:
                async with block(core, "cores") as theirs, block(backend, "ours") as ours:
                    await theirs.checkpoint("a", b"1")
                    await ours.checkpoint("a", b"2")
                    assert (await theirs.get_instance_status("ours")).status == "running"
                    assert (await ours.get_instance_status("cores")).status == "running"
            assert theirs.outcome is ours.outcome is Outcome.COMPLETED
