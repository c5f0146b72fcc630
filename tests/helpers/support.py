"""What several tests need: a backend that is watched, and programs in other processes."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import trio

from runtara_trio import Operator, RuntaraSdk, open_runtara
from runtara_trio.backend import Backend, SignalBatch
from runtara_trio.engine.block import Block
from runtara_trio.messages import RecordOutcome, ReplyT, Request
from runtara_trio.store.postgres.backend import PostgresStore
from runtara_trio.store.postgres.pool import Pool

PROGRAMS = Path(__file__).parent / "programs"

needs_trio_asyncio = pytest.mark.skipif(
    sys.version_info >= (3, 14), reason="trio-asyncio has no release for Python 3.14"
)


def block(backend: Any, instance_id: str = "i", **options: Any) -> Any:
    """An ``open_runtara`` block as most tests want it."""
    return open_runtara(backend, instance_id=instance_id, tenant_id="t", **options)


async def checkpoint_ids(backend: Any, operator: Any = None) -> list[str]:
    """The ids of all that is stored for the instance ``i``."""
    page = await (operator or Operator(backend)).checkpoints("i", limit=100_000)
    return [one.checkpoint_id for one in page.checkpoints]


async def until(holds: Callable[[], bool]) -> None:
    """Wait until something holds that nothing tells of: each pass of the loop looks again."""
    with trio.fail_after(30):
        while not holds():
            await trio.sleep(0.001)


class Wall:
    """A wall clock that is set by hand."""

    def __init__(self) -> None:
        self.offset = 1_700_000_000.0

    def now(self) -> float:
        return self.offset + trio.current_time()


async def sql(backend: Any, statement: str) -> list[tuple[Any, ...]]:
    """What somebody else's hand does to a store."""
    if isinstance(store_of(backend), PostgresStore):
        async with pool_of(backend).lent() as connection:
            return await connection.run(statement)
    return sqlite_of(backend).execute(statement).fetchall()


class Watched:
    """A backend around another: keeps the requests, and fails those it is told to."""

    def __init__(self, inner: Backend) -> None:
        self.inner = inner
        self.requests: list[Request[Any]] = []
        self.before: Callable[[Request[Any]], object] = lambda message: None
        self.batches: list[SignalBatch] = []
        self.more = trio.Event()

    async def request(self, message: Request[ReplyT], /) -> ReplyT:
        self.requests.append(message)
        failure = self.before(message)
        if isinstance(failure, BaseException):
            raise failure
        if isinstance(failure, trio.Event):
            await failure.wait()
        return await self.inner.request(message)

    def push(self, batch: SignalBatch) -> None:
        self.batches.append(batch)
        self.more.set()

    async def signals(self) -> AsyncIterator[SignalBatch]:
        while True:
            await self.more.wait()
            self.more = trio.Event()
            while self.batches:
                yield self.batches.pop(0)

    def sent(self, kind: type[Any]) -> list[Any]:
        return [message for message in self.requests if isinstance(message, kind)]


class Unanswered(Watched):
    """Carries outcomes out, and never says so."""

    async def request(self, message: Request[ReplyT], /) -> ReplyT:
        reply = await super().request(message)
        if isinstance(message, RecordOutcome):
            await trio.sleep_forever()
        return reply


async def leave_with(
    backend: Any, error: BaseException, **options: Any
) -> tuple[RuntaraSdk, BaseException | None]:
    """A block whose body raises ``error``: its SDK, and what left it."""
    try:
        async with block(backend, **options) as sdk:
            raise error
    except BaseException as exc:
        return sdk, exc
    return sdk, None


class Program:
    """A Python program in another process, and the lines it prints."""

    def __init__(self, process: trio.Process) -> None:
        self.process = process
        self.lines: list[str] = []
        self._rest = b""

    @property
    def pid(self) -> int:
        return self.process.pid

    async def line(self, wanted: str = "") -> str:
        """The next line that begins with ``wanted``."""
        assert self.process.stdout is not None
        with trio.fail_after(30):
            while True:
                head, newline, tail = self._rest.partition(b"\n")
                if newline:
                    self._rest = tail
                    self.lines.append(head.decode())
                    if self.lines[-1].startswith(wanted):
                        return self.lines[-1]
                    continue
                more = await self.process.stdout.receive_some()
                if not more:
                    raise EOFError(f"no line {wanted!r} in {self.lines}")
                self._rest += more

    async def rest(self) -> list[str]:
        """The whole lines that it had written before its end."""
        seen = len(self.lines)
        with suppress(EOFError):
            while True:
                await self.line()
        return self.lines[seen:]

    async def wait(self) -> int:
        """Read what is left, and the exit code."""
        await self.rest()
        with trio.fail_after(30):
            return await self.process.wait()

    def send(self, signal_number: int) -> None:
        self.process.send_signal(signal_number)

    async def kill(self) -> None:
        self.process.kill()
        await self.process.wait()


def start(
    program: str | Path, *arguments: object, cwd: Path | None = None
) -> AbstractAsyncContextManager[Program]:
    """Run a program of ``helpers/programs`` (or any path) until the end of the block."""
    return start_args(str(PROGRAMS / program), *map(str, arguments), cwd=cwd)


def start_args(*arguments: str, cwd: Path | None = None) -> AbstractAsyncContextManager[Program]:
    """Run Python with these arguments until the end of the block."""
    return start_command(sys.executable, "-u", *arguments, cwd=cwd)


@asynccontextmanager
async def start_command(
    *command: str, cwd: Path | None = None, **options: Any
) -> AsyncIterator[Program]:
    """Run a command until the end of the block; ``options`` of :class:`subprocess.Popen`."""
    process = await trio.lowlevel.open_process(
        list(command),
        stdout=subprocess.PIPE,
        **{"stderr": subprocess.STDOUT, "cwd": cwd, **options},
    )
    running = Program(process)
    try:
        yield running
    finally:
        if process.poll() is None:
            process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
        assert process.stdout is not None
        with trio.CancelScope(shield=True):
            await process.stdout.aclose()


WRITING_CALLS: dict[str, Callable[[RuntaraSdk], Awaitable[object]]] = {
    "checkpoint": lambda sdk: sdk.checkpoint("new"),
    "sleep": lambda sdk: sdk.sleep(1, "new"),
    "wait_for_signal": lambda sdk: sdk.wait_for_signal("new"),
    "heartbeat": lambda sdk: sdk.heartbeat(),
    "custom_event": lambda sdk: sdk.custom_event("a", b""),
    "record_retry_attempt": lambda sdk: sdk.record_retry_attempt("a", 1),
}
"""By the name that an error gives it."""


# ---- private names of the package, each in one place


def store_of(backend: Any) -> Any:
    """The backend that a shared one shares."""
    return backend._backend


def share_another(shared: Any, backend: Backend) -> None:
    """Let a shared backend, which is open already, share another one."""
    shared._backend = backend


def backend_of(operator: Operator) -> Any:
    """The backend that an operator asks."""
    return operator._backend


def sqlite_of(backend: Any) -> sqlite3.Connection:
    """The connection of a store on SQLite, which its own thread uses."""
    connection: sqlite3.Connection = store_of(backend)._database.file.db
    return connection


def pool_of(backend: Any) -> Pool:
    """The connections of a store on PostgreSQL."""
    pool: Pool = store_of(backend)._pool
    return pool


def leases_of(backend: Any) -> dict[str, int]:
    """What a store on PostgreSQL believes to have leased."""
    leased: dict[str, int] = store_of(backend)._owner.leased
    return leased


def url_of(backend: Any) -> str:
    """The URL of the server that a store on PostgreSQL has found."""
    return pool_of(backend)._hosts.url


def idle_pids(backend: Any) -> list[int]:
    """The server's processes for the connections that a store does not use just now."""
    return [one._pgconn.backend_pid for one in pool_of(backend)._idle]


def block_of(sdk: Any) -> Block:
    """The engine's side of an SDK."""
    block: Block = sdk._block
    return block
