"""power.py URL SYNCHRONOUS: two tasks save checkpoints and say so; the log is short, so that
its pages go to the database file again and again."""

import os
import sys

import trio

from runtara_trio import RuntaraSdk, open_backend, open_runtara

from ..support import sqlite_of

url, synchronous = sys.argv[1:3]


def state(name: str, number: int) -> bytes:
    return f"{name}/{number}:".encode() * (1 + 97 * number % 1500)


def say(text: str) -> None:
    """In one write, so that a record of the system calls shows when it was said."""
    os.write(1, text.encode() + b"\n")


async def save(sdk: RuntaraSdk, name: str) -> None:
    for number in range(25):
        await sdk.checkpoint(f"{name}/{number}", state(name, number))
        say(f"saved {name}/{number}")


async def main() -> None:
    async with open_backend(url) as backend:
        async with open_runtara(backend, instance_id="i", tenant_id="t") as sdk:
            say("registered")
            db = sqlite_of(backend)
            db.execute(f"PRAGMA synchronous = {synchronous}")
            db.execute("PRAGMA wal_autocheckpoint = 40")
            async with trio.open_nursery() as nursery:
                for name in "ab":
                    nursery.start_soon(save, sdk, name)
        say("completed")


trio.run(main)
