"""Ids, durations, codec, configuration: plain values and their errors."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtara_trio import (
    CodecError,
    ConfigError,
    Operator,
    SdkConfig,
    SharedBackend,
    durable,
    open_runtara,
)
from runtara_trio import ids as checked
from runtara_trio.codec import JSON, MAX_STATE, decode, encode
from runtara_trio.store.sqlite.schema import parse_time, started_text, time_text

LONGEST = {"instance_id": 512, "tenant_id": 512, "checkpoint_id": 1024}


@pytest.mark.parametrize("name", LONGEST)
def test_the_limits_are_in_bytes_of_utf8(name: str) -> None:
    check = getattr(checked, f"check_{name}")
    limit = LONGEST[name]
    assert check("x" * limit)
    assert check("ä" * (limit // 2))
    for text in ("x" * (limit + 1), "ä" * (limit // 2 + 1)):
        with pytest.raises(ConfigError, match=f"{name} has .* bytes of UTF-8, at most {limit}"):
            check(text)


@pytest.mark.parametrize("name", LONGEST)
@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("a\0b", "NUL"),
        ("a\udc80b", "lone surrogate at position 1"),
        (b"bytes", "must be a str, not bytes"),
        (None, "must be a str, not NoneType"),
        (5, "must be a str, not int"),
    ],
)
def test_ids_that_are_none(name: str, value: Any, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        getattr(checked, f"check_{name}")(value)


def test_reserved_ids_are_refused() -> None:
    with pytest.raises(ConfigError, match="begins with 'runtara_trio::'"):
        checked.check_checkpoint_id("runtara_trio::wake::a")


@given(st.text(), st.text(), st.text(), st.text())
def test_step_keys_of_different_pairs_never_meet(a: str, b: str, c: str, d: str) -> None:
    if (a, b) != (c, d):
        assert checked.step_key(a, b) != checked.step_key(c, d)


BAD_CALLS: list[tuple[str, tuple[Any, ...]]] = [
    ("checkpoint", ("x" * 1025,)),
    ("checkpoint", ("nul\0",)),
    ("checkpoint", (7,)),
    ("checkpoint", ("big", bytes(MAX_STATE + 1))),
    ("get_checkpoint", ("\ud800",)),
    ("sleep", (1, None)),
    ("wait_for_signal", ("runtara_trio::x",)),
    ("custom_event", ("sub\0type",)),
    ("custom_event", (None,)),
    ("record_retry_attempt", ("a", 0)),
    ("record_retry_attempt", ("a", 1.5)),
    ("record_retry_attempt", ("a", 2**31)),
    ("record_retry_attempt", ("a", 1, "\0")),
    ("failed", (None,)),
    ("failed", ("nul\0",)),
    ("suspended", (5,)),
    ("get_instance_status", ("",)),
]


@pytest.mark.parametrize(("verb", "arguments"), BAD_CALLS)
async def test_a_bad_argument_is_refused_before_anything_is_written(
    backend: SharedBackend, verb: str, arguments: tuple[Any, ...]
) -> None:
    async with open_runtara(backend, instance_id="i", tenant_id="t") as sdk:
        with pytest.raises(ConfigError):
            await getattr(sdk, verb)(*arguments)
        details = await Operator(backend).show("i")
        assert (details.checkpoints, details.events) == (0, 1)
        assert details.summary.status == "running"


@pytest.mark.parametrize("value", [{1, 2, object()}, lambda: 1, object()])
async def test_a_value_without_encoding_is_refused(memory: SharedBackend, value: Any) -> None:
    async with open_runtara(memory, instance_id="i", tenant_id="t") as sdk:
        for verb, arguments in (
            ("checkpoint", ("a",)),
            ("sleep", (1, "a")),
            ("custom_event", ("a",)),
            ("completed", ()),
        ):
            with pytest.raises(CodecError, match="JsonCodec cannot encode"):
                await getattr(sdk, verb)(*arguments, value)
        assert (await Operator(memory).show("i")).checkpoints == 0


@pytest.mark.parametrize(
    ("verb", "arguments"),
    [
        ("cancel", ("",)),
        ("pause", ("x" * 513,)),
        ("resume", (None,)),
        ("cancel", ("i", "text")),
        ("send_signal", ("i", "x" * 1025)),
        ("show", (b"i",)),
        ("prune", (-1,)),
        ("prune", (float("nan"),)),
    ],
)
async def test_operators_arguments_are_checked(
    memory: SharedBackend, verb: str, arguments: tuple[Any, ...]
) -> None:
    with pytest.raises(ConfigError):
        await getattr(Operator(memory), verb)(*arguments)


@pytest.mark.parametrize("limit", [0, -1, 1.5, True, 100_001])
async def test_limits_of_pages(memory: SharedBackend, limit: Any) -> None:
    with pytest.raises(ConfigError, match="limit must be between"):
        await Operator(memory).list(limit=limit)


# ---- codec


@given(st.binary())
def test_bytes_are_stored_as_they_are(data: bytes) -> None:
    for value in (data, bytearray(data), memoryview(data)):
        assert encode(JSON, "x", value) == data
    assert decode(JSON, "x", data, bytes) == data


@given(st.recursive(st.none() | st.booleans() | st.text() | st.integers(), st.lists))
def test_json_round_trips(value: Any) -> None:
    assert decode(JSON, "x", encode(JSON, "x", value), object) == value


class Reading(msgspec.Struct):
    value: float
    note: str | None = None


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize(
    ("around", "where"),
    [
        (lambda number: number, "it is"),
        (lambda number: {"score": [1.0, number]}, r"\['score'\]\[1\] is"),
        (lambda number: Reading(number), r"\['value'\] is"),
        (lambda number: (None, {number}), r"\[1\]\[0\] is"),
    ],
)
def test_a_number_that_is_not_finite_is_refused(number: float, around: Any, where: str) -> None:
    with pytest.raises(CodecError, match=f"state: .* {where} {number}, and JSON has only finite"):
        encode(JSON, "state", around(number))
    assert encode(JSON, "state", around(0.5)) == msgspec.json.encode(around(0.5))


@pytest.mark.parametrize("verb", ["checkpoint", "durable", "completed", "event", "signal", "sleep"])
async def test_so_it_is_for_every_verb(memory: SharedBackend, verb: str) -> None:
    ran = []

    @durable(max_retries=0)
    async def measure() -> dict[str, float | None]:
        ran.append(1)
        return {"a": None, "b": float("nan")}

    value = {"a": None, "b": float("nan")}
    async with open_runtara(memory, instance_id="i", tenant_id="t") as sdk:
        calls = {
            "checkpoint": lambda: sdk.checkpoint("a", value),
            "durable": measure,
            "completed": lambda: sdk.completed(value),
            "event": lambda: sdk.custom_event("a", value),
            "signal": lambda: Operator(memory).send_signal("i", "a", value),
            "sleep": lambda: sdk.sleep(1, "a", value),
        }
        with pytest.raises(CodecError, match=r"\['b'\] is nan"):
            await calls[verb]()
        assert (await Operator(memory).checkpoints("i")).checkpoints == ()
        assert sdk.is_writable


def test_a_codec_that_returns_no_bytes_is_named() -> None:
    class Wrong:
        def encode(self, value: Any, /) -> Any:
            return "text"

        def decode(self, data: bytes, type: Any, /) -> Any:
            raise AssertionError

    with pytest.raises(CodecError, match=r"Wrong\.encode returned a str, not bytes"):
        encode(Wrong(), "x", 1)


# ---- times


@given(st.floats(min_value=0, max_value=2e9))
def test_times_survive_their_texts(unix: float) -> None:
    started = parse_time(started_text(unix))
    assert started is not None
    assert abs(started.timestamp() - unix) < 1e-5
    plain = parse_time(time_text(int(unix)))
    assert plain is not None
    assert plain.timestamp() == int(unix)


def test_the_times_that_a_core_writes() -> None:
    for text in (
        "2026-11-22 16:10:15",
        "2026-11-22T16:10:15Z",
        "2026-11-22T18:10:15.000000000+02:00",
        "2026-11-22T16:10:15.0",
    ):
        found = parse_time(text)
        assert found is not None
        assert found.isoformat() == "2026-11-22T16:10:15+00:00"
    assert parse_time("soon") is None
    assert parse_time(None) is None


# ---- configuration


def test_the_environment_names_it_all() -> None:
    config = SdkConfig.from_env(
        {
            "RUNTARA_INSTANCE_ID": "i",
            "RUNTARA_TENANT_ID": "t",
            "RUNTARA_SERVER_ADDR": "10.0.0.1:9",
            "RUNTARA_DATABASE_URL": "sqlite:///x.db",
            "RUNTARA_SERVER_NAME": "core",
            "RUNTARA_SKIP_CERT_VERIFICATION": "1",
            "RUNTARA_CONNECT_TIMEOUT_MS": "1",
            "RUNTARA_REQUEST_TIMEOUT_MS": "2",
            "RUNTARA_SIGNAL_POLL_INTERVAL_MS": "3",
            "RUNTARA_HEARTBEAT_INTERVAL_MS": "0",
        }
    )
    assert config.url == "quic://10.0.0.1:9"  # before the store
    assert (config.server_name, config.skip_cert_verification) == ("core", True)
    assert (config.connect_timeout_ms, config.request_timeout_ms) == (1, 2)
    assert (config.signal_poll_interval_ms, config.heartbeat_interval_ms) == (3, 0)


def test_defaults_are_the_rust_sdks() -> None:
    config = SdkConfig.from_env({"RUNTARA_INSTANCE_ID": "i", "RUNTARA_TENANT_ID": "t"})
    assert config == SdkConfig(instance_id="i", tenant_id="t")
    assert config.url == "quic://127.0.0.1:8001"
    assert config.server_name == "localhost"
    assert config.skip_cert_verification is None
    assert (config.connect_timeout_ms, config.request_timeout_ms) == (10_000, 30_000)
    assert (config.signal_poll_interval_ms, config.heartbeat_interval_ms) == (1_000, 30_000)
    assert config.lease_ms == 30_000
    assert SdkConfig.localhost("i", "t").skip_cert_verification is True
    assert SdkConfig.embedded(":memory:", "i", "t").url == ":memory:"


@pytest.mark.parametrize(
    ("environ", "text"),
    [
        ({}, "RUNTARA_INSTANCE_ID"),
        ({"RUNTARA_INSTANCE_ID": "i"}, "RUNTARA_TENANT_ID"),
        (
            {
                "RUNTARA_INSTANCE_ID": "i",
                "RUNTARA_TENANT_ID": "t",
                "RUNTARA_CONNECT_TIMEOUT_MS": "1s",
            },
            "RUNTARA_CONNECT_TIMEOUT_MS must be a whole number of milliseconds, not '1s'",
        ),
    ],
)
def test_a_variable_that_is_missing_or_wrong(environ: dict[str, str], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        SdkConfig.from_env(environ)


@pytest.mark.parametrize(
    "fields",
    [
        {"request_timeout_ms": 0},
        {"request_timeout_ms": 1.5},
        {"heartbeat_interval_ms": -1},
        {"lease_ms": 10},
        {"lease_ms": True},
        {"connect_timeout_ms": 10**13},
        {"instance_id": ""},
        {"tenant_id": 5},
        {"store": 5},
        {"skip_cert_verification": "yes"},
    ],
)
def test_a_wrong_field_is_named(fields: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(fields))):
        SdkConfig(**fields)
