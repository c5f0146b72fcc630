"""A program whose server ends in the middle of its calls, and is started again."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import trio

from runtara_trio import Operator, open_backend

from .support import block, start_args


async def goes_on_over_a_restart(
    url: str, options: tuple[str, ...], end: signal.Signals, folder: Path
) -> None:
    """Real processes, a real socket, 64 calls at once: each is answered, and nothing is lost.

    Args:
      options: of ``serve``, which has the URL then.
      end: what ends the server.
    """
    store = f"sqlite:///{folder}/served.db"
    arguments = ("-m", "runtara_trio", "serve", "--store", store, *options)
    saved: list[str] = []
    enough = trio.Event()

    async def worker(sdk: Any, n: int) -> None:
        for k in range(10):
            result = await sdk.checkpoint(f"{n}/{k}", b"%d" % n)
            assert not result.found
            saved.append(f"{n}/{k}")
            if len(saved) > 100:
                enough.set()

    with trio.fail_after(120):
        async with open_backend(url) as backend:
            async with start_args(*arguments) as first:
                await first.line("serving")
                async with block(backend) as sdk:
                    async with trio.open_nursery() as nursery:
                        for n in range(64):
                            nursery.start_soon(worker, sdk, n)
                        await enough.wait()
                        first.send(end)
                        await first.process.wait()
                        async with start_args(*arguments) as second:
                            await second.line("serving")
                            while nursery.child_tasks:
                                await trio.sleep(0.01)
                            await sdk.completed(b"all")
    async with open_backend(store) as opened:
        details = await Operator(opened).show("i")
        assert details.output == b"all"
        assert details.checkpoints == len(set(saved)) == 640
