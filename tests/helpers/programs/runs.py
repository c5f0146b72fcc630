"""runs.py URL FOLDER OPTIONS: a worker whose runs say in a ledger what they do.

OPTIONS is JSON: ``lease_ms``, ``version``, ``terminates`` (at the first moment of its block),
``counts`` (its tasks, again and again, in a file of its own), and arguments of ``open_worker``.
The ledger is a file in FOLDER, to which all processes append; other files there are gates, which
the test opens by making them.
"""

import itertools
import json
import os
import signal
import sys
import time
from pathlib import Path

import trio

from runtara_trio import RuntaraSdk, SdkConfig, durable, open_worker, workflow

url, folder, options = sys.argv[1], Path(sys.argv[2]), json.loads(sys.argv[3])
version = options.pop("version", 1)
terminates = options.pop("terminates", False)
counts = options.pop("counts", False)
config = SdkConfig(store=url, lease_ms=options.pop("lease_ms", 30_000))

ledger = os.open(folder / "ledger", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
numbers = itertools.count()


def note(what: str, instance: str, step: object, token: str | None = None) -> str:
    """Append a line. A new token is this process and a number."""
    token = token or f"{os.getpid()}/{next(numbers)}"
    os.write(ledger, f"{what} {instance} {step} {token} {os.getpid()}\n".encode())
    return token


async def gate(name: str) -> None:
    while not (folder / name).exists():
        await trio.sleep(0.005)


@durable
async def step(instance: str, number: int, seconds: float) -> str:
    token = note("begin", instance, number)
    await trio.sleep(seconds)
    note("end", instance, number, token)
    return token


@workflow
async def steps(sdk: RuntaraSdk, count: int, seconds: float) -> list[str]:
    tokens = []
    for number in range(count):
        tokens.append(await step(sdk.instance_id, number, seconds))
        note("saved", sdk.instance_id, number, tokens[-1])
    return tokens


@durable
async def held(instance: str, number: int, name: str) -> str:
    token = note("begin", instance, number)
    await gate(name)
    note("end", instance, number, token)
    return token


@workflow(version=version)
async def job(sdk: RuntaraSdk, count: int, name: str) -> list[str]:
    """Steps that wait at a gate of this name."""
    tokens = [f"version {version}"]
    for number in range(count):
        tokens.append(await held(sdk.instance_id, number, name))
        note("saved", sdk.instance_id, number, tokens[-1])
    return tokens


@durable
async def block(instance: str) -> str:
    token = note("begin", instance, 0)
    while not (folder / "gate").exists():
        time.sleep(0.01)
    return token


@workflow
async def blocks(sdk: RuntaraSdk) -> list[str]:
    """The loop of the whole process is blocked."""
    return [await block(sdk.instance_id)]


@workflow
async def asks(sdk: RuntaraSdk, questions: list[str]) -> list[str]:
    note("asks", sdk.instance_id, 0)
    return [(await sdk.wait_for_signal(question)).decode() for question in questions]


@workflow
async def tree(sdk: RuntaraSdk, generations: int, children: int, seconds: float) -> list[str]:
    """A step, children that are trees, and a step."""
    tokens = [await step(sdk.instance_id, 0, seconds)]
    note("saved", sdk.instance_id, 0, tokens[-1])
    if generations:
        async with sdk.open_children("c") as below:
            args = generations - 1, children, seconds
            started = [await below.start(tree, *args, name=str(n)) for n in range(children)]
            for child in started:
                assert len(await child.result()) == 2
    tokens.append(await step(sdk.instance_id, 1, seconds))
    note("saved", sdk.instance_id, 1, tokens[-1])
    return tokens


@workflow
async def stays(sdk: RuntaraSdk, generations: int) -> None:
    """A chain of children; the last one waits for ever."""
    if generations:
        await sdk.call(stays, generations - 1, name="c")
    note("stays", sdk.instance_id, 0)
    try:
        await sdk.wait_for_signal("never")
    finally:
        note("left", sdk.instance_id, 0)


@workflow
async def poison(sdk: RuntaraSdk) -> str:
    """Kills its process, when others have begun there."""
    note("poison", sdk.instance_id, 0)
    await trio.sleep(0.2)
    if not (folder / "cure").exists():
        os.kill(os.getpid(), signal.SIGKILL)
    return "cured"


async def main() -> None:
    workflows = [steps, job, blocks, asks, tree, stays, poison]
    async with open_worker(config, workflows, **options) as worker:
        if terminates:
            signal.raise_signal(signal.SIGTERM)
        print("working", flush=True)
        while not worker.draining:
            if counts:
                tasks = trio.lowlevel.current_statistics().tasks_living
                (folder / f"tasks-{os.getpid()}").write_text(str(tasks))
            await trio.sleep(0.01)
        print("draining", flush=True)
        await trio.sleep_forever()


trio.run(main)
