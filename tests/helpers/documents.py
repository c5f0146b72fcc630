"""The code blocks of a page, and a shell to run them in.

``python`` blocks are programs: with a caption they are saved under that name, without one
they are run as they stand. ``console`` blocks are typed into one bash session a page, a
``$`` line at a time; the lines below a command are what it prints, where ``…`` stands for
anything in a line, and a line of its own for any lines. Other languages are looked at by
tests of their own.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec

from .places import free_port

BLOCK = re.compile(
    r"^(?P<fence>```+)(?:\{code-block\} )?(?P<language>[a-z]+)\n"
    r"(?::caption: (?P<name>\S+)\n+)?(?P<code>.*?)^(?P=fence)$",
    re.DOTALL | re.MULTILINE,
)


class Block(msgspec.Struct, frozen=True):
    """A block of code: where it begins, its language, its file name if it has one."""

    line: int
    language: str
    name: str | None
    code: str


def blocks(page: Path) -> Iterator[Block]:
    """The blocks of a Markdown page, in their order."""
    text = page.read_text()
    for found in BLOCK.finditer(text):
        line = text.count("\n", 0, found.start()) + 1
        yield Block(line, found["language"], found["name"], found["code"])


class Shell:
    """A bash session in a folder of its own."""

    END = "--end of output--"

    LONGEST = 120
    """Seconds for a command; then the session is ended, with all that it has started."""

    def __init__(self, folder: Path) -> None:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self._process = subprocess.Popen(
            ["bash", "--norc"],
            cwd=folder,
            env={**os.environ, "PATH": path, "PYTHONUNBUFFERED": "1", "TERM": "dumb"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, command: str) -> str:
        """What a command prints, on both its outputs."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{command}\necho; echo '{self.END}'\n")
        self._process.stdin.flush()
        lines = []
        too_late = threading.Timer(self.LONGEST, self._kill)
        too_late.start()
        for line in self._process.stdout:
            if line.rstrip("\n") == self.END:
                break
            lines.append(line)
        too_late.cancel()
        # What a terminal shows of a job that was killed; a script's bash says more.
        return re.sub(r"bash: line \d+: +\d+ (Killed|Terminated) .*", r"\1", "".join(lines))

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def close(self) -> None:
        """End the session, and what a page that failed has left running in it."""
        assert self._process.stdin is not None
        self._kill()
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait(timeout=30)
        assert self._process.stdout is not None
        self._process.stdout.close()


def commands(code: str) -> Iterator[tuple[str, str]]:
    """The commands of a ``console`` block, each with what it is said to print."""
    command, expected = "", []
    for line in code.splitlines():
        if line.startswith("$ "):
            if command:
                yield command, "\n".join(expected)
            command, expected = line[2:], []
        elif command.endswith("\\"):
            command = command[:-1] + line.strip()
        else:
            expected.append(line)
    if command:
        yield command, "\n".join(expected)


def matches(printed: str, expected: str) -> bool:
    """Whether it printed what the page says."""
    pattern = "\n".join(
        "(.*)" if line == "…" else r"[^\n]*".join(map(re.escape, line.rstrip().split("…")))
        for line in expected.strip().splitlines()
    )
    trimmed = "\n".join(line.rstrip() for line in printed.strip().splitlines())
    return re.fullmatch(pattern, trimmed, re.DOTALL) is not None


PORT = "8765"
"""The port in a page's commands; run, it is one that is free."""


def play(page: Path, folder: Path) -> None:
    """Run all blocks of a page, in their order. Raises AssertionError."""
    shell = Shell(folder)
    port = str(free_port())
    try:
        for number, printed_block in enumerate(blocks(page)):
            code = printed_block.code.replace(PORT, port)
            block = msgspec.structs.replace(printed_block, code=code)
            where = f"{page.name}, line {block.line}"
            if block.language == "python" and block.name is not None:
                (folder / block.name).write_text(block.code)
            elif block.language == "python":
                program = folder / f"block_{number}.py"
                program.write_text(block.code)
                done = subprocess.run(
                    [sys.executable, program],
                    cwd=folder,
                    capture_output=True,
                    text=True,
                    timeout=60,
                )
                assert done.returncode == 0, f"{where}:\n{done.stdout}{done.stderr}"
            elif block.language == "console":
                for command, expected in commands(block.code):
                    printed = shell.run(command)
                    assert matches(printed, expected), f"{where}: $ {command}\n{printed}"
    finally:
        shell.close()
