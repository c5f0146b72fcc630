"""The ledger: it stands for the services of a shop, which apply each key once."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import msgspec


class Entry(msgspec.Struct, frozen=True):
    """A line of the ledger: an attempt at an effect."""

    key: str
    effect: str
    order_id: str
    pid: int
    """The process that made the attempt."""
    applied: bool = True
    """False: the key was there before, and nothing was done again."""


def apply(path: Path, entry: Entry) -> Entry:
    """Apply a key once, whoever else does so just now; on disk before this returns.

    Each attempt leaves a line. What is returned is that line.
    """
    with path.open("a+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        data = file.read()
        entries = whole(data)
        file.truncate(data.rfind(b"\n") + 1)  # a line that a kill cut off was never answered
        if any(one.key == entry.key for one in entries):
            entry = msgspec.structs.replace(entry, applied=False)
        file.write(msgspec.json.encode(entry) + b"\n")
        file.flush()
        os.fsync(file.fileno())
    return entry


def read_ledger(path: Path) -> list[Entry]:
    """The attempts that a ledger holds; empty where the file does not exist."""
    return whole(path.read_bytes()) if path.exists() else []


def whole(data: bytes) -> list[Entry]:
    """The lines that are whole."""
    lines = data[: data.rfind(b"\n") + 1].splitlines()
    return [msgspec.json.decode(line, type=Entry) for line in lines]
