"""A worker in a thread, for tests of programs that do not run on Trio."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

import trio

from runtara_trio import open_worker


@contextmanager
def working(url: str, *workflows: Any) -> Iterator[None]:
    """A worker of a store until the end of the block."""
    scope = trio.CancelScope()
    opened: Future[trio.lowlevel.TrioToken] = Future()

    async def work() -> None:
        with scope:
            async with open_worker(url, workflows):
                opened.set_result(trio.lowlevel.current_trio_token())
                await trio.sleep_forever()

    thread = threading.Thread(target=trio.run, args=(work,), daemon=True)
    thread.start()
    token = opened.result(timeout=30)
    try:
        yield
    finally:
        token.run_sync_soon(scope.cancel)
        thread.join(timeout=30)
        assert not thread.is_alive()


def threads_of(name: str) -> list[threading.Thread]:
    """The threads whose names hold this."""
    return [one for one in threading.enumerate() if name in one.name]


class Forever:
    """A call that never ends by itself, and says what becomes of it."""

    def __init__(self) -> None:
        self.began = threading.Event()
        self.cancelled = threading.Event()

    async def __call__(self) -> None:
        self.began.set()
        try:
            await trio.sleep_forever()
        finally:
            self.cancelled.set()


def waits_for_a_future(thread: threading.Thread) -> bool:
    """Whether a thread is inside ``Future.result``."""
    frame = None if thread.ident is None else sys._current_frames().get(thread.ident)
    while frame is not None:
        if frame.f_code is Future.result.__code__:
            return True
        frame = frame.f_back
    return False
