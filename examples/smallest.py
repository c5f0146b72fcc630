"""The smallest durable program. Run it, kill it, run it again.

python examples/smallest.py
"""

import trio

from runtara_trio import InstanceFinished, open_runtara


async def main() -> None:
    async with open_runtara("sqlite:///smallest.db", instance_id="count", tenant_id="me") as sdk:
        for number in range(1, 11):
            saved = await sdk.checkpoint(f"number/{number}", number)
            print("found" if saved.found else "saved", number, flush=True)
            if not saved.found:
                await trio.sleep(0.5)  # here is the work
    print(sdk.outcome)


try:
    trio.run(main)
except InstanceFinished:
    print("it has counted to ten; remove smallest.db to count again")
