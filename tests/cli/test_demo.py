"""``runtara-trio demo``: real workers, real kills, and a count that can come out badly."""

from __future__ import annotations

import os
import re
import shlex
import signal
from collections import Counter
from pathlib import Path

import click
import pytest

from runtara_trio import Operator, StoreError, open_backend, open_client
from runtara_trio.cli.demo import run_demo
from runtara_trio.demo import story
from runtara_trio.demo.file import FILE, read_orders
from runtara_trio.demo.ledger import read_ledger
from runtara_trio.demo.orders import Shop
from runtara_trio.demo.story import Count, Demo, DemoFailed

from ..helpers.support import Program, start_args


def small(folder: Path, kills: int, orders: int = 24) -> tuple[Demo, list[str]]:
    """A short story, and what it tells."""
    told: list[str] = []
    demo = Demo(
        folder,
        kills,
        told.append,
        lambda done, total: None,
        found=read_orders(FILE.read_bytes())[0][:orders],
        shop=Shop(str(folder / "ledger.jsonl"), pace=0.01, packing=0.05),
    )
    return demo, told


def told_by(program: Program) -> str:
    return "\n".join(program.lines)


async def test_the_story_as_it_is_printed(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    arguments = ("-m", "runtara_trio", "demo", "--folder", str(folder), "--keep-killing", "2")
    async with start_args(*arguments) as program:
        assert await program.wait() == 0
    said = told_by(program)
    assert "started 141 orders, each a run of the workflow order 1" in said
    assert "paused A-1153: paused: no worker takes it until a resume" in said
    workers = dict(re.findall(r"(worker-\d) is process (\d+): runtara-trio worker", said))
    assert list(workers) == ["worker-1", "worker-2", "worker-3", "worker-4"]
    assert re.findall(r"killed (worker-\d) \(SIGKILL\)", said) == ["worker-1", "worker-2"]
    assert "started 46 orders of order 2" in said
    assert "worker-4 is" in said
    assert "runtara_trio.demo.orders_2 --also order=1" in said
    assert re.findall(r"drained (worker-\d) \(SIGTERM\)", said) == ["worker-3"]
    assert "resumed A-1153: resumed: the next free worker goes on with it" in said
    assert "all is done, 187 of 187 orders shipped" in said
    assert re.search(r"charged +187 +of 187 valid orders", said)
    assert re.search(r"shipped +187\n", said)
    assert re.search(r"completed +187 +by the store", said)
    assert re.search(r"applied twice +0", said)
    assert re.search(r"missing +0", said)
    # What it says is what is there.
    entries = read_ledger(folder / "ledger.jsonl")
    applied = Counter((entry.effect, entry.order_id) for entry in entries if entry.applied)
    assert set(applied.values()) == {1}
    assert Counter(effect for effect, _ in applied)["charge"] == 187
    assert {str(entry.pid) for entry in entries} <= set(workers.values())
    again = re.search(r"attempted again +(\d+)", said)
    assert again is not None
    assert int(again[1]) == len(entries) - len(applied)
    thanked = {order_id for effect, order_id in applied if effect == "thank"}
    assert {order.order_id for order in read_orders(FILE.read_bytes())[0][-46:]} <= thanked
    # Who was killed or drained has heirs, who shipped what it had charged.
    for victim in ("killed worker-1", "killed worker-2", "drained worker-3"):
        section = said.partition(victim)[2].splitlines()[1:3]
        if section[0].startswith("    it had charged"):
            assert re.match(r"    shipped now, by worker-\d", section[1])


async def test_the_commands_that_it_prints(tmp_path: Path) -> None:
    """Each works as it stands, and goes on working. A folder that was there is left alone."""
    (folder := tmp_path / "a run").mkdir()
    arguments = ("-m", "runtara_trio", "demo", "--keep-killing", "0", "--folder", str(folder))
    async with start_args(*arguments) as program:
        assert await program.wait() == 0
    assert not list(folder.iterdir())
    assert (tmp_path / "a run-2" / "ledger.jsonl").exists()
    lines = [line for line in program.lines if line.startswith("  runtara-trio ")]
    listing, workers, show, worker = (shlex.split(line)[1:] for line in lines)
    said = []
    for command in (listing, workers, show):
        async with start_args("-m", "runtara_trio", *command) as asked:
            assert await asked.wait() == 0
        said.append(told_by(asked))
    assert read_orders(FILE.read_bytes())[0][-1].order_id in said[0]
    assert "completed" in said[0]
    assert said[1].split()[0] == "worker"  # nobody works any more
    assert re.search(r"workflow +order 1", said[2])
    assert re.search(r"output +\"shipped for 86112 cents", said[2])
    async with start_args("-m", "runtara_trio", *worker) as helping:
        assert (await helping.line("worker ")).endswith("runs order 2, order 1")
        helping.send(signal.SIGTERM)
        assert await helping.wait() == 128 + signal.SIGTERM


async def test_interrupted(tmp_path: Path) -> None:
    """Ctrl-C ends its workers, too."""
    arguments = ("-m", "runtara_trio", "demo", "--folder", str(tmp_path / "run"))
    async with start_args(*arguments) as program:
        pids = [int((await program.line("  worker-")).split()[3].strip(":")) for _ in range(2)]
        program.send(signal.SIGINT)
        assert await program.wait() == 1
    assert program.lines[-1] == "Aborted!"
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


async def test_the_next_version_goes_on_with_what_this_one_began(tmp_path: Path) -> None:
    demo, told = small(tmp_path, kills=0)
    assert (await demo.run()).proved
    assert sum(line.startswith("drained worker-") for line in told) == 2
    last = demo._workers[-1].process.pid
    by_the_last = {entry.order_id for entry in read_ledger(demo.ledger) if entry.pid == last}
    async with open_backend(demo.store) as backend:
        page = await Operator(backend).list(limit=100)
    versions = {one.instance_id: one.run.version for one in page.instances if one.run}
    assert Counter(versions.values()) == {1: 18, 2: 6}
    assert {1, 2} == {versions[order_id] for order_id in by_the_last}


async def test_the_count_sees_what_is_wrong(tmp_path: Path) -> None:
    demo, _ = small(tmp_path, kills=0)
    count = await demo.run()
    assert count == Count(
        orders=24, charged=24, shipped=24, again=0, twice=0, missing=0, completed=24
    )
    lines = demo.ledger.read_text().splitlines(keepends=True)
    demo.ledger.write_text("".join([*lines[1:], lines[5]]))  # one missing, one twice
    async with open_client(demo.store, tenant_id=story.TENANT) as client:
        wrong = await demo.count(client)
    assert (wrong.missing, wrong.twice) == (1, 1)
    assert not wrong.proved


async def test_a_worker_that_fails_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(story, "THIS", ("runtara_trio.demo.nowhere",))
    demo, _ = small(tmp_path, kills=0)
    with pytest.raises(DemoFailed, match=r"worker-1: it ended too early(.|\n)*demo\.nowhere"):
        await demo.run()


def test_a_store_that_fails_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run(demo: Demo) -> Count:
        raise StoreError("the disk is full")

    monkeypatch.setattr(Demo, "run", run)
    with pytest.raises(click.ClickException, match="the disk is full"):
        run_demo(tmp_path / "run", 1)


async def test_more_kills_than_orders(tmp_path: Path) -> None:
    """A kill needs no order to be done: the story does not run out of them."""
    demo, told = small(tmp_path, kills=3, orders=3)
    assert (await demo.run()).proved
    assert sum("killed" in line for line in told) == 3


async def test_a_folder_that_no_url_can_name(tmp_path: Path) -> None:
    arguments = ("-m", "runtara_trio", "demo", "--folder", str(tmp_path / "a?b"))
    async with start_args(*arguments) as program:
        assert await program.wait() == 2
    assert "has a '?'" in program.lines[-1]
