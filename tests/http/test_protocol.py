"""Every call of the protocol over HTTP, and what it is answered: by our server, and where there is
one by a stock runtara-core 1.6 (``nox -s interop`` builds it)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from ..helpers.http import Answer, Raw, b64, connected, has_core, request
from ..helpers.places import http_core_place, served_http_place

BASE = "/api/v1/instances/i"


class Servers(NamedTuple):
    kind: str
    folder: Path

    @asynccontextmanager
    async def asked(self) -> AsyncIterator[tuple[Raw, Any]]:
        """A connection to a server, and the operator of its instances."""
        core = http_core_place("http-sqlite", self.folder)
        opening = served_http_place() if self.kind == "ours" else core
        async with opening as place, connected(place.url) as raw:
            yield raw, place.operator


@pytest.fixture(params=["ours", "core"])
def servers(request: pytest.FixtureRequest, tmp_path: Path) -> Servers:
    if request.param == "core" and not has_core():
        pytest.skip("nox -s interop builds a stock core")
    return Servers(request.param, tmp_path)


async def post(raw: Raw, path: str, body: Any, **headers: str) -> Answer:
    return await raw.ask("POST", f"{BASE}{path}", body, headers)


async def get(raw: Raw, path: str) -> Any:
    answer = await raw.ask("GET", f"{BASE}{path}")
    assert answer.status == 200, answer
    return answer.json


async def registered(raw: Raw) -> None:
    answer = await post(raw, "/register", {"tenant_id": "t"})
    assert (answer.status, answer.json) == (200, {"success": True})


async def saved(raw: Raw, checkpoint_id: str, state: bytes) -> Any:
    answer = await post(raw, "/checkpoint", {"checkpoint_id": checkpoint_id, "state": b64(state)})
    assert answer.status == 200, answer
    return answer.json


# ---- what is answered


DONE = {"success": True}
CASES: dict[str, tuple[str, str, Any, int, Any]] = {
    "health": ("GET", "/health", None, 200, {"status": "healthy"}),
    "register": ("POST", "register", {"tenant_id": "t"}, 200, DONE),
    "register, other fields": ("POST", "register", {"tenant_id": "t", "x": 1}, 200, DONE),
    "register, null": ("POST", "register", {"tenant_id": "t", "checkpoint_id": None}, 200, DONE),
    "register, no tenant": ("POST", "register", {"tenant_id": ""}, 400, {"success": False}),
    "register, unknown resume": (
        *("POST", "register", {"tenant_id": "t", "checkpoint_id": "x"}, 400),
        {"success": False},
    ),
    "save": ("POST", "checkpoint", {"checkpoint_id": "n", "state": "YQ=="}, 200, {"found": False}),
    "save under no id": (
        *("POST", "checkpoint", {"checkpoint_id": "", "state": "YQ=="}, 200),
        {"found": False},
    ),
    "found": (
        *("POST", "checkpoint", {"checkpoint_id": "a", "state": "YQ=="}, 200),
        {"found": True, "state": "b25l"},
    ),
    "probe": (
        *("POST", "checkpoint", {"checkpoint_id": "a", "state": ""}, 200),
        {"found": True, "state": "b25l"},
    ),
    "probe of nothing": (
        *("POST", "checkpoint", {"checkpoint_id": "n", "state": ""}, 200),
        {"found": False},
    ),
    "signals": ("GET", "signals", None, 200, {}),
    "one signal": ("GET", "signals/a", None, 200, {}),
    "a signal with slashes": ("GET", "signals/a%2Fb%3A", None, 200, {}),
    "a signal without an id": ("GET", "signals/", None, 404, None),
    "an id that is a call": ("GET", "signals/ack", None, 405, None),
    "ack of a resume": ("POST", "signals/ack", {"signal_type": "resume"}, 200, DONE),
    "ack of what is unknown": (
        *("POST", "signals/ack", {"signal_type": "stop"}, 400),
        {"code": "INVALID_SIGNAL_TYPE"},
    ),
    "heartbeat": ("POST", "events", {"event_type": "heartbeat"}, 200, DONE),
    "custom": ("POST", "events", {"event_type": "custom", "payload": "YQ=="}, 200, DONE),
    "an event of no known type": ("POST", "events", {"event_type": "started"}, 200, DONE),
    "retry": ("POST", "retry", {"checkpoint_id": "a", "attempt": 1}, 200, DONE),
    "retry, why": (
        *("POST", "retry", {"checkpoint_id": "a", "attempt": 2, "error_message": "x"}, 200),
        DONE,
    ),
    "sleep of no time": (
        *("POST", "sleep", {"duration_ms": 0, "checkpoint_id": "z", "state": ""}, 200),
        DONE,
    ),
    "sleep under no id": (
        *("POST", "sleep", {"duration_ms": 1, "checkpoint_id": "", "state": "YQ=="}, 200),
        DONE,
    ),
    "status": ("GET", "status", None, 200, {"found": True, "status": "running"}),
    "input": ("GET", "input", None, 200, {"found": True, "instance_id": "i", "input": None}),
    "completed": ("POST", "completed", {"output": "YQ=="}, 200, DONE),
    "completed, null": ("POST", "completed", {"output": None}, 200, DONE),
    "completed, no text": ("POST", "completed", {"output": 3}, 200, DONE),
    "completed, no object": ("POST", "completed", [], 200, DONE),
    "failed": ("POST", "failed", {"error": "x"}, 200, DONE),
    "failed, null": ("POST", "failed", {"error": None}, 200, DONE),
    "not base64": (
        *("POST", "checkpoint", {"checkpoint_id": "n", "state": "Y Q="}, 400),
        {"code": "INVALID_STATE"},
    ),
    "not padded": (
        *("POST", "checkpoint", {"checkpoint_id": "n", "state": "YQ"}, 400),
        {"code": "INVALID_STATE"},
    ),
    "not canonical": (
        *("POST", "checkpoint", {"checkpoint_id": "n", "state": "YR=="}, 400),
        {"code": "INVALID_STATE"},
    ),
    "of another alphabet": (
        *("POST", "checkpoint", {"checkpoint_id": "n", "state": "_-8="}, 400),
        {"code": "INVALID_STATE"},
    ),
    "a payload that is none": (
        *("POST", "events", {"event_type": "custom", "payload": "?"}, 400),
        {"code": "INVALID_PAYLOAD"},
    ),
    "an output that is none": (
        *("POST", "completed", {"output": "?"}, 400),
        {"code": "INVALID_OUTPUT"},
    ),
    "no JSON": ("POST", "register", b"{", 400, None),
    "no body": ("POST", "register", b"", 400, None),
    "a BOM": ("POST", "register", b'\xef\xbb\xbf{"tenant_id":"t"}', 400, None),
    "not UTF-8": ("POST", "register", b'{"tenant_id":"\xff"}', 400, None),
    "a field is missing": ("POST", "register", {}, 422, None),
    "a field is null": ("POST", "register", {"tenant_id": None}, 422, None),
    "a field is a number": ("POST", "register", {"tenant_id": 3}, 422, None),
    "a number is negative": (
        *("POST", "sleep", {"duration_ms": -1, "checkpoint_id": "s", "state": ""}, 422),
        None,
    ),
    "a number is a fraction": ("POST", "retry", {"checkpoint_id": "a", "attempt": 1.5}, 422, None),
    "a number is too large": (
        *("POST", "retry", {"checkpoint_id": "a", "attempt": 2**32}, 422),
        None,
    ),
    "no such call": ("GET", "nothing", None, 404, None),
    "a trailing slash": ("GET", "status/", None, 404, None),
    "another case": ("GET", "Status", None, 404, None),
    "another method": ("POST", "status", {}, 405, None),
    "a query": ("GET", "status?x=1", None, 200, {"status": "running"}),
    "an escape that is none": ("GET", "signals/%zz", None, 200, {}),
    "an escape that is not UTF-8": ("GET", "signals/%ff", None, 400, None),
}


@pytest.mark.parametrize("case", CASES)
async def test_a_call_is_answered(servers: Servers, case: str) -> None:
    method, path, body, status, wanted = CASES[case]
    path = path if path.startswith("/") else f"{BASE}/{path}"
    async with servers.asked() as (raw, _):
        await registered(raw)
        await saved(raw, "a", b"one")
        answer = await raw.ask(method, path, body)
        assert answer.status == status, answer
        if wanted is None:
            assert answer.headers.get("content-type", "text/plain").startswith("text/plain")
        elif wanted and status == 200:
            assert {name: answer.json.get(name) for name in wanted} == wanted
        elif status == 200:
            assert answer.json == wanted
        else:
            assert answer.json.items() >= wanted.items()
            assert answer.json["error"]
        assert (await get(raw, "/status"))["found"]  # the connection goes on


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/checkpoint", {"checkpoint_id": "a", "state": "YQ=="}),
        ("/checkpoint", {"checkpoint_id": "a", "state": ""}),
        ("/events", {"event_type": "custom"}),
        ("/events", {"event_type": "completed"}),
        ("/completed", {}),
        ("/failed", {"error": "x"}),
        ("/suspended", {}),
        ("/retry", {"checkpoint_id": "a", "attempt": 1}),
        ("/sleep", {"duration_ms": 0, "checkpoint_id": "a", "state": "YQ=="}),
    ],
)
async def test_what_nobody_registered_is_refused(servers: Servers, path: str, body: Any) -> None:
    async with servers.asked() as (raw, _):
        answer = await post(raw, path, body)
        assert answer.status == 500
        assert answer.json["code"].endswith("_ERROR")
        status = await get(raw, "/status")
        assert (status["found"], status["status"]) == (False, "unknown")
        assert status["error"] == "Instance not found"
        assert await get(raw, "/signals") == {}
        assert await get(raw, "/signals/x") == {}
        assert (await raw.ask("GET", f"{BASE}/input")).status == 404


@pytest.mark.parametrize("kind", [None, "text/plain", "application/x-www-form-urlencoded"])
async def test_a_body_says_that_it_is_json(servers: Servers, kind: str | None) -> None:
    async with servers.asked() as (raw, _):
        body = b'{"tenant_id":"t"}'
        headers = {"Content-Type": kind} if kind else {}
        data = f"POST {BASE}/register HTTP/1.1\r\nHost: localhost\r\n"
        data += "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        data += f"Content-Length: {len(body)}\r\n\r\n"
        await raw.stream.send_all(data.encode() + body)
        assert (await raw.answer()).status == 415
    async with servers.asked() as (raw, _):
        more = {"Content-Type": "application/vnd.x+json; charset=utf-8"}
        assert (await raw.ask("POST", f"{BASE}/register", body, more)).status == 200


# ---- what becomes of an instance


ENDS: dict[str, tuple[str, Any, str]] = {
    "completed": ("/completed", {"output": "YQ=="}, "completed"),
    "failed": ("/failed", {"error": "x"}, "failed"),
    "suspended": ("/suspended", {}, "suspended"),
    "completed event": ("/events", {"event_type": "completed", "payload": "YQ=="}, "completed"),
    "failed event": ("/events", {"event_type": "failed", "payload": "eA=="}, "failed"),
    "suspended event": ("/events", {"event_type": "suspended"}, "suspended"),
    "cancel": ("/signals/ack", {"signal_type": "cancel"}, "cancelled"),
    "pause": ("/signals/ack", {"signal_type": "pause"}, "suspended"),
}


@pytest.mark.parametrize("first", ENDS)
async def test_what_has_ended_stays_as_it_is_until_it_is_registered(
    servers: Servers, first: str
) -> None:
    path, body, status = ENDS[first]
    async with servers.asked() as (raw, _):
        await registered(raw)
        await saved(raw, "a", b"one")
        assert (await post(raw, path, body)).json == DONE
        ended = await get(raw, "/status")
        assert ended["status"] == status
        if status == "completed":
            assert ended["output"] == "YQ=="
        if status == "failed":
            assert ended["error"] == "x"
        refused = await post(raw, "/checkpoint", {"checkpoint_id": "a", "state": ""})
        assert refused.status == 500
        why = f"Instance 'i' is in invalid state: expected 'running', got '{status}'"
        assert refused.json == {"code": "CHECKPOINT_ERROR", "error": why}
        for other in ("completed", "failed", "suspended", "completed event", "failed event"):
            assert (await post(raw, *ENDS[other][:2])).json == DONE
            assert await get(raw, "/status") == ended
        await registered(raw)
        assert (await get(raw, "/status"))["status"] == "running"
        assert await saved(raw, "a", b"") == {"found": True, "state": b64(b"one")}


@pytest.mark.parametrize(("error", "told"), [("", "Unknown error"), ("ä", "ä")])
async def test_what_a_failure_is_called(servers: Servers, error: str, told: str) -> None:
    async with servers.asked() as (raw, _):
        await registered(raw)
        await post(raw, "/failed", {"error": error})
        assert (await get(raw, "/status"))["error"] == told


async def test_signals_come_with_every_checkpoint(servers: Servers) -> None:
    async with servers.asked() as (raw, operator):
        await registered(raw)
        await operator.pause("i", payload=b"p")
        signal = {"signal_type": "pause", "payload": b64(b"p")}
        assert await get(raw, "/signals") == {"signal": signal}
        assert await saved(raw, "a", b"one") == {"found": False, "signal": signal}
        assert (await saved(raw, "b", b""))["signal"] == signal
        assert (await saved(raw, "a", b""))["signal"] == signal
        await post(raw, "/signals/ack", {"signal_type": "pause"})
        assert (await get(raw, "/status"))["status"] == "suspended"


async def test_a_custom_signal_comes_with_its_checkpoint_or_is_taken(servers: Servers) -> None:
    async with servers.asked() as (raw, operator):
        await registered(raw)
        for name in ("a", "b", "c"):
            await operator.send_signal("i", name, b"s")
        custom = {"checkpoint_id": "a", "payload": b64(b"s")}
        assert "custom_signal" not in await saved(raw, "a", b"")  # a question of what is not there
        assert await saved(raw, "a", b"one") == {"found": False, "custom_signal": custom}
        assert await get(raw, "/signals/b") == {
            "custom_signal": {"checkpoint_id": "b", "payload": b64(b"s")}
        }
        await post(raw, "/sleep", {"duration_ms": 0, "checkpoint_id": "c", "state": "YQ=="})
        assert (await saved(raw, "c", b""))["custom_signal"]["checkpoint_id"] == "c"


async def test_a_sleep_to_be_woken_from(servers: Servers) -> None:
    async with servers.asked() as (raw, operator):
        await registered(raw)
        payload = b'{"wake_at_ms": 4000000000000, "state": "eA=="}'
        event = {"event_type": "suspended", "checkpoint_id": "nap", "payload": b64(payload)}
        assert (await post(raw, "/events", event)).json == DONE
        assert (await get(raw, "/status"))["status"] == "suspended"
        summary = (await operator.show("i")).summary
        assert summary.sleep_until.timestamp() == 4_000_000_000
        await registered(raw)
        assert await saved(raw, "nap", b"") == {"found": True, "state": "eA=="}


async def test_a_state_as_large_as_json_lets_it_be(servers: Servers) -> None:
    async with servers.asked() as (raw, _):
        await registered(raw)
        state = bytes(50_000_000)
        assert await saved(raw, "large", state) == {"found": False}
        assert (await saved(raw, "large", b""))["state"] == b64(state)


async def test_more_than_one_request_at_a_time(servers: Servers) -> None:
    """They are answered in their order."""
    async with servers.asked() as (raw, _):
        await registered(raw)
        names = [f"c{n}" for n in range(5)]
        bodies = [{"checkpoint_id": name, "state": "YQ=="} for name in (*names, *names)]
        await raw.stream.send_all(
            b"".join(request("POST", f"{BASE}/checkpoint", body) for body in bodies)
        )
        found = [(await raw.answer()).json["found"] for _ in bodies]
        assert found == [False] * 5 + [True] * 5


async def test_an_id_of_anything(servers: Servers) -> None:
    async with servers.asked() as (raw, _):
        for name in ("a%2Fb", "%C3%A4", "..", "a%20b"):
            base = f"/api/v1/instances/{name}"
            assert (await raw.ask("POST", f"{base}/register", {"tenant_id": "t"})).status == 200
            status = (await raw.ask("GET", f"{base}/status")).json
            assert (status["found"], status["status"]) == (True, "running")
        empty = await raw.ask("POST", "/api/v1/instances//register", {"tenant_id": "t"})
        assert (empty.status, empty.json["success"]) == (400, False)


async def test_head_chunks_and_expect(servers: Servers) -> None:
    async with servers.asked() as (raw, _):
        assert (await raw.ask("HEAD", "/health")).body == b""
        chunked = b'b\r\n{"tenant_id\r\n6\r\n":"t"}\r\n0\r\n\r\n'
        answer = await raw.ask(
            "POST", f"{BASE}/register", chunked, {"Transfer-Encoding": "chunked"}
        )
        assert answer.json == DONE
        body = b'{"tenant_id":"t"}'
        expects = {"Expect": "100-continue", "Content-Length": str(len(body))}
        data = request("POST", f"{BASE}/register", body, expects)
        await raw.stream.send_all(data[: -len(body)])
        assert (await raw.answer()).status == 100
        await raw.stream.send_all(body)
        assert (await raw.answer()).json == DONE


async def test_http_1_0_is_answered_and_closed(servers: Servers) -> None:
    async with servers.asked() as (raw, _):
        await raw.stream.send_all(b"GET /health HTTP/1.0\r\n\r\n")
        assert (await raw.answer()).status == 200
        assert await raw.is_closed()
