"""A web server that starts workflows; its worker is in the same process, or elsewhere.

    pip install quart-trio
    python examples/web_shop.py sqlite:///shop.db 8000

    curl -X POST localhost:8000/orders/order-7 --json '{"cents": 1999}'
    curl -X POST localhost:8000/orders/order-7/packed -d 'ana'
    curl localhost:8000/orders/order-7/result

Kill the server and start it again: its worker goes on with every order that has not ended.
Start it with --no-worker, and other processes do the work, as many as you like:

    python examples/web_shop.py sqlite:///shop.db 8000 --no-worker
    cd examples && runtara-trio worker web_shop --store sqlite:///../shop.db
"""

from __future__ import annotations

import argparse
import signal
from contextlib import nullcontext
from typing import Any

import trio
from hypercorn.config import Config
from hypercorn.trio import serve
from quart import request
from quart_trio import QuartTrio

from runtara_trio import (
    Client,
    ConfigError,
    InstanceExists,
    InstanceFailed,
    InstanceHandle,
    RuntaraSdk,
    ServerError,
    SignalRefused,
    current_sdk,
    durable,
    open_backend,
    open_client,
    open_worker,
    workflow,
)

Answer = tuple[dict[str, Any], int]


@durable
async def charge(cents: int) -> str:
    return await pay(current_sdk().step_key, cents)


async def pay(key: str, cents: int) -> str:
    """Stands for a payment service, which knows its idempotency keys."""
    await trio.sleep(0.01)
    return f"receipt for {cents} cents"


@workflow
async def order(sdk: RuntaraSdk, cents: int) -> str:
    receipt = await charge(cents)
    packer = await sdk.wait_for_signal("packed")
    return f"{receipt}, packed by {packer.decode()}"


def make_app(client: Client) -> QuartTrio:
    app = QuartTrio(__name__)

    async def found(order_id: str) -> InstanceHandle[str]:
        handle = client.get(order_id, order)
        await handle.show()  # raises ServerError where it does not exist
        return handle

    @app.post("/orders/<order_id>")
    async def create(order_id: str) -> Answer:
        # Answered when the order is on disk. Sent again, it is the same order.
        handle = await client.start(order, (await request.get_json())["cents"], id=order_id)
        return {"order": handle.id}, 202

    @app.get("/orders/<order_id>")
    async def show(order_id: str) -> Answer:
        return {"status": await (await found(order_id)).status()}, 200

    @app.get("/orders/<order_id>/result")
    async def result(order_id: str) -> Answer:
        seconds = request.args.get("seconds", 20.0, type=float)
        try:
            return {"result": await (await found(order_id)).result(timeout=seconds)}, 200
        except trio.TooSlowError:
            return {"order": order_id}, 202  # ask again

    @app.post("/orders/<order_id>/packed")
    async def packed(order_id: str) -> Answer:
        await (await found(order_id)).signal("packed", await request.get_data())
        return {"order": order_id}, 202

    @app.post("/orders/<order_id>/cancel")
    async def cancel(order_id: str) -> Answer:
        return {"answer": (await (await found(order_id)).cancel()).text}, 202

    @app.errorhandler(ConfigError)
    async def invalid(error: Exception) -> Answer:
        return {"error": str(error)}, 400

    @app.errorhandler(ServerError)
    async def unknown(error: Exception) -> Answer:
        return {"error": str(error)}, 404

    @app.errorhandler(InstanceExists)
    @app.errorhandler(InstanceFailed)
    @app.errorhandler(SignalRefused)
    async def refused(error: Exception) -> Answer:
        return {"error": str(error)}, 409

    return app


async def main(url: str, port: int, *, works: bool) -> None:
    config = Config()
    config.bind = [f"127.0.0.1:{port}"]
    async with open_backend(url, create=True) as backend:
        # The server handles SIGTERM, so the worker need not. Its block drains when it is left.
        worker = open_worker(backend, [order], stop_signals=()) if works else nullcontext()
        async with open_client(backend, tenant_id="shop") as client, worker:
            with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
                await serve(
                    make_app(client),
                    config,
                    shutdown_trigger=lambda: anext(signals),  # type: ignore[arg-type]
                )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A web server that starts workflows.")
    parser.add_argument("url")
    parser.add_argument("port", type=int)
    parser.add_argument("--no-worker", action="store_true", help="others do the work")
    arguments = parser.parse_args()
    trio.run(lambda: main(arguments.url, arguments.port, works=not arguments.no_worker))
