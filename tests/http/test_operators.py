"""Operators over HTTP: the calls of a runtara-environment that fit, on our stores."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from runtara_trio import Operator, Outcome, SharedBackend
from runtara_trio.http.server.guard import Guard
from runtara_trio.http.server.operators import OperatorAnswers
from runtara_trio.http.server.server import listen, open_http_server
from runtara_trio.tokens import Role, TokenFile

from ..helpers.http import Answer, Raw, b64, connected
from ..helpers.support import block, start_args

BASE = "/api/v1/instances"
TOKENS = "program shop 0123456789abcdef\noperator ann fedcba9876543210\n"


@asynccontextmanager
async def asking(store: SharedBackend, tokens: TokenFile | None = None) -> AsyncIterator[Raw]:
    """A connection to the operators' port of a store."""
    listeners = await listen("127.0.0.1", 0, "--operators-port")
    application = OperatorAnswers(store, Guard(role=Role.OPERATOR, tokens=tokens))
    async with (
        open_http_server(listeners, application) as server,
        connected(f"http://127.0.0.1:{server.address[1]}") as raw,
    ):
        yield raw


async def post(raw: Raw, path: str, body: Any, headers: dict[str, str] | None = None) -> Answer:
    """Shielded: a signal may cancel the task that sends it."""
    with trio.CancelScope(shield=True):
        return await raw.ask("POST", path, body, headers)


async def get(raw: Raw, path: str) -> Any:
    answer = await raw.ask("GET", f"{BASE}{path}")
    assert answer.status == 200, answer
    return answer.json


async def test_health(backend: SharedBackend) -> None:
    async with block(backend):
        pass
    async with asking(backend) as raw:
        health = (await raw.ask("GET", "/api/v1/health")).json
        assert health["healthy"] is True
        assert health.keys() == {"healthy", "version", "uptime_ms"}
        assert (await raw.ask("GET", "/health")).status == 404


async def test_lists_and_filters(backend: SharedBackend) -> None:
    for number in range(5):
        async with block(backend, f"i{number}") as sdk:
            if number == 3:
                await sdk.failed("broken")
    async with asking(backend) as raw:
        found = await get(raw, "?limit=2&offset=1")
        assert found["total_count"] == 5
        assert [one["instance_id"] for one in found["instances"]] == ["i3", "i2"]
        first = found["instances"][0]
        assert (first["status"], first["has_error"], first["tenant_id"]) == ("failed", True, "t")
        assert first["finished_at_ms"] >= first["created_at_ms"] > 1_700_000_000_000
        failed = await get(raw, "?status=failed&tenant_id=t")
        assert (failed["total_count"], len(failed["instances"])) == (1, 1)
        assert (await get(raw, "?tenant_id=other"))["instances"] == []
        assert (await get(raw, "?created_after_ms=4000000000000"))["total_count"] == 0
        assert (await get(raw, "?created_before_ms=4000000000000&limit=0"))["instances"] == []


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("status=done", "status 'done' is unknown; there are"),
        ("image_id=x", "image_id is not understood; the parameters are"),
        ("limit=x", "limit must be a number up to"),
        ("limit=100001", "limit must be a number up to"),
        ("created_after_ms=today", "must be Unix ms"),
        ("order_by=finished_at_desc", "order_by must be one of"),
    ],
)
async def test_questions_that_are_wrong(memory: SharedBackend, query: str, said: str) -> None:
    async with asking(memory) as raw:
        answer = await raw.ask("GET", f"{BASE}?{query}")
        assert answer.status == 400
        assert said in answer.json["error"]
        assert answer.json["code"] == "INVALID_REQUEST"


async def test_one_instance(backend: SharedBackend) -> None:
    async with block(backend) as sdk:
        await sdk.checkpoint("a", b"one")
        await sdk.completed(b"out")
    async with asking(backend) as raw:
        shown = await get(raw, "/i")
        assert (shown["found"], shown["status"], shown["tenant_id"]) == (True, "completed", "t")
        assert (shown["output"], shown["checkpoint_id"]) == (b64(b"out"), "a")
        assert "error" not in shown
        assert await get(raw, "/nobody") == {"found": False, "instance_id": "nobody"}


async def test_signals(backend: SharedBackend) -> None:
    async with block(backend, "other"):
        pass
    async with asking(backend) as raw:
        path = f"{BASE}/i/signals"
        assert (await post(raw, path, {"signal_type": "cancel"})).status == 404
        async with block(backend) as sdk:
            wrong = await post(raw, path, {"signal_type": "stop"})
            assert wrong.status == 400
            assert "there are cancel, pause, resume" in wrong.json["error"]
            empty = await post(raw, f"{path}/custom", {"checkpoint_id": "", "payload": ""})
            assert empty.status == 400
            custom = {"checkpoint_id": "go", "payload": "ä"}
            assert (await post(raw, f"{path}/custom", custom)).json == {"success": True}
            assert await sdk.wait_for_signal("go") == "ä".encode()
            assert (await post(raw, path, {"signal_type": "pause"})).status == 200
            await sdk.sleep(60, "nap")
        assert sdk.outcome is Outcome.PAUSED
        assert (await post(raw, f"{BASE}/i/resume", {})).json == {"success": True}
        async with block(backend) as sdk:
            body = {"signal_type": "cancel", "payload": "enough"}
            assert (await post(raw, path, body)).json == {"success": True}
            await sdk.sleep(60, "nap")
        assert sdk.outcome is Outcome.CANCELLED
        refused = await post(raw, path, {"signal_type": "pause"})
        assert (refused.status, refused.json["success"]) == (409, False)


async def test_a_stop_is_a_cancel(memory: SharedBackend) -> None:
    async with asking(memory) as raw, block(memory) as sdk:
        assert (await post(raw, f"{BASE}/i/stop", {"reason": "x"})).status == 200
        await trio.sleep_forever()
    assert sdk.outcome is Outcome.CANCELLED


async def test_checkpoints(backend: SharedBackend) -> None:
    async with block(backend) as sdk:
        for name in ("a", "b/c", "d"):
            await sdk.checkpoint(name, name.encode())
    async with asking(backend) as raw:
        found = await get(raw, "/i/checkpoints?limit=2")
        assert (found["total_count"], found["limit"], len(found["checkpoints"])) == (3, 2, 2)
        sizes = {one["checkpoint_id"]: one["data_size_bytes"] for one in found["checkpoints"]}
        assert all(size == len(name) for name, size in sizes.items())
        one = await get(raw, "/i/checkpoints/b%2Fc")
        assert (one["found"], one["data"]) == (True, b64(b"b/c"))
        assert (await get(raw, "/i/checkpoints/b"))["found"] is False
        for what in ("checkpoints", "events", "steps"):
            assert (await raw.ask("GET", f"{BASE}/nobody/{what}")).status == 404


async def test_events(backend: SharedBackend) -> None:
    async with block(backend) as sdk:
        await sdk.custom_event("note", b'{"scope_id": "s", "parent_scope_id": null}')
        await sdk.custom_event("note", b'{"scope_id": "t", "parent_scope_id": "s", "x": "Word"}')
        await sdk.custom_event("other", b"\xff")  # a core's filtered questions fail of this one
    async with asking(backend) as raw:
        events = (await get(raw, "/i/events?sort_order=asc"))["events"]
        assert events[0]["event_type"] == "started"
        assert [one.get("subtype") for one in events[1:4]] == ["note", "note", "other"]
        assert events[3]["payload"] == b64(b"\xff")
        for query, count in (
            ("event_type=custom", 3),
            ("subtype=note", 2),
            ("payload_contains=word", 1),
            ("scope_id=s", 1),
            ("parent_scope_id=s", 1),
            ("scope_id=s&root_scopes_only=true", 1),
            ("created_after_ms=4000000000000", 0),
        ):
            assert (await get(raw, f"/i/events?{query}"))["total_count"] == count, query
        page = await get(raw, "/i/events?event_type=custom&limit=1&offset=1")
        assert [one["id"] for one in page["events"]] == [events[2]["id"]]


async def test_steps(backend: SharedBackend) -> None:
    async with block(backend) as sdk:
        for subtype, said in (
            ("step_debug_start", b'{"step_id": "s1", "step_type": "Agent", "inputs": {"a": 1}}'),
            ("step_debug_end", b'{"step_id": "s1", "outputs": [2]}'),
            ("step_debug_start", b'{"step_id": "s2", "step_type": "Agent"}'),
            ("step_debug_end", b'{"step_id": "s2", "error": "no"}'),
            ("step_debug_start", b'{"step_id": "s3", "step_type": "If", "scope_id": "x"}'),
        ):
            await sdk.custom_event(subtype, said)
    async with block(backend, "ours") as sdk:
        await sdk.checkpoint("a")
    async with asking(backend) as raw:
        steps = (await get(raw, "/i/steps?sort_order=asc"))["steps"]
        assert {one["step_id"]: one["status"] for one in steps} == {
            **{"s1": "completed", "s2": "failed", "s3": "running"}
        }
        assert (steps[0]["inputs"], steps[0]["outputs"]) == ({"a": 1}, [2])
        assert (await get(raw, "/i/steps?status=failed"))["total_count"] == 1
        assert (await get(raw, "/i/steps?step_type=If&scope_id=x"))["total_count"] == 1
        (ours,) = (await get(raw, "/ours/steps"))["steps"]
        assert (ours["step_id"], ours["status"]) == ("a", "completed")


async def test_odd_payloads_of_steps(memory: SharedBackend) -> None:
    async with block(memory) as sdk:
        await sdk.custom_event("step_debug_start", b'{"step_id": [], "scope_id": {}}')
        await sdk.custom_event("step_debug_start", b'{"x":' * 5000)
        await sdk.custom_event("step_debug_end", b"7")
    async with asking(memory) as raw:
        assert (await get(raw, "/i/steps"))["total_count"] > 0
        assert (await get(raw, "/i/events?scope_id=s"))["total_count"] == 0
        wrong = await raw.ask("GET", f"{BASE}?limit={'9' * 5000}")
        assert wrong.status == 400


async def test_an_operators_token_and_the_audit(memory: SharedBackend) -> None:
    async with asking(memory, TokenFile(TOKENS)) as raw:
        async with block(memory) as sdk:
            path, body = f"{BASE}/i/signals", {"signal_type": "cancel"}
            programs = {"Authorization": "Bearer 0123456789abcdef"}
            assert (await post(raw, path, body)).status == 401
            assert (await post(raw, path, body, programs)).status == 403
            operators = {"Authorization": "Bearer fedcba9876543210"}
            assert (await post(raw, path, body, operators)).status == 200
            await trio.sleep_forever()
    assert sdk.outcome is Outcome.CANCELLED
    (record,) = (await Operator(memory).audit()).records
    assert (record.who, record.what, record.instance_id) == ("ann", "cancel", "i")


async def test_from_the_command_line() -> None:
    options = ("--store", ":memory:", "--no-quic", "--http-port", "0", "--operators-port", "0")
    async with start_args("-m", "runtara_trio", "serve", *options) as server:
        url = (await server.line("serving")).rpartition(" ")[2]
        operators = (await server.line("operators of")).rpartition(" ")[2]
        async with block(url) as sdk, connected(operators) as raw:
            assert (await get(raw, ""))["total_count"] == 1
            await post(raw, f"{BASE}/i/signals", {"signal_type": "cancel"})
            await trio.sleep_forever()
        assert sdk.outcome is Outcome.CANCELLED
