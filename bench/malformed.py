"""Datagrams and frames that are none, at a server that has good clients.

``nox -s malformed -- COUNT RATE`` starts our server on a file, lets good clients save checkpoints,
sends so many malformed datagrams and, over connections of their own, malformed frames, and tells
what became of the good clients and of the server. It writes nothing; docs/server.md has the
figures.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import re
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import trio
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection

from runtara_trio import SdkConfig, open_backend, open_runtara
from runtara_trio.quic.client.connection import (
    BadReply,
    CallingConnection,
    CallTimeout,
    ConnectionLost,
)
from runtara_trio.quic.transport.driver import Driver
from runtara_trio.quic.transport.link import ClientLink
from runtara_trio.quic.transport.shim import Quic

GOOD = 8
"""Clients that save checkpoints all the time."""

BATCH = 64
"""Datagrams between two looks at the clock."""

FRAMES_AT_ONCE = 20


def rss_mb(pid: int) -> float:
    """What a process has in memory."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    raise AssertionError("no VmRSS")


def files_of(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def first_datagram() -> bytes:
    """What a client begins with."""
    quic = QuicConnection(configuration=QuicConfiguration(is_client=True, server_name="localhost"))
    quic.connect(("127.0.0.1", 1), now=0.0)
    return bytes(quic.datagrams_to_send(now=0.0)[0][0])


def malformed(draw: random.Random, first: bytes) -> bytes:
    """One of the kinds: noise, a first datagram that was changed or cut, a head and noise, a short
    head of nobody's connection, a version that nobody speaks."""
    kind = draw.randrange(6)
    if kind == 0:
        return draw.randbytes(draw.randrange(1, 1400))
    if kind == 1:
        changed = bytearray(first)
        for _ in range(draw.randrange(1, 20)):
            changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
        return bytes(changed)
    if kind == 2:
        return first[: draw.randrange(1, len(first))]
    if kind == 3:
        return first[:30] + draw.randbytes(1170)
    if kind == 4:
        return bytes([0x40 | draw.randrange(64)]) + draw.randbytes(draw.randrange(20, 1200))
    return bytes([0xC0]) + draw.randbytes(4) + first[5:]


def flood(port: int, count: int, rate: int, sent: list[int]) -> None:
    """Send malformed datagrams, from many ports."""
    draw, first = random.Random(7), first_datagram()
    kinds = [malformed(draw, first) for _ in range(5_000)]
    sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(50)]
    begun = time.monotonic()
    while sent[0] < count:
        out = sockets[draw.randrange(len(sockets))]
        for _ in range(BATCH):
            out.sendto(kinds[draw.randrange(len(kinds))], ("127.0.0.1", port))
        sent[0] += BATCH
        ahead = sent[0] / rate - (time.monotonic() - begun)
        if ahead > 0:
            time.sleep(ahead)
    for one in sockets:
        one.close()


async def send_frames(port: int, over: trio.Event) -> int:
    """Malformed frames over good connections, until it is over. How many."""
    draw = random.Random(8)
    count = 0
    while not over.is_set():
        link = ClientLink(socket.AF_INET, ("127.0.0.1", port))
        quic = Quic(
            configuration=QuicConfiguration(
                is_client=True, server_name="localhost", verify_mode=ssl.CERT_NONE
            )
        )
        connection: CallingConnection
        driver = Driver(link, lambda datagram, source: connection)  # noqa: B023
        connection = CallingConnection(quic, driver, lambda _: None)

        async def one(connection: CallingConnection) -> None:
            nonlocal count
            head = draw.choice([b"", b"\0\0", b"\0\0\0\5\0\1", b"\7\0\0\0\0\1", b"\0\0\0\2\0\1"])
            frame = head + draw.randbytes(draw.randrange(0, 2_000))
            with contextlib.suppress(BadReply, CallTimeout, ConnectionLost):
                await connection.call(frame, trio.current_time() + 2.0)
            count += 1

        async with trio.open_nursery() as nursery:
            quic.connect(("127.0.0.1", port), now=trio.current_time())
            nursery.start_soon(driver.run)
            connection.touch()
            with trio.move_on_after(10):
                await connection.ready.wait()
                for _ in range(10):
                    async with trio.open_nursery() as calls:
                        for _ in range(FRAMES_AT_ONCE):
                            calls.start_soon(one, connection)
            connection.close()
            nursery.cancel_scope.cancel()
        link.close()
    return count


async def save(backend: object, name: str, over: trio.Event, waits: list[float]) -> None:
    """A good client: one checkpoint after the other."""
    async with open_runtara(backend, instance_id=name, tenant_id="t") as sdk:  # type: ignore[arg-type]
        number = 0
        while not over.is_set():
            begun = trio.current_time()
            await sdk.checkpoint(f"{number}", b"x" * 200)
            waits.append(trio.current_time() - begun)
            number += 1


@contextlib.contextmanager
def serving(folder: str) -> Iterator[tuple[subprocess.Popen[bytes], Path, int]]:
    """Our server in a process of its own: that, its log, its port."""
    log = Path(folder, "log")
    command = ["serve", "--port", "0", "--store", f"sqlite:///{folder}/store.db"]
    with log.open("wb") as out:
        server = subprocess.Popen(
            [sys.executable, "-m", "runtara_trio", *command], stdout=out, stderr=subprocess.STDOUT
        )
    try:
        while (found := re.search(r"127\.0\.0\.1:(\d+)", log.read_text())) is None:
            time.sleep(0.05)
        yield server, log, int(found[1])
    finally:
        server.terminate()
        server.wait()


async def load(port: int, server: subprocess.Popen[bytes], log: Path, count: int, rate: int) -> int:
    """The exit code."""
    over, waits, sent = trio.Event(), list[float](), [0]
    frames = 0
    config = SdkConfig(server_addr=f"127.0.0.1:{port}")
    async with open_backend(config) as backend, trio.open_nursery() as nursery:
        for number in range(GOOD):
            nursery.start_soon(save, backend, f"good-{number}", over, waits)
        await trio.sleep(3)
        quiet, before, files = len(waits) / 3, rss_mb(server.pid), files_of(server.pid)
        waits.clear()
        thread = threading.Thread(target=flood, args=(port, count, rate, sent), daemon=True)
        begun = time.monotonic()
        thread.start()

        async def send() -> None:
            nonlocal frames
            frames = await send_frames(port, over)

        nursery.start_soon(send)
        highest, middle = before, 0.0
        while thread.is_alive():
            await trio.sleep(0.5)
            highest = max(highest, rss_mb(server.pid))
            if middle == 0.0 and sent[0] > count / 2:
                middle = rss_mb(server.pid)
        seconds = time.monotonic() - begun
        over.set()
    waits.sort()
    lines = log.read_text().splitlines()
    errors = [line for line in lines if "Traceback" in line or "ERROR" in line]
    p50, p99 = (waits[int(len(waits) * part)] * 1000 for part in (0.5, 0.99))
    behind = rss_mb(server.pid)
    print(f"malformed datagrams  {sent[0]} in {seconds:.1f} s")
    print(f"malformed frames     {frames}")
    print(f"good checkpoints     {len(waits)}: {len(waits) / seconds:.0f}/s, {quiet:.0f}/s before")
    print(
        f"their wait           p50 {p50:.1f} ms, p99 {p99:.1f} ms, most {waits[-1] * 1000:.0f} ms"
    )
    print(
        f"server's memory      {before:.1f} MB before, {middle:.1f} half-way, {highest:.1f} at most"
    )
    print(f"                     {behind:.1f} behind it")
    print(f"server's files       {files} before, {files_of(server.pid)} behind it")
    print(f"lines of its log     {len(lines)}, of errors {len(errors)}")
    return 0 if server.poll() is None and not errors else 1


def main() -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("count", type=int, nargs="?", default=1_000_000)
    parser.add_argument("rate", type=int, nargs="?", default=5_000, help="datagrams a second")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, serving(folder) as (server, log, port):
        return trio.run(load, port, server, log, given.count, given.rate)


if __name__ == "__main__":
    sys.exit(main())
