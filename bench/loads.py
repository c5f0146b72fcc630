"""What one client did to a server: of a benchmark's clients, each in a process of its own."""

from __future__ import annotations

import contextlib
import resource
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec


class Load(msgspec.Struct, frozen=True):
    """What one client did."""

    calls: int
    seconds: float
    errors: int
    p50_ms: float
    p99_ms: float
    cpu_us: float = 0.0

    @property
    def rate(self) -> float:
        """Calls a second that ended well."""
        return (self.calls - self.errors) / self.seconds

    @property
    def lost(self) -> str:
        """How many did not, for a table; empty where all did."""
        return f" ({self.errors / self.calls:.0%} errors)" if self.errors else ""


def told(times: list[float], seconds: float, cpu: float) -> Load:
    """What a client says of the times of its calls, in seconds."""
    times.sort()
    return Load(
        calls=len(times),
        seconds=seconds,
        errors=0,
        p50_ms=times[len(times) // 2] * 1e3,
        p99_ms=times[int((len(times) - 1) * 0.99)] * 1e3,
        cpu_us=cpu / len(times) * 1e6,
    )


def cpu() -> float:
    """Seconds that this process has used."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def load(client: list[str], *arguments: object) -> Load:
    """Run a client, and read what it says."""
    done = subprocess.run(
        [*client, *map(str, arguments)], stdout=subprocess.PIPE, check=True, timeout=300
    )
    return msgspec.json.decode(done.stdout.splitlines()[-1], type=Load)


@contextlib.contextmanager
def started(
    command: list[str], ready: bytes, log: Path, environment: Mapping[str, str]
) -> Iterator[None]:
    """A server, from when it says that it is ready."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=dict(environment))
    try:
        while ready not in log.read_bytes():
            if process.poll() is not None:
                raise RuntimeError(log.read_text())
            time.sleep(0.02)
        yield
    finally:
        process.kill()
        process.wait()
