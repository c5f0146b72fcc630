"""Programs of 0.1 work on a store that has the tables of workflows; it is taken from history."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtara_trio import (
    InstanceFailed,
    InstanceStatus,
    Operator,
    RuntaraSdk,
    open_backend,
    open_client,
    open_worker,
    workflow,
)

from ..helpers.history import package_of, running
from ..helpers.places import Shared
from ..helpers.support import sql

LAST_OF_0_1 = "4efa9cf^"

PROGRAM = """
import sys, trio
from runtara_trio import Operator, open_backend, open_runtara

async def main(url):
    async with open_backend(url) as backend:
        operator = Operator(backend)
        async with open_runtara(backend, instance_id="plain", tenant_id="t") as sdk:
            await sdk.checkpoint("before")
            print("open", flush=True)
            await trio.to_thread.run_sync(sys.stdin.readline)
            await sdk.checkpoint("after")
        print("plain", sdk.outcome, flush=True)
        await operator.cancel("pending")
        print("cancelled", flush=True)
        await trio.to_thread.run_sync(sys.stdin.readline)
        print("pruned", await operator.prune(0), flush=True)

trio.run(main, sys.argv[1])
"""


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package as 0.1 had it."""
    return package_of(LAST_OF_0_1, tmp_path_factory.mktemp("0_1"))


@workflow
async def job(sdk: RuntaraSdk) -> str:
    await sdk.checkpoint("a")
    return "done"


@pytest.mark.direct
async def test_both_work_on_one_store(old: Path, shared: Shared) -> None:
    async with running(old, PROGRAM, shared.url) as program:
        assert await program.line() == "open"
        assert program.process.stdin is not None
        async with (
            open_backend(shared.url) as backend,
            open_client(backend, tenant_id="t") as client,
        ):
            await client.start(job, id="pending")  # the tables are made beside the open program
            await program.process.stdin.send_all(b"\n")
            assert await program.line() == "plain completed"
            assert await program.line() == "cancelled"
            async with open_worker(backend, [job]):
                assert await (await client.start(job, id="mine")).result(timeout=30) == "done"
                with pytest.raises(InstanceFailed) as failed:
                    await client.get("pending").result(timeout=30)
                assert failed.value.status is InstanceStatus.CANCELLED
            await program.process.stdin.send_all(b"\n")
            assert await program.line() == "pruned 3"
            assert await sql(backend, "SELECT instance_id FROM runtara_trio_runs") == []
            assert await Operator(backend).count() == 0
