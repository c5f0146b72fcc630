"""``runtara-trio demo``: a real worker, real kills, and a count that can come out badly."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from runtara_trio.demo.orders import read_entries
from runtara_trio.demo.story import Count, Demo, DemoFailed

from ..helpers.support import start_args


def story(folder: Path, told: list[str], kills: int) -> Demo:
    return Demo(folder, kills, told.append, lambda done, total: None)


async def test_the_story_as_it_is_printed(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    arguments = ("-m", "runtara_trio", "demo", "--folder", str(folder), "--keep-killing", "4")
    async with start_args(*arguments) as program:
        assert await program.wait() == 0
    said = "\n".join(program.lines)
    assert len(re.findall(r"killed process \d+ \(SIGKILL\)", said)) == 4
    assert len(set(re.findall(r"process (\d+) (?:starts|goes on)", said))) == 6
    assert "asked it to pause" in said
    assert "it finished its step, and stopped" in said
    assert re.search(r"charged +187 +of 187 valid orders", said)
    assert re.search(r"applied twice +0", said)
    assert re.search(r"missing +0", said)
    assert str(folder / "orders.db") in said
    # What it says is what is there.
    entries = read_entries((folder / "ledger.jsonl").read_bytes())
    applied = Counter(entry.order_id for entry in entries if entry.applied)
    assert len(applied) == applied.total() == 187
    again = re.search(r"attempted again +(\d+)", said)
    assert again is not None
    assert int(again[1]) == len(entries) - 187


async def test_a_folder_that_is_there_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    arguments = ("-m", "runtara_trio", "demo", "--keep-killing", "0")
    async with start_args(*arguments, "--folder", str(tmp_path / "run")) as program:
        assert await program.wait() == 0
    assert not list((tmp_path / "run").iterdir())
    assert (tmp_path / "run-2" / "ledger.jsonl").exists()


async def test_the_count_sees_what_is_wrong(tmp_path: Path) -> None:
    told: list[str] = []
    demo = story(tmp_path, told, kills=0)
    count = await demo.run()
    assert count == Count(
        orders=187, charged=187, again=0, twice=0, missing=0, saved=187, status=count.status
    )
    assert count.proved
    lines = demo.ledger.read_text().splitlines(keepends=True)
    demo.ledger.write_text("".join([*lines[1:], lines[5]]))  # one missing, one twice
    wrong = await demo.count()
    assert (wrong.missing, wrong.twice) == (1, 1)
    assert not wrong.proved


async def test_a_worker_that_fails_is_reported(tmp_path: Path) -> None:
    (tmp_path / "orders.db").write_bytes(b"this is no database" * 100)
    with pytest.raises(DemoFailed, match=r"ended too early(.|\n)*orders\.db"):
        await story(tmp_path, [], kills=1).run()


async def test_more_kills_than_orders(tmp_path: Path) -> None:
    """A kill needs no order to be done: the story does not run out of them."""
    demo = story(tmp_path, told := [], kills=3)
    demo._orders = 1
    assert (await demo.run()).proved
    assert sum("killed" in line for line in told) == 3


async def test_a_folder_that_no_url_can_name(tmp_path: Path) -> None:
    arguments = ("-m", "runtara_trio", "demo", "--folder", str(tmp_path / "a?b"))
    async with start_args(*arguments) as program:
        assert await program.wait() == 2
    assert "has a '?'" in program.lines[-1]
