"""Poolers: one that hands out sessions is fine, one that hands out transactions is refused."""

from __future__ import annotations

import psycopg
import pytest
import trio

from runtara_trio import Operator, Outcome, StoreError, open_backend

from ...helpers.pooler import running_pgbouncer
from ...helpers.postgres import Server
from ...helpers.support import block


@pytest.fixture(scope="module")
def server():  # type: ignore[no-untyped-def]
    server = Server()
    yield server
    server.close()


async def test_session_mode(server: Server) -> None:
    with running_pgbouncer(server.url, "session") as url:
        async with open_backend(url) as backend, open_backend(server.url) as direct:
            async with block(backend, "pooled") as sdk, trio.open_nursery() as nursery:
                async with sdk.map(lambda n: sdk.checkpoint("a", n), range(20)) as results:
                    async for _ in results:
                        pass
                nursery.start_soon(Operator(direct).send_signal, "pooled", "go", b"1")
                with trio.fail_after(10):
                    assert await sdk.wait_for_signal("go") == b"1"
            assert sdk.outcome is Outcome.COMPLETED


@pytest.mark.parametrize("mode", ["transaction", "statement"])
@pytest.mark.parametrize("size", [1, 2, 20])
@pytest.mark.parametrize("busy", [False, True])
async def test_transaction_mode_is_refused(
    server: Server, mode: str, size: int, busy: bool
) -> None:
    """And nothing of ours is left in the sessions of others."""
    with running_pgbouncer(server.url, mode, size=size) as url:
        others = [psycopg.connect(url, autocommit=True, prepare_threshold=None) for _ in range(3)]
        for other in others if busy else ():
            other.execute("SELECT 1")
        with trio.fail_after(30), pytest.raises(StoreError, match="pool in session mode") as caught:
            async with block(url):
                raise AssertionError("it does not run")
        assert not caught.value.transient
        for other in others:
            for setting, value in (
                ("plan_cache_mode", "auto"),
                ("idle_in_transaction_session_timeout", "0"),
            ):
                assert other.execute(f"SHOW {setting}").fetchone() == (value,)
            assert other.execute("SELECT count(*) FROM pg_prepared_statements").fetchone() == (0,)
            other.close()


async def test_a_pool_that_is_too_small(server: Server) -> None:
    with running_pgbouncer(server.url, "session", size=1) as url:
        with trio.fail_after(30), pytest.raises(StoreError, match="raise its pool_size"):
            async with block(url):
                raise AssertionError("it does not run")
