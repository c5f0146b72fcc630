"""worker.py URL ID MODE: a block that says what it does and waits in MODE's way."""

import signal
import sys
import time

import trio

from runtara_trio import Outcome, SdkConfig, open_runtara

url, instance_id, mode = sys.argv[1:4]
lease_ms = int(sys.argv[4]) if len(sys.argv) > 4 else 30_000


async def main() -> None:
    config = SdkConfig(store=url, lease_ms=lease_ms)
    sdk = None
    try:
        async with open_runtara(
            config, instance_id=instance_id, tenant_id="t", pause_grace=60
        ) as sdk:
            found = await sdk.checkpoint("first", b"one")
            print("running", "again" if found.found else "new", flush=True)
            if mode == "wait":
                await trio.sleep_forever()
            elif mode == "sleep":
                await sdk.sleep(3600, "nap")
            elif mode == "compute":
                count = 0
                while True:
                    async with sdk.step():
                        until = time.perf_counter() + 0.005
                        while time.perf_counter() < until:
                            pass
                        count += 1
                    await trio.lowlevel.checkpoint()
            elif mode == "write-after-cont":
                with trio.open_signal_receiver(signal.SIGCONT) as continued:
                    print("listening", flush=True)
                    await anext(continued)
                with trio.CancelScope(shield=True):  # even where the renewal was first
                    await sdk.checkpoint("late", b"late")
            elif mode == "block":
                print("blocking", flush=True)
                time.sleep(60)
            elif mode == "write-100":
                for number in range(100):
                    await sdk.checkpoint(f"n{number}", b"x" * 200)
                    print("saved", number, flush=True)
            elif mode == "fork":
                import os

                if os.fork() == 0:
                    print("child", os.getpid(), flush=True)
                    time.sleep(60)
                    os._exit(0)
                await trio.sleep_forever()
            elif mode == "return":
                pass
            else:
                raise SystemExit(f"no mode {mode}")
    finally:
        if sdk is not None:
            print("ended", time.time(), sdk.outcome, flush=True)
            if sdk.outcome is Outcome.LOST:
                print("lost", flush=True)


trio.run(main)
