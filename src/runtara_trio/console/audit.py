"""What people have done, the newest first."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from .live import Parts
from .pages import Console, url_with

PAGE = 100


async def show(console: Console, request: Request) -> Response:
    """The page."""
    instance = request.query_params.get("id") or None
    text = request.query_params.get("before", "")
    before = int(text) if text.isdecimal() and len(text) < 19 else None

    async def make() -> Parts:
        page = await console.ask(
            lambda op: op.audit(instance_id=instance, before=before, limit=PAGE)
        )
        following = None if page.next is None else url_with(request, before=page.next)
        return {
            "audit": console.part(request, "audit_rows.html", records=page.records, next=following)
        }

    return await console.show(request, "audit.html", make, "Audit", id=instance)
