"""hangs.py URL: an instance whose step hangs in its transaction until SIGCONT."""

import signal
import sys
import threading
from typing import Any

import trio

from runtara_trio import LeaseLost, open_runtara

go = threading.Event()
signal.signal(signal.SIGCONT, lambda *_: go.set())


def insert(connection: Any) -> None:
    connection.execute("INSERT INTO mine VALUES ('late')")
    print("hangs", flush=True)
    go.wait()


async def main() -> None:
    try:
        async with open_runtara(sys.argv[1], instance_id="i", tenant_id="t") as sdk:
            await sdk.transact(insert, id="step")
    except LeaseLost:
        print("ended lost", flush=True)


trio.run(main)
