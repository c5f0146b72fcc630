"""A FastAPI application, which runs on asyncio, over workers that run on Trio.

    pip install fastapi uvicorn
    RUNTARA_DATABASE_URL=sqlite:///shop.db uvicorn --app-dir examples fastapi_shop:app
    cd examples && runtara-trio worker order_workflow --store sqlite:///../shop.db

    curl -X POST 'localhost:8000/orders/order-7?cents=1999'
    curl 'localhost:8000/orders/order-7?seconds=5'

The client is one for the whole application. A request that its caller gives up cancels its wait,
and does nothing to the order.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, HTTPException, Request

from runtara_trio import InstanceExists, InstanceFailed, InstanceStatus
from runtara_trio.aio import open_client

URL = os.environ.get("RUNTARA_DATABASE_URL", "sqlite:///shop.db")


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with open_client(URL, tenant_id="shop") as app.state.client:
        yield


app = FastAPI(lifespan=lifespan)


@app.post("/orders/{order_id}", status_code=202)
async def start_order(order_id: str, cents: int, request: Request) -> dict[str, Any]:
    try:
        handle = await request.app.state.client.start("order", cents, id=order_id)
    except InstanceExists as exc:
        raise HTTPException(409, str(exc)) from exc
    return {"order": handle.id}


@app.get("/orders/{order_id}")
async def show_order(order_id: str, request: Request, seconds: float = 0) -> dict[str, Any]:
    handle = request.app.state.client.get(order_id)
    try:
        return {"result": await handle.result(timeout=seconds)}
    except InstanceFailed as exc:
        return {"status": exc.status}
    except TimeoutError as exc:
        status = await handle.status()
        if status is InstanceStatus.UNKNOWN:
            raise HTTPException(404, f"there is no order {order_id}") from exc
        return {"status": status}
