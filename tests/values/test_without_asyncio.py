"""Without trio-asyncio, also on a Python that it has no release for: who needs it is told so."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from runtara_trio import ConfigError, Outcome, SharedBackend, durable

from ..helpers.support import block


@durable(flavor="asyncio")
async def fetch() -> str:
    await asyncio.sleep(0)
    return "fetched"


@pytest.mark.parametrize("how", ["missing", "of another Python"])
async def test_who_needs_it_is_told(
    memory: SharedBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "trio_asyncio"]:
        monkeypatch.delitem(sys.modules, name)
    if how == "missing":
        monkeypatch.setitem(sys.modules, "trio_asyncio", None)
    else:  # as 0.16 is on Python 3.14, where it was installed nevertheless
        (tmp_path / "trio_asyncio.py").write_text("import asyncio\nasyncio.NoSuchPolicy\n")
        monkeypatch.syspath_prepend(tmp_path)
    async with block(memory) as sdk:
        for call in (fetch, lambda: sdk.asyncio(asyncio.sleep, 0)):
            with pytest.raises(ConfigError, match=r"need trio-asyncio.*no release for this"):
                await call()
        await sdk.checkpoint("goes on")
    assert sdk.outcome is Outcome.COMPLETED


def test_without_use_it_is_not_imported() -> None:
    program = """
import sys, trio
from runtara_trio import durable, open_runtara
@durable
async def f() -> int:
    return 7
async def main():
    async with open_runtara(":memory:", instance_id="i", tenant_id="t"):
        assert await f() == 7
trio.run(main)
assert "trio_asyncio" not in sys.modules and "asyncio" not in sys.modules, sorted(sys.modules)
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
