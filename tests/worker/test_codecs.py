"""Codecs in whole programs: all that they say is encrypted, wherever it is stored."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from runtara_trio import (
    Client,
    CodecError,
    InstanceExists,
    InstanceFailed,
    InstanceFinished,
    InstanceStatus,
    Operator,
    RuntaraSdk,
    Schedule,
    SdkConfig,
    SharedBackend,
    SignalRefused,
    durable,
    open_backend,
    open_client,
    open_runtara,
    open_worker,
    workflow,
)
from runtara_trio.codec import JSON, Codec, Compressed, Encrypted
from runtara_trio.store.postgres.backend import PostgresStore
from runtara_trio.testing import check_every_boundary

from ..helpers.places import Shared
from ..helpers.support import block, sql, store_of

SECRET = "nightingale"
KEYS = {"2026": b"k" * 32}
CODEC = Encrypted(Compressed(JSON), KEYS)
ROTATED = Encrypted(Compressed(JSON), {"2027": b"n" * 32, **KEYS})
FORGOTTEN = Encrypted(Compressed(JSON), {"2027": b"n" * 32})

tries: list[str] = []


@durable(key="result")
async def result_of(text: str) -> str:
    return text


@durable(max_retries=1, delay=0.0, key="flaky", summary="flaky {text}")
async def flaky(text: str) -> str:
    tries.append(text)
    if len(tries) % 2:
        raise ValueError(text)
    return text


@durable(max_retries=0, key="fails")
async def fails(text: str) -> str:
    raise ValueError(text)


@workflow
async def child(sdk: RuntaraSdk, text: str, raises: bool = False) -> str:
    if raises:
        raise ValueError(text)
    return text


@workflow(max_attempts=2, retry_delay=0.01)
async def everything(sdk: RuntaraSdk, text: str) -> list[str]:
    """What it returns begins with the text, however it came there."""
    said = [(await sdk.checkpoint("state", text)).decode(str)]
    said.append(await sdk.get_checkpoint("state", str) or "")
    said.append(await result_of(text))
    said.append(await flaky(text))
    try:
        await fails(text)
    except ValueError as exc:
        said.append(str(exc))
    await sdk.sleep(0.01, "nap", text)
    await sdk.custom_event("said", text)
    await sdk.record_retry_attempt("by hand", 1, text)
    said.append(await sdk.transact(lambda connection: text, id="transaction"))
    said.append(await sdk.wait_for_signal("signal", type=str))
    said.append(await sdk.receive("messages", type=str))
    said.append(await sdk.call(child, text, name="child"))
    try:
        await sdk.call(child, text, True, name="failing")
    except InstanceFailed as exc:
        said.append((exc.error or "").splitlines()[0].removeprefix("ValueError: "))
    if not await sdk.get_checkpoint("second attempt"):
        await sdk.checkpoint("second attempt", "yes")
        raise RuntimeError(text)
    return said


WORKFLOWS: list[Any] = [everything, child]


@asynccontextmanager
async def opened(
    url: str, codec: Codec = CODEC, **config: Any
) -> AsyncIterator[tuple[SharedBackend, Client]]:
    """A store with a worker and a client of one codec."""
    async with (
        open_backend(url, create=True, config=SdkConfig(**config)) as store,
        open_worker(store, WORKFLOWS, codec=codec, stop_signals=()),
        open_client(store, tenant_id="t", codec=codec) as client,
    ):
        yield store, client


async def stored(store: SharedBackend) -> dict[str, list[bytes]]:
    """All texts and bytes of the database, by table."""
    names = "SELECT name FROM sqlite_master WHERE type = 'table'"
    if isinstance(store_of(store), PostgresStore):
        names = "SELECT relname::text FROM pg_class WHERE relkind = 'r'"
        names += " AND relnamespace = current_schema()::regnamespace"
    found: dict[str, list[bytes]] = {}
    for (table,) in await sql(store, names):
        for row in await sql(store, f'SELECT * FROM "{table}"'):
            found.setdefault(table, []).extend(
                one if isinstance(one, bytes) else str(one).encode() for one in row
            )
    return found


def holding(tables: dict[str, list[bytes]], text: str) -> set[str]:
    return {name for name, values in tables.items() if any(text.encode() in one for one in values)}


async def run_everything(client: Client, id: str = "e") -> list[str]:
    instance = await client.start(everything, SECRET, id=id)
    await instance.signal("signal", SECRET)
    await instance.send_message("messages", SECRET)
    return await instance.result()


@pytest.mark.parametrize("history", ["steps", "core"])
async def test_nothing_that_a_program_says_is_readable(shared: Shared, history: str) -> None:
    async with opened(shared.url, history=history) as (store, client):
        said = await run_everything(client)
        assert said == [SECRET] * 10
        with pytest.raises(InstanceFailed, match=f"ValueError: {SECRET}"):
            await (await client.start(child, SECRET, True, id="fails")).result()
        schedule = Schedule("s", child, (SECRET,), cron="0 0 1 1 *", tenant_id="t")
        await client.set_schedule(schedule)
        slot = client.get(await client.trigger_schedule("s"), child)
        assert await slot.result() == SECRET
        assert (await client.list_schedules())[0].input == JSON.encode([SECRET])
        tables = await stored(store)
        assert "checkpoints" in tables
        assert "instance_events" in tables
        assert holding(tables, SECRET) == set()
        assert holding(tables, "flaky") != set()  # ids and names are what they are
        async with open_client(store, tenant_id="t") as plain:
            await plain.start(child, "a thrush", id="plain", delay=3600)
        assert holding(await stored(store), "a thrush") == {"instances"}
        await shown(Operator(store, codec=CODEC), readable=True)
        await shown(Operator(store), readable=False)
    if shared.url.startswith("sqlite"):
        path = Path(shared.url.removeprefix("sqlite:///"))
        for one in path.parent.glob(f"{path.name}*"):
            assert SECRET.encode() not in one.read_bytes()


async def shown(operator: Operator, *, readable: bool) -> None:
    """What an operator sees, with the codec or without."""
    details = await operator.show("e")
    failed = await operator.show("fails")
    events = (await operator.events("e")).events
    checkpoints = (await operator.checkpoints("e")).checkpoints
    steps = await operator.steps("e")
    seen = {
        "input": details.input or b"",
        "output": details.output or b"",
        "error": (failed.error or "").encode(),
        "attempt": b"".join(one.payload for one in events if one.type == "suspended"),
        "event": b"".join(one.payload for one in events if one.subtype == "said"),
        "state": b"".join(one.state for one in checkpoints if one.checkpoint_id == "state"),
        "signal": b"".join(one.state for one in checkpoints if "::signal::" in one.checkpoint_id),
        "message": b"".join(
            one.state for one in checkpoints if "::received::" in one.checkpoint_id
        ),
        "failure": b"".join(one.state for one in checkpoints if "::failure" in one.checkpoint_id),
        "retry": b"".join(one.state for one in checkpoints if "::retry::" in one.checkpoint_id),
        "summary": "".join(one.summary or "" for one in steps).encode(),
        "tries": "".join(text for one in steps for _, text in one.attempts).encode(),
    }
    for what, data in seen.items():
        assert (SECRET.encode() in data) is readable, what
    assert readable or "encrypted with the key '2026'" in (failed.error or "")
    ended = b"".join(one.payload for one in events if one.subtype == "step_debug_end")
    assert (SECRET.encode() in ended) is (readable and bool(ended))


async def test_a_fork_has_what_it_copies(shared: Shared) -> None:
    """What is bound to one instance is bound to the other one, and read by none of both."""
    async with opened(shared.url) as (store, client):
        said = await run_everything(client)
        operator = Operator(store, codec=CODEC)
        await operator.fork("e", "copy")
        with trio.fail_after(30):
            assert await client.get("copy", everything).result() == said
        await operator.fork("e", "other", until="state", args=["another text"])
        other = client.get("other", everything)
        await other.signal("signal", SECRET)
        await other.send_message("messages", SECRET)
        with trio.fail_after(30):
            assert (await other.result())[:3] == [SECRET, SECRET, "another text"]
        assert holding(await stored(store), SECRET) == set()
        with pytest.raises(CodecError, match="by the key '2026', and given are '2027'"):
            await Operator(store, codec=FORGOTTEN).fork("e", "third")
        with pytest.raises(CodecError, match="'e' is encrypted with the key '2026': give the"):
            await Operator(store).fork("e", "third")
        assert (await client.get("third").status()) is InstanceStatus.UNKNOWN


async def test_a_new_key_while_instances_are_under_way(shared: Shared) -> None:
    async with opened(shared.url) as (store, client):
        instance = await client.start(everything, SECRET, id="e")
        operator = Operator(store)
        with trio.fail_after(30):
            while not (await operator.waits()).waits:
                await trio.sleep(0.01)
    async with opened(shared.url, ROTATED) as (store, client):
        # Compared by what they are: other bytes now.
        instance = await client.start(everything, SECRET, id="e")
        with pytest.raises(InstanceExists):
            await client.start(everything, "another text", id="e")
        await instance.signal("signal", SECRET)
        await instance.send_message("messages", SECRET)
        with trio.fail_after(30):
            assert set(await instance.result()) == {SECRET}
    async with opened(shared.url, FORGOTTEN) as (store, client):
        with pytest.raises(CodecError, match="by the key '2026', and given are '2027'"):
            await client.start(everything, SECRET, id="e")
        assert set(await client.get("e", everything).result()) == {SECRET}


async def test_a_signal_that_is_sent_twice_is_one(shared: Shared) -> None:
    async with opened(shared.url) as (_, client):
        instance = await client.start(everything, SECRET, id="e", delay=3600)
        await instance.signal("signal", SECRET)
        await instance.signal("signal", SECRET)
        with pytest.raises(SignalRefused):
            await instance.signal("signal", "another text")


async def test_values_that_were_moved(shared: Shared) -> None:
    """Somebody with the database, and without the key, gives an instance what another one has."""
    async with opened(shared.url) as (store, client):
        await (await client.start(child, "of a", id="a")).result()
        await (await client.start(child, "of b", id="b")).result()
        await sql(
            store,
            "UPDATE instances SET output = (SELECT output FROM instances WHERE instance_id = 'b')"
            " WHERE instance_id = 'a'",
        )
        with pytest.raises(CodecError, match="damaged, or was moved here"):
            await client.get("a", child).result()
        assert (await client.get("b", child).result()) == "of b"


async def test_a_program_whose_codec_changed(shared: Shared) -> None:
    """Its workflow fails with an error that says so, before its first step."""
    async with open_backend(shared.url, create=True) as store:
        async with open_client(store, tenant_id="t", codec=CODEC) as client:
            await client.start(child, SECRET, id="a")
        async with (
            open_worker(store, WORKFLOWS, stop_signals=()),
            open_client(store, tenant_id="t") as client,
        ):
            with pytest.raises(InstanceFailed, match="encrypted with the key '2026': give the"):
                await client.get("a", child).result()


async def test_a_schedule_that_cannot_be_read_disturbs_no_other(shared: Shared) -> None:
    async with open_backend(shared.url, create=True) as store:
        async with open_client(store, tenant_id="t", codec=FORGOTTEN) as client:
            await client.set_schedule(Schedule("a", child, (SECRET,), every=1, tenant_id="t"))
        readable = Schedule("b", child, (SECRET,), every=1, tenant_id="t")
        async with (
            open_worker(store, WORKFLOWS, codec=CODEC, schedules=[readable], stop_signals=()),
            open_client(store, tenant_id="t", codec=CODEC) as client,
        ):
            with trio.fail_after(30):
                while not (found := (await client.list(id_prefix="b@")).instances):
                    await trio.sleep(0.01)
            assert await client.get(found[0].instance_id, child).result() == SECRET
            assert (await client.list(id_prefix="a@")).instances == ()


@workflow
async def odd(sdk: RuntaraSdk) -> list[str]:
    """Ids that look like those of attempts, and signals to checkpoints."""
    found = await sdk.checkpoint("job::retry::1", SECRET)
    if found.custom_signal is None:
        await sdk.wait_for_signal("go")
    asked = await sdk.checkpoint("asks", "state")
    said = asked.custom_signal
    return [found.decode(str), "" if said is None else said.payload.decode()]


async def test_ids_that_look_like_those_of_attempts(shared: Shared) -> None:
    async with opened(shared.url) as (store, client):
        instance = await client.start(odd, id="o")
        await instance.signal("asks", SECRET)
        await instance.signal("go", "x")
        assert await instance.result() == [SECRET, SECRET]
        operator = Operator(store, codec=CODEC)
        shown = {
            one.checkpoint_id: one.state for one in (await operator.checkpoints("o")).checkpoints
        }
        assert shown["job::retry::1"] == f'"{SECRET}"'.encode()
        await operator.fork("o", "copy")
        assert await client.get("copy", odd).result() == [SECRET, SECRET]


async def test_a_signal_in_clear_may_be_replaced(shared: Shared) -> None:
    async with open_backend(shared.url, create=True) as store:
        operator = Operator(store, codec=CODEC)
        async with block(store, codec=CODEC) as sdk:
            await Operator(store).send_signal("i", "asks", "from somebody without the key")
            with pytest.raises(CodecError, match="signal 'asks': it is not encrypted"):
                await sdk.checkpoint("asks", 1)
            await sdk.suspended()
        await operator.send_signal("i", "asks", SECRET, replace=True)
        async with block(store, codec=CODEC) as sdk:
            found = (await sdk.checkpoint("asks", 1)).custom_signal
            assert found is not None
            assert found.payload == SECRET.encode()


async def test_what_has_ended_is_told_in_clear(shared: Shared) -> None:
    async with open_backend(shared.url, create=True) as store:
        async with open_runtara(store, instance_id="a", tenant_id="t", codec=CODEC) as sdk:
            await sdk.completed(SECRET)
        with pytest.raises(InstanceFinished) as caught:
            async with open_runtara(store, instance_id="a", tenant_id="t", codec=CODEC):
                raise AssertionError("it does not run")
        assert caught.value.output == f'"{SECRET}"'.encode()
        with pytest.raises(ValueError, match=SECRET):
            async with open_runtara(store, instance_id="b", tenant_id="t", codec=CODEC):
                raise ValueError(SECRET)
        with pytest.raises(InstanceFinished) as caught:
            async with open_runtara(store, instance_id="b", tenant_id="t", codec=CODEC):
                raise AssertionError("it does not run")
        assert (caught.value.error or "").startswith(f"ValueError: {SECRET}")


WORKFLOWS.append(odd)

PROGRAM = """
from runtara_trio import RuntaraSdk, workflow
from runtara_trio.codec import JSON, Compressed, Encrypted

codec = Encrypted(Compressed(JSON), {"2026": b"k" * 32})
not_a_codec = 3

@workflow
async def asks(sdk: RuntaraSdk, text: str) -> str:
    await sdk.checkpoint("asked", text)
    return text + await sdk.wait_for_signal("answer", type=str)
"""


async def test_commands_have_the_codec(shared: Shared, tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(PROGRAM)

    async def run(*arguments: str, codec: str | None = "shop:codec", fails: bool = False) -> str:
        done = await trio.run_process(
            [sys.executable, "-m", "runtara_trio", *arguments, "--store", shared.url],
            capture_stdout=True,
            capture_stderr=True,
            check=False,
            cwd=tmp_path,
            env={
                "PATH": "/usr/bin:/bin",
                "RUNTARA_TENANT_ID": "t",
                **({} if codec is None else {"RUNTARA_CODEC": codec}),
            },
        )
        assert b"Traceback" not in done.stderr
        assert (done.returncode != 0) is fails, done.stderr
        return (done.stderr if fails else done.stdout).decode()

    async with open_backend(shared.url, create=True):
        await run("start", "asks", f'"{SECRET}"', "--id", "a")
        async with trio.open_nursery() as nursery:
            command = ["worker", "shop", "--codec", "shop:codec", "--store", shared.url]
            worker = await nursery.start(
                partial(
                    trio.run_process,
                    [sys.executable, "-m", "runtara_trio", *command],
                    cwd=tmp_path,
                    check=False,
                    stderr=subprocess.DEVNULL,
                )
            )
            await run("signal", "a", "answer", " sings")
            assert (await run("result", "a", "--wait")).strip() == f'"{SECRET} sings"'
            worker.terminate()
    shown = json.loads(await run("show", "a", "--json"))
    assert (shown["input"], shown["output"]) == (f'["{SECRET}"]', f'"{SECRET} sings"')
    states = json.loads(await run("checkpoints", "a", "--json"))
    assert [one["state"] for one in states if one["checkpoint_id"] == "asked"] == [f'"{SECRET}"']
    exported = msgspec.json.decode(await run("export", "a"))
    assert SECRET in json.dumps(exported["checkpoints"])
    for command in ("show", "events", "checkpoints", "export", "steps"):
        assert SECRET not in await run(command, "a", codec=None)
    assert "key '2026'" in await run("show", "a", codec=None)
    assert "key '2026'" in await run("result", "a", codec=None, fails=True)
    assert "has no encode and decode" in await run(
        "show", "a", codec="shop:not_a_codec", fails=True
    )
    assert "module:object" in await run("show", "a", codec="shop", fails=True)


def test_a_program_that_encrypts_at_every_boundary() -> None:
    async def program(sdk: RuntaraSdk) -> str:
        await result_of(SECRET)
        await sdk.checkpoint("state", SECRET)
        return await sdk.wait_for_signal("signal", type=str)

    async def answers(operator: Operator) -> None:
        await trio.sleep(60)
        await operator.send_signal("test", "signal", SECRET)

    undisturbed = check_every_boundary(program, operator=answers, codec=CODEC)
    assert undisturbed.result == SECRET
