"""Kill -9, again and again: what was acknowledged is there, and all that is there is whole."""

from __future__ import annotations

import os
import random

from runtara_trio import Operator, open_backend

from ..helpers.places import Shared
from ..helpers.support import sql, start

KILLS = int(os.environ.get("KILLS", "30"))
"""``nox -s chaos`` takes 200."""


def state(name: str, number: int) -> bytes:
    """The state that ``helpers/programs/acknowledge.py`` saves under ``name/number``."""
    return f"{name}/{number}:".encode() * (1 + number % 50)


async def test_killed_again_and_again(shared: Shared) -> None:
    """A kill may fall between a save and its answer: then the save is there, unacknowledged."""
    draw = random.Random(20)
    acknowledged: set[str] = set()
    for _ in range(KILLS):
        async with start("acknowledge.py", shared.url) as program:
            await program.line("running")
            for _ in range(draw.randint(0, 12)):
                await program.line("saved")
            await program.kill()
            await shared.expire(program)
            lines = [*program.lines, *await program.rest()]
            assert not [line for line in lines if line.startswith("wrong")]
            acknowledged |= {line.split()[1] for line in lines if line.startswith("saved")}
    async with open_backend(shared.url) as backend:
        await Operator(backend).show("i")
        if shared.url.startswith("sqlite"):
            assert await sql(backend, "PRAGMA integrity_check") == [("ok",)]
        found = dict(await sql(backend, "SELECT checkpoint_id, state FROM checkpoints"))
    assert acknowledged <= set(found)
    assert len(acknowledged) > KILLS
    for checkpoint_id, stored in found.items():
        name, number = checkpoint_id.split("/")
        assert stored == state(name, int(number))
    numbers: dict[str, list[int]] = {}
    for checkpoint_id in found:
        name, number = checkpoint_id.split("/")
        numbers.setdefault(name, []).append(int(number))
    for written in numbers.values():  # in order, without a gap
        assert sorted(written) == list(range(len(written)))


async def test_transactions_of_the_users_are_killed_anywhere(shared: Shared) -> None:
    """The effect is there exactly as often as the checkpoint; no row twice, none missing."""
    draw = random.Random(9)
    count, kills = 40, 0
    while True:
        target = draw.randrange(2, 30)
        async with start("transacts.py", shared.url, count) as program:
            lines = [await program.line()]
            while len(lines) < target and lines[-1] != "done":
                lines.append(await program.line())
            if lines[-1] == "done":
                break
            await program.kill()
            await shared.expire(program)
            kills += 1
    assert kills > 3
    async with open_backend(shared.url) as backend:
        await Operator(backend).show("counts")
        rows = await sql(backend, "SELECT number FROM mine ORDER BY number")
    assert [number for (number,) in rows] == list(range(count))
