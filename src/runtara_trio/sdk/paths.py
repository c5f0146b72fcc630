"""Where in the tree of ids a task works.

Ids must be the same in every run, whatever order the tasks run in. ``sdk.scope`` and the
parallel calls put a path before the ids below them; a path is made of names, and where the
user gives none, of an order that the program itself fixes: that of the calls in the one
task that opened the path.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import trio

from ..engine.block import Block
from ..engine.counts import Counts
from ..errors import ConfigError, SdkError
from ..ids import check_text, escape, escape_slashes

_LONGEST_CALL = 256  # bytes of a call's id in a path


class Path:
    """One place in the tree, and the task that opened it."""

    __slots__ = (
        *("_block", "_call", "_counts", "_names", "_open", "_task"),
        *("numbers", "prefix", "within"),
    )

    def __init__(self, block: Block, prefix: str = "", call: str = "") -> None:
        self.numbers = block.counts
        """Of what may come in any task: the run's, and inside a durable call those of its try."""
        self.within = ""
        """The durable call that these are of, with a slash; empty: of none."""
        self.prefix = prefix
        """What stands before the ids here: empty, or ending in a slash."""
        self._call = call
        self._block = block
        self._task = _current_task()
        self._open: set[str] = set()
        self._names: set[str] = set()
        self._counts: dict[str, int] = {}

    def mine(self) -> Path:
        """The same, opened by the calling task."""
        self._task = _current_task()
        return self

    def inside(self, checkpoint_id: str) -> Path:
        """The same place inside a durable call: what is numbered there is the call's own.

        A call that is found in a replay does not open what it opened, and one that is tried
        again opens it again: the numbers of others must not change with that.
        """
        leaf = escape(checkpoint_id.removeprefix(self.prefix))
        if len(leaf.encode()) > _LONGEST_CALL:
            leaf = hashlib.sha256(leaf.encode()).hexdigest()
        path = Path(self._block, self.prefix, f"{leaf}/")
        path._open = self._open
        path.numbers, path.within = Counts(), f"{leaf}/"
        return path

    def _below(self, name: str) -> Path:
        path = Path(self._block, f"{self.prefix}{name}/")
        path.numbers, path.within = self.numbers, self.within
        return path

    def of(self, block: Block) -> bool:
        return self._block is block

    def begin(self, name: str) -> Path:
        """A child path, until :meth:`end`. The same name may come again after that: it is
        the same work."""
        if name in self._open:
            raise SdkError(
                f"{self.prefix + name!r} is open already: two tasks would write the same ids; "
                "give each a name of its own"
            )
        self._open.add(name)
        return self._below(name)

    def end(self, name: str) -> None:
        self._open.discard(name)

    def child(self, name: str) -> Path:
        """A child path whose name no other child has or had.

        Raises:
          SdkError: a sibling has it.
        """
        if name in self._names:
            raise SdkError(f"two siblings have the name {name!r}; give each one of its own")
        self._names.add(name)
        return self._below(name)

    def next_name(self, kind: str, what: str) -> str:
        """A name by the order of calls here: ``task:0``, ``task:1``.

        Raises:
          SdkError: from another task than the one that opened this place.
        """
        if self._task is None or _current_task() is not self._task:
            raise SdkError(
                f"{what} in another task than the one that opened "
                f"{self.prefix.rstrip('/') or 'the block'!r} needs name=...: "
                "the order of calls in several tasks is not the same in every run"
            )
        number = self._counts.get(kind, 0)
        self._counts[kind] = number + 1
        return f"{self._call}{kind}:{number}"


def _current_task() -> trio.lowlevel.Task | None:
    """The calling task; None: a worker thread."""
    return trio.lowlevel.current_task() if trio.lowlevel.in_trio_run() else None


_paths: ContextVar[tuple[Path, ...]] = ContextVar("runtara_trio_paths", default=())
"""Where the task works in each of the blocks around it."""


def current_path(block: Block, root: Path) -> Path:
    """The path of the calling task in a block, whose own is ``root``."""
    return next((path for path in reversed(_paths.get()) if path.of(block)), root)


@contextmanager
def below(path: Path) -> Iterator[None]:
    """Put the calling task at a path."""
    before = _paths.get()
    _paths.set((*before, path))
    try:
        yield
    finally:
        _paths.set(before)


@contextmanager
def scope(parent: Path, name: str) -> Iterator[None]:
    """Put the calling task at a child path of a name."""
    path = parent.begin(name)
    try:
        with below(path):
            yield
    finally:
        parent.end(name)


def check_name(name: object, called: str = "name") -> str:
    """A part of a path, escaped. Raises ConfigError."""
    text = check_text(called, name)
    if not text:
        raise ConfigError(f"{called} is empty; a path needs one")
    return escape(text)


def joined(path: Path, checkpoint_id: str) -> str:
    """An id at a path. There its own slashes are escaped, so that no two ids meet."""
    if not path.prefix:
        return checkpoint_id
    return path.prefix + escape_slashes(checkpoint_id)
