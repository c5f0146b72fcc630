"""Context managers in whose own code no Ctrl-C lands.

Trio raises KeyboardInterrupt in whatever unprotected code runs. A generator can be
protected, but the frames of ``contextlib`` around it cannot, and an interrupt there would
leave a nursery or a block for ever half closed. So both stand behind methods of ours that
are protected. The body between them is not: there an interrupt is the user's.
"""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import TracebackType
from typing import ParamSpec, TypeVar

import trio

P = ParamSpec("P")
T = TypeVar("T")


class _Protected(AbstractAsyncContextManager[T]):
    """A context manager around another one."""

    def __init__(self, manager: AbstractAsyncContextManager[T]) -> None:
        self._manager = manager

    @trio.lowlevel.enable_ki_protection
    async def __aenter__(self) -> T:
        return await self._manager.__aenter__()

    @trio.lowlevel.enable_ki_protection
    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        return await self._manager.__aexit__(kind, value, trace)


def protected_manager(
    function: Callable[P, AsyncIterator[T]],
) -> Callable[P, AbstractAsyncContextManager[T]]:
    """Like ``asynccontextmanager``, protected from Ctrl-C at both ends."""
    manager = asynccontextmanager(function)

    @functools.wraps(function)
    def make(*args: P.args, **kwargs: P.kwargs) -> AbstractAsyncContextManager[T]:
        return _Protected(manager(*args, **kwargs))

    return make
