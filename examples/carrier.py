"""A carrier's HTTP service, for examples/order.py: it hands out tracking numbers.

    pip install aiohttp
    python examples/carrier.py 8080

Like any service that wants to be called again after a crash, it knows its idempotency keys.
"""

import hashlib
import sys

from aiohttp import web

labels: dict[str, str] = {}


async def label(request: web.Request) -> web.Response:
    key = request.headers["Idempotency-Key"]
    order = await request.json()
    if key not in labels:
        labels[key] = hashlib.sha256(key.encode()).hexdigest()[:12].upper()
        print("label", labels[key], "for", order["parcel"], flush=True)
    return web.json_response({"tracking": labels[key]})


app = web.Application()
app.add_routes([web.post("/labels", label)])
web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]) if len(sys.argv) > 1 else 8080)
