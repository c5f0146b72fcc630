"""Where the tests of every backend run: stores, a store behind our server, and a stock core.

A place is a backend for programs and an operator for its instances. A stock core has no
call that sends a signal: its operator writes to its database, as our command line does.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import uuid
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg
import trio

from runtara_trio import Operator, SdkConfig, SharedBackend, open_backend
from runtara_trio.http.server.connection import Limits as HttpLimits
from runtara_trio.http.server.guard import Guard
from runtara_trio.http.server.instances import InstanceAnswers
from runtara_trio.http.server.server import listen, open_http_server
from runtara_trio.messages import EventPage
from runtara_trio.quic.server.connection import Limits
from runtara_trio.quic.server.server import bind, open_server
from runtara_trio.serving.leases import open_leases
from runtara_trio.store.postgres.pooled import without_pooler
from runtara_trio.tokens import Role
from runtara_trio.types import Event, EventType

from .quic import IDENTITY
from .support import Program

STORES = ["memory", "file", "postgres"]
SERVED = "served"
SERVED_HTTP = "served-http"
CORES = {"sqlite": "core on SQLite", "postgres": "core on PostgreSQL"}
HTTP_CORES = {"http-sqlite": "core 1.6 on SQLite", "http-postgres": "core 1.6 on PostgreSQL"}

POLL_MS = 50


class Place:
    """A backend, its operator, and its URL for other processes."""

    def __init__(self, backend: SharedBackend, operator: Any, url: str) -> None:
        self.backend = backend
        self.operator = operator
        self.url = url


def client(address: str) -> AbstractAsyncContextManager[SharedBackend]:
    return open_backend(SdkConfig(server_addr=address, signal_poll_interval_ms=POLL_MS))


@asynccontextmanager
async def store_place(url: str) -> AsyncIterator[Place]:
    async with open_backend(url) as backend:
        yield Place(backend, Operator(backend), url)


@asynccontextmanager
async def postgres_place(server: str) -> AsyncIterator[Place]:
    """A store on a PostgreSQL server, in a schema of its own; behind a pooler, which takes no
    options, in a database."""
    if without_pooler(server)[1]:
        async with pooled_place(server) as place:
            yield place
        return
    schema = f"t{uuid.uuid4().hex}"
    await trio.to_thread.run_sync(_sql, server, f"CREATE SCHEMA {schema}")
    url = f"{server}{'&' if '?' in server else '?'}options=-csearch_path%3D{schema}"
    try:
        async with store_place(url) as place:
            yield place
    finally:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(_sql, server, f"DROP SCHEMA {schema} CASCADE")


@asynccontextmanager
async def pooled_place(server: str) -> AsyncIterator[Place]:
    """A store on a server behind a pooler in transaction mode."""
    async with new_database(server) as url, store_place(url) as place:
        yield place


@asynccontextmanager
async def new_database(server: str) -> AsyncIterator[str]:
    """The URL of a database of its own."""
    name = f"t{uuid.uuid4().hex}"
    await trio.to_thread.run_sync(_sql, server, f"CREATE DATABASE {name}")
    try:
        yield urlunsplit(urlsplit(server)._replace(path=f"/{name}"))
    finally:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(_sql, server, f"DROP DATABASE {name} WITH (FORCE)")


@asynccontextmanager
async def served_place(limits: Limits | None = None) -> AsyncIterator[Place]:
    """A store in memory behind our server, on a real socket."""
    link = bind("127.0.0.1", 0)
    address = f"127.0.0.1:{link.address[1]}"
    async with (
        open_backend(":memory:", create=True) as store,
        open_leases(store) as leases,
        open_server(store, link, IDENTITY, leases, limits=limits),
        client(address) as backend,
    ):
        yield Place(backend, Operator(store), f"quic://{address}")


@asynccontextmanager
async def served_http_place(**limits: Any) -> AsyncIterator[Place]:
    """A store in memory behind our server over HTTP, on a real socket."""
    listeners = await listen("127.0.0.1", 0, "--http-port")
    async with (
        open_backend(":memory:", create=True) as store,
        open_leases(store) as leases,
        open_http_server(
            listeners,
            InstanceAnswers(store, leases, Guard(role=Role.PROGRAM)),
            limits=HttpLimits(**limits),
        ) as server,
    ):
        url = f"http://127.0.0.1:{server.address[1]}"
        async with open_backend(SdkConfig(store=url, signal_poll_interval_ms=POLL_MS)) as backend:
            yield Place(backend, Operator(store), url)


@asynccontextmanager
async def core_place(kind: str, folder: Path) -> AsyncIterator[Place]:
    """A stock runtara-core of its own, on a new database."""
    port = free_port()
    if kind == "sqlite":
        path = folder / "core.db"
        async with (
            running_core(f"sqlite://{path}?mode=rwc", port),
            client(f"127.0.0.1:{port}") as backend,
            open_backend(f"sqlite:///{path}") as store,
        ):
            yield Place(backend, Operator(store), f"quic://127.0.0.1:{port}")
    else:
        server = os.environ["INTEROP_POSTGRES"]
        async with (
            new_database(server) as url,
            running_core(url, port),
            client(f"127.0.0.1:{port}") as backend,
        ):
            yield Place(backend, PostgresOperator(url), f"quic://127.0.0.1:{port}")


class Shared:
    """A store that several processes open: a file, or a schema on a PostgreSQL server."""

    def __init__(self, url: str) -> None:
        self.url = url

    async def expire(self, program: Program) -> None:
        """What is left of a killed program's lease passes by: on a file it ended with it."""
        if self.url.startswith("postgres"):
            await trio.to_thread.run_sync(
                _sql,
                self.url,
                "UPDATE runtara_trio_owners SET renewed_at = renewed_at - interval '1 day'"
                f" WHERE holder LIKE 'process {program.pid} %'",
            )

    def stop(self, program: Program) -> None:
        """SIGSTOP, but not inside a commit: there SQLite's own lock would keep all others out."""
        if not self.url.startswith("sqlite"):
            program.send(signal.SIGSTOP)
            os.waitpid(program.pid, os.WUNTRACED)
            return
        path = self.url.removeprefix("sqlite:///")
        db = sqlite3.connect(path, isolation_level=None, timeout=0)
        while True:
            program.send(signal.SIGSTOP)
            os.waitpid(program.pid, os.WUNTRACED)  # it stops when it is its turn to run
            try:
                db.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                program.send(signal.SIGCONT)
            else:
                db.execute("ROLLBACK")
                db.close()
                return

    def program(self, example: Path, folder: Path) -> Path:
        """An example that has this store's URL instead of its own."""
        text = re.sub(r"sqlite:///\w+\.db", self.url, example.read_text())
        (folder / example.name).write_text(text)
        return folder / example.name


async def cut_off(shared: Shared) -> None:
    """All connections to the server end; a file is locked for a while."""
    if shared.url.startswith("postgres"):
        await trio.to_thread.run_sync(
            _sql,
            shared.url,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()",
        )
        return
    db = sqlite3.connect(shared.url.removeprefix("sqlite:///"), isolation_level=None, timeout=5)
    db.execute("BEGIN IMMEDIATE")
    await trio.sleep(0.5)
    db.execute("ROLLBACK")
    db.close()


def core_program() -> str:
    return os.environ.get("INTEROP_CORE") or shutil.which("runtara-core") or ""


@asynccontextmanager
async def running_core(database: str, port: int) -> AsyncIterator[trio.Process]:
    """A runtara-core until the end of the block."""
    process = await trio.lowlevel.open_process(
        [core_program()],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "RUNTARA_QUIC_PORT": str(port), "RUNTARA_DATABASE_URL": database},
    )
    assert process.stdout is not None
    try:
        said = b""
        with trio.fail_after(30):
            while b"Instance QUIC server starting" not in said:
                more = await process.stdout.receive_some()
                assert more, f"runtara-core ended: {said.decode()}"
                said += more
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_drain, process)
            yield process
            nursery.cancel_scope.cancel()
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        with trio.CancelScope(shield=True):
            await process.wait()
            await process.stdout.aclose()


async def _drain(process: trio.Process) -> None:
    assert process.stdout is not None
    while await process.stdout.receive_some():
        pass


@asynccontextmanager
async def http_core_place(kind: str, folder: Path) -> AsyncIterator[Place]:
    """A stock runtara-core 1.6 of its own, on a new database."""
    port = free_tcp_port()
    url = f"http://127.0.0.1:{port}"
    config = SdkConfig(store=url, signal_poll_interval_ms=POLL_MS)
    if kind == "http-sqlite":
        path = folder / "core.db"
        async with (
            running_http_core(f"sqlite://{path}?mode=rwc", port),
            open_backend(config) as backend,
            open_backend(f"sqlite:///{path}") as store,
        ):
            yield Place(backend, Operator(store), url)
    else:
        server = os.environ["INTEROP_POSTGRES"]
        async with (
            new_database(server) as database,
            running_http_core(database, port),
            open_backend(config) as backend,
        ):
            yield Place(backend, PostgresOperator(database), url)


@asynccontextmanager
async def running_http_core(database: str, port: int) -> AsyncIterator[trio.Process]:
    """A runtara-core 1.6 until the end of the block."""
    process = await trio.lowlevel.open_process(
        [os.environ["INTEROP_CORE_1_6"]],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "RUNTARA_HTTP_PORT": str(port), "RUNTARA_DATABASE_URL": database},
    )
    try:
        with trio.fail_after(30):
            while not await _answers(port):
                assert process.poll() is None, "runtara-core ended"
                await trio.sleep(0.01)
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()


async def _answers(port: int) -> bool:
    try:
        stream = await trio.open_tcp_stream("127.0.0.1", port)
    except OSError:
        return False
    async with stream:
        await stream.send_all(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")
        return (await stream.receive_some()).startswith(b"HTTP/1.1 200")


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def free_tcp_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


class PostgresOperator:
    """What an operator or a runtara-environment writes to a core's PostgreSQL."""

    def __init__(self, url: str) -> None:
        self._url = url

    async def cancel(self, instance_id: str, payload: bytes = b"") -> None:
        await self._signal(instance_id, "cancel", payload)

    async def pause(self, instance_id: str, payload: bytes = b"") -> None:
        await self._signal(instance_id, "pause", payload)

    async def resume(self, instance_id: str, payload: bytes = b"") -> None:
        await self._signal(instance_id, "resume", payload)

    async def send_signal(self, instance_id: str, checkpoint_id: str, payload: bytes) -> None:
        await self._do(
            "INSERT INTO pending_checkpoint_signals (instance_id, checkpoint_id, payload)"
            " VALUES (%s, %s, %s)",
            instance_id,
            checkpoint_id,
            payload,
        )

    async def events(self, instance_id: str, *, limit: int) -> EventPage:
        rows = await trio.to_thread.run_sync(
            _rows,
            self._url,
            "SELECT id, event_type::text, subtype, payload, created_at FROM instance_events"
            " WHERE instance_id = %s ORDER BY id LIMIT %s",
            (instance_id, limit),
        )
        events = tuple(
            Event(
                id=id,
                type=EventType(kind),
                subtype=subtype,
                checkpoint_id=None,
                payload=payload,
                created_at=at,
            )
            for id, kind, subtype, payload, at in rows
        )
        return EventPage(events=events, more=False)

    async def _signal(self, instance_id: str, kind: str, payload: bytes) -> None:
        await self._do(
            "INSERT INTO pending_signals (instance_id, signal_type, payload)"
            " VALUES (%s, %s::signal_type, %s) ON CONFLICT (instance_id) DO UPDATE SET"
            " signal_type = excluded.signal_type, payload = excluded.payload,"
            " acknowledged_at = NULL, created_at = now()",
            instance_id,
            kind,
            payload or uuid.uuid4().bytes,
        )

    async def _do(self, statement: str, *values: object) -> None:
        await trio.to_thread.run_sync(_sql, self._url, statement, values)


def _rows(url: str, statement: str, values: tuple[object, ...]) -> list[tuple[Any, ...]]:
    with psycopg.connect(url, autocommit=True) as connection:
        return connection.execute(statement, values).fetchall()


def _sql(url: str, statement: str, values: tuple[object, ...] = ()) -> None:
    place, _ = without_pooler(url)
    with psycopg.connect(place, autocommit=True, prepare_threshold=None) as connection:
        connection.execute(statement, values or None)  # type: ignore[arg-type]
