"""durably.py URL ID MODE: durable calls that say what they do, to be killed."""

import sys

import trio

from runtara_trio import RuntaraSdk, durable, open_runtara

url, instance_id, mode = sys.argv[1:4]


@durable(delay=0.001)
async def flaky() -> None:
    print("attempt", flush=True)
    flaky_runs.append(1)
    if len(flaky_runs) == 3:
        print("third", flush=True)
        await trio.sleep_forever()
    raise OSError("as always")


@durable
async def use(payload: bytes) -> None:
    print("used", payload.decode(), flush=True)


@durable
async def part(number: int) -> int:
    print("part", number, flush=True)
    return number


async def run(sdk: RuntaraSdk) -> None:
    if mode == "flaky":
        await flaky()
    elif mode in ("signal", "take"):
        print("waits", flush=True)
        payload = await sdk.wait_for_signal("approve", timeout=3600)
        print("took", payload.decode(), flush=True)
        if mode == "take":
            await trio.sleep_forever()
        await use(payload)
    elif mode == "hold":
        for number in range(10**6):
            if (await sdk.checkpoint(f"n/{number}")).found:
                continue
            print("saved", number, flush=True)
    elif mode == "map":
        async with sdk.map(part, range(500), limit=20) as results:
            print("sum", sum([number async for number in results]), flush=True)


async def main() -> None:
    async with open_runtara(
        url,
        instance_id=instance_id,
        tenant_id="t",
        on_pause="hold" if mode == "hold" else "suspend",
    ) as sdk:
        print("running", flush=True)
        await run(sdk)
    print("outcome", sdk.outcome, flush=True)


flaky_runs: list[int] = []
trio.run(main)
