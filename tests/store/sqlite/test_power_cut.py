"""A power cut at any moment: what was acknowledged is on the disk that is left.

The system calls of a real program are recorded (strace), with all that it wrote. They are
then replayed up to each moment at which the power may go. What a file has been given since
its last fsync, the disk may hold or not, in any order between files, the last write torn;
the same goes for names, since the last fsync of their folder. Each disk that may be left is
opened, and must hold every checkpoint that the program had been told of before that moment,
and none that is not whole.
"""

from __future__ import annotations

import hashlib
import random
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import msgspec
import pytest
import trio

from runtara_trio import open_runtara

from ...helpers.support import PROGRAMS

SECTOR = 512


class Call(msgspec.Struct, frozen=True):
    """A system call that has returned."""

    name: str
    path: str
    data: bytes = b""
    offset: int = 0


# ---- recording


def record(folder: Path, synchronous: str) -> list[Call]:
    """The calls of ``helpers/programs/power.py`` that touch the disk or say something."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    trace = folder / "trace"
    calls = "openat,pwrite64,write,ftruncate,fsync,fdatasync,unlink"
    subprocess.run(
        [
            *("strace", "-f", "-y", "-xx", "-s", "1000000", "-e", f"trace={calls}", "-o", trace),
            *(sys.executable, "-m", "tests.helpers.programs.power"),
            *(f"sqlite:///{folder}/disk/s.db", synchronous),
        ],
        check=True,
        cwd=PROGRAMS.parents[2],
        stdout=subprocess.PIPE,
        timeout=60,
    )
    return list(parse(trace.read_text(), str(folder / "disk")))


def parse(trace: str, folder: str) -> Iterator[Call]:
    """The calls on files of ``folder``, on itself, and on standard output, as they returned."""
    begun: dict[str, str] = {}
    for line in trace.splitlines():
        thread, _, rest = line.partition(" ")
        rest = rest.strip()
        if rest.endswith("<unfinished ...>"):
            begun[thread] = rest.removesuffix("<unfinished ...>").rstrip()
            continue
        if rest.startswith("<... "):
            rest = begun.pop(thread) + rest.partition("resumed>")[2]
        found = re.fullmatch(r"(\w+)\((.*)\)\s+= (-?\d+).*", rest)
        if found is None or int(found[3]) < 0:
            continue
        name, arguments = found[1], found[2]
        number, texts = arguments.partition("<")[0], [*map(unhex, re.findall(HEX, arguments))]
        if name == "write" and number == "1":
            if texts[1].startswith((b"registered", b"saved", b"completed")):
                yield Call("say", "", texts[1])
        elif name == "openat" and "O_CREAT" in arguments:
            path = texts[1].decode()
            if path.startswith(folder):
                yield Call("create", path)
        elif texts and (path := texts[0].decode()).startswith(folder):
            tail = arguments.rpartition(", ")[2]
            if name == "pwrite64":
                yield Call("write", path, texts[1], int(tail))
            elif name == "ftruncate":
                yield Call("truncate", path, offset=int(tail))
            elif name in ("fsync", "fdatasync"):
                yield Call("sync", path)
            elif name == "unlink":
                yield Call("unlink", path)


HEX = r"""[<"]((?:\\x[0-9a-f]{2})*)[>"]"""


def unhex(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", ""))


# ---- replaying


class File:
    """An inode: what is on the disk for certain, and what may be."""

    def __init__(self) -> None:
        self.safe = bytearray()
        self.pending: list[Call] = []

    def sync(self) -> None:
        for call in self.pending:
            apply(self.safe, call)
        self.pending.clear()

    def left(self, kept: list[bool], torn: bool = False) -> bytes:
        """The content, if of what is pending these writes had reached the disk."""
        content = bytearray(self.safe)
        chosen = [call for call, keep in zip(self.pending, kept, strict=True) if keep]
        for call in chosen:
            half = len(call.data) // 2 // SECTOR * SECTOR
            if torn and call is chosen[-1] and call.name == "write":
                apply(content, msgspec.structs.replace(call, data=call.data[:half]))
            else:
                apply(content, call)
        return bytes(content)


def only(one: File, file: File) -> bytes:
    """The content, if all writes of this file and of no other had reached the disk."""
    return file.left([file is one] * len(file.pending))


def apply(content: bytearray, call: Call) -> None:
    if call.name == "truncate":
        del content[call.offset :]
        content.extend(bytes(call.offset - len(content)))
    else:
        content.extend(bytes(max(0, call.offset - len(content))))
        content[call.offset : call.offset + len(call.data)] = call.data


class Disk:
    """The files of a folder, while a program works on them."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._names: dict[str, File] = {}
        self._safe_names: dict[str, File] = {}

    def take(self, call: Call) -> None:
        if call.name == "create":
            self._names.setdefault(call.path, File())
        elif call.name == "unlink":
            del self._names[call.path]
        elif call.name == "sync" and call.path == self._folder:
            self._safe_names = dict(self._names)
        elif call.name == "sync":
            self._names[call.path].sync()
        else:
            self._names[call.path].pending.append(call)

    def left(self, draw: random.Random) -> Iterator[dict[str, bytes]]:
        """What may be found after a power cut now: names and contents."""
        for names in (self._names, self._safe_names):
            yield self._with(names, lambda file: file.left([True] * len(file.pending)))
            yield self._with(names, lambda file: file.left([False] * len(file.pending)))
        yield self._with(self._names, lambda file: file.left([True] * len(file.pending), torn=True))
        waiting = [file for file in self._names.values() if file.pending]
        if len(waiting) > 1:
            for one in waiting:
                yield self._with(self._names, partial(only, one))
        for _ in range(2):
            yield self._with(
                self._names,
                lambda file: file.left([draw.random() < 0.5 for _ in file.pending], torn=True),
            )

    def _with(self, names: dict[str, File], content: Callable[[File], bytes]) -> dict[str, bytes]:
        left = {Path(path).name: content(file) for path, file in names.items()}
        left.pop("s.db-shm", None)  # made anew at a start
        # A reboot kills every owner; here, where there is none, its side file tells.
        owners = [Path(path).name for path in self._names if "-owner-" in path]
        return {**left, **dict.fromkeys(owners, b"")}


# ---- looking at what is left


def state(name: str, number: int) -> bytes:
    """What ``helpers/programs/power.py`` saves."""
    return f"{name}/{number}:".encode() * (1 + 97 * number % 1500)


def problem(folder: Path, said: set[str]) -> str | None:
    """What is wrong with the disk that is left, for a program that has said this much."""
    if not (folder / "s.db").exists():
        return "the file is gone" if said else None
    db = sqlite3.connect(folder / "s.db")
    try:
        if db.execute("PRAGMA integrity_check").fetchone() != ("ok",):
            return "the file is damaged"
        tables = db.execute("SELECT name FROM sqlite_master WHERE name = 'instances'").fetchall()
        if not tables:
            return "the tables are gone" if said else None
        statuses = db.execute("SELECT status FROM instances").fetchall()
        found = dict(db.execute("SELECT checkpoint_id, state FROM checkpoints").fetchall())
    except sqlite3.DatabaseError as exc:
        return f"the file cannot be read: {exc}"
    finally:
        db.close()
    if "registered" in said and not statuses:
        return "the instance is gone"
    if "completed" in said and statuses != [("completed",)]:
        return f"the outcome is gone: {statuses}"
    lost = {word.split()[1] for word in said if word.startswith("saved")} - set(found)
    if lost:
        return f"lost: {sorted(lost)}"
    for name in "ab":
        numbers = sorted(int(one.split("/")[1]) for one in found if one.startswith(name))
        if numbers != list(range(len(numbers))):
            return f"gaps in {name}: {numbers}"
    for checkpoint_id, stored in found.items():
        name, number = checkpoint_id.split("/")
        if stored != state(name, int(number)):
            return f"{checkpoint_id} is not whole"
    return None


def go_on(folder: Path) -> None:
    """The program is started again on what is left."""

    async def main() -> None:
        async with open_runtara(
            f"sqlite:///{folder}/s.db", instance_id="i", tenant_id="t", revive=True
        ) as sdk:
            first = await sdk.checkpoint("a/0", state("a", 0))
            assert first.state in (b"", state("a", 0))

    trio.run(main)


def cut_everywhere(
    calls: list[Call], disk_folder: Path, folder: Path, *, starts: bool
) -> tuple[int, list[str]]:
    """Cut the power after each call. How many disks were looked at, and the problems."""
    disk = Disk(str(disk_folder))
    draw = random.Random(4)
    said: set[str] = set()
    seen: set[bytes] = set()
    problems = []
    for call in calls:
        if call.name == "say":
            said |= set(call.data.decode().splitlines())
        else:
            disk.take(call)
        for left in disk.left(draw):
            digest = hashlib.blake2b(repr(len(said)).encode())
            for name, content in sorted(left.items()):
                digest.update(name.encode() + len(content).to_bytes(8, "big") + content)
            if digest.digest() in seen:
                continue
            seen.add(digest.digest())
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            for name, content in left.items():
                (folder / name).write_bytes(content)
            found = problem(folder, said)
            if found is not None:
                problems.append(f"after {len(said)} lines: {found}")
            elif starts and len(seen) % 100 == 0:
                go_on(folder)
    return len(seen), problems


def test_every_acknowledged_checkpoint_is_there(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    calls = record(tmp_path, "FULL")
    disks, problems = cut_everywhere(calls, tmp_path / "disk", tmp_path / "left", starts=True)
    assert not problems
    assert disks > 1000
    assert sum(call.name == "say" for call in calls) == 52
    # The log was emptied into the file many times: those moments were among them.
    assert sum(call.name == "sync" and call.path.endswith("s.db") for call in calls) > 5


def test_the_replay_finds_what_is_lost(tmp_path: Path) -> None:
    """Where the program does not wait for the disk, a power cut loses checkpoints."""
    (tmp_path / "disk").mkdir()
    calls = record(tmp_path, "OFF")
    _, problems = cut_everywhere(calls, tmp_path / "disk", tmp_path / "left", starts=False)
    assert any("lost" in found for found in problems)
