"""The README says what is true: its program runs, its table is the code's."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from runtara_trio.engine.outcome import TABLE

README = (Path(__file__).parents[2] / "README.md").read_text()


def test_the_program_runs_as_it_stands(tmp_path: Path) -> None:
    (program,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    for expected in (["charging", "completed"], []):
        done = subprocess.run(
            [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True
        )
        assert [line.split()[0] for line in done.stdout.splitlines()] == expected
        # the second start finds it finished, and says what to do
        assert ("revive=True" in done.stderr) is not bool(expected)


def test_the_table_is_the_codes() -> None:
    section = README.partition("## What a block ends as")[2].partition("##")[0]
    rows = [line.split("|")[1:-1] for line in section.splitlines() if line.startswith("|")][2:]
    assert len(rows) == len(TABLE)
    for (_, recorded, outcome), row in zip(rows, TABLE, strict=True):
        if row.outcome is not None:
            assert outcome.strip() == row.outcome.name
            assert recorded.strip() == (row.recorded.value if row.recorded else "nothing")
