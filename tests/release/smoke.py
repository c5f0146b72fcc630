"""smoke.py EXTRA: whether what was installed does its work, with an extra and nothing beside it.

It runs in an environment of its own, where neither pytest nor the sources are.
"""

from __future__ import annotations

import importlib
import os
import socket
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import trio

from runtara_trio import (
    ConfigError,
    RuntaraSdk,
    StoreError,
    durable,
    open_backend,
    open_client,
    open_worker,
    workflow,
)
from runtara_trio.codec import JSON, Compressed

PROGRAM = Path(sys.executable).parent / "runtara-trio"


@durable
async def double(number: int) -> int:
    return 2 * number


@workflow
async def doubled(sdk: RuntaraSdk, number: int) -> int:
    await sdk.sleep(0.01, "nap")
    return await double(number)


async def on_a_file(url: str) -> None:
    async with (
        open_backend(url, create=True) as store,
        open_worker(store, [doubled], stop_signals=()),
        open_client(store, tenant_id="t") as client,
    ):
        assert await (await client.start(doubled, 21, id="a")).result() == 42


async def on_no_server() -> None:
    async with open_backend("postgresql://127.0.0.1:1/x?connect_timeout=1") as store:
        async with open_client(store, tenant_id="t") as client:
            with trio.fail_after(60):
                await client.count()


def postgres(url: str, *, there: bool) -> str:
    try:
        trio.run(on_no_server)
    except StoreError:
        return ""
    except ConfigError as exc:
        return str(exc)
    raise AssertionError("there is no such server")


def zstd(url: str, *, there: bool) -> str:
    try:
        codec = Compressed(JSON)
    except ConfigError as exc:
        return str(exc)
    assert codec.decode(codec.encode(["x"] * 1000), list) == ["x"] * 1000
    return ""


def console(url: str, *, there: bool) -> str:
    with started("console", "--store", url, "--port", "0") as (process, line):
        if not there:
            return line + (process.stderr.read() if process.stderr else "")
        with urllib.request.urlopen(line.split()[-1]) as page:
            assert "runtara" in page.read().decode()
    return ""


def prometheus(url: str, *, there: bool) -> str:
    program = "from runtara_trio import workflow\n\n@workflow\nasync def w(sdk) -> None: ...\n"
    Path("shop.py").write_text(program)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    with started("worker", "shop", "--store", url, "--metrics-port", port) as (process, line):
        if not there:
            return line + (process.stderr.read() if process.stderr else "")
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as page:
            assert "runtara_run_started" in page.read().decode()
    return ""


@contextmanager
def started(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A command, and the first line that it says."""
    with subprocess.Popen([PROGRAM, *arguments], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            yield process, process.stderr.readline()
        finally:
            process.terminate()


def importable(name: str) -> bool:
    try:
        importlib.import_module(name)
    except ImportError:
        return False
    return True


REFUSING = {"postgres": postgres, "zstd": zstd, "console": console, "prometheus": prometheus}
"""Without these extras, what needs them says so, with the remedy."""

IMPORTED = {"otel": "opentelemetry.trace", "pydantic-ai": "runtara_trio.contrib.pydantic_ai"}

BROUGHT = {
    "console": ["prometheus"],
    "pydantic-ai": ["otel"],
    "all": [*REFUSING, *IMPORTED],
}
"""What an extra brings along."""


def main(extra: str) -> None:
    assert not importable("pytest"), "this is no environment of its own"
    said = subprocess.run([PROGRAM, "--version"], capture_output=True, text=True, check=True)
    assert version("runtara-trio") in said.stdout
    there = {extra, *BROUGHT.get(extra, ())}
    if sys.version_info >= (3, 14):  # no trio-asyncio, and so no pydantic-ai
        there.discard("pydantic-ai")
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        url = f"sqlite:///{folder}/smoke.db"
        trio.run(on_a_file, url)
        for name, check in REFUSING.items():
            refused = check(url, there=name in there)
            assert ("pip install 'runtara-trio[" in refused) is (name not in there), (name, refused)
        for name, module in IMPORTED.items():
            assert importable(module) is (name in there), name
        os.chdir("/")
    print(f"runtara-trio[{extra}] works on Python {sys.version.split()[0]}")


if __name__ == "__main__":
    main(sys.argv[1])
