"""The examples of web frameworks that do not run on Trio, with a worker beside."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from runtara_trio import RuntaraSdk, workflow

from ..helpers.places import free_port
from ..helpers.working import working

EXAMPLES = Path(__file__).parents[2] / "examples"


@workflow
async def order(sdk: RuntaraSdk, cents: int) -> str:
    if cents < 0:
        raise ValueError("cents")
    await sdk.sleep(0.05, "packing")
    return f"shipped for {cents}"


def ask(method: str, url: str) -> tuple[Any, int]:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method=method), timeout=30) as got:
            return json.load(got), got.status
    except urllib.error.HTTPError as exc:
        return json.load(exc), exc.code


def test_fastapi_under_uvicorn(url: str) -> None:
    pytest.importorskip("fastapi")
    pytest.importorskip("uvicorn")
    port = free_port()
    command = ["-m", "uvicorn", "--app-dir", EXAMPLES, "fastapi_shop:app", "--port", str(port)]
    server = subprocess.Popen(
        [sys.executable, *command],
        env={**os.environ, "RUNTARA_DATABASE_URL": url},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert server.stderr is not None
    try:
        while "running on" not in (line := server.stderr.readline()):
            assert line, "it ended"
        place = f"http://127.0.0.1:{port}/orders"
        with working(url, order):
            assert ask("POST", f"{place}/a?cents=5") == ({"order": "a"}, 202)
            assert ask("POST", f"{place}/a?cents=5")[1] == 202
            assert ask("POST", f"{place}/a?cents=6")[1] == 409
            assert ask("GET", f"{place}/a?seconds=20") == ({"result": "shipped for 5"}, 200)
            ask("POST", f"{place}/b?cents=-1")
            assert ask("GET", f"{place}/b?seconds=20") == ({"status": "failed"}, 200)
            assert ask("GET", f"{place}/nobody")[1] == 404
            answers: list[Any] = []
            threads = [
                threading.Thread(target=lambda: answers.append(ask("GET", f"{place}/a?seconds=9")))
                for _ in range(20)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert answers == [({"result": "shipped for 5"}, 200)] * 20
    finally:
        server.terminate()
        server.communicate(timeout=30)
    assert server.returncode in (0, -15, 143)


PROGRAM = """
import json, sys
sys.path.insert(0, sys.argv[1])
import django_shop
import django
django.setup()
from django.test import Client

web = Client()

def ask(method, path):
    answer = getattr(web, method)(path)
    print(json.dumps([answer.json(), answer.status_code]), flush=True)

ask("post", "/orders/a?cents=5")
ask("post", "/orders/a?cents=6")
ask("get", "/orders/a?seconds=20")
ask("get", "/orders/nobody")
"""


def test_a_django_view_under_its_test_client(url: str) -> None:
    """The process ends without a close of its client."""
    pytest.importorskip("django")
    with working(url, order):
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, EXAMPLES],
            env={**os.environ, "RUNTARA_DATABASE_URL": url},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert answers[0] == [{"order": "a"}, 202]
    assert answers[1][1] == 409
    assert answers[2:] == [[{"result": "shipped for 5"}, 200], [{"status": "unknown"}, 404]]
