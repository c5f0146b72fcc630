"""The suite, and its rules of determinism.

1. No test sleeps real time to wait for something: it waits for the thing itself, for an
   event, a line of output, a row. A test that must show that something does *not* happen
   shows what happens instead.
2. Where time matters and nothing real takes part, the clock is Trio's MockClock with
   autojump, on ``:memory:``. A database thread or a socket makes autojump wrong: the
   clock would jump while they work.
3. Other processes are real ones. They say what they have done on their standard output,
   and the test waits for that line.
4. Every wait for another process has a timeout, so that a mistake ends the test, not CI.
5. No test asserts how long something took, but where the promise is a time (150 ms to a
   signal); there the bound has room for a slow machine.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from runtara_trio import Operator, SharedBackend, open_backend

for name in [name for name in os.environ if name.startswith("RUNTARA_")]:
    del os.environ[name]


@pytest.fixture(params=["memory", "file"])
async def backend(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[SharedBackend]:
    """An open backend of each kind."""
    url = ":memory:" if request.param == "memory" else f"sqlite:///{tmp_path}/store.db"
    async with open_backend(url) as opened:
        yield opened


@pytest.fixture
async def memory() -> AsyncIterator[SharedBackend]:
    """An open backend in memory: no thread, so that a MockClock may jump."""
    async with open_backend(":memory:") as opened:
        yield opened


@pytest.fixture
def operator(backend: SharedBackend) -> Operator:
    return Operator(backend)


@pytest.fixture
def url(tmp_path: Path) -> str:
    """The URL of a file that is not there yet."""
    return f"sqlite:///{tmp_path}/store.db"
