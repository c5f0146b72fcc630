"""traced.py URL: a worker with an OpenTelemetry SDK. It says which span its run is, and hangs."""

import sys

import trio
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

trace.set_tracer_provider(TracerProvider())

from runtara_trio import RuntaraSdk, durable, open_worker, workflow  # noqa: E402


@durable
async def hang() -> None:
    await trio.sleep_forever()


@workflow
async def order(sdk: RuntaraSdk) -> None:
    context = trace.get_current_span().get_span_context()
    print("run", f"{context.trace_id:x}", f"{context.span_id:x}", flush=True)
    await hang()


async def main() -> None:
    async with open_worker(sys.argv[1], [order]):
        await trio.sleep_forever()


trio.run(main)
