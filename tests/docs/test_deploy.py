"""The files of ``deploy``: the field's linters on each, and what they start, started."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
from ruamel.yaml import YAML

from ..helpers.places import Shared, free_port
from ..helpers.support import Program, start_command

DEPLOY = Path(__file__).parents[2] / "deploy"
BIN = Path(sys.executable).parent
TOKEN = "change-me-before-use-1234"


def lint(*command: str | Path) -> None:
    found = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert found.returncode == 0, found.stdout + found.stderr


def test_the_image() -> None:
    lint(BIN / "hadolint", DEPLOY / "Dockerfile")


def test_the_compose_file() -> None:
    schema = "vendor.compose-spec"
    lint(BIN / "check-jsonschema", "--builtin-schema", schema, DEPLOY / "compose.yaml")


def test_the_manifests() -> None:
    lint(BIN / "kubernetes-validate", "--strict", DEPLOY / "kubernetes.yaml")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not here")
def test_the_units(tmp_path: Path) -> None:
    """With the commands of this environment: ``verify`` looks whether they are there."""
    for unit in (DEPLOY / "systemd").iterdir():
        copy = tmp_path / unit.name
        copy.write_text(unit.read_text().replace("/opt/shop/bin", str(BIN)))
        lint("systemd-analyze", "verify", copy)


def containers() -> Iterator[tuple[str, dict[str, Any]]]:
    for one in YAML(typ="safe").load_all(DEPLOY / "kubernetes.yaml"):
        if one["kind"] == "Deployment":
            template = one["spec"]["template"]["spec"]
            assert template["securityContext"]["runAsNonRoot"]
            yield one["metadata"]["name"], template["containers"][0]


def commands() -> dict[str, list[str]]:
    """What is started, by its name."""
    found: dict[str, list[str]] = {}
    services = YAML(typ="safe").load(DEPLOY / "compose.yaml")["services"]
    for name in ("worker", "console", "web"):
        entrypoint = services[name].get("entrypoint", ["runtara-trio"])
        found[f"compose {name}"] = [*entrypoint, *services[name]["command"]]
    for name, one in containers():
        assert one["securityContext"]["readOnlyRootFilesystem"]
        found[f"kubernetes {name}"] = one.get("command", ["runtara-trio"]) + one.get("args", [])
    for unit in ("shop-worker@", "shop-console"):
        text = (DEPLOY / "systemd" / f"{unit}.service").read_text()
        (line,) = [line for line in text.splitlines() if line.startswith("ExecStart=")]
        found[f"systemd {unit}"] = line.partition("/opt/shop/bin/")[2].replace("%i", "1").split()
    return found


@pytest.mark.parametrize("by", ["compose", "kubernetes"])
async def test_what_is_started(
    shared: Shared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    """A worker, the console and a web server: an order is taken, run, and seen."""
    monkeypatch.setenv("RUNTARA_DATABASE_URL", shared.url)
    shutil.copytree(DEPLOY, tmp_path / "shop")
    ports = {port: str(free_port()) for port in ("8081", "9464", "8080", "8000")}
    processes: dict[str, Program] = {}
    async with AsyncExitStack() as stack:
        for part in ("worker", "console", "web"):
            prefix = f"{by} " if by == "compose" else f"{by} shop-"
            command = [
                _here(argument, ports, tmp_path) for argument in commands()[f"{prefix}{part}"]
            ]
            program = start_command(str(BIN / command[0]), *command[1:], cwd=tmp_path / "shop")
            processes[part] = await stack.enter_async_context(program)
        http = await stack.enter_async_context(httpx.AsyncClient(timeout=60))
        base = "http://127.0.0.1:"
        begun = await answered(http, "PUT", f"{base}{ports['8000']}/orders/o-1?cents=1999")
        assert begun.json() == "o-1"
        done = await answered(http, "GET", f"{base}{ports['8000']}/orders/o-1")
        assert done.json() == "1999 cents charged"
        for path in ("/livez", "/readyz"):
            await answered(http, "GET", f"{base}{ports['8081']}{path}")
        metrics = await answered(http, "GET", f"{base}{ports['9464']}/metrics")
        assert "runtara_run_finished_total" in metrics.text
        head = {"authorization": f"Bearer {TOKEN}"}
        page = await answered(http, "GET", f"{base}{ports['8080']}/", headers=head)
        assert "o-1" in page.text
        processes["worker"].send(signal.SIGTERM)
        assert await processes["worker"].wait() == 143


def _here(argument: str, ports: dict[str, str], folder: Path) -> str:
    """An argument, for this machine: other ports, and the token file where it is."""
    for port, free in ports.items():
        if argument == port or argument.endswith(f"={port}"):
            argument = argument.removesuffix(port) + free
    for mounted in ("/run/secrets", "/etc/shop"):
        argument = argument.replace(mounted, str(folder / "shop"))
    return argument.replace("0.0.0.0", "127.0.0.1")


async def answered(http: httpx.AsyncClient, method: str, url: str, **more: Any) -> httpx.Response:
    """The answer of a server, once it is there."""
    with trio.fail_after(60):
        while True:
            try:
                answer = await http.request(method, url, **more)
            except httpx.TransportError:
                await trio.sleep(0.05)
                continue
            assert answer.status_code == 200, answer.text
            return answer


@pytest.mark.parametrize("unit", ["shop-worker@", "shop-console"])
async def test_what_systemd_starts(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unit: str
) -> None:
    monkeypatch.setenv("RUNTARA_DATABASE_URL", url)
    shutil.copytree(DEPLOY, tmp_path / "shop")
    port = str(free_port())
    command = [
        one.replace("%d", str(tmp_path / "shop")).replace("8080", port)
        for one in commands()[f"systemd {unit}"]
    ]
    async with start_command(str(BIN / command[0]), *command[1:], cwd=tmp_path / "shop") as program:
        await program.line("worker worker-1 runs order 1" if "worker" in unit else "console on")
        program.send(signal.SIGTERM)
        assert await program.wait() in (0, 143)
