"""starts.py URL GATE COUNT: starts instances, as another process does at the same moment."""

import sys
from pathlib import Path

import trio

from runtara_trio import InstanceExists, open_client

url, gate, count = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])


async def main() -> None:
    async with open_client(url, tenant_id="t") as client:
        await client.list_workers()
        print("ready", flush=True)
        while not gate.exists():
            pass
        for number in range(count):
            handle = await client.start("steps", 2, 0.0, id=f"both{number}", version=1)
            print("result", handle.id, *await handle.result(list[str], timeout=25), flush=True)
            try:
                await client.start("steps", 1, 0.0, id=f"one{number}", if_exists="fail", version=1)
            except InstanceExists:
                print("exists", f"one{number}", flush=True)
            else:
                print("made", f"one{number}", flush=True)


trio.run(main)
