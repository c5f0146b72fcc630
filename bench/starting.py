"""How long a process takes until it is of use, from its start as another sees it."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

import msgspec

PROGRAMS = {
    "python": "print(1, flush=True)",
    "import trio, msgspec, sqlite3": "import trio, msgspec, sqlite3; print(1, flush=True)",
    "import runtara_trio": "import runtara_trio; print(1, flush=True)",
    "first checkpoint saved": (
        "import sys, trio\n"
        "from runtara_trio import open_runtara\n"
        "async def main():\n"
        "    async with open_runtara(sys.argv[1], instance_id=sys.argv[2], tenant_id='t') as sdk:\n"
        "        await sdk.checkpoint('first', b'x')\n"
        "        print(1, flush=True)\n"
        "trio.run(main)\n"
    ),
}
BASE = "import trio, msgspec, sqlite3"


class Start(msgspec.Struct, frozen=True, kw_only=True):
    """Median ms from the process's start to its first line."""

    what: str
    milliseconds: float
    over_base: float
    """ms more than the base in the same round, the median."""
    ratio: float
    """Times the base in the same round, the median."""


def measure(folder: Path, rounds: int) -> list[Start]:
    """All programs in turns."""
    took: dict[str, list[float]] = {what: [] for what in PROGRAMS}
    for number in range(rounds + 2):
        for what, program in PROGRAMS.items():
            seconds = first_line(program, f"sqlite:///{folder}/start.db", f"start-{number}")
            if number >= 2:  # the first ones fill caches and make the file
                took[what].append(seconds * 1000)
    return [
        Start(
            what=what,
            milliseconds=statistics.median(times),
            over_base=statistics.median(a - b for a, b in zip(times, took[BASE], strict=True)),
            ratio=statistics.median(a / b for a, b in zip(times, took[BASE], strict=True)),
        )
        for what, times in took.items()
    ]


def first_line(program: str, *arguments: str) -> float:
    """Seconds from the start of a process to its first line."""
    begin = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, "-c", program, *arguments], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        seconds = time.perf_counter() - begin
    if line != b"1\n":
        raise RuntimeError(f"the program failed: {program}")
    return seconds
