"""Workers in other processes, and the ledger of what their runs did.

The ledger is a file to which every process appends whole lines, so that their order is the order
in which things happened, whoever was killed between two of them.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import trio

from .places import Shared
from .support import Program, start


class Line(NamedTuple):
    """One line of the ledger."""

    what: str
    instance: str
    step: str
    token: str
    """What a step made, in whichever process."""
    pid: int
    """Of the process that wrote the line."""


class Ledger:
    """What runs did, in order."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "ledger"
        self.path.touch()

    def note(self, what: str, program: Program) -> None:
        """Say that a process is about to be killed, drained or stopped."""
        with self.path.open("ab", buffering=0) as ledger:
            ledger.write(f"{what} - - - {program.pid}\n".encode())

    @property
    def size(self) -> int:
        return self.path.stat().st_size

    def lines(self, what: str = "", instance: str = "") -> list[Line]:
        """The lines that are whole, all or those of a kind or an instance."""
        text = self.path.read_text()
        rows = [line.split() for line in text[: text.rfind("\n") + 1].splitlines()]
        found = [Line(row[0], row[1], row[2], row[3], int(row[4])) for row in rows]
        return [one for one in found if what in ("", one.what) and instance in ("", one.instance)]

    def unfinished(self, pid: int, steps: int) -> set[str]:
        """The instances that are in a process, by the ledger, and have not saved all steps."""
        had: dict[str, int] = {}
        for line in self.lines():
            had[line.instance] = line.pid
            if (line.what, line.step) == ("saved", str(steps - 1)):
                del had[line.instance]
        return {instance for instance, last in had.items() if last == pid}

    def has_begun(self, pid: int, instances: set[str]) -> bool:
        """Whether a process has worked on one of these."""
        return any(one.pid == pid and one.instance in instances for one in self.lines())

    def check(
        self, results: dict[str, list[str]], *, stopped: int | None = None, moves: bool = False
    ) -> None:
        """Nothing that was saved was done again, and no run was in two places at once.

        ``results``: by instance, the token of each step as it was saved; no others are looked at.
        ``stopped``: a process that was stopped past its lease. It may do what it does until its
        next write, which is not saved: the step that it is in, and the one behind a save whose
        answer was on its way. ``moves``: runs that wait are unloaded, and go on anywhere.
        """
        lines = self.lines()
        ending = {one.pid for one in lines if one.what in ("kill", "stop")}
        ends: dict[int, int] = {}
        begun: dict[tuple[str, str], list[Line]] = {}
        owners: dict[str, list[int]] = {}
        late: set[str] = set()
        for place, line in enumerate(lines):
            if line.what in ("kill", "drain", "stop"):
                ends.setdefault(line.pid, place)
            if line.instance not in results:
                continue
            if line.what == "saved":
                assert line.token == results[line.instance][int(line.step)], line
            pids = owners.setdefault(line.instance, [line.pid])
            if line.pid == stopped != pids[-1]:
                if line.what == "begin":
                    assert line.instance not in late, line
                    late.add(line.instance)
                continue
            if line.what == "begin":
                begun.setdefault((line.instance, line.step), []).append(line)
            if line.pid != pids[-1] and not moves:
                # It has left a process that was to end, and does not come back there.
                assert pids[-1] in ends, (line, pids)
                assert line.pid not in pids, (line, pids)
                pids.append(line.pid)
        for instance, tokens in results.items():
            for number, token in enumerate(tokens):
                *torn, last = begun[instance, str(number)]
                assert last.token == token, (instance, number)
                assert all(one.pid in ending for one in torn), (instance, number)


class Fleet:
    """Workers on one store."""

    def __init__(self, shared: Shared, folder: Path, nursery: trio.Nursery) -> None:
        self.shared = shared
        self.folder = folder
        self.ledger = Ledger(folder)
        self.programs: list[Program] = []
        self._nursery = nursery

    async def start(self, **options: object) -> Program:
        """A worker that works; see ``programs/runs.py``."""
        program: Program = await self._nursery.start(self._run, options)
        return program

    async def _run(
        self, options: dict[str, object], *, task_status: trio.TaskStatus[Program]
    ) -> None:
        async with start("runs.py", self.shared.url, self.folder, json.dumps(options)) as program:
            await program.line("working")
            self.programs.append(program)
            task_status.started(program)
            while True:  # what it prints must not fill its pipe
                try:
                    await program.line()
                except EOFError:
                    break
                except trio.TooSlowError:
                    continue
            await program.process.wait()

    async def kill(self, program: Program) -> None:
        self.ledger.note("kill", program)
        await program.kill()

    async def drain(self, program: Program) -> None:
        """End it with SIGTERM, and wait for that."""
        self.ledger.note("drain", program)
        program.send(signal.SIGTERM)
        assert await self.ended(program) == 128 + signal.SIGTERM, program.lines

    async def ended(self, program: Program) -> int:
        """The exit code."""
        with trio.fail_after(30):
            return await program.process.wait()

    def open_gate(self, name: str = "gate") -> None:
        (self.folder / name).touch()

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until something holds of a file, or of what a program has printed."""
        with trio.fail_after(60):
            while not holds():
                assert all(
                    one.process.poll() in (None, -signal.SIGKILL, 128 + signal.SIGTERM)
                    for one in self.programs
                ), [one.lines for one in self.programs]
                await trio.sleep(0.005)

    async def until_lines(self, count: int) -> None:
        """Until the ledger has so many lines."""
        seen = self.ledger.path.open("rb")
        found = 0

        def are_there() -> bool:
            nonlocal found
            found += seen.read().count(b"\n")
            return found >= count

        with seen:
            await self.until(are_there)

    async def until_noted(self, what: str, instance: str = "", *, pid: int | None = None) -> Line:
        """The first such line of the ledger."""
        found: list[Line] = []

        def is_there() -> bool:
            lines = self.ledger.lines(what, instance)
            found[:] = [one for one in lines if pid in (None, one.pid)]
            return bool(found)

        await self.until(is_there)
        return found[0]


@asynccontextmanager
async def open_fleet(shared: Shared, folder: Path) -> AsyncIterator[Fleet]:
    """Workers until the end of the block; those that live then are drained."""
    async with trio.open_nursery() as nursery:
        fleet = Fleet(shared, folder, nursery)
        yield fleet
        living = [one for one in fleet.programs if one.process.poll() is None]
        for program in living:
            os.kill(program.pid, signal.SIGTERM)
        for program in living:
            assert await fleet.ended(program) == 128 + signal.SIGTERM, program.lines
