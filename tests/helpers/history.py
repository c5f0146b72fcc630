"""The package as it was before, out of the repository's history, and programs on it."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from .support import Program, start_command

ROOT = Path(__file__).parents[2]


def package_of(commit: str, folder: Path) -> Path:
    """What a program of then has on its path; skips where the history is not here."""
    archive = subprocess.run(
        ["git", "archive", commit, "src"], cwd=ROOT, capture_output=True, check=False
    )
    if archive.returncode:
        pytest.skip(f"the history of {commit} is not here")
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as tar:
        tar.extractall(folder, filter="data")
    return folder / "src"


def running(old: Path, program: str, url: str) -> AbstractAsyncContextManager[Program]:
    """A program on an old package, with the URL as its argument; killed at the end."""
    return start_command(
        *(sys.executable, "-c", program, url),
        stdin=subprocess.PIPE,
        stderr=None,
        env={**os.environ, "PYTHONPATH": str(old)},
    )
