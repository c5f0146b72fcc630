"""A Django view, which blocks, over workers that run on Trio.

    pip install django
    RUNTARA_DATABASE_URL=sqlite:///shop.db python examples/django_shop.py runserver
    cd examples && runtara-trio worker order_workflow --store sqlite:///../shop.db

    curl -X POST 'localhost:8000/orders/order-7?cents=1999'
    curl 'localhost:8000/orders/order-7?seconds=5'

All threads of a process share one client. It is opened by the first request, behind the fork of a
server that forks.
"""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack
from functools import cache

from django.conf import settings
from django.core.management import execute_from_command_line
from django.http import HttpRequest, JsonResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt

from runtara_trio import InstanceExists, InstanceFailed, InstanceStatus
from runtara_trio.blocking import Client, open_client

if not settings.configured:
    settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], SECRET_KEY="of an example")


opened = ExitStack()


@cache
def client() -> Client:
    """The client of this process; the process's end ends it."""
    url = os.environ.get("RUNTARA_DATABASE_URL", "sqlite:///shop.db")
    return opened.enter_context(open_client(url, tenant_id="shop"))


@csrf_exempt
def order(request: HttpRequest, order_id: str) -> JsonResponse:
    if request.method == "POST":
        try:
            client().start("order", int(request.GET["cents"]), id=order_id)
        except InstanceExists as exc:
            return JsonResponse({"error": str(exc)}, status=409)
        return JsonResponse({"order": order_id}, status=202)
    handle = client().get(order_id)
    try:
        result = handle.result(timeout=float(request.GET.get("seconds", 0)))
        return JsonResponse({"result": result})
    except InstanceFailed as exc:
        return JsonResponse({"status": exc.status})
    except TimeoutError:
        status = handle.status()
        code = 404 if status is InstanceStatus.UNKNOWN else 200
        return JsonResponse({"status": status}, status=code)


urlpatterns = [path("orders/<str:order_id>", order)]

if __name__ == "__main__":
    execute_from_command_line(sys.argv)
