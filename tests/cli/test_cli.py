"""The command line, as a process of its own."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from runtara_trio import Operator, open_backend, open_runtara

from ..helpers.support import block, start, start_args


def run(*arguments: str, code: int = 0, **environment: str) -> str:
    """Run ``runtara-trio``; its output, or its errors where it should fail."""
    done = subprocess.run(
        [sys.executable, "-m", "runtara_trio", *arguments],
        capture_output=True,
        text=True,
        env={"PATH": "/usr/bin:/bin", **environment},
        timeout=60,
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    if code:
        assert done.stdout == ""
        return done.stderr
    return done.stdout


@pytest.fixture
def filled(url: str) -> str:
    """A store with an instance in each of three states."""
    trio.run(fill, url)
    return url


async def fill(url: str) -> None:
    async with open_backend(url) as backend:
        async with open_runtara(backend, instance_id="done", tenant_id="shop") as sdk:
            await sdk.completed({"sum": 3})
        async with open_runtara(backend, instance_id="waits", tenant_id="shop") as sdk:
            await sdk.checkpoint("a")
            await sdk.suspended("for later")
        long = "long-" + "x" * 200
        with pytest.raises(ValueError, match="no such order"):
            async with open_runtara(backend, instance_id=long, tenant_id="other"):
                raise ValueError("no such order")


def test_list(filled: str) -> None:
    lines = run("list", "--store", filled).splitlines()
    assert lines[0].split() == ["instance", "tenant", "status", "age", "last", "checkpoint", "note"]
    assert [line.split()[:3] for line in lines[1:]] == [
        ["long-" + "x" * 200, "other", "failed"],  # not cut
        ["waits", "shop", "suspended"],
        ["done", "shop", "completed"],
    ]
    assert "\x1b" not in "".join(lines)  # plain: this is no terminal


def test_list_filters(filled: str) -> None:
    assert len(run("list", "--store", filled, "--unfinished").splitlines()) == 2
    assert len(run("list", "--store", filled, "--tenant", "shop").splitlines()) == 3
    assert len(run("list", "--store", filled, "--limit", "1").splitlines()) == 2


def test_json(filled: str) -> None:
    found = json.loads(run("list", "--json", RUNTARA_DATABASE_URL=filled))
    assert [one["status"] for one in found] == ["failed", "suspended", "completed"]
    one = json.loads(run("show", "done", "--json", RUNTARA_DATABASE_URL=filled))
    assert one["instance_id"] == "done"
    assert one["output"] == '{"sum":3}'
    assert one["held"] is False
    assert one["started_at"].endswith("Z")
    failed = json.loads(run("show", "long-" + "x" * 200, "--json", "--store", filled))
    assert failed["error"].startswith("ValueError: no such order\n\nTraceback")


def test_show(filled: str) -> None:
    text = run("show", "waits", "--store", filled)
    assert "suspended" in text
    assert "last checkpoint  a" in text


def test_signals(filled: str) -> None:
    assert "next start stops" in run("pause", "waits", "--store", filled)
    assert "pause pending" in run("list", "--store", filled)
    assert run("resume", "waits", "--store", filled) == (
        "the pause is taken back; start its program to go on\n"
    )
    assert run("resume", "waits", "--store", filled) == (
        "no pause waits; start its program to go on\n"
    )
    assert run("cancel", "waits", "--store", filled) == "cancelled\n"
    one = json.loads(run("show", "waits", "--json", "--store", filled))
    assert (one["status"], one["signal"]) == ("cancelled", None)
    assert "is cancelled" in run("cancel", "waits", "--store", filled, code=1)


async def test_a_running_one_and_a_dead_one(url: str) -> None:
    async with start("worker.py", url, "i", "wait") as program:
        await program.line("running new")
        assert "died" not in run("list", "--store", url)
        assert "though no pause waits" in run("resume", "i", "--store", url)
        assert f"process {program.pid} " in run("show", "i", "--store", url)
        await program.kill()
    assert "its process has died" in run("list", "--store", url)


def test_errors_have_a_code_and_no_traceback(tmp_path: Path, filled: str) -> None:
    for command in ("show", "cancel", "pause", "resume"):
        assert "no instance 'nobody'" in run(command, "nobody", "--store", filled, code=1)
    missing = f"sqlite:///{tmp_path}/no.db"
    assert f"there is no store at {tmp_path}/no.db" in run("list", "--store", missing, code=1)
    assert "this version opens sqlite:///PATH" in run("list", "--store", "mysql://x", code=2)
    assert "Missing option '--store'" in run("list", code=2)
    assert "Missing argument 'ID'" in run("show", "--store", filled, code=2)
    assert not (tmp_path / "no.db").exists()


def test_events_checkpoints_signal_and_prune(filled: str) -> None:
    lines = run("events", "waits", "--store", filled).splitlines()
    assert [line.split()[3] for line in lines[1:]] == ["started", "suspended"]
    assert lines[2].endswith("for later")
    found = json.loads(run("events", "waits", "--json", "--store", filled))
    assert [event["payload"] for event in found] == ["", "for later"]
    assert run("signal", "waits", "approve", "[bold]yes", "--store", filled) == "sent\n"
    assert run("signal", "waits", "approve", "[bold]yes", "--store", filled) == "sent\n"
    assert "signals not read  approve\n" in run("show", "waits", "--store", filled)
    assert "another signal already" in run(
        "signal", "waits", "approve", "no", "--store", filled, code=1
    )
    assert run("prune", "--older-than", "1h", "--store", filled) == "0 removed\n"
    assert "write 4w, 30d" in run("prune", "--older-than", "soon", "--store", filled, code=2)
    assert run("prune", "--older-than", "0s", "--store", filled) == "2 removed\n"


def test_what_is_stored_is_shown_as_it_is_and_harmless(url: str) -> None:
    async def fill() -> None:
        async with open_runtara(url, instance_id="[/nope]\x1b", tenant_id="t"):
            pass
        async with open_runtara(url, instance_id="[red]i", tenant_id="t") as sdk:
            await sdk.checkpoint("[bold]a", b"\x1b[31mred\nnext")
            await sdk.checkpoint("b", b"\xff\x00")
            await sdk.checkpoint("c", {"cents": 5})

    trio.run(fill)
    lines = run("checkpoints", "[red]i", "--store", url).splitlines()
    assert lines[1].startswith("[bold]a")
    assert "\x1b" not in lines[1]
    assert "base64:/wA=" in lines[2]
    assert lines[3].endswith('{"cents":5}')
    listed = run("list", "--store", url, PYTHONIOENCODING="ascii")
    assert "[red]i" in listed
    assert "[/nope]\\ufffd" in listed
    found = json.loads(run("checkpoints", "[red]i", "--json", "--prefix", "c", "--store", url))
    assert [(one["checkpoint_id"], one["state"]) for one in found] == [("c", '{"cents":5}')]
    assert len(run("checkpoints", "[red]i", "--after", "b", "--store", url).splitlines()) == 2


PROGRAM = """
import trio

async def work(sdk, count, name="x"):
    saved = await sdk.checkpoint("a", [count, name])
    print("working", saved.found, flush=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep, 0 if count else 3600)
    return {"count": count, "name": name}

async def fails(sdk):
    raise ValueError("no such order")

def plain(sdk):
    pass
"""


async def test_run_calls_a_function_in_a_block(tmp_path: Path, url: str) -> None:
    (tmp_path / "orders.py").write_text(PROGRAM)
    base = ("-m", "runtara_trio", "run", "--store", url, "--tenant", "t")
    async with start_args(*base, "--id", "a", "orders:work", "3", '"ana"', cwd=tmp_path) as done:
        assert await done.wait() == 0
    assert done.lines == ["working False", "completed"]
    async with open_backend(url) as backend:
        assert (await Operator(backend).show("a")).output == b'{"count":3,"name":"ana"}'
    async with start_args(*base, "--id", "a", "orders:work", "3", cwd=tmp_path) as again:
        assert await again.wait() == 0
    assert again.lines == ["instance 'a' is completed; pass --revive to run it again"]

    async with start_args(*base, "--id", "b", "orders:work", "0", cwd=tmp_path) as waits:
        await waits.line("working")
        waits.send(signal.SIGTERM)
        assert await waits.wait() == 128 + signal.SIGTERM
    async with start_args(*base, "--id", "c", "orders:fails", cwd=tmp_path) as fails:
        assert await fails.wait() == 1
    assert fails.lines[-1] == "ValueError: no such order"

    for arguments, text in (
        (("orders:work", "{"), "is not JSON"),
        (("orders:plain",), "is not an async function"),
        (("orders:nothing",), "is not an async function"),
        (("nothing:work",), "there is no module 'nothing' here"),
        (("orders",), "is not of the form module:function"),
    ):
        async with start_args(*base, "--id", "d", *arguments, cwd=tmp_path) as wrong:
            assert await wrong.wait() == 2
        assert text in wrong.lines[-1]


def test_an_unknown_instance_is_an_error_everywhere(filled: str) -> None:
    for command in ("show", "events", "checkpoints", "pause"):
        assert "no instance 'nope'" in run(command, "nope", "--store", filled, code=1)


def test_own_records_are_shown_as_what_they_stand_for(url: str) -> None:
    async def fill() -> None:
        async with open_backend(url, create=True) as backend:
            async with open_runtara(backend, instance_id="i", tenant_id="t") as sdk:
                await sdk.sleep(0, "nap")
                await Operator(backend).send_signal("i", "go", b"the boss")
                await sdk.wait_for_signal("go")

    trio.run(fill)
    lines = run("checkpoints", "i", "--store", url).splitlines()
    assert lines == [line.rstrip() for line in lines]
    assert [line.split()[-1] for line in lines[1:]] == ["0", "boss", "UTC"]
    found = json.loads(run("checkpoints", "i", "--json", "--store", url))
    assert found[1]["state"] == "the boss"


def test_what_finished_did_not_do_so_before_it_started(url: str) -> None:
    async def fill() -> None:
        async with open_runtara(url, instance_id="i", tenant_id="t"):
            pass

    trio.run(fill)
    shown = json.loads(run("show", "i", "--json", "--store", url))
    assert shown["finished_at"] >= shown["started_at"]


async def test_run_refuses_arguments_that_do_not_fit(tmp_path: Path, url: str) -> None:
    """Before an instance fails of it, for good."""
    (tmp_path / "shop.py").write_text("async def serve(sdk, pace):\n    return pace\n")
    call = ("-m", "runtara_trio", "run", "--store", url, "--id", "i", "--tenant", "t")
    async with start_args(*call, "shop:serve", cwd=tmp_path) as program:
        assert await program.wait() == 2
    assert "shop:serve does not take the SDK and 0 arguments" in program.lines[-1]
    assert "'pace'" in program.lines[-1]
    assert not (tmp_path / "store.db").exists()
    for extra, last in (((), "completed"), (("--revive",), "completed")):
        async with start_args(*call, *extra, "shop:serve", "5", cwd=tmp_path) as program:
            assert await program.wait() == 0
        assert program.lines[-1] == last


def test_list_by_status(filled: str) -> None:
    def listed(*options: str) -> set[str]:
        found = json.loads(run("list", "--json", "--store", filled, *options))
        return {one["status"] for one in found}

    assert listed("--status", "failed") == {"failed"}
    assert listed("--status", "failed", "--status", "suspended") == {"failed", "suspended"}
    assert listed("--status", "failed", "--unfinished") == set()
    assert "'gone' is not one of" in run("list", "--status", "gone", "--store", filled, code=2)


def test_what_a_core_runs_is_not_called_dead(tmp_path: Path, url: str) -> None:
    async def fill() -> None:
        async with open_runtara(url, instance_id="i", tenant_id="t") as sdk:
            await sdk.suspended()

    trio.run(fill)
    db = sqlite3.connect(tmp_path / "store.db")
    db.execute("UPDATE instances SET status = 'running', started_at = '2026-11-22T16:10:15+00:00'")
    db.commit()
    db.close()
    assert "a runtara-core runs it" in run("list", "--store", url)


async def test_run_shows_the_programs_own_traceback(tmp_path: Path, url: str) -> None:
    (tmp_path / "shop.py").write_text("async def serve(sdk):\n    return 1 // 0\n")
    call = ("-m", "runtara_trio", "run", "--store", url, "--id", "i", "--tenant", "t")
    async with start_args(*call, "shop:serve", cwd=tmp_path) as program:
        assert await program.wait() == 1
    assert program.lines[0] == "Traceback (most recent call last):"
    assert 'shop.py", line 2, in serve' in program.lines[1]
    assert program.lines[-1].startswith("ZeroDivisionError")
    assert json.loads(run("show", "i", "--json", "--store", url))["status"] == "failed"


async def test_a_payload_that_is_no_utf_8(filled: str) -> None:
    """It is sent as its bytes; so is a JSON argument, whose error is no traceback."""
    async with open_backend(filled) as backend, block(backend, "typed") as sdk:
        payload = os.fsdecode(b"\xff\xfe")
        signal_it = ("-m", "runtara_trio", "signal", "typed", "go", payload, "--store", filled)
        async with start_args(*signal_it) as sent:
            assert await sent.wait() == 0
        assert await sdk.wait_for_signal("go") == b"\xff\xfe"
    for arguments, text in (
        (("show", payload), "lone surrogate"),
        (("signal", "waits", payload, "x"), "lone surrogate"),
        (("list", "--tenant", payload), "lone surrogate"),
        (("checkpoints", "waits", "--prefix", payload), "lone surrogate"),
        (("run", "--id", "x", "--tenant", "t", "os:fsencode", payload), "not an async function"),
        (("run", "--id", "x", "--tenant", "t", "trio:sleep", payload), "is not JSON"),
    ):
        async with start_args("-m", "runtara_trio", *arguments, "--store", filled) as wrong:
            assert await wrong.wait() == 2
        assert text in wrong.lines[-1]


async def test_a_signal_is_replaced(filled: str) -> None:
    async with open_backend(filled) as backend, block(backend, "typed") as sdk:
        base = ("-m", "runtara_trio", "signal", "typed", "count", "--store", filled)
        async with start_args(*base, "many") as sent:
            assert await sent.wait() == 0
        async with start_args(*base, "3") as refused:
            assert await refused.wait() == 1
        assert "--replace" in refused.lines[-1]
        async with start_args(*base, "3", "--replace") as replaced:
            assert await replaced.wait() == 0
        assert await sdk.wait_for_signal("count", type=int) == 3


async def test_run_after_ctrl_c(tmp_path: Path, url: str) -> None:
    (tmp_path / "orders.py").write_text(PROGRAM)
    base = ("-m", "runtara_trio", "run", "--store", url, "--tenant", "t", "--id", "b")
    async with start_args(*base, "orders:work", "0", cwd=tmp_path) as waits:
        await waits.line("working")
        waits.send(signal.SIGINT)
        assert await waits.wait() == 128 + signal.SIGINT
    assert waits.lines[-1] == "stopped"
    async with open_backend(url) as backend:
        assert (await Operator(backend).show("b")).summary.status == "suspended"
