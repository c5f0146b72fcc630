"""Many instances on one backend in a web server, and signals from its handlers.

    pip install quart-trio
    python examples/web_server.py sqlite:///shop.db 8000

    curl -X POST localhost:8000/orders/order-7 --json '{"cents": 1999}'
    curl localhost:8000/orders/order-7
    curl -X POST localhost:8000/orders/order-7/decision -d yes
    curl -X POST localhost:8000/orders/order-7/cancel

Each order is an instance that waits for a decision. All share one backend, so ten thousand
of them cost as many statements a second as one. Kill the server and start it again: it
goes on with every order that has not ended.
"""

from __future__ import annotations

import logging
import signal
import sys

import trio
from hypercorn.config import Config
from hypercorn.trio import serve
from quart import request
from quart_trio import QuartTrio

from runtara_trio import (
    InstanceStatus,
    Operator,
    RegistrationError,
    RuntaraSdk,
    ServerError,
    SharedBackend,
    SignalRefused,
    current_sdk,
    durable,
    open_backend,
    open_runtara,
)

log = logging.getLogger("shop")


class NotBegun(Exception):
    """An order that was paused or cancelled, or its process killed, before it was stored."""


async def run_order(
    backend: SharedBackend,
    order_id: str,
    cents: int | None = None,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """One order: new where ``cents`` is given, else one that an earlier process began."""
    stored = False
    try:
        # The server handles SIGTERM itself, so its blocks need not.
        async with open_runtara(
            backend, instance_id=order_id, tenant_id="shop", stop_signals=()
        ) as sdk:
            if cents is not None:
                await sdk.checkpoint("order", cents)
            elif await sdk.get_checkpoint("order") is None:
                await sdk.suspended("killed before it was stored")
                raise NotBegun(f"{order_id} was never accepted: send it again")
            stored = True
            task_status.started()
            await carry_out(sdk)
    except Exception:
        if not stored:
            raise  # to the one who asked for it
        log.exception("order %s", order_id)  # recorded as failed; the server goes on
    if not stored:  # the block ended like any cancelled scope, without an error
        raise NotBegun(f"{order_id} was {sdk.outcome} before it was stored")


@durable
async def charge(cents: int | None) -> None:
    await pay(current_sdk().step_key, cents)


async def pay(key: str, cents: int | None) -> None:
    """Stands for a payment service, which knows its idempotency keys."""
    await trio.sleep(0.01)


async def carry_out(sdk: RuntaraSdk) -> None:
    cents = await sdk.get_checkpoint("order", int)
    decision = await sdk.wait_for_signal("decision")
    if decision == b"yes":
        await charge(cents)
    await sdk.completed({"decision": decision.decode(), "cents": cents})


async def go_on(backend: SharedBackend, nursery: trio.Nursery) -> None:
    """Start what an earlier process left unfinished."""
    unfinished = {InstanceStatus.RUNNING, InstanceStatus.SUSPENDED}
    before = None
    while True:
        page = await Operator(backend).list(statuses=unfinished, before=before)
        for one in page.instances:
            try:
                await nursery.start(run_order, backend, one.instance_id)
            except (RegistrationError, NotBegun) as exc:  # run by another server, say
                log.warning("%s", exc)
        before = page.next
        if before is None:
            return


def make_app(backend: SharedBackend, nursery: trio.Nursery) -> QuartTrio:
    app = QuartTrio(__name__)
    operator = Operator(backend)

    @app.post("/orders/<order_id>")
    async def create(order_id: str) -> tuple[dict[str, str], int]:
        cents = (await request.get_json())["cents"]
        # Answered when the order is stored: from then on it will be carried out.
        await nursery.start(run_order, backend, order_id, cents)
        return {"order": order_id}, 202

    @app.get("/orders/<order_id>")
    async def show(order_id: str) -> dict[str, str | None]:
        details = await operator.show(order_id)
        output = None if details.output is None else details.output.decode()
        return {"status": details.summary.status.value, "output": output}

    @app.post("/orders/<order_id>/decision")
    async def decide(order_id: str) -> tuple[dict[str, str], int]:
        await operator.send_signal(order_id, "decision", await request.get_data())
        return {"order": order_id}, 202

    @app.post("/orders/<order_id>/cancel")
    async def cancel(order_id: str) -> tuple[dict[str, str], int]:
        return {"order": order_id, "answer": (await operator.cancel(order_id)).text}, 202

    @app.errorhandler(RegistrationError)
    @app.errorhandler(SignalRefused)
    @app.errorhandler(NotBegun)
    async def refused(error: Exception) -> tuple[dict[str, str], int]:
        return {"error": str(error)}, 409

    @app.errorhandler(ServerError)
    async def unknown(error: Exception) -> tuple[dict[str, str], int]:
        return {"error": str(error)}, 404

    return app


async def main(url: str, port: int) -> None:
    config = Config()
    config.bind = [f"127.0.0.1:{port}"]
    async with open_backend(url, create=True) as backend, trio.open_nursery() as nursery:
        await go_on(backend, nursery)
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            await serve(
                make_app(backend, nursery),
                config,
                shutdown_trigger=lambda: anext(signals),  # type: ignore[arg-type]
            )
        nursery.cancel_scope.cancel()  # every block is suspended; the next start goes on


if __name__ == "__main__":
    trio.run(main, sys.argv[1], int(sys.argv[2]))
