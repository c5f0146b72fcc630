"""Maps: one function for many items, each call with a path of its own."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from typing import Any, Generic, TypeVar

import trio

from ..engine.block import Block
from ..engine.outcome import is_trouble
from ..errors import ConfigError, LeaseLost, SdkError
from .paths import Path, below, check_name

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


class Results(Generic[ResultT]):
    """The results of a map, as they come. Iterate over it once."""

    def __init__(
        self,
        block: Block,
        nursery: trio.Nursery,
        channel: trio.MemoryReceiveChannel[tuple[int, ResultT]],
        room: trio.Semaphore,
        *,
        ordered: bool,
    ) -> None:
        self._block = block
        self._nursery = nursery
        self._channel = channel
        self._room = room
        self._early: dict[int, ResultT] | None = {} if ordered else None
        self._next_number = 0

    def __aiter__(self) -> Results[ResultT]:
        return self

    async def __anext__(self) -> ResultT:
        try:
            with self._block.boundary.collecting():
                result = await self._in_order()
        except trio.EndOfChannel:
            raise StopAsyncIteration from None
        self._room.release()
        return result

    async def _in_order(self) -> ResultT:
        """The next result, in the order of the items if that is wanted."""
        if self._early is None:
            return (await self._next())[1]
        while self._next_number not in self._early:
            number, result = await self._next()
            self._early[number] = result
        self._next_number += 1
        return self._early.pop(self._next_number - 1)

    async def _next(self) -> tuple[int, ResultT]:
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
    on_error: str,
    ordered: bool,
) -> AsyncIterator[Results[Any]]:
    """Call ``function`` with each item, at most ``limit`` at once."""
    if on_error not in ("cancel", "collect"):
        raise ConfigError(f"on_error must be 'cancel' or 'collect', not {on_error!r}")
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
    todo = iter(enumerate(zip(names, listed, strict=True)))
    try:
        with below(path):
            async with trio.open_nursery() as nursery:
                send, receive = trio.open_memory_channel[tuple[int, Any]](math.inf)
                room = trio.Semaphore(2 * limit)  # as many results wait as calls run

                async def work(mine: trio.MemorySendChannel[tuple[int, Any]]) -> None:
                    with mine:  # an await here would let the end overtake an error
                        for number, (part, item) in todo:
                            with below(path.child(part)):
                                mine.send_nowait((number, await call(item)))
                            with block.boundary.collecting():
                                await room.acquire()

                async def call(item: ItemT) -> Any:
                    try:
                        return await function(item)
                    except LeaseLost:
                        raise
                    except Exception as exc:
                        if on_error == "cancel" or is_trouble(exc):  # of the store: the run is
                            raise  # suspended, and the call made again
                        return exc

                async with send, receive:
                    for _ in range(min(limit, len(listed))):
                        room.acquire_nowait()
                        nursery.start_soon(work, send.clone(), name=function)
                    await send.aclose()
                    yield Results(block, nursery, receive, room, ordered=ordered)
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
