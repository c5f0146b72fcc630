"""Parallel durable work: nurseries and maps whose tasks have paths of their own."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from typing import Any, Generic, TypeVar

import trio

from ..engine.block import Block
from ..errors import ConfigError, SdkError
from .paths import Path, below, check_name

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


class DurableNursery:
    """A nursery that gives each child a path; :meth:`RuntaraSdk.open_nursery` opens it."""

    def __init__(self, block: Block, nursery: trio.Nursery, path: Path) -> None:
        self._block = block
        self._nursery = nursery
        self._path = path

    @property
    def cancel_scope(self) -> trio.CancelScope:
        """The scope around all children."""
        return self._nursery.cancel_scope

    def start_soon(
        self, function: Callable[..., Awaitable[Any]], *args: Any, name: str | None = None
    ) -> None:
        """Start ``function(*args)`` as a child task.

        Args:
          name: its part of the path. None: by the order of calls, which the task that
            opened the nursery fixes; from any other task a name is required.

        Raises:
          SdkError: a sibling has the name; or no name is given and the order is not fixed.
        """
        path = self._child(name)
        self._nursery.start_soon(self._run, path, function, args, name=function)

    async def start(
        self, function: Callable[..., Awaitable[Any]], *args: Any, name: str | None = None
    ) -> Any:
        """Start a child and wait for its ``task_status.started(value)``; returns the value."""
        path = self._child(name)

        async def run(*, task_status: trio.TaskStatus[Any]) -> None:
            with below(path.mine()):
                await function(*args, task_status=task_status)

        return await self._nursery.start(run, name=function)

    def _child(self, name: str | None) -> Path:
        if name is None:
            return self._path.child(self._path.next_name("task", "start_soon"))
        return self._path.child(check_name(name))

    async def _run(
        self, path: Path, function: Callable[..., Awaitable[Any]], args: tuple[Any, ...]
    ) -> None:
        with below(path.mine()):
            await function(*args)


@asynccontextmanager
async def open_nursery(
    block: Block, parent: Path, name: str | None
) -> AsyncIterator[DurableNursery]:
    """A nursery at a path below ``parent``."""
    own = parent.next_name("nursery", "open_nursery") if name is None else check_name(name)
    path = parent.begin(own)
    try:
        with below(path):
            async with trio.open_nursery() as nursery:
                yield DurableNursery(block, nursery, path)
    finally:
        parent.end(own)


class Results(Generic[ResultT]):
    """The results of a map, as they come. Iterate over it once."""

    def __init__(
        self,
        block: Block,
        nursery: trio.Nursery,
        channel: trio.MemoryReceiveChannel[ResultT],
        room: trio.Semaphore,
    ) -> None:
        self._block = block
        self._nursery = nursery
        self._channel = channel
        self._room = room

    def __aiter__(self) -> Results[ResultT]:
        return self

    async def __anext__(self) -> ResultT:
        try:
            with self._block.boundary.collecting():
                result = await self._next()
        except trio.EndOfChannel:
            raise StopAsyncIteration from None
        self._room.release()
        return result

    async def _next(self) -> ResultT:
        """The next result. In a cancelled scope, those that are there or still come: a call
        whose result is saved hands it out, and so must its map."""
        with suppress(trio.WouldBlock):
            return self._channel.receive_nowait()
        try:
            return await self._channel.receive()
        except trio.Cancelled:
            with trio.CancelScope(shield=True):
                if not await self._calls_are_cancelled():
                    raise
                try:
                    return await self._channel.receive()
                except trio.EndOfChannel:
                    pass
            raise

    async def _calls_are_cancelled(self) -> bool:
        """Whether the calls end as well, and not only the one who takes their results."""
        cancelled = trio.Event()
        asked = trio.Event()

        async def ask() -> None:
            try:
                await trio.lowlevel.checkpoint()
            except trio.Cancelled:
                cancelled.set()
                raise
            finally:
                asked.set()

        self._nursery.start_soon(ask)
        await asked.wait()
        return cancelled.is_set()


@asynccontextmanager
async def map_items(
    block: Block,
    parent: Path,
    function: Callable[[ItemT], Awaitable[ResultT]],
    items: Iterable[ItemT],
    *,
    limit: int,
    key: Callable[[ItemT], str] | None,
    name: str | None,
) -> AsyncIterator[Results[ResultT]]:
    """Call ``function`` with each item, at most ``limit`` at once."""
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
        raise ConfigError(f"limit must be a whole number from 1, not {limit!r}")
    if key is not None and not callable(key):
        raise ConfigError(f"key of a map must be a callable of an item, not {key!r}")
    listed = list(items)
    own = parent.next_name("map", "map") if name is None else check_name(name)
    names = [f"item:{number}" for number in range(len(listed))]
    if key is not None:
        names = [check_name(key(item), "key of a map's item") for item in listed]
        _check_different(names, listed)
    path = parent.begin(own)
    todo = iter(zip(names, listed, strict=True))
    try:
        with below(path):
            async with trio.open_nursery() as nursery:
                send, receive = trio.open_memory_channel[ResultT](math.inf)
                room = trio.Semaphore(2 * limit)  # as many results wait as calls run

                async def work(mine: trio.MemorySendChannel[ResultT]) -> None:
                    with mine:  # an await here would let the end overtake an error
                        for part, item in todo:
                            with below(path.child(part)):
                                mine.send_nowait(await function(item))
                            with block.boundary.collecting():
                                await room.acquire()

                async with send, receive:
                    for _ in range(min(limit, len(listed))):
                        room.acquire_nowait()
                        nursery.start_soon(work, send.clone(), name=function)
                    await send.aclose()
                    yield Results(block, nursery, receive, room)
                    nursery.cancel_scope.cancel()
    finally:
        parent.end(own)


def _check_different(names: list[str], items: list[Any]) -> None:
    seen: dict[str, Any] = {}
    for name, item in zip(names, items, strict=True):
        if name in seen:
            raise SdkError(
                f"two items of a map have the key {name!r}: {seen[name]!r} and {item!r}; "
                "give a key= that tells them apart"
            )
        seen[name] = item
