"""The life of a block and its limits: how it starts, whose SDK a task has, what a call may do."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
import trio.testing

from runtara_trio import (
    CodecError,
    ConfigError,
    InstanceBusy,
    InstanceFinished,
    InstanceStatus,
    Operator,
    Outcome,
    RegistrationError,
    RuntaraSdk,
    SdkConfig,
    SdkError,
    SharedBackend,
    StoreError,
    Unreachable,
    current_sdk,
    open_backend,
    open_runtara,
)
from runtara_trio.messages import Checkpoint, RecordOutcome, Register

from ..helpers.support import Watched, block, sqlite_of

# ---- registering


async def test_a_finished_instance_is_refused_with_its_result(backend: SharedBackend) -> None:
    async with block(backend) as sdk:
        await sdk.completed({"sum": 3})
    with pytest.raises(InstanceFinished, match="revive=True") as caught:
        async with block(backend):
            raise AssertionError("it does not run")
    assert caught.value.status is InstanceStatus.COMPLETED
    assert caught.value.output == b'{"sum":3}'
    assert caught.value.error is None
    with pytest.raises(ValueError, match="x"):
        async with block(backend, "j"):
            raise ValueError("x")
    with pytest.raises(InstanceFinished) as caught:
        async with block(backend, "j"):
            pass
    assert caught.value.error is not None
    assert caught.value.error.startswith("ValueError: x")


async def test_revive_runs_it_again_with_its_checkpoints(backend: SharedBackend) -> None:
    async with block(backend) as sdk:
        await sdk.checkpoint("a", b"kept")
        await sdk.record_retry_attempt("a", 1, "refused")
        await Operator(backend).send_signal("i", "approve", b"old")
        await Operator(backend).pause("i")
        await sdk.failed("out of luck")
    async with block(backend, revive=True) as sdk:
        info = await sdk.get_status()
        assert (info.status, info.error, info.finished_at) == (InstanceStatus.RUNNING, None, None)
        assert await sdk.get_checkpoint("a") == b"kept"
        assert not sdk.pause_requested
        saved = (await Operator(backend).checkpoints("i")).checkpoints
        assert [one.checkpoint_id for one in saved] == ["a"]
        # It was accepted, and nobody has read it: whoever sent it counts on it.
        assert await sdk.wait_for_signal("approve") == b"old"
    assert sdk.outcome is Outcome.COMPLETED


async def test_a_leased_instance_is_busy_for_this_process_too(backend: SharedBackend) -> None:
    async with block(backend):
        with pytest.raises(InstanceBusy, match=f"process {os.getpid()}"):
            async with block(backend):
                raise AssertionError("it does not run")
    with pytest.raises(InstanceFinished):
        async with block(backend):
            pass


async def test_busy_for_another_backend_on_the_same_file(url: str) -> None:
    async with block(url):
        with pytest.raises(InstanceBusy) as caught:
            async with block(url):
                raise AssertionError("it does not run")
        assert caught.value.until is not None


async def test_another_tenants_instance_is_refused(backend: SharedBackend) -> None:
    async with block(backend) as sdk:
        await sdk.suspended()
    with pytest.raises(RegistrationError, match="belongs to tenant 't', not 'u'"):
        async with open_runtara(backend, instance_id="i", tenant_id="u"):
            raise AssertionError("it does not run")


async def test_the_resume_point_must_exist(
    backend: SharedBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RegistrationError, match="no checkpoint 'a'"):
        async with block(backend, checkpoint_id="a"):
            raise AssertionError("it does not run")
    async with block(backend) as sdk:
        await sdk.checkpoint("a")
        await sdk.suspended()
    monkeypatch.setenv("RUNTARA_CHECKPOINT_ID", "a")
    async with block(backend) as sdk:
        assert sdk.checkpoint_id == "a"


async def test_entered_under_a_cancelled_scope_nothing_is_registered(
    backend: SharedBackend,
) -> None:
    with trio.CancelScope() as around:
        around.cancel()
        async with block(backend):
            raise AssertionError("it does not run")
    assert around.cancelled_caught
    async with block(backend, "other"):
        pass
    names = [one.instance_id for one in (await Operator(backend).list()).instances]
    assert names == ["other"]


async def test_registering_is_not_torn_apart(backend: SharedBackend) -> None:
    """Cancelled while it registers: the instance is ours then, and ends as stopped."""
    watched = Watched(backend)
    async with open_backend(watched) as shared:
        gate = trio.Event()
        watched.before = lambda message: gate if isinstance(message, Register) else None
        with trio.CancelScope() as around:

            async def cancel() -> None:
                await trio.testing.wait_all_tasks_blocked()
                around.cancel()
                gate.set()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(cancel)
                async with block(shared) as sdk:
                    await trio.lowlevel.checkpoint()
    assert sdk.outcome is Outcome.STOPPED
    assert (await Operator(backend).show("i")).summary.status is InstanceStatus.SUSPENDED


async def test_register_false_asks_and_does_not_write(backend: SharedBackend) -> None:
    async with block(backend) as sdk:
        await sdk.checkpoint("a", b"one")
        async with block(backend, register=False) as reader:
            assert not reader.is_registered
            assert await reader.get_checkpoint("a") == b"one"
            assert (await reader.get_status()).status is InstanceStatus.RUNNING
            for call in (reader.checkpoint("b"), reader.completed(), reader.sleep(1, "c")):
                with pytest.raises(SdkError, match=r"sdk\.register\(\)"):
                    await call
            with pytest.raises(InstanceBusy):
                await reader.register()
            await sdk.suspended()
            await reader.register("a")
            assert reader.is_registered
            assert reader.checkpoint_id == "a"
            with pytest.raises(SdkError, match="registered already"):
                await reader.register()
            await reader.checkpoint("b", b"two")
    assert reader.outcome is Outcome.COMPLETED


# ---- the SDK of a task


async def test_current_sdk_is_the_innermost_blocks(backend: SharedBackend) -> None:
    with pytest.raises(SdkError, match="no open_runtara block"):
        current_sdk()
    async with block(backend, "outer") as outer:
        assert current_sdk() is outer
        async with block(backend, "inner") as inner, trio.open_nursery() as nursery:
            seen: list[RuntaraSdk] = []

            async def child() -> None:
                seen.append(current_sdk())

            nursery.start_soon(child)
            await trio.testing.wait_all_tasks_blocked()
            assert seen == [inner]
        assert current_sdk() is outer
    with pytest.raises(SdkError):
        current_sdk()


async def test_a_stray_task_gets_an_error(backend: SharedBackend) -> None:
    ended = trio.Event()
    errors = []

    async def stray(sdk: RuntaraSdk) -> None:
        await ended.wait()
        calls = (
            lambda: sdk.checkpoint("late"),
            lambda: sdk.get_checkpoint("late"),
            sdk.get_status,
            sdk.check_cancelled,
            sdk.poll_signal,
            lambda: sdk.sleep(1, "late"),
            sdk.completed,
        )
        for call in calls:
            try:
                await call()
            except SdkError as exc:
                errors.append(str(exc))

    async with trio.open_nursery() as nursery:
        async with block(backend) as sdk:
            nursery.start_soon(stray, sdk)
        assert not sdk.is_connected
        ended.set()
    assert len(errors) == 7
    assert all("has ended" in text for text in errors)


async def test_a_stray_task_that_waits_for_a_signal_is_told_of_the_end(
    memory: SharedBackend,
) -> None:
    told = []

    async def stray(sdk: RuntaraSdk) -> None:
        try:
            await sdk.wait_for_signal("never")
        except SdkError as exc:
            told.append(str(exc))

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            async with block(memory) as sdk:
                nursery.start_soon(stray, sdk)
                await trio.testing.wait_all_tasks_blocked()
    assert len(told) == 1
    assert "has ended" in told[0]


# ---- calls


async def test_state_is_typed_by_the_codec(backend: SharedBackend) -> None:
    class Order(msgspec.Struct):
        cents: int

    async with block(backend) as sdk:
        first = await sdk.checkpoint("order", Order(5))
        assert not first.found
        assert (first.state, first.existing_state) == (b"", None)
        assert first.decode(Order) == Order(5)
        again = await sdk.checkpoint("order", Order(6))
        assert again.found
        assert again.existing_state == again.state == b'{"cents":5}'
        assert again.decode(Order) == Order(5)
        assert await sdk.get_checkpoint("order", Order) == Order(5)
        raw = bytes(range(256))
        await sdk.checkpoint("raw", raw)
        assert await sdk.get_checkpoint("raw") == raw
        with pytest.raises(CodecError, match="JsonCodec cannot encode a object"):
            await sdk.checkpoint("bad", object())
        assert await sdk.get_checkpoint("bad") is None
        with pytest.raises(CodecError, match="finds no Order in"):
            await sdk.get_checkpoint("raw", Order)


async def test_a_codec_of_ones_own(backend: SharedBackend) -> None:
    class Backwards:
        def encode(self, value: Any) -> bytes:
            return msgspec.json.encode(value)[::-1]

        def decode(self, data: bytes, type: Any) -> Any:
            return msgspec.json.decode(data[::-1], type=type)

    async with block(backend, codec=Backwards()) as sdk:
        await sdk.checkpoint("a", [1, 2])
        assert (await sdk.checkpoint("a", [])).decode(list[int]) == [1, 2]
    assert (await Operator(backend).checkpoints("i")).checkpoints[0].state == b"]2,1["


async def test_step_key_names_the_instance_and_the_step(backend: SharedBackend) -> None:
    async with block(backend, "a/b") as sdk:
        with pytest.raises(SdkError, match="inside"):
            _ = sdk.step_key
        async with sdk.step("charge"):
            assert sdk.step_key == "a%2Fb/charge"
            async with sdk.step("inner"):
                assert sdk.step_key == "a%2Fb/inner"
            assert sdk.step_key == "a%2Fb/charge"
        async with sdk.step():
            with pytest.raises(SdkError, match="inside"):
                _ = sdk.step_key


async def test_a_write_cancelled_while_it_waits_raises_at_once_and_still_happens(
    url: str,
) -> None:
    """On a store. The thread is held up, so that the wait is certain."""
    async with open_backend(url) as backend, block(backend) as sdk:
        gate = threading.Event()
        running = trio.Event()
        token = trio.lowlevel.current_trio_token()

        def held() -> None:
            token.run_sync_soon(running.set)
            gate.wait()

        sqlite_of(backend).set_trace_callback(
            lambda statement: held() if statement == "BEGIN IMMEDIATE" else None
        )
        with trio.CancelScope() as scope:

            async def cancel() -> None:
                await running.wait()
                scope.cancel()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(cancel)
                await sdk.checkpoint("a", b"written")
        assert scope.cancelled_caught
        gate.set()
        assert await sdk.get_checkpoint("a") == b"written"


async def test_completed_is_shielded_and_frees_the_instance(url: str) -> None:
    async with open_backend(url) as backend:
        watched = Watched(backend)
        async with open_backend(watched) as shared, block(shared) as sdk:
            gate = trio.Event()
            watched.before = lambda message: gate if isinstance(message, RecordOutcome) else None
            with trio.CancelScope() as scope:

                async def cancel() -> None:
                    await trio.testing.wait_all_tasks_blocked()
                    scope.cancel()
                    gate.set()

                async with trio.open_nursery() as nursery:
                    nursery.start_soon(cancel)
                    await sdk.completed(b"done")
                    assert scope.cancel_called
            with pytest.raises(InstanceFinished):
                async with block(backend):
                    pass
        assert sdk.outcome is Outcome.COMPLETED


# ---- what to open


@pytest.mark.parametrize(
    ("target", "text"),
    [
        ("quic://host:port", "names no server"),
        ("postgresql://[x", "cannot read the URL of a PostgreSQL"),
        ("orders.db", "as 'sqlite:///orders.db' is"),
        ("sqlite:///", "names no file"),
        ("sqlite:///x.db?cache=shared", "only mode=rwc and mode=rw"),
        (17, "a target is a URL, an SdkConfig or a Backend, not a int"),
    ],
)
async def test_what_cannot_be_opened_is_named(target: Any, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        async with block(target):
            raise AssertionError("it does not run")


async def test_without_a_target_the_environment_decides(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="RUNTARA_INSTANCE_ID"):
        async with open_runtara():
            pass
    monkeypatch.setenv("RUNTARA_INSTANCE_ID", "from-env")
    monkeypatch.setenv("RUNTARA_TENANT_ID", "t")
    monkeypatch.setenv("RUNTARA_CONNECT_TIMEOUT_MS", "100")
    with pytest.raises(Unreachable, match=r"quic://127\.0\.0\.1:8001.*RUNTARA_DATABASE_URL"):
        async with open_runtara():
            pass
    monkeypatch.setenv("RUNTARA_DATABASE_URL", url)
    async with open_runtara() as sdk:
        assert sdk.instance_id == "from-env"
    monkeypatch.setenv("RUNTARA_SERVER_ADDR", "127.0.0.1:9")
    with pytest.raises(Unreachable, match=r"quic://127\.0\.0\.1:9"):
        async with open_runtara():
            pass


async def test_the_start_named_the_resume_point_of_a_later_register(
    backend: SharedBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with block(backend) as sdk:
        await sdk.checkpoint("a")
        await sdk.suspended()
    monkeypatch.setenv("RUNTARA_CHECKPOINT_ID", "a")
    async with block(backend, register=False) as sdk:
        await sdk.register()
        assert sdk.checkpoint_id == "a"


async def test_the_config_of_a_shared_backend_names_the_ids_too() -> None:
    async with open_backend(SdkConfig.embedded(":memory:", "i", "t")) as backend:
        async with open_runtara(backend) as sdk:
            assert (sdk.instance_id, sdk.tenant_id) == ("i", "t")


async def test_a_config_names_everything(url: str) -> None:
    config = SdkConfig.embedded(url, "i", "t")
    async with open_runtara(config) as sdk:
        assert (sdk.instance_id, sdk.tenant_id) == ("i", "t")
        assert sdk.heartbeat_interval_ms == 30_000


@pytest.mark.parametrize(
    "options",
    [
        {"signals": "none"},
        {"pause_grace": -1},
        {"pause_grace": float("nan")},
        {"final_timeout": float("inf")},
        {"final_timeout": "30"},
        {"stop_signals": (9999,)},
        {"stop_signals": signal.SIGTERM},
        {"stop_signals": (signal.SIGKILL,)},
        {"final_timeout": 0},
        {"register": "yes"},
        {"codec": object()},
        {"instance_id": "x" * 513},
        {"instance_id": ""},
        {"instance_id": 7},
        {"tenant_id": "nul\0"},
        {"tenant_id": "\ud800"},
        {"checkpoint_id": "x" * 1025},
    ],
)
async def test_a_wrong_argument_is_named_before_anything_is_written(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    arguments = {"instance_id": "i", "tenant_id": "t", **options}
    with pytest.raises(ConfigError, match=next(iter(options))):
        async with open_runtara(f"sqlite:///{tmp_path}/x.db", **arguments):
            raise AssertionError("it does not run")
    assert list(tmp_path.iterdir()) == []


async def test_a_failing_save_fails_alone(url: str) -> None:
    """Several at once, one of them refused by the database: the others are saved."""
    async with open_backend(url) as backend, block(backend) as sdk:
        await sdk.checkpoint("first")
        sqlite_of(backend).execute(
            "CREATE TEMP TRIGGER refuse BEFORE INSERT ON checkpoints"
            " WHEN NEW.checkpoint_id = 'bad' BEGIN SELECT RAISE(ABORT, 'refused'); END"
        )
        errors = []

        async def save(name: str) -> None:
            try:
                await sdk.checkpoint(name, b"x")
            except StoreError as exc:
                errors.append((name, str(exc)))

        async with trio.open_nursery() as nursery:
            for name in ("a", "b", "bad", "c", "d"):
                nursery.start_soon(save, name)
        assert [name for name, _ in errors] == ["bad"]
        for name in ("a", "b", "c", "d"):
            assert await sdk.get_checkpoint(name) == b"x"


async def test_messages_go_one_way(backend: SharedBackend) -> None:
    """A verb is one message."""
    watched = Watched(backend)
    async with open_backend(watched) as shared, block(shared) as sdk:
        await sdk.checkpoint("a", b"x")
    kinds = [type(message) for message in watched.requests]
    assert kinds == [Register, Checkpoint, RecordOutcome]
