"""The program that the files of this folder deploy. Put yours in its place."""

from runtara_trio import RuntaraSdk, durable, workflow


@durable(summary="charge {cents} cents")
async def charge(cents: int) -> str:
    return f"{cents} cents charged"


@workflow
async def order(sdk: RuntaraSdk, cents: int) -> str:
    receipt = await charge(cents)
    await sdk.sleep(1, "cooling-off")
    return receipt
