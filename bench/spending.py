"""What a store takes on the disk, and what its server spends."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import msgspec
import psutil
import psycopg


class Store:
    """A store, what it takes on the disk, and what its server has spent."""

    def __init__(self, url: str, server: Any = None) -> None:
        self.url = url
        self._server = server

    @property
    def has_server(self) -> bool:
        return self._server is not None

    def bytes(self) -> int:
        if self._server is None:
            path = self.url.removeprefix("sqlite:///")
            files = (Path(f"{path}{end}") for end in ("", "-wal"))
            return sum(file.stat().st_size for file in files if file.exists())
        return int(self.ask("SELECT pg_database_size(current_database())"))

    def ask(self, statement: str) -> Any:
        with psycopg.connect(self.url, autocommit=True) as connection:
            found = connection.execute(statement)
            row = found.fetchone() if found.description else None
        return row[0] if row else None

    def spent(self) -> Spent:
        """Until now."""
        if self._server is None:
            return Spent()
        master: psutil.Process = self._server._server.get_postmaster_info().process
        cpu = 0.0
        for found in (master, *master.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                times = found.cpu_times()
                cpu += times.user + times.system
                if found == master:
                    cpu += times.children_user + times.children_system
        return Spent(
            cpu=cpu,
            wal=int(self.ask("SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')")),
            commits=int(
                self.ask(
                    "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()"
                )
            ),
        )


class Spent(msgspec.Struct, frozen=True):
    """What a server has used: seconds of processors, bytes of WAL, commits."""

    cpu: float = 0.0
    wal: int = 0
    commits: int = 0
