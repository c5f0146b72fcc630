"""The orders example on its real file: killed, paused, cancelled, started again."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

from runtara_trio import Operator, open_backend
from runtara_trio.demo import orders

from ..helpers.support import start

PROGRAM = Path(orders.__file__)
FILE = orders.FILE

BAD_LINES = {
    8: "customer is missing",
    15: "has 4 fields, not 5",
    23: "no UTF-8 at byte 8",
    36: "quantity must be a whole number from 1 to 1000, not 'two'",
    42: "a repetition of line 14",
    50: "cents must be a whole number from 1 to 10000000, not '12.50'",
    69: "cents must be a whole number from 1 to 10000000, not '-500'",
    82: "no UTF-8 at byte 18",
    91: "has 6 fields, not 5",
    97: "a repetition of line 92",
    105: "order_id is missing",
    121: "quantity must be a whole number from 1 to 1000, not '0'",
    137: "unexpected end of data",
    142: "a repetition of line 5",
    155: "cents is missing",
    172: "another order with the id of line 104",
    177: "no UTF-8 at byte 12",
    186: "cents must be a whole number from 1 to 10000000, not '999999999999'",
    196: "holds a NUL character",
    210: "a repetition of line 32",
}


def charged(folder: Path) -> Counter[str]:
    entries = orders.read_entries((folder / "ledger.jsonl").read_bytes())
    return Counter(entry.order_id for entry in entries if entry.applied)


def valid() -> list[str]:
    """The ids of the valid orders, counted without the example's own reader."""
    lines = FILE.read_bytes().removeprefix(b"\xef\xbb\xbf").splitlines()
    good = [
        line.split(b",")[0].decode()
        for number, line in enumerate(lines, start=1)
        if number > 1 and line.strip() and number not in BAD_LINES
    ]
    assert len(good) == len(set(good)) == 187
    return good


def test_every_bad_line_is_reported_with_its_number() -> None:
    found, problems = orders.read_orders(FILE.read_bytes())
    assert problems == [f"line {number}: {text}" for number, text in BAD_LINES.items()]
    assert [order.order_id for order in found] == valid()


def close(ledger: orders.Ledger) -> None:
    """Let go of the file, as the end of a process does."""
    ledger._file.close()


def test_the_ledger_applies_a_key_once_and_drops_a_torn_line(tmp_path: Path) -> None:
    order = orders.Order(1, "A-1", "Ana", "lamp", 2, 50)
    path = tmp_path / "ledger.jsonl"
    ledger = orders.Ledger(path)
    ledger.charge("key", order)
    ledger.charge("key", order)
    close(ledger)
    with path.open("ab") as file:
        file.write(b'{"key": "torn", "ord')
    again = orders.Ledger(path)
    again.charge("key", order)
    again.charge("torn", order)
    close(again)
    entries = orders.read_entries(path.read_bytes())
    assert [(entry.key, entry.applied) for entry in entries] == [
        ("key", True),
        ("key", False),
        ("key", False),
        ("torn", True),
    ]


async def test_undisturbed(tmp_path: Path) -> None:
    async with start(PROGRAM, "--folder", tmp_path, "--pace", 0) as program:
        assert await program.wait() == 0
    for number, text in BAD_LINES.items():
        assert f"  line {number}: {text}" in program.lines
    assert program.lines[-1] == "completed"
    assert charged(tmp_path) == Counter(valid())
    async with start(PROGRAM, "--folder", tmp_path) as again:
        assert await again.wait() == 0
    assert again.lines[-1].startswith("nothing to do: completed before")


async def test_killed_again_and_again(tmp_path: Path) -> None:
    """At points drawn once; the seed makes them the same in each run."""
    draw = random.Random(3)
    kills = 0
    while True:
        async with start(PROGRAM, "--folder", tmp_path, "--pace", 0.001) as program:
            try:
                for _ in range(draw.randint(1, 25)):
                    await program.line("[")
            except EOFError:
                assert await program.wait() == 0
                break
            await program.kill()
            kills += 1
    assert kills > 5
    # the last kill may have come after the outcome was recorded
    assert program.lines[-1].startswith(("completed", "nothing to do: completed before"))
    assert charged(tmp_path) == Counter(valid())


async def test_paused_and_resumed_by_a_new_start(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path}/orders.db"
    async with start(PROGRAM, "--folder", tmp_path) as program:
        await program.line("[  5/187]")
        async with open_backend(store) as backend:
            await Operator(backend).pause("orders")
        assert await program.wait() == 0
    assert program.lines[-2:] == ["paused", "start it again to go on"]
    after_pause = charged(tmp_path)
    assert 5 <= sum(after_pause.values()) < 187
    async with open_backend(store) as backend:
        names = {
            one.checkpoint_id for one in (await Operator(backend).checkpoints("orders")).checkpoints
        }
    assert names == {f"order/{name}" for name in after_pause}  # nothing is half done
    async with start(PROGRAM, "--folder", tmp_path, "--pace", 0) as program:
        assert await program.wait() == 0
    assert charged(tmp_path) == Counter(valid())


async def test_cancelled(tmp_path: Path) -> None:
    async with start(PROGRAM, "--folder", tmp_path) as program:
        await program.line("[  5/187]")
        async with open_backend(f"sqlite:///{tmp_path}/orders.db") as backend:
            await Operator(backend).cancel("orders")
        assert await program.wait() == 1
    assert program.lines[-1] == "cancelled"
    assert set(charged(tmp_path).values()) == {1}
    async with start(PROGRAM, "--folder", tmp_path) as again:
        await again.wait()
    assert again.lines[-1].startswith("nothing to do: cancelled before")


async def test_a_second_one_at_the_same_time_is_told_who_runs_it(tmp_path: Path) -> None:
    async with start(PROGRAM, "--folder", tmp_path) as program:
        await program.line("[  1/187]")
        async with start(PROGRAM, "--folder", tmp_path) as second:
            assert await second.wait() == 1
        assert f"is run by process {program.pid} on" in second.lines[-1]
