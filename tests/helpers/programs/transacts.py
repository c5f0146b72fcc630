"""transacts.py URL COUNT: an instance whose steps write to a table of their own."""

import sqlite3
import sys
from typing import Any

import trio

from runtara_trio import durable, open_runtara

url, count = sys.argv[1], int(sys.argv[2])
ran: set[int] = set()


def count_up(connection: Any, number: int) -> int:
    mark = "?" if isinstance(connection, sqlite3.Connection) else "%s"
    connection.execute("CREATE TABLE IF NOT EXISTS mine (number BIGINT)")
    ran.add(number)
    print("inside", flush=True)
    connection.execute(f"INSERT INTO mine VALUES ({mark})", (number,))
    (rows,) = connection.execute("SELECT count(*) FROM mine").fetchone()
    print("written", flush=True)
    return int(rows)


@durable
async def other(number: int) -> int:
    return number


async def main() -> None:
    async with open_runtara(url, instance_id="counts", tenant_id="t") as sdk:
        for number in range(count):
            rows = await sdk.transact(count_up, number)
            assert rows == number + 1, (rows, number)
            if number in ran:  # in this process
                print("saved", flush=True)
            await other(number)
    print("done", flush=True)


trio.run(main)
