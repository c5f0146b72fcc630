"""A program as the image of a runtara-environment: everything about it comes from outside."""

import sys

import msgspec
import trio

from runtara_trio import SdkConfig, open_runtara


class Order(msgspec.Struct):
    steps: int
    sleep: float = 0
    wait: bool = False


async def main() -> None:
    async with open_runtara(SdkConfig.from_env(), on_sleep="exit") as sdk:
        order = await sdk.input(Order)
        for number in range(order.steps):
            await sdk.checkpoint(f"step-{number}", number)
        await sdk.sleep(order.sleep, "nap")
        if order.wait:
            await sdk.wait_for_signal("go")
        await sdk.completed({"steps": order.steps})
    print(sdk.outcome, file=sys.stderr)


trio.run(main)
