"""What real infrastructure does to a store on PostgreSQL: hosts, failovers, outages, limits."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from urllib.parse import parse_qs, urlsplit

import psycopg
import pytest
import trio

from runtara_trio import (
    ConfigError,
    InstanceBusy,
    InstanceStatus,
    Operator,
    Outcome,
    OutcomeNotRecorded,
    SdkConfig,
    StoreError,
    open_backend,
    open_runtara,
)

from ...helpers.places import postgres_place
from ...helpers.postgres import Server
from ...helpers.statements import watch
from ...helpers.support import block, sql, start
from .test_store import LOCKS, admin, with_option

HELD_BY_0_1 = "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND objid = 7 AND objsubid = 2"


@pytest.fixture
def own() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


@pytest.fixture
async def url(postgres_server: str) -> AsyncIterator[str]:
    async with postgres_place(postgres_server) as place:
        yield place.url


def together(*servers: str) -> str:
    """One URL of several hosts."""
    hosts = [parse_qs(urlsplit(server).query).get("host", [""])[0] for server in servers]
    ports = [str(urlsplit(server).port or 5432) for server in servers]
    return f"postgresql://postgres@/postgres?host={','.join(hosts)}&port={','.join(ports)}"


@contextmanager
def silent_host() -> Iterator[str]:
    """A host that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        yield f"postgresql://postgres@127.0.0.1:{port}/postgres?host=127.0.0.1"


class TestSeveralHosts:
    async def test_the_primary_is_meant_also_after_a_failover(self, own: Server) -> None:
        async with open_runtara(own.url, instance_id="first", tenant_id="t"):
            pass
        standby = own.standby()
        try:
            url = together(standby.url, own.url)
            async with open_backend(url) as backend:
                async with block(backend) as sdk:
                    await sdk.checkpoint("before")
                    await trio.to_thread.run_sync(own.shut_down_at_once)
                    await trio.to_thread.run_sync(admin, standby.url, "SELECT pg_promote()")
                    await sdk.checkpoint("after")
                assert sdk.outcome is Outcome.COMPLETED
            async with open_backend(standby.url) as backend:
                details = await Operator(backend).show("i")
                assert details.summary.status is InstanceStatus.COMPLETED
        finally:
            standby.close()

    async def test_a_host_that_becomes_a_standby_is_left(self, own: Server) -> None:
        """Its connections stay open: a write is refused, and made on the other one."""
        async with open_runtara(own.url, instance_id="first", tenant_id="t"):
            pass
        standby = own.standby()
        try:
            # A pooler or a DNS name may lead to a standby for a while.
            misled = together(standby.url, own.url) + "&target_session_attrs=any"
            async with open_backend(misled) as backend:
                with pytest.raises(StoreError, match="read-only standby"), trio.fail_after(20):
                    async with block(backend):
                        raise AssertionError("it does not run")
                await trio.to_thread.run_sync(admin, standby.url, "SELECT pg_promote()")
                async with block(backend) as sdk:
                    await sdk.checkpoint("a")
                assert sdk.outcome is Outcome.COMPLETED
        finally:
            standby.close()

    async def test_a_silent_host_holds_nobody_up(self, postgres_server: str) -> None:
        with silent_host() as silent, trio.fail_after(4):
            async with open_runtara(
                together(silent, postgres_server), instance_id=os.urandom(8).hex(), tenant_id="t"
            ) as sdk:
                await sdk.checkpoint("a")
        assert sdk.outcome is Outcome.COMPLETED

    async def test_silent_hosts_alone_are_told(self) -> None:
        with silent_host() as one, silent_host() as two:
            config = SdkConfig(store=together(one, two), connect_timeout_ms=500)
            with trio.fail_after(10), pytest.raises(StoreError):
                async with open_runtara(config, instance_id="i", tenant_id="t"):
                    raise AssertionError("it does not run")


class TestAServerThatIsNotUp:
    async def test_it_is_waited_for(self, own: Server) -> None:
        own.shut_down_at_once()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, own.start)
            async with open_runtara(own.url, instance_id="i", tenant_id="t") as sdk:
                await sdk.checkpoint("a")
        assert sdk.outcome is Outcome.COMPLETED

    async def test_but_not_for_ever(self, own: Server) -> None:
        own.shut_down_at_once()
        config = SdkConfig(store=own.url, connect_timeout_ms=300)
        with (
            trio.fail_after(10),
            pytest.raises(StoreError, match="No such file") as caught,
        ):
            async with open_runtara(config, instance_id="i", tenant_id="t"):
                raise AssertionError("it does not run")
        assert caught.value.transient

    @pytest.mark.parametrize(
        ("spoil", "said"),
        [
            (lambda url: url.replace("postgres:@", "nobody_here:@"), "createuser"),
            (lambda url: url.replace("/postgres?", "/nothing_here?"), "create it first: createdb"),
            (lambda url: with_option(url, "nothing_here=1"), "check options= in the URL"),
            (lambda url: with_option(url, "work_mem=much"), "check options= in the URL"),
        ],
    )
    async def test_nor_for_what_does_not_pass(self, url: str, spoil: object, said: str) -> None:
        spoiled = spoil(url)  # type: ignore[operator]
        assert spoiled != url
        config = SdkConfig(store=spoiled, connect_timeout_ms=600_000)
        with trio.fail_after(10), pytest.raises(StoreError, match=said) as caught:
            async with open_runtara(config, instance_id="i", tenant_id="t"):
                raise AssertionError("it does not run")
        assert not caught.value.transient

    async def test_an_outage_is_said_once_and_the_end_does_not_wait_for_it(
        self, own: Server, caplog: pytest.LogCaptureFixture
    ) -> None:
        ends = trio.Event()
        with trio.fail_after(15):
            with pytest.raises(OutcomeNotRecorded, match=r"refused|No such file"):
                async with open_runtara(
                    own.url, instance_id="i", tenant_id="t", final_timeout=1.5
                ) as sdk:
                    await sdk.checkpoint("a")
                    await trio.to_thread.run_sync(own.shut_down_at_once)
                    with trio.move_on_after(2):  # long enough for a hundred warnings of old
                        await ends.wait()
                    ending = trio.current_time()
            assert trio.current_time() - ending < 6
        warnings = [one for one in caplog.records if one.levelno >= logging.WARNING]
        counted = Counter(one.getMessage().partition(":")[0] for one in warnings)
        assert set(counted.values()) == {1}, counted


async def test_the_threads_of_the_program_are_not_ours(own: Server) -> None:
    """All of Trio's are busy: a store opens, connects again and closes all the same."""
    free = threading.Event()
    async with trio.open_nursery() as nursery:
        for _ in range(40):
            nursery.start_soon(trio.to_thread.run_sync, free.wait)
        try:
            with trio.fail_after(30):
                async with open_runtara(own.url, instance_id="i", tenant_id="t") as sdk:
                    await sdk.checkpoint("a")
                    own.shut_down_at_once()
                    own.start()
                    await sdk.checkpoint("b")
        finally:
            free.set()
    assert sdk.outcome is Outcome.COMPLETED


async def test_a_full_queue_of_notifications_refuses_no_signal(own: Server) -> None:
    admin(own.url, "ALTER SYSTEM SET max_notify_queue_pages = 64")
    own.shut_down_at_once()
    own.start()
    with psycopg.connect(own.url) as idle:
        idle.execute("LISTEN other")
        idle.commit()
        idle.execute("SELECT 1")  # and sits in its transaction
        with (
            psycopg.connect(own.url, autocommit=True) as filler,
            pytest.raises(psycopg.Error, match="queue"),
        ):
            while True:
                filler.execute("SELECT pg_notify('other', repeat('x', 7800) || random())")
        async with open_backend(own.url) as backend:
            operator = Operator(backend)
            with trio.fail_after(20):
                async with block(backend) as sdk:
                    await operator.send_signal("i", "go", b"1")
                    assert await sdk.wait_for_signal("go") == b"1"
                    await operator.pause("i")
                    await operator.resume("i")
                    await operator.cancel("i")
                    await trio.sleep_forever()
            assert sdk.outcome is Outcome.CANCELLED


class TestOwners:
    async def test_a_killed_one_is_taken_over_within_four_seconds(self, url: str) -> None:
        async with start("worker.py", url, "i", "wait") as first:
            await first.line("running new")
            await first.kill()
            killed = trio.current_time()
            async with open_runtara(url, instance_id="i", tenant_id="t") as sdk:
                assert (await sdk.checkpoint("first")).found
            assert trio.current_time() - killed < 8  # four, on a machine that is not busy

    async def test_one_whose_connection_was_cut_is_not_taken_over(self, url: str) -> None:
        async with open_backend(url) as backend, block(backend) as sdk:
            for _ in range(2):
                ((pid, _),) = await sql(backend, LOCKS)
                await trio.to_thread.run_sync(admin, url, f"SELECT pg_terminate_backend({pid})")
                async with open_backend(url) as another:
                    with trio.fail_after(20), pytest.raises(InstanceBusy):
                        async with block(another):
                            raise AssertionError("it does not run")
            await sdk.checkpoint("a")
        assert sdk.outcome is Outcome.COMPLETED

    async def test_one_whose_server_started_again_is_not_taken_over(self, own: Server) -> None:
        async with start("worker.py", own.url, "i", "wait") as first:
            await first.line("running new")
            async with open_backend(own.url) as another:
                await Operator(another).list()
                await trio.to_thread.run_sync(own.shut_down_at_once)
                await trio.to_thread.run_sync(own.start)
                with trio.fail_after(30), pytest.raises(InstanceBusy):
                    async with block(another):
                        raise AssertionError("it does not run")
            first.send(signal.SIGTERM)
            assert await first.wait() == 128 + signal.SIGTERM

    async def test_of_two_schemas_do_not_share_a_lock(self, postgres_server: str) -> None:
        async with postgres_place(postgres_server) as one, postgres_place(postgres_server) as two:
            async with start("worker.py", one.url, "i", "wait") as killed:
                await killed.line("running new")
                async with start("worker.py", two.url, "i", "wait") as lives:
                    await lives.line("running new")
                    await killed.kill()
                    with trio.fail_after(20):
                        async with block(one.backend) as sdk:
                            assert (await sdk.checkpoint("first")).found
                    with pytest.raises(InstanceBusy):
                        async with block(two.backend):
                            raise AssertionError("it does not run")

    async def test_one_of_0_1_lives_while_it_holds_its_lock(self, url: str) -> None:
        async with open_backend(url) as backend:
            async with block(backend) as sdk:
                await sdk.suspended()
            with psycopg.connect(url, autocommit=True) as old:
                old.execute("SELECT pg_advisory_lock(hashtext('runtara_trio owner'), 7)")
                old.execute(
                    "INSERT INTO runtara_trio_owners VALUES"
                    " ('postgres-7', 'a 0.1', 7, clock_timestamp() - interval '20 s', 30000)"
                )
                old.execute("INSERT INTO runtara_trio_leases VALUES ('i', 'postgres-7', 7)")
                with pytest.raises(InstanceBusy, match=r"a 0\.1"):
                    async with block(backend):
                        raise AssertionError("it does not run")
            with trio.fail_after(20):
                while await sql(backend, HELD_BY_0_1):  # its session is ending
                    await trio.sleep(0.01)
                async with block(backend) as sdk:
                    pass
        assert sdk.outcome is Outcome.COMPLETED


class TestMessages:
    async def refused(self, url: str, said: str) -> None:
        with trio.fail_after(15), pytest.raises(StoreError, match=said) as caught:
            async with open_runtara(url, instance_id="i", tenant_id="t"):
                raise AssertionError("it does not run")
        assert not caught.value.transient

    async def test_of_a_read_only_role(self, url: str) -> None:
        async with open_runtara(url, instance_id="i", tenant_id="t"):
            pass
        await self.refused(
            with_option(url, "default_transaction_read_only=on"), "sessions of this role"
        )

    async def test_of_a_schema_that_is_missing(self, postgres_server: str) -> None:
        await self.refused(f"{postgres_server}&options=-csearch_path%3Dnot_there", "CREATE SCHEMA")

    async def test_of_an_option_that_is_not_escaped(self, postgres_server: str) -> None:
        with pytest.raises(ConfigError, match="write %3D for ="):
            async with open_backend(f"{postgres_server}&options=-csearch_path=x"):
                raise AssertionError("it does not open")

    async def test_of_a_role_with_too_few_connections(self, own: Server) -> None:
        admin(own.url, "CREATE ROLE few LOGIN CONNECTION LIMIT 1")
        admin(own.url, "GRANT ALL ON SCHEMA public TO few")
        few = own.url.replace("postgres:@", "few:@")
        config = SdkConfig(store=few, connect_timeout_ms=500)
        with trio.fail_after(15), pytest.raises(StoreError, match="CONNECTION LIMIT") as caught:
            async with open_runtara(config, instance_id="i", tenant_id="t"):
                raise AssertionError("it does not run")
        assert caught.value.transient


async def test_tables_that_change_under_it(url: str) -> None:
    """What was prepared for them as they were is prepared anew."""
    async with open_backend(url) as backend, block(backend) as sdk:
        await sdk.checkpoint("a", b"1")
        await sdk.custom_event("before")
        assert (await Operator(backend).show("i")).checkpoints == 1
        await trio.to_thread.run_sync(
            admin, url, "ALTER TABLE instances ALTER COLUMN tenant_id TYPE varchar(600)"
        )
        await trio.to_thread.run_sync(
            admin, url, "ALTER TABLE checkpoints ALTER COLUMN checkpoint_id TYPE varchar(3000)"
        )
        with trio.fail_after(20):
            await sdk.custom_event("after")
            await sdk.checkpoint("b", b"2")
            assert (await Operator(backend).show("i")).checkpoints == 2
            assert len((await Operator(backend).checkpoints("i")).checkpoints) == 2
    assert sdk.outcome is Outcome.COMPLETED


class TestManyEnds:
    MANY = 500

    @asynccontextmanager
    async def many(self, url: str, ended: list[Outcome | None]) -> AsyncIterator[None]:
        """Many blocks on one backend, until the end of the block."""
        async with open_backend(url) as backend, trio.open_nursery() as nursery:

            async def one(number: int, *, task_status: trio.TaskStatus[None]) -> None:
                async with block(backend, f"i{number}") as sdk:
                    await sdk.checkpoint("a")
                    task_status.started()
                    await trio.sleep_forever()
                ended.append(sdk.outcome)

            async with trio.open_nursery() as starting:
                for number in range(self.MANY):
                    starting.start_soon(nursery.start, one, number)
            yield
            nursery.cancel_scope.cancel()

    async def test_they_are_batched(self, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        statements: list[str] = []
        async with self.many(url, []):
            watch(monkeypatch, lambda statement, _: statements.append(statement))
        monkeypatch.undo()
        async with open_backend(url) as backend:
            page = await Operator(backend).list(limit=1000)
        assert {one.status for one in page.instances} == {InstanceStatus.SUSPENDED}
        assert len(page.instances) == self.MANY
        assert not any(one.held for one in page.instances)
        assert len(statements) < self.MANY / 4

    async def test_none_is_lost_with_a_connection(self, url: str) -> None:
        ended: list[Outcome | None] = []
        async with self.many(url, ended):
            await trio.to_thread.run_sync(
                admin,
                url,
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'",
            )
        async with open_backend(url) as backend:
            page = await Operator(backend).list(limit=1000)
            assert {one.status for one in page.instances} == {InstanceStatus.SUSPENDED}
            events = await sql(
                backend, "SELECT count(*) FROM instance_events WHERE event_type = 'suspended'"
            )
            assert events == [(self.MANY,)]

    async def test_each_is_answered_by_itself(self, url: str) -> None:
        """A lease that is lost, or a cancel that stands, is one instance's affair."""
        async with open_backend(url) as backend, trio.open_nursery() as nursery:
            stop = trio.Event()
            outcomes: dict[str, Outcome | None] = {}

            async def one(name: str, *, task_status: trio.TaskStatus[None]) -> None:
                try:
                    async with block(backend, name) as sdk:
                        task_status.started()
                        with trio.CancelScope(shield=True):
                            await stop.wait()
                finally:
                    outcomes[name] = sdk.outcome

            async def lost(name: str, *, task_status: trio.TaskStatus[None]) -> None:
                with pytest.raises(Exception, match="lease"):
                    await one(name, task_status=task_status)

            for name in ("a", "b", "c"):
                await nursery.start(one, name)
            await nursery.start(lost, "d")
            await Operator(backend).cancel("b")
            await sql(backend, "UPDATE runtara_trio_leases SET epoch = 0 WHERE instance_id = 'd'")
            stop.set()
        assert outcomes == {
            "a": Outcome.COMPLETED,
            "b": Outcome.CANCELLED,
            "c": Outcome.COMPLETED,
            "d": Outcome.LOST,
        }


async def test_vacuum(url: str) -> None:
    async with open_backend(url) as backend:
        async with block(backend) as sdk:
            for number in range(50):
                await sdk.checkpoint(f"n{number}", b"x" * 100_000)
        assert await Operator(backend).prune(0) == 1
        done = await Operator(backend).vacuum()
        assert done.bytes_after < done.bytes_before
