"""A sleep that outlives the process: killed and started again, only the rest is slept.

python examples/durable_sleep.py 30
"""

import sys
import time

import trio

from runtara_trio import InstanceFinished, RuntaraSdk, open_runtara


async def make_tea(sdk: RuntaraSdk, seconds: float) -> None:
    poured = (await sdk.checkpoint("poured", time.time())).decode(float)
    print(f"poured {time.time() - poured:.0f} s ago", flush=True)
    await sdk.sleep(seconds, "drawing")
    print(f"ready, {time.time() - poured:.1f} s after it was poured", flush=True)


async def main(seconds: float) -> None:
    async with open_runtara("sqlite:///tea.db", instance_id="tea", tenant_id="me") as sdk:
        await make_tea(sdk, seconds)


if __name__ == "__main__":
    try:
        trio.run(main, float(sys.argv[1]) if len(sys.argv) > 1 else 30.0)
    except InstanceFinished:
        print("you have had your tea; remove tea.db for another one")
