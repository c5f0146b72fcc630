"""over_quic.py URL FOLDER ID COUNT SECONDS: durable calls that say in a ledger what they do.

It ends with its outcome; a pause ends it as well.
"""

import itertools
import os
import sys
from pathlib import Path

import trio

from runtara_trio import durable, open_runtara
from runtara_trio.errors import SdkError

url, folder, instance_id = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
count, seconds = int(sys.argv[4]), float(sys.argv[5])
ledger = os.open(folder / "ledger", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
numbers = itertools.count()


def note(what: str, step: int, token: str) -> str:
    os.write(ledger, f"{what} {instance_id} {step} {token} {os.getpid()}\n".encode())
    return token


@durable
async def step(number: int) -> str:
    token = note("begin", number, f"{os.getpid()}/{next(numbers)}")
    await trio.sleep(seconds)
    return token


async def main() -> None:
    sdk = None
    try:
        async with open_runtara(url, instance_id=instance_id, tenant_id="t") as sdk:
            print("running", flush=True)
            for number in range(count):
                note("saved", number, await step(number))
    except SdkError as exc:
        print("error", type(exc).__name__, exc, flush=True)
    print("outcome", sdk and sdk.outcome, flush=True)


trio.run(main)
