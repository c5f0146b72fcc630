"""``?pooler=transaction``: nothing of a store depends on a session, and nothing is left in one.

All other tests of a PostgreSQL run behind such a pooler with ``pytest --pooled``.
"""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
import trio

from runtara_trio import (
    ConfigError,
    InstanceBusy,
    Operator,
    Outcome,
    RuntaraSdk,
    Schedule,
    durable,
    open_backend,
    open_client,
    open_worker,
    workflow,
)
from runtara_trio.store.postgres import limits

from ...helpers.places import Shared, pooled_place
from ...helpers.pooler import running_pgbouncer
from ...helpers.postgres import Server
from ...helpers.support import block, pool_of, start

TRANSACTION = "?pooler=transaction"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


@pytest.fixture(scope="module")
def pooler(server: Server) -> Iterator[str]:
    """One with two sessions for all that use a database."""
    with running_pgbouncer(server.url, "transaction", size=2) as url:
        yield f"{url}{TRANSACTION}"


@pytest.fixture
async def pooled(pooler: str) -> AsyncIterator[str]:
    """A database behind it."""
    async with pooled_place(pooler) as place:
        yield place.url


@durable
async def double(number: int) -> int:
    return 2 * number


@workflow
async def doubled(sdk: RuntaraSdk, number: int) -> int:
    await sdk.sleep(0.05, "nap")
    return await double(number)


@workflow
async def asks(sdk: RuntaraSdk) -> list[int]:
    children = [await sdk.call(doubled, number, name=str(number)) for number in range(3)]
    return [*children, int(await sdk.wait_for_signal("more"))]


def of_other_sessions(url: str) -> list[tuple[Any, ...]]:
    """What the sessions behind a pooler have that the next program could find: two at once."""
    place = url.removesuffix(TRANSACTION)
    found = []
    both = [psycopg.connect(place, prepare_threshold=None) for _ in range(2)]
    for one in both:
        one.execute("BEGIN")
    for one in both:
        found += one.execute("SELECT 'statement', name FROM pg_prepared_statements").fetchall()
        found += one.execute("SELECT 'channel', pg_listening_channels()").fetchall()
        found += one.execute(
            "SELECT 'setting', name, setting FROM pg_settings WHERE name IN"
            " ('plan_cache_mode', 'idle_in_transaction_session_timeout', 'lock_timeout',"
            " 'statement_timeout', 'synchronous_commit') AND setting <> reset_val"
        ).fetchall()
        found += one.execute(
            "SELECT 'lock', pid FROM pg_locks WHERE locktype = 'advisory'"
        ).fetchall()
        one.close()
    return found


async def test_a_fleet_leaves_nothing_in_sessions(pooled: str) -> None:
    async with (
        open_backend(pooled, create=True) as store,
        open_backend(pooled) as other,
        open_worker(store, [asks, doubled], stop_signals=()),
        open_client(other, tenant_id="t") as client,
    ):
        with trio.fail_after(60):
            instances = [await client.start(asks, id=f"a{number}") for number in range(10)]
            for one in instances:
                await one.signal("more", 7)
            assert [await one.result() for one in instances] == [[0, 2, 4, 7]] * 10
            await client.set_schedule(Schedule("s", doubled, (4,), every=1, tenant_id="t"))
            slot = client.get(await client.trigger_schedule("s"), doubled)
            assert await slot.result() == 8
            assert await Operator(other).prune(0.0) == 41
            await Operator(other).vacuum()
        assert await trio.to_thread.run_sync(of_other_sessions, pooled) == []
    assert await trio.to_thread.run_sync(of_other_sessions, pooled) == []


async def test_signals_come_with_the_poll(pooled: str) -> None:
    async with open_backend(pooled) as backend, open_backend(pooled) as other:
        operator = Operator(other)
        with trio.fail_after(30):
            async with block(backend) as sdk:
                await operator.cancel("i")
                await trio.sleep_forever()
            assert sdk.outcome is Outcome.CANCELLED
            async with block(backend, "j") as sdk:
                await operator.pause("j")
                await sdk.sleep(1000, "nap")
            assert sdk.outcome is Outcome.PAUSED


async def test_what_this_process_does_it_knows_at_once(
    pooled: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waits for no poll: that comes never here."""
    monkeypatch.setattr(limits, "POLL_POOLED", 1000.0)
    async with (
        open_backend(pooled, create=True) as store,
        open_worker(store, [doubled], stop_signals=()),
        open_client(store, tenant_id="t") as client,
    ):
        with trio.fail_after(60):
            assert await (await client.start(doubled, 4)).result() == 8


async def test_a_killed_owner_is_dead_with_its_lease(pooled: str) -> None:
    shared = Shared(pooled)
    async with open_backend(pooled, create=True) as backend:
        async with start("acknowledge.py", pooled) as program:
            await program.line("running")
            with pytest.raises(InstanceBusy):
                async with block(backend):
                    raise AssertionError("it does not run")
            await program.kill()
        with pytest.raises(InstanceBusy):
            async with block(backend):
                raise AssertionError("its lease stands")
        await shared.expire(program)
        async with block(backend) as sdk:
            await sdk.checkpoint("mine", 1)
        assert sdk.outcome is Outcome.COMPLETED


@pytest.mark.parametrize("first", ["pooled", "direct"])
async def test_beside_one_that_has_a_session(server: Server, pooled: str, first: str) -> None:
    """Neither takes the other one for dead, whose lock it does not find."""
    direct = urlunsplit(urlsplit(server.url)._replace(path=urlsplit(pooled).path))
    urls = [pooled, direct] if first == "pooled" else [direct, pooled]
    async with open_backend(urls[0], create=True) as one, open_backend(urls[1]) as other:
        async with block(one) as sdk:
            with trio.fail_after(10), pytest.raises(InstanceBusy):
                async with block(other):
                    raise AssertionError("it does not run")
            await Operator(other).send_signal("i", "go", b"1")
            assert await sdk.wait_for_signal("go") == b"1"


async def test_first_starts_at_once(pooled: str) -> None:
    async def begin(number: int) -> None:
        async with open_backend(pooled, create=True) as store:
            async with block(store, f"i{number}") as sdk:
                await sdk.checkpoint("a", number)

    async with trio.open_nursery() as nursery:
        for number in range(4):
            nursery.start_soon(begin, number)


async def test_what_a_role_has_set_is_for_others(server: Server, pooler: str) -> None:
    """A store does not commit less safely, and its transactions are what they are elsewhere."""
    with psycopg.connect(server.url, autocommit=True) as admin:
        admin.execute("ALTER ROLE postgres SET default_transaction_isolation = 'serializable'")
        admin.execute("ALTER ROLE postgres SET synchronous_commit = off")
    try:
        async with pooled_place(pooler) as place:
            async with block(place.backend) as sdk:
                await sdk.checkpoint("a", 1)
                committed = await sdk.transact(
                    lambda connection: connection.execute(
                        "SELECT current_setting('synchronous_commit')"
                    ).fetchone()[0]
                )
            async with pool_of(place.backend).lent() as connection:
                found = await connection.run(
                    "SELECT current_setting('transaction_isolation'),"
                    " current_setting('synchronous_commit'), current_setting('plan_cache_mode')"
                )
            assert committed == "on"
            assert found == [("read committed", "on", "force_generic_plan")]
    finally:
        with psycopg.connect(server.url, autocommit=True) as admin:
            admin.execute("ALTER ROLE postgres RESET ALL")


async def test_an_error_leaves_the_connection_usable(pooled: str) -> None:
    async with open_backend(pooled, create=True) as store:
        async with block(store):
            async with pool_of(store).lent() as connection:
                for _ in range(3):
                    with pytest.raises(psycopg.errors.UndefinedTable):
                        await connection.run("SELECT 1 FROM nothing")
                    assert await connection.run("SELECT $1::bigint", 7) == [(7,)]


async def test_a_transaction_that_is_given_up(pooled: str) -> None:
    """Its server process is ended, and no other: a pooler names one that is not its."""
    began = trio.Event()
    token = trio.lowlevel.current_trio_token()

    def hangs(connection: Any) -> None:
        connection.execute("CREATE TABLE given_up (number INT)")
        token.run_sync_soon(began.set)
        connection.execute("SELECT pg_sleep(1000)")

    async with open_backend(pooled, create=True) as store:
        async with block(store, final_timeout=1.0) as sdk, trio.open_nursery() as tasks:
            tasks.start_soon(sdk.transact, hangs)
            await began.wait()
            tasks.cancel_scope.cancel()
        with trio.fail_after(30):
            async with pool_of(store).lent() as connection:
                found = await connection.run("SELECT to_regclass('given_up') IS NULL")
        assert found == [(True,)]


async def test_one_that_has_ended_its_transaction_is_given_up(pooled: str) -> None:
    """Its session is somebody else's by then, who notices nothing."""
    place = pooled.removesuffix(TRANSACTION)
    began, over = trio.Event(), threading.Event()
    token = trio.lowlevel.current_trio_token()

    def ends(connection: Any) -> None:
        connection.execute("SELECT 1")
        connection.rollback()
        token.run_sync_soon(began.set)
        over.wait()

    async with open_backend(pooled, create=True) as store:
        async with block(store, final_timeout=0.5) as sdk:
            # A pooler without a free session would let it wait for 20 s.
            with trio.fail_after(10), trio.CancelScope() as scope:
                async with trio.open_nursery() as tasks:
                    tasks.start_soon(sdk.transact, ends)
                    await began.wait()
                    others = [psycopg.connect(place, prepare_threshold=None) for _ in range(2)]
                    for other in others:  # they have both sessions
                        other.execute("SELECT 1")
                    scope.cancel()
            for other in others:
                other.execute("SELECT 1")
                other.close()
            over.set()


async def test_a_busy_process_hears_of_signals(pooled: str) -> None:
    """What it does itself is news all the time."""
    async with (
        open_backend(pooled, create=True) as store,
        open_backend(pooled) as other,
        open_worker(store, [asks, doubled], stop_signals=()),
        open_client(store, tenant_id="t") as client,
        open_client(other, tenant_id="t") as elsewhere,
        trio.open_nursery() as tasks,
    ):

        async def load() -> None:
            while True:
                await (await client.start(doubled, 1)).result()

        for _ in range(3):
            tasks.start_soon(load)
        instance = await client.start(asks, id="a")
        with trio.fail_after(10):
            await elsewhere.get("a").signal("more", 7)
            assert await instance.result() == [0, 2, 4, 7]
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize("mode", ["session", "nothing", ""])
async def test_other_modes(server: Server, mode: str) -> None:
    url = f"{server.url}&pooler={mode}"
    if mode == "session":
        async with open_backend(url, create=True) as store, block(store, "with a session") as sdk:
            await sdk.checkpoint("a", 1)
        return
    with pytest.raises(ConfigError, match=f"pooler must be transaction or session, not {mode!r}"):
        async with open_backend(url):
            raise AssertionError("it does not open")
