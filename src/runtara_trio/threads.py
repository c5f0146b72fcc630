"""Our own calls in threads, which do not wait for the program's.

Trio lets 40 threads of one limiter run at once, and a program may have them all busy. To
connect, to go on after an outage and to end must not wait for those.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any, TypeVar

import trio

T = TypeVar("T")

MOST = 32
"""Of our threads at once, of one run."""

_limiter: trio.lowlevel.RunVar[trio.CapacityLimiter] = trio.lowlevel.RunVar("runtara_trio_threads")


async def in_thread(function: Callable[..., T], *args: Any, abandon_on_cancel: bool = False) -> T:
    """What a function returns, run in a thread of ours."""
    try:
        limiter = _limiter.get()
    except LookupError:
        limiter = trio.CapacityLimiter(MOST)
        _limiter.set(limiter)
    return await trio.to_thread.run_sync(
        function, *args, abandon_on_cancel=abandon_on_cancel, limiter=limiter
    )


async def addresses(host: str, port: int, kind: socket.SocketKind) -> list[tuple[int, Any]]:
    """The families and addresses of a host, by the program's resolver if it has one.

    Raises:
      OSError: the host has no address.
    """
    resolver = trio.socket.set_custom_hostname_resolver(None)
    trio.socket.set_custom_hostname_resolver(resolver)
    if resolver is not None:
        found: Any = await trio.socket.getaddrinfo(host, port, type=kind)
    else:
        try:  # an address needs no thread
            found = _getaddrinfo(host, port, kind, socket.AI_NUMERICHOST)
        except socket.gaierror:
            found = await in_thread(_getaddrinfo, host, port, kind, abandon_on_cancel=True)
    return list(dict.fromkeys((family, address) for family, _, _, _, address in found))


def _getaddrinfo(host: str, port: int, kind: socket.SocketKind, flags: int = 0) -> Any:
    return socket.getaddrinfo(host, port, type=kind, flags=flags)
