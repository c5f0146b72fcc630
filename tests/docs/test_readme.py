"""The README says what is true: its program runs, its table is the code's."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from runtara_trio.engine.outcome import TABLE

README = (Path(__file__).parents[2] / "README.md").read_text()


def test_the_program_is_killed_and_goes_on(tmp_path: Path) -> None:
    (program,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    (tmp_path / "bills.py").write_text(program)
    first = start(tmp_path)
    assert first.stdout is not None
    before = [first.stdout.readline().strip() for _ in range(3)]
    first.kill()
    rest, _ = first.communicate(timeout=30)
    before += [line for line in rest.splitlines() if line.startswith("charged")]
    output, errors = start(tmp_path).communicate(timeout=60)
    assert not errors
    customers = [f"customer-{number}" for number in range(1, 11)]
    lines = output.splitlines()
    after = [line for line in lines if line.startswith("charged")]
    assert [line for line in lines if line not in after] == [f"receipt for {c}" for c in customers]
    assert {f"charged {c}" for c in customers} == set(before + after)
    assert len(set(before) & set(after)) <= 2  # those that were killed before their save
    again, errors = start(tmp_path).communicate(timeout=30)
    assert again.splitlines() == [f"receipt for {c}" for c in customers]
    assert not errors


def start(folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "bills.py"],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_the_table_is_the_codes() -> None:
    section = README.partition("## What a block ends as")[2].partition("##")[0]
    rows = [line.split("|")[1:-1] for line in section.splitlines() if line.startswith("|")][2:]
    assert len(rows) == len(TABLE)
    for (_, recorded, outcome), row in zip(rows, TABLE, strict=True):
        if row.outcome is not None:
            assert outcome.strip() == row.outcome.name
            assert recorded.strip() == (row.recorded.value if row.recorded else "nothing")
