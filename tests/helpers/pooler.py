"""A real PgBouncer for the tests, Debian's package, in front of a server of theirs."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest


def free_tcp_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def needs_pgbouncer() -> None:
    """Skip a test where there is none; in CI there must be."""
    if shutil.which("pgbouncer") is None and "CI" not in os.environ:
        pytest.skip("pgbouncer is not installed")


@contextmanager
def running_pgbouncer(url: str, mode: str, *, size: int = 20) -> Iterator[str]:
    """A pooler in a mode, in front of the server of a URL on a socket; its URL."""
    needs_pgbouncer()
    folder = Path(tempfile.mkdtemp(prefix="runtara-trio-pgbouncer-"))
    folder.chmod(0o755)
    port = free_tcp_port()
    (host,) = parse_qs(urlsplit(url).query)["host"]
    config = folder / "pgbouncer.ini"
    config.write_text(
        f"[databases]\n* = host={host} user=postgres\n"
        f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
        f"auth_type = any\npool_mode = {mode}\ndefault_pool_size = {size}\n"
        "ignore_startup_parameters = extra_float_digits,options\nmax_client_conn = 200\n"
        "query_wait_timeout = 20\nserver_reset_query = DISCARD ALL\n"
    )
    # Only the server's own user may enter the folder of its socket.
    as_user = ["-u", Path(host).owner()] if os.geteuid() == 0 else []
    process = subprocess.Popen(
        ["pgbouncer", *as_user, str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        _wait_until_up(port)
        yield f"postgresql://postgres@127.0.0.1:{port}/postgres"
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _wait_until_up(port: int) -> None:
    until = time.monotonic() + 20
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            assert time.monotonic() < until, "pgbouncer does not start"
            time.sleep(0.02)
        else:
            return
