"""acknowledge.py URL: four tasks save numbered checkpoints and say what was acknowledged."""

import sys

import trio

from runtara_trio import RuntaraSdk, open_runtara


def state(name: str, number: int) -> bytes:
    return f"{name}/{number}:".encode() * (1 + number % 50)


async def save(sdk: RuntaraSdk, name: str) -> None:
    number = 0
    while True:
        result = await sdk.checkpoint(f"{name}/{number}", state(name, number))
        if result.found and result.state != state(name, number):
            print("wrong", name, number, result.state, flush=True)
        if not result.found:
            print("saved", f"{name}/{number}", flush=True)
        number += 1


async def main() -> None:
    async with open_runtara(sys.argv[1], instance_id="i", tenant_id="t") as sdk:
        print("running", flush=True)
        async with trio.open_nursery() as nursery:
            for name in "abcd":
                nursery.start_soon(save, sdk, name)


trio.run(main)
