"""How a dead owner is told from a living one, at once and on one machine.

An owner is an open store. It holds ``flock`` on a side file of its own beside the
database; the kernel drops that lock however the process dies, so nobody waits for a
lease to run out. The lock follows the open file into forked children, where it would
outlive its owner: they close it.

A stopped process keeps its lock; there the age of its last renewal decides. That age is
measured on the machine's monotonic clock, which all processes share and which neither
jumps nor runs while a laptop sleeps. A reboot starts it anew: then it shows less than
what was stored, and the owner is dead.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import time
import weakref

_held: weakref.WeakSet[OwnerFile] = weakref.WeakSet()


class OwnerFile:
    """The side file of one owner, locked from creation to :meth:`remove`."""

    def __init__(self, database: str) -> None:
        self.name = secrets.token_hex(8)
        self.path = side_file(database, self.name)
        self._fd: int | None = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
        fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
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


def lock_is_free(path: str) -> bool:
    """Whether nobody holds the lock of a side file. A missing file says nothing: False."""
    try:
        fd = os.open(path, os.O_RDWR)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: two who look at once agree
    except OSError:
        return False
    finally:
        os.close(fd)
    return True


def dead_files(database: str) -> dict[str, str]:
    """Owner to side file, of all that nobody holds, also those that no row names: their owner
    died while it made them, or who buried it before it could remove them.

    To be asked inside a transaction that writes: there no other process makes one.
    """
    folder, prefix = os.path.split(side_file(database, ""))
    found = [name.removeprefix(prefix) for name in os.listdir(folder) if name.startswith(prefix)]
    paths = {owner: side_file(database, owner) for owner in found}
    return {owner: path for owner, path in paths.items() if lock_is_free(path)}


def is_dead(*, lock_free: bool, renewed_ms: int, lease_ms: int, now_ms: int) -> bool:
    """Whether a register may take over from an owner."""
    age = now_ms - renewed_ms
    return lock_free or age < 0 or age > lease_ms


def monotonic_ms() -> int:
    return time.monotonic_ns() // 1_000_000


def _close_in_child() -> None:
    for owner in list(_held):
        owner.close()


os.register_at_fork(after_in_child=_close_in_child)
