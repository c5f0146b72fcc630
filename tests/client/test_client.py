"""Starting runs, and waiting for their results."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trio

from runtara_trio import (
    JSON,
    CodecError,
    ConfigError,
    InstanceExists,
    InstanceFailed,
    InstanceStatus,
    NotSupported,
    RuntaraSdk,
    SdkConfig,
    SdkError,
    SharedBackend,
    SignalRefused,
    Start,
    StoreError,
    open_backend,
    open_client,
    open_runtara,
    open_worker,
    workflow,
)
from runtara_trio.messages import EndsSince, GetResults, StartRuns

from ..helpers.places import served_place
from ..helpers.support import Watched, store_of, until


@workflow
async def double(sdk: RuntaraSdk, number: int) -> int:
    return 2 * number


@workflow
async def never(sdk: RuntaraSdk) -> None:
    await sdk.wait_for_signal("never")


async def test_the_same_start_again(backend: SharedBackend) -> None:
    """A start whose answer was lost is simply sent again."""
    async with open_client(backend, tenant_id="t") as client, open_worker(backend, [double]):
        first = await client.start(double, 4, id="d")
        again = await client.start(double, 4, id="d")
        assert await first.result(timeout=30) == await again.result(timeout=30) == 8
        assert await (await client.start(double, 4, id="d")).result(timeout=30) == 8
        with pytest.raises(InstanceExists, match="'d' exists, of the workflow 'double'"):
            await client.start(double, 5, id="d")
        with pytest.raises(InstanceExists, match="it was started for something else"):
            await client.start("other", 4, id="d")
        with pytest.raises(InstanceExists, match="if_exists='fail'"):
            await client.start(double, 4, id="d", if_exists="fail")


async def test_an_instance_of_somebody_else(backend: SharedBackend) -> None:
    async with open_runtara(backend, instance_id="plain", tenant_id="t"):
        pass
    async with (
        open_client(backend, tenant_id="t") as client,
        open_client(backend, tenant_id="other") as other,
        open_worker(backend, [double]),
    ):
        with pytest.raises(InstanceExists, match="no workflow's"):
            await client.start(double, 4, id="plain")
        await (await client.start(double, 4, id="d")).result(timeout=30)
        with pytest.raises(InstanceExists):
            await other.start(double, 4, id="d")
        for ask in (
            other.get("d").result(timeout=30),
            other.get("d").cancel(),
            other.get("d").status(),
            other.get("d").show(),
        ):
            with pytest.raises(SdkError, match="not of tenant 'other'"):
                await ask
        assert [one.instance_id for one in (await other.list()).instances] == []
        with pytest.raises(SignalRefused, match="is completed"):
            await client.get("d").cancel()


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "priority": ({"priority": 10}, "priority must be a whole number from 0 to 9, not 10"),
    "priority: bool": ({"priority": True}, "not True"),
    "priority: float": ({"priority": 1.5}, "not 1.5"),
    "delay": ({"delay": -1}, "delay must be .* 0 or more, not -1"),
    "both": ({"delay": 1, "at": datetime.now(UTC)}, "delay or at, not both"),
    "naive": ({"at": datetime(2030, 1, 1)}, "at must be a time with its zone"),
    "id": ({"id": ""}, "instance_id is empty"),
    "key": ({"key": ""}, "key is empty"),
    "key: NUL": ({"key": "a\0"}, "key holds a NUL"),
    "key: long": ({"key": "k" * 513}, "key has 513 bytes"),
    "queue": ({"queue": ""}, "queue is empty"),
    "version": ({"version": 0}, "version must be a whole number from 1"),
    "version: large": ({"version": 2**31}, "not 2147483648"),
    "if_exists": ({"if_exists": "replace"}, "if_exists must be 'attach' or 'fail'"),
    "attributes": ({"attributes": {"a": [1]}}, "the attribute a must be a text"),
    "attributes: NaN": ({"attributes": {"a": float("nan")}}, "a finite number"),
    "attributes: many": ({"attributes": {str(n): n for n in range(21)}}, "at most 20"),
}


@pytest.mark.parametrize("name", WRONG)
async def test_wrong_options(memory: SharedBackend, name: str) -> None:
    options, match = WRONG[name]
    async with open_client(memory, tenant_id="t") as client:
        with pytest.raises(ConfigError, match=match):
            await client.start(double, 1, **options)
        assert (await client.list()).instances == ()


async def test_wrong_arguments(memory: SharedBackend) -> None:
    start: Any
    async with open_client(memory, tenant_id="t") as client:
        start = client.start
        with pytest.raises(TypeError, match=r"double takes 1 argument \(number\), not 2"):
            await start(double, 1, 2)
        with pytest.raises(TypeError, match="not 0"):
            await start(double)
        with pytest.raises(CodecError, match="the arguments of the workflow double"):
            await start(double, object())
        with pytest.raises(ConfigError, match="must be made by @workflow, or a name"):
            await start(test_wrong_arguments, 1)
        assert (await client.list()).instances == ()


async def test_an_argument_that_does_not_fit(memory: SharedBackend) -> None:
    async with open_client(memory, tenant_id="t") as client, open_worker(memory, [double]):
        with pytest.raises(InstanceFailed, match="the argument number of the workflow double"):
            await (await client.start("double", "four")).result(timeout=30)
        with pytest.raises(InstanceFailed, match="takes 1 argument"):
            await (await client.start("double", 1, 2, 3)).result(timeout=30)


async def test_many(backend: SharedBackend) -> None:
    async with open_client(backend, tenant_id="t") as client, open_worker(backend, [double]):
        handles = await client.start_many(double, [Start(args=(n,)) for n in range(1200)])
        assert len({one.id for one in handles}) == 1200
        for number, handle in enumerate(handles):
            assert await handle.result(timeout=60) == 2 * number


async def test_a_handle_before_its_instance(backend: SharedBackend) -> None:
    async with (
        open_client(backend, tenant_id="t") as client,
        open_worker(backend, [double]),
        trio.open_nursery() as nursery,
    ):
        found: list[int] = []

        async def wait() -> None:
            found.append(await client.get("later", double).result(timeout=30))

        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        await client.start(double, 3, id="later")
        await until(lambda: found == [6])


async def test_a_wait_that_ends_does_nothing(backend: SharedBackend) -> None:
    async with open_client(backend, tenant_id="t") as client, open_worker(backend, [never]):
        handle = await client.start(never)
        with pytest.raises(trio.TooSlowError, match=r"has not ended within 0\.01 s"):
            await handle.result(timeout=0.01)
        with trio.move_on_after(0.01):
            await handle.result()
        assert not (await handle.status()).finished
        await handle.signal("never")
        assert await handle.result(timeout=30) is None


async def test_many_who_wait_cost_what_one_costs(memory: SharedBackend) -> None:
    watched = Watched(store_of(memory))
    async with (
        open_backend(watched) as backend,
        open_client(backend, tenant_id="t") as client,
        trio.open_nursery() as nursery,
    ):
        handles = await client.start_many(never, [Start(args=()) for _ in range(500)])
        for handle in handles:
            for _ in range(2):
                nursery.start_soon(handle.result)
        await trio.testing.wait_all_tasks_blocked()
        assert len(watched.sent(GetResults)) <= 3
        assert len(watched.sent(EndsSince)) <= 3
        nursery.cancel_scope.cancel()


async def test_a_codec_of_ones_own(backend: SharedBackend) -> None:
    """Arguments are compared as values: an encrypting codec writes other bytes each time."""

    class Salted:
        salt = 0

        def encode(self, value: Any, /) -> bytes:
            Salted.salt += 1
            return bytes([Salted.salt % 256]) + JSON.encode(value)

        def decode(self, data: bytes, type: Any, /) -> Any:
            return JSON.decode(data[1:], type)

    codec = Salted()
    async with (
        open_client(backend, tenant_id="t", codec=codec) as client,
        open_worker(backend, [double], codec=codec),
    ):
        await client.start(double, 4, id="d")
        assert await (await client.start(double, 4, id="d")).result(timeout=30) == 8
        with pytest.raises(InstanceExists):
            await client.start(double, 5, id="d")


async def test_a_run_at_a_time(memory: SharedBackend) -> None:
    async with open_client(memory, tenant_id="t") as client, open_worker(memory, [double]):
        at = datetime.now(UTC) + timedelta(seconds=0.05)
        assert await (await client.start(double, 1, at=at)).result(timeout=30) == 2
        past = datetime.now(UTC) - timedelta(days=1)
        assert await (await client.start(double, 2, at=past)).result(timeout=30) == 4


async def test_the_newest_version(memory: SharedBackend) -> None:
    @workflow(name="double", version=3)
    async def newer(sdk: RuntaraSdk, number: int) -> str:
        return "newer"

    async with (
        open_client(memory, tenant_id="t") as client,
        open_worker(memory, [newer], name="new"),
        open_worker(memory, [double], name="old"),
    ):
        assert await (await client.start("double", 1)).result(timeout=30) == "newer"
        assert await (await client.start("double", 1, version=1)).result(timeout=30) == 2
        assert [one.name for one in await client.list_workers()] == ["new", "old"]


def test_where_there_are_no_clients() -> None:
    with pytest.raises(ConfigError, match="open it once with open_backend"):
        open_client(":memory:", tenant_id="t")
    with pytest.raises(ConfigError, match="open_worker on"):
        open_worker(":memory:", [double])
    with pytest.raises(NotSupported, match="needs the store itself"):
        open_client("quic://localhost:8001", tenant_id="t")
    with pytest.raises(NotSupported, match="open_worker needs the store itself"):
        open_worker(SdkConfig(), [double])
    with pytest.raises(ConfigError, match="give open_client tenant_id"):
        open_client("sqlite:///x.db")


async def test_a_server_has_no_runs() -> None:
    async with (
        served_place() as place,
        open_client(place.backend, tenant_id="t") as client,
    ):
        with pytest.raises(NotSupported, match="StartRuns is no call"):
            await client.start(double, 1)
        with pytest.raises(NotSupported):
            await client.get("i").result(timeout=30)
        with pytest.raises(NotSupported):
            async with open_worker(place.backend, [double]):
                raise AssertionError("there is no worker")


async def test_a_store_that_is_gone_is_told_to_who_waits(url: str) -> None:
    path = Path(url.removeprefix("sqlite:///"))
    async with open_client(url, tenant_id="t") as client:
        handle = await client.start(double, 1)
        async with trio.open_nursery() as nursery:

            async def wait() -> None:
                with pytest.raises(StoreError, match="was deleted"):
                    await handle.result(timeout=30)

            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            path.unlink()
            with pytest.raises(StoreError, match="was deleted"):
                await client.start(double, 2)


async def test_a_client_is_no_owner(url: str) -> None:
    """It takes no lease, and needs no file of its own beside the store."""
    async with open_client(url, tenant_id="t") as client:
        await client.start(double, 1)
        folder = Path(url.removeprefix("sqlite:///")).parent
        assert not list(folder.glob("*-owner-*"))


async def test_a_start_is_refused_before_it_is_sent(memory: SharedBackend) -> None:
    watched = Watched(store_of(memory))
    async with open_backend(watched) as backend, open_client(backend, tenant_id="t") as client:
        with pytest.raises(ConfigError):
            await client.start_many(double, [Start(args=(1,)), Start(args=(2,), priority=11)])
        assert watched.sent(StartRuns) == []


async def test_a_result_of_the_wrong_type(memory: SharedBackend) -> None:
    async with open_client(memory, tenant_id="t") as client, open_worker(memory, [double]):
        handle = await client.start(double, 1)
        with pytest.raises(CodecError, match="the result of instance"):
            await handle.result(str, timeout=30)


async def test_a_plain_instance_has_a_result(backend: SharedBackend) -> None:
    async with open_client(backend, tenant_id="t") as client:
        async with open_runtara(backend, instance_id="plain", tenant_id="t") as sdk:
            await sdk.completed({"sum": 3})
        assert await client.get("plain").result(timeout=30) == {"sum": 3}
        assert await client.get("plain").status() is InstanceStatus.COMPLETED
