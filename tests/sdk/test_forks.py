"""Children that a program forks: they have none of its blocks, handlers and owners."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from ..helpers.places import Shared
from ..helpers.support import start

PROGRAM = """
import multiprocessing, os, signal, sys, time
import trio
from runtara_trio import durable, open_runtara

url, what = sys.argv[1:]
fork = multiprocessing.get_context("fork")


def square(n):
    return n * n


def waits(pipe):
    pipe.send("up")
    time.sleep(60)


def has_a_block(pipe):
    async def main():
        async with open_runtara(url, instance_id="child", tenant_id="t") as sdk:
            await sdk.checkpoint("mark")
            pipe.send("up")
            await trio.sleep_forever()

    trio.run(main)


def end_of(target):
    ours, theirs = fork.Pipe()
    child = fork.Process(target=target, args=(theirs,))
    child.start()
    assert ours.recv() == "up"
    child.terminate()
    child.join(20)
    ended = child.exitcode
    if ended is None:
        child.kill()
    return ended


@durable
def terminated() -> int | None:
    return end_of(waits)


@durable
def pooled() -> int:
    with fork.Pool(2) as pool:
        return sum(pool.map(square, range(10)))


def forks_again(pipe):
    ours, theirs = os.pipe()  # files of the child's own, under numbers that were ours
    with fork.Pool(2) as pool:
        pipe.send(sum(pool.map(square, range(10))))
    os.close(ours)


@durable
def twice() -> int:
    ours, theirs = fork.Pipe()
    child = fork.Process(target=forks_again, args=(theirs,))
    child.start()
    result = ours.recv() if ours.poll(20) else -1
    child.kill()
    return result


@durable
def nested() -> int | None:
    return end_of(has_a_block)


async def main():
    async with open_runtara(url, instance_id="parent", tenant_id="t") as sdk:
        print("result", await globals()[what]())
        await trio.sleep_forever()

trio.run(main)
"""


@pytest.mark.parametrize(
    ("what", "result"),
    [
        ("terminated", -signal.SIGTERM),
        ("pooled", 285),
        ("twice", 285),
        ("nested", 128 + signal.SIGTERM),
    ],
)
async def test_of_a_durable_call(tmp_path: Path, shared: Shared, what: str, result: int) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    async with start(program, shared.url, what) as parent:
        assert await parent.line("result") == f"result {result}"
        parent.send(signal.SIGTERM)  # the parent has its handler still
        assert await parent.wait() == 128 + signal.SIGTERM
