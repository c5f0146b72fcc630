"""The smallest durable program. Run it, kill it, run it again.

python examples/smallest.py
"""

import trio

from runtara_trio import InstanceFinished, RuntaraSdk, open_runtara


async def count(sdk: RuntaraSdk) -> None:
    for number in range(1, 11):
        saved = await sdk.checkpoint(f"number/{number}", number)
        print("found" if saved.found else "saved", number, flush=True)
        if not saved.found:
            await trio.sleep(0.5)  # here is the work


async def main() -> None:
    async with open_runtara("sqlite:///smallest.db", instance_id="count", tenant_id="me") as sdk:
        await count(sdk)
    print(sdk.outcome)


if __name__ == "__main__":
    try:
        trio.run(main)
    except InstanceFinished:
        print("it has counted to ten; remove smallest.db to count again")
