"""How a dead owner is told from a living one, at once and on one machine.

An owner is an open store. It holds ``flock`` on a side file of its own beside the
database; the kernel drops that lock however the process dies, so nobody waits for a
lease to run out. The lock follows the open file into forked children, where it would
outlive its owner: they close it.

A stopped process keeps its lock; there its renewals decide. Their age is measured on the
machine's monotonic clock, which neither jumps nor runs while a laptop sleeps, and which all
processes share, but for those of another time namespace or another boot. The side file says
whose clock it was. By another one no age can be told: there an owner is dead once a reader
has not seen it renew for a whole lease.
"""

from __future__ import annotations

import contextlib
import enum
import fcntl
import functools
import os
import secrets
import time
import weakref
from pathlib import Path
from typing import NamedTuple

_held: weakref.WeakSet[OwnerFile] = weakref.WeakSet()


class OwnerFile:
    """The side file of one owner, locked from creation to :meth:`remove`."""

    def __init__(self, database: str) -> None:
        self.name = secrets.token_hex(8)
        self.path = side_file(database, self.name)
        self._fd: int | None = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
        fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.write(self._fd, this_clock())
        _held.add(self)

    def remove(self) -> None:
        """Give the lock up and take the file away."""
        if self._fd is not None:
            with contextlib.suppress(OSError):
                os.unlink(self.path)
            self.close()

    def close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def side_file(database: str, owner: str) -> str:
    return f"{database}-owner-{owner}"


class Lock(enum.Enum):
    """What is to be seen of a side file."""

    FREE = "its owner is dead"
    HELD = "its owner lives, or is stopped"
    MISSING = "somebody has removed it, or the database came without it"
    UNREADABLE = "this user may not open it"


class Seen(NamedTuple):
    """What was seen of a side file."""

    lock: Lock
    clock: bytes | None = None
    """Whose monotonic clock its owner goes by; None: not told."""


def seen_at(path: str) -> Seen:
    """Whether somebody holds the lock of a side file, and by which clock."""
    try:
        fd = os.open(path, os.O_RDONLY)  # another user's is not ours to write
    except FileNotFoundError:
        return Seen(Lock.MISSING)
    except OSError:
        return Seen(Lock.UNREADABLE)
    try:
        clock = os.read(fd, 1000) or None
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: two who look at once agree
    except OSError:
        return Seen(Lock.HELD, clock)
    finally:
        os.close(fd)
    return Seen(Lock.FREE, clock)


@functools.cache
def this_clock() -> bytes:
    """What tells this process's monotonic clock from those of other boots and namespaces; empty
    where nothing does."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/time')}".encode()
    except OSError:
        return b""


def dead_files(database: str) -> dict[str, str]:
    """Owner to side file, of all that nobody holds, also those that no row names: their owner
    died while it made them, or who buried it before it could remove them.

    To be asked inside a transaction that writes: there no other process makes one.
    """
    folder, prefix = os.path.split(side_file(database, ""))
    found = [name.removeprefix(prefix) for name in os.listdir(folder) if name.startswith(prefix)]
    paths = {owner: side_file(database, owner) for owner in found}
    return {owner: path for owner, path in paths.items() if seen_at(path).lock is Lock.FREE}


def is_dead(seen: Seen, *, renewed_ms: int, lease_ms: int, now_ms: int, unchanged_ms: int) -> bool:
    """Whether a register may take over from an owner.

    Args:
      seen: its side file.
      renewed_ms: when it renewed last, by its own clock.
      lease_ms: how long that lasts.
      now_ms: by this process's clock.
      unchanged_ms: for how long this process has not seen it renew.
    """
    if seen.lock is Lock.FREE:
        return True
    age = now_ms - renewed_ms
    if seen.clock is None or seen.clock == this_clock():
        if age > lease_ms:
            return True
        if age < 0 and seen.lock is Lock.MISSING:  # of another boot, or another machine
            return True
    return unchanged_ms > lease_ms


def monotonic_ms() -> int:
    return time.monotonic_ns() // 1_000_000


def _close_in_child() -> None:
    for owner in list(_held):
        owner.close()


os.register_at_fork(after_in_child=_close_in_child)
