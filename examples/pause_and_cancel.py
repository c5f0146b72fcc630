"""A pause between two steps, a cancel anywhere, and clean-up after both.

    python examples/pause_and_cancel.py

From another terminal, in the same folder:

    runtara-trio pause  report --store sqlite:///report.db
    runtara-trio cancel report --store sqlite:///report.db

A pause lets the page that is being written be finished; start the program again and it
goes on with the next one. A cancel stops it at once, as any cancelled scope of Trio.
"""

import trio

from runtara_trio import InstanceFinished, durable, open_runtara


@durable
async def write_page(page: int) -> str:
    print("begun", page, flush=True)
    await trio.sleep(0.5)
    print("written", page, flush=True)
    return f"text of page {page}"


async def write_report() -> int:
    length = 0
    try:
        for page in range(1, 21):
            length += len(await write_page(page))
    finally:
        # Clean-up shields itself, as anywhere in Trio. What ends the block is decided
        # already: nothing that happens here can swallow a cancel.
        with trio.CancelScope(shield=True):
            await trio.sleep(0.01)
            print("put the pen away", flush=True)
    return length


async def main() -> None:
    async with open_runtara("sqlite:///report.db", instance_id="report", tenant_id="me") as sdk:
        await sdk.completed(await write_report())
    print(sdk.outcome)


if __name__ == "__main__":
    try:
        trio.run(main)
    except InstanceFinished as finished:
        print(f"nothing to do: {finished.status} before; remove report.db to begin anew")
