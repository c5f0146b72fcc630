"""limits.py URL COUNT: transactions that their limit ends, in the middle of what they do."""

import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Iterator

import trio

from runtara_trio import open_runtara

url, count = sys.argv[1], int(sys.argv[2])
ROWS = "SELECT a.number FROM mine a, mine b, mine c"


def begun(connection: sqlite3.Connection) -> sqlite3.Connection:
    connection.execute("CREATE TABLE IF NOT EXISTS mine (number INTEGER)")
    connection.execute("INSERT INTO mine VALUES (1), (2), (3)")
    return connection


def writes(connection: sqlite3.Connection) -> None:
    begun(connection)
    while True:
        connection.execute("INSERT INTO mine VALUES (1)")


def reads(connection: sqlite3.Connection) -> None:
    half_read = begun(connection).execute(ROWS)
    next(half_read)
    while True:
        connection.execute(ROWS).fetchone()
        for _ in connection.cursor().execute(ROWS):
            pass


def waits(connection: sqlite3.Connection) -> None:
    half_read = begun(connection).execute(ROWS)
    next(half_read)
    over.wait()
    next(half_read)


def feeds(connection: sqlite3.Connection) -> None:
    """Most of the time no statement runs that could be interrupted."""

    def rows() -> Iterator[tuple[int]]:
        while True:
            time.sleep(0.001)
            yield (1,)

    begun(connection).executemany("INSERT INTO mine VALUES (?)", rows())


def own_cursors(connection: sqlite3.Connection) -> None:
    begun(connection).set_progress_handler(lambda: 0, 1)
    held = []
    while True:
        cursor = connection.cursor(type("Own", (sqlite3.Cursor,), {}))
        held.append(cursor.execute(ROWS))
        cursor.fetchone()


functions: tuple[Callable[[sqlite3.Connection], None], ...] = (
    *(writes, reads, waits),
    *(feeds, own_cursors),
)


async def main() -> None:
    global over
    async with open_runtara(url, instance_id="i", tenant_id="t") as sdk:
        for number in range(count):
            over = threading.Event()
            try:
                await sdk.transact(functions[number % len(functions)], id=f"{number}", limit=0.002)
            except trio.TooSlowError:
                await sdk.checkpoint(f"{number} is over", None)  # the file is free
            over.set()
    print("all were undone", flush=True)


over = threading.Event()
trio.run(main)
