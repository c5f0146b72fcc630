"""Operators through our client: ``http://host:port?operators=PORT``."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest
import trio

from runtara_trio import (
    ConfigError,
    InstanceStatus,
    NotSupported,
    Operator,
    Outcome,
    SdkConfig,
    ServerError,
    SharedBackend,
    SignalRefused,
    open_backend,
)
from runtara_trio.http.server.guard import Guard
from runtara_trio.http.server.instances import InstanceAnswers
from runtara_trio.http.server.operators import OperatorAnswers
from runtara_trio.http.server.server import listen, open_http_server
from runtara_trio.serving.leases import open_leases
from runtara_trio.tokens import Role, TokenFile

from ..helpers.support import block, start_args

TOKENS = "program shop 0123456789abcdef\noperator ann fedcba9876543210\n"


@asynccontextmanager
async def served(
    store: SharedBackend, tokens: TokenFile | None = None
) -> AsyncIterator[tuple[str, int]]:
    """A server of a store, and the port of its operators."""
    async with (
        open_leases(store) as leases,
        open_http_server(
            await listen("127.0.0.1", 0, "--http-port"),
            InstanceAnswers(store, leases, Guard(role=Role.PROGRAM, tokens=tokens)),
        ) as instances,
        open_http_server(
            await listen("127.0.0.1", 0, "--operators-port"),
            OperatorAnswers(store, Guard(role=Role.OPERATOR, tokens=tokens)),
        ) as operators,
    ):
        yield f"http://127.0.0.1:{instances.address[1]}", operators.address[1]


@asynccontextmanager
async def asking(store: SharedBackend) -> AsyncIterator[tuple[SharedBackend, Operator]]:
    """A client of a server of a store, and its operator."""
    async with (
        served(store) as (url, port),
        open_backend(
            SdkConfig(store=f"{url}?operators={port}", signal_poll_interval_ms=20)
        ) as backend,
    ):
        yield backend, Operator(backend)


async def test_lists(memory: SharedBackend) -> None:
    async with asking(memory) as (backend, operator):
        for number in range(5):
            async with block(backend, f"i{number}") as sdk:
                if number == 3:
                    await sdk.failed("broken")
        page = await operator.list(limit=2)
        assert [one.instance_id for one in page.instances] == ["i4", "i3"]
        rest = await operator.list(limit=10, before=page.next)
        assert [one.instance_id for one in rest.instances] == ["i2", "i1", "i0"]
        assert rest.next is None
        failed = await operator.list(statuses=[InstanceStatus.FAILED], tenant_id="t")
        assert [one.instance_id for one in failed.instances] == ["i3"]
        tomorrow = datetime.now(UTC) + timedelta(days=1)
        assert await operator.count(created_before=tomorrow) == 5
        assert await operator.count(created_after=tomorrow) == 0
        with pytest.raises(NotSupported, match="one status, tenant and creation time alone"):
            await operator.list(workflow="w")


async def test_what_one_did(memory: SharedBackend) -> None:
    async with asking(memory) as (backend, operator):
        async with block(backend) as sdk:
            for name in ("b", "a/ä", "c"):
                await sdk.checkpoint(name, name.encode())
            await sdk.custom_event("note", b"\xff")
            await sdk.completed(b"out")
        details = await operator.show("i")
        assert (details.summary.status, details.output) == (InstanceStatus.COMPLETED, b"out")
        assert (details.checkpoints, details.events) == (3, 3)
        page = await operator.checkpoints("i", limit=2)
        assert [(one.checkpoint_id, one.state) for one in page.checkpoints] == [
            ("a/ä", "a/ä".encode()),
            ("b", b"b"),
        ]
        assert page.more
        rest = await operator.checkpoints("i", after="b", prefix="c")
        assert [one.checkpoint_id for one in rest.checkpoints] == ["c"]
        events = (await operator.events("i")).events
        assert [(str(one.type), one.subtype, one.payload) for one in events[1:]] == [
            ("custom", "note", b"\xff"),
            ("completed", None, b"out"),
        ]
        after = await operator.events("i", after=events[0].id, limit=1)
        assert (after.events, after.more) == ((events[1],), True)
        with pytest.raises(ServerError, match="no instance 'nobody'"):
            await operator.show("nobody")


async def test_signals(memory: SharedBackend) -> None:
    async with asking(memory) as (backend, operator):
        async with block(backend) as sdk:
            await operator.send_signal("i", "go", "ä")
            assert await sdk.wait_for_signal("go") == "ä".encode()
            with pytest.raises(ConfigError, match=r"this one is no UTF-8"):
                await operator.send_signal("i", "go2", b"\xff")
            with pytest.raises(NotSupported, match="not replaced over HTTP"):
                await operator.send_signal("i", "go", "x", replace=True)
            await operator.pause("i")
            await sdk.sleep(60, "nap")
        assert sdk.outcome is Outcome.PAUSED
        answer = await operator.cancel("i")
        assert answer.status is InstanceStatus.CANCELLED
        with pytest.raises(SignalRefused, match="is cancelled"):
            await operator.pause("i")
        with pytest.raises(SignalRefused, match="not found"):
            await operator.cancel("nobody")


async def test_without_a_port_of_operators(memory: SharedBackend) -> None:
    async with served(memory) as (url, _), open_backend(url) as backend:
        with pytest.raises(NotSupported, match="give the URL of the server's database"):
            await Operator(backend).list()
    for port in ("x", "0", "70000"):
        with pytest.raises(ConfigError, match="is no port, such as operators=8004"):
            async with open_backend(f"http://127.0.0.1:1?operators={port}"):
                pass


async def test_two_tokens(memory: SharedBackend) -> None:
    async with served(memory, TokenFile(TOKENS)) as (url, port):
        config = SdkConfig(
            store=f"{url}?operators={port}",
            token="0123456789abcdef",
            operators_token="fedcba9876543210",
        )
        async with open_backend(config) as backend:
            async with block(backend) as sdk:
                with trio.CancelScope(shield=True):
                    await Operator(backend).cancel("i")
                await sdk.sleep(60, "nap")
            assert sdk.outcome is Outcome.CANCELLED
    (record,) = (await Operator(memory).audit()).records
    assert record.who == "ann"


async def test_the_command_line(memory: SharedBackend) -> None:
    async with served(memory) as (url, port), open_backend(url) as backend:
        async with block(backend, "order-7") as sdk:
            await sdk.checkpoint("a")
        store = f"{url}?operators={port}"
        async with start_args("-m", "runtara_trio", "list", "--store", store) as program:
            assert await program.wait() == 0, program.lines
            assert any("order-7" in line and "completed" in line for line in program.lines)
        for command in ("show", "events"):
            async with start_args(
                "-m", "runtara_trio", command, "order-7", "--store", store
            ) as program:
                assert await program.wait() == 0, program.lines
                assert any("completed" in line for line in program.lines)
        async with start_args(
            "-m", "runtara_trio", "signal", "--store", store, "order-7", "go", "now"
        ) as program:
            assert await program.wait() == 1
            assert "completed" in " ".join(program.lines)
