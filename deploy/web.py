"""A web server that starts orders: ``uvicorn web:api``. Its workers are other processes."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request
from shop import order

from runtara_trio import aio


@asynccontextmanager
async def client(api: FastAPI) -> AsyncIterator[dict[str, aio.Client]]:
    url = os.environ["RUNTARA_DATABASE_URL"]
    async with aio.open_client(url, tenant_id="shop") as opened:
        yield {"client": opened}


api = FastAPI(lifespan=client)


@api.put("/orders/{id}")
async def begin(id: str, cents: int, request: Request) -> str:
    """Once for an id, however often it is asked: the start is an idempotent one."""
    handle = await request.state.client.start(order, cents, id=id)
    return str(handle.id)


@api.get("/orders/{id}")
async def result(id: str, request: Request) -> str:
    return str(await request.state.client.get(id, order).result(timeout=20))


@api.get("/healthz")
async def healthy(request: Request) -> int:
    return int(await request.state.client.count())
