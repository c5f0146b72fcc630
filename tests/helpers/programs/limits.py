"""limits.py URL COUNT: so many transactions that their limit ends in the middle of a statement."""

import sqlite3
import sys

import trio

from runtara_trio import open_runtara

url, count = sys.argv[1], int(sys.argv[2])


def hangs(connection: sqlite3.Connection) -> None:
    connection.execute("CREATE TABLE IF NOT EXISTS mine (number INTEGER)")
    while True:
        connection.execute("INSERT INTO mine VALUES (1)")


async def main() -> None:
    async with open_runtara(url, instance_id="i", tenant_id="t") as sdk:
        for number in range(count):
            try:
                await sdk.transact(hangs, id=f"{number}", limit=0.002)
            except trio.TooSlowError:
                continue
    print("all were undone", flush=True)


trio.run(main)
